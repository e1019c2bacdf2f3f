"""The demo as a test: real processes, judged by its own oracle."""

import asyncio
import json
import sys

import pytest

from simulators.processes import find_mosquitto

pytestmark = pytest.mark.e2e


async def play(*args: str) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulators", "demo", "--json", *args,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, progress = await asyncio.wait_for(process.communicate(), 900)
    assert process.returncode in (0, 1), progress.decode()
    found: dict[str, object] = json.loads(output)
    return found


async def test_demo_calm_on_the_stand_in_broker_holds() -> None:
    found = await play("--devices", "40", "--for", "45", "--calm", "--broker", "standin")
    assert found["problems"] == []
    assert found["ok"] is True
    intervals = found["intervals"]
    assert isinstance(intervals, dict)
    assert intervals["received"] == intervals["expected"] > 0


@pytest.mark.deep
@pytest.mark.parametrize(
    ("broker", "disturbance"),
    [
        ("mosquitto", "kill"),
        ("standin", "kill"),
        ("mosquitto", "term"),
        ("mosquitto", "broker"),
        ("mosquitto", "freeze"),
        ("standin", "freeze"),
        ("mosquitto", "blind"),
    ],
)
async def test_demo_with_faults_and_interruptions_holds(broker: str, disturbance: str) -> None:
    if broker == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    found = await play("--broker", broker, "--disturb", disturbance)
    assert found["problems"] == []
    assert found["ok"] is True
