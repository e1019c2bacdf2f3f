"""Who gets which device: what can share a battery does, the rest goes by rank, and every watt is credited once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.events.arbitration import Claims, claim
from gateway.domain.events.attribution import Credit, credit, pays_export, program_reserve_pct
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Compensation, EventKind, EventRequest, Target, Want, power
from gateway.domain.rules.stacking import PaidFor, StackedClaim, StackingTerms, stacked
from gateway.domain.types import Slots
from tests.domain.events.test_book import active, request

OUT, INTO = {"target": power(5_000.0)}, {"target": power(-5_000.0)}
IDLE = {"target": Target(want=Want.IDLE)}


def slots(*numbers: int) -> Slots:
    return np.array(numbers, dtype=np.int32)


def claims(
    *wants: tuple[EventRequest, Slots], n: int = 4, without: dict[int, Slots] | None = None
) -> tuple[list[ActiveEvent], Claims]:
    """Events by rank, numbered as they come."""
    events = [active(asked, i) for i, (asked, _) in enumerate(wants)]
    events.sort(key=lambda event: event.rank)
    groups = [wants[event.index][1] for event in events]
    return events, claim(events, groups, n, without)


def shares(found: Claims, index: int) -> list[int]:
    return np.flatnonzero(found.shares[index]).tolist()


def test_claim_events_that_go_the_same_way_share_a_device() -> None:
    _, found = claims((request("a", priority=1, **OUT), slots(0, 1)), (request("b", **OUT), slots(1, 2)))
    assert (shares(found, 0), shares(found, 1)) == ([0, 1], [1, 2])
    assert found.holder.tolist() == [0, 0, 1, -1]


@pytest.mark.fault("F18")
def test_claim_events_that_go_other_ways_are_decided_device_by_device() -> None:
    _, found = claims((request("a", priority=1, **INTO), slots(0, 1)), (request("b", **OUT), slots(1, 2)))
    assert (shares(found, 0), shares(found, 1)) == ([0, 1], [2])
    assert found.lost == frozenset()


def test_claim_event_that_loses_every_device_is_told_so() -> None:
    _, found = claims((request("a", priority=1, **INTO), slots(0, 1)), (request("b", **OUT), slots(1)))
    assert found.lost == {1}
    assert not found.shares[1].any()


def test_claim_event_without_a_device_of_its_own_has_lost_nothing() -> None:
    _, found = claims((request("a", **OUT), slots()))
    assert found.lost == frozenset()


def test_claim_the_very_same_wish_is_shared_and_another_is_not() -> None:
    _, found = claims(
        (request("a", priority=1, **IDLE), slots(0, 1)), (request("b", priority=2, **IDLE), slots(1)),
        (request("c", priority=3, target=Target(want=Want.SELF_CONSUMPTION)), slots(1, 2)),
    )  # fmt: skip
    assert (shares(found, 0), shares(found, 1), shares(found, 2)) == ([0, 1], [1], [2])


def test_claim_dry_run_takes_nobody_and_sees_everybody_it_addresses() -> None:
    _, found = claims(
        (request("dry", priority=1, kind=EventKind.DRY_RUN, **INTO), slots(0, 1)), (request("b", **OUT), slots(0, 1))
    )
    assert found.holder.tolist() == [1, 1, -1, -1]
    assert (shares(found, 0), shares(found, 1)) == ([0, 1], [0, 1])


def test_claim_owner_who_opted_out_of_one_event_may_serve_another() -> None:
    _, found = claims(
        (request("a", priority=1, **OUT), slots(0, 1)), (request("b", **INTO), slots(0, 1)), without={0: slots(1)}
    )
    assert (shares(found, 0), shares(found, 1)) == ([0], [1])


def test_claim_nobody_asks_leaves_everybody() -> None:
    _, found = claims(n=2)
    assert found.holder.tolist() == [-1, -1]


wish = st.tuples(st.integers(1, 3), st.booleans(), st.sampled_from([5.0, -5.0, 0.0, None]), st.sets(st.integers(0, 5)))


@pytest.mark.fault("F18")
@given(st.lists(wish, max_size=6), st.randoms())
def test_claim_any_events_in_any_order_give_the_same_and_never_both_ways(
    wishes: list[tuple[int, bool, float | None, set[int]]], random: Any
) -> None:
    wants = [
        (request(f"e{i}", priority=p, voluntary=v, target=power(w)), slots(*sorted(members)))
        for i, (p, v, w, members) in enumerate(wishes)
    ]
    events, found = claims(*wants, n=6)
    order = list(range(len(wants)))
    random.shuffle(order)
    _, again = claims(*(wants[i] for i in order), n=6)
    for place, i in enumerate(order):
        assert np.array_equal(again.shares[place], found.shares[i])
    for slot in range(6):
        mine = [event for event in events if found.shares[event.index][slot]]
        asked = [event for event in events if slot in wants[event.index][1]]
        assert (found.holder[slot] >= 0) == bool(asked)
        if asked:
            # the first by rank has it, and all that have it go its way
            assert mine[0] is asked[0]
            assert all(event.target.shares_with(mine[0].target) for event in mine)


# -- what programs ask of limits --------------------------------------------------------------------------------


def test_pays_export_unless_every_program_stops_at_the_load() -> None:
    site = {"compensation": Compensation.SITE_LOAD, **OUT}
    events, found = claims(
        (request("a", priority=1, **site), slots(0, 1)), (request("b", **OUT), slots(1)),
        (request("c", kind=EventKind.DRY_RUN, **OUT), slots(0)),
    )  # fmt: skip
    assert pays_export(events, found).tolist() == [False, True, True, True]


def test_program_reserve_is_the_largest_of_those_a_device_serves() -> None:
    events, found = claims(
        (request("a", priority=1, reserve_pct=30.0, **OUT), slots(0, 1)),
        (request("b", reserve_pct=50.0, **OUT), slots(1, 2)), (request("c", reserve_pct=90.0, **INTO), slots(1)),
    )  # fmt: skip
    assert program_reserve_pct(events, found, 4).tolist() == [30, 50, 50, 0]


# -- attribution ------------------------------------------------------------------------------------------------


def credits(
    *wants: tuple[EventRequest, Slots], measured_w: list[float], load_w: list[float] | None = None, **wanted: float
) -> dict[str, Credit]:
    events, found = claims(*wants, n=len(measured_w))
    names = {event.index: event.request.id for event in events}
    indices = {name: index for index, name in names.items()}
    made = credit(
        events, found, np.array(measured_w), np.array(load_w or [0.0] * len(measured_w)),
        {indices[name]: w for name, w in wanted.items()},  # type: ignore[index]
    )  # fmt: skip
    return {str(names[index]): one for index, one in made.items()}


def credited(
    *wants: tuple[EventRequest, Slots], measured_w: list[float], load_w: list[float] | None = None, **wanted: float
) -> dict[str, float]:
    found = credits(*wants, measured_w=measured_w, load_w=load_w, **wanted)
    return {name: one.own_w for name, one in found.items()}


def test_attributed_every_watt_is_credited_once_in_the_order_of_rank() -> None:
    both = slots(0, 1)
    found = credited(
        (request("a", priority=1, **OUT), both), (request("b", **OUT), both), measured_w=[3000, 2000], a=1000, b=9000
    )
    assert found == {"a": 1000, "b": 4000}


def test_attributed_load_offset_goes_to_one_program_and_export_to_the_other() -> None:
    # one battery, 5 kW, of which 1.2 kW cover the home
    ra = request("ra", priority=1, voluntary=False, compensation=Compensation.SITE_LOAD, **OUT)
    found = credited((ra, slots(0)), (request("dsgs", **OUT), slots(0)), measured_w=[5000], load_w=[1200])
    assert found == {"ra": 1200, "dsgs": 3800}


def test_attributed_unknown_load_credits_nothing_to_a_program_that_pays_for_it() -> None:
    ra = request("ra", compensation=Compensation.SITE_LOAD, **OUT)
    unknown = float("nan")
    assert credited((ra, slots(0)), measured_w=[5000], load_w=[unknown]) == {"ra": 0}
    after = request("dsgs", priority=999, **OUT)
    found = credits(
        (ra, slots(0, 1, 2)), (after, slots(0, 1)), measured_w=[5000, 5000, 0], load_w=[unknown, 2000, unknown]
    )
    assert {name: (one.own_w, one.unknown) for name, one in found.items()} == {"ra": (2000, 1), "dsgs": (8000, 1)}


def test_attributed_nomination_bounds_what_is_credited() -> None:
    a = request("a", priority=1, compensation=Compensation.NOMINATION, nomination_w=800.0, **OUT)
    found = credited((a, slots(0)), (request("b", **OUT), slots(0)), measured_w=[5000])
    assert found == {"a": 800, "b": 4200}


PAYS = st.sampled_from(PaidFor)


@given(
    st.integers(-5_000, 9_000), st.integers(-2_000, 9_000) | st.none(),
    st.lists(st.tuples(PAYS, st.none() | PAYS, st.booleans(), st.none() | st.integers(0, 6_000)), max_size=4),
)  # fmt: skip
def test_attributed_power_is_what_an_hour_of_it_is_shared_as(
    given_w: int, load_w: int | None, drawn: list[tuple[PaidFor, PaidFor | None, bool, int | None]]
) -> None:
    events, stackable = [], []
    for number, (pays, beside, at_load, nominated_w) in enumerate(drawn):
        terms = StackingTerms(paid_for=pays, beside_load=beside, up_to_nomination=True)
        limit = Compensation.SITE_LOAD if at_load else Compensation.EXPORTS
        asked = request(f"e{number}", priority=number + 1, compensation=limit, nomination_w=nominated_w, **OUT)
        events.append(replace(active(asked, number), terms=terms))
        stackable.append(
            StackedClaim(
                name=f"e{number}", rank=number, terms=terms, homes=np.ones(1, dtype=np.bool_), from_ms=0,
                until_ms=3_600_000, paid_for=PaidFor.LOAD if at_load else PaidFor.BOTH,
                nomination_w=None if nominated_w is None else np.array([float(nominated_w)]),
            )
        )  # fmt: skip
    load = np.array([float("nan") if load_w is None else float(load_w)])
    found = claim(events, [slots(0)] * len(events), 1)
    now_w = credit(events, found, np.array([float(given_w)]), load, {})
    of_hour = stacked(np.array([given_w]), load, stackable, 3_600_000)
    assert {index: one.own_w for index, one in now_w.items()} == {
        index: of_hour.shares[f"e{index}"].wh[0] for index in now_w
    }


def test_attributed_charging_is_negative_and_the_other_way_is_worth_nothing() -> None:
    assert credited((request("a", **INTO), slots(0, 1)), measured_w=[-2000, 700]) == {"a": -2000}
    assert credited((request("a", **OUT), slots(0)), measured_w=[-2000]) == {"a": 0}


def test_attributed_unknown_power_is_worth_nothing() -> None:
    assert credited((request("a", **OUT), slots(0, 1)), measured_w=[float("nan"), 900]) == {"a": 900}


def test_shared_is_what_serves_an_event_too_and_others_are_credited_with() -> None:
    both = slots(0, 1)
    found = credits(
        (request("a", priority=1, **OUT), both), (request("b", **OUT), both), measured_w=[30_000, 30_000],
        a=40_000, b=60_000,
    )  # fmt: skip
    assert found["a"] == Credit(own_w=40_000, shared_w=0)
    assert found["b"] == Credit(own_w=20_000, shared_w=40_000)


def test_shared_counts_the_devices_of_an_event_alone_and_no_other_direction() -> None:
    found = credits(
        (request("a", priority=1, **INTO), slots(0, 1)), (request("b", **INTO), slots(1)), measured_w=[-2000, -3000],
        a=-5000, b=-1000,
    )  # fmt: skip
    assert found["a"] == Credit(own_w=-5000, shared_w=0)
    assert (found["b"].own_w, found["b"].shared_w) == (0, -1000)
    alone = credits((request("a", **OUT), slots(0)), measured_w=[5000], a=2000)
    assert alone["a"] == Credit(own_w=2000, shared_w=0)
