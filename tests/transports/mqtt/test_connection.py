"""The connection against a broker that says what the test wants, and on what settings it takes."""

import asyncio

import mqtt5
import pytest
import uvloop
from pydantic import ValidationError

from gateway.clock import ManualClock
from gateway.transports.mqtt.connection import OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings
from simulators.broker import Broker, User
from tests.scenes.mqtt_peers import (
    CEILING_S,
    Inbox,
    ScriptedBroker,
    make_connection,
    make_settings,
    publish_packet,
    running,
    send,
    until,
)

Goodbye = mqtt5.DisconnectReasonCode


async def test_connection_silent_broker_is_pinged_then_given_up(scripted: ScriptedBroker) -> None:
    clock = ManualClock()
    connection = make_connection(make_settings(scripted.url, keepalive_s=1), clock=clock)
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.welcome()
        await connection.wait_connected()
        clock.advance(s=1.2)
        await caller.next_of(mqtt5.PingReqPacket)
        assert connection.connected
        clock.advance(s=0.1)
        assert await caller.next() is None
        assert connection.stats.lost["keepalive"] == 1


async def test_connection_traffic_of_any_kind_keeps_it(scripted: ScriptedBroker) -> None:
    clock, inbox = ManualClock(), Inbox()
    connection = make_connection(make_settings(scripted.url, keepalive_s=1), clock=clock, inbox=inbox)
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.welcome()
        for count in range(1, 5):
            caller.say(publish_packet(0))
            await inbox.has(count)
            clock.advance(s=1.0)
            await caller.next_of(mqtt5.PingReqPacket)
        assert connection.stats.lost["keepalive"] == 0


async def test_packet_too_large_is_refused_from_its_header(scripted: ScriptedBroker) -> None:
    inbox = Inbox()
    connection = make_connection(make_settings(scripted.url), inbox=inbox)
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.welcome()
        caller.say(b"\x32\x80\x80\x80\x01")
        goodbye = await caller.next_of(mqtt5.DisconnectPacket)
        assert isinstance(goodbye, mqtt5.DisconnectPacket)
        assert goodbye.reason_code == Goodbye.PACKET_TOO_LARGE
        await until(lambda: connection.stats.lost["oversized"] == 1)
        assert connection.stats.rx_bytes < 100
        await (await scripted.caller()).welcome()


async def test_messages_beyond_the_receive_maximum_wait_unread(scripted: ScriptedBroker) -> None:
    inbox = Inbox()
    settings = make_settings(scripted.url, receive_max=10, read_buffer_bytes=4096)
    connection = make_connection(settings, inbox=inbox)
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.welcome()
        caller.say(*[publish_packet(i + 1, b"x" * 1000) for i in range(1000)])
        seen = len(await inbox.has(11))
        while seen < 1000:
            # One read more than the maximum at most.
            assert seen - connection.stats.acks_sent <= 10 + 5
            while len(inbox.messages) - connection.stats.acks_sent > 10:
                assert connection.acknowledge(*inbox.pending.pop(0)) > 0
            seen = len(await inbox.has(seen + 1))
        assert connection.stats.overruns > 50
        assert connection.stats.connects == 1


async def test_acknowledgement_of_a_failed_attempt_is_stale(scripted: ScriptedBroker) -> None:
    inbox = Inbox()
    connection = make_connection(make_settings(scripted.url), "a/b", inbox=inbox)
    async with running(connection, connected=False):
        first = await scripted.caller()
        await first.welcome()
        first.say(publish_packet(1))
        await inbox.has(1)
        first.close()
        second = await scripted.caller()
        await second.welcome()
        await second.grant()
        second.say(publish_packet(1, duplicate=True))
        await inbox.has(2)
        await connection.wait_connected()
        (old, old_ids), (new, new_ids) = inbox.pending
        assert connection.acknowledge(old, old_ids) == 0
        assert connection.stats.acks_stale == 1
        assert connection.acknowledge(new, new_ids) == 1
        assert isinstance(await second.next_of(mqtt5.PubAckPacket), mqtt5.PubAckPacket)


async def test_publish_window_is_the_brokers_receive_maximum(scripted: ScriptedBroker) -> None:
    connection = make_connection(make_settings(scripted.url))
    async with running(connection, connected=False), asyncio.TaskGroup() as group:
        caller = await scripted.caller()
        await caller.welcome(receive_max=3)
        await connection.wait_connected()
        assert connection.stats.broker_receive_max == 3
        publishing = group.create_task(send(connection, "t", *[b"%d" % i for i in range(10)]))
        for first in range(0, 10, 3):
            ids = []
            for _ in range(min(3, 10 - first)):
                packet = await caller.next_of(mqtt5.PublishPacket)
                assert isinstance(packet, mqtt5.PublishPacket)
                ids.append(packet.packet_id or 0)
            # Nothing more may come before an acknowledgement: a ping from us would be answered last.
            caller.say(*[mqtt5.PubAckPacket(i).write() for i in ids])
        assert await publishing == [PublishOutcome.ACKED] * 10


async def test_publish_waiting_for_room_ends_with_the_connection(scripted: ScriptedBroker) -> None:
    connection = make_connection(make_settings(scripted.url, reconnect_base_s=60, reconnect_cap_s=60))
    async with running(connection, connected=False), asyncio.TaskGroup() as group:
        caller = await scripted.caller()
        await caller.welcome(receive_max=1)
        await connection.wait_connected()
        # More than the sockets hold, to a broker that does not read on.
        publishing = group.create_task(send(connection, "t", *[b"x" * 60_000] * 300, qos=0, within_ms=60_000))
        await caller.next_of(mqtt5.PublishPacket)
        caller.close()
        outcomes = await publishing
        assert outcomes[-1] is PublishOutcome.NOT_SENT
        assert not connection.connected


async def test_publish_deadlines_passed_leave_no_waiters(scripted: ScriptedBroker) -> None:
    connection = make_connection(make_settings(scripted.url))
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.welcome(receive_max=1)
        await connection.wait_connected()
        assert await send(connection, "t", b"1", within_ms=20) == [PublishOutcome.UNKNOWN]
        for _ in range(5):
            assert await send(connection, "t", b"2", within_ms=5) == [PublishOutcome.NOT_SENT]
        assert connection._wire is not None
        assert len(connection._wire._waiters) == 0


async def test_connection_stopped_says_goodbye(scripted: ScriptedBroker) -> None:
    async with running(make_connection(make_settings(scripted.url)), connected=False) as connection:
        caller = await scripted.caller()
        await caller.welcome()
        await connection.wait_connected()
    goodbye = await caller.next_of(mqtt5.DisconnectPacket)
    assert isinstance(goodbye, mqtt5.DisconnectPacket)
    assert goodbye.reason_code == Goodbye.NORMAL_DISCONNECTION
    assert sum(connection.stats.lost.values()) == 0


async def test_connection_subscription_refused_is_counted_as_refused(scripted: ScriptedBroker) -> None:
    connection = make_connection(make_settings(scripted.url), "a")
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.welcome()
        packet = await caller.next_of(mqtt5.SubscribePacket)
        assert isinstance(packet, mqtt5.SubscribePacket)
        caller.say(mqtt5.SubAckPacket(packet.packet_id, [mqtt5.SubAckReasonCode.NOT_AUTHORIZED]).write())
        assert await caller.next() is None
        assert connection.stats.lost["refused"] == 1
        assert not connection.connected


async def test_connection_granted_a_lower_qos_than_asked_for_is_refused(scripted: ScriptedBroker) -> None:
    connection = make_connection(make_settings(scripted.url), "a/#")
    async with running(connection, connected=False):
        caller = await scripted.caller()
        caller.say(mqtt5.ConnAckPacket().write())
        request = await caller.next_of(mqtt5.SubscribePacket)
        assert isinstance(request, mqtt5.SubscribePacket)
        granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE]
        caller.say(mqtt5.SubAckPacket(request.packet_id, granted).write())
        await until(lambda: connection.stats.lost["refused"] == 1)
        assert not connection.connected


async def test_publish_past_its_deadline_sends_nothing(scripted: ScriptedBroker) -> None:
    clock = ManualClock()
    connection = make_connection(make_settings(scripted.url), clock=clock)
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.welcome()
        await connection.wait_connected()
        message = OutMessage(topic="a/b", payload=b"late")
        late = await connection.publish([message], deadline_mono_ms=clock.mono_ms())
        assert late == [PublishOutcome.NOT_SENT]
        publishing = asyncio.ensure_future(
            connection.publish([OutMessage(topic="a/b", payload=b"in time")], deadline_mono_ms=clock.mono_ms() + 60_000)
        )
        packet = await caller.next_of(mqtt5.PublishPacket)
        assert isinstance(packet, mqtt5.PublishPacket)
        assert packet.payload == b"in time"
        caller.say(mqtt5.PubAckPacket(packet.packet_id or 0).write())
        assert await asyncio.wait_for(publishing, CEILING_S) == [PublishOutcome.ACKED]


async def test_connection_nobody_listens_is_counted_and_tried_again(scripted: ScriptedBroker) -> None:
    async with Broker() as broker:
        port = broker.port
    connection = make_connection(make_settings(f"mqtt://127.0.0.1:{port}"))
    async with running(connection, connected=False):
        await until(lambda: connection.stats.lost["unreachable"] >= 2)
        async with Broker(port):
            async with asyncio.timeout(CEILING_S):
                await connection.wait_connected()


async def test_connection_broker_that_never_answers_is_left_in_time(scripted: ScriptedBroker) -> None:
    connection = make_connection(make_settings(scripted.url, connect_timeout_s=0.1))
    async with running(connection, connected=False):
        await scripted.caller()
        await scripted.caller()
        assert connection.stats.lost["unreachable"] >= 1
        assert connection.stats.lost["closed"] == 0


async def test_connection_password_decides_who_comes_in() -> None:
    users = {"gateway": User(password="right", publish=("mine/",))}
    async with Broker(users=users) as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        wrong = make_connection(make_settings(url, username="gateway", password="wrong"))
        async with running(wrong, connected=False):
            await until(lambda: wrong.stats.lost["refused"] >= 1)
            assert wrong.stats.connects == 0
        right = make_connection(make_settings(url, username="gateway", password="right"))
        async with running(right):
            assert await send(right, "mine/1", b"x") == [PublishOutcome.NO_SUBSCRIBER]
            assert await send(right, "other/1", b"x") == [PublishOutcome.REFUSED]


def test_connection_on_uvloop_carries_batches_both_ways() -> None:
    async def story() -> None:
        inbox = Inbox()
        async with Broker() as broker:
            url = f"mqtt://127.0.0.1:{broker.port}"
            async with (
                running(make_connection(make_settings(url, "sub"), "t/#", inbox=inbox)) as sub,
                running(make_connection(make_settings(url, "pub"))) as pub,
            ):
                outcomes = await send(pub, "t/1", *[b"%d" % i for i in range(5_000)])
                assert outcomes == [PublishOutcome.ACKED] * 5_000
                assert await inbox.has(5_000) == [b"%d" % i for i in range(5_000)]
                assert inbox.acknowledge(sub) == 5_000

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "mqtt://broker.example:1883"},
        {"url": "http://localhost"},
        {"url": "mqtt://user:secret@localhost"},
        {"url": "mqtt://localhost:99999"},
        {"url": "mqtt://localhost", "cert_file": "a.pem"},
        {"url": "mqtt://localhost", "client_id": "a b"},
        {"url": "mqtt://localhost", "retries": 3},
    ],
    ids=["plaintext", "scheme", "credentials", "port", "half_a_certificate", "client_id", "unknown_key"],
)
def test_settings_unsound_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MqttSettings.model_validate({"client_id": "test"} | settings)


@pytest.mark.parametrize(
    ("url", "more", "port"),
    [
        ("mqtts://broker.example", {}, 8883),
        ("mqtt://[::1]", {}, 1883),
        ("mqtt://broker.example:1", {"allow_plaintext": True}, 1),
    ],
)
def test_settings_sound_are_taken(url: str, more: dict[str, object], port: int) -> None:
    settings = MqttSettings.model_validate({"url": url, "client_id": "test", "password": "secret"} | more)
    assert settings.port == port
    assert "secret" not in repr(settings)
