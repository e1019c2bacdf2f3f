"""What devices make of what they are told: who follows, who is deaf, who was taken back by somebody else."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.columns import Held, Singles, Table
from gateway.domain.envelope import Envelope
from gateway.domain.fleet import Snapshot
from gateway.domain.measured import AGE_S, SETTLE_S
from gateway.domain.model import Bools, Grid, Mode, Now, Small

NEVER_S = -(1 << 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseParams:
    """A device follows if its measured power is within `tolerance_w` or `tolerance_part` of the setpoint once
    `settle_s` have passed; a reading older than `age_s_max` says nothing of a change that is under way."""

    settle_s: float = SETTLE_S
    tolerance_w: float = 200.0
    tolerance_part: float = 0.1
    age_s_max: float = AGE_S


def responsive(snapshot: Snapshot, now: Now, params: ResponseParams) -> Bools:
    """Which devices may be relied upon. Those under control whose power does not follow are deaf; a change still under
    way is judged by the band between the setpoint before it and the new one. Devices not under control are not judged.

    What was read once the setpoint in force had settled stands however old it is: a device that did not follow then is
    not to be relied upon again for having fallen silent."""
    live, control = snapshot.live, snapshot.control
    setpoint_w = control.setpoint_w.astype(np.float64)
    before_w = control.before_w.astype(np.float64)
    settled = live.seen_mono_ms >= control.changed_mono_ms + round(1000 * params.settle_s)
    fresh = now.mono_ms - live.seen_mono_ms <= 1000 * params.age_s_max
    slack_w = np.maximum(params.tolerance_w, params.tolerance_part * np.abs(setpoint_w))
    low_w = np.where(settled, setpoint_w, np.minimum(setpoint_w, before_w)) - slack_w
    high_w = np.where(settled, setpoint_w, np.maximum(setpoint_w, before_w)) + slack_w
    follows = (live.battery_w >= low_w) & (live.battery_w <= high_w)
    # no band to judge by: what a device did before it was taken is nobody's setpoint, and one that has confirmed the
    # new setpoint may still be on its way
    under_way = fresh & (control.before_w != 0) & (control.before_w != control.setpoint_w)
    judged = (control.held == Held.CONTROLLED) & ~control.idle & (settled | under_way) & ~np.isnan(live.battery_w)
    result: Bools = follows | ~judged
    return result


def obeyed(before: Bools, snapshot: Snapshot) -> Bools:
    """Which devices have been seen in remote mode under our newest confirmed command since they were taken and since
    they were last away. `before` is the last tick's answer (shorter if devices were added)."""
    live, control = snapshot.live, snapshot.control
    known = np.zeros(snapshot.n, dtype=np.bool_)
    known[: len(before)] = before
    ours = (live.mode == Mode.REMOTE) & (live.cmd == control.cmd_applied) & (live.cmd > 0)
    result: Bools = (known | ours) & (control.held == Held.CONTROLLED) & (live.online != 0)
    return result


def overridden(snapshot: Snapshot, now: Now, seen_obeying: Bools, *, margin_s: float = 10.0) -> Bools:
    """Devices an owner or maker took back: they had obeyed, the lease still runs for `margin_s`, and yet they report
    another mode. Faults, islanding and a restart (presence lost meanwhile) are not overrides."""
    live, control = snapshot.live, snapshot.control
    left: Bools = seen_obeying & (live.mode != Mode.REMOTE) & (live.mode != Mode.UNKNOWN)
    if not left.any():
        return left
    left &= (control.lease_end_mono_ms - now.mono_ms > 1000 * margin_s) & (control.cmd_applied == control.cmd_sent)
    result: Bools = left & (live.faults == 0) & (live.grid != Grid.ISLAND) & (control.held == Held.CONTROLLED)
    return result


# -- over several readings -------------------------------------------------------------------------------------


class Conduct(Table):
    """What is held for or against a device. Times in whole monotonic seconds, `NEVER_S` = never.

    `ref_w`: the power that a change is measured from, taken when the device came under our commands (`taken`) and
    whenever it has followed or is where it should be;
    `judged_s` the newest reading that was looked at for that; `strikes` the changes in a row that went the wrong way;
    `deaf_s` since when it has not followed; `lost_s` when it was last lost, `up` whether it is there.
    """

    SPEC = {
        "taken": (np.bool_, False),
        "up": (np.bool_, False),
        "strikes": (np.int8, 0),
        "ref_w": (np.float32, np.nan),
        "judged_s": (np.int32, NEVER_S),
        "deaf_s": (np.int32, NEVER_S),
        "lost_s": (np.int32, NEVER_S),
    }
    taken: Bools
    up: Bools
    strikes: Small
    ref_w: Singles
    judged_s: NDArray[np.int32]
    deaf_s: NDArray[np.int32]
    lost_s: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignParams:
    """A change counts if it asks for more than `change_part` of the rating, and as wrong if the measured one goes more
    than `wrong_part` of it the other way; not within `clear_pct` of a bound of the charge, nor at more than
    `limit_part` of what the BMS allows. `strikes_max` readings in a row are proof; so many devices of a product, and
    such a part of those under control, that the product itself is."""

    change_part: float = 0.2
    wrong_part: float = 0.1
    clear_pct: float = 3.0
    limit_part: float = 0.95
    strikes_max: int = 2
    devices_min: int = 3
    devices_part: float = 0.2


def wrong_way(conduct: Conduct, snapshot: Snapshot, allowed: Envelope, now: Now, params: SignParams) -> Bools:
    """Devices that have just been proven to do the opposite of what they are told. Each reading is judged once; what a
    limit of the BMS or of the charge may have undone is not judged. What a device did by itself, before it was taken,
    while it was lost or left to charge from PV, is where it starts from. `conduct` keeps what they are judged by."""
    live, control, plate, n = snapshot.live, snapshot.control, snapshot.nameplate, snapshot.n
    held = control.held == Held.CONTROLLED
    ours = (live.mode == Mode.REMOTE) | (live.mode == Mode.UNKNOWN)
    under = conduct.taken[:n] & ours & ~control.idle & (live.online != 0)
    fresh = held & ~(under & (control.lease_end_mono_ms > now.mono_ms))
    conduct.taken[:n] = held
    if fresh.any():
        conduct.strikes[:n][fresh] = 0
        conduct.ref_w[:n][fresh] = live.battery_w[fresh]
        conduct.judged_s[:n][fresh] = now.mono_ms // 1000
    seen_s = live.seen_mono_ms // 1000
    rated_w = np.maximum(plate.discharge_w_max, plate.charge_w_max)
    there = held & (np.abs(live.battery_w - control.setpoint_w) <= params.wrong_part * rated_w)
    np.copyto(conduct.ref_w[:n], live.battery_w, where=there, casting="same_kind")
    conduct.strikes[:n] *= ~there
    asked_w = control.setpoint_w - conduct.ref_w[:n]
    due = held & ~control.idle & (seen_s > conduct.judged_s[:n]) & (np.abs(asked_w) > params.change_part * rated_w)
    due &= ours & ((control.cmd_applied >= control.cmd_sent) | (live.cmd == control.cmd_sent))
    proven = np.zeros(n, dtype=np.bool_)
    rows = np.flatnonzero(due)
    if not len(rows):
        return proven
    setpoint_w = control.setpoint_w[rows]
    bms_w = np.where(setpoint_w > 0, live.discharge_w_max[rows], live.charge_w_max[rows])
    clear = ~(np.abs(setpoint_w) > params.limit_part * bms_w) & (live.faults[rows] == 0)
    clear &= live.soc_low_pct[rows] > allowed.floor_pct[rows] + params.clear_pct
    rows = rows[clear & (live.soc_high_pct[rows] < 100 - params.clear_pct)]
    size_w, way = np.abs(asked_w[rows]), np.sign(asked_w[rows])
    moved_w = (live.battery_w[rows] - conduct.ref_w[rows]) * way
    wrong, right = moved_w < -params.wrong_part * size_w, moved_w > params.wrong_part * size_w
    conduct.judged_s[rows] = seen_s[rows]
    conduct.strikes[rows] = np.where(wrong, conduct.strikes[rows] + 1, np.where(right, 0, conduct.strikes[rows]))
    conduct.ref_w[rows[right]] = live.battery_w[rows[right]]
    proven[rows] = conduct.strikes[rows] >= params.strikes_max
    return proven


def wrong_products(quarantined: Bools, snapshot: Snapshot, params: SignParams) -> NDArray[np.int64]:
    """Numbers of the profiles of which so many devices are quarantined that it is the profile that is wrong."""
    profile = snapshot.nameplate.profile
    known = profile >= 0
    bad = np.bincount(profile[known & quarantined])
    steered = (snapshot.control.held == Held.CONTROLLED) | quarantined
    all_ = np.bincount(profile[known & steered], minlength=len(bad))[: len(bad)]
    return np.flatnonzero((bad >= params.devices_min) & (bad >= params.devices_part * all_))


def deaf_for_s(conduct: Conduct, follows: Bools, now: Now) -> NDArray[np.int64]:
    """For how long each device has not followed, s; 0 while it does. `conduct` keeps since when."""
    n, now_s = len(follows), now.mono_ms // 1000
    since = conduct.deaf_s[:n]
    since[follows] = NEVER_S
    since[~follows & (since == NEVER_S)] = now_s
    result: NDArray[np.int64] = np.where(follows, 0, now_s - since.astype(np.int64))
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class LossParams:
    """A product is frozen when `share` of its devices, and at least `devices_min`, were lost within `within_s`, and let
    go again once all but `back_share` are there."""

    share: float = 0.4
    devices_min: int = 5
    within_s: float = 120.0
    back_share: float = 0.1
    age_s_max: float = 120.0


def lost_products(
    conduct: Conduct, snapshot: Snapshot, frozen: frozenset[int], now: Now, params: LossParams
) -> frozenset[int]:
    """Numbers of the profiles that lost many devices at once: silent, offline, islanded, faulty, or taken back by
    somebody. `frozen` are those that were so before; `conduct` keeps who is there and who was lost when."""
    live, control, plate, n = snapshot.live, snapshot.control, snapshot.nameplate, snapshot.n
    up = (now.mono_ms - live.seen_mono_ms <= 1000 * params.age_s_max) & (live.online != 0) & (live.faults == 0)
    up &= (live.grid != Grid.ISLAND) & (control.held != Held.LEFT) & plate.enrolled
    now_s = now.mono_ms // 1000
    conduct.lost_s[:n][conduct.up[:n] & ~up] = now_s
    conduct.lost_s[:n][up] = NEVER_S
    conduct.up[:n] = up
    recent = ~up & (conduct.lost_s[:n] > now_s - params.within_s)
    if not frozen and int(recent.sum()) < params.devices_min:
        return frozen
    known = plate.profile >= 0
    count = int(plate.profile.max(initial=-1)) + 1
    there = np.bincount(plate.profile[known & up], minlength=count)
    gone = np.bincount(plate.profile[known & recent], minlength=count)
    away = np.bincount(plate.profile[known & ~up & (conduct.lost_s[:n] != NEVER_S)], minlength=count)
    struck = np.flatnonzero((gone >= params.devices_min) & (gone >= params.share * (there + gone)))
    still = [p for p in frozen if away[p] > params.back_share * (there[p] + away[p])]
    return frozenset(struck.tolist()) | frozenset(still)
