"""What devices make of what they are told: who follows, who is unresponsive, who was taken back by somebody else."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import AGE_S
from gateway.domain.table import Singles, Table
from gateway.domain.types import Bools, Floats, Grid, Ints, Mode, Now, Small

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
    result: Bools = (known | ours) & (control.authority == Authority.CONTROLLED) & (live.online != 0)
    return result


def overridden(snapshot: Snapshot, now: Now, seen_obeying: Bools, *, margin_s: float = 10.0) -> Bools:
    """Devices an owner or maker took back: they had obeyed, the lease still runs for `margin_s`, and yet they report
    another mode. Faults, islanding and a restart (presence lost meanwhile) are not overrides."""
    live, control = snapshot.live, snapshot.control
    left: Bools = seen_obeying & (live.mode != Mode.REMOTE) & (live.mode != Mode.UNKNOWN)
    if not left.any():
        return left
    left &= (control.lease_end_mono_ms - now.mono_ms > 1000 * margin_s) & (control.cmd_applied == control.cmd_sent)
    result: Bools = left & (live.faults == 0) & (live.grid != Grid.ISLAND) & (control.authority == Authority.CONTROLLED)
    return result


class Conduct(Table):
    """What is held for or against a device. Times in whole monotonic seconds, `NEVER_S` = never.

    `taken`: it was steered in the last tick; `told_w` the setpoint that it has had since `told_s`, but for corrections:
    `low_w` to `high_w` is where they were since `stretch_s`, `low_1_w` to `high_1_w` in the stretch before. `owed_cmd`
    is the oldest command that it has not answered, known since `owed_s`; `late`: for longer than one may take to act.
    `ours_s`: since when nothing but our commands moves it. `judged_s` is the newest reading that was looked at for its
    way, `strikes` (counted up to `READINGS_MIN`) the readings in a row that went the wrong one, `wrong_s` the first of
    them. `verdict` is what was proven last: +1 it goes the way it is told, -1 the opposite, at `verdict_s`.
    `unresponsive_s` since when it has not followed; `lost_s` when it was last lost, `up` whether it is there.
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
        "unresponsive_s": (np.int32, NEVER_S),
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
    unresponsive_s: NDArray[np.int32]
    lost_s: NDArray[np.int32]

    def acquit(self, slots: NDArray[np.integer]) -> None:
        """Forget what was proven of some devices: somebody vouches for them."""
        self.strikes[slots] = 0
        self.verdict[slots] = 0


def settling_s(snapshot: Snapshot) -> Floats:
    """How long each device may take from a command until its power stands: its product's latency and settling."""
    plate = snapshot.nameplate
    result: Floats = plate.command_latency_s.astype(np.float64) + plate.settle_s
    return result


def keep_up(conduct: Conduct, snapshot: Snapshot, now: Now) -> None:
    """Take down what devices were told and have not answered; once a tick, before they are judged by it. Who was just
    taken, or told something else, gets its time anew. On a ramp there is a command in every tick: what counts is the
    oldest that is open."""
    control, kept, now_s = snapshot.control, conduct.view(snapshot.n), now.mono_ms // 1000
    steered = (control.authority == Authority.CONTROLLED) & ~control.idle
    same = np.abs(control.setpoint_w - kept.told_w) <= CHANGED_PART * ratings_w(snapshot)
    anew = steered & ~(kept.taken & same)
    kept.taken[:] = steered
    np.copyto(kept.told_w, control.setpoint_w, where=anew, casting="same_kind")
    np.copyto(kept.told_s, now_s, where=anew)
    kept.strikes *= ~anew
    _widen(kept, snapshot, anew, now)
    # a reading that is younger than the command by more than the latency, and the device has taken neither it nor a
    # later one
    done = (answered(snapshot) >= kept.owed_cmd) | (control.authority != Authority.CONTROLLED)
    np.copyto(kept.owed_cmd, control.cmd_sent, where=done)
    np.copyto(kept.owed_s, now_s, where=done)
    due_s = kept.owed_s + snapshot.nameplate.command_latency_s.astype(np.float64)
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


def answered(snapshot: Snapshot) -> Ints:
    """The newest command of ours that each device is known to have taken."""
    live, control = snapshot.live, snapshot.control
    result: Ints = np.maximum(control.cmd_applied, np.where(live.cmd <= control.cmd_sent, live.cmd, 0))
    return result


def responsive(conduct: Conduct, snapshot: Snapshot, now: Now, params: ResponseParams) -> Bools:
    """Which devices may be relied upon. Those under control whose power does not follow are unresponsive, once it must
    have settled; corrections may still be under way. Who has not answered a command in time is given no time to settle.
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


def ratings_w(snapshot: Snapshot) -> Floats:
    """The larger rating of each battery."""
    result: Floats = np.maximum(snapshot.nameplate.discharge_w_max, snapshot.nameplate.charge_w_max)
    return result


def unresponsive_for_s(conduct: Conduct, follows: Bools, now: Now) -> NDArray[np.int64]:
    """For how long each device has not followed, s; 0 while it does. `conduct` keeps since when."""
    n, now_s = len(follows), now.mono_ms // 1000
    since = conduct.unresponsive_s[:n]
    since[follows] = NEVER_S
    since[~follows & (since == NEVER_S)] = now_s
    result: NDArray[np.int64] = np.where(follows, 0, now_s - since.astype(np.int64))
    return result
