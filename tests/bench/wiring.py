"""The gateway's telemetry path as the composition root wires it, around a bench's own broker and fleet."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.clock import SystemClock
from gateway.domain.energy import Rules
from gateway.domain.fleet import Fleet
from gateway.domain.intervals import Engine
from gateway.domain.model import AckBatch, Device, DeviceId
from gateway.links.mqtt import MqttLink, MqttLinkSettings
from gateway.profiles.codec import Codec
from gateway.profiles.loader import load_profiles
from gateway.services.ingest import Ingest
from gateway.storage.recorder import Recorder
from gateway.storage.recovery import Unlogged
from gateway.transports.mqtt.settings import MqttSettings
from tests.bench.blaster import DEVICE

PROFILES = Path(__file__).parents[2] / "device_profiles"


class CountingLog:
    """Counts what would go to the interval log; benches of the log itself use the real one."""

    def __init__(self) -> None:
        self.rows = 0

    async def append(self, entries: Sequence[Unlogged]) -> int:
        added = sum(len(entry.closes) for entry in entries)
        self.rows += added
        return added


@dataclass(slots=True)
class Wired:
    """The parts a bench looks at."""

    fleet: Fleet
    link: MqttLink
    ingest: Ingest
    recorder: Recorder
    log: CountingLog
    clock: SystemClock


def reference() -> Codec:
    return load_profiles(PROFILES)["reference-mqtt"]


def make_fleet(devices: int, codec: Codec) -> Fleet:
    """A fleet named as the blaster names it."""
    fleet = Fleet()
    for i in range(devices):
        device = Device(
            id=DeviceId(DEVICE.format(i)),
            profile=codec.name,
            site=f"site-{i}",
            feeder=f"feeder-{i // 50}",
            capacity_wh=13_500,
            discharge_w_max=5_000,
            charge_w_max=5_000,
            reserve_pct=20,
            export_allowed=True,
            grid_charge_allowed=True,
            site_import_w_max=float("inf"),
            site_export_w_max=float("inf"),
        )
        fleet.enroll(device, codec.facts)
    return fleet


@asynccontextmanager
async def wired(
    port: int, devices: int, *, on_acks: Callable[[AckBatch], None] = lambda _batch: None
) -> AsyncIterator[Wired]:
    """A running telemetry path against the broker on `port`, with its spool on the real file system."""
    clock = SystemClock()
    codec = reference()
    fleet = make_fleet(devices, codec)
    settings = MqttLinkSettings(broker=MqttSettings(url=f"mqtt://127.0.0.1:{port}", client_id="bench"))
    link = MqttLink(settings, codecs=[codec], fleet=fleet, clock=clock)
    rules = Rules(length_s=300)
    engine = Engine(rules)
    recorder = Recorder(engine, ids=fleet.ids)
    log = CountingLog()
    ingest = Ingest(fleet=fleet, recorder=recorder, log_=log, clock=clock, on_acks=on_acks, on_logged=lambda: None)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd()) as directory:
        async with recorder.open_spool(Path(directory) / "spool", first_record=1, on_durable=ingest.durable):
            recorder.begin(rules, clock.now())
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(link.run(ingest.emitter(link)), name="link"),
                    group.create_task(ingest.run(), name="ingest"),
                ]
                try:
                    yield Wired(fleet=fleet, link=link, ingest=ingest, recorder=recorder, log=log, clock=clock)
                finally:
                    for task in tasks:
                        task.cancel()
