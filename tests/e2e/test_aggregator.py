"""From messages of batteries to the aggregator: real processes, a stand-in of the broker and one of the aggregator."""

import asyncio
import signal
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import pytest

from simulators.aggregator import Access, Aggregator, Pace, Schema, Seen, SftpFolder, Wait
from simulators.processes import gateway
from tests.builders.openssh import OpenSsh
from tests.e2e.rig import Daemon, eventually, now_ms, running
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e

KEY = "key-of-the-aggregator"
QUARTER_MS, MINUTE_MS = 900_000, 60_000
QUARTERS = 3
STEPS = 6


def street() -> dict[str, str]:
    """Meters by home."""
    return {f"home-{i}": str(uuid.uuid4()) for i in range(3)}


def aggregator_of(homes: dict[str, str], pace: Pace | None = None) -> Aggregator:
    today = datetime.now(UTC).date()
    return Aggregator(keys={KEY: Access()}, meters=dict.fromkeys(homes.values(), today), pace=pace)


def daemon_of(directory: Path, broker_port: int, homes: dict[str, str], **sink: Any) -> Daemon:
    (directory / "key").write_text(KEY, encoding="utf-8")
    (directory / "key").chmod(0o600)
    lines = [f"{home},{meter}\n" for home, meter in homes.items()]
    (directory / "meters.csv").write_text("".join(["device,meter_id\n", *lines]), encoding="utf-8")
    made = {
        "kind": "leap_csv", "name": "leap", "meters": "meters.csv", "poll_s": "50ms", "gather_s": "0s", **sink,
    }  # fmt: skip
    return Daemon(directory, broker_port, {"sinks": [made], "intervals": {"length_s": "15min", "grace_s": "1s"}})


def wanted(homes: dict[str, str], first_ms: int) -> set[tuple[str, int]]:
    return {(meter, first_ms + i * QUARTER_MS) for meter in homes.values() for i in range(QUARTERS)}


async def test_aggregator_has_every_quarter_of_the_homes_that_have_a_meter(tmp_path: Path) -> None:
    homes = street()
    async with standin_process(tmp_path) as broker, aggregator_of(homes) as aggregator:
        daemon = daemon_of(tmp_path, broker.port, homes, url=aggregator.url, token=f"file:{tmp_path / 'key'}")
        accepted = aggregator.intervals.accepted
        await daemon.enroll([*homes, "home-without-a-meter"])
        async with running(daemon):
            await daemon.ready()
            first_ms = now_ms() // QUARTER_MS * QUARTER_MS - QUARTERS * QUARTER_MS
            await sent(broker.port, [*homes, "home-without-a-meter"], first_ms)
            await eventually(lambda: len(accepted) >= 9, "every quarter is there", alive=daemon.child)
            status = (await daemon.ask("GET", "/v1/leap")).body
            metrics = (await daemon.ask("GET", "/metrics")).body
        assert set(accepted) == wanted(homes, first_ms)
        told = {(v.row.generated_kwh, v.row.consumed_kwh) for versions in accepted.values() for v in versions}
        assert told == {(0.375, 0.01875)}
        assert {len(versions) for versions in accepted.values()} == {1}
        assert (status["state"], status["sinks"][0]["last_file"]["status"]) == ("UNCONFIRMED", "COMPLETED")
        assert 'gateway_leap_meters{sink="leap"} 3.0' in metrics
        assert KEY not in (tmp_path / "gateway.yaml").read_text(encoding="utf-8")
        assert aggregator.faults == []
    assert daemon.faults_logged() == []


async def test_aggregator_has_every_row_once_though_the_daemon_is_killed_at_each_step(tmp_path: Path) -> None:
    """Killed when the first request of a life arrives, when the second does, and so on; its answer is lost."""
    homes = street()
    pace = Pace(queued=Wait(looks=1), processing=Wait(looks=1))
    async with standin_process(tmp_path) as broker, aggregator_of(homes, pace) as aggregator:
        daemon = daemon_of(
            tmp_path, broker.port, homes, url=aggregator.url, token=f"file:{tmp_path / 'key'}", batch_rows=1
        )
        accepted = aggregator.intervals.accepted
        await daemon.enroll([*homes])
        came, step = 0, -1

        def kill(_: Seen) -> None:
            nonlocal came
            came += 1
            if came == step:
                daemon.child.send(signal.SIGKILL)

        aggregator.on_request = kill
        first_ms = now_ms() // QUARTER_MS * QUARTER_MS - QUARTERS * QUARTER_MS
        for life in range(1, STEPS + 1):
            came, step = 0, life
            daemon.child = gateway(daemon.config, tmp_path)
            async with running(daemon):
                if life == 1:
                    await daemon.ready()
                    await sent(broker.port, [*homes], first_ms)
                assert daemon.child.process is not None
                assert await asyncio.wait_for(daemon.child.process.wait(), 120) == -signal.SIGKILL
        step = -1
        daemon.child = gateway(daemon.config, tmp_path)
        async with running(daemon):
            await eventually(lambda: set(accepted) == wanted(homes, first_ms), "every quarter is there")
            await settled(daemon)
        assert {key: len(versions) for key, versions in accepted.items()} == dict.fromkeys(wanted(homes, first_ms), 1)
        assert aggregator.faults == []


async def test_aggregator_over_sftp_has_every_row_once_though_the_daemon_is_killed(tmp_path: Path) -> None:
    """A real OpenSSH server; the daemon is killed at six moments after its start."""
    homes = street()
    aggregator = aggregator_of(homes, Pace(queued=Wait(looks=2), processing=Wait(looks=2)))
    async with (
        standin_process(tmp_path) as broker,
        OpenSsh(tmp_path / "ssh", password=KEY) as server,
        SftpFolder(aggregator.intervals, server.root, schema=Schema.LOAD) as folder,
    ):
        account = {
            "host": "127.0.0.1", "port": server.port, "user": server.user, "folder": server.folder,
            "password": f"file:{tmp_path / 'key'}", "host_key": server.known_hosts.split(" ", 1)[1].strip(),
        }  # fmt: skip
        daemon = daemon_of(tmp_path, broker.port, homes, sftp=account, batch_rows=2)
        accepted = aggregator.intervals.accepted
        await daemon.enroll([*homes])
        async with running(daemon):
            await daemon.ready()
            first_ms = now_ms() // QUARTER_MS * QUARTER_MS - QUARTERS * QUARTER_MS
            await sent(broker.port, [*homes], first_ms)
            await eventually(lambda: len(accepted) > 0, "a first file is taken", alive=daemon.child)
        for life in range(5):
            daemon.child = gateway(daemon.config, tmp_path)
            async with running(daemon):
                await asyncio.sleep(0.15 * life)
        daemon.child = gateway(daemon.config, tmp_path)
        async with running(daemon):
            await eventually(lambda: set(accepted) == wanted(homes, first_ms), "every quarter is there")
            await settled(daemon)
        assert {key: len(versions) for key, versions in accepted.items()} == dict.fromkeys(wanted(homes, first_ms), 1)
        assert (folder.faults, aggregator.faults) == ([], [])


async def settled(daemon: Daemon) -> None:
    """Until nothing waits, so that whatever would be sent twice has been."""
    for _ in range(600):
        (sink,) = (await daemon.ask("GET", "/v1/sinks")).body["sinks"]
        if sink["backlog"] == 0 and sink["failing"] is None:
            assert sink["parked"] == {}
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"still waiting: {sink}")


async def sent(port: int, homes: list[str], first_ms: int) -> None:
    """A message a minute and home, each with 25 Wh discharged and 1.25 Wh charged."""
    async with aiomqtt.Client("127.0.0.1", port, identifier="homes", protocol=aiomqtt.ProtocolVersion.V5) as client:
        for minute in range(1, QUARTERS * 15 + 1):
            for home in homes:
                body = {
                    "id": home, "boot": 1, "seq": minute, "t": first_ms + minute * MINUTE_MS, "span_ms": MINUTE_MS,
                    "charge_wh": 1.25, "discharge_wh": 25.0, "battery_w": 1_425, "soc_pct": 50,
                }  # fmt: skip
                await client.publish(f"gateway/v1/devices/{home}/energy", orjson.dumps(body), qos=1)
