"""A home's own meter beside its utility's: the ratio, its band, and meters that are reversed, scaled or another's."""

import numpy as np
import pytest

from gateway.domain.programs.meter_match import DAYS_MIN, EstimateBand, MeterMatch, MeterMismatch, matched
from gateway.domain.types import Ints


def net(days: int, seed: int = 1) -> list[Ints]:
    """Net Wh of a home with PV, by quarters."""
    rng = np.random.default_rng(seed)
    hour = np.arange(96) / 4
    load = 150 + 250 * np.exp(-(((hour - 19) / 2.5) ** 2))
    sun = 700 * np.clip(np.sin((hour - 6) / 13 * np.pi), 0, None)
    return [np.rint(load * rng.lognormal(0, 0.3, 96) - sun * rng.uniform(0.3, 1)).astype(np.int64) for _ in range(days)]


def compared(own: list[Ints], utility: list[Ints], known: float = 1.0) -> MeterMatch:
    rng = np.random.default_rng(3)
    return matched(own, utility, [rng.random(96) < known for _ in own])


def noisy(true: list[Ints], factor: float, part: float = 0.01, seed: int = 2) -> list[Ints]:
    rng = np.random.default_rng(seed)
    return [np.rint(day * factor * rng.normal(1, part, 96)).astype(np.int64) for day in true]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("factor", "mismatch"),
    [(1.0, None), (1.02, None), (0.97, None), (1.08, MeterMismatch.SCALED), (0.5, MeterMismatch.SCALED),
     (-1.0, MeterMismatch.REVERSED), (-1.08, MeterMismatch.REVERSED)],
)  # fmt: skip
def test_a_current_transformer_that_reads_wrongly_is_named_and_a_good_one_is_not(
    seed: int, factor: float, mismatch: MeterMismatch | None
) -> None:
    true = net(30, seed)
    found = compared(noisy(true, factor), true, known=0.9)
    assert found.mismatch is mismatch
    assert found.ratio is not None
    assert found.ratio * factor == pytest.approx(1, abs=0.01)


def test_another_homes_meter_is_unlike_and_gives_no_band() -> None:
    found = compared(net(30, 1), [day[::-1] for day in net(30, 9)])
    assert found.mismatch is MeterMismatch.UNLIKE
    assert found.band is None


def test_the_band_holds_what_most_days_said_and_is_an_estimates() -> None:
    rng = np.random.default_rng(5)
    true = net(40)
    factors = rng.normal(1.0, 0.03, 40)
    own = [np.rint(day / factor).astype(np.int64) for day, factor in zip(true, factors, strict=True)]
    found = compared(own, true)
    assert found.band is not None
    within = np.mean((found.band.low <= factors) & (factors <= found.band.high))
    assert 0.7 <= within <= 0.9
    assert found.band.applied(1000.0) == pytest.approx(
        [1000 * found.band.low, 1000 * found.band.ratio, 1000 * found.band.high]
    )
    assert EstimateBand(low=0.9, ratio=1.0, high=1.1).applied(-100.0) == pytest.approx((-110.0, -100.0, -90.0))


def test_too_little_in_common_says_nothing() -> None:
    true = net(DAYS_MIN - 1)
    few = compared(true, true)
    assert (few.ratio, few.band, few.mismatch) == (1.0, None, None)
    assert compared(true, true, known=0.05) == MeterMatch(intervals=27, days=6)
    assert compared([], []) == MeterMatch(intervals=0, days=0)


def test_a_meter_that_reads_nothing_while_the_utilitys_does_is_unlike() -> None:
    true = net(10)
    assert compared([np.zeros(96, dtype=np.int64)] * 10, true).mismatch is MeterMismatch.UNLIKE
    nothing = [np.zeros(96, dtype=np.int64)] * 10
    assert compared(nothing, nothing).mismatch is None
