"""What tracking keeps from tick to tick and tells: the wanted setpoints, and how every event is doing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gateway.domain.control.allocation import Shortfall
from gateway.domain.control.ramp import Trim, TrimParams
from gateway.domain.events.request import Target
from gateway.domain.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingParams:
    """`fleet_w_per_s` bounds how fast the power of all events together moves, `target_w_max` the power of each event,
    `program_w` and `source_w` that of all events of a program or of a source together, `feeder_w` that of a feeder (by
    its number; None = no bounds), `maintenance_feeder_w` what maintenance may charge there. `horizon_s`: see
    `allocation`."""

    fleet_w_per_s: float
    horizon_s: float
    target_w_max: float = np.inf
    program_w: Mapping[str, float] = field(default_factory=dict)
    source_w: Mapping[str, float] = field(default_factory=dict)
    feeder_w: Floats | None = None
    maintenance_feeder_w: Floats | None = None
    trim: TrimParams = field(default_factory=TrimParams)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """What a running event keeps from tick to tick, W. `target`: what it asked for; `served_w`: the part of
    `commanded_w` that could be given; `ahead_w`: how far that still has to go; `own_w`: own power of devices that are
    given nothing."""

    target: Target
    commanded_w: float
    served_w: float
    ahead_w: float = 0.0
    own_w: float = 0.0
    trim: Trim = field(default_factory=Trim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of an event, W (+ = discharge). `target_w`: what it asks for, bounded by the ceilings, its nomination
    and (without a power of its own) its energy; `delivered_w`: gross AC battery power of its measured
    devices, `assumed_w` of the others; `devices`: those that count, `unmeasured` those of them that have a setpoint and
    are not measured.

    `unserved_w`: the part of the target that could not be allocated, plus what rests on devices that are not measured:
    it is 0 only where the whole target rests on measured devices. `reason` says why, `UNMEASURED` where nothing else
    does."""

    target_w: float
    commanded_w: float
    delivered_w: float
    assumed_w: float
    unserved_w: float
    reason: Shortfall
    devices: int
    unmeasured: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """The wanted setpoint of every device: `wanted_w` whole W (+ = discharge), `asked_w` the same before the device's
    own limits. `taking`: devices to be under control; of those `idle` are given nothing and need not hold 0 W, and
    `by_itself` may then be left to their maker's own mode; `by_own_mode`: devices that serve their event by that.
    `on_top`: the event (its index, or `NOBODY`) that gave the top part of each setpoint. It and `tracking`, by event
    index, are for the next tick."""

    wanted_w: Ints
    asked_w: Ints
    taking: Bools
    idle: Bools
    by_itself: Bools
    by_own_mode: Bools
    on_top: Ints
    tracking: Mapping[int, Tracking]
    progress: Mapping[int, Progress]


def cause(reason: Shortfall, unserved_w: float, missing_w: float, *, undurable: bool) -> Shortfall:
    """Why a part of the target is unserved. `reason`: why not all of it could be allocated, `missing_w`: what rests on
    devices that are not measured; `undurable`: some devices lack a durable release plan, which outweighs that others
    have no more to give."""
    if undurable and abs(unserved_w) >= 1 and reason in (Shortfall.NO_MEMBERS, Shortfall.LIMITS):
        return Shortfall.NOT_DURABLE
    return Shortfall.UNMEASURED if reason is Shortfall.NONE and abs(missing_w) >= 1 else reason


def unseen_w(target_w: float, unserved_w: float, delivered_w: float, given_w: Ints, assumed_w: Floats) -> float:
    """The part of the target that rests on devices that are not measured, beside what could not be allocated and what
    others deliver."""
    sign = -1.0 if target_w < 0 else 1.0
    left_w = max(abs(target_w) - max(sign * unserved_w, 0.0) - max(sign * delivered_w, 0.0), 0.0)
    rests_w = float(np.maximum(np.maximum(sign * given_w, sign * assumed_w), 0.0).sum())
    return sign * min(rests_w, left_w)
