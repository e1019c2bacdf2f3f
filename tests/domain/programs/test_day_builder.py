"""Days of sites: sums of their devices by interval, exact to the Wh by the hour, unknown where one is not known."""

import itertools
from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import CorruptState, InvalidInput
from gateway.domain.intervals.columns import columns_of_objects
from gateway.domain.intervals.record import FINE, EnergySource, IntervalRecord, Quality
from gateway.domain.programs.day_builder import DayBuilder, SiteStay, stays_within
from gateway.domain.programs.site_day import (
    BATTERY,
    GRID,
    DayFrame,
    SiteChannel,
    SiteDays,
    SiteQuality,
    decode,
    encode,
    same_content,
)
from gateway.domain.registry.placement import Placement
from gateway.domain.registry.validity import Validity
from gateway.domain.types import DeviceId

PACIFIC = DayFrame(zone="America/Los_Angeles", length_s=900)
JULY = date(2026, 7, 14)
FROM_MS, UNTIL_MS = PACIFIC.span(JULY)


def stay(device: str, site: str = "site", from_ms: int = FROM_MS, until_ms: int = UNTIL_MS) -> SiteStay:
    return SiteStay(site=site, device=device, from_ms=from_ms, until_ms=until_ms)


def measured(
    at_s: int, *, device: str = "a", length_s: int = 300, charge_wh: float | None = 0.0,
    discharge_wh: float | None = 0.0, grid_w: float | None = None, revision: int = 1, coverage_pct: float = 100.0,
    day: date = JULY, quality: Quality = FINE,
) -> IntervalRecord:  # fmt: skip
    """A record that begins so many seconds after the day did."""
    return IntervalRecord(
        device=DeviceId(device), start_ms=PACIFIC.span(day)[0] + at_s * 1000, length_s=length_s, revision=revision,
        charge_wh=charge_wh, discharge_wh=discharge_wh, coverage_pct=coverage_pct, samples=3, soc_end_pct=None,
        source=EnergySource.COUNTER, grid_w_mean=grid_w, quality=quality,
    )  # fmt: skip


def built(
    rows: Sequence[IntervalRecord], stays: Sequence[SiteStay] = (stay("a"),), *, frame: DayFrame = PACIFIC,
    day: date = JULY,
) -> SiteDays:  # fmt: skip
    builder = DayBuilder(frame, day, stays)
    for at in range(0, len(rows), 7):
        builder.add(columns_of_objects(rows[at : at + 7]))
    return builder.result()


def test_an_interval_is_the_sum_of_the_records_of_all_devices_of_its_site() -> None:
    stays = [stay("a"), stay("b")]
    rows = [
        measured(at, device=device, charge_wh=1.0, discharge_wh=20.0)
        for device, at in itertools.product("ab", (3600, 3900, 4200))
    ]
    days = built(rows, stays)
    assert days.energy_wh[:, 0, 4].tolist() == [0, 0, 6, 120]
    assert days.known[:, 0, 4].tolist() == [False, False, True, True]
    assert not days.known[:, 0, 3].any()


def test_an_interval_of_which_one_devices_record_is_missing_is_unknown() -> None:
    stays = [stay("a"), stay("b")]
    rows = [measured(at, discharge_wh=20.0) for at in (0, 300, 600)]
    days = built([*rows, *(measured(at, device="b", discharge_wh=20.0) for at in (0, 600))], stays)
    assert not days.known[SiteChannel.DISCHARGE, 0, 0]
    assert days.energy_wh[SiteChannel.DISCHARGE, 0, 0] == 0
    assert days.coverage_pct[0, 0] == 83
    assert days.owed[0, 0]


def test_an_unknown_direction_leaves_the_other_one_known() -> None:
    days = built([measured(at, charge_wh=None, discharge_wh=7.0) for at in (0, 300, 600)])
    assert [bool(days.known[channel, 0, 0]) for channel in BATTERY] == [False, True]
    assert days.energy_wh[SiteChannel.DISCHARGE, 0, 0] == 21


def test_what_the_grid_reading_says_is_taken_of_one_device_by_each_records_own_sign() -> None:
    stays = [stay("a"), stay("b")]
    rows = [
        measured(at, device=device, grid_w=watts)
        for device in "ab"
        for at, watts in ((0, 1200.0), (300, -600.0), (600, 0.0))
    ]
    days = built(rows, stays)
    assert days.energy_wh[:, 0, 0].tolist() == [100, 50, 0, 0]
    assert not days.quality[0, 0] & SiteQuality.GRID_DISAGREES


def test_two_readings_of_one_grid_that_differ_are_said() -> None:
    stays = [stay("a"), stay("b")]
    rows = [measured(at, device="a", grid_w=3000.0) for at in (0, 300, 600)]
    rows += [measured(at, device="b", grid_w=-3000.0) for at in (0, 300, 600)]
    days = built(rows, stays)
    assert days.energy_wh[SiteChannel.IMPORT, 0, 0] == 750
    assert days.quality[0, 0] & SiteQuality.GRID_DISAGREES


@given(
    mwh=st.lists(st.integers(0, 400_000), min_size=12, max_size=12),
    lost=st.sets(st.integers(0, 3), max_size=3),
)
def test_an_hour_of_known_intervals_is_rounded_once_half_up(mwh: list[int], lost: set[int]) -> None:
    rows = [measured(7200 + 300 * at, discharge_wh=value / 1000) for at, value in enumerate(mwh) if at // 3 not in lost]
    days = built(rows)
    exact = sum((Fraction(value, 1000) for at, value in enumerate(mwh) if at // 3 not in lost), Fraction(0))
    hour = days.energy_wh[SiteChannel.DISCHARGE, 0, 8:12]
    assert int(hour.sum()) == (exact + Fraction(1, 2)).__floor__()
    assert (hour >= 0).all()
    by_quarter = [Fraction(sum(mwh[at : at + 3]), 1000) for at in range(0, 12, 3)]
    for at, value in enumerate(by_quarter):
        if at not in lost:
            assert abs(int(hour[at]) - value) <= 1


@pytest.mark.parametrize(("day", "parts"), [(date(2026, 3, 8), 92), (date(2026, 7, 14), 96), (date(2026, 11, 1), 100)])
def test_a_day_on_which_clocks_change_has_its_own_count_of_intervals(day: date, parts: int) -> None:
    from_ms, until_ms = PACIFIC.span(day)
    rows = [
        measured(at, day=day, length_s=900, discharge_wh=10.0) for at in range(0, (until_ms - from_ms) // 1000, 900)
    ]
    days = built(rows, [stay("a", from_ms=from_ms, until_ms=until_ms)], day=day)
    assert days.parts == parts
    assert days.totals_wh()[SiteChannel.DISCHARGE].tolist() == [10 * parts]
    assert days.complete(BATTERY, 100).all()


def test_a_device_that_moves_counts_at_each_site_up_to_and_from_that_instant() -> None:
    noon_s = 12 * 3600
    moved_ms = FROM_MS + noon_s * 1000 + 100_000
    stays = [stay("a", "new", from_ms=moved_ms), stay("a", "old", until_ms=moved_ms)]
    rows = [measured(at, length_s=900, discharge_wh=10.0) for at in range(0, 86_400, 900)]
    days = built(rows, stays)
    assert days.sites == ("new", "old")
    at = noon_s // 900
    new, old = days.known[SiteChannel.DISCHARGE]
    assert old[:at].all()
    assert not old[at:].any()
    assert not new[: at + 1].any()
    assert new[at + 1 :].all()
    # the interval in which it moved is nobody's
    assert days.totals_wh()[SiteChannel.DISCHARGE].sum() == 950
    assert (days.quality[:, at] & SiteQuality.MOVED).all()
    assert not days.owed[:, at].any()
    assert days.quality[1, at + 1] & SiteQuality.ABSENT


def test_a_device_that_comes_to_others_makes_the_interval_unknown_and_their_sum_after_it_larger() -> None:
    came_ms = FROM_MS + 3600_000 + 1
    stays = [stay("a"), stay("b", from_ms=came_ms)]
    rows = [measured(at, length_s=900, device=d, discharge_wh=10.0) for d in "ab" for at in range(0, 86_400, 900)]
    days = built(rows, stays)
    discharge = days.energy_wh[SiteChannel.DISCHARGE, 0]
    assert discharge[:6].tolist() == [10, 10, 10, 10, 0, 20]
    assert days.known[SiteChannel.DISCHARGE, 0, :6].tolist() == [True, True, True, True, False, True]


def test_records_that_are_longer_than_the_interval_are_divided_by_nobody() -> None:
    frame = DayFrame(zone=PACIFIC.zone, length_s=300)
    days = built([measured(0, length_s=900, discharge_wh=30.0)], frame=frame)
    assert not days.known.any()
    assert (days.quality[0, :4] & SiteQuality.COARSE).astype(bool).tolist() == [True, True, True, False]


def test_qualities_and_the_measured_share_of_records_are_kept() -> None:
    rows = [measured(0, coverage_pct=50.0, quality=Quality.GAP), measured(300), measured(600, quality=Quality.LATE)]
    days = built(rows)
    assert days.coverage_pct[0, 0] == 83
    assert days.quality[0, 0] == Quality.GAP | Quality.LATE
    assert days.complete(BATTERY, 80)[0, 0]
    assert not days.complete(BATTERY, 90)[0, 0]
    assert not days.complete(GRID, 0)[0, 0]


def test_the_records_that_a_day_rests_on_are_named_with_their_revisions() -> None:
    rows = [measured(at) for at in (0, 300, 600, 1200)] + [measured(900, revision=2)]
    rows += [measured(86_100, device="b")]
    found = built(rows, [stay("a"), stay("b")]).basis(0)
    assert [(one.device, [tuple(run) for run in one.runs.tolist()]) for one in found] == [
        ("a", [(0, 300, 3, 1), (900, 300, 1, 2), (1200, 300, 1, 1)]),
        ("b", [(86_100, 300, 1, 1)]),
    ]


def test_records_of_other_days_and_of_devices_elsewhere_are_left_out() -> None:
    rows = [measured(-900, length_s=900, discharge_wh=5.0), measured(86_400, length_s=900, discharge_wh=5.0)]
    rows += [measured(0, device="nobody", length_s=900, discharge_wh=5.0)]
    days = built(rows)
    assert not days.known.any()
    assert built(rows, []).sites == ()


def test_a_change_of_meter_alone_is_no_move() -> None:
    def placed(from_ms: int | None, until_ms: int | None, meter: str) -> Placement:
        valid = Validity(from_ms=from_ms, until_ms=until_ms)
        return Placement(device=DeviceId("a"), site="site", meter=meter, valid=valid)

    changed_ms = FROM_MS + 1_000_000
    found = stays_within([placed(None, changed_ms, "m1"), placed(changed_ms, None, "m2")], FROM_MS, UNTIL_MS)
    assert found == [stay("a")]
    assert stays_within([placed(UNTIL_MS, None, "m1")], FROM_MS, UNTIL_MS) == []


site_rows = st.lists(
    st.builds(
        measured, at_s=st.integers(0, 95).map(lambda n: n * 900), device=st.sampled_from("abc"), length_s=st.just(900),
        charge_wh=st.none() | st.floats(0, 90_000), discharge_wh=st.none() | st.floats(0, 3000),
        grid_w=st.none() | st.floats(-300_000, 300_000), coverage_pct=st.floats(0, 100), revision=st.integers(1, 90),
        quality=st.sampled_from(Quality),
    ),
    max_size=40, unique_by=lambda record: (record.device, record.start_ms),
)  # fmt: skip


@given(rows=site_rows)
def test_a_stored_day_reads_back_as_it_was(rows: list[IntervalRecord]) -> None:
    stays = [stay("a", "one"), stay("b", "one"), stay("c", "two")]
    days = built(rows, stays)
    bodies = encode(days)
    again = decode(PACIFIC, JULY, days.sites, bodies, [1, 2])
    for name in ("energy_wh", "known", "coverage_pct", "quality"):
        assert np.array_equal(getattr(again, name), getattr(days, name)), name
    assert again.bases == days.bases
    assert again.versions == (1, 2)
    assert [same_content(one, other) for one, other in zip(bodies, encode(again), strict=True)] == [True, True]
    assert not same_content(bodies[0], bodies[1])
    only = again.only([1])
    assert only.sites == ("two",)
    assert np.array_equal(only.energy_wh[:, 0], days.energy_wh[:, 1])


def test_a_stored_day_that_was_damaged_is_refused_by_name() -> None:
    days = built([measured(at) for at in (0, 300, 600)])
    (body,) = encode(days)
    for wrong in (body[:20], b"\x09" + body[1:], body[:30] + b"\x00\x00" + body[32:], b""):
        with pytest.raises(CorruptState, match="site site on 2026-07-14"):
            decode(PACIFIC, JULY, days.sites, [wrong], [1])
    with pytest.raises(CorruptState, match="100 are due"):
        decode(PACIFIC, date(2026, 11, 1), days.sites, [body], [1])
    assert not same_content(body, body[:20])


def test_intervals_that_do_not_divide_a_day_or_that_midnight_cuts_are_refused() -> None:
    with pytest.raises(InvalidInput, match="does not divide a day"):
        DayFrame(zone="UTC", length_s=700)
    with pytest.raises(InvalidInput, match="Adelaide: midnight cuts an interval of 3600 s"):
        DayFrame(zone="Australia/Adelaide", length_s=3600).span(JULY)
    assert DayFrame(zone="Australia/Adelaide", length_s=1800).span(JULY + timedelta(days=1))
