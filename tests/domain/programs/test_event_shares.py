"""What is whose in an event: to the Wh, by home and by battery."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.event_shares import battery_parts, shared_energy
from gateway.domain.programs.metered import EventIntervals, MeteredWh
from gateway.domain.rules.stacking import PaidFor, StackedClaim, StackingTerms

QUARTER_MS, HOUR_MS = 900_000, 3_600_000
DAY_MS = 24 * HOUR_MS
HOUR = EventIntervals(from_ms=DAY_MS, until_ms=DAY_MS + HOUR_MS, length_ms=QUARTER_MS)
LOAD = StackingTerms(paid_for=PaidFor.LOAD)
BESIDE = StackingTerms(beside_load=PaidFor.EXPORTS)


def metered(*rows: Any) -> MeteredWh:
    return MeteredWh.of(np.array(rows, dtype=np.float64))


def claim(name: str, rank: int, homes: list[bool], terms: StackingTerms, *, until_ms: int = HOUR_MS) -> StackedClaim:
    return StackedClaim(
        name=name, rank=rank, homes=np.array(homes), from_ms=DAY_MS, until_ms=DAY_MS + until_ms, terms=terms
    )


def test_load_is_one_programs_and_exports_are_the_others_in_every_interval() -> None:
    net, load = metered([1_250] * 4, [1_250] * 4), metered([750] * 4, [1_500] * 4)
    both = claim("dsgs", 2, [True, True], BESIDE), claim("ra", 1, [True, True], LOAD)
    found = shared_energy(net, load, both, HOUR)
    assert found.shares["ra"].net.wh.sum(axis=1).tolist() == [3_000, 5_000]
    assert found.shares["dsgs"].net.wh.sum(axis=1).tolist() == [2_000, 0]
    assert not found.own_use_wh.any()


def test_what_is_charged_counts_against_every_event_and_is_nobodys_share() -> None:
    found = shared_energy(metered([1_000, -400, np.nan, 0]), metered([0] * 4), [claim("a", 1, [True], BESIDE)], HOUR)
    share = found.shares["a"].net
    assert share.wh.tolist() == [[1_000, -400, 0, 0]]
    assert share.known.tolist() == [[True, True, False, True]]


def test_an_event_has_a_part_of_the_interval_in_which_it_ends() -> None:
    found = shared_energy(
        metered([900, 900, -900, 900]), metered([0] * 4),
        [claim("a", 1, [True], BESIDE, until_ms=QUARTER_MS + 300_000)], HOUR,
    )  # fmt: skip
    assert found.shares["a"].net.wh.tolist() == [[900, 300, 0, 0]]
    assert found.own_use_wh.tolist() == [[0, 600, -900, 900]]


def test_a_share_that_rests_on_an_unknown_load_is_not_sure() -> None:
    both = claim("dsgs", 2, [True], BESIDE), claim("ra", 1, [True], LOAD)
    found = shared_energy(metered([1_000] * 4), metered([np.nan] * 4), both, HOUR)
    assert not found.shares["ra"].sure.any()


def test_a_nomination_of_all_homes_together_is_theirs_by_what_each_gave() -> None:
    net, load = metered([1_000] * 4, [500] * 4), metered([0] * 4, [0] * 4)
    mine = claim("a", 1, [True, True], BESIDE)
    found = shared_energy(net, load, [mine], HOUR, {"a": 3_000.0})
    assert found.shares["a"].net.wh.tolist() == [[500] * 4, [250] * 4]
    assert found.own_use_wh.tolist() == [[500] * 4, [250] * 4]
    assert not shared_energy(net, load, [mine], HOUR, {"a": 6_000.0}).own_use_wh.any()


def test_a_battery_that_charges_beside_one_that_gives_has_its_own_part_of_a_cut_interval() -> None:
    cut = EventIntervals(from_ms=DAY_MS, until_ms=DAY_MS + 300_000, length_ms=QUARTER_MS)
    each, both = metered([900], [-300]), np.array([0, 0])
    mine = claim("a", 1, [True], BESIDE, until_ms=300_000)
    share = shared_energy(each.added(both, 1), metered([0]), [mine], cut).shares["a"]
    assert share.net.wh.tolist() == [[200]]
    assert battery_parts(share, each, both, cut).wh.tolist() == [[300], [-100]]


WH = st.integers(-500, 900)


@given(st.data(), st.integers(1, 4), st.integers(1, 6))
def test_batteries_sum_to_the_share_of_their_home_and_none_gives_more_than_it_gave(
    data: st.DataObject, homes: int, batteries: int
) -> None:
    rows = data.draw(st.lists(st.lists(WH, min_size=4, max_size=4), min_size=batteries, max_size=batteries))
    site_of = np.array(data.draw(st.lists(st.integers(-1, homes - 1), min_size=batteries, max_size=batteries)))
    loads = data.draw(st.lists(st.lists(WH, min_size=4, max_size=4), min_size=homes, max_size=homes))
    until = data.draw(st.sampled_from([HOUR_MS, QUARTER_MS + 300_000]))
    each = metered(*rows)
    claims = [
        claim("one", 1, [True] * homes, data.draw(st.sampled_from([LOAD, BESIDE])), until_ms=until),
        claim("two", 2, data.draw(st.lists(st.booleans(), min_size=homes, max_size=homes)), BESIDE),
    ]
    net = each.added(site_of, homes)
    found = shared_energy(net, metered(*loads), claims, HOUR)
    together = sum((np.maximum(one.net.wh, 0) for one in found.shares.values()), np.maximum(found.own_use_wh, 0))
    assert np.where(net.known, together, 0).tolist() == np.maximum(net.wh, 0).tolist()
    for share in found.shares.values():
        parts = battery_parts(
            share, each, site_of, EventIntervals(from_ms=DAY_MS, until_ms=DAY_MS + HOUR_MS, length_ms=QUARTER_MS)
        )
        assert parts.added(site_of, homes).wh.tolist() == share.net.wh.tolist()
        inside = np.where(
            each.wh >= 0, (parts.wh >= 0) & (parts.wh <= each.wh), (parts.wh <= 0) & (parts.wh >= each.wh)
        )
        assert inside.all()
