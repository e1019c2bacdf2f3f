"""Reads settlement messages again that could not be read, or were of nobody, when they came."""

from collections.abc import Collection, Sequence

import numpy as np

from gateway.domain.fleet.fleet import Fleet
from gateway.domain.readings import EnergyBatch, RawMessage
from gateway.domain.types import DeviceId
from gateway.links.mqtt.lanes import Lane, Rows
from gateway.ports.links import ReadAgain
from gateway.profiles.compiled.messages import MessageRefused


class RawEnergy:
    """Implements `gateway.ports.links.RawReader` for settlement messages on topics."""

    def __init__(self, fleet: Fleet, lanes: Sequence[Lane]) -> None:
        self.behind: Collection[str] = frozenset()
        self._fleet = fleet
        self._lanes = lanes

    def device(self, topic: str) -> DeviceId | None:
        found = self._found(topic)
        return None if found is None else found[1]

    def waits_for(self, topic: str) -> str:
        found = self._found(topic)
        if found is None:
            return "no installed profile has this topic"
        lane, device = found
        slot, texts = self._fleet.slot_of.get(device), self._fleet.profiles.texts
        if slot is None:
            return "its device is not registered"
        registered = int(self._fleet.nameplate.profile[slot])
        if registered != lane.profile:
            return f"it speaks as {texts[lane.profile]}, its device is registered as {texts[registered]}"
        return ""

    def read(self, messages: Sequence[RawMessage]) -> ReadAgain:
        batches = {lane.profile: Rows(lane) for lane in self._lanes}
        problems: dict[int, str] = {}
        for at, message in enumerate(messages):
            found = self._found(message.topic)
            if found is None or self.waits_for(message.topic):
                problems[at] = ""
                continue
            lane, device = found
            try:
                row, _ = lane.decoder.reread(message.payload, device)
            except MessageRefused as refused:
                problems[at] = refused.reason
                continue
            batch = batches[lane.profile]
            batch.slots.append(self._fleet.slot_of[device])
            batch.rows.append(row)
        energy = [_energy(batch) for batch in batches.values() if batch.rows]
        return ReadAgain(energy=energy, problems=problems)

    def foreign(self, batch: Rows, topics: Sequence[tuple[str, bytes]]) -> list[RawMessage]:
        """The messages of a lane whose device is registered as another product."""
        lane, profile, slot_of = batch.lane, self._fleet.nameplate.profile, self._fleet.slot_of
        out = []
        for topic, payload in topics:
            device = lane.route.device(topic)
            slot = None if device is None else slot_of.get(device)
            if slot is not None and profile[slot] != lane.profile:
                out.append(RawMessage(topic=topic, payload=payload))
        return out

    def _found(self, topic: str) -> tuple[Lane, DeviceId] | None:
        for lane in self._lanes:
            device = lane.route.device(topic)
            if device is not None:
                return lane, DeviceId(device)
        return None


def _energy(batch: Rows) -> EnergyBatch:
    return EnergyBatch(
        slots=np.array(batch.slots, dtype=np.int32), **batch.lane.decoder.to_columns(batch.rows)
    )  # fmt: skip
