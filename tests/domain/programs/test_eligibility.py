"""Which batteries a program may have: each requirement by itself, and what is not known."""

import math

import numpy as np
import pytest

from gateway.domain.programs.eligibility import Requirements, Unfit, unfit, unfit_names

DSGS = Requirements(min_w=1_000, min_hours=2, completeness_pct=95, territories=frozenset({"pge"}))


def judged(
    requirements: Requirements = DSGS,
    *,
    power_w: float = 5_000,
    capacity_wh: float = 10_000,
    measured_pct: float = 100,
    inside: bool = True,
    excluded: bool = False,
) -> Unfit:
    found = unfit(
        requirements, power_w=np.array([power_w]), capacity_wh=np.array([capacity_wh]),
        measured_pct=np.array([measured_pct]), inside=np.array([inside]), excluded=np.array([excluded]),
    )  # fmt: skip
    return Unfit(int(found[0]))


def test_a_battery_that_has_everything_is_eligible() -> None:
    assert not judged()
    assert not judged(power_w=1_000, capacity_wh=2_000, measured_pct=95)


@pytest.mark.parametrize(
    ("lacks", "why"),
    [
        ({"power_w": 999}, Unfit.POWER),
        ({"capacity_wh": 1_999}, Unfit.DURATION),
        ({"measured_pct": 94.9}, Unfit.TELEMETRY),
        ({"inside": False}, Unfit.TERRITORY),
        ({"excluded": True}, Unfit.EXCLUSIVE),
        ({"power_w": math.nan}, Unfit.POWER),
        ({"capacity_wh": math.nan}, Unfit.DURATION),
        ({"measured_pct": math.nan}, Unfit.TELEMETRY),
    ],
)
def test_a_battery_is_unfit_for_each_thing_it_lacks_or_of_which_that_is_unknown(
    lacks: dict[str, float], why: Unfit
) -> None:
    assert judged(**lacks) == why  # type: ignore[arg-type]


def test_a_program_that_asks_for_nothing_has_everybody_but_the_excluded() -> None:
    assert not judged(Requirements(), capacity_wh=math.nan, measured_pct=0, inside=False)
    assert judged(Requirements(), excluded=True) == Unfit.EXCLUSIVE


def test_reasons_are_told_all_at_once_in_order() -> None:
    found = judged(power_w=0, capacity_wh=0, measured_pct=0, inside=False, excluded=True)
    assert unfit_names(found) == ["power", "duration", "telemetry", "territory", "exclusive"]


def test_a_battery_that_gives_more_than_a_program_takes_is_too_large_and_so_is_an_unknown_one() -> None:
    home = Requirements(max_w=50_000)
    assert judged(home, power_w=50_000) == 0
    assert judged(home, power_w=50_001) == Unfit.TOO_LARGE
    assert judged(home, power_w=math.nan) & Unfit.TOO_LARGE
    assert unfit_names(Unfit.TOO_LARGE) == ["too_large"]
