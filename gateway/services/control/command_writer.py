"""Carries out a tick's plan: marks it as in force, journals the release plan, then writes; what did not go out is
unmarked."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.domain.commands import CommandBatch, CommandOp, WriteOutcome, WriteReport
from gateway.domain.control.marks import Marks, confirm, mark, undo
from gateway.domain.control.planning import Cause, Plan
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import Change, ControlEnded, ControlTaken
from gateway.domain.types import Bools, EventId, Floats, Ints, Now, Slots, Small
from gateway.ports.links import CommandTarget
from gateway.services.control.command_ids import CommandIds
from gateway.services.control.reach import ReachWatch
from gateway.services.runtime.pending_changes import NO_ANSWER, PendingChanges
from gateway.services.settings import ControlSettings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class CommandWriterStats:
    """Counts of commands."""

    reserves: int = 0
    writes: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(Cause, 0))
    outcomes: dict[WriteOutcome, int] = field(default_factory=lambda: dict.fromkeys(WriteOutcome, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """What a tick is about to write: reserves to raise first, then the `commands`, marked as sent, each with its
    `Cause`; and the release plans of devices that newly come under control."""

    reserves: CommandBatch
    commands: Marks
    cause: Small
    plans: Sequence[Change]


class CommandWriter:
    """The one place that writes to devices.

    `reach` is told what became of each command. `halted`: whether devices are only handed back; asked last before a
    write.
    """

    def __init__(
        self,
        settings: ControlSettings,
        *,
        fleet: Fleet,
        pending: PendingChanges,
        link: CommandTarget,
        clock: Clock,
        epoch: int,
        reach: ReachWatch,
        halted: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._pending = pending
        self._link = link
        self._clock = clock
        self._reach = reach
        self._halted = halted
        self.ids = CommandIds(epoch)
        self.stats = CommandWriterStats()

    def mark(
        self, todo: Plan, low: Slots, holder: NDArray[np.int32], now: Now, *, names: Mapping[int, EventId]
    ) -> Marked:
        """Number the commands of a plan, and the reserves to raise first on the devices `low`, and mark them in the
        control columns. `holder` is the event of each slot, `names` the events' ids."""
        control = self._fleet.control
        reserves = self._batch(
            low, np.full(len(low), CommandOp.RESERVE, dtype=np.int8), now,
            reserve_pct=self._fleet.nameplate.owner_reserve_pct[low],
        )  # fmt: skip
        control.written_reserve_pct[low] = reserves.reserve_pct
        batch = self._batch(todo.slots, todo.op, now, setpoint_w=todo.setpoint_w, lease_s=todo.lease_s)
        commands = mark(control, batch, holder, self._clock.mono_ms())
        return Marked(
            reserves=reserves, commands=commands, cause=todo.cause,
            plans=self._plans(batch.slots[commands.taken], holder, names),
        )  # fmt: skip

    async def carry_out(self, marked: Marked, barred: Callable[[Marks], Bools]) -> None:
        """Raise reserves, make the release plan durable, write what still may go out; marks of what did not are undone.

        What is owed to the journal goes into the same commit as the release plan. While the journal fails no device
        newly comes under control, `reach` is told so, and the rest goes on. `barred`, asked last before the write:
        commands that may not go out any more. What ends before the write has sent nothing; what ends later may have."""
        marks, durable = marked.commands, True
        goes = np.zeros(len(marks.batch), dtype=np.bool_)
        try:
            if len(marked.reserves):
                await self._raise_reserves(marked.reserves)
            durable = await self._pending.flush(marked.plans)
            if not durable:
                self._reach.note_not_durable(marks.batch.slots[marks.taken], self._clock.now())
            goes = self._goes(marks, durable)
            if goes.any():
                goes = goes & ~barred(marks)
        finally:
            self._drop(marks, ~goes, durable=durable)
        if not goes.any():
            return
        cause, batch = marked.cause[goes], marks.batch.some(goes)
        # where the link fails or is cut off, nobody knows
        arrived, unsure = goes.copy(), goes.copy()
        counts = np.bincount(cause, minlength=len(Cause)).tolist()
        for one in Cause:
            self.stats.writes[one] += counts[one]
        urgent = (cause == int(Cause.NARROW)) | (cause == int(Cause.RELEASE))
        try:
            report = await self._send(batch, urgent=urgent)
            unsure[goes] = report.delivery == int(WriteOutcome.UNKNOWN)
            arrived[goes] = (report.delivery == int(WriteOutcome.ACCEPTED)) | unsure[goes]
        finally:
            undo(self._fleet.control, marks, ~arrived)
            confirm(self._fleet.control, marks, self._clock.mono_ms(), unsure)

    @property
    def newest_cmd(self) -> int:
        """The largest command id given out so far."""
        return self.ids.newest

    def _goes(self, marks: Marks, durable: bool) -> Bools:
        """Commands that may go out: while everything is handed back only releases."""
        if self._halted():
            return marks.released
        return np.ones_like(marks.taken) if durable else ~marks.taken

    def _drop(self, marks: Marks, rows: Bools, *, durable: bool) -> None:
        """Undo the marks of commands that do not go out. Where the journal has, or may get, their devices as under
        control, the next commit corrects that."""
        undo(self._fleet.control, marks, rows)
        never = marks.batch.slots[marks.taken & rows]
        if len(never) and (durable or self._pending.failing == NO_ANSWER):
            why = "stopped" if self._halted() else "not_taken"
            self._pending.owe_anew(ControlEnded(devices=self._fleet.names(never), reason=why))

    async def _raise_reserves(self, batch: CommandBatch) -> None:
        """Make devices keep at least their owner's reserve by themselves, also while no lease runs."""
        report = await self._send(batch, urgent=np.zeros(len(batch), dtype=np.bool_))
        # What did not arrive is tried again. A product that refuses a reserve is controlled all the same.
        absent = (report.delivery != WriteOutcome.ACCEPTED) & (report.delivery != WriteOutcome.REFUSED)
        self._fleet.control.written_reserve_pct[batch.slots[absent]] = np.nan
        self.stats.reserves += int(np.count_nonzero(report.delivery == WriteOutcome.ACCEPTED))

    def _plans(self, slots: Slots, holder: NDArray[np.int32], names: Mapping[int, EventId]) -> list[Change]:
        out: list[Change] = []
        if not len(slots):
            return out
        for index in np.unique(holder[slots]).tolist():
            mine = slots[holder[slots] == index]
            out.append(ControlTaken(devices=self._fleet.names(mine), event=names.get(index, EventId("unknown"))))
        return out

    def _batch(
        self,
        slots: Slots,
        op: Small,
        now: Now,
        *,
        setpoint_w: Ints | None = None,
        lease_s: Ints | None = None,
        reserve_pct: Floats | None = None,
    ) -> CommandBatch:
        n = len(slots)
        first = self.ids.take(n)
        none: Ints = np.zeros(n, dtype=np.int64)
        return CommandBatch(
            slots=slots,
            op=op,
            setpoint_w=none if setpoint_w is None else setpoint_w,
            lease_s=none if lease_s is None else lease_s,
            reserve_pct=np.full(n, np.nan) if reserve_pct is None else reserve_pct,
            cmd=np.arange(first, first + n),
            valid_until_ms=np.full(n, now.utc_ms + round(self._settings.command_valid_s * 1000)),
        )

    async def _send(self, batch: CommandBatch, *, urgent: Bools) -> WriteReport:
        """Write under one deadline."""
        deadline_ms = self._clock.mono_ms() + round(self._settings.write_deadline_s * 1000)
        report = await self._link.write(batch, deadline_mono_ms=deadline_ms)
        counts = np.bincount(report.delivery, minlength=len(WriteOutcome)).tolist()
        for outcome in WriteOutcome:
            self.stats.outcomes[outcome] += counts[outcome]
        self._reach.note(batch, report, self._clock.now(), urgent=urgent)
        return report
