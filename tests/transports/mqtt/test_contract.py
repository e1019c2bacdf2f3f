"""What a connection can count on from a broker: the same for mosquitto as shipped with and for the stand-in."""

import asyncio

import pytest

from gateway.transports.mqtt.connection import OutMessage, PublishOutcome
from tests.scenes.brokers import BrokerProcess
from tests.scenes.mqtt_peers import CEILING_S, Inbox, make_connection, make_settings, running, send, until

# Both brokers are processes.
pytestmark = pytest.mark.real_time
ACKED, NO_SUBSCRIBER = PublishOutcome.ACKED, PublishOutcome.NO_SUBSCRIBER


async def test_connection_subscribed_receives_qos_0_and_1(broker: BrokerProcess) -> None:
    inbox = Inbox()
    async with running(make_connection(make_settings(broker.url, "sub"), "homes/+/live", inbox=inbox)) as sub:
        async with running(make_connection(make_settings(broker.url, "pub"))) as pub:
            assert await send(pub, "homes/1/live", b"q0", qos=0) == [PublishOutcome.UNKNOWN]
            assert await send(pub, "homes/2/live", b"q1") == [ACKED]
            assert sorted(await inbox.has(2)) == [b"q0", b"q1"]
        assert {m.payload: int(m.qos) for m in inbox.messages} == {b"q0": 0, b"q1": 1}
        assert inbox.acknowledge(sub) == 1


async def test_publish_nobody_subscribed_is_told(broker: BrokerProcess) -> None:
    async with running(make_connection(make_settings(broker.url, "pub"))) as pub:
        assert await send(pub, "nobody/here", b"x") == [NO_SUBSCRIBER]
        assert pub.stats.published[NO_SUBSCRIBER] == 1


async def test_message_unacknowledged_comes_again_on_the_next_connection(broker: BrokerProcess) -> None:
    settings, inbox, again = make_settings(broker.url, "sub"), Inbox(), Inbox()
    async with running(make_connection(make_settings(broker.url, "pub"))) as pub:
        async with running(make_connection(settings, "t", inbox=inbox)) as sub:
            await send(pub, "t", b"1", b"2", b"3")
            await inbox.has(3)
            generation, first = inbox.pending[0]
            assert sub.acknowledge(generation, first[:1]) == 1
        await send(pub, "t", b"4")
        async with running(make_connection(settings, "t", inbox=again)) as sub:
            assert await again.has(3) == [b"2", b"3", b"4"]
            assert [message.duplicate for message in again.messages[:2]] == [True, True]
            assert again.acknowledge(sub) == 3


async def test_broker_killed_connection_comes_back_with_its_subscriptions(broker: BrokerProcess) -> None:
    inbox = Inbox()
    async with (
        running(make_connection(make_settings(broker.url, "sub"), "t", inbox=inbox)) as sub,
        running(make_connection(make_settings(broker.url, "pub"))) as pub,
    ):
        await send(pub, "t", b"before")
        await inbox.has(1)
        await broker.kill()
        await until(lambda: not sub.connected and not pub.connected)
        assert await send(pub, "t", b"lost") == [PublishOutcome.NOT_SENT]
        await broker.start()
        async with asyncio.timeout(CEILING_S):
            await sub.wait_connected()
            await pub.wait_connected()
        assert inbox.acknowledge(sub) == 0
        assert sub.stats.acks_stale == 1
        await send(pub, "t", b"after")
        assert (await inbox.has(2))[-1] == b"after"
        assert sub.stats.connects == 2
        assert sub.stats.lost["closed"] == 1


async def test_broker_frozen_is_noticed_and_in_flight_is_unknown(broker: BrokerProcess) -> None:
    settings = make_settings(broker.url, "pub", keepalive_s=1, connect_timeout_s=0.5)
    async with running(make_connection(settings)) as pub:
        broker.freeze()
        outcomes = await send(pub, "t", b"1", b"2")
        assert outcomes == [PublishOutcome.UNKNOWN] * 2
        await until(lambda: not pub.connected)
        assert pub.stats.lost["keepalive"] == 1
        broker.thaw()
        async with asyncio.timeout(CEILING_S):
            await pub.wait_connected()
        assert await send(pub, "t", b"3") == [NO_SUBSCRIBER]


async def test_publish_deadline_passed_returns_unknown(broker: BrokerProcess) -> None:
    async with running(make_connection(make_settings(broker.url, "pub"))) as pub:
        broker.freeze()
        assert await send(pub, "t", b"1", within_ms=100) == [PublishOutcome.UNKNOWN]
        broker.thaw()
        assert await send(pub, "t", b"2") == [NO_SUBSCRIBER]


async def test_client_id_used_twice_first_is_cut_off(broker: BrokerProcess) -> None:
    settings = make_settings(broker.url, "same", reconnect_base_s=60, reconnect_cap_s=60)
    async with running(make_connection(settings)) as first, running(make_connection(settings)) as second:
        await until(lambda: not first.connected)
        assert second.connected
        # mosquitto 2.0 closes without a word.
        assert first.stats.lost["taken_over" if broker.kind == "standin" else "closed"] == 1


async def test_message_expired_while_subscriber_was_away_is_not_delivered(broker: BrokerProcess) -> None:
    settings, inbox = make_settings(broker.url, "sub"), Inbox()
    async with running(make_connection(settings, "t")):
        pass
    async with running(make_connection(make_settings(broker.url, "pub"))) as pub:
        assert await send(pub, "t", b"short", expiry_s=1) == [ACKED]
        assert await send(pub, "t", b"long", expiry_s=300) == [ACKED]
        # The broker's clock is its own; only time makes a message expire there.
        await asyncio.sleep(2.2)
        async with running(make_connection(settings, "t", inbox=inbox)):
            await send(pub, "t", b"end")
            assert await inbox.has(2) == [b"long", b"end"]
            left = inbox.messages[0].message_expiry_interval
            assert left is not None
            assert 200 < left < 300


async def test_packet_over_our_limit_is_not_sent_to_us(broker: BrokerProcess) -> None:
    inbox = Inbox()
    settings = make_settings(broker.url, "sub", max_packet_bytes=1024)
    async with (
        running(make_connection(settings, "t", inbox=inbox)) as sub,
        running(make_connection(make_settings(broker.url, "pub"))) as pub,
    ):
        await send(pub, "t", b"x" * 2_000, b"small")
        assert await inbox.has(1) == [b"small"]
        assert sub.connected
        assert sub.stats.lost["oversized"] == 0


async def test_packet_over_the_brokers_limit_is_refused_here(broker: BrokerProcess) -> None:
    async with running(make_connection(make_settings(broker.url, "pub"))) as pub:
        assert await send(pub, "t", b"x" * 65_536, b"small") == [PublishOutcome.REFUSED, NO_SUBSCRIBER]
        assert pub.connected


async def test_backlog_beyond_the_receive_maximum_comes_whole_and_in_order(broker: BrokerProcess) -> None:
    inbox = Inbox()
    settings = make_settings(broker.url, "sub", receive_max=10)
    sent = [b"%d" % i for i in range(100)]
    async with (
        running(make_connection(settings, "t/#", inbox=inbox)) as sub,
        running(make_connection(make_settings(broker.url, "pub"))) as pub,
    ):
        assert await send(pub, "t/1", *sent) == [ACKED] * 100
        await send(pub, "t/0", b"end", qos=0)
        await until(lambda: b"end" in inbox.payloads)
        assert inbox.payloads == [*sent[:10], b"end"]
        # From the first PUBACK on mosquitto 2.0 sends more than the receive maximum; the stand-in does not.
        while len(inbox.messages) < 101:
            seen = len(inbox.messages)
            assert inbox.acknowledge(sub) > 0
            await inbox.has(seen + 1)
        assert [payload for payload in inbox.payloads if payload != b"end"] == sent
        assert sub.stats.connects == 1
        assert sub.stats.overruns == 0 or broker.kind == "mosquitto"


async def test_publish_fifty_thousand_pipelined_are_all_acknowledged(broker: BrokerProcess) -> None:
    async with (
        running(make_connection(make_settings(broker.url, "sub"), "t", qos=0)),
        running(make_connection(make_settings(broker.url, "pub"))) as pub,
    ):
        outcomes = await send(pub, "t", *[b"%d" % i for i in range(50_000)])
        assert outcomes == [ACKED] * 50_000


async def test_publish_retained_reaches_a_later_subscriber(broker: BrokerProcess) -> None:
    inbox = Inbox()
    async with running(make_connection(make_settings(broker.url, "pub"))) as pub:
        message = OutMessage("status/1", b"online", retain=True)
        await pub.publish([message], deadline_mono_ms=2**62)
        async with running(make_connection(make_settings(broker.url, "sub"), "status/+", inbox=inbox)):
            assert await inbox.has(1) == [b"online"]
            assert inbox.messages[0].retain


async def test_reading_paused_nothing_comes_until_resumed(broker: BrokerProcess) -> None:
    inbox = Inbox()
    async with (
        running(make_connection(make_settings(broker.url, "sub"), "t", inbox=inbox)) as sub,
        running(make_connection(make_settings(broker.url, "pub"))) as pub,
    ):
        sub.pause_reading()
        sub.pause_reading()
        assert await send(pub, "t", b"1", b"2") == [ACKED] * 2
        sub.resume_reading()
        assert await send(pub, "t", b"3") == [ACKED]
        assert inbox.messages == []
        sub.resume_reading()
        assert await inbox.has(3) == [b"1", b"2", b"3"]


async def test_backlog_of_an_outage_beyond_the_receive_maximum_comes_whole(broker: BrokerProcess) -> None:
    settings, inbox = make_settings(broker.url, "sub", receive_max=100, read_buffer_bytes=4096), Inbox()
    sent = [b"%d" % i + b"x" * 200 for i in range(5_000)]
    async with running(make_connection(settings, "t")):
        pass
    async with running(make_connection(make_settings(broker.url, "pub"))) as pub:
        assert await send(pub, "t", *sent) == [ACKED] * 5_000
    async with running(make_connection(settings, "t", inbox=inbox)) as sub:
        seen = 0
        while seen < 5_000:
            seen = len(await inbox.has(seen + 1))
            inbox.acknowledge(sub)
        assert inbox.payloads == sent
        assert sub.stats.connects == 1
        assert sum(sub.stats.lost.values()) == 0
