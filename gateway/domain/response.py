"""What devices make of what they are told: who follows, who is deaf, who was taken back by somebody else."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.columns import Held, Singles, Table
from gateway.domain.envelope import Envelope
from gateway.domain.fleet import Snapshot
from gateway.domain.measured import AGE_S
from gateway.domain.meter import Homes
from gateway.domain.model import Bools, Floats, Grid, Ints, Mode, Now, Small

NEVER_S = -(1 << 31)

CHANGED_PART = 0.1
"""A setpoint that has moved by more than this part of the rating is a new one, and the device gets its time again.
What is less is the fleet's correction, which comes every few seconds: it would put every verdict off for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseParams:
    """A device follows if its measured power is within `tolerance_w` or `tolerance_part` of the setpoint once its
    product's latency and settling have passed; a reading older than `age_s_max` says nothing of a command that is not
    answered."""

    tolerance_w: float = 200.0
    tolerance_part: float = 0.1
    age_s_max: float = AGE_S


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

    `taken`: it was steered in the last tick; `told_w` the setpoint that it has had since `told_s`, but for corrections:
    `low_w` to `high_w` is where they were since `stretch_s`, `low_1_w` to `high_1_w` in the stretch before. `owed_cmd`
    is the oldest command that it has not answered, known since `owed_s`; `late`: for longer than one may take to act.
    `ours_s`: since when nothing but our commands moves it. `judged_s` is the newest reading that was looked at for its
    way, `strikes` (counted up to `READINGS_MIN`) the readings in a row that went the wrong one, `wrong_s` the first of
    them. `verdict` is what was proven last: +1 it goes the way it is told, -1 the opposite, at `verdict_s`.
    `deaf_s` since when it has not followed; `lost_s` when it was last lost, `up` whether it is there.
    """

    SPEC = {
        "taken": (np.bool_, False),
        "late": (np.bool_, False),
        "up": (np.bool_, False),
        "strikes": (np.int8, 0),
        "verdict": (np.int8, 0),
        "told_w": (np.float32, 0.0),
        "told_s": (np.int32, NEVER_S),
        "low_w": (np.float32, 0.0),
        "high_w": (np.float32, 0.0),
        "low_1_w": (np.float32, 0.0),
        "high_1_w": (np.float32, 0.0),
        "stretch_s": (np.int32, NEVER_S),
        "ours_s": (np.int32, NEVER_S),
        "judged_s": (np.int32, NEVER_S),
        "wrong_s": (np.int32, NEVER_S),
        "verdict_s": (np.int32, NEVER_S),
        "owed_cmd": (np.int64, 0),
        "owed_s": (np.int32, NEVER_S),
        "deaf_s": (np.int32, NEVER_S),
        "lost_s": (np.int32, NEVER_S),
    }
    taken: Bools
    late: Bools
    up: Bools
    strikes: Small
    verdict: Small
    told_w: Singles
    told_s: NDArray[np.int32]
    low_w: Singles
    high_w: Singles
    low_1_w: Singles
    high_1_w: Singles
    stretch_s: NDArray[np.int32]
    ours_s: NDArray[np.int32]
    judged_s: NDArray[np.int32]
    wrong_s: NDArray[np.int32]
    verdict_s: NDArray[np.int32]
    owed_cmd: Ints
    owed_s: NDArray[np.int32]
    deaf_s: NDArray[np.int32]
    lost_s: NDArray[np.int32]

    def acquit(self, slots: NDArray[np.integer]) -> None:
        """Forget what was proven of some devices: somebody vouches for them."""
        self.strikes[slots] = 0
        self.verdict[slots] = 0


def settling_s(snapshot: Snapshot) -> Floats:
    """How long each device may take from a command until its power stands: its product's latency and settling."""
    plate = snapshot.nameplate
    result: Floats = plate.delivery_s.astype(np.float64) + plate.settle_s
    return result


def keep_up(conduct: Conduct, snapshot: Snapshot, now: Now) -> None:
    """Take down what devices were told and have not answered; once a tick, before they are judged by it. Who was just
    taken, or told something else, gets its time anew. On a ramp there is a command in every tick: what counts is the
    oldest that is open."""
    control, kept, now_s = snapshot.control, conduct.view(snapshot.n), now.mono_ms // 1000
    steered = (control.held == Held.CONTROLLED) & ~control.idle
    same = np.abs(control.setpoint_w - kept.told_w) <= CHANGED_PART * _rated_w(snapshot)
    anew = steered & ~(kept.taken & same)
    kept.taken[:] = steered
    np.copyto(kept.told_w, control.setpoint_w, where=anew, casting="same_kind")
    np.copyto(kept.told_s, now_s, where=anew)
    kept.strikes *= ~anew
    _widen(kept, snapshot, anew, now)
    # a reading that is younger than the command by more than the latency, and the device has taken neither it nor a
    # later one
    done = (_answered(snapshot) >= kept.owed_cmd) | (control.held != Held.CONTROLLED)
    np.copyto(kept.owed_cmd, control.cmd_sent, where=done)
    np.copyto(kept.owed_s, now_s, where=done)
    due_s = kept.owed_s + snapshot.nameplate.delivery_s.astype(np.float64)
    kept.late[:] = ~done & (snapshot.live.seen_mono_ms > 1000 * due_s)


def _widen(kept: Conduct, snapshot: Snapshot, anew: Bools, now: Now) -> None:
    """Take a correction into the band of setpoints that readings may still show. A stretch of time ends with a reading
    by which the device must have settled since its beginning; the band is that of the newest two."""
    setpoint_w = snapshot.control.setpoint_w
    over = snapshot.live.seen_mono_ms >= 1000 * (kept.stretch_s + settling_s(snapshot))
    begun = over | anew
    for newest, before, end in ((kept.low_w, kept.low_1_w, np.minimum), (kept.high_w, kept.high_1_w, np.maximum)):
        np.copyto(before, newest, where=over)
        np.copyto(before, setpoint_w, where=anew, casting="same_kind")
        np.copyto(newest, end(newest, setpoint_w), casting="same_kind")
        np.copyto(newest, setpoint_w, where=begun, casting="same_kind")
    np.copyto(kept.stretch_s, now.mono_ms // 1000, where=begun)


def _answered(snapshot: Snapshot) -> Ints:
    """The newest command of ours that each device is known to have taken."""
    live, control = snapshot.live, snapshot.control
    result: Ints = np.maximum(control.cmd_applied, np.where(live.cmd <= control.cmd_sent, live.cmd, 0))
    return result


def responsive(conduct: Conduct, snapshot: Snapshot, now: Now, params: ResponseParams) -> Bools:
    """Which devices may be relied upon. Those under control whose power does not follow are deaf, once it must have
    settled; corrections may still be under way. Who has not answered a command in time is given no time to settle.
    Devices not under control are not judged.

    What was read once the setpoint in force had settled stands however old it is: a device that did not follow then is
    not to be relied upon again for having fallen silent."""
    live, setpoint_w = snapshot.live, snapshot.control.setpoint_w.astype(np.float64)
    kept = conduct.view(snapshot.n)
    settled = live.seen_mono_ms >= 1000 * (kept.told_s + settling_s(snapshot))
    slack_w = np.maximum(params.tolerance_w, params.tolerance_part * np.abs(setpoint_w))
    low_w = np.where(kept.late, setpoint_w, np.minimum(kept.low_w, kept.low_1_w)) - slack_w
    high_w = np.where(kept.late, setpoint_w, np.maximum(kept.high_w, kept.high_1_w)) + slack_w
    follows = (live.battery_w >= low_w) & (live.battery_w <= high_w)
    fresh = now.mono_ms - live.seen_mono_ms <= 1000 * params.age_s_max
    result: Bools = follows | ~(kept.taken & (settled | (kept.late & fresh)) & ~np.isnan(live.battery_w))
    return result


def _rated_w(snapshot: Snapshot) -> Floats:
    """The larger rating of each battery."""
    result: Floats = np.maximum(snapshot.nameplate.discharge_w_max, snapshot.nameplate.charge_w_max)
    return result


# -- the wrong way ---------------------------------------------------------------------------------------------

ASKED_PART = 0.2
"""Setpoints below this part of the rating are not judged by: standby, losses and a meter's offset are of that size."""

WRONG_PART = 0.5
"""The opposite of a setpoint is all of it on the other side of 0, or as much as the battery can there. Half of that is
far more than a bad meter or gain makes of it."""

SUSTAINED_S = 60
"""So long must every reading be wrong, after the product's own latency and settling: twice what the slowest known
product takes to settle. A battery of 5 kW that is really inverted moves 0.1 kWh by then."""

READINGS_MIN = 3
"""Two readings far apart may both fall into something short; a third between them does not."""

CLEAR_PCT = 3.0
"""So near to a bound of its charge a BMS may charge or discharge as it likes."""

OWN_W = 200.0
OWN_PART = 0.05
"""What is so near to what the home needs (W, or part of the rating if that is more) is the maker's own mode: the rest
is conversion loss and standby. A load that has just changed is off for a reading or two: one that fits is enough."""

HOMES_MIN = 10
"""So many homes of a product must run the wrong way before it is the product: more than one installer wires wrongly
within an hour. Each of them is in quarantine for itself before that."""

HOMES_PART = 0.5
"""And such a part of its homes that have answered: an inverted product is so nearly everywhere, a wiring fault is
not."""

EVIDENCE_S = 3600
"""How long what a home has answered speaks for or against its product."""


def wrong_way(conduct: Conduct, snapshot: Snapshot, allowed: Envelope, now: Now) -> Bools:
    """Devices that have just been proven to do the opposite of what they are told: after the time to settle (see
    `keep_up`) every reading of `SUSTAINED_S` shows much of the setpoint on the other side of 0.

    Each reading is judged once. Not judged: what a limit of the BMS or of the charge may have done, what an unconfirmed
    command may not have reached, and what the home itself needs just now, as its maker's own mode would do it.
    `conduct` keeps what devices are judged by."""
    live, control, n = snapshot.live, snapshot.control, snapshot.n
    kept, now_s, seen_s = conduct.view(n), now.mono_ms // 1000, live.seen_mono_ms // 1000
    disturbed = np.flatnonzero(kept.taken & (kept.late | ~_ours(snapshot, now)))
    kept.ours_s[disturbed] = now_s
    kept.strikes[disturbed] = 0
    rated_w = _rated_w(snapshot)
    due = kept.taken & (seen_s > kept.judged_s) & (np.abs(control.setpoint_w) >= ASKED_PART * rated_w)
    due &= seen_s - np.maximum(kept.told_s, kept.ours_s) > settling_s(snapshot)
    due &= _answered(snapshot) >= control.cmd_sent
    proven = np.zeros(n, dtype=np.bool_)
    # of those that go the way they are told, and have shown it of late, there is nothing to find out
    due &= (
        (live.battery_w * control.setpoint_w < 0)
        | (kept.strikes > 0)
        | (kept.verdict != 1)
        | (kept.verdict_s < now_s - EVIDENCE_S // 2)
    )
    rows = np.flatnonzero(due & ~np.isnan(live.battery_w))
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
    """Devices that nothing but our commands moves, as far as is known."""
    live = snapshot.live
    ours = ((live.mode == Mode.REMOTE) | (live.mode == Mode.UNKNOWN)) & (live.online != 0)
    ours &= (live.grid != Grid.ISLAND) & (live.faults == 0)
    result: Bools = ours & (snapshot.control.lease_end_mono_ms > now.mono_ms)
    return result


def _most_w(snapshot: Snapshot, *, charge: bool) -> Floats:
    """The most each battery can do one way, as far as is known."""
    plate, live = snapshot.nameplate, snapshot.live
    if charge:
        return np.fmin(plate.charge_w_max, live.charge_w_max)
    return np.fmin(plate.discharge_w_max, live.discharge_w_max)


def _by_itself(snapshot: Snapshot) -> Bools:
    """Devices that do what their maker's own mode would: charge no more than the PV surplus of the home, or bring its
    meter to 0 W as far as they can. Where neither the device tells who steers it nor anybody what the home needs, that
    cannot be ruled out."""
    live, plate = snapshot.live, snapshot.nameplate
    battery_w = live.battery_w
    homes = Homes(plate.site)
    all_w = homes.total(np.nan_to_num(battery_w))
    net_w = np.subtract(live.load_w, live.pv_w, dtype=np.float64)
    net_w = np.where(np.isnan(net_w), all_w + live.grid_w, net_w)
    # what the other batteries of the home leave to this one
    own_w = net_w - (all_w - battery_w)
    slack_w = np.maximum(OWN_W, OWN_PART * _rated_w(snapshot))
    most_w = np.clip(own_w, -_most_w(snapshot, charge=True), _most_w(snapshot, charge=False))
    covers = np.abs(battery_w - most_w) <= slack_w
    # no surplus is larger than the PV: a battery power read with the wrong sign would make one up
    from_pv = (battery_w < 0) & (-battery_w <= np.minimum(-own_w, live.pv_w) + slack_w)
    result: Bools = covers | from_pv | (np.isnan(own_w) & (live.mode == Mode.UNKNOWN))
    return result


def wrong_products(conduct: Conduct, snapshot: Snapshot, now: Now) -> Ints:
    """Numbers of the profiles of which so many homes go the wrong way, and such a part of those that have answered of
    late, that it is the profile that is wrong. A home with several batteries of a product counts once."""
    plate, n = snapshot.nameplate, snapshot.n
    late = conduct.verdict_s[:n] >= now.mono_ms // 1000 - EVIDENCE_S
    rows = np.flatnonzero((conduct.verdict[:n] != 0) & late & (plate.profile >= 0))
    homes = Homes(plate.site)
    homes_of = plate.profile[rows].astype(np.int64) * homes.count + homes.index[rows]
    bad = np.unique(homes_of[conduct.verdict[rows] < 0]) // homes.count
    wrong = np.bincount(bad)
    answered = np.bincount(np.unique(homes_of) // homes.count, minlength=len(wrong))[: len(wrong)]
    result: Ints = np.flatnonzero((wrong >= HOMES_MIN) & (wrong >= HOMES_PART * answered))
    return result


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
