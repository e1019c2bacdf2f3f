"""A snapshot is what it says: columns to be read."""

import numpy as np
import pytest

from gateway.domain.fleet.fleet import Fleet, Snapshot
from tests.builders.fakes import FACTS, home


def fleet_of(count: int) -> Fleet:
    fleet = Fleet()
    for number in range(count):
        fleet.register(home(f"home-{number}"), FACTS)
    return fleet


def a_stage_that_writes(snapshot: Snapshot) -> None:
    snapshot.control.setpoint_w += 100


@pytest.mark.parametrize("table", ["nameplate", "live", "control"])
def test_snapshot_column_cannot_be_written(table: str) -> None:
    columns = getattr(fleet_of(2).snapshot(), table)
    for name in columns.SPEC:
        with pytest.raises(ValueError, match="read-only"):
            columns.column(name)[0] = 0


def test_snapshot_a_stage_that_writes_into_it_raises_and_changes_nothing() -> None:
    fleet = fleet_of(2)
    with pytest.raises(ValueError, match="read-only"):
        a_stage_that_writes(fleet.snapshot())
    assert fleet.control.setpoint_w[:2].tolist() == [0, 0]


def test_snapshot_shows_what_is_written_into_the_columns_and_devices_that_are_added() -> None:
    fleet = fleet_of(2)
    before = fleet.snapshot()
    fleet.control.setpoint_w[1] = 700
    assert before.control.setpoint_w.tolist() == [0, 700]
    for number in range(2, 200):
        fleet.register(home(f"home-{number}"), FACTS)
    after = fleet.snapshot()
    fleet.control.setpoint_w[150] = 900
    assert (before.n, after.n, len(after.live.soc_pct)) == (2, 200, 200)
    assert np.flatnonzero(after.control.setpoint_w).tolist() == [1, 150]
