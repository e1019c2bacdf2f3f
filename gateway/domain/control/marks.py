"""Marks: what a tick's commands make of the control columns, written before anything is awaited.

An answer may come while the batch it belongs to is still being written, and somebody may ask who has a device. So a
command counts as sent, with its lease and its device as ours, from the moment it is decided. What became of it is known
later: then its marks are confirmed, or undone. Only marks of the same command id are touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.commands import CommandBatch, CommandOp, CommandResult
from gateway.domain.fleet.columns import Authority, ControlColumns
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.readings import AckBatch
from gateway.domain.table import run
from gateway.domain.types import Bools

_COLUMNS = (
    "authority", "event", "idle", "result", "setpoint_w", "before_w", "ran_high_w", "ran_low_w", "cmd_sent",
    "sent_mono_ms", "changed_mono_ms", "lease_end_mono_ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The commands of a tick, `at` these slots, and row by row what the control columns said `before`. `taken`: devices
    that newly come under control; `moved`: those whose setpoint is a new one; `released`: those that are handed
    back."""

    batch: CommandBatch
    at: NDArray[np.integer] | slice
    before: Mapping[str, NDArray[np.generic]]
    taken: Bools
    moved: Bools
    released: Bools


def mark(control: ControlColumns, batch: CommandBatch, holder: NDArray[np.int32], mono_ms: int) -> Marks:
    """Mark commands as sent at `mono_ms`. `holder`: the event that has each device of the fleet."""
    at = run(batch.slots)
    before = {name: control.column(name)[at].copy() for name in _COLUMNS}
    free = control.authority[at] == int(Authority.DEVICE)
    released = batch.op == int(CommandOp.RELEASE)
    marks = Marks(
        batch=batch,
        at=at,
        before=before,
        taken=free & ~released,
        moved=(batch.setpoint_w != control.setpoint_w[at]) | free,
        released=released,
    )
    if marks.moved.all():
        control.before_w[at] = control.setpoint_w[at]
    else:
        control.before_w[at] = np.where(marks.moved, control.setpoint_w[at], control.before_w[at])
    ran_w = batch.setpoint_w.astype(np.float32)
    control.ran_high_w[at] = np.maximum(control.ran_high_w[at], ran_w)
    control.ran_low_w[at] = np.minimum(control.ran_low_w[at], ran_w)
    control.setpoint_w[at] = batch.setpoint_w
    control.cmd_sent[at] = batch.cmd
    control.result[at] = CommandResult.NONE
    control.idle[at] = batch.op == int(CommandOp.BLOCK)
    control.authority[at] = Authority.CONTROLLED
    if released.any():
        control.authority[batch.slots[released]] = Authority.RELEASING
        control.event[batch.slots[~released]] = holder[batch.slots[~released]]
    else:
        control.event[at] = holder[at]
    _date(control, marks, None, mono_ms)
    return marks


def confirm(control: ControlColumns, marks: Marks, mono_ms: int, unsure: Bools | None = None) -> None:
    """The commands whose marks stand may have arrived by `mono_ms`: their leases count from then on at most. Of the
    `unsure` nobody knows whether they did: the lease before may still run, and longer."""
    stand = standing(control, marks)
    _date(control, marks, None if stand.all() else stand, mono_ms)
    if unsure is not None and unsure.any():
        rows = stand & unsure & ~marks.taken
        slots, before_ms = marks.batch.slots[rows], marks.before["lease_end_mono_ms"][rows]
        control.lease_end_mono_ms[slots] = np.maximum(control.lease_end_mono_ms[slots], before_ms)


def undo(control: ControlColumns, marks: Marks, rows: Bools) -> None:
    """Take the marks of some commands back: they did not go out. One that its device has applied did."""
    if not rows.any():
        return
    rows = rows & standing(control, marks)
    rows &= control.cmd_applied[marks.at] < marks.batch.cmd
    if not rows.any():
        return
    slots = marks.batch.slots[rows]
    answer = control.result[slots]
    answered = answer != int(CommandResult.NONE)
    for name, values in marks.before.items():
        control.column(name)[slots] = values[rows]
    control.result[slots[answered]] = answer[answered]


def standing(control: ControlColumns, marks: Marks) -> Bools:
    """Which of the commands count as sent, and are the newest of their devices."""
    stand: Bools = control.cmd_sent[marks.at] == marks.batch.cmd
    return stand


def note_answers(control: ControlColumns, batch: AckBatch, mono_ms: int, *, newest_cmd: int) -> None:
    """Note devices' answers to their newest commands. An id beyond `newest_cmd` was never given out and proves nothing,
    however large; of the answers to older commands only that one was applied counts."""
    newest = batch.cmd == control.cmd_sent[batch.slots]
    slots = batch.slots[newest]
    control.result[slots] = batch.result[newest]
    refused = slots[batch.result[newest] == CommandResult.REFUSED]
    control.refused[refused] = np.sign(control.setpoint_w[refused])
    control.refused_mono_ms[refused] = mono_ms
    applied = (batch.result == CommandResult.APPLIED) & (batch.cmd <= newest_cmd)
    np.maximum.at(control.cmd_applied, batch.slots[applied], batch.cmd[applied])


def note_readings(control: ControlColumns, snapshot: Snapshot) -> None:
    """Where a reading shows the newest setpoint, or is late enough to, no earlier one runs any more."""
    live, was = snapshot.live, snapshot.control
    confirmed = (live.cmd == was.cmd_sent) & (live.cmd > 0) & (live.seen_mono_ms > was.sent_mono_ms)
    np.copyto(control.before_w, was.setpoint_w, where=confirmed)
    in_force_ms = was.changed_mono_ms + (1000 * snapshot.nameplate.command_latency_s).astype(np.int64)
    read = confirmed | (live.seen_mono_ms >= in_force_ms)
    for ran_w in (control.ran_high_w, control.ran_low_w):
        np.copyto(ran_w, was.setpoint_w, where=read, casting="same_kind")


def _date(control: ControlColumns, marks: Marks, rows: Bools | None, mono_ms: int) -> None:
    """Set since when some of the commands (None: all) are sent, setpoints are new and leases run."""
    slots, lease_s, moved, released = marks.batch.slots, marks.batch.lease_s, marks.moved, marks.released
    at = marks.at
    if rows is not None:
        slots, lease_s, moved, released = slots[rows], lease_s[rows], moved[rows], released[rows]
        at = slots
    control.sent_mono_ms[at] = mono_ms
    if moved.all():
        control.changed_mono_ms[at] = mono_ms
    else:
        control.changed_mono_ms[slots[moved]] = mono_ms
    if released.any():
        at, lease_s = slots[~released], lease_s[~released]
    control.lease_end_mono_ms[at] = mono_ms + lease_s * 1000
