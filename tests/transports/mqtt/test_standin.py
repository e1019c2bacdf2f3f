"""The stand-in broker, met by a foreign client; and what only it can be asked."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import mqtt5
import pytest

from simulators.broker import Broker
from simulators.broker_core import matches, valid_filter
from tests.scenes.brokers import standin_process
from tests.scenes.mqtt_peers import CEILING_S, Inbox, calling, make_connection, make_settings, running, send, until

V5 = aiomqtt.ProtocolVersion.V5


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as made:
        yield made


def client(broker: Broker, name: str, **more: object) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", broker.port, protocol=V5, identifier=name, **more)  # type: ignore[arg-type]


async def next_message(source: aiomqtt.Client) -> aiomqtt.Message:
    async with asyncio.timeout(CEILING_S):
        return await anext(aiter(source.messages))


def hello(client_id: str, *, keep_alive: int = 0, receive_max: int = 65_535) -> bytes:
    return mqtt5.ConnectPacket(
        client_id, session_expiry_interval=60, keep_alive=keep_alive, receive_max=receive_max
    ).write()


async def test_standin_foreign_clients_exchange_messages(broker: Broker) -> None:
    async with client(broker, "one") as one, client(broker, "two") as two:
        await two.subscribe("homes/+/live", qos=0)
        await two.subscribe("homes/#", qos=1)
        await one.publish("homes/1/live", b"0", qos=0)
        await one.publish("homes/1/energy", b"1", qos=1)
        first, second = await next_message(two), await next_message(two)
        assert (str(first.topic), first.payload, first.qos) == ("homes/1/live", b"0", 0)
        assert (str(second.topic), second.payload, second.qos) == ("homes/1/energy", b"1", 1)
        await two.unsubscribe("homes/#")
        await two.unsubscribe("homes/+/live")
        await one.publish("homes/1/live", b"2", qos=1)
        await until(lambda: broker.stats.received == 3)
        assert broker.stats.delivered == 2


async def test_standin_retained_message_is_kept_replaced_and_removed(broker: Broker) -> None:
    async with client(broker, "one") as one:
        for payload in (b"old", b"new"):
            await one.publish("status/1", payload, qos=1, retain=True)
        async with client(broker, "two") as two:
            await two.subscribe("status/+", qos=1)
            message = await next_message(two)
            assert (message.payload, message.retain) == (b"new", True)
        await one.publish("status/1", b"", qos=1, retain=True)
        await one.publish("status/2", b"other", qos=1, retain=True)
        async with client(broker, "three") as three:
            await three.subscribe("status/+", qos=1)
            assert (await next_message(three)).payload == b"other"


async def test_standin_last_will_is_left_on_a_cut_not_on_a_goodbye(broker: Broker) -> None:
    def leaving(name: str) -> bytes:
        will = mqtt5.Will("will", payload=name.encode(), qos=mqtt5.QoS.AT_LEAST_ONCE)
        return mqtt5.ConnectPacket(name, will=will).write()

    async with client(broker, "watcher") as watcher:
        await watcher.subscribe("will", qos=1)
        async with calling(broker.port, leaving("polite"), mqtt5.DisconnectPacket().write()) as polite:
            assert isinstance(await polite.next(), mqtt5.ConnAckPacket)
            assert await polite.next() is None
        async with calling(broker.port, leaving("cut")) as cut:
            assert isinstance(await cut.next(), mqtt5.ConnAckPacket)
        assert (await next_message(watcher)).payload == b"cut"


async def test_standin_silent_client_is_cut_off(broker: Broker) -> None:
    async with calling(broker.port, hello("silent", keep_alive=1)) as silent:
        with pytest.raises(EOFError):
            await silent.next_of(mqtt5.PublishPacket)
    assert broker.stats.connects == 1


async def test_standin_receive_maximum_is_never_exceeded(broker: Broker) -> None:
    async with calling(broker.port, hello("sub", receive_max=5)) as sub:
        sub.say(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("t", max_qos=mqtt5.QoS.AT_LEAST_ONCE)]).write())
        await sub.next_of(mqtt5.SubAckPacket)
        async with running(make_connection(make_settings(f"mqtt://127.0.0.1:{broker.port}", "pub"))) as pub:
            await send(pub, "t", *[b"%d" % i for i in range(50)])
        session = broker.hub.sessions["sub"]
        for expected in range(50):
            assert len(session.in_flight) <= 5
            packet = await sub.next_of(mqtt5.PublishPacket)
            assert isinstance(packet, mqtt5.PublishPacket)
            assert packet.payload == b"%d" % expected
            sub.say(mqtt5.PubAckPacket(packet.packet_id or 0).write())
        await until(lambda: broker.stats.acknowledged == 50)


async def test_standin_queue_full_drops_the_newest_and_counts() -> None:
    inbox = Inbox()
    async with Broker(queue_max=3) as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        async with running(make_connection(make_settings(url, "sub"), "t")):
            pass
        async with running(make_connection(make_settings(url, "pub"))) as pub:
            await send(pub, "t", *[b"%d" % i for i in range(5)])
            async with running(make_connection(make_settings(url, "sub"), "t", inbox=inbox)):
                assert await inbox.has(3) == [b"0", b"1", b"2"]
        assert broker.stats.dropped_queue_full == 2


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"\x32\x80\x80\x80\x01", mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE),
        (b"\x00\x00", mqtt5.DisconnectReasonCode.MALFORMED_PACKET),
        (b"\x34\x07\x00\x01t\x00\x05\x00x", mqtt5.DisconnectReasonCode.QOS_NOT_SUPPORTED),
        (mqtt5.PingRespPacket().write(), mqtt5.DisconnectReasonCode.PROTOCOL_ERROR),
    ],
    ids=["oversized", "malformed", "qos_2", "server_packet"],
)
async def test_standin_broken_client_is_told_and_cut_off(
    broker: Broker, wire: bytes, reason: mqtt5.DisconnectReasonCode
) -> None:
    async with calling(broker.port, hello("broken"), wire) as broken:
        goodbye = await broken.next_of(mqtt5.DisconnectPacket)
        assert isinstance(goodbye, mqtt5.DisconnectPacket)
        assert goodbye.reason_code == reason
        assert await broken.next() is None


async def test_standin_older_protocol_is_turned_away(broker: Broker) -> None:
    with pytest.raises(aiomqtt.MqttError):
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V311, timeout=2):
            pass
    assert broker.stats.connects == 0


@pytest.mark.real_time
async def test_standin_process_logs_the_acknowledgements_it_received(tmp_path: Path) -> None:
    log, inbox = tmp_path / "acks.jsonl", Inbox()
    async with standin_process(tmp_path, log_acks=log, log_client="gateway-") as process:
        await until(lambda: f"ready {process.port}" in process.child.log.read_text(encoding="utf-8"))
        async with (
            running(make_connection(make_settings(process.url, "gateway-1"), "t", inbox=inbox)) as sub,
            running(make_connection(make_settings(process.url, "pub"), "t")) as pub,
        ):
            await send(pub, "t", b"one", b"two")
            await inbox.has(2)
            generation, ids = inbox.pending[0]
            sub.acknowledge(generation, ids[:1])
            await until(lambda: log.read_text(encoding="utf-8").count("\n") == 1)
            await process.kill()
    (line,) = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
    digest = hashlib.sha1(b"one", usedforsecurity=False).hexdigest()
    assert line == {"client": "gateway-1", "topic": "t", "sha1": digest, "payload": "one"}


@pytest.mark.parametrize(
    ("pattern", "topic", "fits"),
    [
        ("a/b", "a/b", True), ("a/b", "a/c", False), ("a/+", "a/b", True), ("a/+", "a/b/c", False),
        ("a/+", "a", False), ("a/#", "a", True), ("a/#", "a/b/c", True), ("#", "a/b", True),
        ("+/b", "a/b", True), ("+", "/a", False), ("+/+", "/a", True), ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False), ("$SYS/#", "$SYS/x", True), ("a/+/c", "a//c", True),
    ],
)  # fmt: skip
def test_matches_filter_and_topic_agree_with_the_standard(pattern: str, topic: str, *, fits: bool) -> None:
    assert matches(pattern, topic) is fits


@pytest.mark.parametrize("pattern", ["", "a#", "a/#/b", "a+/b", "#/", "a\0"])
def test_valid_filter_misplaced_wildcard_is_not_one(pattern: str) -> None:
    assert not valid_filter(pattern)
