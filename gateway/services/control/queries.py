"""What others ask of control: REST, reports, metrics and readiness read the newest tick here, and change nothing."""

from collections.abc import Iterator

import numpy as np

from gateway.clock import Clock
from gateway.domain.control.authority import unguaranteed
from gateway.domain.control.availability import Availability, availability
from gateway.domain.control.progress import Progress
from gateway.domain.events.attribution import Credit
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import EventDelivered
from gateway.domain.journal.stored import StoredRecords
from gateway.domain.limits.types import Envelope
from gateway.domain.types import EventId, Slots
from gateway.observability.parts import Part
from gateway.services.control.loop import ControlLoop
from gateway.services.control.totals import EventTotals, totals
from gateway.services.events.intake import Dispatcher

LATE_TICKS = 5
"""Without a tick for the time of so many control is not ready."""


class ControlQueries(Part):
    """Answers as of the newest tick. The parts that answer for themselves are attributes."""

    component = "control"

    def __init__(
        self, control: ControlLoop, *, fleet: Fleet, dispatcher: Dispatcher, clock: Clock, tick_s: float
    ) -> None:
        self._control = control
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._clock = clock
        self._tick_s = tick_s
        self.records, self.maintenance, self.quarantine = control.records, control.maintenance, control.quarantine
        self.reach, self.stranded, self.unmeasured = control.reach, control.stranded, control.unmeasured
        self.pending, self.command_ids, self.restarted = control.pending, control.command_ids, control.restarted
        self.stats, self.writes, self.authority_stats = control.stats, control.writes, control.authority_stats

    @property
    def envelope(self) -> Envelope | None:
        """What every device may do; None before the first tick."""
        return self._control.newest.envelope

    def reasons_of(self, slot: int) -> int:
        """Why a device may not discharge more, as `Reason` bits of the newest tick."""
        allowed = self.envelope
        return int(allowed.reasons_discharge[slot]) if allowed and slot < len(allowed.reasons_discharge) else 0

    def on_its_way(self, event: EventId, occurrence_ms: int | None, rows: slice) -> StoredRecords | None:
        """Delivery records of an occurrence that is over (None = the newest) and that the journal does not have yet."""
        owed = [
            one
            for one in self.pending.owed(EventDelivered)
            if one.event == event and occurrence_ms in (None, one.occurrence_ms)
        ]
        if not owed:
            return None
        newest = max(owed, key=lambda one: one.occurrence_ms)
        columns = {name: values[rows] for name, values in newest.columns.items()}
        return StoredRecords(total=len(newest.devices), devices=tuple(newest.devices)[rows], columns=columns)

    def reasons(self) -> list[str]:
        """Why control is not in order."""
        out = [f"journal: {self.pending.failing}"] if self.pending.failing else []
        last = self._control.last_tick_ms
        if last is None or self._clock.mono_ms() - last > 1_000 * LATE_TICKS * self._tick_s:
            out.append("control: no tick lately")
        if self._dispatcher.stopped:
            out.append("dispatch is stopped by an operator")
        return (
            out
            + self.command_ids.reasons()
            + self.quarantine.reasons()
            + self.stranded.reasons()
            + self.unmeasured.reasons()
        )

    def warnings(self) -> list[str]:
        """What control leaves alone, does not hear or measures seldom."""
        return self.quarantine.warnings() + self.unmeasured.warnings()

    def idle(self) -> bool:
        """Whether no program's event runs and no device is under control."""
        authority = self._fleet.control.authority[: self._fleet.n]
        return (
            not any(index >= 0 for index in self._control.newest.progress)
            and not np.isin(authority, (int(Authority.CONTROLLED), int(Authority.RELEASING))).any()
        )

    def progress(self, entry: BookEntry) -> Progress | None:
        """How an event is doing; None while it does not run."""
        return self._control.newest.progress.get(entry.index) if entry.index >= 0 else None

    def credit(self, entry: BookEntry) -> Credit | None:
        """What an event is credited with now, and what others are of the power that serves it."""
        return self._control.newest.credits.get(entry.index)

    def unguaranteed(self) -> int:
        """Devices whose own reserve is below their owner's: only a lease of the gateway keeps the owner's."""
        return int(np.count_nonzero(unguaranteed(self._fleet.snapshot())))

    def availability(self) -> Iterator[Availability]:
        """What each group can sustain from now on, as of the tick before the first is asked for."""
        allowed = self.envelope
        if allowed is None:
            return
        able = allowed.controllable & ~self.reach.unreachable(len(allowed.controllable))
        yield from availability(self._groups(len(allowed.discharge_w)), allowed, self._fleet.nameplate, able)

    def _groups(self, n: int) -> Iterator[tuple[str, Slots]]:
        """The groups of the first `n` devices, each found when its turn comes."""
        yield "all", np.arange(n, dtype=np.int32)
        for tag in sorted(self._fleet.tags):
            members = self._fleet.tags[tag]
            slots = np.sort(np.fromiter(members, np.int32, len(members)))
            yield f"tag:{tag}", slots[slots < n]

    def totals(self) -> dict[str, EventTotals]:
        """Sums over the running events, by program."""
        return totals(self._dispatcher.entries(), self.progress, self.credit)
