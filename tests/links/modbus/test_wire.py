"""Frames and turns without a network: only the right answer is ever decoded (F5), and nobody is left out (F4)."""

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvariantBroken, ProtocolViolation
from gateway.links.modbus.connection import FRAMES_MAX, ModbusWire
from gateway.links.modbus.pdu import ExceptionReply, answer, read_request, write_request
from gateway.links.modbus.turns import Exchange, Turns
from tests.scenes.modbus_rig import framed

READ = read_request(3, 100, 3)


def test_request_read_and_writes_are_as_the_standard_says() -> None:
    assert read_request(3, 100, 3) == bytes.fromhex("03 0064 0003")
    assert read_request(4, 0x1234, 125) == bytes.fromhex("04 1234 007d")
    assert write_request(6, 0x10, (0xABCD,)) == bytes.fromhex("06 0010 abcd")
    assert write_request(16, 0x10, (1, 2)) == bytes.fromhex("10 0010 0002 04 0001 0002")


@pytest.mark.parametrize(("function", "count"), [(6, 2), (6, 0), (16, 124), (16, 0)])
def test_request_write_of_too_much_is_a_bug(function: int, count: int) -> None:
    with pytest.raises(InvariantBroken):
        write_request(function, 0, (1,) * count)


def test_answer_right_reply_is_decoded() -> None:
    assert answer(READ, bytes.fromhex("03 06 0001 8000 ffff")) == (1, 0x8000, 0xFFFF)
    assert answer(READ, bytes.fromhex("83 02")) == ExceptionReply(2)
    assert answer(write_request(6, 1, (2,)), bytes.fromhex("06 0001 0002")) == ()
    assert answer(write_request(16, 1, (2, 3)), bytes.fromhex("10 0001 0002")) == ()


@pytest.mark.fault("F5")
@pytest.mark.parametrize(
    "reply",
    [
        "", "03", "0306", "03 06 0001 0002", "03 04 0001 0002", "03 05 0001 0002 00", "03 06 0001 0002 0003 00",
        "04 06 0001 0002 0003", "83", "83 02 00", "84 02", "06 0064 0003", "00",
    ],
)  # fmt: skip
def test_answer_wrong_reply_is_never_decoded(reply: str) -> None:
    with pytest.raises(ProtocolViolation):
        answer(READ, bytes.fromhex(reply))


@pytest.mark.fault("F5")
@pytest.mark.parametrize("reply", ["06 0001 0003", "06 0002 0002", "06 0001", "10 0001 0002", "03 02 0001"])
def test_answer_echo_of_another_write_is_refused(reply: str) -> None:
    with pytest.raises(ProtocolViolation):
        answer(write_request(6, 1, (2,)), bytes.fromhex(reply))


@pytest.mark.fault("F5")
@given(st.binary(max_size=20))
def test_answer_any_bytes_are_right_or_refused(reply: bytes) -> None:
    try:
        found = answer(READ, reply)
    except ProtocolViolation:
        return
    if isinstance(found, ExceptionReply):
        assert reply == bytes((0x83, found.code))
    else:
        assert reply == b"\x03\x06" + struct.pack(">3H", *found)


class Heard:
    """Stands where a channel stands."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.garbage = 0

    def on_reply(self, wire: ModbusWire, transaction: int, unit: int, pdu: bytes) -> None:
        self.frames.append((transaction, unit, pdu))

    def on_garbage(self, wire: ModbusWire) -> None:
        self.garbage += 1

    def on_lost(self, wire: ModbusWire, why: str) -> None:
        raise AssertionError(why)


def hear(*chunks: bytes) -> Heard:
    async def play() -> Heard:
        heard = Heard()
        wire = ModbusWire(heard)  # type: ignore[arg-type]
        for chunk in chunks:
            wire.data_received(chunk)
        return heard

    return asyncio.run(play())


frames_drawn = st.lists(
    st.tuples(st.integers(0, 0xFFFF), st.integers(0, 255), st.binary(min_size=2, max_size=253)), min_size=1, max_size=5
)


@pytest.mark.fault("F4")
@given(frames_drawn, st.lists(st.integers(1, 400), max_size=12))
def test_wire_any_chunks_give_the_same_frames(frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(framed(*frame) for frame in frames)
    chunks, at = [], 0
    for cut in cuts:
        chunks.append(stream[at : at + cut])
        at += cut
    heard = hear(*(chunk for chunk in (*chunks, stream[at:]) if chunk))
    assert heard.frames == frames
    assert heard.garbage == 0


@pytest.mark.fault("F5")
@pytest.mark.parametrize(
    "garbage",
    [
        framed(1, 1, b"\x03\x02\0\1", protocol=7),
        framed(1, 1, b"\x03\x02\0\1", length=0),
        framed(1, 1, b"\x03\x02\0\1", length=255),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xde\xad" * 9,
    ],
)
def test_wire_garbage_is_told_once_and_what_follows_is_thrown_away(garbage: bytes) -> None:
    heard = hear(garbage, framed(2, 1, b"\x03\x02\0\1"))
    assert (heard.garbage, heard.frames) == (1, [])


def queued(*wanted: tuple[int, bytes]) -> list[tuple[int, int]]:
    """Units and functions in the order in which they get their turn."""

    async def play() -> list[tuple[int, int]]:
        turns = Turns()
        for unit, pdu in wanted:
            turns.add(Exchange(unit, pdu, 1000, asyncio.get_running_loop().create_future()))
        out = []
        while (exchange := turns.next()) is not None:
            out.append((exchange.unit, exchange.pdu[0]))
        assert turns.waiting == 0
        return out

    return asyncio.run(play())


@pytest.mark.fault("F4")
def test_turns_units_are_served_in_turn() -> None:
    assert queued((1, READ), (1, READ), (1, READ), (2, READ), (3, READ)) == [(1, 3), (2, 3), (3, 3), (1, 3), (1, 3)]


@pytest.mark.parametrize("reply", ["10", "10 ff", "10 0010 0003"])
def test_answer_known_malformed_confirmation_is_believed_where_the_profile_says_so(reply: str) -> None:
    request = write_request(16, 0x10, (1, 2))
    with pytest.raises(ProtocolViolation):
        answer(request, bytes.fromhex(reply))
    assert answer(request, bytes.fromhex(reply), loose_writes=True) == ()


def test_answer_loose_writes_still_tell_a_refusal_and_another_function() -> None:
    request = write_request(16, 0x10, (1, 2))
    assert answer(request, bytes.fromhex("90 03"), loose_writes=True) == ExceptionReply(3)
    with pytest.raises(ProtocolViolation):
        answer(request, bytes.fromhex("06 0010 0001"), loose_writes=True)


def test_turns_writes_go_before_reads() -> None:
    write = write_request(6, 1, (1,))
    assert queued((1, READ), (2, READ), (1, write), (2, write), (1, write)) == [(1, 6), (2, 6), (1, 6), (1, 3), (2, 3)]


def test_wire_flood_of_frames_is_garbage_after_a_few_and_looked_through_once() -> None:
    """Nobody sends more than a few answers at once; 29,000 in one read would stop every other home for a second."""
    frame = framed(2, 1, b"\x03\x02\0\1")
    heard = hear(frame * 20_000, frame)
    assert (len(heard.frames), heard.garbage) == (FRAMES_MAX, 1)


def test_wire_answers_that_came_together_are_all_handed_on() -> None:
    frame = framed(2, 1, b"\x03\x02\0\1")
    heard = hear(frame * FRAMES_MAX, frame * FRAMES_MAX)
    assert (len(heard.frames), heard.garbage) == (2 * FRAMES_MAX, 0)
