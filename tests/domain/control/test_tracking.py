"""From events to what every device is wanted to do: ramps, sharing, ceilings, targets that are no group power."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gateway.domain.control.allocation import Shortfall
from gateway.domain.control.progress import Progress, Tracked, Tracking, TrackingParams
from gateway.domain.control.reach import Reach, everybody
from gateway.domain.control.tracking import track
from gateway.domain.events.arbitration import claim
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Compensation, EventKind, EventRequest, Target, Want, power
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import keep_parts, power_of
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import LimitParams
from gateway.domain.types import Bools, Ints, Mode, Now
from tests.builders.fleets import NOW, fleet_of
from tests.domain.events.test_book import request

STEEP = TrackingParams(fleet_w_per_s=1e9, horizon_s=600)
EXACT = LimitParams(site_margin_w=0, resume_pct=0)


@dataclass(slots=True)
class Scene:
    """Devices and the events that run on them; `tick` is one second. `mute` devices send no readings; everybody does
    `part` of what it is told."""

    snapshot: Snapshot
    params: TrackingParams = STEEP
    tracking: Mapping[int, Tracking] = field(default_factory=dict)
    on_top: Ints | None = None
    events: list[tuple[ActiveEvent, list[int]]] = field(default_factory=list)
    now: Now = NOW
    unresponsive: tuple[int, ...] = ()
    mute: tuple[int, ...] = ()
    part: float = 1.0
    seen_ms: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def ask(self, target: Target | float | None, *members: int, name: str = "", **changes: Any) -> "Scene":
        """An event from now on for an hour, for everybody unless members are named."""
        wanted = target if isinstance(target, Target) else power(target)
        index = len(self.events)
        asked: EventRequest = request(
            name or f"e{index}", start_ms=NOW.utc_ms, end_ms=NOW.utc_ms + 3_600_000, target=wanted,
            **({"priority": 10 + index} | changes),
        )  # fmt: skip
        found = asked.running(NOW.utc_ms)
        assert found is not None
        event = ActiveEvent(index=index, request=asked, running=found)
        self.events.append((event, list(members) or list(range(self.snapshot.n))))
        return self

    def tick(self, *, reach: Reach | None = None) -> Tracked:
        events = sorted(self.events, key=lambda pair: pair[0].rank)
        groups = [np.array(members, dtype=np.int32) for _, members in events]
        active = [event for event, _ in events]
        claims = claim(active, groups, self.snapshot.n)
        allowed = envelope(self.snapshot, self.now, EXACT)
        follows: Bools = np.ones(self.snapshot.n, dtype=np.bool_)
        follows[list(self.unresponsive)] = False
        live = self.snapshot.live
        power_ = power_of(self.snapshot, self.now, self.seen_ms)
        keep_parts(self.snapshot.control, self.snapshot, power_.heard_s > 0)
        self.seen_ms = live.seen_mono_ms.copy()
        found = track(
            active, claims, self.tracking, self.snapshot, allowed, follows, power_, self.now, 1.0, self.params,
            reach=reach, on_top=self.on_top,
        )  # fmt: skip
        self.tracking, self.on_top = found.tracking, found.on_top
        self.now = Now(utc_ms=self.now.utc_ms + 1000, mono_ms=self.now.mono_ms + 1000)
        heard = [slot for slot in range(self.snapshot.n) if slot not in self.mute]
        live.seen_mono_ms[heard] = self.now.mono_ms
        self.snapshot.control.lease_end_mono_ms[:] = self.now.mono_ms + 80_000
        return found

    def obey(self, found: Tracked) -> None:
        """Devices under control do as they are wanted to."""
        control, live = self.snapshot.control, self.snapshot.live
        control.before_w[:] = control.setpoint_w[:] = np.where(found.taking, found.wanted_w, 0)
        control.authority[:] = np.where(found.taking, Authority.CONTROLLED, Authority.DEVICE)
        unread = np.isin(np.arange(self.snapshot.n), self.mute)
        live.battery_w[:] = np.where(unread, live.battery_w, control.setpoint_w * self.part)


def scene(
    n: int = 4, /, params: TrackingParams = STEEP, unresponsive: tuple[int, ...] = (), part: float = 1.0, **columns: Any
) -> Scene:
    return Scene(
        snapshot=fleet_of(n, **({"soc_pct": 80} | columns)), params=params, unresponsive=unresponsive, part=part
    )


def progress(found: Tracked, index: int = 0) -> Progress:
    return found.progress[index]


# -- power of the group -----------------------------------------------------------------------------------------


def test_course_group_power_is_shared_and_reported() -> None:
    found = scene().ask(8_000).tick()
    assert found.wanted_w.sum() == 8_000
    assert found.taking.all()
    told = progress(found)
    assert (told.target_w, told.commanded_w, told.unserved_w, told.devices) == (8_000, 8_000, 0, 4)


@pytest.mark.fault("F23")
def test_course_power_moves_no_faster_than_the_fleet_may() -> None:
    s = scene(params=TrackingParams(fleet_w_per_s=1_000, horizon_s=600)).ask(8_000)
    sums = []
    for _ in range(10):
        found = s.tick()
        s.obey(found)
        sums.append(int(found.wanted_w.sum()))
    assert sums == [1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 8000, 8000]


def test_course_events_share_what_the_fleet_may_move() -> None:
    s = scene(params=TrackingParams(fleet_w_per_s=1_000, horizon_s=600)).ask(8_000, 0, 1).ask(8_000, 2, 3)
    assert s.tick().wanted_w.sum() == 1_000


def test_course_ramp_belongs_to_the_event_that_moves_however_many_stand_still() -> None:
    s = scene(40, params=TrackingParams(fleet_w_per_s=10_000, horizon_s=600))
    for slot in range(1, 40):
        s.ask(500, slot)
    s.ask(4_000, 0)
    for _ in range(8):
        s.obey(s.tick())
    event, members = s.events[39]
    back = replace(event, running=replace(event.running, target=power(-4_000)))
    s.events[39] = (back, members)
    found = s.tick()
    assert found.wanted_w[0] == -4_000
    assert found.wanted_w[1:].tolist() == [500] * 39


@pytest.mark.parametrize(
    "targets", [(60_000.0, 3_000.0, 3_000.0), (60_000.0, -60_000.0, 60_000.0), (9_000.0, 9_000.0, -9_000.0)]
)
def test_course_events_together_move_no_faster_than_the_fleet_may_and_none_waits_for_all(
    targets: tuple[float, ...],
) -> None:
    s = scene(60, params=TrackingParams(fleet_w_per_s=3_000, horizon_s=600))
    for i, target_w in enumerate(targets):
        s.ask(target_w, *range(20 * i, 20 * i + 20))
    before_w, moved = np.zeros(3), []
    for tick in range(80):
        if tick == 40:
            for i, (event, members) in enumerate(s.events):
                other = replace(event.running, target=power(-targets[i] / 2))
                s.events[i] = (replace(event, running=other), members)
        found = s.tick()
        s.obey(found)
        each_w = found.wanted_w.reshape(3, 20).sum(axis=1)
        moved.append(float(np.abs(each_w - before_w).sum()))
        if tick in (0, 40):
            assert np.abs(each_w - before_w).min() >= 990, "each begins at once"
        before_w = each_w
    assert max(moved) <= 3_000 * 1.001 + 3
    assert moved[0] >= 2_990


def test_course_event_that_follows_its_load_gets_what_others_leave() -> None:
    s = scene(4, load_w=1_000, pv_w=0, params=TrackingParams(fleet_w_per_s=3_000, horizon_s=600))
    s.ask(Target(want=Want.FOLLOW_LOAD, power_w=10), 0, 1).ask(2_000, 2, 3)
    for _ in range(10):
        s.obey(s.tick())
    s.snapshot.live.load_w[:2] = 2_000
    assert s.tick().wanted_w.tolist() == [1_990, 1_990, 1_000, 1_000]


def test_course_event_takes_nothing_of_the_ramp_for_what_another_gives_beyond_its_goal() -> None:
    each = Target(want=Want.DEVICE_POWER, power_w=200.0)
    s = scene(3, params=TrackingParams(fleet_w_per_s=250, horizon_s=600))
    for number in range(8):
        s.ask(each, 2, name=f"still-{number}")
    s.ask(3_000, 2, name="high")
    for _ in range(30):
        s.obey(s.tick())
    assert s.tick().wanted_w.tolist() == [0, 0, 3_000]
    s.ask(-2_000, 0, 1, name="other")
    for _ in range(8):
        s.obey(s.tick())
    assert s.tick().wanted_w.tolist() == [-1_000, -1_000, 3_000]
    # once the other is over, what it gave goes down by their ramp
    s.events = [pair for pair in s.events if pair[0].request.id != "high"]
    before_w = 3_000
    for _ in range(40):
        found = s.tick()
        s.obey(found)
        assert before_w - 250 <= found.wanted_w[2] <= before_w
        before_w = int(found.wanted_w[2])
    assert before_w < 2_000


def test_course_ramp_goes_on_from_what_is_left_once_those_who_joined_do_nothing_by_themselves() -> None:
    s = scene(2, params=TrackingParams(fleet_w_per_s=250, horizon_s=600), battery_w=2_000).ask(-1_000)
    s.tick()
    # both joined, and have stopped what they did
    s.snapshot.control.authority[:] = Authority.CONTROLLED
    s.snapshot.control.setpoint_w[:] = 0
    s.snapshot.live.battery_w[:] = 0
    sums = [int(s.tick().wanted_w.sum()) for _ in range(5)]
    assert sums == [-250, -500, -750, -1_000, -1_000]


def test_course_dry_run_takes_no_part_of_the_ramp() -> None:
    s = scene(params=TrackingParams(fleet_w_per_s=1_000, horizon_s=600))
    s.ask(8_000, 0, 1, kind=EventKind.DRY_RUN).ask(8_000, 2, 3)
    found = s.tick()
    assert found.wanted_w.sum() == 1_000
    assert progress(found).commanded_w == 1_000


def test_course_what_did_not_arrive_is_not_where_a_ramp_goes_on_from() -> None:
    s = scene(params=TrackingParams(fleet_w_per_s=1_000, horizon_s=600)).ask(8_000)
    for _ in range(5):
        s.tick()
    missed = np.full(4, -1, dtype=np.int8)
    assert s.tick(reach=replace(everybody(4), heard=missed)).wanted_w.sum() == 1_000


def test_course_what_a_deaf_device_does_by_itself_counts_and_it_goes_on_being_told_the_same() -> None:
    s = scene(unresponsive=(0,), battery_w=[1_500, 0, 0, 0], setpoint_w=[2_000, 0, 0, 0], before_w=[2_000, 0, 0, 0])
    found = s.ask(8_000).tick()
    assert found.wanted_w[0] == 2_000
    assert found.wanted_w[1:].sum() == 6_500


def test_course_shortfall_has_its_reason() -> None:
    told = progress(scene().ask(30_000).tick())
    assert (told.unserved_w, told.reason) == (10_000, Shortfall.LIMITS)


def test_course_dry_run_is_worked_out_and_takes_nobody() -> None:
    found = scene().ask(8_000, kind=EventKind.DRY_RUN).tick()
    assert not found.taking.any()
    assert not found.wanted_w.any()
    assert progress(found).commanded_w == 8_000


def test_course_owner_who_left_is_not_counted_on() -> None:
    found = scene(authority=[Authority.OWNER, 1, 1, 1]).ask(8_000).tick()
    assert not found.taking[0]
    assert found.wanted_w[1:].sum() == 8_000


def test_course_members_start_each_at_a_time_of_their_own() -> None:
    s = scene(100, authority=Authority.DEVICE, mode=Mode.SELF_CONSUMPTION).ask(100_000.0, start_spread_s=100.0)
    counts = []
    for _ in range(100):
        counts.append(int(s.tick().taking.sum()))
    assert counts[0] <= 2
    assert all(0 <= b - a <= 2 for a, b in pairwise(counts))
    assert counts[-1] >= 98


def test_course_devices_under_control_already_join_at_once() -> None:
    assert scene(10).ask(10_000.0, start_spread_s=300.0).tick().taking.all()


# -- power that is not measured ---------------------------------------------------------------------------------


def told_w(s: Scene, seconds: int) -> list[float]:
    """Let devices do as they are told; the sum of it after each second."""
    told: list[float] = []
    for _ in range(seconds):
        s.obey(s.tick())
        told.append(float(s.snapshot.control.setpoint_w.sum()))
    return told


def off_w(s: Scene) -> float:
    """The correction in force."""
    return s.tracking[0].trim.offset_w


def test_course_what_is_measured_corrects_what_is_commanded() -> None:
    s = scene(part=0.96).ask(8_000)
    told = told_w(s, 240)
    assert told[0] == 8_000
    assert told[-1] * 0.96 == pytest.approx(8_000, rel=0.003)


def test_course_without_readings_what_is_commanded_stays_what_it_was_and_nothing_is_wound_up() -> None:
    s = scene(part=0.96).ask(8_000)
    before_w = told_w(s, 40)[-1]
    offset_w = off_w(s)
    assert 100 < offset_w < 300  # still on its way
    s.mute = (0, 1, 2, 3)
    after_w = told_w(s, 115)
    assert set(after_w[1:]) == {after_w[0]}
    assert after_w[0] == pytest.approx(before_w, abs=20)
    s.mute = ()
    assert told_w(s, 1)[0] == after_w[-1]
    # and goes on from there
    assert told_w(s, 240)[-1] * 0.96 == pytest.approx(8_000, rel=0.003)


def test_course_fleet_part_of_which_is_unmeasured_is_corrected_by_the_rest() -> None:
    s = scene(part=0.96).ask(8_000)
    told_w(s, 240)
    s.mute = (0, 1)
    told_w(s, 40)
    offset_w = off_w(s)
    assert told_w(s, 20)[-1] * 0.96 == pytest.approx(8_000, rel=0.003)
    assert off_w(s) == pytest.approx(offset_w, abs=20)
    # those that are measured do less by now
    s.part = 0.92
    told_w(s, 40)
    assert off_w(s) > offset_w + 40


def test_course_what_is_assumed_is_neither_delivered_nor_served() -> None:
    s = scene(part=0.96).ask(8_000)
    told_w(s, 60)
    whole = progress(s.tick())
    assert (whole.assumed_w, whole.unserved_w, whole.reason, whole.unmeasured) == (0, 0, Shortfall.NONE, 0)
    assert whole.delivered_w == pytest.approx(8_000, rel=0.02)
    s.mute = (0,)
    told_w(s, 40)
    half = progress(s.tick())
    assert half.delivered_w == pytest.approx(6_000, rel=0.02)
    assert half.assumed_w == pytest.approx(2_000, rel=0.02)
    assert half.unserved_w == pytest.approx(2_080, abs=20)
    assert (half.reason, half.unmeasured) == (Shortfall.UNMEASURED, 1)
    s.mute = (0, 1, 2, 3)
    told_w(s, 40)
    none = progress(s.tick())
    assert (none.delivered_w, none.unserved_w, none.unmeasured) == (0, 8_000, 4)


def test_course_what_nobody_can_be_given_and_what_is_assumed_is_never_more_than_the_target() -> None:
    s = scene().ask(30_000)
    told_w(s, 5)
    s.mute = (0, 1)
    told_w(s, 40)
    told = progress(s.tick())
    assert (told.delivered_w, told.assumed_w) == (10_000, 10_000)
    assert (told.unserved_w, told.reason) == (20_000, Shortfall.LIMITS)


def test_course_what_devices_that_nobody_reads_are_newly_given_is_not_served() -> None:
    s = scene(
        authority=[1, 1, Authority.DEVICE, Authority.DEVICE], mode=[Mode.REMOTE] * 2 + [Mode.SELF_CONSUMPTION] * 2
    ).ask(8_000)
    s.snapshot.live.seen_mono_ms[2:] = NOW.mono_ms - 60_000
    told = progress(s.tick())
    assert (told.commanded_w, told.assumed_w, told.unserved_w) == (8_000, 0, 4_000)


def test_course_charging_that_is_assumed_is_unserved_as_charging() -> None:
    s = scene(soc_pct=50).ask(-8_000)
    told_w(s, 5)
    s.mute = (0, 1, 2, 3)
    told_w(s, 40)
    told = progress(s.tick())
    assert (told.delivered_w, told.assumed_w, told.unserved_w) == (0, -8_000, -8_000)


def test_course_dry_run_leaves_nothing_unserved_for_want_of_readings() -> None:
    s = scene(battery_w=1_000, setpoint_w=1_000).ask(8_000, kind=EventKind.DRY_RUN)
    s.snapshot.live.seen_mono_ms[:] -= 60_000
    told = progress(s.tick())
    assert (told.delivered_w, told.assumed_w, told.unserved_w) == (0, 4_000, 0)


def test_course_devices_that_did_not_follow_are_counted_as_they_were_read_while_nobody_reads_them() -> None:
    s = scene(unresponsive=(0,), battery_w=[300, 0, 0, 0], setpoint_w=[2_000, 0, 0, 0], before_w=[2_000, 0, 0, 0]).ask(
        8_000
    )
    s.mute = (0,)
    s.snapshot.live.seen_mono_ms[0] = NOW.mono_ms - 40_000
    assert s.tick().wanted_w[1:].sum() == 7_700


def test_course_what_homes_did_by_themselves_is_still_made_up_for_while_nobody_reads_them() -> None:
    s = scene(
        soc_pct=[80, 80, 80, 20], authority=[1, 1, 1, Authority.DEVICE], battery_w=[0, 0, 0, -1_000],
        mode=[Mode.REMOTE, Mode.REMOTE, Mode.REMOTE, Mode.SELF_CONSUMPTION],
    )  # fmt: skip
    s.snapshot.live.seen_mono_ms[3] = NOW.mono_ms - 60_000
    assert s.ask(8_000).tick().wanted_w.sum() == 9_000


# -- what can share a battery -----------------------------------------------------------------------------------


def test_course_stacked_programs_get_the_larger_want_and_not_the_sum() -> None:
    found = scene().ask(6_000).ask(9_000).tick()
    assert found.wanted_w.sum() == 9_000
    assert [progress(found, i).commanded_w for i in (0, 1)] == [6_000, 9_000]


def test_course_smaller_want_of_the_later_event_adds_nothing() -> None:
    assert scene().ask(9_000).ask(6_000).tick().wanted_w.sum() == 9_000


def test_course_each_of_two_overlapping_groups_gets_what_it_wants() -> None:
    found = scene().ask(6_000, 0, 1).ask(9_000, 1, 2, 3).tick()
    assert found.wanted_w[:2].sum() == 6_000
    assert found.wanted_w[1:].sum() == 9_000


def test_course_what_only_shared_devices_can_give_comes_from_them() -> None:
    found = scene(2).ask(2_000, 0, 1).ask(8_000, 1).tick()
    assert found.wanted_w[1] == 5_000
    assert progress(found, 1).unserved_w == pytest.approx(3_000, abs=1)


def test_course_stacked_programs_hold_the_target_over_time() -> None:
    s = scene().ask(6_000).ask(9_000)
    for _ in range(60):
        found = s.tick()
        s.obey(found)
    assert found.wanted_w.sum() == pytest.approx(9_000, rel=0.002)
    assert s.tracking[0].trim.offset_w == 0


# -- ceilings ---------------------------------------------------------------------------------------------------


def test_course_events_of_a_program_stay_below_its_ceiling_together() -> None:
    params = replace(STEEP, program_w={"evening": 7_000.0})
    found = scene(params=params).ask(5_000, 0, 1).ask(5_000, 2, 3).tick()
    assert [int(found.wanted_w[:2].sum()), int(found.wanted_w[2:].sum())] == [5_000, 2_000]
    assert progress(found, 1).reason is Shortfall.CEILING


def test_course_events_of_a_source_stay_below_its_ceiling_together_whatever_their_programs() -> None:
    params = replace(STEEP, program_w={"evening": 9_000.0}, source_w={"platform": 7_000.0})
    asked = scene(params=params).ask(5_000, 0, 1, source="platform").ask(5_000, 2, 3, source="platform")
    found = asked.tick()
    assert [int(found.wanted_w[:2].sum()), int(found.wanted_w[2:].sum())] == [5_000, 2_000]
    assert progress(found, 1).reason is Shortfall.CEILING


EACH = {
    "power": power(6_000.0),
    "the most": power(None),
    "device_power": Target(want=Want.DEVICE_POWER, power_w=1_500),
    "backup": Target(want=Want.BACKUP),
    "charge_to": Target(want=Want.CHARGE_TO, soc_pct=95),
    "follow_load": Target(want=Want.FOLLOW_LOAD, power_w=-1_500),
}
"""Targets that come to 6 kW at least with four devices at 50 %."""
CEILINGS = {
    "program": replace(STEEP, program_w={"evening": 5_000.0}),
    "target": replace(STEEP, target_w_max=5_000.0),
    "source": replace(STEEP, source_w={"": 5_000.0}),
    "wide": replace(STEEP, target_w_max=50_000.0, program_w={"evening": 50_000.0}),
}


@pytest.mark.parametrize("ceiling", ["program", "target", "source"])
@pytest.mark.parametrize("name", EACH)
def test_course_ceiling_binds_every_kind_of_target(name: str, ceiling: str) -> None:
    found = scene(soc_pct=50, params=CEILINGS[ceiling]).ask(EACH[name]).tick()
    assert abs(found.wanted_w.sum()) == pytest.approx(5_000, abs=4)
    told = progress(found)
    assert told.reason is Shortfall.CEILING
    assert abs(told.target_w) == pytest.approx(5_000, abs=1)
    assert told.unserved_w == pytest.approx(0, abs=1)


@pytest.mark.parametrize("name", EACH)
def test_course_target_below_its_ceilings_is_served_as_without_them(name: str) -> None:
    below = scene(soc_pct=50, params=CEILINGS["wide"]).ask(EACH[name]).tick()
    without = scene(soc_pct=50).ask(EACH[name]).tick()
    assert below.wanted_w.tolist() == without.wanted_w.tolist()
    assert below.asked_w.tolist() == without.asked_w.tolist()
    assert below.progress == without.progress
    assert abs(below.wanted_w.sum()) >= 5_999


@pytest.mark.parametrize("name", EACH)
def test_course_events_of_a_program_share_its_ceiling_whatever_they_ask(name: str) -> None:
    found = scene(soc_pct=50, params=CEILINGS["program"]).ask(3_000, 0, 1).ask(EACH[name], 2, 3).tick()
    assert found.wanted_w[:2].sum() == 3_000
    assert abs(found.wanted_w[2:].sum()) == pytest.approx(2_000, abs=4)
    # and the other way round
    first = abs(scene(soc_pct=50, params=CEILINGS["program"]).ask(EACH[name], 2, 3).tick().wanted_w.sum())
    found = scene(soc_pct=50, params=CEILINGS["program"]).ask(EACH[name], 2, 3).ask(4_000, 0, 1).tick()
    assert found.wanted_w[:2].sum() == pytest.approx(5_000 - first, abs=4)


def test_course_ceiling_is_used_by_those_who_can_give_and_the_rest_is_unserved() -> None:
    s = scene(soc_pct=[80, 80, 20, 20], params=replace(STEEP, target_w_max=5_000.0))
    found = s.ask(Target(want=Want.DEVICE_POWER, power_w=2_000)).tick()
    assert found.wanted_w.tolist() == [2_000, 2_000, 0, 0]
    assert found.asked_w.tolist() == [2_000, 2_000, 500, 500]
    assert (progress(found).target_w, progress(found).unserved_w) == (5_000, 1_000)
    assert progress(found).reason is Shortfall.LIMITS


def test_course_ceiling_counts_what_unresponsive_devices_do() -> None:
    s = scene(unresponsive=(0,), battery_w=[1_500, 0, 0, 0], setpoint_w=[2_000, 0, 0, 0], before_w=[2_000, 0, 0, 0],
              params=replace(STEEP, target_w_max=5_000.0))  # fmt: skip
    found = s.ask(Target(want=Want.DEVICE_POWER, power_w=2_000)).tick()
    assert found.wanted_w[1:].sum() == pytest.approx(3_500, abs=3)


def test_course_nomination_bounds_power_of_each_device_where_no_more_is_paid() -> None:
    paid: dict[str, Any] = {"compensation": Compensation.NOMINATION, "nomination_w": 3_000.0}
    assert scene().ask(EACH["device_power"], **paid).tick().wanted_w.sum() == 3_000


def test_course_feeder_ceiling_holds_over_all_events() -> None:
    params = replace(STEEP, feeder_w=np.array([4_000.0, np.inf]))
    s = scene(feeder=[0, 0, 1, 1], params=params).ask(5_000, 0, 1).ask(9_000)
    found = s.tick()
    assert found.wanted_w[:2].sum() == 4_000
    assert found.wanted_w.sum() == 9_000


def test_course_feeder_ceiling_holds_for_devices_that_get_a_power_each() -> None:
    params = replace(STEEP, feeder_w=np.array([4_000.0]))
    found = scene(2, feeder=0, params=params).ask(Target(want=Want.DEVICE_POWER, power_w=3_000)).tick()
    assert found.wanted_w.tolist() == [2_000, 2_000]


def test_course_nomination_bounds_the_target_where_no_more_is_paid() -> None:
    paid: dict[str, Any] = {"compensation": Compensation.NOMINATION, "nomination_w": 3_000.0}
    assert scene().ask(8_000, **paid).tick().wanted_w.sum() == 3_000
    # another program that pays for more is served in full
    assert scene().ask(8_000, **paid).ask(8_000).tick().wanted_w.sum() == 8_000


# -- the most that can be sustained -----------------------------------------------------------------------------


def test_course_the_most_is_level_over_the_event() -> None:
    s = scene(soc_pct=[80, 40, 30, 25]).ask(None)
    first = s.tick().wanted_w
    assert first.tolist() == pytest.approx([5_000, 2_000, 1_000, 500], abs=1)
    assert s.tick().wanted_w.tolist() == pytest.approx(first.tolist(), abs=2)


def test_course_the_most_beside_a_fixed_target_counts_what_that_takes() -> None:
    found = scene(1, soc_pct=40).ask(1_500).ask(None).tick()
    # 2 kWh for an hour, whoever asks for it
    assert found.wanted_w.sum() == pytest.approx(2_000, abs=1)


# -- members that are given nothing -----------------------------------------------------------------------------


def test_course_members_given_nothing_are_idle_and_may_be_by_themselves_while_energy_goes_out() -> None:
    found = scene(soc_pct=[80, 80, 80, 20]).ask(8_000).tick()
    assert found.idle.tolist() == [False, False, False, True]
    assert found.by_itself.tolist() == found.idle.tolist()
    into = scene(soc_pct=[50, 50, 50, 100]).ask(-8_000).tick()
    assert into.idle.tolist() == [False, False, False, True]
    assert not into.by_itself.any()


def test_course_what_idle_members_do_by_themselves_is_made_up_for() -> None:
    # the last one is at its reserve and takes 1 kW of PV in its own mode
    s = scene(soc_pct=[80, 80, 80, 20], authority=[1, 1, 1, Authority.DEVICE], battery_w=[0, 0, 0, -1_000])
    assert s.ask(8_000).tick().wanted_w.sum() == 9_000


def test_course_what_idle_members_do_by_themselves_is_made_up_for_as_far_as_it_goes_and_the_rest_is_told() -> None:
    s = scene(2, soc_pct=[80, 20], authority=[1, Authority.DEVICE], battery_w=[0, -3_000]).ask(4_000)
    found = s.tick()
    assert found.wanted_w.tolist() == [5_000, 0]
    assert progress(found).unserved_w == 2_000


def test_course_member_given_nothing_holds_still_beside_a_battery_of_the_same_home_that_gives() -> None:
    """It would charge from that."""
    s = scene(4, soc_pct=[80, 20, 20, 20], site=[0, 0, 1, -1])
    assert s.ask(3_000).tick().idle.tolist() == [False, False, True, True]


@pytest.mark.parametrize("asked_w", [9_000, 14_000, 18_000])
def test_course_member_that_could_last_longer_is_not_left_out_for_what_it_does_by_itself(asked_w: float) -> None:
    # everybody begins as nobody's, taking PV; what each takes is not to keep it from its turn
    s = scene(6, soc_pct=[80, 78, 76, 40, 38, 30], authority=Authority.DEVICE, battery_w=-1_000)
    s.ask(asked_w)
    control, live = s.snapshot.control, s.snapshot.live
    for _ in range(4):
        found = s.tick()
        on = found.taking & ~found.idle
        control.authority[:] = np.where(on, Authority.CONTROLLED, Authority.DEVICE)
        control.setpoint_w[:] = np.where(on, found.wanted_w, 0)
        live.battery_w[:] = np.where(on, found.wanted_w, -1_000)
    assert found.wanted_w.tolist() == sorted(found.wanted_w.tolist(), reverse=True)
    assert live.battery_w.sum() == pytest.approx(asked_w, rel=0.01)


def test_course_event_that_charges_begins_where_homes_discharge_by_themselves() -> None:
    s = scene(
        authority=Authority.DEVICE,
        battery_w=2_000,
        soc_pct=50,
        params=TrackingParams(fleet_w_per_s=1_000, horizon_s=600),
    )
    # 8 kW by themselves; on the way down nobody is told to charge against the others
    assert s.ask(-8_000).tick().wanted_w.tolist() == [0, 0, 0, 0]


# -- targets that are no group power ----------------------------------------------------------------------------


def test_course_power_of_each_device_is_cut_by_its_own_limits() -> None:
    found = scene(soc_pct=[80, 80, 20, 80]).ask(Target(want=Want.DEVICE_POWER, power_w=3_000)).tick()
    assert found.wanted_w.tolist() == [3_000, 3_000, 0, 3_000]
    assert found.asked_w.tolist() == [3_000] * 4
    assert (progress(found).target_w, progress(found).unserved_w) == (12_000, 3_000)


def test_course_power_of_each_device_is_ramped_together() -> None:
    s = scene(params=TrackingParams(fleet_w_per_s=2_000, horizon_s=600)).ask(
        Target(want=Want.DEVICE_POWER, power_w=-3_000)
    )
    sums = []
    for _ in range(7):
        found = s.tick()
        s.obey(found)
        sums.append(int(found.wanted_w.sum()))
    assert sums == [-2_000, -4_000, -6_000, -8_000, -10_000, -12_000, -12_000]


def test_course_charge_to_gives_what_is_missing_over_the_time_left() -> None:
    found = scene(3, soc_pct=[50, 79, 90]).ask(Target(want=Want.CHARGE_TO, soc_pct=80)).tick()
    assert found.wanted_w.tolist() == [pytest.approx(-3_000 / 0.95, abs=2), pytest.approx(-100 / 0.95, abs=2), 0]
    assert found.idle.tolist() == [False, False, True]
    assert not found.by_itself.any()


def test_course_backup_charges_as_far_as_may_be_and_keeps() -> None:
    found = scene(3, soc_pct=[50, 100, 50], grid_charge_allowed=[True, True, False]).ask(
        Target(want=Want.BACKUP)
    ).tick()  # fmt: skip
    assert found.wanted_w.tolist() == [-5_000, 0, 0]
    assert found.idle.tolist() == [False, True, True]


def test_course_idle_takes_everybody_and_gives_nobody_anything() -> None:
    found = scene().ask(Target(want=Want.IDLE)).tick()
    assert found.taking.all()
    assert found.idle.all()
    assert not found.by_itself.any()


def test_course_self_consumption_leaves_devices_to_themselves_and_to_nobody_else() -> None:
    found = scene().ask(Target(want=Want.SELF_CONSUMPTION), 0, 1).ask(8_000).tick()
    assert found.taking.tolist() == [False, False, True, True]
    assert found.wanted_w.tolist()[:2] == [0, 0]


def test_course_follow_load_brings_every_meter_to_its_power() -> None:
    s = scene(4, site=[0, 1, 2, 2], load_w=[3_000, 500, 4_000, 4_000], pv_w=[0, 2_500, 0, 0])
    found = s.ask(Target(want=Want.FOLLOW_LOAD, power_w=200)).tick()
    assert found.wanted_w.tolist() == [2_800, -2_200, 1_900, 1_900]


def test_course_follow_load_to_nothing_is_left_to_a_maker_whose_own_mode_does_that() -> None:
    s = scene(
        2, authority=Authority.DEVICE, mode=[Mode.SELF_CONSUMPTION, Mode.OTHER], load_w=3_000, battery_w=[3_000, 0]
    ).ask(Target(want=Want.FOLLOW_LOAD, power_w=0))  # fmt: skip
    found = s.tick()
    assert found.taking.tolist() == [False, True]
    assert found.wanted_w.tolist() == [0, 3_000]


def test_course_follow_load_unknown_goes_on_with_what_runs() -> None:
    s = scene(1, load_w=np.nan, grid_w=np.nan, setpoint_w=700, before_w=700, battery_w=700)
    assert s.ask(Target(want=Want.FOLLOW_LOAD, power_w=100)).tick().wanted_w.tolist() == [700]


def test_course_products_with_a_minimum_get_it_or_nothing_from_any_target() -> None:
    s = scene(3, setpoint_w_min=500, setpoint_step_w=100, load_w=[450, 1_234, 5_000])
    found = s.ask(Target(want=Want.FOLLOW_LOAD, power_w=50)).tick()
    assert found.wanted_w.tolist() == [0, 1_100, 4_900]


def test_course_upkeep_charges_no_more_on_a_feeder_than_it_may() -> None:
    s = scene(2, feeder=0, soc_pct=30, params=replace(STEEP, maintenance_feeder_w=np.array([3_000.0])))
    s.ask(Target(want=Want.BACKUP))
    event, members = s.events[0]
    s.events[0] = (replace(event, index=-2), members)
    assert s.tick().wanted_w.tolist() == [-1_500, -1_500]
    s.events[0] = (event, members)
    assert s.tick().wanted_w.tolist() == [-5_000, -5_000]


# -- power that was commanded the other way, or that is not wanted any more --------------------------------------


@pytest.mark.fault("F23")
@pytest.mark.parametrize("target", [power(-8_000), power(0), Target(want=Want.IDLE)])
def test_course_power_that_was_commanded_before_runs_down_no_faster_than_the_fleet_may(target: Target) -> None:
    s = scene(params=TrackingParams(fleet_w_per_s=1_000, horizon_s=600)).ask(8_000)
    for _ in range(9):
        s.obey(s.tick())
    assert s.snapshot.control.setpoint_w.sum() == 8_000
    event, members = s.events[0]
    other = scene().ask(target).events[0][0]
    s.events[0] = (replace(event, request=other.request, running=other.running), members)
    sums = []
    for _ in range(6):
        found = s.tick()
        s.obey(found)
        sums.append(int(found.wanted_w.sum()))
    assert sums == [7_000, 6_000, 5_000, 4_000, 3_000, 2_000]


@pytest.mark.fault("F23")
def test_course_event_that_takes_devices_over_takes_over_what_they_carry() -> None:
    s = scene(params=TrackingParams(fleet_w_per_s=1_000, horizon_s=600)).ask(8_000)
    for _ in range(9):
        s.obey(s.tick())
    s.ask(-4_000, priority=1)
    sums = []
    for _ in range(26):
        found = s.tick()
        s.obey(found)
        sums.append(int(found.wanted_w.sum()))
    assert max(-np.diff([8_000, *sums])) <= 1_000
    assert sums[-1] == -4_000
