"""What a start knows of the sessions that the run before had at its brokers."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.storage.broker_sessions import NAME, BrokerSessions
from gateway.transports.mqtt.connection import MqttConnection
from gateway.transports.mqtt.session_watch import Lapse
from simulators.broker import Broker
from tests.scenes.mqtt_peers import make_connection, make_settings, running
from tests.virtual.clock import loop_clock

LEFT = "a session was left behind: messages collect in it at the broker until it expires"


@asynccontextmanager
async def run_of_a_gateway(
    state_dir: Path, broker: Broker, client_id: str = "gateway-telemetry"
) -> AsyncIterator[MqttConnection]:
    connection = make_connection(make_settings(f"mqtt://127.0.0.1:{broker.port}", client_id), "t")
    sessions = BrokerSessions(state_dir, [connection], loop_clock())
    sessions.load()
    async with sessions, running(connection):
        yield connection


def left_behind(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.__dict__["client"] for r in caplog.records if r.message == LEFT]


async def test_start_whose_session_is_there_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with Broker() as broker:
        for _ in range(3):
            async with run_of_a_gateway(tmp_path, broker) as connection:
                assert connection.warnings() == []
    assert caplog.records == []


async def test_start_whose_session_is_gone_says_so(tmp_path: Path) -> None:
    async with Broker() as broker:
        async with run_of_a_gateway(tmp_path, broker):
            pass
        port = broker.port
    async with Broker(port) as broker, run_of_a_gateway(tmp_path, broker) as connection:
        assert connection.watch.lapses[Lapse.MISSING] == 1
        assert "lost the session" in connection.warnings()[0]


async def test_first_start_expects_no_session(tmp_path: Path) -> None:
    async with Broker() as broker, run_of_a_gateway(tmp_path, broker) as connection:
        assert connection.warnings() == []


async def test_start_with_another_client_id_names_the_session_left_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker() as broker:
        async with run_of_a_gateway(tmp_path, broker):
            pass
        async with run_of_a_gateway(tmp_path, broker, "new-telemetry") as connection:
            assert connection.warnings() == []
        assert left_behind(caplog) == ["gateway-telemetry"]
        async with run_of_a_gateway(tmp_path, broker, "new-telemetry"):
            pass
        assert left_behind(caplog) == ["gateway-telemetry"]


async def test_file_that_is_damaged_keeps_no_gateway_from_starting(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\x00")
    async with Broker() as broker:
        async with run_of_a_gateway(tmp_path, broker) as connection:
            assert connection.warnings() == []
        async with run_of_a_gateway(tmp_path, broker) as connection:
            assert connection.watch.seen_utc_ms > 0
