"""Keeps the delivery records of running events, reports their changes, and closes them when the events are over.

Rows stay columns: bodies are made when a reader asks, a few hundred at a time, never within a tick.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.domain.commands import CommandResult, Unreached
from gateway.domain.events.arbitration import Claims
from gateway.domain.events.delivery_records import Failure, RecordRows, Records, Sight, Status
from gateway.domain.events.lifecycle import RUNS, ActiveEvent, BookEntry, EventState
from gateway.domain.events.request import Way
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import EventDelivered
from gateway.domain.limits.types import reason_names
from gateway.domain.table import run
from gateway.domain.types import Bools, EventId, Ints, Now, Slots
from gateway.ports.journal import EventStore
from gateway.services.events.untold import Untold, UntoldRecords

PART_ROWS = 16_384
"""Rows of one event that are updated in a tick; the rest follows in the next ones."""

OVER_ROWS_MAX = 100_000
"""Rows of ended events that wait in memory until they are published. Those of older events are read from the journal
when their turn comes."""

BEFORE_MS = 10_000
"""How much earlier than its checkpoint an occurrence may have begun that the checkpoint does not know."""

KNOWN_MAX = 100_000
"""Occurrences known to have their records in the journal."""

UNTOLD_REVISION, UNTOLD_SOURCE = "untold_revision", "untold_source"
SHOWN = tuple(name for name in RecordRows.SPEC if name != "slot")
SIGN = {Way.OUT: 1, Way.INTO: -1, Way.NEITHER: 0}
Row = dict[str, Any]


@dataclass(slots=True)
class _Kept:
    """The records of an event's occurrence (of 24 h of one without an end), and which rows have changed since they were
    published. `occurrence_ms` names it: its start, or when it began again; `start_ms` and `until_ms`: when it should
    begin and end; `shares`: the devices it shares."""

    event: EventId
    source: str
    revision: int
    occurrence_ms: int
    start_ms: int
    until_ms: int
    shares: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    records: Records = field(default_factory=Records)
    next_part: int = 0
    changed: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))

    def mark(self, at: Ints) -> None:
        if len(self.changed) < self.records.n:
            more = np.zeros(self.records.n - len(self.changed), dtype=np.bool_)
            self.changed = np.concatenate((self.changed, more))
        self.changed[at] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Changed delivery records of one event, as bodies; `at` are their rows."""

    event: EventId
    source: str
    revision: int
    occurrence_ms: int
    at: Ints
    rows: Sequence[Row]


class DeliveryRecords:
    """The records of all running events. `publishing`: a reader asks for what has changed."""

    def __init__(self, fleet: Fleet, *, publishing: bool) -> None:
        self._fleet = fleet
        self._publishing = publishing
        self._kept: dict[int, _Kept] = {}
        self._over: list[_Kept] = []
        self._ended: list[EventDelivered] = []
        self._known: dict[tuple[EventId, int], None] = {}
        self._untold = UntoldRecords()
        self._reading: _Kept | None = None

    # -- within a tick ---------------------------------------------------------------------------------------

    def observe(
        self,
        events: Iterable[ActiveEvent],
        claims: Claims,
        groups: Mapping[int, Slots],
        left: Mapping[int, Slots],
        sight: Sight,
        now: Now,
    ) -> None:
        """Update records. `groups`: the slots each event addresses; `left`: those whose owners opted out."""
        for event in events:
            if not event.actuates or event.preparing:
                continue
            kept = self._of(event, now)
            kept.records.include(groups[event.index], sight.snapshot.n)
            opted_out = np.zeros(sight.snapshot.n, dtype=np.bool_)
            out = left.get(event.index)
            if out is not None:
                opted_out[out] = True
            part = slice(kept.next_part, kept.next_part + PART_ROWS)
            kept.next_part = part.stop if part.stop < kept.records.n else 0
            kept.shares = claims.shares[event.index]
            kept.mark(kept.records.observe(sight, kept.shares, opted_out, now, sign=SIGN[event.target.way], part=part))

    def _of(self, event: ActiveEvent, now: Now) -> _Kept:
        """The records of the running occurrence. An earlier one that ended between two ticks is closed."""
        request = event.request
        start_ms, until_ms = request.recorded_ms(now.utc_ms) or (request.start_ms, request.end_ms)
        kept = self._kept.get(event.index)
        parts = request.repeats or request.endless
        if kept is not None and parts and now.utc_ms >= request.start_ms and start_ms != kept.start_ms:
            self._close(event.index, Status.COMPLETED, now)
            kept = None
        if kept is None:
            anew = (request.id, start_ms) in self._known
            kept = self._kept[event.index] = _Kept(
                event=request.id, source=request.source, revision=request.revision,
                occurrence_ms=now.utc_ms if anew else start_ms, start_ms=start_ms, until_ms=until_ms,
            )  # fmt: skip
        kept.revision, kept.until_ms = request.revision, until_ms
        return kept

    def written(self, slots: Slots, setpoint_w: Ints, cmd: Ints, now: Now) -> None:
        """Record setpoints that were sent: each belongs to the events that share its device."""
        at, last = run(slots), int(slots.max(initial=-1))
        for kept in self._kept.values():
            if last >= len(kept.shares):
                kept.shares = np.append(kept.shares, np.zeros(last + 1 - len(kept.shares), dtype=np.bool_))
            mine = kept.shares[at]
            if mine.all():
                kept.records.written(slots, setpoint_w, cmd, now)
            else:
                kept.records.written(slots[mine], setpoint_w[mine], cmd[mine], now)

    def over(self, entries: Mapping[int, BookEntry], now: Now) -> list[EventDelivered]:
        """Close the records of events (or occurrences) that no longer run; returns what the journal should keep of
        them. `entries` by index."""
        for index in list(self._kept):
            entry = entries.get(index)
            if entry is None or entry.state not in RUNS:
                cancelled = entry is not None and entry.state is EventState.CANCELLED
                self._close(index, Status.CANCELLED if cancelled else Status.COMPLETED, now)
        self._drop()
        ended, self._ended = self._ended, []
        return ended

    def _drop(self) -> None:
        """Leave the oldest ended events to the journal whose rows are too many to keep until somebody takes them. What
        the reader has may still be given back."""
        self._over = [kept for kept in self._over if kept.changed.any() or kept is self._reading]
        rows = sum(kept.records.n for kept in self._over)
        while rows > OVER_ROWS_MAX:
            oldest = self._over.pop(0)
            rows -= oldest.records.n
            self._untold.add(
                Untold(oldest.event, oldest.source, oldest.revision, oldest.occurrence_ms, rows=oldest.records.n)
            )

    def _close(self, index: int, status: Status, now: Now) -> None:
        """End an occurrence: now, or at its planned end if that is earlier."""
        kept = self._kept.pop(index)
        at = now
        if status is Status.COMPLETED and kept.until_ms < now.utc_ms:
            at = Now(utc_ms=max(kept.until_ms, kept.start_ms), mono_ms=now.mono_ms)
        kept.mark(kept.records.end(status, at))
        self._ended.append(self._delivered(kept, at))
        self.know([(kept.event, kept.occurrence_ms)])
        if self._publishing:
            self._over.append(kept)

    def _delivered(self, kept: _Kept, now: Now) -> EventDelivered:
        rows, n = kept.records.rows, kept.records.n
        return EventDelivered(
            event=kept.event,
            occurrence_ms=kept.occurrence_ms,
            ended_ms=now.utc_ms,
            devices=self._fleet.names(rows.slot[:n]),
            columns={name: rows.column(name)[:n] for name in SHOWN},
        )

    # -- publishing ------------------------------------------------------------------------------------------

    def changed(self, most: int) -> StatusReport | None:
        """At most `most` rows changed since they were published; they count as published until they are given back."""
        for kept in (*self._over, *self._kept.values()):
            at = np.flatnonzero(kept.changed)[:most]
            if len(at):
                self._reading = kept
                kept.changed[at] = False
                devices = self._fleet.names(kept.records.rows.slot[at])
                rows = bodies(kept.event, devices, {n: kept.records.rows.column(n)[at] for n in RecordRows.SPEC})
                return StatusReport(
                    event=kept.event, source=kept.source, revision=kept.revision, occurrence_ms=kept.occurrence_ms,
                    at=at, rows=rows,
                )  # fmt: skip
        self._reading = None
        self._over.clear()
        return None

    async def stored(self, store: EventStore, most: int) -> StatusReport | None:
        """The same, of what is over and only in the journal. Raises StorageError."""
        found = await self._untold.page(store, most)
        if found is None:
            return None
        one, part, stored = found
        return StatusReport(
            event=one.event, source=one.source, revision=one.revision, occurrence_ms=one.occurrence_ms,
            at=np.arange(part.start, part.start + len(stored.devices)),
            rows=bodies(one.event, stored.devices, stored.columns),
        )  # fmt: skip

    def give_back(self, report: StatusReport) -> None:
        """Publish these rows again, as they are by then: the peer did not accept them."""
        self._untold.give_back(report.event, report.occurrence_ms, int(report.at[0]))
        for kept in (*self._over, *self._kept.values()):
            if (kept.event, kept.occurrence_ms) == (report.event, report.occurrence_ms):
                kept.mark(report.at)

    @property
    def waiting(self) -> int:
        """Rows that wait to be published."""
        return sum(int(kept.changed.sum()) for kept in (*self._over, *self._kept.values())) + self._untold.rows

    @property
    def dropped(self) -> int:
        """Rows that were never published and are given up."""
        return self._untold.lost

    def page(self, entry: BookEntry, members: Slots, part: slice) -> tuple[int, list[Row]]:
        """The number of records of a running event (of a scheduled one: of its `members`), and those in `part`."""
        kept = self._kept.get(entry.index)
        if kept is None:
            if entry.state is not EventState.SCHEDULED:
                return 0, []
            kept = _Kept(event=entry.request.id, source="", revision=0, occurrence_ms=0, start_ms=0, until_ms=0)
            kept.records.include(members, self._fleet.n)
        rows, n = kept.records.rows, kept.records.n
        columns = {name: rows.column(name)[:n][part] for name in RecordRows.SPEC}
        return n, bodies(kept.event, self._fleet.names(rows.slot[:n][part]), columns)

    # -- over restarts ---------------------------------------------------------------------------------------

    def know(self, occurrences: Iterable[tuple[EventId, int]]) -> None:
        """Note that the journal has the records of these."""
        self._known.update(dict.fromkeys(occurrences))
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def columns(self) -> dict[str, NDArray[Any]]:
        """All records of what runs as columns for a checkpoint, and which occurrences are over and not published."""
        running = {
            f"{kept.event}/{kept.occurrence_ms}/{name}": kept.records.rows.column(name)[: kept.records.n]
            for kept in self._kept.values()
            for name in RecordRows.SPEC
        }
        over: dict[str, NDArray[Any]] = {}
        for one in (*self._untold, *(kept for kept in self._over if kept.changed.any() or kept is self._reading)):
            over[f"{one.event}/{one.occurrence_ms}/{UNTOLD_REVISION}"] = np.array([one.revision])
            over[f"{one.event}/{one.occurrence_ms}/{UNTOLD_SOURCE}"] = np.frombuffer(one.source.encode(), np.uint8)
        return running | over

    def load(
        self,
        columns: Mapping[str, NDArray[Any]],
        entries: Iterable[BookEntry],
        slot_of: Mapping[int, int],
        at_ms: int,
    ) -> None:
        """Load the records of a checkpoint that the journal does not have. `slot_of`: the slot of each device by its
        slot then; `at_ms`: when it was made. What ended later and is in the journal may not be published yet."""
        entries = list(entries)
        by_event = {entry.request.id: entry for entry in entries if entry.index >= 0}
        if self._publishing:
            self._load_untold(columns, {entry.request.id: entry for entry in entries}, at_ms)
        for event, occurrence in sorted({(name.split("/")[0], name.split("/")[1]) for name in columns}):
            name, occurrence_ms = EventId(event), int(occurrence)
            entry = by_event.get(name)
            stored = {column: columns.get(f"{event}/{occurrence}/{column}") for column in RecordRows.SPEC}
            slots = stored.pop("slot")
            if entry is None or slots is None or (name, occurrence_ms) in self._known:
                continue
            request = entry.request
            start_ms, until_ms = request.recorded_ms(occurrence_ms) or (occurrence_ms, request.end_ms)
            kept = _Kept(
                event=name, source=request.source, revision=request.revision, occurrence_ms=occurrence_ms,
                start_ms=start_ms, until_ms=until_ms,
            )  # fmt: skip
            there = np.array([int(slot) in slot_of for slot in slots], dtype=np.bool_)
            at = np.array([slot_of[int(slot)] for slot in slots[there]], dtype=np.int32)
            kept.records.include(at, self._fleet.n)
            for column, values in stored.items():
                if values is not None:
                    kept.records.rows.column(column)[: len(at)] = values[there]
            self._kept[entry.index] = kept

    def _load_untold(
        self, columns: Mapping[str, NDArray[Any]], entries: Mapping[EventId, BookEntry], at_ms: int
    ) -> None:
        for name, revision in columns.items():
            event, occurrence, column = name.rsplit("/", 2)
            if column == UNTOLD_REVISION:
                source = bytes(columns[f"{event}/{occurrence}/{UNTOLD_SOURCE}"]).decode()
                self._untold.add(Untold(EventId(event), source, int(revision[0]), int(occurrence)))
        for event, occurrence_ms in self._known:
            entry = entries.get(event)
            ran = f"{event}/{occurrence_ms}/slot" in columns
            if entry is not None and (ran or occurrence_ms >= at_ms - BEFORE_MS):
                self._untold.add(Untold(event, entry.request.source, entry.request.revision, occurrence_ms))


def bodies(event: str, devices: Sequence[str], columns: Mapping[str, NDArray[Any]]) -> list[Row]:
    """Rows as bodies. Null is unknown, also where the record of an older gateway lacks the column."""
    lists = {name: _listed(columns[name]) if name in columns else [None] * len(devices) for name in SHOWN}
    return [
        _body(event, device, {name: values[i] for name, values in lists.items()}) for i, device in enumerate(devices)
    ]


def _failure(row: Row) -> str | None:
    """Why the device did not deliver. Stored rows call it no response, as 0.1 did, where it could not be told."""
    if not row["failure"]:
        return None
    return "unreachable" if row["unreached"] else Failure(row["failure"]).name.lower()


def _listed(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind == "f":
        return [None if math.isnan(value) else round(value, 2) for value in values.tolist()]
    return list(values.tolist())


def _body(event: str, device: str, row: Row) -> Row:
    when = {name: row[f"{name}_ms"] or None for name in ("status", "sent", "acknowledged", "started", "ended")}
    return {
        "id": f"{event}/{device}",
        "device": device,
        "status": Status(row["status"]).name.lower(),
        "failure": _failure(row),
        "unreachable": Unreached(row["unreached"]).name.lower() if row["unreached"] else None,
        "asked_w": row["asked_w"],
        "allowed_w": row["allowed_w"],
        "limits": reason_names(row["limits"]),
        "written_w": row["written_w"],
        "commands": row["commands"],
        "cmd": row["cmd"] or None,
        "result": CommandResult(row["result"]).name.lower(),
        "measured_w": row["measured_w"],
        "assumed_w": row["assumed_w"],
        "asked_wh": row["asked_wh"],
        "delivered_wh": row["delivered_wh"],
        "shortfall_wh": row["shortfall_wh"],
        "unmeasured_wh": row["unmeasured_wh"],
        "shared_with": row["shared_with"],
        "shared_wh": row["shared_wh"],
        "times_ms": when,
    }
