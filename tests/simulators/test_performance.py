"""The judge of an event's performance finds what is wrong with it, and nothing in what is right."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from simulators.ledger import IntervalRow
from simulators.oracle import Window
from simulators.performance import expected_wh, faults, paid

MINUTE_MS = 60_000
WINDOW = Window(id="e", start_ms=30_000, end_ms=3 * MINUTE_MS, target_w=1_000.0)


def row(device: str, minute: int, discharge_wh: float | None, charge_wh: float | None = 0.0) -> IntervalRow:
    return IntervalRow(
        device=device, start_ms=minute * MINUTE_MS, length_s=60, revision=1, charge_wh=charge_wh,
        discharge_wh=discharge_wh, coverage_pct=100.0, samples=9, content=b"",
    )  # fmt: skip


ROWS = {
    (one.device, one.start_ms): one
    for one in (
        row("a", 0, 100.0), row("a", 1, 100.0), row("a", 2, 100.0, 20.0), row("a", 3, 500.0), row("b", 1, None),
    )
}  # fmt: skip


def answer(**energies_wh: int) -> dict[str, Any]:
    figures = [
        {"name": name, "within": f"home-{name}", "energy_wh": wh, "short_wh": 10, "short_because": {"clamp": 10}}
        for name, wh in energies_wh.items()
    ]
    value = {"value": str(paid([*energies_wh.values()]))}
    return {"figures": figures, "figure": {"value": value}}


def test_an_interval_counts_as_far_as_the_event_covers_it() -> None:
    assert expected_wh(ROWS, "a", WINDOW) == 50 + 100 + 80
    assert expected_wh(ROWS, "b", WINDOW) == 0, "nothing is known of it"
    assert expected_wh(ROWS, "a", replace(WINDOW, end_ms=90_000)) == 100


def test_each_home_is_paid_to_the_cent() -> None:
    assert paid([230, 2, 3]) == Decimal("0.46") + Decimal("0.00") + Decimal("0.01")


def test_what_is_right_has_no_fault_and_what_is_wrong_has_its_own() -> None:
    right = answer(a=230, b=0)
    assert faults(right, ["a", "b"], ROWS, WINDOW) == []
    assert faults(answer(a=230), ["a", "b"], ROWS, WINDOW) == ["performance names 1 batteries of 2"]
    (wrong,) = faults(answer(a=236, b=0), ["a", "b"], ROWS, WINDOW)
    assert wrong == "a: 236 Wh by performance, 230.0 Wh by its intervals"
    right["figure"]["value"]["value"] = "0.47"
    right["figures"][1]["short_wh"] = 11
    assert faults(right, ["a", "b"], ROWS, WINDOW) == [
        "b: the reasons of its shortfall do not sum to it", "the event is worth 0.47, not 0.46",
    ]  # fmt: skip
