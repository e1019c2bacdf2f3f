"""Tracks the targets of running events: turns them into a wanted setpoint for every device.

Events are served in the order of their rank. Each allocates its power to its devices on top of what earlier events that
share them allocated (the larger setpoint counts), ramped by the governor and corrected by measured power. Unreliable
and unreachable devices count with their measured power, or with assumed power until their readings are overdue; the
others make up for them. Lost devices that can still be told something get what the others cannot carry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gateway.domain.control.allocation import Allocation, Ask, Shortfall, allocate
from gateway.domain.control.ceilings import Ceilings
from gateway.domain.control.device_targets import device_target_w, in_steps, kept_w
from gateway.domain.control.feeders import carried_w, left_w, loose_each_w
from gateway.domain.control.progress import Progress, Tracked, Tracking, TrackingParams, cause, unseen_w
from gateway.domain.control.ramp import Governor, RampBudget, Trim, beside_others, trimmed
from gateway.domain.control.reach import Reach, everybody
from gateway.domain.events.arbitration import NOBODY, Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Want, Way
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import Power, sum_of
from gateway.domain.limits.site import Homes
from gateway.domain.limits.types import Envelope, Reason, spread
from gateway.domain.types import Bools, Floats, Grid, Ints, Mode, Now

OWN_POWER_W = 50.0
"""Own power of devices that are given nothing is compensated from here on."""


def track(
    events: Sequence[ActiveEvent],
    claims: Claims,
    tracking: Mapping[int, Tracking],
    snapshot: Snapshot,
    allowed: Envelope,
    follows: Bools,
    power: Power,
    now: Now,
    dt_s: float,
    params: TrackingParams,
    *,
    reach: Reach | None = None,
    lost: Bools | None = None,
    by_own_mode: Bools | None = None,
    on_top: Ints | None = None,
) -> Tracked:
    """One tick of all `events`. `tracking` is what the last tick returned, `follows` the responsive devices, `power`
    the power of each, `reach` who can be told anything (None: everybody), `lost` who is not counted on,
    `by_own_mode` who serves by the maker's own mode (None: nobody), `on_top` what the last tick returned of that."""
    reach = everybody(snapshot.n) if reach is None else reach
    nobody = np.zeros(snapshot.n, dtype=np.bool_)
    lost, own = nobody if lost is None else lost, nobody if by_own_mode is None else by_own_mode
    tracker = _Tracker(claims, tracking, snapshot, allowed, follows, power, now, dt_s, params, reach, lost, own)
    tracker.share_ramp(events, on_top)
    for event in events:
        tracker.serve(event)
    return tracker.tracked()


class _Tracker:
    """Serves events one after the other and adds their allocations up in columns."""

    def __init__(
        self,
        claims: Claims,
        tracking: Mapping[int, Tracking],
        snapshot: Snapshot,
        allowed: Envelope,
        follows: Bools,
        power: Power,
        now: Now,
        dt_s: float,
        params: TrackingParams,
        reach: Reach,
        lost: Bools,
        own: Bools,
    ) -> None:
        n = snapshot.n
        live, control = snapshot.live, snapshot.control
        self._claims = claims
        self._tracked = tracking
        self._snapshot = snapshot
        self._allowed = allowed
        self._now = now
        self._dt_s = dt_s
        self._params = params
        self._reach = reach
        self._missed = reach.missed
        self._ramp = RampBudget(params.fleet_w_per_s, dt_s, {})
        self._power = power
        self._each_w = power.each_w
        self._here = control.authority != int(Authority.OWNER)
        self._on_grid = live.grid != int(Grid.ISLAND)
        faulty = (allowed.reasons_discharge & np.uint64(Reason.FAULT)) != 0
        unreachable = reach.unreachable
        self._own = own.copy()
        self._reliable = allowed.controllable & follows & ~faulty & ~unreachable & ~own
        self._unsteered = ~follows | unreachable
        self._lost = lost if lost.any() else None
        # what is not heard is not counted, unless it was just told what the others cannot carry
        self._counted = (
            self._on_grid if self._lost is None else self._on_grid & (self._reliable | ~(lost & power.overdue))
        )
        self._loose = lost
        if self._lost is not None:
            by_itself = (control.authority == int(Authority.DEVICE)) | control.idle
            self._loose = lost & self._on_grid & power.overdue & (~self._reliable | by_itself)
        self._loose_w = 0.0
        self._taken_w = np.zeros(n, dtype=np.int64)
        self._asked_w = np.zeros(n, dtype=np.int64)
        self._wanted_w = np.zeros(n, dtype=np.int64)
        self._taking = np.zeros(n, dtype=np.bool_)
        self._idle = np.zeros(n, dtype=np.bool_)
        self._by_itself = np.zeros(n, dtype=np.bool_)
        self._on_top: Ints = np.full(n, NOBODY, dtype=np.int64)
        self._before: Ints | None = None
        self._ceilings = Ceilings(params.target_w_max, params.program_w, params.source_w)
        self._next: dict[int, Tracking] = {}
        self._progress: dict[int, Progress] = {}

    def share_ramp(self, events: Sequence[ActiveEvent], on_top: Ints | None) -> None:
        """Share what the fleet may move among the events that have to; how far a new target is, is not known."""
        if on_top is not None and len(events) > 1:
            running = np.isin(on_top, [event.index for event in events if event.actuates])
            self._before = self._on_top.copy()
            self._before[: len(on_top)] = np.where(running, on_top, NOBODY)
        ahead_w = {}
        for event in events:
            # one without a device left does not move, and begins anew once it has some
            moves = event.actuates and event.index not in self._claims.lost
            if moves and event.target.want is not Want.SELF_CONSUMPTION:
                known = self._tracked.get(event.index)
                ahead_w[event.index] = np.inf if known is None or known.target != event.target else known.ahead_w
        self._ramp = RampBudget(self._params.fleet_w_per_s, self._dt_s, ahead_w)

    def _ramped(self, event: ActiveEvent, desired_w: float, commanded_w: float) -> float:
        """Next commanded power of an event. A dry run moves nothing and takes nothing from the others."""
        if not event.actuates:
            return Governor(w_per_s=self._params.fleet_w_per_s).step(desired_w, commanded_w, self._dt_s)
        return self._ramp.step(event.index, desired_w, commanded_w)

    def tracked(self) -> Tracked:
        unsteered = self._taking & self._unsteered
        if unsteered.any():
            # unresponsive and unreachable devices keep the setpoint in force, as far as it is still allowed
            self._wanted_w[unsteered] = kept_w(self._snapshot, self._allowed)[unsteered]
        idle = self._taking & self._idle & (self._wanted_w == 0) & ~self._unsteered
        if idle.any():
            # beside a battery that gives, it would charge from that instead of from PV
            given_w = np.maximum(self._wanted_w, 0).astype(np.float64)
            idle &= Homes(self._snapshot.nameplate.site).total(given_w) == 0
        return Tracked(
            wanted_w=self._wanted_w,
            asked_w=self._asked_w,
            taking=self._taking,
            idle=idle,
            by_itself=idle & self._by_itself,
            by_own_mode=self._own,
            on_top=self._on_top,
            tracking={index: one for index, one in self._next.items() if index not in self._claims.lost},
            progress=self._progress,
        )

    def serve(self, event: ActiveEvent) -> None:
        mine = self._claims.shares[event.index] & self._here & self._begun(event)
        want = event.target.want
        if want is Want.FOLLOW_LOAD and abs(event.target.power_w or 0.0) < 1.0:
            # the maker's own mode does that already, and better: it is nearer to the meter
            control, live = self._snapshot.control, self._snapshot.live
            self._own |= mine & (control.authority == int(Authority.DEVICE)) & (live.mode == int(Mode.SELF_CONSUMPTION))
            self._reliable &= ~self._own
        if want is Want.POWER:
            given_w, asked_w = self._group_power(event, mine)
        elif want in (Want.IDLE, Want.SELF_CONSUMPTION):
            asked_w = np.zeros(self._snapshot.n, dtype=np.int64)
            given_w = self._run_down(event, mine) if want is Want.IDLE else asked_w
            self._note(
                event, mine, given_w, target_w=0.0, commanded_w=float(given_w.sum()), unserved_w=0.0,
                reason=Shortfall.NONE,
            )  # fmt: skip
        else:
            given_w, asked_w = self._device_power(event, mine)
        if not event.actuates or want is Want.SELF_CONSUMPTION:
            return
        own = mine & self._own & (self._taken_w == 0)
        if own.any():
            # what they do by themselves is their share of this event; no other counts it again
            own_w = np.trunc(np.where(own, self._each_w, 0.0)).astype(np.int64)
            self._taken_w += np.maximum(own_w * (1 if event.target.way is Way.OUT else -1), 0)
            asked_w = asked_w + own_w
        self._taking |= mine & ~self._own
        self._taken_w += np.abs(given_w)
        self._on_top[given_w != 0] = event.index
        self._wanted_w += given_w
        self._asked_w = np.where(np.abs(asked_w) > np.abs(self._asked_w), asked_w, self._asked_w)
        self._idle |= mine & (want is not Want.FOLLOW_LOAD)
        # the event wants energy out: what a home draws from its battery by itself is no loss
        self._by_itself[mine] = event.target.way is Way.OUT

    def _begun(self, event: ActiveEvent) -> Bools:
        """Members whose own start has come; those that are under control already join at once."""
        late_s = event.request.start_spread_s
        since_s = (self._now.utc_ms - event.running.since_ms) / 1000
        if since_s >= late_s or event.preparing:
            return np.ones(self._snapshot.n, dtype=np.bool_)
        own_s = late_s * spread(np.arange(self._snapshot.n), 3)
        begun: Bools = (own_s <= since_s) | (self._snapshot.control.authority == int(Authority.CONTROLLED))
        return begun

    # -- power of the group ----------------------------------------------------------------------------------

    def _group_power(self, event: ActiveEvent, mine: Bools) -> tuple[Ints, Ints]:
        """What an event's devices add to the power that earlier events gave them."""
        reliable = mine & self._reliable
        others_w = float(self._each_w[mine & self._counted & ~reliable & ~(self._own & (self._taken_w > 0))].sum())
        self._loose_w = float(self._each_w[mine & self._loose].sum())
        taken_w = float((self._taken_w * mine).sum()) if event.actuates else 0.0
        sign = -1.0 if event.target.way is Way.INTO else 1.0
        most = self._allocate(event, None, reliable) if event.target.power_w is None else None
        wanted_w = event.target.power_w or 0.0
        if most is not None:
            wanted_w = sign * taken_w + most.allocated_w + others_w
        target_w, clipped = self._ceilings.power(event, wanted_w)
        tracking = self._tracked.get(event.index)
        done_w = sum_of(self._each_w, mine & self._counted)
        if tracking is None or tracking.target.want is Want.IDLE:
            tracking = Tracking(target=event.target, commanded_w=done_w, served_w=done_w)
        desired_w = target_w + tracking.trim.offset_w
        stalled = self._missed and self._reach.stalled(reliable)
        # a ramp does not start from what was not given: the return of those who missed it would be a step
        before_w = tracking.served_w if bool((self._reach.back & mine).any()) else tracking.commanded_w
        before_w = done_w if stalled else before_w
        ramped = abs(before_w - desired_w) < 1.0 and not stalled
        commanded_w = self._ramped(event, desired_w, before_w)
        need_w = commanded_w - others_w - sign * taken_w
        own_w = tracking.own_w
        back_w = self._turning(event, need_w, sign, reliable)
        if back_w is not None:
            given = back_w
        elif most is not None and sign * need_w >= abs(most.allocated_w) - 1:
            # every device at what it can sustain to the end
            given = most
        else:
            given, own_w = self._made_up(event, need_w, sign, reliable, tracking.own_w)
            # who has joined does by itself no more what the ramp began with: it goes on from what is left
            commanded_w = sign * max(sign * commanded_w, min(sign * (others_w + own_w) + taken_w, sign * desired_w))
        trim = tracking.trim if event.target.power_w is not None else Trim()
        if ramped and event.target.power_w is not None and abs(commanded_w) + 1 >= taken_w:
            # only readings since the last tick drive the correction, for the time they cover
            trim = trimmed(
                trim, target_w=target_w, delivered_w=done_w, dt_s=self._power.heard(mine & self._counted),
                unserved_w=given.unserved_w, params=self._params.trim,
            )  # fmt: skip
        self._next[event.index] = Tracking(
            target=event.target, commanded_w=commanded_w, served_w=commanded_w - given.unserved_w,
            ahead_w=abs(desired_w - commanded_w), own_w=own_w, trim=trim,
        )  # fmt: skip
        self._note(
            event, mine, given.setpoint_w, target_w=target_w, commanded_w=commanded_w, unserved_w=given.unserved_w,
            reason=Shortfall.CEILING if clipped and given.reason is Shortfall.NONE else given.reason,
        )  # fmt: skip
        return given.setpoint_w, given.setpoint_w

    def _turning(self, event: ActiveEvent, need_w: float, sign: float, reliable: Bools) -> Allocation | None:
        """While power commanded in the other direction ramps down: the setpoints of the devices that still carry it;
        None when none does."""
        if sign * need_w >= 0:
            return None
        control = self._snapshot.control
        carrying = reliable & (control.authority == int(Authority.CONTROLLED)) & (sign * control.setpoint_w < 0)
        carrying &= self._taken_w == 0
        if not carrying.any():
            return None
        most_w = float(np.abs(control.setpoint_w[carrying]).sum())
        return self._allocate(event, -sign * min(abs(need_w), most_w), carrying)

    def _run_down(self, event: ActiveEvent, mine: Bools) -> Ints:
        """Setpoints of devices on their way to 0, no faster than the governor allows."""
        control = self._snapshot.control
        carrying = mine & (control.authority == int(Authority.CONTROLLED)) & self._reliable
        now_w = np.where(carrying, control.setpoint_w, 0)
        low_w, high_w = -np.floor(self._allowed.charge_w), np.floor(self._allowed.discharge_w)
        now_w = np.clip(now_w, low_w, high_w)
        size_w = float(np.abs(now_w).sum())
        left_w = self._ramped(event, 0.0, size_w)
        self._next[event.index] = Tracking(target=event.target, commanded_w=0.0, served_w=0.0, ahead_w=left_w)
        given_w = np.trunc(now_w * (left_w / max(size_w, 1.0))).astype(np.int64)
        return in_steps(given_w, self._snapshot.nameplate)

    def _made_up(
        self, event: ActiveEvent, need_w: float, sign: float, reliable: Bools, own_w: float
    ) -> tuple[Allocation, float]:
        """Allocate `need_w`, less the own power of devices that are given nothing: `own_w` of the last tick; returns
        that of this one too."""

        def given_w(other_w: float, mask: Bools) -> Allocation:
            return self._preferred(event, max(sign * (need_w - other_w), 0.0) * sign, mask)

        given = given_w(own_w, reliable)
        control = self._snapshot.control
        running = reliable & (given.setpoint_w == 0) & ((control.authority == int(Authority.DEVICE)) | control.idle)
        running &= (self._taken_w == 0) & ~self._loose
        now_w = float(self._each_w[running].sum())
        if abs(now_w - own_w) <= OWN_POWER_W:
            return given, own_w
        again = given_w(now_w, reliable & ~running)
        if again.unserved_w == 0:
            return again, now_w
        most = given_w(0.0, reliable)
        # those who are given nothing even so go on with what they do by themselves
        still = running & (most.setpoint_w == 0)
        return given_w(float(self._each_w[still].sum()), reliable & ~still) if still.any() else most, now_w

    def _preferred(self, event: ActiveEvent, need_w: float, mask: Bools) -> Allocation:
        """Allocate to devices that serve no earlier event first: their power counts for this event only. Lost devices
        come last, and get what those of them that do as they like are assumed to leave."""
        shared = mask & (self._taken_w > 0) if event.actuates else np.zeros_like(mask)
        tiers = [mask & ~shared, shared]
        if self._lost is not None:
            tiers = [*(tier & ~self._lost for tier in tiers), mask & self._lost]
        given = self._allocate(event, need_w, tiers[0])
        for number, tier in enumerate(tiers[1:], start=1):
            if given.unserved_w == 0 or not tier.any():
                continue
            left_w = float(given.unserved_w)
            if number == 2:
                left_w = float(np.sign(left_w)) * max(
                    abs(left_w) - max(float(np.sign(left_w)) * self._loose_w, 0.0), 0.0
                )
            more = self._allocate(event, left_w, tier)
            given = replace(
                more, setpoint_w=given.setpoint_w + more.setpoint_w, allocated_w=given.allocated_w + more.allocated_w
            )
        return given

    def _allocate(self, event: ActiveEvent, target_w: float | None, mask: Bools) -> Allocation:
        params = self._params
        shared = event.actuates and bool((mask & (self._taken_w != 0)).any())
        ask = Ask(
            target_w=target_w,
            mask=mask,
            horizon_s=params.horizon_s,
            seconds_to_end=event.seconds_to_end(self._now),
            charge=event.target.way is Way.INTO,
            taken_w=self._taken_w if shared else None,
            feeder_w=None
            if params.feeder_w is None
            else left_w(
                params.feeder_w,
                self._snapshot.nameplate.feeder,
                np.maximum(self._taken_w, self._loose_each_w()),
                mask,
            ),
        )
        return allocate(ask, self._allowed, self._snapshot)

    def _loose_each_w(self) -> Floats:
        return loose_each_w(self._snapshot, self._power, self._reliable, self._lost)

    # -- power of each device --------------------------------------------------------------------------------

    def _device_power(self, event: ActiveEvent, mine: Bools) -> tuple[Ints, Ints]:
        """Setpoints for a target of each device or home, moved no faster than the governor allows."""
        others = mine & self._on_grid & ~self._reliable
        alone = mine & (self._own | (self._allowed.controllable & self._reach.unreachable))
        own_target_w, own_missing_w = self._by_themselves(event, alone)
        mine = mine & self._reliable
        asked_w = device_target_w(event, self._snapshot, self._allowed, mine, self._now)
        inside_w = np.clip(asked_w, -np.floor(self._allowed.charge_w), np.floor(self._allowed.discharge_w))
        goal_w = self._carried(event, np.where(mine, inside_w, 0.0))
        goal_w, asked_w, clipped = self._ceilings.each(event, goal_w, asked_w, float(self._each_w[others].sum()))
        control = self._snapshot.control
        now_w = np.where(control.authority == int(Authority.CONTROLLED), control.setpoint_w, self._each_w)
        now_w = np.where(mine, np.clip(now_w, -self._allowed.charge_w, self._allowed.discharge_w), 0.0)
        if self._before is not None:
            now_w = beside_others(now_w, goal_w, (self._before != NOBODY) & (self._before != event.index))
        ahead_w = float(goal_w.sum())
        at_w = float(now_w.sum())
        moved_w = self._ramped(event, ahead_w, at_w)
        part = 1.0 if abs(ahead_w - at_w) < 1.0 else (moved_w - at_w) / (ahead_w - at_w)
        given_w = np.trunc(now_w + part * (goal_w - now_w)).astype(np.int64)
        given_w = in_steps(given_w, self._snapshot.nameplate)
        sign = np.sign(given_w)
        extra_w = np.maximum(np.abs(given_w) - self._taken_w, 0) if event.actuates else np.abs(given_w)
        # a governor on its way may still have a device on the other side of 0 than its goal
        extra_w[(self._taken_w > 0) & (sign * self._wanted_w < 0)] = 0
        unserved_w = float((np.where(mine, asked_w, 0.0) - goal_w).sum()) + own_missing_w
        self._next[event.index] = Tracking(
            target=event.target, commanded_w=float(given_w.sum()), served_w=float(given_w.sum()),
            ahead_w=abs(ahead_w - moved_w),
        )  # fmt: skip
        self._note(
            event, mine | (others & alone), given_w,
            target_w=float(np.where(mine, asked_w, 0.0).sum()) + own_target_w,
            commanded_w=float(given_w.sum()), unserved_w=unserved_w,
            reason=Shortfall.LIMITS if abs(unserved_w) >= 1 else Shortfall.CEILING if clipped else Shortfall.NONE,
        )  # fmt: skip
        return sign * extra_w, np.where(mine, np.trunc(asked_w), 0).astype(np.int64)

    def _by_themselves(self, event: ActiveEvent, own: Bools) -> tuple[float, float]:
        """What devices that serve by their own mode, or cannot be told anything, are asked for, and the part of it that
        they do not give."""
        if not own.any():
            return 0.0, 0.0
        asked_w = device_target_w(event, self._snapshot, self._allowed, own, self._now)[own]
        missing_w = np.sign(asked_w) * np.maximum(np.sign(asked_w) * (asked_w - self._each_w[own]), 0.0)
        return float(asked_w.sum()), float(missing_w.sum())

    def _carried(self, event: ActiveEvent, goal_w: Floats) -> Floats:
        """`goal_w` cut to what feeders still may carry."""
        bounds_w = self._params.feeder_w, self._params.maintenance_feeder_w if event.index < NOBODY else None
        return carried_w(goal_w, bounds_w, self._snapshot.nameplate.feeder, self._taken_w, self._loose_each_w)

    def _note(
        self,
        event: ActiveEvent,
        mine: Bools,
        given_w: Ints,
        *,
        target_w: float,
        commanded_w: float,
        unserved_w: float,
        reason: Shortfall,
    ) -> None:
        counted = mine & self._on_grid
        delivered_w, missing_w = self._power.measured_w(counted), 0.0
        if event.actuates:
            rows = counted & ~self._power.measured
            missing_w = unseen_w(target_w, unserved_w, delivered_w, given_w[rows], self._each_w[rows])
        self._progress[event.index] = Progress(
            target_w=target_w,
            commanded_w=commanded_w,
            delivered_w=delivered_w,
            assumed_w=self._power.assumed_w(counted),
            unserved_w=unserved_w + missing_w,
            reason=cause(reason, unserved_w, missing_w, undurable=bool((mine & self._reach.not_durable).any())),
            devices=int(np.count_nonzero(counted)),
            unmeasured=self._power.unmeasured(counted)[0],
        )
