"""Decides what a tick writes: who is taken, whose reserve is raised first, who is handed back, and the plan of it all.

Owners and a stop of everything come first; then a device keeps what it has as long as its lease, its reserve or a clock
that may be wrong ask for it; what is left is planned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gateway.domain.control.authority import HandBackParams, hand_backs, reserves_due, turns, unattended
from gateway.domain.control.leases import Rest, rest
from gateway.domain.control.observed import Observed
from gateway.domain.control.planning import Plan, PlanParams, plan
from gateway.domain.control.progress import Tracked
from gateway.domain.control.ramp import in_turn
from gateway.domain.fleet.columns import NOT_TAKEN, Authority
from gateway.domain.limits.types import Envelope
from gateway.domain.types import Bools, Ints, Slots, Unclear


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """What is only handed back by now. `halted`: no device is given power any more; `everything`: before a stop that
    releases; `untimed`: products without a timer only, before one that does not; `sure`: our clock says truly which
    events are over."""

    halted: bool = False
    everything: bool = False
    untimed: bool = False
    sure: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Leases that end with their events: `ends` are devices whose event is over soon, and when (monotonic); of those
    `going_on` have another event then. `before_ms`: when each device was to be handed back as of the last tick (None:
    none was soon)."""

    ends: Sequence[tuple[Bools, int]]
    going_on: Bools
    before_ms: Ints | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionParams:
    """A member without power to give holds 0 W for `rest_after_s` before it is left to itself."""

    rest_after_s: float
    hand_back: HandBackParams
    plan: PlanParams = field(default_factory=PlanParams)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a tick does: reserves of the devices `low` are raised, then `plan` is written. `release_mono_ms`: when each
    device is handed back since its event is over (NEVER_MS: it is not); `hand_back_ms`: the same at the end of what
    runs (None: none is soon)."""

    low: Slots
    plan: Plan
    release_mono_ms: Ints
    hand_back_ms: Ints | None


def decide(
    observed: Observed,
    allowed: Envelope,
    tracked: Tracked,
    left: Mapping[int, Slots],
    ends: Ends,
    halt: Halt,
    params: DecisionParams,
) -> Decision:
    """Decide on the whole fleet. `left`: the devices whose owners opted out, by event."""
    snapshot, now = observed.snapshot, observed.now
    control = snapshot.control
    opted_out = (control.exclusions & NOT_TAKEN) != 0
    # an owner's report that was not understood may have been an opt-out
    opted_out |= (snapshot.live.unclear & Unclear.OPT_OUT) != 0
    resting = rest(
        snapshot, now, idle=tracked.idle, by_itself=tracked.by_itself, guaranteed=observed.guaranteed,
        after_s=params.rest_after_s,
    )  # fmt: skip
    taking = _taking(observed, tracked, opted_out, resting, halt, params)
    # a device that must not be written gets no reserve either
    low = reserves_due(snapshot, taking & allowed.controllable)
    taking &= ~low
    low &= ~observed.reach.waiting
    late = unattended(snapshot, now)
    taking &= ~late
    if halt.untimed:
        taking &= snapshot.nameplate.timed
    # an owner's opt-out is not spread over time, whether from everything or from one event
    for slots in left.values():
        opted_out[slots] = True
    # nor, while everything is handed back, is an unconfirmed command: the release overtakes it
    opted_out |= halt.halted & (control.cmd_applied < control.cmd_sent)
    kept = taking
    if not halt.sure and not halt.halted:
        # by our clock nobody knows whether their event is over: these keep the rest of their lease
        kept = taking | ((control.authority == int(Authority.CONTROLLED)) & ~opted_out & ~late)
    turn = turns(snapshot, kept, now, opted_out, ends.before_ms, params.hand_back)
    # a device that must be narrowed gets no other setpoint then: it is handed back now
    release = turn.release | (halt.halted & allowed.must_narrow & ~taking)
    hand_back_ms = hand_backs(ends.ends, ends.going_on, snapshot, params.hand_back)
    todo = plan(
        snapshot, allowed, now, params.plan, wanted_w=tracked.wanted_w, members=taking, release=release,
        unresponsive=~observed.follows, blocked=resting.blocked, reach=observed.reach, until_ms=hand_back_ms,
    )  # fmt: skip
    return Decision(
        low=np.flatnonzero(low).astype(np.int32),
        plan=todo,
        release_mono_ms=turn.release_mono_ms,
        hand_back_ms=hand_back_ms,
    )


def _taking(
    observed: Observed, tracked: Tracked, opted_out: Bools, resting: Rest, halt: Halt, params: DecisionParams
) -> Bools:
    """Members to be under control. Those that newly are, and do something by themselves, stop it in turn."""
    snapshot = observed.snapshot
    taking: Bools = tracked.taking & ~opted_out & ~resting.free
    if halt.everything:
        taking[:] = False
    stopped = taking & (snapshot.control.authority == int(Authority.DEVICE)) & (tracked.wanted_w == 0)
    # who is not told anything in this tick does not stop anything either, and takes no turn of the others
    stopped &= ~observed.reach.waiting
    if stopped.any():
        turn = in_turn(stopped, np.nan_to_num(snapshot.live.battery_w), params.hand_back.step_w)
        taking &= ~stopped | turn
    return taking
