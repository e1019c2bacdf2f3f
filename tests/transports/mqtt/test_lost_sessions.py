"""A session that did not resume, and a second client of the same id: seen against mosquitto, told by the connection."""

import random
from pathlib import Path

import mqtt5
import pytest

from gateway.transports.mqtt.connection import MqttConnection
from gateway.transports.mqtt.session_watch import CUTS, Lapse
from tests.scenes.brokers import mosquitto_process
from tests.scenes.mqtt_peers import ScriptedBroker, calling, make_connection, make_settings, running, until
from tests.virtual.clock import loop_clock

# mosquitto is a process.
pytestmark = pytest.mark.real_time

LOST = "the broker has lost the session; messages that waited in it are missing"
TWIN = "another client seems to use this client id: the broker closes one connection after another"


def lines(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, object]]:
    return [r.__dict__ for r in caplog.records if r.message == message]


async def test_broker_that_comes_back_without_its_sessions_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with mosquitto_process(tmp_path) as broker:
        connection = make_connection(make_settings(broker.url, "gateway-telemetry"), "t")
        async with running(connection):
            assert connection.warnings() == []
            await broker.kill()
            await until(lambda: not connection.connected)
            (tmp_path / "mosquitto.db").unlink(missing_ok=True)
            await broker.start()
            await until(lambda: connection.connected)
            assert connection.watch.lapses[Lapse.MISSING] == 1
            assert "lost the session of gateway-telemetry" in connection.warnings()[0]
            (line,) = lines(caplog, LOST)
            assert line["reason"] == "missing"
            assert "clean start" in str(line["causes"])


async def test_connection_lost_and_resumed_is_not_told(tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path) as broker:
        connection = make_connection(make_settings(broker.url, "gateway-telemetry"), "t")
        async with running(connection):
            connection.drop()
            await until(lambda: connection.stats.connects == 2)
            assert sum(connection.watch.lapses.values()) == 0
            assert connection.warnings() == []


async def test_clean_start_under_our_client_id_on_a_broker_that_allows_it_is_told(tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path) as broker:
        connection = make_connection(make_settings(broker.url, "gateway-telemetry"), "t")
        async with running(connection):
            connect = mqtt5.ConnectPacket("gateway-telemetry", clean_start=True)
            async with calling(broker.port, connect.write()) as thief:
                await thief.next_of(mqtt5.ConnAckPacket)
            await until(lambda: connection.stats.connects == 2)
            assert connection.watch.lapses[Lapse.MISSING] == 1


async def test_session_that_carries_no_messages_is_not_missed(tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path) as broker:
        connection = make_connection(make_settings(broker.url, "gateway-telemetry"))
        async with running(connection):
            await broker.kill()
            (tmp_path / "mosquitto.db").unlink(missing_ok=True)
            await broker.start()
            await until(lambda: connection.stats.connects == 2)
            assert connection.warnings() == []


@pytest.mark.parametrize(("asked_s", "granted_s", "told"), [(3600, None, []), (3600, 60, [60]), (3600, 3600, [])])
async def test_broker_that_keeps_sessions_for_less_than_asked_is_logged(
    scripted: ScriptedBroker, caplog: pytest.LogCaptureFixture, asked_s: int, granted_s: int | None, told: list[int]
) -> None:
    connection = make_connection(make_settings(scripted.url, session_expiry_s=asked_s), "t")
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.next_of(mqtt5.ConnectPacket)
        caller.say(mqtt5.ConnAckPacket(session_expiry_interval=granted_s).write())
        await caller.grant()
        await connection.wait_connected()
        assert connection.warnings() == []
    message = "the broker keeps the session for a shorter time than asked for"
    assert [line["kept_s"] for line in lines(caplog, message)] == told


@pytest.mark.parametrize(("asked_s", "granted_s"), [(0, None), (3600, 0)])
async def test_session_that_nobody_keeps_is_a_warning(
    scripted: ScriptedBroker, asked_s: int, granted_s: int | None
) -> None:
    connection = make_connection(make_settings(scripted.url, session_expiry_s=asked_s), "t")
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.next_of(mqtt5.ConnectPacket)
        caller.say(mqtt5.ConnAckPacket(session_expiry_interval=granted_s).write())
        await caller.grant()
        await connection.wait_connected()
        assert "keeps nothing that is sent while the gateway is away" in connection.warnings()[0]


def contested(connection: MqttConnection) -> bool:
    return any("another client uses the client id" in warning for warning in connection.warnings())


async def test_two_clients_of_one_id_both_say_so_and_it_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with mosquitto_process(tmp_path) as broker:
        first, second = (make_connection(make_settings(broker.url, "gateway-telemetry"), "t") for _ in range(2))
        async with running(first), running(second):
            await until(lambda: contested(first) and contested(second))
            await until(lambda: first.stats.connects > CUTS + 1)
        assert len(lines(caplog, TWIN)) == 2


class Ceilings(random.Random):
    """Pauses of no length; `asked` has how long each might have been, in s."""

    def __init__(self) -> None:
        super().__init__(0)
        self.asked: list[float] = []

    def uniform(self, _a: float, b: float) -> float:
        self.asked.append(b)
        return 0.0


async def test_connection_cut_again_and_again_waits_longer_each_time(scripted: ScriptedBroker) -> None:
    rng = Ceilings()
    settings = make_settings(scripted.url, reconnect_base_s=1, reconnect_cap_s=5)
    connection = MqttConnection(
        settings, clock=loop_clock(), subscriptions=[], on_messages=lambda *_: None, rng=rng, name="control"
    )
    async with running(connection, connected=False):
        for number in range(1, CUTS + 4):
            caller = await scripted.caller()
            await caller.welcome()
            await until(lambda n=number: connection.stats.connects == n)  # type: ignore[misc]
            caller.close()
        await scripted.caller()
    assert rng.asked == [1, 1, 8, 16, 32, 40]
