"""Bounds how fast commanded power moves, and corrects it by measured power."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gateway.domain.types import Bools, Floats

DT_S_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Governor:
    """Bounds how fast the fleet's commanded power may move, both ways."""

    w_per_s: float

    def step(self, desired_w: float, commanded_w: float, dt_s: float) -> float:
        """Next commanded power. After a start `commanded_w` is the measured fleet power; a late tick (`dt_s` > 5 s)
        does not earn a larger step."""
        most_w = self.w_per_s * min(max(dt_s, 0.0), DT_S_MAX)
        return commanded_w + min(max(desired_w - commanded_w, -most_w), most_w)


class RampBudget:
    """What the fleet's commanded power may move in this tick, both ways together, shared among the events that move.

    `ahead_w` is how far each event had to go after the last tick (inf = not known), by index. Those with the least to
    go get all of it, the others equal parts of the rest. What an event leaves is there for those after it."""

    def __init__(self, w_per_s: float, dt_s: float, ahead_w: Mapping[int, float]) -> None:
        self._free_w = w_per_s * min(max(dt_s, 0.0), DT_S_MAX)
        self._part_w: dict[int, float] = {}
        least_first = sorted(ahead_w, key=lambda index: ahead_w[index])
        for done, index in enumerate(least_first):
            self._part_w[index] = min(ahead_w[index], self._free_w / (len(ahead_w) - done))
            self._free_w -= self._part_w[index]

    def step(self, index: int, desired_w: float, commanded_w: float) -> float:
        """Next commanded power of an event: as near to `desired_w` as its part and what is free allow. Once a tick."""
        most_w = self._part_w.pop(index, 0.0) + self._free_w
        asked_w = desired_w - commanded_w
        moved_w = min(max(asked_w, -most_w), most_w)
        self._free_w = most_w - abs(moved_w)
        # the goal itself, not the sum that rounding may put beside it
        return desired_w if moved_w == asked_w else commanded_w + moved_w


def beside_others(now_w: Floats, goal_w: Floats, others: Bools) -> Floats:
    """Where the ramp of each device begins: what `others` (events that still run) give on top of the goal moves by
    their ramps, and takes nothing of this one's."""
    beyond = others & (now_w * goal_w >= 0) & (np.abs(now_w) > np.abs(goal_w))
    return np.where(beyond, goal_w, now_w)


def in_turn(joining: Bools, own_w: Floats, most_w: float) -> Bools:
    """Choose which `joining` devices stop what they do by themselves in this tick: at most `most_w` of their own power
    together, but at least one device, so that the start of an event is no step."""
    rows = np.flatnonzero(joining)
    late = rows[1:][np.cumsum(np.abs(own_w[rows]))[1:] > most_w]
    now = joining.copy()
    now[late] = False
    return now


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimParams:
    """`gain_per_s` of the integral; the correction stays within `part_max` of the target and is not driven by errors
    over `error_part_max` of it: those are ramps and outages, not offsets."""

    gain_per_s: float = 0.03
    part_max: float = 0.05
    error_part_max: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """Closed-loop correction of an event: `offset_w` is added to its target before allocation."""

    offset_w: float = 0.0


def trimmed(
    trim: Trim, *, target_w: float, delivered_w: float, dt_s: float, unserved_w: float, params: TrimParams
) -> Trim:
    """Integrate target less measured power. `unserved_w` (sign of the target) says that the envelope is used up: then
    the correction does not grow in that direction. Unknown measured power keeps the correction as it is."""
    most_w = params.part_max * abs(target_w)
    offset_w = trim.offset_w
    error_w = target_w - delivered_w
    known = math.isfinite(delivered_w)
    windup = unserved_w * error_w > 0
    if known and not windup and abs(error_w) <= params.error_part_max * abs(target_w):
        offset_w += params.gain_per_s * min(max(dt_s, 0.0), DT_S_MAX) * error_w
    return replace(trim, offset_w=min(max(offset_w, -most_w), most_w))
