"""An evening of the aggregator's dispatch: real processes, judged by the demo's oracle and the evening's own."""

import asyncio
import json
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.deep]


async def play(*args: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulators", "evening", "--json", *args,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, progress = await asyncio.wait_for(process.communicate(), 900)
    assert process.returncode in (0, 1), progress.decode()
    found: dict[str, Any] = json.loads(output)
    return found


def shown(found: dict[str, Any]) -> None:
    """Nothing is wrong, and what is to be shown was there."""
    assert found["problems"] == []
    assert found["moments"] > 0
    assert found["intervals"]["received"] == found["intervals"]["expected"] > 0
    assert found["uploads"]["expected"] > 0
    assert {"stacked: DSGS", "uploading: DSGS", "changed", "unheard"} == found["first_command_s"].keys()
    assert max(one["adequacy"] for one in found["shares"]) > 0


async def test_evening_of_the_aggregator_on_a_short_street_holds() -> None:
    shown(await play("--devices", "24", "--hour", "14", "--interval", "5", "--operator"))


@pytest.mark.parametrize("seed", ["7", "11", "23"])
async def test_evening_of_the_aggregator_on_two_hundred_homes_holds(seed: str) -> None:
    shown(await play("--seed", seed))
