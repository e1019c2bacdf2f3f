"""One life of the telemetry path with what is kept raw: a broker's packets in, acknowledgements and intervals out.

The link, the registry, the spool, the recovery and the raw store are real; the journal is in memory and
outlives a life, as the directory does.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mqtt5
import orjson

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import RawMessage
from gateway.links.mqtt.messages import MqttLink, MqttLinkSettings
from gateway.profiles.compile import Codec
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.telemetry.ingest import Ingest
from gateway.services.telemetry.raw import RawMessages
from gateway.services.telemetry.raw_replay import RawReplay
from gateway.services.telemetry.recorder import Recorder
from gateway.storage.raw_messages import RawStore
from gateway.transports.mqtt.connection import OnMessages
from gateway.transports.mqtt.settings import MqttSettings
from tests.builders.energy_batches import T0
from tests.builders.fakes import MemoryJournal, message_product
from tests.scenes.recorder_histories import restarted
from tests.scenes.telemetry import Told
from tests.scenes.waiting import service

RULES = IntervalRules(length_s=60, grace_s=5)
ROOM = 1 << 30


@dataclass
class Session:
    """A session at a broker: what was acknowledged, by packet id. The test decides what it sends while `paused`."""

    on_messages: OnMessages
    acknowledged: list[int] = field(default_factory=list)
    dropped: int = 0
    paused: bool = False

    def acknowledge(self, _generation: int, packet_ids: Sequence[int]) -> None:
        self.acknowledged += packet_ids

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def drop(self) -> None:
        self.dropped += 1


class Disk(RawStore):
    """A store whose disk may be `full`."""

    full = False

    async def add(self, messages: Sequence[RawMessage], received_ms: int) -> None:
        if self.full:
            raise StorageError("raw.sqlite: disk full")
        await super().add(messages, received_ms)


@dataclass(kw_only=True)
class Life:
    """A running process. `packets` counts what was sent, from 1 on in every life."""

    clock: ManualClock
    fleet: Fleet
    registry: DeviceRegistry
    link: MqttLink
    raw: RawMessages
    replay: RawReplay
    recorder: Recorder
    ingest: Ingest
    disk: Disk
    packets: int = 0

    @property
    def telemetry(self) -> Session:
        return self.link.telemetry  # type: ignore[return-value]

    def send(self, *messages: tuple[str, bytes]) -> list[int]:
        """One read of the broker's: topic and payload each. Returns their packet ids."""
        ids = []
        packets = []
        for topic, payload in messages:
            self.packets += 1
            ids.append(self.packets)
            packets.append(
                mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=self.packets)
            )  # fmt: skip
        self.telemetry.on_messages(1, packets, ids)
        return ids

    async def intervals(self, device: str) -> dict[int, float]:
        """Energy charged (Wh) by start of the interval (s since `T0`), once all that is due is closed."""
        now = self.clock.now()
        while self.recorder.close_due(now):
            pass
        await self.recorder.spool.wait_durable(self.recorder.spool.last_record)
        slot = self.fleet.slot_of[device]
        newest: dict[int, tuple[int, float]] = {}
        for found in self.recorder.unlogged(rows=1 << 30):
            records = found.records
            for at in (records.slots == slot).nonzero()[0].tolist():
                known = (int(records.revision[at]), float(records.charge_wh[at]))
                start = (int(records.start_ms[at]) - T0) // 1000
                newest[start] = max(newest.get(start, (0, 0.0)), known)
        return {start: wh for start, (_, wh) in sorted(newest.items())}


def energy(device: str, seq: int, t_ms: int, charge_wh: float, **other: Any) -> tuple[str, bytes]:
    """A settlement message of the reference product."""
    body = {
        "id": device, "boot": 1, "seq": seq, "t": t_ms, "span_ms": 10_000, "charge_counter_wh": charge_wh,
        "discharge_counter_wh": 0.0,
    }  # fmt: skip
    return topic(device), orjson.dumps(body | other)


def topic(device: str) -> str:
    return f"gateway/v1/devices/{device}/energy"


@asynccontextmanager
async def life(
    directory: Path,
    journal: MemoryJournal,
    *,
    clock: ManualClock | None = None,
    codecs: Mapping[str, Codec] | None = None,
    most_bytes: int = ROOM,
    replaying: bool = True,
    loaded: bool = True,
) -> AsyncIterator[Life]:
    """A process from its start to its end. What is not durable then is lost: nothing is written at the end."""
    clock = clock or ManualClock(utc_ms=T0)
    installed = {"p": message_product("p")} if codecs is None else dict(codecs)
    fleet = Fleet()
    registry = DeviceRegistry(fleet=fleet, journal=journal, codecs=installed, clock=clock)
    remembered = journal.load()
    registry.load(remembered.devices, removed=remembered.removed)
    with patch("gateway.links.mqtt.messages.MqttConnection", _session):
        link = MqttLink(
            MqttLinkSettings(broker=MqttSettings(url="mqtt://127.0.0.1:1", client_id="t")),
            codecs=list(installed.values()), fleet=fleet, clock=clock,
        )  # fmt: skip
    found = restarted(directory, fleet.ids, rules=RULES)
    recorder = Recorder(found.engine, ids=fleet.ids, clock=clock, unlogged=found.unlogged)
    spool = recorder.open_spool(directory / "spool", first_record=found.next_record, corrupt=found.corrupt)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(spool)
        recorder.begin(RULES, clock.now())
        disk = await stack.enter_async_context(Disk(directory))
        raw = RawMessages(
            disk, reader=link.raw, clock=clock, journal=journal, registered=fleet.slot_of,
            orphans=registry.devices.orphans, most_bytes=most_bytes,
        )  # fmt: skip
        if loaded:
            await raw.load()
        ingest = Ingest(fleet=fleet, recorder=recorder, clock=clock, wall=clock, answers=Told(), lengths={}, raw=raw)
        link.emit = ingest.emitter(link, sender=link)
        replay = RawReplay(raw, reader=link.raw, recorder=ingest)
        await stack.enter_async_context(service(ingest.run))
        if replaying:
            await stack.enter_async_context(service(replay.run))
        yield Life(
            clock=clock, fleet=fleet, registry=registry, link=link, raw=raw, replay=replay, recorder=recorder,
            ingest=ingest, disk=disk,
        )  # fmt: skip


def _session(
    settings: MqttSettings, *, clock: object, subscriptions: object, on_messages: OnMessages, name: str
) -> Session:
    del settings, clock, subscriptions, name
    return Session(on_messages)
