"""The control loop: events in, one tick a second, setpoints out. Holds state and awaits; the domain decides.

A tick freezes one snapshot, asks `limits` what every device may do, gives each running event its devices and its
power, plans the writes, makes the release plan durable, writes, and notes what became of it. Nothing is written to a
device from anywhere else.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gateway.clock import Clock
from gateway.domain.allocation import Allocation, allocate
from gateway.domain.columns import Held
from gateway.domain.dispatch import ActiveEvent, Answer, Book, BookEntry, BookParams, EventState, claim, members
from gateway.domain.envelope import Envelope, LimitParams, Reason
from gateway.domain.fleet import Fleet, Snapshot
from gateway.domain.limits import envelope
from gateway.domain.model import (
    AckBatch,
    Bools,
    CommandResult,
    EventId,
    EventRequest,
    Grid,
    Ints,
    Now,
    Slots,
)
from gateway.domain.setpoints import (
    Governor,
    PlanParams,
    ResponseParams,
    Trim,
    TrimParams,
    expected_w,
    plan,
    responsive,
    trimmed,
)
from gateway.ports import (
    DeviceLink,
    EventDecided,
    Journal,
    JournalState,
    StopAll,
)
from gateway.services.custody import Custody
from gateway.services.observe import Histogram
from gateway.services.settings import ControlSettings
from gateway.services.writer import Writer

log = logging.getLogger(__name__)

EPOCH_BITS = 32
MEASURED_AGE_S = 30.0
HOLD_TELEMETRY_FROM = 500
RELEASE_SLACK_S = 15.0
REACH_MIN = 0.5
TICK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(slots=True)
class _Run:
    """What a running event carries from tick to tick; powers in W."""

    commanded_w: float
    trim: Trim = field(default_factory=Trim)
    target_w: float = math.nan
    delivered_w: float = math.nan
    unserved_w: float = 0.0
    devices: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReport:
    """An event and what became of it so far; `members` are the slots it addresses now."""

    entry: BookEntry
    commanded_w: float | None
    delivered_w: float | None
    unserved_w: float | None
    members: Slots


@dataclass(slots=True)
class EventTotals:
    """Power of a program's running events, W."""

    target_w: float = 0.0
    commanded_w: float = 0.0
    delivered_w: float = 0.0
    unserved_w: float = 0.0


@dataclass(slots=True)
class ControlStats:
    """Counts of the loop."""

    ticks: int = 0
    late_ticks: int = 0
    deferred: int = 0
    outside: int = 0
    results: dict[CommandResult, int] = field(default_factory=lambda: dict.fromkeys(CommandResult, 0))


class Control:
    """The one submitter of events and the one writer of setpoints."""

    def __init__(
        self, settings: ControlSettings, *, fleet: Fleet, journal: Journal, link: DeviceLink, clock: Clock, epoch: int
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._journal = journal
        self._clock = clock
        self._writer = Writer(settings, fleet=fleet, journal=journal, link=link, clock=clock, epoch=epoch)
        self._book = Book(BookParams(ceiling_w=settings.ceiling_mw * 1e6))
        self._limits = LimitParams(reading_age_s_max=settings.reading_age_s_max, site_margin_w=settings.site_margin_w)
        self._custody = Custody(settings, fleet=fleet)
        self._runs: dict[int, _Run] = {}
        self._submitting = asyncio.Lock()
        self._releasing_all = False
        self._releasing_untimed = False
        self._last_tick_ms: int | None = None
        self.envelope: Envelope | None = None
        self.stats = ControlStats()
        self.writes = self._writer.stats
        self.custody = self._custody.stats
        self.tick_seconds = Histogram("gateway_tick_seconds", "Duration of a control tick.", TICK_BUCKETS_S)
        self.tick_lateness = Histogram("gateway_tick_lateness_seconds", "Lateness of a control tick.", TICK_BUCKETS_S)
        self.histograms = (self.tick_seconds, self.tick_lateness)

    # -- events ----------------------------------------------------------------------------------------------

    def restore(self, remembered: JournalState) -> None:
        """Take over events and release plans. Devices that were under control are so still, until their lease (at
        most the product's whole one) has run out; what they were told is read from what they do."""
        self._book.restore(
            ((decided.request, decided.answer) for decided in remembered.events), stopped=remembered.stopped
        )
        self._custody.adopt(remembered.controlled, self._clock.now())

    async def submit(self, request: EventRequest) -> Answer:
        """Decide, make durable, apply, answer. Raises StorageError; then nothing has changed."""
        async with self._submitting:
            answer = self._book.decide(request, self._clock.now())
            if answer.outcome.value == "accepted":
                await self._journal.commit([EventDecided(request=request, answer=answer)])
                self._book.apply(request, answer)
            log.info(
                "event decided",
                extra={"event": request.id, "revision": request.revision, "outcome": answer.outcome.value,
                       "reason": answer.reason, "source": request.source, "target_w": request.target_w,
                       "cancelled": request.cancelled},
            )  # fmt: skip
            return answer

    async def cancel(self, event_id: str) -> Answer | None:
        """Cancel by the next revision; None if there is no such event."""
        entry = self._book.entry(event_id, self._clock.now())
        if entry is None:
            return None
        request = replace(entry.request, revision=entry.request.revision + 1, cancelled=True, source="rest")
        return await self.submit(request)

    async def stop_all(self, *, active: bool, by: str) -> None:
        """Release everything, ramped, and refuse events until cleared. What was running is cancelled for good."""
        running = self._book.active(self._clock.now())
        if active:
            # Stopping does not wait for a disk; only what is told to be durable does.
            self._book.stop(active=True)
            log.warning("dispatch stopped", extra={"by": by})
        async with self._submitting:
            await self._journal.commit([StopAll(active=active, by=by)])
            self._book.stop(active=active)
        for event in running if active else ():
            await self.cancel(event.request.id)
        if not active:
            log.warning("dispatch allowed again", extra={"by": by})

    @property
    def stopped(self) -> bool:
        return self._book.stopped

    def report(self, event_id: str) -> EventReport | None:
        entry = self._book.entry(event_id, self._clock.now())
        return None if entry is None else self._reported(entry)

    def reports(self) -> Sequence[EventReport]:
        return [self._reported(entry) for entry in self._book.entries(self._clock.now())]

    def _reported(self, entry: BookEntry) -> EventReport:
        run = self._runs.get(entry.index)
        return EventReport(
            entry=entry,
            commanded_w=run.commanded_w if run else None,
            delivered_w=run.delivered_w if run and math.isfinite(run.delivered_w) else None,
            unserved_w=run.unserved_w if run else None,
            members=members(self._fleet, entry.request.group),
        )

    def take_acks(self, batch: AckBatch) -> None:
        """Devices' answers to commands; older ones than the newest command are counted only."""
        control = self._fleet.control
        newest = batch.cmd == control.cmd_sent[batch.slots]
        control.result[batch.slots[newest]] = batch.result[newest]
        # An id that was never given out says nothing, however large.
        applied = (batch.result == CommandResult.APPLIED) & (batch.cmd <= self._writer.newest_cmd)
        slots = batch.slots[applied]
        np.maximum.at(control.cmd_applied, slots, batch.cmd[applied])
        for result in CommandResult:
            self.stats.results[result] += int(np.count_nonzero(batch.result == result))

    # -- the loop --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tick until cancelled; a tick that comes late is not made up for."""
        await self._warm_up()
        tick_ms = round(self._settings.tick_s * 1000)
        due_ms = self._clock.mono_ms()
        while True:
            late_s = max(0, self._clock.mono_ms() - due_ms) / 1000
            self.tick_lateness.observe(late_s)
            self.stats.late_ticks += late_s > self._settings.tick_s
            began = self._clock.cpu_ns()
            await self.tick()
            self.tick_seconds.observe((self._clock.cpu_ns() - began) / 1e9)
            now_ms = self._clock.mono_ms()
            due_ms = max(due_ms + tick_ms, now_ms)
            await asyncio.sleep((due_ms - now_ms) / 1000)

    async def _warm_up(self) -> None:
        """After a restart in mid-event: wait a little for readings, so that the ramp starts from measured power."""
        deadline_ms = self._clock.mono_ms() + round(self._settings.warm_up_s * 1000)
        while self._clock.mono_ms() < deadline_ms and not self._custody.heard():
            await asyncio.sleep(0.1)

    async def tick(self) -> None:
        """One round of control; see the module's first lines."""
        now = self._clock.now()
        dt_s = self._settings.tick_s if self._last_tick_ms is None else (now.mono_ms - self._last_tick_ms) / 1000
        self._last_tick_ms = now.mono_ms
        self.stats.ticks += 1
        changes = self._custody.settle(now)
        snapshot = self._fleet.snapshot()
        allowed = self.envelope = envelope(snapshot, now, self._limits)
        events = self._active(now)
        groups = [members(self._fleet, event.request.group) for event in events]
        holder = claim(events, groups, snapshot.n)
        self._custody.return_left(holder, snapshot)
        wanted_w = np.zeros(snapshot.n, dtype=np.int64)
        taking = np.zeros(snapshot.n, dtype=np.bool_)
        follows = responsive(snapshot, now, ResponseParams())
        governor = Governor(w_per_s=self._settings.fleet_w_per_s / max(1, sum(event.actuates for event in events)))
        for event, group in zip(events, groups, strict=True):
            mask = holder == event.index if event.actuates else _mask(group, snapshot.n)
            mask &= snapshot.control.held != Held.LEFT
            given = self._power(event, mask, follows, snapshot, allowed, now, dt_s, governor)
            if event.actuates:
                taking |= mask
                deaf = mask & ~follows
                wanted_w[mask] = given.setpoint_w[mask]
                wanted_w[deaf] = _kept(snapshot, allowed)[deaf]
        low = self._custody.reserves_due(taking)
        taking &= ~low
        taking &= ~self._custody.unattended(snapshot, now)
        if self._releasing_untimed:
            taking &= snapshot.nameplate.timed
        release = self._custody.turns(snapshot, taking, now)
        todo = plan(
            snapshot, allowed, now, PlanParams(), wanted_w=wanted_w, members=taking, release=release, deaf=~follows
        )
        self.stats.deferred += todo.deferred
        self.stats.outside += todo.outside
        self._runs = {event.index: self._runs[event.index] for event in events}
        if low.any():
            await self._writer.raise_reserves(np.flatnonzero(low).astype(np.int32), now)
        await self._writer.carry_out(todo, holder, changes, now, names=self._names())

    def _names(self) -> dict[int, EventId]:
        return {entry.index: entry.request.id for entry in self._book.entries(self._clock.now())}

    def _active(self, now: Now) -> list[ActiveEvent]:
        for edge in self._book.advance(now):
            log.info(
                "event changed state",
                extra={"event": edge.entry.request.id, "from": edge.before.value, "to": edge.entry.state.value},
            )
        return [] if self._releasing_all else self._book.active(now)

    def _power(
        self,
        event: ActiveEvent,
        mask: Bools,
        follows: Bools,
        snapshot: Snapshot,
        allowed: Envelope,
        now: Now,
        dt_s: float,
        governor: Governor,
    ) -> Allocation:
        """Give an event's devices their power: what cannot be relied upon counts as measured, the rest is allocated."""
        request, live = event.request, snapshot.live
        each_w = expected_w(snapshot, now, age_s_max=MEASURED_AGE_S)
        on_grid = mask & (live.grid != Grid.ISLAND)
        faulty = (allowed.reasons_discharge & np.uint32(Reason.FAULT)) != 0
        reliable = mask & allowed.controllable & follows & ~faulty
        others_w = float(each_w[on_grid & ~reliable].sum())
        delivered_w = float(each_w[on_grid].sum())
        run = self._runs.get(event.index)
        if run is None:
            run = self._runs[event.index] = _Run(commanded_w=delivered_w)
        settings = self._settings

        def share(target_w: float | None) -> Allocation:
            return allocate(
                target_w, allowed, snapshot, reliable, horizon_s=settings.horizon_s,
                seconds_to_end=event.seconds_to_end(now), charge=request.charge_when_max,
            )  # fmt: skip

        if request.target_w is None:
            target_w = share(None).allocated_w + others_w
            run.trim = Trim()
        else:
            target_w = request.target_w
        desired_w = target_w + run.trim.offset_w
        stalled = self._writer.reach < REACH_MIN
        if stalled:
            # What was commanded did not arrive: the ramp goes on from what is, or its return would be a step.
            run.commanded_w = delivered_w
        ramped = abs(run.commanded_w - desired_w) < 1.0 and not stalled
        run.commanded_w = governor.step(desired_w, run.commanded_w, dt_s)
        given = share(run.commanded_w - others_w)
        if ramped and request.target_w is not None:
            run.trim = trimmed(
                run.trim, target_w=target_w, delivered_w=delivered_w, dt_s=dt_s,
                unserved_w=given.unserved_w, params=TrimParams(),
            )  # fmt: skip
        run.target_w, run.delivered_w = target_w, delivered_w
        run.unserved_w, run.devices = given.unserved_w, int(on_grid.sum())
        return given

    async def shut_down(self, *, release: bool) -> None:
        """Before the links go. With `release` every device is handed back, ramped, within a bound; without it leases
        run on and only devices that would not revert by themselves are released."""
        self._releasing_all = release
        control, plate, n = self._fleet.control, self._fleet.nameplate, self._fleet.n
        if not release:
            if not (~plate.timed[:n] & (control.held[:n] == Held.CONTROLLED)).any():
                return
            self._releasing_untimed = True
        bound_s = self._custody.spread_s(np.arange(n)) + RELEASE_SLACK_S
        deadline_ms = self._clock.mono_ms() + round(bound_s * 1000)
        while self._clock.mono_ms() < deadline_ms:
            waiting = np.isin(control.held[:n], (int(Held.CONTROLLED), int(Held.RELEASING)))
            if not (waiting if release else waiting & ~plate.timed[:n]).any():
                return
            await asyncio.sleep(0.2)
        log.warning("not every device confirmed its release", extra={"count": int(waiting.sum())})

    # -- watching --------------------------------------------------------------------------------------------

    def reasons_of(self, slot: int) -> int:
        """Why a device may not discharge more, as `Reason` bits of the newest tick."""
        allowed = self.envelope
        return int(allowed.reasons_discharge[slot]) if allowed and slot < len(allowed.reasons_discharge) else 0

    def reasons(self) -> list[str]:
        """Why control is not in order."""
        out = [f"journal: {self._writer.failing}"] if self._writer.failing else []
        last = self._last_tick_ms
        if last is None or self._clock.mono_ms() - last > 5_000 * self._settings.tick_s:
            out.append("control: no tick lately")
        if self._book.stopped:
            out.append("dispatch is stopped by an operator")
        return out

    def unguaranteed(self) -> int:
        """Devices whose reserve is ours to hold only while a lease runs: their own is lower than the owner's."""
        return int(self._custody.unguaranteed(self._fleet.n).sum())

    def totals(self) -> dict[str, EventTotals]:
        """Sums over the running events, by program."""
        sums: dict[str, EventTotals] = {}
        for entry in self._book.entries(self._clock.now()):
            run = self._runs.get(entry.index)
            if run is not None and entry.state is EventState.ACTIVE:
                total = sums.setdefault(entry.request.program, EventTotals())
                total.target_w += run.target_w
                total.commanded_w += run.commanded_w
                total.delivered_w += run.delivered_w
                total.unserved_w += run.unserved_w
        return sums


def _mask(slots: Slots, n: int) -> Bools:
    mask = np.zeros(n, dtype=np.bool_)
    mask[slots] = True
    return mask


def _kept(snapshot: Snapshot, allowed: Envelope) -> Ints:
    """The setpoints in force, cut to what is allowed now: what a device that does not follow goes on being told."""
    low_w = -np.floor(allowed.charge_w).astype(np.int64)
    high_w = np.floor(allowed.discharge_w).astype(np.int64)
    kept: Ints = np.minimum(np.maximum(snapshot.control.setpoint_w, low_w), high_w)
    return kept
