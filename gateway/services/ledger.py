"""Keeps the delivery records of running events, tells what changes in them, and packs them when an event is over."""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.domain.claims import Claims
from gateway.domain.deliveries import Failure, Records, Rows, Sight, Status
from gateway.domain.dispatch import RUNS, ActiveEvent, BookEntry, EventState
from gateway.domain.envelope import reason_names
from gateway.domain.events import Way
from gateway.domain.fleet import Fleet
from gateway.domain.model import CommandResult, EventId, Ints, Now, Slots
from gateway.ports import EventDelivered

PART_ROWS = 16_384
"""Rows of one event that are brought up to date in a tick; the rest follows in the next ones."""

SIGN = {Way.OUT: 1, Way.INTO: -1, Way.NEITHER: 0}
Row = dict[str, Any]


@dataclass(slots=True)
class _Kept:
    """The records of an event's current occurrence."""

    event: EventId
    revision: int
    occurrence_ms: int
    records: Records
    next_part: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Delivery records that have changed, as bodies."""

    event: EventId
    revision: int
    rows: Sequence[Row]


class Ledger:
    """The records of all events that run. `on_report` is told what has changed in a tick."""

    def __init__(self, fleet: Fleet, on_report: Callable[[StatusReport], None]) -> None:
        self._fleet = fleet
        self._on_report = on_report
        self._kept: dict[int, _Kept] = {}

    def look(
        self,
        events: Iterable[ActiveEvent],
        claims: Claims,
        groups: Mapping[int, Slots],
        left: Mapping[int, Slots],
        sight: Sight,
        now: Now,
    ) -> None:
        """Bring records up to date. `groups`: the slots each event addresses, `left` those whose owners opted out."""
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
            moved = kept.records.look(
                sight, claims.shares[event.index], opted_out, now, sign=SIGN[event.target.way], part=part
            )
            self._tell(kept, moved)

    def _of(self, event: ActiveEvent, now: Now) -> _Kept:
        kept = self._kept.get(event.index)
        if kept is None:
            kept = self._kept[event.index] = _Kept(
                event=event.request.id,
                revision=event.request.revision,
                occurrence_ms=event.request.occurrence_ms(now.utc_ms) or event.request.start_ms,
                records=Records(),
            )
        kept.revision = event.request.revision
        return kept

    def written(self, slots: Slots, setpoint_w: Ints, cmd: Ints, now: Now) -> None:
        """Setpoints that were sent."""
        for kept in self._kept.values():
            kept.records.written(slots, setpoint_w, cmd, now)

    def over(self, entries: Mapping[int, BookEntry], now: Now) -> list[EventDelivered]:
        """Close the records of events (or occurrences) that do not run any more; what the journal should keep of them.
        `entries` by index."""
        out: list[EventDelivered] = []
        for index, kept in list(self._kept.items()):
            entry = entries.get(index)
            if entry is not None and entry.state in RUNS:
                continue
            cancelled = entry is not None and entry.state is EventState.CANCELLED
            self._tell(kept, kept.records.end(Status.CANCELLED if cancelled else Status.COMPLETED, now))
            out.append(self._packed(kept, now))
            del self._kept[index]
        return out

    def _packed(self, kept: _Kept, now: Now) -> EventDelivered:
        body = zlib.compress(orjson.dumps(self._bodies(kept, np.arange(kept.records.n))))
        return EventDelivered(event=kept.event, occurrence_ms=kept.occurrence_ms, ended_ms=now.utc_ms, body=body)

    def _tell(self, kept: _Kept, at: Ints) -> None:
        if len(at):
            rows = self._bodies(kept, at)
            self._on_report(StatusReport(event=kept.event, revision=kept.revision, rows=rows))

    def rows(self, entry: BookEntry, members: Slots) -> list[Row]:
        """Records of an event that runs, or those its `members` will have once it does."""
        kept = self._kept.get(entry.index)
        if kept is None:
            if entry.state is not EventState.SCHEDULED:
                return []
            kept = _Kept(event=entry.request.id, revision=0, occurrence_ms=0, records=Records())
            kept.records.include(members, self._fleet.n)
        return self._bodies(kept, np.arange(kept.records.n))

    def _bodies(self, kept: _Kept, at: NDArray[np.integer]) -> list[Row]:
        """Rows as bodies: unknown is null."""
        ids, rows = self._fleet.ids, kept.records.rows
        columns: dict[str, list[Any]] = {name: _listed(rows.column(name)[at]) for name in Rows.SPEC}
        return [
            _body(kept, ids[columns["slot"][i]], {name: column[i] for name, column in columns.items()})
            for i in range(len(at))
        ]

    # -- over restarts ---------------------------------------------------------------------------------------

    def columns(self) -> dict[str, NDArray[Any]]:
        """Everything as columns for a checkpoint."""
        out: dict[str, NDArray[Any]] = {}
        for kept in self._kept.values():
            for name in Rows.SPEC:
                out[f"{kept.event}/{kept.occurrence_ms}/{name}"] = kept.records.rows.column(name)[: kept.records.n]
        return out

    def restore(
        self, columns: Mapping[str, NDArray[Any]], entries: Iterable[BookEntry], slot_of: Mapping[int, int]
    ) -> None:
        """Take over what a checkpoint holds. `slot_of`: the slot of each device by what it was then."""
        by_event = {entry.request.id: entry for entry in entries}
        for event, occurrence in sorted({tuple(name.split("/")[:2]) for name in columns}):
            entry = by_event.get(EventId(event))
            if entry is None:
                continue
            held = {name: columns.get(f"{event}/{occurrence}/{name}") for name in Rows.SPEC}
            slots = held["slot"]
            if slots is None:
                continue
            known = np.array([int(slot) in slot_of for slot in slots], dtype=np.bool_)
            records = Records()
            now_at = np.array([slot_of[int(slot)] for slot in slots[known]], dtype=np.int32)
            records.include(now_at, self._fleet.n)
            for name, values in held.items():
                if name != "slot" and values is not None:
                    records.rows.column(name)[: records.n] = values[known]
            self._kept[entry.index] = _Kept(
                event=entry.request.id, revision=entry.request.revision, occurrence_ms=int(occurrence), records=records
            )


def unpacked(delivered: EventDelivered) -> list[Row]:
    """The rows of records that were put away."""
    rows: list[Row] = orjson.loads(zlib.decompress(delivered.body))
    return rows


def _listed(values: NDArray[np.generic]) -> list[Any]:
    if values.dtype.kind == "f":
        return [None if math.isnan(value) else round(value, 2) for value in values.tolist()]
    return list(values.tolist())


def _body(kept: _Kept, device: str, row: Row) -> Row:
    when = {name: row[f"{name}_ms"] or None for name in ("status", "sent", "acknowledged", "started", "ended")}
    return {
        "id": f"{kept.event}/{device}",
        "device": device,
        "status": Status(row["status"]).name.lower(),
        "failure": Failure(row["failure"]).name.lower() if row["failure"] else None,
        "asked_w": row["asked_w"],
        "allowed_w": row["allowed_w"],
        "limits": reason_names(row["limits"]),
        "written_w": row["written_w"],
        "commands": row["commands"],
        "cmd": row["cmd"] or None,
        "result": CommandResult(row["result"]).name.lower(),
        "measured_w": row["measured_w"],
        "asked_wh": row["asked_wh"],
        "delivered_wh": row["delivered_wh"],
        "shortfall_wh": row["shortfall_wh"],
        "times_ms": when,
    }
