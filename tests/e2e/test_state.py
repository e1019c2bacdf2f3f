"""A gateway moves: its state goes into an archive and a daemon elsewhere goes on with it, its Parquet files too."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pyarrow.dataset
import pytest

from tests.e2e.rig import Daemon, eventually, now_ms, run_cli, running
from tests.scenes.brokers import BrokerProcess, standin_process

pytestmark = pytest.mark.e2e

LENGTH_MS = 60_000
CHANGE: dict[str, Any] = {
    "sinks": [{"kind": "parquet", "name": "warehouse", "directory": "../rows", "gather_s": "0s"}],
    "intervals": {"length_s": LENGTH_MS // 1000, "grace_s": "0s"},
}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    async with standin_process(tmp_path) as process:
        yield process


def place(directory: Path) -> Path:
    directory.mkdir()
    return directory


def rows(directory: Path) -> list[tuple[str, float]]:
    """Device and energy of every row that any reader of the directory finds."""
    if not any(directory.rglob("*.parquet")):
        return []
    found = pyarrow.dataset.dataset(directory, format="parquet", partitioning="hive").to_table().to_pylist()
    return sorted((row["device"], row["charge_wh"]) for row in found)


async def told(broker: BrokerProcess, device: str, seq: int) -> None:
    """One message that lies in an interval which is over, so that it closes at once."""
    t = now_ms() // LENGTH_MS * LENGTH_MS
    energy = {"id": device, "boot": 1, "seq": seq, "t": t, "span_ms": 1_000, "charge_wh": seq}
    async with aiomqtt.Client(
        "127.0.0.1", broker.port, identifier=device, protocol=aiomqtt.ProtocolVersion.V5
    ) as client:
        await client.publish(f"gateway/v1/devices/{device}/energy", json.dumps(energy), qos=1)


async def test_state_of_a_daemon_goes_on_elsewhere_and_no_row_comes_twice(
    tmp_path: Path, broker: BrokerProcess
) -> None:
    here = Daemon(place(tmp_path / "here"), broker.port, CHANGE)
    archive, stored = tmp_path / "state.tgz", tmp_path / "rows"
    export = ("state", "export", "--config", str(here.config), "--out", str(archive))
    await here.enroll(["home-1", "home-2"])
    async with running(here):
        await here.ready()
        await told(broker, "home-1", 1)
        await eventually(lambda: rows(stored) == [("home-1", 1.0)], "the row", alive=here.child)
        code, output = await run_cli(*export)
        assert (code, output.strip()) == (1, f"state_dir {here.directory}/state: another gateway is using it")
        assert await here.stop() == 0
    code, output = await run_cli(*export)
    assert code == 0, output

    there = Daemon(place(tmp_path / "there"), broker.port, CHANGE)
    code, output = await run_cli("state", "import", "--config", str(there.config), "--in", str(archive))
    assert code == 0, output
    async with running(there):
        await there.ready()
        assert (await there.ask("GET", "/v1/devices")).body["total"] == 2
        await told(broker, "home-2", 2)
        await eventually(lambda: len(rows(stored)) == 2, "the next row", alive=there.child)
        assert await there.stop() == 0
    assert rows(stored) == [("home-1", 1.0), ("home-2", 2.0)]
    assert (here.faults_logged(), there.faults_logged()) == ([], [])
