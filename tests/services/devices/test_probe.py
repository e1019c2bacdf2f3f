"""`gateway profiles probe` against every simulator: what it is, every point, nothing written."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.profiles.loader import load_profiles
from simulators.battery import Batteries
from simulators.faces.catalogue import ON_OUR_BROKER, make_face
from simulators.faces.plant import Connection, Plant
from tests.builders.homes import homes
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.real_time
ROOT = Path(__file__).parents[3]
PRODUCTS = sorted(name for name, codec in load_profiles(ROOT / "device_profiles").items() if codec.product is not None)


@asynccontextmanager
async def listening(name: str) -> AsyncIterator[tuple[Connection, Plant, dict[str, float]]]:
    """A simulated product on a socket, its time running as fast as the machine's; and its settings at the start."""
    async with AsyncExitStack() as stack:
        broker = None
        if name in ON_OUR_BROKER:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            broker = ("127.0.0.1", (await stack.enter_async_context(standin_process(Path(directory)))).port)
        batteries = Batteries(homes(1, soc_start_pct=60.0), guard=False, time_s=12 * 3600.0)
        face = make_face(name, Plant(batteries, 0), broker=broker)
        connection = await face.start()
        stack.push_async_callback(face.stop)

        async def world() -> None:
            while True:
                await asyncio.sleep(0.05)
                face.step(0.05)
                batteries.step(0.05)

        group = await stack.enter_async_context(asyncio.TaskGroup())
        running = group.create_task(world(), name="world")
        stack.callback(running.cancel)
        yield connection, face.plant, face.settings()
        assert not face.controlled


async def _probe(name: str, connection: Connection, *options: str) -> tuple[int, dict[str, Any], str]:
    document = load_profiles(ROOT / "device_profiles")[name].document
    wanted = document.mqtt.variables if document.mqtt is not None else ()
    parameters = [
        f"--param={k}={v}" for k, v in connection.parameters.items() if k in (*wanted, "device", "fingerprint")
    ]
    secret = ["--secret", "env:PROBED"] if connection.token else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "profiles", "probe", name, connection.url, "--json", *parameters, *secret,
        "--username", connection.username, *options,
        cwd=ROOT, env=os.environ | {"PROBED": connection.token},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(40):
        out, err = await process.communicate()
    return process.returncode or 0, json.loads(out) if out else {}, err.decode()


@pytest.mark.parametrize("name", PRODUCTS)
async def test_probe_tells_what_the_device_is_and_every_reading(name: str) -> None:
    async with listening(name) as (connection, plant, _):
        code, found, err = await _probe(name, connection)
        assert code == 0, err
        assert found["problems"] == []
        assert found["readings"]["soc_pct"] == pytest.approx(plant.soc_pct, abs=1.01)
        known = [point for point in found["points"] if point["value"] is not None]
        assert len(known) >= len(found["points"]) - 2


async def test_probe_straight_after_another_client_waits_until_the_product_takes_it() -> None:
    async with listening("solaredge-storedge") as (connection, plant, _):
        for _ in range(2):
            code, found, err = await _probe("solaredge-storedge", connection)
            assert code == 0, err
            assert found["readings"]["soc_pct"] == pytest.approx(plant.soc_pct, abs=1.01)


async def test_probe_of_another_product_says_so_and_leaves_with_1() -> None:
    async with listening("foxess-h3") as (connection, _, _):
        code, _, err = await _probe("sunspec-der", connection)
        assert code == 1
        assert connection.url in err


async def test_probe_of_nobody_says_so_and_leaves_with_1() -> None:
    code, _, err = await _probe("foxess-h3", Connection(url="modbus://127.0.0.1:1"))
    assert code == 1
    assert "modbus://127.0.0.1:1" in err
    assert "Traceback" not in err


async def test_probe_tells_which_of_several_models_is_read() -> None:
    async with listening("solaredge-storedge") as (connection, _, _):
        code, found, err = await _probe("solaredge-storedge", connection)
        assert (code, found["notice"]) == (0, None), err
        assert found["models"]["meter"]["said"].startswith(
            "model 203 at 40188 (1 of 1, SE-MTR-3Y-400V-A, Export+Import"
        )
