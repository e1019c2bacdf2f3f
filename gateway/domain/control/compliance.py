"""Which devices follow their commands, which are unresponsive, and which an owner or maker took back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import UNDECLARED_AGE_S
from gateway.domain.table import Singles, Table, column
from gateway.domain.types import Bools, Floats, Grid, Ints, Mode, Now, Small

NEVER_S = -(1 << 31)

CHANGED_PART = 0.1
"""A setpoint that has moved by more than this part of the rating is a new one, and the device gets its time again.
Smaller moves are the fleet's corrections every few seconds; they would put every verdict off for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseParams:
    """A device follows if its measured power is within `tolerance_w` or `tolerance_part` of the setpoint once its
    product's latency and settling have passed; a reading older than `age_s_max` says nothing of a command that is not
    answered."""

    tolerance_w: float = 200.0
    tolerance_part: float = 0.1
    age_s_max: float = UNDECLARED_AGE_S


def obeyed(before: Bools, snapshot: Snapshot) -> Bools:
    """Devices seen in remote mode under our newest confirmed command since control began and since they were last
    offline. `before` is the last tick's result (shorter if devices were added)."""
    live, control = snapshot.live, snapshot.control
    known = np.zeros(snapshot.n, dtype=np.bool_)
    known[: len(before)] = before
    ours = (live.mode == int(Mode.REMOTE)) & (live.cmd == control.cmd_applied) & (live.cmd > 0)
    result: Bools = (known | ours) & (control.authority == int(Authority.CONTROLLED)) & (live.online != 0)
    return result


def overridden(snapshot: Snapshot, now: Now, seen_obeying: Bools, *, margin_s: float = 10.0) -> Bools:
    """Devices an owner or maker took back: they had obeyed, the lease still runs for `margin_s`, and yet they report
    another mode. Faults, islanding and a restart (presence lost meanwhile) are not overrides. One that says no mode
    has left if it says that no command is in force."""
    live, control = snapshot.live, snapshot.control
    elsewhere = (live.mode != int(Mode.REMOTE)) & ((live.mode != int(Mode.UNKNOWN)) | (live.cmd == 0))
    left: Bools = seen_obeying & elsewhere
    if not left.any():
        return left
    left &= (control.lease_end_mono_ms - now.mono_ms > 1000 * margin_s) & (control.cmd_applied == control.cmd_sent)
    result: Bools = (
        left & (live.faults == 0) & (live.grid != int(Grid.ISLAND)) & (control.authority == int(Authority.CONTROLLED))
    )
    return result


class Conduct(Table):
    """How each device has followed its commands. Times in whole monotonic seconds, `NEVER_S` = never.

    `controlled`: it had a setpoint in the last tick; `commanded_w` the setpoint since `commanded_s`, corrections apart:
    these lay between `low_w` and `high_w` since `stretch_s`, between `low_1_w` and `high_1_w` in the stretch before.
    `owed_cmd` is the oldest unanswered command, known since `owed_s`; `late`: for longer than a command may take to
    act. `ours_s`: since when only our commands move it. `judged_s` is the newest reading whose direction was checked,
    `strikes` (counted up to `READINGS_MIN`) the readings in a row with the wrong one, `wrong_s` the first of them.
    `verdict` is what was proven last, at `verdict_s`: +1 it goes the way it is commanded, -1 the opposite.
    `unresponsive_s`: since when it has not followed; `lost_s` when it was last lost, `up` whether it is there;
    `failed_s` when it last failed while it was heard, `well` whether it had not by its last word."""

    controlled: Bools = column(False)
    late: Bools = column(False)
    up: Bools = column(False)
    well: Bools = column(False)
    strikes: Small = column(0)
    verdict: Small = column(0)
    commanded_w: Singles = column(0.0)
    commanded_s: NDArray[np.int32] = column(NEVER_S)
    low_w: Singles = column(0.0)
    high_w: Singles = column(0.0)
    low_1_w: Singles = column(0.0)
    high_1_w: Singles = column(0.0)
    stretch_s: NDArray[np.int32] = column(NEVER_S)
    ours_s: NDArray[np.int32] = column(NEVER_S)
    judged_s: NDArray[np.int32] = column(NEVER_S)
    wrong_s: NDArray[np.int32] = column(NEVER_S)
    verdict_s: NDArray[np.int32] = column(NEVER_S)
    owed_cmd: Ints = column(0)
    owed_s: NDArray[np.int32] = column(NEVER_S)
    unresponsive_s: NDArray[np.int32] = column(NEVER_S)
    lost_s: NDArray[np.int32] = column(NEVER_S)
    failed_s: NDArray[np.int32] = column(NEVER_S)

    def clear(self, slots: NDArray[np.integer]) -> None:
        """Forget what was proven of some devices: an operator trusts them again."""
        self.strikes[slots] = 0
        self.verdict[slots] = 0
        self.failed_s[slots] = NEVER_S
        self.well[slots] = False


def settling_s(snapshot: Snapshot) -> Floats:
    """How long each device may take from a command until its power stands: its product's latency and settling."""
    plate = snapshot.nameplate
    result: Floats = plate.command_latency_s.astype(np.float64) + plate.settle_s
    return result


def update_conduct(conduct: Conduct, snapshot: Snapshot, now: Now) -> None:
    """Note the setpoints and unanswered commands of this tick; once a tick, before the checks that use them. A device
    new under control, or with a new setpoint, gets its time to settle anew. A ramp sends a command in every tick: the
    oldest unanswered one counts."""
    control, kept, now_s = snapshot.control, conduct.view(snapshot.n), now.mono_ms // 1000
    leased = control.authority == int(Authority.CONTROLLED)
    controlled = leased & ~control.idle
    setpoint_w = control.setpoint_w.astype(np.float64)
    same = np.abs(setpoint_w - kept.commanded_w.astype(np.float64)) <= CHANGED_PART * ratings_w(snapshot)
    anew = controlled & ~(kept.controlled & same)
    kept.controlled[:] = controlled
    np.copyto(kept.commanded_w, setpoint_w, where=anew, casting="same_kind")
    np.copyto(kept.commanded_s, now_s, where=anew)
    kept.strikes *= ~anew
    _widen(kept, snapshot, anew, now)
    # late: a reading is younger than the command by more than the latency, and the device has applied neither that
    # command nor a later one
    done = (answered(snapshot) >= kept.owed_cmd) | ~leased
    np.copyto(kept.owed_cmd, control.cmd_sent, where=done)
    np.copyto(kept.owed_s, now_s, where=done)
    kept.late[:] = ~done
    owing = np.flatnonzero(kept.late)
    due_s = kept.owed_s[owing] + snapshot.nameplate.command_latency_s[owing].astype(np.float64)
    kept.late[owing] = snapshot.live.seen_mono_ms[owing] > 1000 * due_s


def _widen(kept: Conduct, snapshot: Snapshot, anew: Bools, now: Now) -> None:
    """Widen the band of setpoints that readings may still show by this tick's correction. A stretch ends with a reading
    by which the device must have settled since its beginning; the band covers the newest two stretches."""
    # as the columns keep it
    setpoint_w = snapshot.control.setpoint_w.astype(np.float32)
    over = snapshot.live.seen_mono_ms >= 1000 * (kept.stretch_s + settling_s(snapshot))
    begun = over | anew
    for newest, before, end in ((kept.low_w, kept.low_1_w, np.minimum), (kept.high_w, kept.high_1_w, np.maximum)):
        np.copyto(before, newest, where=over)
        np.copyto(before, setpoint_w, where=anew)
        end(newest, setpoint_w, out=newest)
        np.copyto(newest, setpoint_w, where=begun)
    np.copyto(kept.stretch_s, now.mono_ms // 1000, where=begun)


def answered(snapshot: Snapshot) -> Ints:
    """The newest of our commands that each device is known to have applied."""
    live, control = snapshot.live, snapshot.control
    result: Ints = np.maximum(control.cmd_applied, live.cmd * (live.cmd <= control.cmd_sent))
    return result


def responsive(conduct: Conduct, snapshot: Snapshot, now: Now, params: ResponseParams) -> Bools:
    """Devices that may be relied upon. A device under control is unresponsive if its power does not follow once it must
    have settled; corrections may still be under way. One that has not answered a command in time gets no time to
    settle. Devices not under control count as responsive.

    A reading made after the setpoint had settled counts however old it is: a device that did not follow then does not
    become reliable by falling silent."""
    live, setpoint_w = snapshot.live, snapshot.control.setpoint_w.astype(np.float64)
    kept = conduct.view(snapshot.n)
    slack_w = np.maximum(params.tolerance_w, params.tolerance_part * np.abs(setpoint_w))
    low_w: Floats = np.minimum(kept.low_w, kept.low_1_w).astype(np.float64)
    high_w: Floats = np.maximum(kept.high_w, kept.high_1_w).astype(np.float64)
    if kept.late.any():
        low_w, high_w = np.where(kept.late, setpoint_w, low_w), np.where(kept.late, setpoint_w, high_w)
    follows: Bools = (live.battery_w >= low_w - slack_w) & (live.battery_w <= high_w + slack_w)
    if follows.all():
        return follows
    settled = live.seen_mono_ms >= 1000 * (kept.commanded_s + settling_s(snapshot))
    fresh = now.mono_ms - live.seen_mono_ms <= 1000 * params.age_s_max
    result: Bools = follows | ~(kept.controlled & (settled | (kept.late & fresh)) & ~np.isnan(live.battery_w))
    return result


def ratings_w(snapshot: Snapshot) -> Floats:
    """The larger rating of each battery."""
    result: Floats = np.maximum(snapshot.nameplate.discharge_w_max, snapshot.nameplate.charge_w_max)
    return result


def unresponsive_for_s(conduct: Conduct, follows: Bools, now: Now) -> NDArray[np.int64]:
    """For how long each device has not followed, s; 0 while it does. `conduct` keeps the start."""
    n, now_s = len(follows), now.mono_ms // 1000
    since = conduct.unresponsive_s[:n]
    since[follows] = NEVER_S
    since[~follows & (since == NEVER_S)] = now_s
    result: NDArray[np.int64] = np.where(follows, 0, now_s - since.astype(np.int64))
    return result
