"""Which devices cannot be told anything although they report, and when each is tried again.

Nobody subscribes to such a device's commands, the broker refuses them, or they are not sent, also because the journal
does not take the device's release plan. It is tried again after a
pause that doubles, and counts as reachable once it has answered a command or, where a product answers none, has had its
time to. Handing back and narrowing wait for `URGENT_S` at most.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.commands import Unreached, WriteOutcome
from gateway.domain.control.compliance import answered
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.types import spread
from gateway.domain.table import Singles, Table, column, run
from gateway.domain.types import Bools, Floats, Ints, Now, Slots, Small

HEARD_PART_MIN = 0.5
"""Where less than this part of an event's newest commands was taken, its ramp starts from present power."""

WAIT_S_MIN = 2.0
WAIT_S_MAX = 60.0
"""The pause before a device is tried again, at first and at most; up to `SPREAD_PART` longer, by device."""

UNSENT_S_MAX = 4.0
"""The longest pause where nothing was sent: the gateway's own connection or disk is down, and control is to be back
soon after it is."""

URGENT_S = 5.0
SPREAD_PART = 0.25

FORGET_S = 900.0
"""A device that no event has tried for so long is unknown again, and counts as reachable until it is tried."""

UNREACHED = {
    WriteOutcome.NOT_SENT: Unreached.NOT_SENT,
    WriteOutcome.NO_SUBSCRIBER: Unreached.NO_SUBSCRIBER,
    WriteOutcome.REFUSED: Unreached.REFUSED,
}
_OURS = (Unreached.NOT_SENT, Unreached.NOT_DURABLE)
_CAUSE = np.array([UNREACHED.get(outcome, Unreached.NONE) for outcome in WriteOutcome], dtype=np.int8)


class Attempts(Table):
    """What became of the newest commands of each device. `cause`: an `Unreached`, why it cannot be told anything (NONE:
    it can), since `since_mono_ms`; it was last tried at `tried_mono_ms`, and is again `wait_s` later. `urgent`: that
    was to hand it back or to narrow it. `arrived_cmd`: a command that the broker has taken for it since, 0 = none.
    `heard`: how the command of the last tick went (1 it was taken, -1 not, 0 there was none). `there`: whether it last
    reported to be there."""

    cause: Small = column(0)
    heard: Small = column(0)
    urgent: Bools = column(False)
    there: Bools = column(False)
    wait_s: Singles = column(0.0)
    since_mono_ms: Ints = column(0)
    tried_mono_ms: Ints = column(0)
    arrived_cmd: Ints = column(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Who can be told anything in this tick. `cause`: why not (an `Unreached`); `back`: reachable again since the last
    tick; `heard`: see `Attempts`. `waiting` are not tried yet, `waiting_urgent` not even to be handed back or
    narrowed."""

    cause: Small
    back: Bools
    heard: Small
    waiting: Bools
    waiting_urgent: Bools

    @property
    def unreachable(self) -> Bools:
        found: Bools = self.cause != int(Unreached.NONE)
        return found

    @property
    def not_durable(self) -> Bools:
        found: Bools = self.cause == int(Unreached.NOT_DURABLE)
        return found

    @property
    def missed(self) -> bool:
        """Whether any command of the last tick was not taken."""
        return bool((self.heard < 0).any())

    def stalled(self, devices: Bools) -> bool:
        """Whether most of the newest commands to these devices may not have arrived."""
        heard = self.heard[devices]
        told = int(np.count_nonzero(heard))
        return told > 0 and int(np.count_nonzero(heard > 0)) < HEARD_PART_MIN * told


def everybody(n: int) -> Reach:
    """All of `n` devices can be told what they are to do."""
    none: Bools = np.zeros(n, dtype=np.bool_)
    zeros: Small = np.zeros(n, dtype=np.int8)
    return Reach(cause=zeros, back=none, heard=zeros, waiting=none, waiting_urgent=none)


def note_attempts(
    attempts: Attempts, slots: Slots, cmd: Ints, outcome: Small, now: Now, *, urgent: Bools,
    unsent: Unreached = Unreached.NOT_SENT,
) -> Slots:  # fmt: skip
    """Note what became of commands (`WriteOutcome`) to `slots`; returns the devices that have become unreachable. An
    unknown outcome says nothing new: the command may have arrived. `unsent`: why those that were not sent were not."""
    at, accepted = run(slots), outcome == int(WriteOutcome.ACCEPTED)
    attempts.heard[at] = 2 * accepted.view(np.int8) - 1
    before = attempts.cause[at]
    if accepted.all() and not before.any():
        return slots[:0]
    before, cause = before.copy(), np.where(outcome == WriteOutcome.NOT_SENT, np.int8(unsent), _CAUSE[outcome])
    known = (cause != Unreached.NONE) | (before != Unreached.NONE)
    if not known.any():
        return slots[:0]
    slots, cmd, outcome, cause, before, urgent = (a[known] for a in (slots, cmd, outcome, cause, before, urgent))
    failed = cause != Unreached.NONE
    ours = np.isin(cause, _OURS)
    # the first pause again where the connection was down and the device itself is what is missing now
    anew = (before == Unreached.NONE) | (np.isin(before, _OURS) & failed & ~ours)
    most_s = np.where(ours, UNSENT_S_MAX, WAIT_S_MAX)
    wait_s = np.where(anew, WAIT_S_MIN, np.minimum(2 * attempts.wait_s[slots], most_s))
    attempts.wait_s[slots] = wait_s
    attempts.tried_mono_ms[slots] = now.mono_ms
    attempts.urgent[slots] = urgent
    attempts.arrived_cmd[slots] = np.where(outcome == WriteOutcome.ACCEPTED, cmd, 0)
    new: Slots = slots[failed & (before == Unreached.NONE)]
    attempts.cause[slots[failed]] = cause[failed]
    attempts.since_mono_ms[new] = now.mono_ms
    return new


def pauses_s(attempts: Attempts, slots: NDArray[np.integer]) -> Floats:
    """How long after the last try each device is tried again."""
    found: Floats = attempts.wait_s[slots] * (1 + SPREAD_PART * spread(slots, 1))
    return found


def reach(attempts: Attempts, snapshot: Snapshot, now: Now) -> Reach:
    """Who can be told anything now; once a tick. Who is back is forgotten, and so is how the last tick went."""
    n = snapshot.n
    kept = attempts.view(n)
    heard = kept.heard.copy()
    kept.heard[:] = 0
    there = snapshot.live.online == 1
    returned = there & ~kept.there
    kept.there[:] = there
    out = kept.cause != int(Unreached.NONE)
    if not out.any():
        return Reach(cause=kept.cause.copy(), back=out, heard=heard, waiting=out, waiting_urgent=out)
    since_s = (now.mono_ms - kept.tried_mono_ms) * 0.001
    arrived = out & (kept.arrived_cmd > 0)
    said = answered(snapshot) >= kept.arrived_cmd
    back = arrived & (said | (since_s >= snapshot.nameplate.command_latency_s))
    forgotten = out & (since_s >= FORGET_S)
    kept.cause[back | forgotten] = Unreached.NONE
    kept.arrived_cmd[back | forgotten] = 0
    # a device that has just connected has most likely subscribed again
    kept.wait_s[out & returned] = 0.0
    out &= ~(back | forgotten)
    # a command that has arrived is not given again while its answer may be on the way
    waiting = out & (arrived | (since_s < pauses_s(kept, np.arange(n))))
    return Reach(
        cause=kept.cause.copy(), back=back, heard=heard, waiting=waiting,
        waiting_urgent=waiting & kept.urgent & (since_s < URGENT_S),
    )  # fmt: skip
