"""Every fault the gateway is built to stand has a test that carries its id at the end of its name (`..._f22`)."""

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FAULTS = {
    7: "a receiver that is away for days",
    8: "a receiver that takes and does not say so, or takes a part",
    9: "a receiver that is slow",
    11: "the gateway's clock jumps in mid-event",
    12: "a device's clock is wrong",
    13: "telemetry twice or out of order",
    14: "the same event again",
    15: "revisions out of order",
    16: "an event that comes late",
    17: "a cancellation before, during, after, or of nothing",
    18: "events that overlap",
    19: "the source of events goes silent",
    20: "absurd numbers in an event",
    21: "power with the wrong sign",
    22: "a device that ignores its setpoint",
    23: "a step or a herd of the fleet",
    24: "the reserve is reached or raised in mid-event",
    25: "a state of charge that is stale or stuck",
    26: "sentinels and numbers that are none",
    27: "a value past what its register can carry",
    28: "another map, or another product",
    29: "a value that changes while it is read",
    30: "a jump that cannot be",
    31: "a counter that starts anew",
    32: "a device that reboots in mid-dispatch",
    36: "a disk that is full, read-only or broken",
    37: "a process killed while it writes",
    38: "a file that is damaged",
    40: "many of one product are lost at once",
    41: "an exception where nobody expected one",
    42: "a stop, an upgrade, a downgrade",
}


@cache
def carriers() -> dict[int, list[str]]:
    """Names of the tests by the fault they carry."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                _, _, row = node.name.rpartition("_f")
                if row.isdecimal():
                    found.setdefault(int(row), []).append(f"{path.name}::{node.name}")
    return found


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: f"f{row}")
def test_fault_has_a_test_that_carries_its_id(row: int) -> None:
    assert carriers().get(row), f"no test carries f{row}: {FAULTS[row]}"
