"""Events of the demo: every home is in one of them, and whoever charges has room and no other part."""

import numpy as np

from simulators.demo_events import event, groups, whole_hundreds
from simulators.oracle import Window

SOC_PCT = np.array([50.0, 20, 90, 10, 30, 40, 60, 70, 15, 25])
ALL = np.ones(10, dtype=np.bool_)


def test_groups_have_every_home_once_and_the_emptiest_that_may_charge() -> None:
    may = ALL.copy()
    may[8] = False
    found = groups(10, silence=[9], may_charge=may, soc_pct=SOC_PCT, cast=[3])
    assert (found.silence, found.recharge) == ((9,), (1,))
    assert sorted([*found.discharge, *found.silence, *found.recharge]) == list(range(10))


def test_groups_without_a_home_that_may_charge_have_none_that_does() -> None:
    found = groups(10, silence=[], may_charge=~ALL, soc_pct=SOC_PCT, cast=[])
    assert (found.recharge, len(found.discharge)) == ((), 10)


def test_event_names_its_homes_or_all() -> None:
    window = Window(id="e", start_ms=0, end_ms=60_000, target_w=100.0, members=(0, 2))
    assert event(window, ["a", "b", "c"])["group"] == {"ids": ["a", "c"]}
    assert event(Window(id="e", start_ms=0, end_ms=1, target_w=1.0), ["a"])["group"] == {"all": True}
    assert (whole_hundreds(199.9), whole_hundreds(-199.9)) == (100.0, -100.0)
