"""Two gateways with one client id and a state directory each: both say what is wrong."""

from pathlib import Path

import pytest

from tests.e2e.rig import Daemon, Reply, eventually, running
from tests.scenes.brokers import mosquitto_process

pytestmark = pytest.mark.e2e

LINE = "another client seems to use this client id: the broker closes one connection after another"


def says_so(reply: Reply) -> bool:
    warnings = reply.body["warnings"]
    return all(
        f"another client uses the client id gateway-{name}?" in str(warnings) for name in ("control", "telemetry")
    )


async def test_two_gateways_of_one_client_id_both_name_it(tmp_path: Path) -> None:
    daemons = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    async with mosquitto_process(tmp_path) as broker:
        daemons = [Daemon(tmp_path / name, broker.port) for name in ("first", "second")]
        await daemons[0].enroll(["home-1"])
        async with running(daemons[0]), running(daemons[1]):
            for daemon in daemons:
                await daemon.until("/readyz", says_so, "the second client is named")
                metrics = (await daemon.ask("GET", "/metrics")).body
                assert 'gateway_mqtt_client_id_contested{connection="control"} 1.0' in metrics
                assert 'gateway_mqtt_client_id_contested{connection="telemetry"} 1.0' in metrics
            for daemon in daemons:
                await eventually(
                    lambda d=daemon: sum(line["message"] == LINE for line in d.log_lines()) == 2,  # type: ignore[misc]
                    "a line for each connection",
                )


async def test_gateway_alone_says_nothing_of_another_over_a_restart(tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path) as broker:
        for _ in range(2):
            daemon = Daemon(tmp_path, broker.port)
            await daemon.enroll(["home-1"])
            async with running(daemon):
                reply = await daemon.until("/readyz", lambda r: "not connected" not in str(r.body), "connected")
                assert "MQTT" not in str(reply.body)
                await daemon.stop()
        assert (tmp_path / "state" / "mqtt_sessions.json").is_file()


async def test_gateway_whose_session_went_while_it_was_away_says_so_at_its_start(tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path) as broker:
        daemon = Daemon(tmp_path, broker.port)
        async with running(daemon):
            await daemon.until("/readyz", lambda r: "not connected" not in str(r.body), "connected")
            await daemon.stop()
        await broker.kill()
        (tmp_path / "mosquitto.db").unlink(missing_ok=True)
        await broker.start()
        async with running(Daemon(tmp_path, broker.port)) as daemon:
            await daemon.until(
                "/readyz", lambda r: "had lost the session of gateway-telemetry" in str(r.body), "the session is missed"
            )
            metrics = (await daemon.ask("GET", "/metrics")).body
            assert 'gateway_mqtt_session_lapses_total{connection="telemetry",reason="missing"} 1.0' in metrics
