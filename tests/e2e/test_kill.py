"""SIGKILL under load: what was acknowledged is counted, once, and arrives once; judged from outside the gateway.

Devices without counters: every message carries its own energy, so a message lost or counted twice shows in the sum.
The acknowledgements are recorded on the wire by a tap (mosquitto) and by the stand-in broker itself.
"""

import asyncio
import json
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import orjson
import pytest

from simulators.platform import Platform
from tests.e2e.rig import Daemon, eventually, now_ms, running
from tests.e2e.tap import Tap
from tests.scenes.brokers import mosquitto_process, standin_process

pytestmark = pytest.mark.e2e

DEVICES = tuple(f"home-{i:02d}" for i in range(50))
LENGTH_S = 10
GRACE_S = 1
PERIOD_MS = 100
SPAN_MS = 60
REPEATED = 0.1

QUIET = logging.getLogger("tests.meters")
QUIET.setLevel(logging.ERROR)

Key = tuple[str, int]
"""Device and sequence number: one boot each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One message: the interval it lies in, and its energy in 1/64 Wh, so that sums are exact."""

    start_ms: int
    charge_64: int
    discharge_64: int


@dataclass(slots=True)
class Meters:
    """Fifty devices that send a message every 100 ms; `sent` is the reference."""

    port: int
    rng: random.Random
    sent: dict[Key, Sent] = field(default_factory=dict)
    confirmed: set[Key] = field(default_factory=set)
    stopping: bool = False

    async def run(self) -> None:
        """Until `stopping`; then every message has been taken by the broker."""
        async with aiomqtt.Client(
            "127.0.0.1", self.port, identifier="meters", protocol=aiomqtt.ProtocolVersion.V5, logger=QUIET
        ) as client:
            seq, tick = 0, now_ms() // PERIOD_MS
            while not self.stopping:
                seq, tick = seq + 1, tick + 1
                wait_s = (tick * PERIOD_MS - now_ms()) / 1000
                await asyncio.sleep(max(0.0, wait_s))
                bodies = [self._body(device, seq, tick * PERIOD_MS - 10) for device in DEVICES]
                await asyncio.gather(*(self._send(client, *body) for body in bodies))

    def _body(self, device: str, seq: int, t_ms: int) -> tuple[str, int, bytes]:
        charge, discharge = self.rng.choice(((0, self.rng.randint(1, 5)), (self.rng.randint(1, 5), 0)))
        start_ms = t_ms // (LENGTH_S * 1000) * LENGTH_S * 1000
        self.sent[device, seq] = Sent(start_ms=start_ms, charge_64=charge, discharge_64=discharge)
        body = {
            "id": device, "boot": 1, "seq": seq, "t": t_ms, "span_ms": SPAN_MS,
            "charge_wh": charge / 64, "discharge_wh": discharge / 64, "battery_w": 100, "soc_pct": 50,
        }  # fmt: skip
        return device, seq, orjson.dumps(body)

    async def _send(self, client: aiomqtt.Client, device: str, seq: int, body: bytes) -> None:
        topic = f"gateway/v1/devices/{device}/energy"
        await client.publish(topic, body, qos=1)
        self.confirmed.add((device, seq))
        if self.rng.random() < REPEATED:
            # As firmware does that missed the acknowledgement.
            await client.publish(topic, body, qos=1)


def keys(payloads: Iterable[bytes]) -> set[Key]:
    return {(body["id"], body["seq"]) for body in map(orjson.loads, payloads)}


@dataclass(slots=True)
class Scene:
    """What a round needs."""

    daemon: Daemon
    meters: Meters
    platform: Platform
    acknowledged: Callable[[], list[bytes]]


@asynccontextmanager
async def scene(
    directory: Path, daemon_port: int, broker_port: int, acks: Callable[[], list[bytes]]
) -> AsyncIterator[Scene]:
    platform = Platform()
    meters = Meters(broker_port, random.Random(5))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(platform.run(), name="platform")
        await asyncio.wait_for(platform.ready.wait(), 20)
        change = {
            "sinks": [{"kind": "http", "name": "platform", "url": platform.url, "timeout_s": 5}],
            "intervals": {"length_s": LENGTH_S, "grace_s": GRACE_S},
        }
        daemon = Daemon(directory, daemon_port, change)
        await daemon.enroll(DEVICES)
        try:
            # The gateway subscribes before the first message: what nobody subscribes to, no broker keeps.
            async with running(daemon):
                await daemon.ready()
                sending = tasks.create_task(meters.run(), name="meters")
                await eventually(lambda: len(acks()) > 100, "first acknowledgements", alive=daemon.child)
            yield Scene(daemon, meters, platform, acks)
        finally:
            meters.stopping = True
            await sending
            serving.cancel()


async def kill_round(s: Scene, rng: random.Random) -> None:
    """Start, wait for a random number of acknowledgements, SIGKILL."""
    async with running(s.daemon):
        before, more = len(s.acknowledged()), rng.randint(1, 600)
        await eventually(lambda: len(s.acknowledged()) >= before + more, "acknowledgements", alive=s.daemon.child)


async def checkpoint_round(s: Scene) -> None:
    """Start, wait for a checkpoint, SIGKILL: the next start goes on from it."""
    state = s.daemon.directory / "state"

    def stamps() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in state.glob("*.checkpoint")}

    async with running(s.daemon):
        before = stamps()
        await eventually(lambda: stamps() != before, "a checkpoint", alive=s.daemon.child)


async def drained(s: Scene) -> None:
    """Stop sending; let the gateway take everything, close and deliver it; SIGTERM."""
    async with running(s.daemon):
        s.meters.stopping = True
        await eventually(
            lambda: len(keys(s.acknowledged())) == len(s.meters.sent), "everything acknowledged", alive=s.daemon.child
        )
        wanted = Counter((device, sent.start_ms) for (device, _), sent in s.meters.sent.items())

        def arrived() -> bool:
            latest = s.platform.by_http.latest()
            return all(key in latest and latest[key].samples >= count for key, count in wanted.items())

        await eventually(arrived, "every interval at the platform", alive=s.daemon.child)
        assert await s.daemon.stop() == 0


def judge(s: Scene) -> None:
    sent = s.meters.sent
    acknowledged = keys(s.acknowledged())
    assert s.meters.confirmed == set(sent)
    assert acknowledged <= set(sent)
    sent_by = Counter((device, found.start_ms) for (device, _), found in sent.items())
    acked_by = Counter((key[0], sent[key].start_ms) for key in acknowledged)
    charge: Counter[Key] = Counter()
    discharge: Counter[Key] = Counter()
    for (device, _), found in sent.items():
        charge[device, found.start_ms] += found.charge_64
        discharge[device, found.start_ms] += found.discharge_64
    latest = s.platform.by_http.latest()
    assert set(latest) == set(sent_by)
    for key, row in latest.items():
        assert acked_by[key] <= row.samples <= sent_by[key], key
        assert (row.charge_wh, row.discharge_wh) == (charge[key] / 64, discharge[key] / 64), key
    ledger = s.platform.by_http
    assert (ledger.conflicting, ledger.rejected) == (0, {})
    assert (s.platform.stats.keys_reused, s.platform.stats.bad_requests) == (0, 0)
    problems = [
        line for line in s.daemon.log_lines() if line["message"] == "recovery met damage" or "traceback" in line
    ]
    assert problems == []


@pytest.mark.fault("F37")
async def test_gateway_killed_twenty_times_under_load_counts_every_message_once(tmp_path: Path) -> None:
    rng = random.Random(11)
    async with mosquitto_process(tmp_path) as broker, Tap(broker.port) as tap:
        async with scene(tmp_path, tap.port, broker.port, lambda: tap.acknowledged) as s:
            for number in range(20):
                if number in (6, 13):
                    await checkpoint_round(s)
                else:
                    await kill_round(s, rng)
            await drained(s)
        judge(s)
        assert tap.strange == 0
        assert len(s.meters.sent) > 5_000


async def test_gateway_killed_against_the_stand_in_keeps_what_the_broker_saw_acknowledged(tmp_path: Path) -> None:
    rng, log = random.Random(12), tmp_path / "acks.jsonl"

    def acknowledged() -> list[bytes]:
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        bodies = [json.loads(line) for line in lines if line.endswith("\n")]
        return [body["payload"].encode() for body in bodies if body["topic"].endswith("/energy")]

    async with standin_process(tmp_path, log_acks=log, log_client="gateway-telemetry") as broker:
        async with scene(tmp_path, broker.port, broker.port, acknowledged) as s:
            for _ in range(4):
                await kill_round(s, rng)
            await drained(s)
        judge(s)
