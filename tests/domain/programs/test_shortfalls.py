"""Why a battery gave less than it was asked for: the reasons sum to what is short."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.events.delivery_records import Failure, Status
from gateway.domain.limits.types import Reason
from gateway.domain.programs.metered import EventIntervals, MeteredWh
from gateway.domain.programs.shortfalls import AskedOf, Short, Shortfalls, shortfalls

QUARTER_MS, HOUR_MS = 900_000, 3_600_000
FROM_MS = 24 * HOUR_MS
HOUR = EventIntervals(from_ms=FROM_MS, until_ms=FROM_MS + HOUR_MS, length_ms=QUARTER_MS)
DELIVERED = AskedOf(
    asked_wh=np.array([4_000.0]), status=np.array([Status.COMPLETED], dtype=np.int8),
    failure=np.array([Failure.NONE], dtype=np.int8), limits=np.array([0], dtype=np.uint64),
    started_ms=np.array([FROM_MS]), status_ms=np.array([FROM_MS + HOUR_MS]),
)  # fmt: skip


def found(asked: AskedOf, *wh: float, covered_pct: float = 100.0) -> Shortfalls:
    return shortfalls(asked, MeteredWh.of(np.array([wh])), np.full((1, 4), covered_pct), HOUR)


def why(asked: AskedOf, *wh: float) -> dict[str, int]:
    """Wh of each reason that there is."""
    result = found(asked, *wh)
    assert sum(int(one[0]) for one in result.reasons.values()) == result.short_wh[0]
    return {name.value: int(one[0]) for name, one in result.reasons.items() if one[0]}


def ended(status: Status, failure: Failure = Failure.NONE, limits: int = 0, *, after_ms: int = HOUR_MS) -> AskedOf:
    return replace(
        DELIVERED, status=np.array([status], dtype=np.int8), failure=np.array([failure], dtype=np.int8),
        limits=np.array([limits], dtype=np.uint64), status_ms=np.array([FROM_MS + after_ms]),
    )  # fmt: skip


def test_nothing_is_short_where_all_was_given() -> None:
    assert why(DELIVERED, 1_000, 1_000, 1_000, 1_100) == {}
    assert found(DELIVERED, 1_000, 1_000, 1_000, 1_100).given_wh.tolist() == [4_100]


def test_each_end_of_a_record_is_its_reason() -> None:
    assert why(ended(Status.FAILED, Failure.OFFLINE), 1_000, 0, 0, 0) == {"offline": 3_000}
    assert why(ended(Status.FAILED, Failure.NO_RESPONSE), 0, 0, 0, 0) == {"unresponsive": 4_000}
    assert why(ended(Status.FAILED, Failure.REFUSED), 0, 0, 0, 0) == {"unresponsive": 4_000}
    assert why(ended(Status.FAILED, Failure.FAULT), 0, 0, 0, 0) == {"fault": 4_000}
    assert why(ended(Status.FAILED, Failure.EXCLUDED), 0, 0, 0, 0) == {"excluded": 4_000}
    assert why(ended(Status.OPTED_OUT), 1_000, 1_000, 0, 0) == {"opted_out": 2_000}
    assert why(ended(Status.FAILED, Failure.EXCLUDED, Reason.OPTED_OUT), 0, 0, 0, 0) == {"opted_out": 4_000}
    assert why(ended(Status.FAILED, Failure.LIMIT, Reason.RESERVE), 1_000, 900, 0, 0) == {"at_reserve": 2_100}
    assert why(ended(Status.COMPLETED, limits=Reason.SITE_EXPORT), *[800] * 4) == {"clamp": 800}
    assert why(DELIVERED, 900, 900, 900, 900) == {"unexplained": 400}


def test_a_late_start_has_what_it_missed_and_the_rest_has_its_own_reason() -> None:
    late = replace(ended(Status.FAILED, Failure.LIMIT, Reason.RESERVE), started_ms=np.array([FROM_MS + QUARTER_MS]))
    assert why(late, 0, 1_000, 1_000, 500) == {"late_start": 1_000, "at_reserve": 500}
    assert found(late, 0, 1_000, 1_000, 500).late_s.tolist() == [900.0]
    assert why(replace(late, spread_ms=QUARTER_MS), 0, 1_000, 1_000, 500) == {"at_reserve": 1_500}, "as was wanted"


def test_energy_that_went_the_wrong_way_is_said_so_first() -> None:
    assert why(DELIVERED, -500, 1_000, 1_000, 1_000) == {"wrong_sign": 500, "unexplained": 1_000}
    charge = replace(DELIVERED, asked_wh=np.array([-4_000.0]))
    assert why(charge, -1_000, -1_000, -1_000, -1_000) == {}
    assert why(charge, 1_000, 1_000, 1_000, 1_000) == {"wrong_sign": 4_000, "unexplained": 4_000}


def test_what_nobody_measured_may_have_been_given() -> None:
    assert why(DELIVERED, 1_000, np.nan, 1_000, 1_000) == {"unmeasured": 1_000}
    half = found(DELIVERED, 500, 500, 500, 500, covered_pct=50.0)
    assert half.reasons[Short.UNMEASURED].tolist() == [2_000]
    assert found(DELIVERED, *[1_000] * 4, covered_pct=50.0).short_wh.tolist() == [0], "a counter knew all of it"


def test_a_battery_that_stopped_before_the_end_did_so_by_so_many_seconds() -> None:
    result = found(ended(Status.FAILED, Failure.OFFLINE, after_ms=3 * QUARTER_MS), 1_000, 1_000, 1_000, 0)
    assert (result.early_s.tolist(), result.late_s.tolist()) == ([900.0], [0.0])
    never = found(replace(ended(Status.FAILED), started_ms=np.array([0])), 0, 0, 0, 0)
    assert np.isnan(never.late_s[0])
    assert never.early_s[0] == 0


@given(st.data())
def test_the_reasons_sum_to_the_shortfall_whatever_a_record_says(data: st.DataObject) -> None:
    n = 5

    def drawn(values: st.SearchStrategy[int], dtype: type = np.int64) -> np.ndarray:
        return np.array(data.draw(st.lists(values, min_size=n, max_size=n)), dtype=dtype)

    asked = AskedOf(
        asked_wh=drawn(st.integers(-5_000, 5_000), np.float64), status=drawn(st.sampled_from(Status), np.int8),
        failure=drawn(st.sampled_from(Failure), np.int8), limits=drawn(st.sampled_from([0, *Reason]), np.uint64),
        started_ms=drawn(st.sampled_from([0, FROM_MS, FROM_MS + 61_000, FROM_MS + 2 * HOUR_MS])),
        status_ms=drawn(st.integers(FROM_MS, FROM_MS + HOUR_MS)),
    )  # fmt: skip
    row = st.lists(st.none() | st.integers(-900, 1_500), min_size=4, max_size=4)
    wh = np.array(data.draw(st.lists(row, min_size=n, max_size=n)), dtype=np.float64)
    covered = drawn(st.integers(0, 100), np.float64)[:, np.newaxis] * np.ones((1, 4))
    result = shortfalls(asked, MeteredWh.of(wh), covered, HOUR)
    assert np.sum([*result.reasons.values()], axis=0).tolist() == result.short_wh.tolist()
    assert all((one >= 0).all() for one in result.reasons.values())
    assert set(result.reasons) == set(Short)
