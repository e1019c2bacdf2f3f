"""Carries out a tick's plan: journals the release plan, then writes, then records what is in force."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.domain.commands import CommandBatch, CommandOp, CommandResult, WriteOutcome, WriteReport
from gateway.domain.control.planning import Cause, Plan
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import Change, ControlEnded, ControlTaken
from gateway.domain.table import run
from gateway.domain.types import Bools, EventId, Now, Slots
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

    async def carry_out(
        self, todo: Plan, holder: NDArray[np.int32], now: Now, *, names: Mapping[int, EventId]
    ) -> CommandBatch:
        """Write a plan; returns what may have arrived. `holder` is the event of each slot, `names` the events' ids.
        What is owed to the journal goes into the same commit as the release plan. While the journal fails no device
        newly comes under control, `reach` is told so, and the rest goes on."""
        slots = todo.slots
        authority = self._fleet.control.authority[run(slots)]
        taken = (todo.op != int(CommandOp.RELEASE)) & (authority == int(Authority.DEVICE))
        keep = np.ones(len(slots), dtype=np.bool_)
        plans = self._plans(slots[taken], holder, names)
        if not await self._pending.flush(plans):
            keep = ~taken
            self._reach.note_not_durable(slots[taken], now)
            if plans and self._pending.failing == NO_ANSWER:
                # it may become durable yet
                self._pending.owe_anew(ControlEnded(devices=self._fleet.names(slots[taken]), reason="not_taken"))
        if self._halted():
            keep = self._only_releases(todo, keep, taken)
        batch, causes = self._batch(todo, keep, now), todo.cause[keep]
        if not len(batch):
            return batch
        counts = np.bincount(causes, minlength=len(Cause)).tolist()
        for cause in Cause:
            self.stats.writes[cause] += counts[cause]
        urgent = (causes == int(Cause.NARROW)) | (causes == int(Cause.RELEASE))
        return await self._write(batch, holder, urgent=urgent)

    def _only_releases(self, todo: Plan, keep: NDArray[np.bool_], taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The releases of a plan that was made before everything was stopped. The journal has its new devices as under
        control: the next commit corrects that."""
        never = todo.slots[keep & taken]
        if len(never):
            self._pending.owe([ControlEnded(devices=self._fleet.names(never), reason="stopped")])
        left: NDArray[np.bool_] = keep & (todo.op == CommandOp.RELEASE)
        return left

    @property
    def newest_cmd(self) -> int:
        """The largest command id given out so far."""
        return self.ids.newest

    async def raise_reserves(self, slots: Slots, now: Now) -> None:
        """Make devices keep at least their owner's reserve by themselves, also while no lease runs."""
        n = len(slots)
        reserve_pct = self._fleet.nameplate.owner_reserve_pct[slots]
        first = self.ids.take(n)
        batch = CommandBatch(
            slots=slots,
            op=np.full(n, CommandOp.RESERVE, dtype=np.int8),
            setpoint_w=np.zeros(n, dtype=np.int64),
            lease_s=np.zeros(n, dtype=np.int64),
            reserve_pct=reserve_pct,
            cmd=np.arange(first, first + n),
            valid_until_ms=np.full(n, now.utc_ms + round(self._settings.command_valid_s * 1000)),
        )
        self._fleet.control.written_reserve_pct[slots] = reserve_pct
        report = await self._send(batch, urgent=np.zeros(n, dtype=np.bool_))
        # What did not arrive is tried again. A product that refuses a reserve is controlled all the same.
        absent = (report.delivery != WriteOutcome.ACCEPTED) & (report.delivery != WriteOutcome.REFUSED)
        self._fleet.control.written_reserve_pct[slots[absent]] = np.nan
        self.stats.reserves += int(np.count_nonzero(report.delivery == WriteOutcome.ACCEPTED))

    def _plans(self, slots: Slots, holder: NDArray[np.int32], names: Mapping[int, EventId]) -> list[Change]:
        out: list[Change] = []
        for index in np.unique(holder[slots]).tolist():
            mine = slots[holder[slots] == index]
            out.append(ControlTaken(devices=self._fleet.names(mine), event=names.get(index, EventId("unknown"))))
        return out

    def _batch(self, todo: Plan, keep: NDArray[np.bool_], now: Now) -> CommandBatch:
        kept = slice(None) if keep.all() else keep
        slots = todo.slots[kept]
        first = self.ids.take(len(slots))
        return CommandBatch(
            slots=slots,
            op=todo.op[kept],
            setpoint_w=todo.setpoint_w[kept],
            lease_s=todo.lease_s[kept],
            reserve_pct=np.full(len(slots), np.nan),
            cmd=np.arange(first, first + len(slots)),
            valid_until_ms=np.full(len(slots), now.utc_ms + round(self._settings.command_valid_s * 1000)),
        )

    async def _write(self, batch: CommandBatch, holder: NDArray[np.int32], *, urgent: Bools) -> CommandBatch:
        """Write, then record as in force, and return, whatever may have arrived."""
        report = await self._send(batch, urgent=urgent)
        reached = (report.delivery == int(WriteOutcome.ACCEPTED)) | (report.delivery == int(WriteOutcome.UNKNOWN))
        if not reached.all():
            batch = CommandBatch(**{f.name: getattr(batch, f.name)[reached] for f in fields(CommandBatch)})
        self._record(batch, holder)
        return batch

    async def _send(self, batch: CommandBatch, *, urgent: Bools) -> WriteReport:
        """Write under one deadline."""
        deadline_ms = self._clock.mono_ms() + round(self._settings.write_deadline_s * 1000)
        report = await self._link.write(batch, deadline_mono_ms=deadline_ms)
        counts = np.bincount(report.delivery, minlength=len(WriteOutcome)).tolist()
        for outcome in WriteOutcome:
            self.stats.outcomes[outcome] += counts[outcome]
        self._reach.note(batch, report, self._clock.now(), urgent=urgent)
        return report

    def _record(self, batch: CommandBatch, holder: NDArray[np.int32]) -> None:
        at = run(batch.slots)
        released = batch.op == int(CommandOp.RELEASE)
        control, sent_ms = self._fleet.control, self._clock.mono_ms()
        before_w = control.setpoint_w[at].copy()
        moved = (batch.setpoint_w != before_w) | (control.authority[at] == int(Authority.DEVICE))
        if moved.all():
            control.before_w[at], control.changed_mono_ms[at] = before_w, sent_ms
        else:
            control.before_w[at] = np.where(moved, before_w, control.before_w[at])
            control.changed_mono_ms[at] = np.where(moved, sent_ms, control.changed_mono_ms[at])
        ran_w = batch.setpoint_w.astype(np.float32)
        control.ran_high_w[at] = np.maximum(control.ran_high_w[at], ran_w)
        control.ran_low_w[at] = np.minimum(control.ran_low_w[at], ran_w)
        control.setpoint_w[at] = batch.setpoint_w
        control.cmd_sent[at] = batch.cmd
        control.sent_mono_ms[at] = sent_ms
        control.result[at] = CommandResult.NONE
        control.idle[at] = batch.op == int(CommandOp.BLOCK)
        if not released.any():
            control.event[at] = holder[at]
            control.authority[at] = Authority.CONTROLLED
            control.lease_end_mono_ms[at] = sent_ms + batch.lease_s * 1000
            return
        control.event[at] = np.where(released, control.event[at], holder[at])
        control.authority[at] = np.where(released, Authority.RELEASING, Authority.CONTROLLED)
        control.lease_end_mono_ms[at] = np.where(
            released, control.lease_end_mono_ms[at], sent_ms + batch.lease_s * 1000
        )
