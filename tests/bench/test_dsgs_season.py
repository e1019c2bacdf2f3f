"""A week of a DSGS season with three evenings, judged by the clairvoyant that judges the whole one."""

from dataclasses import replace
from datetime import date

import numpy as np

from simulators.homes import Homes
from tests.bench.dsgs_season import OPTIMUM, judged
from tests.bench.season_evenings import Season, dsgs, evenings, season_homes

WEEK = (date(2025, 6, 24), date(2025, 6, 26), date(2025, 6, 30))
EVENINGS = [evening for evening in evenings() if evening.day in WEEK]


def two_shapes() -> Homes:
    """One battery that can give its rating for longer than an event, and one that holds much less than that."""
    return replace(
        season_homes(2, seed=8),
        capacity_wh=np.array([16_000.0, 13_500.0]),
        discharge_w_max=np.array([4_600.0, 11_500.0]),
        charge_w_max=np.array([4_600.0, 11_500.0]),
        reserve_pct=np.array([20.0, 15.0]),
        export_allowed=np.ones(2, dtype=np.bool_),
        inverter_w_max=np.full(2, np.inf),
        site_export_w_max=np.full(2, np.inf),
        load_base_w=np.array([450.0, 350.0]),
        pv_peak_w=np.array([7_000.0, 6_000.0]),
        soc_step_pct=np.full(2, 0.1),
    )


async def test_season_week_with_day_ahead_notice_demonstrates_98_percent_of_what_a_clairvoyant_could() -> None:
    season = await Season(two_shapes(), EVENINGS).run()
    assert (season.problems, season.refused) == ([], [])
    found = judged(season)
    assert found["optimum_pct"] >= 98.0, found
    assert (season.owed_wh > 1_000).all(), "what is kept for an event its owner buys meanwhile"


async def test_season_without_preparation_falls_short_of_the_same_clairvoyant() -> None:
    """What a home used itself in the afternoon is missing in the evening: to reach the optimum is no formality."""
    season = await Season(two_shapes(), EVENINGS[:1], dsgs(keep_h=0.0)).run()
    assert np.abs(season.owed_wh).max() < 20
    assert sum(season.months(season.run_kw).values()) < 0.95 * sum(season.months(season.best_kw(OPTIMUM)).values())
