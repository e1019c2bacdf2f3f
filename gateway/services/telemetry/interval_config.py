"""Configures the intervals of each device: its programs give the length, its product the step of its counters."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gateway.clock import Clock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.engine import Engine
from gateway.domain.types import DeviceId
from gateway.services.telemetry.recorder import Recorder

DEVICES = 2_048
"""Of which a change is agreed on in one step."""


def unheard(replaced: Mapping[DeviceId, int], fleet: Fleet, engine: Engine) -> set[int]:
    """Slots where another battery answers since then (`replaced`, UTC ms) that has told no energy since."""
    slots = {fleet.slot_of[device]: at_ms for device, at_ms in replaced.items() if device in fleet.slot_of}
    return {slot for slot, at_ms in slots.items() if slot < engine.n and engine.newest.t_ms[slot] < at_ms}


class IntervalConfigs:
    """Keeps the recorder's interval config that of the fleet. `lengths` in s by the tag of a program; a device with
    several has the shortest, one with none that of the rules."""

    def __init__(self, *, fleet: Fleet, recorder: Recorder, clock: Clock, lengths: Mapping[str, int]) -> None:
        self._fleet = fleet
        self._recorder = recorder
        self._clock = clock
        self._lengths = sorted(lengths.items(), key=lambda item: -item[1])
        self._version = -1

    async def update(self) -> None:
        """Agree on what has changed since the last call, a slice of devices at a time; where the recorder has no room
        for it, at the next one."""
        if self._version == self._fleet.version or not self._recorder.room:
            return
        version = self._fleet.version
        n, plate = self._fleet.n, self._fleet.nameplate
        length_s = np.full(n, self._recorder.engine.rules.length_s, dtype=np.int64)
        for tag, seconds in self._lengths:
            members = self._fleet.tags.get(tag)
            if members:
                length_s[list(members)] = seconds
        agreed = AgreedConfig(
            slots=np.arange(n, dtype=np.int32),
            length_s=length_s,
            counter_step_wh=plate.counter_step_wh[:n].astype(np.float64),
            rated_w=np.maximum(plate.discharge_w_max[:n], plate.charge_w_max[:n]),
        )
        if not await self._begin_anew(agreed):
            return
        # of a device that is not registered now nobody says anything else than before
        new = np.flatnonzero(self._recorder.engine.differs(agreed) & plate.registered[:n])
        for at in range(0, len(new), DEVICES):
            if not await self._agree(agreed.rows(new[at : at + DEVICES])):
                return
        self._version = version

    async def _begin_anew(self, agreed: AgreedConfig) -> bool:
        """Where another battery answers, neither its counters nor that it has some go on from the one before. A change
        between counters that are fine enough and those that are not says so; what is agreed on next takes it back."""
        renewed = np.array(sorted(self._fleet.renewed), dtype=np.int64)
        for at in range(0, len(renewed), DEVICES):
            some = agreed.rows(renewed[at : at + DEVICES])
            other = replace(some, counter_step_wh=np.where(some.coarse, np.nan, np.inf))
            if not await self._agree(other):
                return False
            self._fleet.renewed.difference_update(some.slots.tolist())
        return True

    async def _agree(self, agreed: AgreedConfig) -> bool:
        async with self._recorder.step():
            if not self._recorder.room:
                return False
            self._recorder.agree(agreed, self._clock.now())
            return True
