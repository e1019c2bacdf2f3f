"""What a broker that is killed still has of what it acknowledged while the gateway was away: whose PUBACK it was."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.transports.mqtt.connection import PublishOutcome
from tests.scenes.brokers import BrokerProcess, mosquitto_process
from tests.scenes.mqtt_peers import Inbox, make_connection, make_settings, running, send, until

# mosquitto is a process, and its clock is its own.
pytestmark = pytest.mark.real_time

SENT = [b"%d" % i for i in range(250)]
ON_CHANGES = ("allow_anonymous true", "autosave_on_changes true")


async def acknowledged_for_an_absent_gateway(broker: BrokerProcess) -> None:
    """Each message is sent when the one before is acknowledged."""
    async with running(make_connection(make_settings(broker.url, "gateway"), "t")):
        pass
    async with running(make_connection(make_settings(broker.url, "home"))) as home:
        for payload in SENT:
            assert await send(home, "t", payload) == [PublishOutcome.ACKED]


async def kept_after_a_kill(broker: BrokerProcess) -> Sequence[bytes]:
    """What the gateway gets once the broker was killed and is back."""
    await broker.kill()
    return await kept(broker)


async def kept(broker: BrokerProcess) -> Sequence[bytes]:
    """What the gateway gets from a broker that is started again."""
    await broker.start()
    inbox = Inbox()
    async with running(make_connection(make_settings(broker.url, "gateway"), "t", inbox=inbox)):
        async with running(make_connection(make_settings(broker.url, "home"))) as home:
            await send(home, "t", b"end")
        await until(lambda: b"end" in inbox.payloads)
    return inbox.payloads[:-1]


async def test_shipped_broker_killed_keeps_what_it_has_written_since(tmp_path: Path) -> None:
    file = tmp_path / "mosquitto.db"

    def written() -> int:
        return file.stat().st_ino if file.exists() else 0

    async with mosquitto_process(tmp_path) as broker:
        await acknowledged_for_an_absent_gateway(broker)
        before = written()
        await until(lambda: written() != before)
        assert await kept_after_a_kill(broker) == SENT


async def test_shipped_broker_killed_at_once_loses_the_newest_and_nothing_before(tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path) as broker:
        await acknowledged_for_an_absent_gateway(broker)
        left = await kept_after_a_kill(broker)
        assert left == SENT[: len(left)]


async def test_shipped_broker_that_is_stopped_keeps_everything(tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path) as broker:
        await acknowledged_for_an_absent_gateway(broker)
        await broker.child.stop()
        assert await kept(broker) == SENT


async def test_broker_that_writes_on_changes_loses_the_last_message_at_most(tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path, listener=ON_CHANGES) as broker:
        await acknowledged_for_an_absent_gateway(broker)
        assert await kept_after_a_kill(broker) in (SENT, SENT[:-1])
