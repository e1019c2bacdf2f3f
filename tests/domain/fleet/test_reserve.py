"""Whose reserve holds: a higher one at once, a lower one once a run of readings has confirmed it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.fleet import reserve
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.fleet.reserve import GAP_S_MAX, SUSTAINED_S, TIMES
from gateway.domain.readings import LiveBatch
from gateway.domain.types import Grid, Mode, Now
from tests.builders.fakes import FACTS, home
from tests.depth import deep

LONG_S = round(SUSTAINED_S)


class Home:
    """One home whose owner's reserve is 30 %; a tick follows every reading."""

    def __init__(self, *, told_pct: float | None = 30.0) -> None:
        self.fleet = Fleet()
        self.fleet.register(home("home", reserve_pct=30.0), FACTS)
        self.now = Now(utc_ms=1_800_000_000_000, mono_ms=50_000_000)
        self.chosen: list[float] = []
        if told_pct is not None:
            self.tells(told_pct)

    def tells(
        self,
        *reserve_pct: float,
        after_s: float = 1.0,
        late_s: float = 0.0,
        again: bool = False,
        soc_pct: float = 60.0,
        tick: bool = True,
    ) -> "Home":
        """Readings that come together, the newest last."""
        ms, n = round(after_s * 1000), len(reserve_pct)
        self.now = Now(utc_ms=self.now.utc_ms + ms, mono_ms=self.now.mono_ms + ms)
        numbers: dict[str, Any] = {
            name: np.full(n, value)
            for name, value in {
                "battery_w": 0.0, "soc_pct": soc_pct, "soc_step_pct": 1.0, "temp_c": 20.0, "discharge_w_max": 5000.0,
                "charge_w_max": 5000.0, "pv_w": 0.0, "load_w": 500.0, "grid_w": 500.0, "grid_l1_w": np.nan,
                "grid_l2_w": np.nan, "grid_l3_w": np.nan,
            }.items()
        }  # fmt: skip
        small = {"mode": Mode.REMOTE, "grid": Grid.ON, "locked": 0, "opt_out": 0}
        numbers |= {name: np.full(n, value, dtype=np.int8) for name, value in small.items()}
        numbers |= {name: np.zeros(n, dtype=np.int64) for name in ("faults", "cmd")}
        device_t_ms = np.full(n, self.now.utc_ms - round(late_s * 1000))
        self.fleet.observe_live(
            LiveBatch(
                slots=np.zeros(n, dtype=np.int32), fresh=np.ones(n, dtype=np.bool_), device_t_ms=device_t_ms,
                reserve_pct=np.array(reserve_pct, dtype=np.float64), reserve_again=np.full(n, again), **numbers,
            ),
            self.now,
        )  # fmt: skip
        return self.tick() if tick else self

    def tick(self) -> "Home":
        own = self.fleet.columns()
        _, chosen_pct = reserve.choose(own.live, own.nameplate, own.control)
        self.chosen += chosen_pct.tolist()
        return self

    def goes_on(self, reserve_pct: float, s: float, *, every_s: float = 10.0, **other: Any) -> "Home":
        """The same value for so long: one reading now, the others after it."""
        self.tells(reserve_pct, after_s=every_s, **other)
        for _ in range(round(s / every_s)):
            self.tells(reserve_pct, after_s=every_s, **other)
        return self

    def wrote(self, pct: float) -> "Home":
        self.fleet.control.written_reserve_pct[0] = pct
        return self

    @property
    def owner_pct(self) -> float:
        return float(self.fleet.nameplate.owner_reserve_pct[0])

    @property
    def unsure(self) -> bool:
        seen = self.fleet.snapshot()
        return bool(reserve.unsure(seen.live, seen.nameplate, seen.control)[0])


# -- what confirms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every_s", [1, 5, 10, 60, 100, 300, 900])
def test_reserve_lower_value_is_confirmed_by_time_and_by_readings(every_s: int) -> None:
    told = Home()
    # of a silence no more than this counts
    needed = max(TIMES - 1, -(-LONG_S // min(every_s, round(GAP_S_MAX))))
    told.goes_on(10, (needed - 1) * every_s, every_s=every_s)
    assert (told.owner_pct, told.chosen) == (30, [])
    told.tells(10, after_s=every_s)
    assert (told.owner_pct, told.chosen) == (10, [10])


def test_reserve_readings_that_come_together_confirm_nothing() -> None:
    told = Home().tells(*[10.0] * 50, after_s=LONG_S)
    assert (told.owner_pct, told.chosen) == (30, [])


def test_reserve_other_value_among_readings_that_come_together_begins_anew() -> None:
    told = Home().goes_on(10, LONG_S - 10)
    told.tells(30, 10, after_s=10)
    assert told.goes_on(10, LONG_S - 10).owner_pct == 30
    assert told.goes_on(10, 20).owner_pct == 10


def test_reserve_other_lower_value_begins_anew() -> None:
    told = Home().goes_on(0, LONG_S - 10)
    told.goes_on(10, LONG_S - 10)
    assert told.chosen == []
    assert told.goes_on(10, 20).chosen == [10]


def test_reserve_unknown_between_says_nothing_for_or_against() -> None:
    told = Home()
    for _ in range(LONG_S // 20):
        told.tells(10, after_s=10).tells(np.nan, after_s=10)
    assert told.owner_pct == 30
    assert told.tells(10, after_s=10).owner_pct == 10
    assert Home().goes_on(np.nan, 4 * LONG_S).chosen == []


@pytest.mark.parametrize("soc_pct", [np.nan, 0.0])
def test_reserve_of_nothing_from_a_device_that_does_not_know_its_charge_is_unknown(soc_pct: float) -> None:
    told = Home().goes_on(0, 4 * LONG_S, soc_pct=soc_pct)
    assert (told.owner_pct, told.chosen) == (30, [])
    assert np.isnan(told.fleet.live.reserve_pct[0])
    assert told.goes_on(0, LONG_S).chosen == [0]


def test_reserve_of_nothing_at_an_empty_battery_counts_where_the_owner_wants_none() -> None:
    told = Home().goes_on(0, LONG_S)
    assert told.chosen == [0]
    assert told.tells(0, soc_pct=0).fleet.live.reserve_pct[0] == 0


def test_reserve_that_is_said_again_and_not_read_again_confirms_nothing() -> None:
    told = Home().tells(10).goes_on(10, 4 * LONG_S, again=True)
    assert told.chosen == []
    assert told.tells(10).tells(10).chosen == [10]


def test_reserve_reading_of_the_same_moment_again_confirms_nothing() -> None:
    told = Home().tells(10)
    for s in range(1, 100):
        told.tells(10, after_s=1, late_s=s)
    assert told.chosen == []


def test_reserve_readings_that_are_old_when_they_come_confirm_nothing() -> None:
    told = Home(told_pct=None).tells(30, late_s=GAP_S_MAX + 10)
    told.goes_on(10, 4 * LONG_S, late_s=GAP_S_MAX + 5)
    assert told.chosen == []
    assert told.goes_on(10, LONG_S, late_s=GAP_S_MAX - 5).chosen == [10]


def test_reserve_after_a_restart_is_told_from_the_beginning() -> None:
    told = Home().goes_on(10, LONG_S - 10)
    reserve.begin_anew(told.fleet.live)
    assert told.goes_on(10, LONG_S - 10).chosen == []
    assert told.tells(10, after_s=10).chosen == [10]


# -- what is a choice -------------------------------------------------------------------------------------------


def test_reserve_higher_value_counts_at_once_whatever_was_told_before() -> None:
    told = Home().goes_on(10, LONG_S - 10).tells(30.5)
    assert (told.owner_pct, told.chosen) == (30.5, [30.5])
    assert Home(told_pct=None).tells(40).chosen == [40]
    assert Home().tells(40, again=True, late_s=0.5).chosen == [40]


def test_reserve_first_value_that_is_lower_is_no_choice_however_long_it_is_told() -> None:
    told = Home(told_pct=None).goes_on(10, 4 * LONG_S)
    assert (told.owner_pct, told.chosen) == (30, [])
    assert told.goes_on(5, LONG_S).chosen == [5]


def test_reserve_value_below_the_owners_that_rises_is_a_choice_once_it_is_confirmed() -> None:
    told = Home(told_pct=None).goes_on(10, LONG_S).tells(15)
    assert (told.owner_pct, told.chosen) == (30, [])
    assert told.goes_on(15, LONG_S).chosen == [15]


@pytest.mark.parametrize("odd_pct", [30.0, 15.0, 5.0, 0.0])
def test_reserve_odd_reading_of_a_device_that_holds_less_leaves_the_owners_alone(odd_pct: float) -> None:
    told = Home(told_pct=None).goes_on(10, LONG_S).tells(odd_pct)
    assert told.goes_on(10, 4 * LONG_S).chosen == []
    assert told.owner_pct == 30


@pytest.mark.parametrize("first_pct", [None, 10.0, 30.0])
@pytest.mark.parametrize("odd_pct", [100.0, 40.0])
def test_reserve_odd_reading_that_raises_is_taken_back_to_what_was_and_no_further(
    first_pct: float | None, odd_pct: float
) -> None:
    told = Home(told_pct=None)
    if first_pct is not None:
        told.goes_on(first_pct, LONG_S)
    told.tells(odd_pct)
    assert told.owner_pct == odd_pct
    told.goes_on(first_pct or 10.0, LONG_S - 10)
    assert told.owner_pct == odd_pct
    told.goes_on(first_pct or 10.0, LONG_S)
    assert (told.owner_pct, told.chosen) == (30, [odd_pct, 30])


def test_reserve_raise_that_was_confirmed_may_be_lowered_by_its_owner() -> None:
    told = Home(told_pct=None).goes_on(10, LONG_S).goes_on(50, LONG_S)
    assert told.goes_on(10, LONG_S).chosen == [50, 10]


def test_reserve_raise_followed_by_another_value_is_that_value_once_it_is_confirmed() -> None:
    assert Home().tells(80).goes_on(20, LONG_S).chosen == [80, 20]
    assert Home().tells(80).tells(90).goes_on(30, LONG_S).chosen == [80, 90, 30]


def test_reserve_that_we_wrote_and_what_lies_on_the_way_to_it_is_no_choice() -> None:
    told = Home(told_pct=None).goes_on(10, LONG_S).wrote(30)
    assert told.goes_on(30, LONG_S).chosen == []
    capped = Home(told_pct=None).goes_on(10, LONG_S).wrote(30).goes_on(25, LONG_S)
    assert (capped.owner_pct, capped.chosen) == (30, [])
    # an odd reading between the two, and back: still no choice
    assert capped.tells(27).goes_on(25, LONG_S).chosen == []
    assert capped.goes_on(20, LONG_S).chosen == [20]


def test_reserve_written_to_a_device_that_shows_it_once_and_keeps_its_own_is_no_choice() -> None:
    told = Home(told_pct=None).goes_on(10, LONG_S).wrote(30).tells(30)
    assert (told.goes_on(10, 4 * LONG_S).chosen, told.owner_pct) == ([], 30)


# -- what is not known yet --------------------------------------------------------------------------------------


def test_reserve_is_unsure_while_an_owner_may_be_lowering_it() -> None:
    told = Home()
    assert not told.unsure
    assert told.tells(10).unsure
    assert not told.goes_on(10, LONG_S).unsure
    assert not told.tells(50).unsure
    assert told.tells(10).unsure
    # what a device tells first, or has told all along, is no owner's doing
    assert not Home(told_pct=None).tells(10).unsure
    assert not Home(told_pct=None).goes_on(10, LONG_S).unsure


# -- enrolling --------------------------------------------------------------------------------------------------


def test_reserve_stated_by_enrolling_is_not_taken_back_to_what_was_before_a_raise() -> None:
    told = Home().tells(80)
    told.fleet.register(home("home", reserve_pct=80.0), FACTS)
    assert told.goes_on(30, LONG_S).chosen == [80]
    assert told.owner_pct == 80


@pytest.mark.parametrize("moved", [{"profile": "q"}, {"connection": DeviceConnection(url="modbus://10.0.0.9")}])
def test_reserve_of_another_battery_at_the_same_home_is_no_choice_at_first(moved: dict[str, Any]) -> None:
    told = Home().goes_on(10, LONG_S - 10)
    told.fleet.register(home("home", reserve_pct=30.0, **moved), FACTS)
    assert (told.goes_on(10, 4 * LONG_S).chosen, told.owner_pct) == ([], 30)


def test_reserve_of_a_battery_enrolled_again_as_it_was_may_still_be_lowered() -> None:
    told = Home().goes_on(10, LONG_S - 10)
    told.fleet.register(home("home", reserve_pct=30.0, tags=("coast",)), FACTS)
    assert told.goes_on(10, 20).chosen == [10]


# -- any run of readings ----------------------------------------------------------------------------------------

STEPS = st.tuples(
    st.sampled_from([0.0, 10.0, 20.0, 30.0, 30.0, 40.0, np.nan]),
    st.sampled_from([0.0, 1.0, 60.0, 130.0, 400.0]),
    st.integers(1, 5),
)


@settings(max_examples=deep(20_000, else_=200))
@given(steps=st.lists(STEPS, min_size=1, max_size=12), again=st.booleans(), written=st.sampled_from([np.nan, 30, 40]))
def test_reserve_any_readings_raise_at_once_and_lower_only_what_was_told_all_along(
    steps: list[tuple[float, float, int]], again: bool, written: float
) -> None:
    told = Home(told_pct=None).wrote(written)
    heard: list[tuple[float, float]] = []
    for pct, gap_s, times in steps:
        for _ in range(times):
            before_pct = told.owner_pct
            told.tells(pct, after_s=gap_s, again=again and len(heard) % 2 == 1)
            if np.isnan(pct):
                assert told.owner_pct == before_pct
                continue
            heard.append((pct, told.now.mono_ms / 1000))
            assert told.owner_pct >= pct
            if told.owner_pct < before_pct:
                same = [at_s for value, at_s in heard if value == pct]
                assert len(same) >= TIMES
                since_s = heard[-1][1] - SUSTAINED_S
                assert all(value == pct for value, at_s in heard if at_s > since_s)
