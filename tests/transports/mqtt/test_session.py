"""The session without a socket: any split of the stream, packet ids, order of acknowledgements, limits."""

from itertools import pairwise

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transports.mqtt.session import (
    MAX_PACKET_ID,
    Batch,
    BrokerViolation,
    MqttSession,
    MqttState,
    OutMessage,
    PublishOutcome,
)
from tests.scenes.mqtt_peers import make_settings, pubacks, publish_packet

CONNACK = mqtt5.ConnAckPacket().write()
Code = mqtt5.DisconnectReasonCode


# The codec's native code leaves such a trace of text that is not UTF-8.
panics = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def connected(*, connack: bytes = CONNACK, **settings: int) -> MqttSession:
    session = MqttSession(make_settings("mqtt://localhost", "test", **settings))
    session.connect()
    session.receive(memoryview(connack))
    return session


def publish(session: MqttSession, *messages: OutMessage) -> tuple[Batch, list[int]]:
    """Publish all at once; the batch and the packet ids taken."""
    batch = Batch(len(messages), lambda: None)
    wires = session.publish(messages, 0, len(messages), batch)
    packets = [mqtt5.read(memoryview(wire))[0] for wire in wires]
    return batch, [p.packet_id or 0 for p in packets if isinstance(p, mqtt5.PublishPacket)]


def feed(session: MqttSession, stream: bytes, cuts: list[int]) -> tuple[list[bytes], list[int]]:
    """Give the session `stream` in pieces, keeping what it does not use; payloads and ids in the order they came."""
    payloads, ids, rest = [], [], b""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in pairwise(edges):
        rest += stream[start:end]
        used, messages, packet_ids = session.receive(memoryview(rest))
        rest = rest[used:]
        payloads += [message.payload for message in messages]
        ids += packet_ids
    assert rest == b""
    return payloads, ids


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=20),
    st.lists(st.integers(min_value=0), max_size=30),
)
def test_receive_stream_cut_anywhere_gives_the_same_messages(sent: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    session = MqttSession(make_settings("mqtt://localhost"))
    session.connect()
    packets = [publish_packet(i + 1 if qos else 0, payload) for i, (payload, qos) in enumerate(sent)]
    payloads, ids = feed(session, CONNACK + b"".join(packets), cuts)
    assert payloads == [payload for payload, _ in sent]
    assert ids == [i + 1 for i, (_, qos) in enumerate(sent) if qos]
    assert session.state is MqttState.CONNECTED


@given(st.permutations(list(range(1, 13))), st.lists(st.integers(1, 12), max_size=12))
def test_acknowledge_in_any_order_leaves_in_the_order_received(order: list[int], cuts: list[int]) -> None:
    session = connected()
    session.receive(memoryview(b"".join(publish_packet(i) for i in range(1, 13))))
    left: list[int] = []
    edges = sorted({0, *cuts, 12})
    for start, end in pairwise(edges):
        left += pubacks(session.acknowledge(order[start:end]))
        assert left == list(range(1, len(left) + 1))
        assert set(left) <= set(order[:end])
    assert left == list(range(1, 13))


def test_acknowledge_twice_or_never_received_has_no_effect() -> None:
    session = connected()
    session.receive(memoryview(publish_packet(1) + publish_packet(2)))
    assert pubacks(session.acknowledge([1])) == [1]
    assert session.acknowledge([1, 77]) == b""
    session.receive(memoryview(publish_packet(1) + publish_packet(77)))
    assert pubacks(session.acknowledge([2])) == [2]
    assert pubacks(session.acknowledge([1, 77])) == [1, 77]


def test_acknowledge_many_thousands_keeps_no_history() -> None:
    session = connected()
    for start in range(0, 60_000, 500):
        ids = [i % MAX_PACKET_ID + 1 for i in range(start, start + 500)]
        session.receive(memoryview(b"".join(publish_packet(i) for i in ids)))
        assert pubacks(session.acknowledge(ids)) == ids
    assert len(session._received) < 10_000


@given(st.lists(st.sampled_from(["publish", "first", "last"]), max_size=60))
def test_packet_id_in_flight_is_never_taken_again(steps: list[str]) -> None:
    session = connected(in_flight_max=5)
    session._next_id = MAX_PACKET_ID - 3
    in_flight: list[int] = []
    for step in steps:
        if step == "publish" and session.room:
            _, ids = publish(session, OutMessage("t", b""))
            assert ids[0] not in in_flight
            assert 1 <= ids[0] <= MAX_PACKET_ID
            in_flight += ids
        elif step != "publish" and in_flight:
            packet_id = in_flight.pop(0 if step == "first" else -1)
            session.receive(memoryview(mqtt5.PubAckPacket(packet_id).write()))
        assert session.room == 5 - len(in_flight)


def test_publish_each_answer_becomes_its_outcome() -> None:
    session, code = connected(), mqtt5.PubAckReasonCode
    batch, ids = publish(session, *[OutMessage("t", b"%d" % i) for i in range(4)])
    for packet_id, reason in zip(ids, (code.SUCCESS, code.NO_MATCHING_SUBSCRIBERS, code.NOT_AUTHORIZED), strict=False):
        session.receive(memoryview(mqtt5.PubAckPacket(packet_id, reason_code=reason).write()))
    assert batch.outcomes == [
        PublishOutcome.ACKED,
        PublishOutcome.NO_SUBSCRIBER,
        PublishOutcome.REFUSED,
        PublishOutcome.UNKNOWN,
    ]
    assert batch.open == 1


def test_publish_what_cannot_be_encoded_is_refused_and_the_others_go() -> None:
    session = connected(connack=mqtt5.ConnAckPacket(max_packet_size=100).write())
    batch, ids = publish(
        session,
        OutMessage("a/+", b"wildcard"),
        OutMessage("t", b"x" * 200),
        OutMessage("t", b"", message_expiry_s=2**40),
        OutMessage("t", b"fine"),
    )
    assert batch.outcomes == [PublishOutcome.REFUSED] * 3 + [PublishOutcome.UNKNOWN]
    assert len(ids) == batch.open == 1
    assert session.refusals == 3


def test_lost_in_flight_stays_unknown_and_the_batch_is_told() -> None:
    session, told = connected(), []
    batch = Batch(2, lambda: told.append(True))
    session.publish([OutMessage("t", b"1"), OutMessage("t", b"2")], 0, 2, batch)
    session.lost()
    assert batch.outcomes == [PublishOutcome.UNKNOWN] * 2
    assert told == [True]
    assert session.state is MqttState.CLOSED


def test_connack_limits_are_taken_over() -> None:
    connack = mqtt5.ConnAckPacket(receive_max=50, max_packet_size=900, server_keep_alive=7, session_present=True)
    session = connected(connack=connack.write())
    assert session.room == 50
    assert session.limits.server_packet_max == 900
    assert session.limits.keepalive_s == 7
    assert session.limits.session_present


@panics
@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (publish_packet(1, b"x" * 2_000), Code.PACKET_TOO_LARGE),
        (b"\x32\xff\xff\x7f", Code.PACKET_TOO_LARGE),
        (b"\x30\xff\xff\xff\xff\x01", Code.MALFORMED_PACKET),
        (b"\x32\x03\x00\x09t", Code.MALFORMED_PACKET),
        (b"\x30\x06\x00\x03a\xff/\x00", Code.MALFORMED_PACKET),
        (b"\x34\x07\x00\x01t\x00\x05\x00x", Code.QOS_NOT_SUPPORTED),
        (b"\x32\x07\x00\x01t\x00\x00\x00x", Code.PROTOCOL_ERROR),
        (mqtt5.PubAckPacket(9).write(), Code.PROTOCOL_ERROR),
        (mqtt5.SubAckPacket(9, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE]).write(), Code.PROTOCOL_ERROR),
        (CONNACK, Code.PROTOCOL_ERROR),
        (mqtt5.PingReqPacket().write(), Code.PROTOCOL_ERROR),
    ],
    ids=[
        "oversized", "oversized_header", "long_length", "inner_length", "not_utf8", "qos_2", "packet_id_0",
        "puback_unasked", "suback_unasked", "connack_again", "client_packet",
    ],
)  # fmt: skip
def test_receive_broken_packet_is_a_violation(wire: bytes, code: mqtt5.DisconnectReasonCode) -> None:
    session = connected(max_packet_bytes=1024)
    with pytest.raises(BrokerViolation) as raised:
        session.receive(memoryview(wire))
    assert raised.value.code == code


def test_receive_publish_before_connack_is_a_violation() -> None:
    session = MqttSession(make_settings("mqtt://localhost"))
    session.connect()
    with pytest.raises(BrokerViolation):
        session.receive(memoryview(publish_packet(1)))


def test_receive_packet_of_exactly_the_limit_is_taken() -> None:
    session = connected(max_packet_bytes=1024)
    wire = publish_packet(1, b"x" * (1024 - len(publish_packet(1, b"")) - 1))
    assert len(wire) == 1024
    assert session.receive(memoryview(wire[:500]))[0] == 0
    assert len(session.receive(memoryview(wire))[1]) == 1


@panics
@given(st.binary(max_size=60))
def test_receive_any_bytes_is_taken_or_a_violation(wire: bytes) -> None:
    session = connected(max_packet_bytes=1024)
    try:
        used, _, _ = session.receive(memoryview(wire))
    except BrokerViolation:
        return
    assert 0 <= used <= len(wire)
