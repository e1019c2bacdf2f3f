"""What the judge of readings makes of them, against what the gateway logs of the same messages on real files."""

from pathlib import Path

import numpy as np
import pytest

from simulators.season.by_readings import QUARTER_MS, ByReadings, whole
from simulators.season.days import true_days
from simulators.season.official import events_of, official_hours
from simulators.season.received import Meters, Received
from simulators.season.street import Meter, SeasonStreet, season_street
from tests.scenes.season import play

SEED = 3
HOMES = 600
EVENTS = 1


@pytest.fixture(scope="module")
def street() -> SeasonStreet:
    return season_street(HOMES, events_of(official_hours())[:EVENTS], SEED)


def some_of(street: SeasonStreet) -> list[int]:
    """Homes of every meter, with a clock that is off either way, that lost data, were late, or neither."""
    away = (street.away_ms[:, :, 0] > 0).any(axis=1)
    chosen = []
    for kind in (street.loses.any(axis=1), away, away & (np.abs(street.off_ms) > 2_000), street.meter == Meter.POWER):
        chosen += np.flatnonzero(kind)[:3].tolist()
    for meter in (Meter.FINE, Meter.COARSE):
        for off in (street.off_ms < -2_000, street.off_ms > 2_000, np.abs(street.off_ms) < 1_000):
            chosen += np.flatnonzero((street.meter == meter) & off)[:2].tolist()
    return sorted(set(chosen))


def test_the_judge_of_readings_and_the_log_agree_on_every_quarter_of_an_event(
    street: SeasonStreet, tmp_path: Path
) -> None:
    meters, judge = Meters(street), ByReadings(street=street)
    days: list[Received] = [meters.day(true) for true in true_days(street)]
    ours = [judge.day(received) for received in days]
    homes = some_of(street)
    kinds = {Meter(int(street.meter[i])) for i in homes}
    assert kinds == set(Meter)
    assert street.loses[homes].any()
    for received, mine, logged in zip(days, ours, play(street, days, homes, tmp_path), strict=True):
        event = street.events[received.event]
        first = (event.start_ms - event.midnight_ms) // QUARTER_MS
        quarters = slice(first, first + 4 * len(event.hours))
        for has_wh, said_wh in zip(logged, (mine.charge_wh, mine.discharge_wh), strict=True):
            assert np.array_equal(whole(has_wh)[:, quarters], said_wh[homes, quarters])
        assert (mine.discharge_wh[homes, quarters] > 0).any()
