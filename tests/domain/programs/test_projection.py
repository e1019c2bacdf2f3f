"""What a season will pay, and when a fleet is back."""

from decimal import Decimal

import numpy as np
import pytest

from gateway.domain.programs.forecast import PowerForecast
from gateway.domain.programs.projection import SeasonMonth, projected, recovery_h

COMING = PowerForecast(hours=2.0, kw=100.0, low_kw=90.0, high_kw=105.0, homes=50, events=9)


def test_a_season_is_what_was_earned_and_what_is_to_come() -> None:
    months = [
        SeasonMonth(name="2026-05", rate=Decimal(7), kw=80.0, over=True),
        SeasonMonth(name="2026-06", rate=Decimal(8), kw=None, over=True),
        SeasonMonth(name="2026-07", rate=Decimal(10), kw=95.0, over=False, verified=False),
        SeasonMonth(name="2026-08", rate=Decimal(10), kw=None, over=False),
    ]
    found = projected(months, COMING, currency="USD")
    assert (found.earned, found.expected) == (Decimal(560), Decimal(560 + 950 + 1000))
    assert (found.low, found.high) == (Decimal(560 + 900 + 900), Decimal(560 + 1050 + 1050))
    assert (found.currency, found.unverified) == ("USD", ("2026-07",))


def test_a_fleet_is_back_when_nine_tenths_of_what_it_gave_are() -> None:
    used = np.array([4_000.0, 6_000.0])
    charge = np.full((2, 6), 1_500.0)
    # the smaller one is full after 4 / 1.5 hours, and 5 kWh of the other make 9
    assert recovery_h(used, charge) == pytest.approx(5 / 1.5, abs=1e-4)
    assert recovery_h(used, charge[:, :2]) is None


def test_what_is_not_known_has_no_part_in_the_recovery() -> None:
    used = np.array([4_000.0, np.nan, 1_000.0])
    charge = np.array([[2_000.0, 2_000.0], [1.0, 1.0], [np.nan, 1.0]])
    assert recovery_h(used, charge) == pytest.approx(1.8, abs=1e-4)
    assert recovery_h(used[1:], charge[1:]) is None
