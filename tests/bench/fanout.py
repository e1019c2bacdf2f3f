"""Fan-out: an event accepted, every device of the fleet told at QoS 1, the last acknowledgement in.

Ours: decide, journal the event, freeze, limit, allocate, plan, journal the release plan (real SQLite, synced), encode,
publish, wait for every acknowledgement. `bound_x`: our seconds over those of a bare loop that writes the same packets,
encoded beforehand, within the same window to the same sink on the same core, and waits for the last acknowledgement.
What limits ours is the interpreter: most of the time goes into encoding and publishing each command; the bare loop is
limited by the sink, which takes each packet apart.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import mqtt5

from gateway.domain.commands import CommandOp
from gateway.storage.journal.journal import SqliteJournal
from gateway.transports.mqtt.settings import MqttSettings
from tests.bench.blaster import DEVICE
from tests.bench.rig import aim, peer, percentile, pin, report
from tests.bench.wiring import TimedJournal, event, readings, reference, steered, wired

TIMEOUT_S = 60
CHUNK = 256
SETPOINT_W = 2_000
VALID_MS = 20_000
WINDOW = cast("int", MqttSettings.model_fields["in_flight_max"].default)


class Acks:
    """When the commands of one connection were acknowledged, and when the first was handed over for writing."""

    def __init__(self, session: Any) -> None:
        self.published = 0.0
        self.reads: list[tuple[float, int]] = []
        session.receive = partial(self._receive, session, session.receive)
        session.publish = partial(self._publish, session.publish)

    def _publish(self, publish: Any, *args: Any) -> Any:
        self.published = self.published or time.perf_counter()
        return publish(*args)

    def _receive(self, session: Any, receive: Any, view: memoryview) -> Any:
        before = session.room
        found = receive(view)
        if session.room > before:
            self.reads.append((time.perf_counter(), session.room - before))
        return found

    def p99_s(self, began: float) -> float:
        """Time after `began` at which 99 of 100 were acknowledged."""
        wanted = 0.99 * sum(count for _, count in self.reads)
        seen = 0
        for at, count in self.reads:
            seen += count
            if seen >= wanted:
                return at - began
        raise ValueError("nothing was acknowledged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One fan-out; times in s from the moment the event came in. `phases` in ms."""

    seconds: float
    p99_s: float
    phases: dict[str, float]


async def shoot(parts: Any, directory: Path, revision: int = 1) -> Shot:
    """Submit an event for the whole fleet and carry it out, with a journal of its own. The fleet is taken anew."""
    n = parts.fleet.n
    real = SqliteJournal(directory / f"journal-{revision}.sqlite", clock=parts.clock)
    journal = TimedJournal(real)
    desk = steered(parts.fleet, parts.link, journal, parts.clock)
    session = parts.link.control._wire.session
    plain = session.receive, session.publish
    try:
        now = parts.clock.now()
        parts.fleet.observe_live(readings(parts.fleet, now), now)
        acks = Acks(session)
        began = time.perf_counter()
        answer = await desk.dispatcher.submit(event(revision, n * SETPOINT_W, now))
        decided = time.perf_counter()
        await desk.control.tick()
        done = time.perf_counter()
    finally:
        session.receive, session.publish = plain
        real.close()
    assert answer.outcome.value == "accepted", answer
    acknowledged = sum(count for _, count in acks.reads)
    assert acknowledged == n, (acknowledged, n)
    plan_began, plan_ended = journal.commits[-1]
    return Shot(
        seconds=done - began,
        p99_s=acks.p99_s(began),
        phases={
            "decide_and_journal_ms": (decided - began) * 1000,
            "limits_allocation_plan_ms": (plan_began - decided) * 1000,
            "journal_release_plan_ms": (plan_ended - plan_began) * 1000,
            "prepare_ms": (acks.published - plan_ended) * 1000,
            "encode_publish_acks_ms": (acks.reads[-1][0] - acks.published) * 1000,
            "note_ms": (done - acks.reads[-1][0]) * 1000,
        },
    )


async def ours(devices: int) -> Shot:
    """One fan-out of a fresh fleet."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(peer("--messages", "0", "--seconds", "120"))
        directory = stack.enter_context(TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd()))
        parts = await stack.enter_async_context(wired(port, devices))
        async with asyncio.timeout(TIMEOUT_S):
            await parts.link.control.wait_connected()
            return await shoot(parts, Path(directory))


def encoded(devices: int) -> list[bytes]:
    """The packets of a fan-out, as ours has them."""
    encoder = reference().encoder
    assert encoder is not None
    now_ms, out = time.time_ns() // 1_000_000, []
    for i in range(devices):
        device = DEVICE.format(i)
        payload = encoder.encode(
            CommandOp.SETPOINT,
            device,
            (1 << 32) + i,
            now_ms + VALID_MS,
            setpoint_w=SETPOINT_W,
            lease_s=120,
            reserve_pct=float("nan"),
        )
        packet = mqtt5.PublishPacket(
            encoder.route.topic(device),
            payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            packet_id=i % 65_535 + 1,
            message_expiry_interval=VALID_MS // 1000,
        )
        out.append(packet.write())
    return out


class BareWriter(asyncio.Protocol):
    """Writes packets in chunks within the window, counts acknowledgements by their bytes."""

    def __init__(self, packets: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        self.packets = packets
        self.ready = loop.create_future()
        self.done = loop.create_future()
        self.sent = 0
        self.ack_bytes = 0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(mqtt5.ConnectPacket("bare", clean_start=True, keep_alive=20).write())

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
            return
        self.ack_bytes += len(data)
        self.pour()
        if self.ack_bytes >= 4 * len(self.packets) and not self.done.done():
            self.done.set_result(None)

    def pour(self) -> None:
        while (room := min(WINDOW - self.sent + self.ack_bytes // 4, CHUNK, len(self.packets) - self.sent)) > 0:
            self._transport.write(b"".join(self.packets[self.sent : self.sent + room]))
            self.sent += room


async def bare(packets: list[bytes]) -> float:
    """Seconds from the first write to the last acknowledgement."""
    async with peer("--messages", "0", "--seconds", "120") as port:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(lambda: BareWriter(packets), "127.0.0.1", port)
        async with asyncio.timeout(TIMEOUT_S):
            await protocol.ready
            began = time.perf_counter()
            protocol.pour()
            await protocol.done
            seconds = time.perf_counter() - began
        transport.close()
        return seconds


def median(values: list[float]) -> float:
    return percentile(values, 0.5)


def size(devices: int, shots: list[Shot], bound_s: float) -> dict[str, Any]:
    """What is reported of one fleet size: medians."""
    seconds = median([shot.seconds for shot in shots])
    return {
        "n": devices,
        "rounds": len(shots),
        "seconds": round(seconds, 4),
        "items_per_s": round(devices / seconds),
        "p99_ms": round(median([shot.p99_s for shot in shots]) * 1000, 2),
        "worst_ms": round(max(shot.seconds for shot in shots) * 1000, 2),
        "bare_seconds": round(bound_s, 4),
        "phases": {name: round(median([shot.phases[name] for shot in shots]), 2) for name in shots[0].phases},
    }


async def run(*, quick: bool, devices: int | None = None) -> dict[str, Any]:
    pin()
    n = devices or (10_000 if quick else 100_000)
    packets = encoded(n)
    shots: list[Shot] = []
    bounds: list[float] = []
    for _ in range(1 if quick else 5):
        shots.append(await ours(n))
        bounds.append(await bare(packets))
    bound_s = median(bounds)
    found = size(n, shots, bound_s)
    ratios = {"bound_x": found["seconds"] / bound_s}
    return report(
        "fanout",
        sizes=[found],
        ratios=ratios,
        aims={"bound_x": aim(ratios["bound_x"], most=10.0), "seconds": aim(found["seconds"], most=1.0)},
    )
