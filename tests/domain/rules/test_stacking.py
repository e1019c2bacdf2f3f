"""Several programs on one battery: whole Wh of each, and together what was discharged, whatever the order of claims."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.rules.stacking import ALONE, PaidFor, ProgramShare, Stacked, StackedClaim, StackingTerms, stacked

QUARTER_MS, HOUR_MS = 900_000, 3_600_000
NAN = float("nan")
LOAD, EXPORTS = StackingTerms(paid_for=PaidFor.LOAD), StackingTerms(paid_for=PaidFor.EXPORTS)
BESIDE = StackingTerms(beside_load=PaidFor.EXPORTS)


def claim(name: str, rank: int = 1, terms: StackingTerms = ALONE, n: int = 1, **other: Any) -> StackedClaim:
    whole = StackedClaim(
        name=name, rank=rank, terms=terms, homes=np.ones(n, dtype=np.bool_), from_ms=0, until_ms=HOUR_MS
    )
    return replace(whole, **other)


def share(discharged_wh: int, load_wh: float, *claims: StackedClaim, length_ms: int = HOUR_MS) -> dict[str, int | None]:
    """Wh of each claim in one home, None where that is not known, and the home's own use."""
    found = stacked(np.array([discharged_wh]), np.array([load_wh]), claims, length_ms)
    shares = {name: int(one.wh[0]) if one.known[0] else None for name, one in found.shares.items()}
    return shares | {"own": int(found.own_use_wh[0])}


@pytest.mark.parametrize(("load_wh", "ra", "dsgs"), [(3_000, 3_000, 2_000), (6_000, 5_000, 0), (-500, 0, 5_000)])
@pytest.mark.parametrize("ranks", [(2, 4), (4, 2)])
def test_load_is_one_programs_and_exports_are_the_others(
    load_wh: int, ra: int, dsgs: int, ranks: tuple[int, int]
) -> None:
    claims = claim("ra", ranks[0], LOAD), claim("dsgs", ranks[1], BESIDE)
    assert share(5_000, load_wh, *claims) == {"ra": ra, "dsgs": dsgs, "own": 0}


def test_a_program_beside_one_for_load_has_everything_where_that_one_is_not() -> None:
    homes = claim("ra", 1, LOAD, n=2, homes=np.array([True, False])), claim("dsgs", 2, BESIDE, n=2)
    found = stacked(np.array([5_000, 5_000]), np.array([3_000.0, 3_000.0]), homes, HOUR_MS)
    assert (found.shares["ra"].wh.tolist(), found.shares["dsgs"].wh.tolist()) == ([3_000, 0], [2_000, 5_000])


def test_what_no_program_pays_for_is_the_homes_own_use() -> None:
    assert share(5_000, 3_000) == {"own": 5_000}
    assert share(5_000, 3_000, claim("ra", terms=LOAD)) == {"ra": 3_000, "own": 2_000}
    assert share(5_000, 3_000, claim("sells", terms=EXPORTS)) == {"sells": 2_000, "own": 3_000}


def test_the_first_by_rank_has_all_that_it_is_paid_for_and_takes_exports_first() -> None:
    both = claim("a", 1, nomination_w=np.array([4_000.0]))
    assert share(5_000, 3_000, both, claim("b", 2, LOAD)) == {"a": 4_000, "b": 1_000, "own": 0}
    assert share(5_000, 3_000, replace(both, rank=3), claim("b", 2, LOAD)) == {"a": 2_000, "b": 3_000, "own": 0}
    two = claim("a", 1, LOAD, nomination_w=np.array([1_000.0])), claim("b", 2, LOAD)
    assert share(5_000, 3_000, *two) == {"a": 1_000, "b": 2_000, "own": 2_000}, "exports are nobody's load"


def test_an_event_that_is_paid_up_to_the_load_narrows_what_its_program_pays_for() -> None:
    assert share(5_000, 3_000, claim("a", paid_for=PaidFor.LOAD)) == {"a": 3_000, "own": 2_000}
    assert share(5_000, 3_000, claim("a", terms=LOAD, paid_for=PaidFor.BOTH)) == {"a": 3_000, "own": 2_000}


def test_a_nomination_bounds_power_and_so_the_energy_of_the_time_that_is_claimed() -> None:
    nominated = claim("a", nomination_w=np.array([2_000.0]))
    assert share(5_000, 0, nominated) == {"a": 2_000, "own": 3_000}
    assert share(1_250, 0, replace(nominated, until_ms=QUARTER_MS), length_ms=QUARTER_MS) == {"a": 500, "own": 750}
    assert share(5_000, 0, replace(nominated, until_ms=HOUR_MS // 2)) == {"a": 1_000, "own": 4_000}


def test_a_part_of_an_interval_is_claimed_by_its_time() -> None:
    early = claim("early", 1, until_ms=600_000)
    late = claim("late", 2, from_ms=300_000, until_ms=900_000)
    assert share(900, 0, early, late, length_ms=QUARTER_MS) == {"early": 600, "late": 300, "own": 0}
    assert share(100, 0, early, late, length_ms=QUARTER_MS) == {"early": 66, "late": 33, "own": 1}, "whole Wh"
    before_and_after = replace(early, from_ms=-HOUR_MS), replace(late, until_ms=9 * HOUR_MS)
    assert share(900, 0, *before_and_after, length_ms=QUARTER_MS) == {"early": 600, "late": 300, "own": 0}
    ra = claim("ra", 1, LOAD, until_ms=450_000)
    found = share(1_200, 600, ra, claim("dsgs", 2, BESIDE), length_ms=QUARTER_MS)
    assert found == {"ra": 300, "dsgs": 300 + 600, "own": 0}


def test_nobody_knows_what_is_paid_for_where_the_load_is_unknown() -> None:
    assert share(5_000, NAN, claim("ra", terms=LOAD)) == {"ra": None, "own": 5_000}
    assert share(5_000, NAN, claim("sells", terms=EXPORTS)) == {"sells": None, "own": 5_000}
    assert share(5_000, NAN, claim("all")) == {"all": 5_000, "own": 0}
    assert share(5_000, NAN, claim("all", 1), claim("ra", 2, LOAD)) == {"all": 5_000, "ra": None, "own": 0}
    assert share(5_000, NAN, claim("ra", 1, LOAD), claim("all", 2)) == {"ra": None, "all": None, "own": 0}
    assert share(0, NAN, claim("ra", terms=LOAD)) == {"ra": 0, "own": 0}, "nothing was given"
    both = stacked(
        np.array([5_000, 5_000]), np.array([NAN, 3_000.0]), [claim("ra", 1, LOAD, 2), claim("all", 2, n=2)], HOUR_MS
    )
    assert (both.shares["all"].wh.tolist(), both.shares["all"].known.tolist()) == ([5_000, 2_000], [False, True])


def test_a_battery_that_charges_gives_nobody_anything() -> None:
    assert share(-700, 3_000, claim("a"), claim("ra", 2, LOAD)) == {"a": 0, "ra": 0, "own": -700}
    assert share(0, 3_000, claim("a")) == {"a": 0, "own": 0}


def test_programs_of_one_exclusive_group_have_no_part_of_one_battery_together() -> None:
    group = frozenset({"storage"})
    one, two = claim("a", 1, LOAD, program="p", exclusive=group), claim("b", 2, program="q", exclusive=group)
    assert share(5_000, 3_000, one, two) == {"a": 3_000, "b": 0, "own": 2_000}
    assert share(5_000, 3_000, one, replace(two, exclusive=frozenset())) == {"a": 3_000, "b": 2_000, "own": 0}
    assert share(5_000, 3_000, one, replace(two, program="p")) == {"a": 3_000, "b": 2_000, "own": 0}
    after = replace(one, until_ms=HOUR_MS // 2), replace(two, from_ms=HOUR_MS // 2)
    assert share(5_000, 3_000, *after) == {"a": 1_500, "b": 2_500, "own": 1_000}


def test_two_claims_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="one name"):
        share(1, 1, claim("a"), claim("a", 2))


# -- whatever the claims --------------------------------------------------------------------------------------------

N = 3
EDGES = st.integers(-2, 17).map(lambda minutes: minutes * 60_000)


@st.composite
def drawn_claims(draw: st.DrawFn) -> list[StackedClaim]:
    found = []
    for number in range(draw(st.integers(0, 4))):
        from_ms, until_ms = sorted((draw(EDGES), draw(EDGES)))
        terms = StackingTerms(
            paid_for=draw(st.sampled_from(PaidFor)), beside_load=draw(st.none() | st.sampled_from(PaidFor))
        )
        most_w = draw(st.none() | st.lists(st.floats(0, 9_000), min_size=N, max_size=N))
        found.append(
            StackedClaim(
                name=f"c{number}", rank=draw(st.integers(1, 3)), terms=terms, from_ms=from_ms, until_ms=until_ms,
                homes=np.array(draw(st.lists(st.booleans(), min_size=N, max_size=N))),
                paid_for=draw(st.sampled_from(PaidFor)), program=draw(st.sampled_from("pq")),
                exclusive=draw(st.sampled_from([frozenset(), frozenset("g")])),
                nomination_w=None if most_w is None else np.array(most_w),
            )
        )  # fmt: skip
    return found


WH = st.lists(st.integers(-500, 3_000), min_size=N, max_size=N).map(np.array)
LOADS = st.lists(st.floats(-500, 3_000) | st.just(NAN), min_size=N, max_size=N).map(np.array)


def whole(found: Stacked) -> list[tuple[str, ProgramShare]]:
    return sorted(found.shares.items())


@given(WH, LOADS, drawn_claims())
def test_shares_are_whole_and_sum_to_what_was_discharged(
    discharged: np.ndarray[Any, Any], load: np.ndarray[Any, Any], claims: list[StackedClaim]
) -> None:
    found = stacked(discharged, load, claims, QUARTER_MS)
    total = found.own_use_wh.copy()
    for claimed in claims:
        part = found.shares[claimed.name]
        assert part.wh.dtype == np.int64
        assert (part.wh >= 0).all()
        assert (part.wh[~claimed.homes] == 0).all()
        total += part.wh
    assert total.tolist() == discharged.tolist()
    assert (found.own_use_wh[discharged >= 0] >= 0).all()


@given(WH, LOADS, drawn_claims(), st.randoms(use_true_random=False))
def test_the_order_of_claims_does_not_matter(
    discharged: np.ndarray[Any, Any], load: np.ndarray[Any, Any], claims: list[StackedClaim], order: random.Random
) -> None:
    shuffled = claims.copy()
    order.shuffle(shuffled)
    one, two = (stacked(discharged, load, some, QUARTER_MS) for some in (claims, shuffled))
    for (name, mine), (other, theirs) in zip(whole(one), whole(two), strict=True):
        assert (name, mine.wh.tolist(), mine.known.tolist()) == (other, theirs.wh.tolist(), theirs.known.tolist())


@given(WH, LOADS, drawn_claims(), st.integers(1, 500))
def test_more_discharge_takes_nothing_from_any_program(
    discharged: np.ndarray[Any, Any], load: np.ndarray[Any, Any], claims: list[StackedClaim], more: int
) -> None:
    one, two = (stacked(wh, load, claims, QUARTER_MS) for wh in (discharged, discharged + more))
    for (_, mine), (_, theirs) in zip(whole(one), whole(two), strict=True):
        assert (theirs.wh >= mine.wh).all()


@given(WH, LOADS, drawn_claims())
def test_a_claim_of_a_later_rank_takes_nothing_from_those_before_it(
    discharged: np.ndarray[Any, Any], load: np.ndarray[Any, Any], claims: list[StackedClaim]
) -> None:
    last = StackedClaim(
        name="last", rank=9, homes=np.ones(N, dtype=np.bool_), from_ms=0, until_ms=QUARTER_MS
    )  # paid for everything: nothing that is beside it changes
    one, two = (stacked(discharged, load, some, QUARTER_MS) for some in (claims, [*claims, last]))
    for name, mine in one.shares.items():
        assert mine.wh.tolist() == two.shares[name].wh.tolist()
