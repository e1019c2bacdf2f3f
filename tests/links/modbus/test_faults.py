"""The Modbus link and a peer that misbehaves: F3 frozen, F4 slow, F5 wrong replies, F28 changed after a break."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.domain.errors import LinkDown, PeerBusy, ProtocolViolation
from gateway.links.modbus import connection as modbus_connection
from gateway.links.modbus.link import ModbusLink
from gateway.ports.links import PointTarget
from simulators.faces.plant import Trouble
from tests.scenes.modbus_rig import CEILING_S, Asked, Bench, Device, Scripted, Served, framed, image, target, writes
from tests.virtual.clock import loop_clock


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as made:
        yield made


@pytest.fixture
async def peer() -> AsyncIterator[Scripted]:
    async with Scripted() as made:
        yield made


@pytest.fixture
async def live() -> AsyncIterator[Bench]:
    """On the machine's clock, for peers that keep their own time."""
    async with Bench(loop_clock()) as made:
        yield made


class Reads:
    """Reads that run beside the test."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    def start(self, link: ModbusLink, *points: str) -> "asyncio.Task[object]":
        async def outcome() -> object:
            try:
                return await link.read(points)
            except (LinkDown, ProtocolViolation, PeerBusy) as error:
                return error

        return self._group.create_task(outcome(), name="read")

    def write(self, link: ModbusLink, **raws: tuple[int, ...]) -> "asyncio.Task[object]":
        async def outcome() -> object:
            try:
                await link.write(writes(**raws))
                return None
            except (LinkDown, ProtocolViolation, PeerBusy) as error:
                return error

        return self._group.create_task(outcome(), name="write")


@pytest.fixture
async def reads() -> AsyncIterator[Reads]:
    async with asyncio.timeout(2 * CEILING_S), asyncio.TaskGroup() as group:
        yield Reads(group)


def unit(peer: Scripted, number: int, **section: Any) -> PointTarget:
    return target(peer.port, name=f"home-{number}", own_units=(("main", number),), **section)


@pytest.mark.fault("F3")
async def test_frozen_peer_times_out_and_is_connected_anew(bench: Bench, peer: Scripted, reads: Reads) -> None:
    """F3: each request has its own time-out; after so many in a row the connection is given up."""
    link = await bench.open(target(peer.port, timeouts_to_reconnect=2))
    for _ in range(2):
        read = reads.start(link, "soc")
        await peer.next()
        bench.clock.advance(s=1)
        assert isinstance(await read, LinkDown)
    assert (bench.stats.timeouts, bench.stats.connections) == (2, 0)

    with pytest.raises(LinkDown, match="opened anew"):
        await link.read(["soc"])
    await link.open()
    read = reads.start(link, "soc")
    (await peer.next()).answer()
    assert await read == {"soc": (101,)}
    assert (bench.stats.reconnects, peer.connects) == (1, 2)


@pytest.mark.fault("F3")
async def test_one_silence_keeps_the_connection(bench: Bench, peer: Scripted, reads: Reads) -> None:
    """F3: an answer in between starts the count anew."""
    link = await bench.open(target(peer.port, timeouts_to_reconnect=2))
    for _ in range(3):
        read = reads.start(link, "soc")
        await peer.next()
        bench.clock.advance(s=1)
        assert isinstance(await read, LinkDown)
        read = reads.start(link, "soc")
        (await peer.next()).answer()
        assert await read == {"soc": (101,)}
    assert peer.connects == 1


@pytest.mark.fault("F3")
async def test_write_without_an_answer_is_not_sent_twice(bench: Bench, peer: Scripted, reads: Reads) -> None:
    """F3: what a write did is unknown, so only the session may repeat it."""
    link = await bench.open(target(peer.port))
    write = reads.write(link, mode=(1,))
    await peer.next()
    bench.clock.advance(s=1)
    assert isinstance(await write, LinkDown)
    assert peer.inbox.empty()
    assert bench.stats.requests == 1


@pytest.mark.fault("F5")
async def test_late_reply_is_never_paired_with_a_later_request(bench: Bench, peer: Scripted, reads: Reads) -> None:
    """F5: the answer to the first read comes while the second waits, and has the right unit, function and length."""
    link = await bench.open(target(peer.port))
    first = reads.start(link, "soc")
    late = await peer.next()
    bench.clock.advance(s=1)
    assert isinstance(await first, LinkDown)

    second = reads.start(link, "power")
    asked = await peer.next()
    late.answer(fill=9_999)
    asked.answer(fill=42)
    assert await second == {"power": (42,)}
    assert (bench.stats.late_replies, bench.stats.reply_errors, peer.connects) == (1, 0, 1)


@pytest.mark.fault("F5")
async def test_late_reply_in_two_parts_does_not_break_the_next(bench: Bench, peer: Scripted, reads: Reads) -> None:
    """F5: half of the late answer is there before the next request goes out, half after it."""
    link = await bench.open(target(peer.port))
    first = reads.start(link, "soc")
    late = await peer.next()
    bench.clock.advance(s=1)
    assert isinstance(await first, LinkDown)
    frame = late.frame(fill=9_999)
    late.send(frame[:8])

    second = reads.start(link, "power")
    asked = await peer.next()
    late.send(frame[8:])
    asked.answer(fill=42)
    assert await second == {"power": (42,)}
    assert bench.stats.late_replies == 1


@pytest.mark.fault("F5")
async def test_face_that_answers_late_is_never_mispaired(live: Bench) -> None:
    """F5: a device that answers every request after the time-out; what is read after it recovered is its own."""
    device = Device(image())
    async with Served(device) as served:
        link = await live.open(target(served.port, timeout_s=0.06, timeouts_to_reconnect=10))
        device.trouble, device.late_s = Trouble.LATE, 0.2
        for point in ("soc", "power"):
            with pytest.raises(LinkDown):
                await link.read([point])
        device.trouble = Trouble.NONE
        async with asyncio.timeout(CEILING_S):
            while True:
                try:
                    found = await link.read(["mode"])
                except LinkDown:
                    continue
                break
        assert found == {"mode": (112,)}
        assert await link.read(["soc"]) == {"soc": (101,)}
        assert live.stats.late_replies >= 1


WRONG: dict[str, Callable[[Asked], bytes]] = {
    "unit": lambda asked: asked.frame(unit=asked.unit + 1),
    "function": lambda asked: framed(asked.transaction, asked.unit, b"\x04" + asked.right()[1:]),
    "fewer words": lambda asked: framed(asked.transaction, asked.unit, b"\x03\x00"),
    "more words": lambda asked: framed(asked.transaction, asked.unit, struct.pack(">BBHH", 3, 4, 1, 2)),
    "byte count": lambda asked: framed(asked.transaction, asked.unit, struct.pack(">BBH", 3, 1, 1)),
    "short": lambda asked: framed(asked.transaction, asked.unit, b"\x03\x02\x00"),
    "protocol": lambda asked: framed(asked.transaction, asked.unit, asked.right(), protocol=1),
    "length": lambda asked: framed(asked.transaction, asked.unit, asked.right(), length=300),
    "text": lambda asked: b"HTTP/1.0 200 OK\r\n\r\n",
}


@pytest.mark.fault("F5")
@pytest.mark.parametrize("wrong", WRONG)
async def test_wrong_reply_is_never_decoded_and_three_reconnect(
    bench: Bench, peer: Scripted, reads: Reads, wrong: str
) -> None:
    """F5: each is a violation at once; a right one in between counts from zero; three in a row end the connection."""
    link = await bench.open(target(peer.port, reconnect_after_reply_errors=3))
    for i in (1, 2, 0, 1, 2, 3):
        read = reads.start(link, "soc")
        asked = await peer.next()
        asked.send(asked.frame() if i == 0 else WRONG[wrong](asked))
        assert await read == {"soc": (101,)} if i == 0 else isinstance(await read, ProtocolViolation)
    assert (bench.stats.reply_errors, bench.stats.connections) == (5, 0)
    with pytest.raises(LinkDown, match="opened anew"):
        await link.read(["soc"])
    await link.open()
    read = reads.start(link, "soc")
    (await peer.next()).answer()
    assert await read == {"soc": (101,)}


@pytest.mark.fault("F5")
async def test_foreign_transactions_are_dropped_and_the_right_one_counts(
    bench: Bench, peer: Scripted, reads: Reads
) -> None:
    """F5: also transaction 0, which some libraries take for anything."""
    link = await bench.open(target(peer.port, reconnect_after_reply_errors=3))
    read = reads.start(link, "soc")
    asked = await peer.next()
    asked.send(asked.frame(fill=1, transaction=0), asked.frame(fill=2, transaction=asked.transaction ^ 0x100))
    asked.answer()
    assert await read == {"soc": (101,)}
    assert bench.stats.reply_errors == 2

    read = reads.start(link, "soc")
    asked = await peer.next()
    asked.send(*(asked.frame(fill=3, transaction=asked.transaction ^ 0x200 ^ i) for i in range(3)))
    assert isinstance(await read, LinkDown)
    assert bench.stats.connections == 0


@pytest.mark.fault("F5")
async def test_answer_that_nobody_asked_for_is_counted(bench: Bench, peer: Scripted, reads: Reads) -> None:
    link = await bench.open(target(peer.port))
    read = reads.start(link, "soc")
    asked = await peer.next()
    asked.send(asked.frame(), asked.frame(fill=7))
    assert await read == {"soc": (101,)}
    read = reads.start(link, "power")
    (await peer.next()).answer()
    assert await read == {"power": (100,)}
    assert bench.stats.reply_errors == 1


@pytest.mark.fault("F4")
async def test_reply_byte_by_byte_is_put_together(bench: Bench, peer: Scripted, reads: Reads) -> None:
    """F4: and a dribble that never ends is a time-out like any other: bytes do not move the deadline."""
    link = await bench.open(target(peer.port))
    read = reads.start(link, "soc")
    asked = await peer.next()
    for byte in asked.frame():
        asked.send(bytes((byte,)))
        await asyncio.wait_for(asked.writer.drain(), CEILING_S)
    assert await read == {"soc": (101,)}

    read = reads.start(link, "soc")
    asked = await peer.next()
    asked.send(asked.frame()[:-1])
    bench.clock.advance(s=1)
    assert isinstance(await read, LinkDown)
    assert bench.stats.timeouts == 1


@pytest.mark.fault("F4")
async def test_mute_unit_does_not_keep_others_from_their_turn(bench: Bench, peer: Scripted, reads: Reads) -> None:
    """F4: one request per connection is in flight; a mute unit costs one time-out a turn and never the connection."""
    links = [await bench.open(unit(peer, n, timeouts_to_reconnect=2)) for n in (1, 2, 3)]
    for _ in range(3):
        tasks = [reads.start(link, "soc") for link in links]
        mute = await peer.next()
        assert mute.unit == 1
        assert peer.inbox.empty()
        bench.clock.advance(s=1)
        for n in (2, 3):
            asked = await peer.next()
            assert asked.unit == n
            asked.answer()
        assert isinstance(await tasks[0], LinkDown)
        assert [await task for task in tasks[1:]] == [{"soc": (101,)}] * 2
    assert (peer.connects, bench.stats.timeouts) == (1, 3)


@pytest.mark.fault("F4")
async def test_units_are_served_in_turn_and_writes_first(bench: Bench, peer: Scripted, reads: Reads) -> None:
    """F4: a long poll of one unit lets others in between its requests; a write waits for one request at most."""
    long, short = await bench.open(unit(peer, 1)), await bench.open(unit(peer, 2))
    reads.start(long, "power", "limit")
    asked = await peer.next()
    reads.start(short, "soc")
    write = reads.write(short, mode=(5,))
    await asyncio.sleep(0)
    order = []
    for _ in range(4):
        order.append((asked.unit, asked.pdu[0], asked.address))
        assert peer.inbox.empty()
        asked.answer()
        if len(order) < 4:
            asked = await peer.next()
    assert order == [(1, 3, 100), (2, 6, 112), (2, 3, 101), (1, 3, 110)]
    assert await write is None


@pytest.mark.fault("F28")
async def test_lost_connection_fails_everyone_at_once_and_needs_a_new_look(
    bench: Bench, peer: Scripted, reads: Reads
) -> None:
    """F28: what answers after a reconnect may be another device. Every link has to be opened anew, also when a
    neighbour has already reconnected, and nothing is written before."""
    one, two = await bench.open(unit(peer, 1)), await bench.open(unit(peer, 2))
    tasks = [reads.start(one, "soc"), reads.write(two, mode=(5,))]
    await peer.next()
    peer.cut()
    assert [type(await task) for task in tasks] == [LinkDown, LinkDown]

    await one.open()
    with pytest.raises(LinkDown, match="opened anew"):
        await two.write(writes(mode=(5,)))
    await two.open()
    write = reads.write(two, mode=(5,))
    (await peer.next()).answer()
    assert await write is None
    assert (peer.connects, bench.stats.connections, bench.stats.lost) == (2, 1, 1)


@pytest.mark.fault("F5")
async def test_cancelled_read_leaves_its_answer_to_nobody(bench: Bench, peer: Scripted, reads: Reads) -> None:
    """F5: the request stays in flight until it is answered or timed out; the next one goes out after that."""
    link = await bench.open(target(peer.port))
    given_up = reads.start(link, "soc")
    asked = await peer.next()
    given_up.cancel()
    read = reads.start(link, "power")
    await asyncio.wait([given_up], timeout=CEILING_S)
    assert peer.inbox.empty()
    asked.answer(fill=1)
    (await peer.next()).answer(fill=2)
    assert await read == {"power": (2,)}


async def test_too_many_waiting_requests_are_turned_away(
    bench: Bench, peer: Scripted, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modbus_connection, "WAITING_MAX", 3)
    link = await bench.open(target(peer.port))
    tasks = [reads.start(link, "soc") for _ in range(6)]
    answered = [await peer.next()]
    assert [isinstance(await task, PeerBusy) for task in tasks[4:]] == [True, True]
    for _ in range(3):
        answered[-1].answer()
        answered.append(await peer.next())
    answered[-1].answer()
    assert [await task for task in tasks[:4]] == [{"soc": (101,)}] * 4
    assert bench.stats.refused_full == 2


async def test_requests_keep_their_distance(bench: Bench) -> None:
    """The product wants 30 ms between requests; the peer's own time tells that it gets them."""
    async with Scripted(Asked.answer) as peer:
        link = await bench.open(target(peer.port, spacing_s=0.03))
        for _ in range(4):
            await link.read(["soc"])
        gaps = [after - before for before, after in zip(peer.arrived_s, peer.arrived_s[1:], strict=False)]
        assert len(gaps) == 3
        assert min(gaps) >= 0.029


async def test_silent_connection_is_kept_by_repeating_the_last_read(bench: Bench, peer: Scripted, reads: Reads) -> None:
    link = await bench.open(target(peer.port, idle_s_max=120))
    read = reads.start(link, "soc")
    (await peer.next()).answer()
    assert await read == {"soc": (101,)}
    bench.clock.advance(s=61)
    asked = await peer.next()
    assert asked.pdu == bytes.fromhex("03 0065 0001")
    asked.answer()
    read = reads.start(link, "power")
    (await peer.next()).answer()
    assert await read == {"power": (100,)}
    assert (bench.stats.keepalives, peer.connects) == (1, 1)


async def test_close_while_connecting_leaves_nothing_open(bench: Bench, peer: Scripted, reads: Reads) -> None:
    link = bench.links.link(target(peer.port, rest_s=30))
    task = asyncio.ensure_future(link.open())
    async with asyncio.timeout(CEILING_S):
        while not peer.connects:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=CEILING_S)
    await link.close()
    assert bench.stats.connections == 0
    assert bench.links._channels == {}


@pytest.mark.parametrize("trouble", [Trouble.SILENT, Trouble.DISCONNECT, Trouble.GARBAGE, Trouble.BUSY])
async def test_face_in_trouble_is_told_as_such_and_recovers(live: Bench, trouble: Trouble) -> None:
    """F3, F5: whatever it was, opening anew is enough once it is over."""
    device = Device(image())
    async with Served(device) as served:
        link = await live.open(target(served.port, timeout_s=0.06, busy_wait_s=0))
        device.trouble = trouble
        for _ in range(4):
            with pytest.raises((LinkDown, ProtocolViolation, PeerBusy)):
                await link.read(["soc"])
        device.trouble = Trouble.NONE
        await link.open()
        assert await link.read(["soc"]) == {"soc": (101,)}
