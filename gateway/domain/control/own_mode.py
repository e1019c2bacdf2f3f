"""Which members of an event are left to their maker's own mode, because it serves the event better than a setpoint.

A home that may not export (or charge from the grid) gets no setpoint above the smallest load (or PV surplus) of late.
Its own mode follows the load itself, so any setpoint would raise its import. Such a device follows; what it gives is
its share. One that is found in another mode, or gives less than it could be told, is taken as any other.
"""

from collections.abc import Sequence

import numpy as np

from gateway.domain.events.arbitration import Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Way
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import Power
from gateway.domain.limits.site import Homes
from gateway.domain.limits.types import Envelope, Reason
from gateway.domain.table import Table, column
from gateway.domain.types import Bools, Floats, Grid, Ints, Mode, Now, Small

METER_OUT = np.uint64(Reason.EXPORT | Reason.SITE_EXPORT | Reason.COMPENSATION)
METER_INTO = np.uint64(Reason.GRID_CHARGE | Reason.SITE_IMPORT | Reason.FUSE)

SLACK_W = 100.0
"""A setpoint must be better by this much, and a device under control must gain so much by being let go."""

TRY_S = 60.0
"""A device that was let go has this long until its own mode must have shown what it gives."""

AGAIN_S = 900.0
"""One whose own mode did not serve is not let go again before this."""


def wanted_ways(events: Sequence[ActiveEvent], claims: Claims, n: int) -> Small:
    """Which way each device is wanted to move energy: +1 out, -1 into, 0 neither."""
    way = np.zeros(n, dtype=np.int8)
    for event in events:
        if event.actuates and event.index >= 0 and event.target.way is not Way.NEITHER:
            way[claims.shares[event.index]] = 1 if event.target.way is Way.OUT else -1
    return way


class OwnModes(Table):
    """Which devices `follows` by their own mode, since `since_mono_ms` if they were let go for it (0: they were found
    there), and `not_before_mono_ms`, until when they are not let go again."""

    follows: Bools = column(False)
    since_mono_ms: Ints = column(0)
    not_before_mono_ms: Ints = column(0)

    def observe(
        self, way: Small, snapshot: Snapshot, allowed: Envelope, power: Power, guaranteed: Bools, now: Now
    ) -> Bools:
        """Members that follow in this tick. `guaranteed`: devices that keep the owner's reserve by themselves."""
        n = snapshot.n
        if len(self.follows) < n:
            self.grow(n)
        kept = self.view(n)
        narrowed = (np.bitwise_or.reduce(allowed.reasons_discharge, initial=0) & METER_OUT) | (
            np.bitwise_or.reduce(allowed.reasons_charge, initial=0) & METER_INTO
        )
        if not narrowed:
            kept.follows[:] = False
            return kept.follows
        out, into = way > 0, way < 0
        bounded = out & ((allowed.reasons_discharge & METER_OUT) != 0)
        bounded |= into & ((allowed.reasons_charge & METER_INTO) != 0)
        bounded &= power.measured & allowed.controllable & (snapshot.live.grid != int(Grid.ISLAND))
        kept.follows &= bounded
        if not bounded.any():
            return kept.follows
        live, control = snapshot.live, snapshot.control
        told_w = np.where(out, allowed.discharge_w, allowed.charge_w)
        own = (control.authority == int(Authority.DEVICE)) & (live.mode != int(Mode.REMOTE))
        own &= (live.mode != int(Mode.BACKUP)) & (live.mode != int(Mode.OTHER))
        serves = bounded & own & (live.battery_w * way + SLACK_W >= told_w)
        let_go = kept.follows & ~serves & (now.mono_ms - kept.since_mono_ms < 1000 * TRY_S)
        failed = kept.follows & ~serves & ~let_go & (kept.since_mono_ms > 0)
        kept.not_before_mono_ms[failed] = now.mono_ms + round(1000 * AGAIN_S)
        better = bounded & guaranteed & (control.authority == int(Authority.CONTROLLED)) & ~kept.follows
        better &= now.mono_ms >= kept.not_before_mono_ms
        if better.any() or let_go.any():
            needed_w = _needed_w(snapshot, way)
            better &= needed_w > told_w + SLACK_W
            # its own mode covers the load: that is too little once it may be told more, and what another battery of
            # the home exports it would charge from
            let_go &= needed_w + SLACK_W >= told_w
        kept.follows[:] = serves | let_go | better
        kept.since_mono_ms[better] = now.mono_ms
        kept.since_mono_ms[~kept.follows] = 0
        return kept.follows


def _needed_w(snapshot: Snapshot, way: Small) -> Floats:
    """What the maker's own mode would give (or take, by `way`): what the other batteries of the home leave of its load
    less PV, as far as the battery can."""
    live, plate = snapshot.live, snapshot.nameplate
    homes = Homes(plate.site)
    battery_w = np.nan_to_num(live.battery_w)
    all_w = homes.total(battery_w)
    net_w = np.subtract(live.load_w, live.pv_w, dtype=np.float64)
    net_w = np.where(np.isnan(net_w), all_w + live.grid_w, net_w)
    most_w = np.where(
        way > 0, np.fmin(plate.discharge_w_max, live.discharge_w_max), np.fmin(plate.charge_w_max, live.charge_w_max)
    )
    result: Floats = np.minimum(np.nan_to_num(net_w - (all_w - battery_w)) * way, most_w)
    return result
