"""What a tick decides from what it observed: who is taken, whose reserve is raised first, who is handed back, when."""

import numpy as np
import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.control.authority import HandBackParams
from gateway.domain.control.decision import Decision, DecisionParams, Ends, Halt, decide
from gateway.domain.control.observed import observe
from gateway.domain.control.progress import Tracked
from gateway.domain.control.reach import everybody
from gateway.domain.events.arbitration import NOBODY
from gateway.domain.fleet.columns import Authority, ExclusionReason
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import LimitParams
from gateway.domain.types import NEVER_MS, Bools, Mode, Slots, Unclear
from tests.builders.fleets import NOW, fleet_of

PARAMS = DecisionParams(
    rest_after_s=60.0, hand_back=HandBackParams(spread_s=30.0, fleet_w_per_s=1_000.0, step_w=1_000.0)
)
OURS = {"setpoint_w": 1_000, "before_w": 1_000, "battery_w": 1_000, "ran_high_w": 1_000, "ran_low_w": 1_000}
FREE = {
    "authority": Authority.DEVICE, "mode": Mode.SELF_CONSUMPTION, "cmd": 0, "reserve_pct": 20.0,
    "lease_end_mono_ms": NEVER_MS,
}  # fmt: skip


def frozen(snapshot: Snapshot) -> Snapshot:
    """As a tick gets it."""
    n = snapshot.n
    return Snapshot(
        n=n, nameplate=snapshot.nameplate.frozen(n), live=snapshot.live.frozen(n), control=snapshot.control.frozen(n)
    )


def decided(
    fleet: Snapshot,
    *,
    wanted_w: int = 1_000,
    members: Bools | None = None,
    left: dict[int, Slots] | None = None,
    halt: Halt | None = None,
    ends_ms: int | None = None,
) -> Decision:
    snapshot, n = frozen(fleet), fleet.n
    taking = np.ones(n, dtype=np.bool_) if members is None else members
    none = np.zeros(n, dtype=np.bool_)
    allowed = envelope(snapshot, NOW, LimitParams())
    observed = observe(snapshot, NOW, np.zeros(0, dtype=np.int64), follows=~none, reach=everybody(n))
    wanted = np.where(taking, wanted_w, 0)
    tracked = Tracked(
        wanted_w=wanted, asked_w=wanted, taking=taking, idle=none, by_itself=none, by_own_mode=none,
        on_top=np.full(n, NOBODY), tracking={}, progress={},
    )  # fmt: skip
    ends = Ends(ends=[] if ends_ms is None else [(taking, ends_ms)], going_on=none, before_ms=None)
    return decide(observed, allowed, tracked, left or {}, ends, Halt() if halt is None else halt, PARAMS)


def ops(decision: Decision) -> dict[int, CommandOp]:
    plan = decision.plan
    return {slot: CommandOp(int(op)) for slot, op in zip(plan.slots.tolist(), plan.op, strict=True)}


def test_decision_free_members_are_taken() -> None:
    assert ops(decided(fleet_of(3, **FREE))) == dict.fromkeys(range(3), CommandOp.SETPOINT)


def test_decision_member_with_a_low_reserve_has_it_raised_first() -> None:
    decision = decided(fleet_of(3, **FREE | {"reserve_pct": [20.0, 10.0, 20.0]}))
    assert decision.low.tolist() == [1]
    assert ops(decision) == {0: CommandOp.SETPOINT, 2: CommandOp.SETPOINT}


@pytest.mark.parametrize(
    "out", [{"exclusions": [0, ExclusionReason.OPTED_OUT]}, {"unclear": [0, Unclear.OPT_OUT]}], ids=["told", "unclear"]
)
def test_decision_owner_who_opted_out_is_not_taken(out: dict[str, list[int]]) -> None:
    assert ops(decided(fleet_of(2, **FREE | out))) == {0: CommandOp.SETPOINT}


def test_decision_owner_who_left_one_event_is_handed_back_at_once() -> None:
    members = np.array([True, False])
    decision = decided(fleet_of(2, **OURS), members=members, left={5: np.array([1], dtype=np.int32)})
    assert ops(decision)[1] is CommandOp.RELEASE


def test_decision_devices_whose_event_is_over_are_handed_back_in_turn() -> None:
    decision = decided(fleet_of(50, **OURS), members=np.zeros(50, dtype=np.bool_))
    turns_ms = decision.release_mono_ms - NOW.mono_ms
    # 50 kW at 1 kW/s
    assert (turns_ms.min() < 2_000, 40_000 < turns_ms.max() < 50_000) == (True, True)
    assert len(ops(decision)) <= 1


def test_decision_device_that_is_wanted_again_has_no_turn_any_more() -> None:
    decision = decided(fleet_of(2, **OURS | {"release_mono_ms": NOW.mono_ms + 5_000}))
    assert decision.release_mono_ms.tolist() == [NEVER_MS] * 2


def test_decision_by_a_clock_that_may_be_wrong_nobody_is_handed_back() -> None:
    nobody = np.zeros(2, dtype=np.bool_)
    over = fleet_of(2, **OURS | {"release_mono_ms": NOW.mono_ms - 1})
    assert ops(decided(over, members=nobody)) == dict.fromkeys(range(2), CommandOp.RELEASE)
    assert ops(decided(over, members=nobody, halt=Halt(sure=False))) == {}
    assert ops(decided(over, members=nobody, halt=Halt(sure=False, halted=True))) != {}


def test_decision_before_a_stop_everything_or_only_what_has_no_timer_is_handed_back() -> None:
    fleet = fleet_of(2, **OURS | {"timed": [True, False]})
    everything = decided(fleet, halt=Halt(halted=True, everything=True))
    assert (everything.release_mono_ms != NEVER_MS).tolist() == [True, True]
    untimed = decided(fleet, halt=Halt(untimed=True))
    assert (untimed.release_mono_ms != NEVER_MS).tolist() == [False, True]


def test_decision_lease_of_an_event_that_ends_soon_ends_with_its_hand_back() -> None:
    decision = decided(fleet_of(3, **FREE), ends_ms=NOW.mono_ms + 30_000)
    assert decision.hand_back_ms is not None
    assert (decision.plan.lease_s <= (decision.hand_back_ms - NOW.mono_ms) // 1_000).all()


def test_decision_changes_nothing_that_it_read() -> None:
    fleet = fleet_of(4, **OURS)
    before = {name: fleet.control.column(name).copy() for name in fleet.control.SPEC}
    first, again = decided(fleet, wanted_w=2_000), decided(fleet, wanted_w=2_000)
    assert all(np.array_equal(fleet.control.column(n), c, equal_nan=c.dtype.kind == "f") for n, c in before.items())
    assert first.plan.setpoint_w.tolist() == again.plan.setpoint_w.tolist() == [2_000] * 4
