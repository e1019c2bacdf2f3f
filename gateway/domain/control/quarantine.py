"""Finds devices that do the opposite of their setpoint, products that do so in many homes, and products of which many
devices fail, or are lost, at once.

Only what answers can misbehave: the loss of contact is no evidence against it, and a product is never held back for the
devices of it that are not heard."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.control.compliance import NEVER_S, Conduct, answered, ratings_w, settling_s
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.site import Homes
from gateway.domain.limits.types import Envelope
from gateway.domain.types import Bools, Floats, Grid, Ints, Mode, Now

ASKED_PART = 0.2
"""Setpoints below this part of the rating prove nothing: standby, losses and a meter's offset are of that size."""

WRONG_PART = 0.5
"""The opposite of a setpoint is all of it on the other side of 0, or as much as the battery can there. Half of that is
far more than a bad meter or gain makes of it."""

SUSTAINED_S = 60
"""How long every reading must be wrong, after the product's own latency and settling: twice what the slowest known
product takes to settle. A battery of 5 kW that is really inverted moves 0.1 kWh by then."""

READINGS_MIN = 3
"""Two readings far apart may both fall into something short; a third between them does not."""

CLEAR_PCT = 3.0
"""This near to a bound of its charge a BMS may charge or discharge as it likes."""

OWN_W = 200.0

OWN_PART = 0.05
"""Power this near to what the home needs (W, or part of the rating if that is more) is the maker's own mode; the
difference is conversion loss and standby. After a change of load a reading or two are off: one that fits is enough."""

HOMES_MIN = 10
"""This many homes of a product must run the wrong way before the product is quarantined: more than one installer
wires wrongly within an hour. Each of these homes is in quarantine by itself before that."""

HOMES_PART = 0.5
"""And this part of its homes that have answered: an inverted product is wrong nearly everywhere, a wiring fault is
not."""

VERDICT_S = 3600
"""How long the verdict on a home counts for or against its product."""


def wrong_way(conduct: Conduct, snapshot: Snapshot, allowed: Envelope, now: Now) -> Bools:
    """Devices now proven to do the opposite of their setpoint: after the time to settle (see `update_conduct`) every
    reading of `SUSTAINED_S` shows much of the setpoint on the other side of 0.

    Each reading counts once. Ignored are readings that a limit of the BMS or of the charge may explain, those under an
    unconfirmed command, and those at which the maker's own mode would do the same for the home. `conduct` keeps the
    counts."""
    live, control, n = snapshot.live, snapshot.control, snapshot.n
    kept, now_s = conduct.view(n), now.mono_ms // 1000
    disturbed = np.flatnonzero(kept.controlled & (kept.late | ~_ours(snapshot, now)))
    kept.ours_s[disturbed] = now_s
    kept.strikes[disturbed] = 0
    proven = np.zeros(n, dtype=np.bool_)
    # devices that recently went the right way need no further proof
    unproven = (live.battery_w * control.setpoint_w < 0) | (kept.strikes > 0)
    unproven |= (kept.verdict != 1) | (kept.verdict_s < now_s - VERDICT_S // 2)
    unproven &= kept.controlled & ~np.isnan(live.battery_w)
    if not unproven.any():
        return proven
    rated_w, seen_s = ratings_w(snapshot), live.seen_mono_ms // 1000
    due = unproven & (seen_s > kept.judged_s) & (np.abs(control.setpoint_w) >= ASKED_PART * rated_w)
    due &= seen_s - np.maximum(kept.commanded_s, kept.ours_s) > settling_s(snapshot)
    due &= answered(snapshot) >= control.cmd_sent
    rows = np.flatnonzero(due)
    if not len(rows):
        return proven
    setpoint_w = control.setpoint_w[rows]
    out = setpoint_w > 0
    bms_w = np.where(out, live.discharge_w_max[rows], live.charge_w_max[rows])
    clear = ~(np.abs(setpoint_w) > bms_w) & (live.soc_low_pct[rows] > allowed.floor_pct[rows] + CLEAR_PCT)
    clear &= live.soc_high_pct[rows] < 100 - CLEAR_PCT
    along_w = live.battery_w[rows] * np.sign(setpoint_w)
    back_w = np.where(out, _most_w(snapshot, charge=True)[rows], _most_w(snapshot, charge=False)[rows])
    opposite_w = np.maximum(np.minimum(np.abs(setpoint_w), back_w), ASKED_PART * rated_w[rows])
    wrong = clear & (along_w <= -WRONG_PART * opposite_w)
    right = clear & (along_w >= WRONG_PART * np.abs(setpoint_w))
    if wrong.any():
        wrong &= ~_by_itself(snapshot)[rows]
    kept.judged_s[rows] = seen_s[rows]
    first = rows[wrong & (kept.strikes[rows] == 0)]
    kept.wrong_s[first] = seen_s[first]
    kept.strikes[rows] = np.where(wrong, np.minimum(kept.strikes[rows] + 1, READINGS_MIN), 0)
    lasting = seen_s[rows] - kept.wrong_s[rows] >= SUSTAINED_S
    proven[rows] = wrong & (kept.strikes[rows] >= READINGS_MIN) & lasting
    kept.verdict[rows[right]], kept.verdict_s[rows[right]] = 1, now_s
    kept.verdict[proven], kept.verdict_s[proven] = -1, now_s
    return proven


def _ours(snapshot: Snapshot, now: Now) -> Bools:
    """Devices that only our commands move, as far as is known."""
    live = snapshot.live
    ours = ((live.mode == int(Mode.REMOTE)) | (live.mode == int(Mode.UNKNOWN))) & (live.online != 0)
    ours &= (live.grid != int(Grid.ISLAND)) & (live.faults == 0)
    result: Bools = ours & (snapshot.control.lease_end_mono_ms > now.mono_ms)
    return result


def _most_w(snapshot: Snapshot, *, charge: bool) -> Floats:
    """The most power each battery can give (or take), as far as is known."""
    plate, live = snapshot.nameplate, snapshot.live
    if charge:
        return np.fmin(plate.charge_w_max, live.charge_w_max)
    return np.fmin(plate.discharge_w_max, live.discharge_w_max)


def _by_itself(snapshot: Snapshot) -> Bools:
    """Devices that do what their maker's own mode would: charge no more than the PV surplus of the home, or bring its
    meter to 0 W as far as they can. It cannot be ruled out where neither the mode of the device nor the need of the
    home is known; such devices are included."""
    live, plate = snapshot.live, snapshot.nameplate
    battery_w = live.battery_w
    homes = Homes(plate.site)
    all_w = homes.total(np.nan_to_num(battery_w))
    net_w = np.subtract(live.load_w, live.pv_w, dtype=np.float64)
    net_w = np.where(np.isnan(net_w), all_w + live.grid_w, net_w)
    # what the other batteries of the home leave to this one
    own_w = net_w - (all_w - battery_w)
    slack_w = np.maximum(OWN_W, OWN_PART * ratings_w(snapshot))
    most_w = np.clip(own_w, -_most_w(snapshot, charge=True), _most_w(snapshot, charge=False))
    covers = np.abs(battery_w - most_w) <= slack_w
    # no surplus is larger than the PV: a battery power read with the wrong sign would make one up
    from_pv = (battery_w < 0) & (-battery_w <= np.minimum(-own_w, live.pv_w) + slack_w)
    result: Bools = covers | from_pv | (np.isnan(own_w) & (live.mode == int(Mode.UNKNOWN)))
    return result


def wrong_products(conduct: Conduct, snapshot: Snapshot, now: Now) -> Ints:
    """Numbers of the products that are wrong: at least `HOMES_MIN` homes, and `HOMES_PART` of those that answered
    within `VERDICT_S`, go the wrong way. A home with several batteries of a product counts once."""
    plate, n = snapshot.nameplate, snapshot.n
    late = conduct.verdict_s[:n] >= now.mono_ms // 1000 - VERDICT_S
    rows = np.flatnonzero((conduct.verdict[:n] != 0) & late & (plate.product >= 0))
    homes = Homes(plate.site)
    homes_of = plate.product[rows].astype(np.int64) * homes.count + homes.index[rows]
    bad = np.unique(homes_of[conduct.verdict[rows] < 0]) // homes.count
    wrong = np.bincount(bad)
    answered = np.bincount(np.unique(homes_of) // homes.count, minlength=len(wrong))[: len(wrong)]
    result: Ints = np.flatnonzero((wrong >= HOMES_MIN) & (wrong >= HOMES_PART * answered))
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class StruckParams:
    """A product is struck when `share` of its devices, and at least `devices_min`, fell out within `within_s`, and no
    longer once all but `back_share` are back. A device is heard while its reading is not older than `age_s_max`."""

    share: float = 0.4
    devices_min: int = 5
    within_s: float = 120.0
    back_share: float = 0.1
    age_s_max: float = 120.0


def heard(snapshot: Snapshot, now: Now, params: StruckParams) -> Bools:
    """Devices that answer. Those that do not prove nothing about those that do."""
    live = snapshot.live
    result: Bools = (now.mono_ms - live.seen_mono_ms <= 1000 * params.age_s_max) & (live.online != 0)
    return result & snapshot.nameplate.registered


def failed_products(
    conduct: Conduct, snapshot: Snapshot, failed: frozenset[int], now: Now, params: StruckParams
) -> frozenset[int]:
    """Numbers of the products of which many devices that are heard failed at once: faulty, or taken back by their owner
    or maker. `failed` is what the last call returned."""
    here = heard(snapshot, now, params)
    ill = here & ((snapshot.live.faults != 0) | (snapshot.control.authority == int(Authority.OWNER)))
    kept = conduct.view(snapshot.n)
    return _struck(kept.well, kept.failed_s, snapshot.nameplate.product, failed, now, params, good=here & ~ill, bad=ill)


def lost_products(
    conduct: Conduct, snapshot: Snapshot, lost: frozenset[int], now: Now, params: StruckParams
) -> frozenset[int]:
    """Numbers of the products of which many devices were lost at once: silent, offline or islanded."""
    here = heard(snapshot, now, params) & (snapshot.live.grid != int(Grid.ISLAND))
    kept = conduct.view(snapshot.n)
    return _struck(kept.up, kept.lost_s, snapshot.nameplate.product, lost, now, params, good=here, bad=~here)


def _struck(
    was: Bools,
    since_s: NDArray[np.int32],
    product: NDArray[np.int32],
    struck: frozenset[int],
    now: Now,
    params: StruckParams,
    *,
    good: Bools,
    bad: Bools,
) -> frozenset[int]:
    """The products of which many devices have gone from `good` to `bad` of late, and those of `struck` that are not
    back. `was` keeps who was good, `since_s` when others ceased to be."""
    now_s = now.mono_ms // 1000
    since_s[was & bad] = now_s
    since_s[good] = NEVER_S
    was |= good
    was &= ~bad
    recent = bad & (since_s > now_s - params.within_s)
    if not struck and int(recent.sum()) < params.devices_min:
        return struck
    known = product >= 0
    count = int(product.max(initial=-1)) + 1
    there = np.bincount(product[known & good], minlength=count)
    gone = np.bincount(product[known & recent], minlength=count)
    away = np.bincount(product[known & bad & (since_s != NEVER_S)], minlength=count)
    new = np.flatnonzero((gone >= params.devices_min) & (gone >= params.share * (there + gone)))
    still = [p for p in struck if away[p] > params.back_share * (there[p] + away[p])]
    return frozenset(new.tolist()) | frozenset(still)
