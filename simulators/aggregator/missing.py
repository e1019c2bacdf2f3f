"""Missing intervals: what the service wants of each meter and has not accepted.

Wanted is every quarter hour from midnight UTC of the meter's first day to the server's clock. Neighbours that are
missing make one entry, cut at multiples of a piece (a day). Quarter hours of a file whose job has not ended are
PROCESSING (the request calls them PENDING), the others OPEN.

Not public [?]: from when on a quarter hour is missed, how entries are cut, by which rule an entry lies in a window
(switch), the deadline (here the end of the piece plus a fixed time, after which the entry stays), the order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

from simulators.aggregator.csv_rules import QUARTER_MS
from simulators.aggregator.intervals import Intervals, Schema
from simulators.aggregator.switches import SearchNames, WindowRule
from simulators.aggregator.times import time_ms, time_text

STATE_OF_STATUS = {"OPEN": "OPEN", "PROCESSING": "PENDING"}
WINDOW_NAMES = {
    SearchNames.SCHEMA: (
        "missing_interval_window_start_date_time_utc",
        "missing_interval_window_end_date_time_utc",
    ),
    SearchNames.EXAMPLE: ("start_date_time_utc", "end_date_time_utc"),
}
DEADLINE_NAMES = (
    "submission_deadline_window_start_date_time_utc",
    "submission_deadline_window_end_date_time_utc",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingInterval:
    """Quarter hours in a row that are missing: start included, end and deadline excluded, epoch ms."""

    meter: str
    schema: Schema
    start_ms: int
    end_ms: int
    deadline_ms: int
    status: str

    def body(self, *, sparse: bool) -> dict[str, Any]:
        """As the service sends it."""
        body: dict[str, Any] = {
            "meter_id": self.meter,
            "start_date_time_utc": time_text(self.start_ms),
            "end_date_time_utc": time_text(self.end_ms),
        }
        if not sparse:
            body |= {
                "data_type": self.schema.data_type,
                "submission_deadline_date_time_utc": time_text(self.deadline_ms),
                "status": self.status,
            }
        return body


def missing_intervals(intervals: Intervals, schemas: tuple[Schema, ...]) -> Iterator[MissingInterval]:
    """What is missing now, by meter, schema and start."""
    points = intervals.points
    piece_ms = points.missing_piece_s * 1000
    until_ms = intervals.clock.utc_ms() - round(points.missing_after_s * 1000)
    until_ms -= until_ms % QUARTER_MS
    claimed = {schema: intervals.claimed(schema) for schema in schemas}
    for meter, first in sorted(intervals.meters.items()):
        first_ms = round(datetime.combine(first, time(), tzinfo=UTC).timestamp() * 1000)
        for schema in sorted(schemas):
            pending = claimed[schema].get(meter, set())
            accepted = intervals.starts(schema, meter)
            wanted = (start for start in range(first_ms, until_ms, QUARTER_MS) if start not in accepted)
            for start_ms, end_ms, status in _runs(wanted, pending, piece_ms):
                deadline_ms = (start_ms // piece_ms + 1) * piece_ms + points.deadline_s * 1000
                yield MissingInterval(
                    meter=meter, schema=schema, start_ms=start_ms, end_ms=end_ms, deadline_ms=deadline_ms, status=status
                )


def _runs(wanted: Iterator[int], pending: set[int], piece_ms: int) -> Iterator[tuple[int, int, str]]:
    """Neighbours of one status within one piece: start, end, status."""
    run: tuple[int, int, str] | None = None
    for start_ms in wanted:
        status = "PROCESSING" if start_ms in pending else "OPEN"
        if run is not None and run[1:] == (start_ms, status) and start_ms % piece_ms:
            run = (run[0], start_ms + QUARTER_MS, status)
            continue
        if run is not None:
            yield run
        run = (start_ms, start_ms + QUARTER_MS, status)
    if run is not None:
        yield run


class Filter:
    """What a request asks for; fields that the service does not know filter nothing."""

    def __init__(self, request: dict[str, Any], intervals: Intervals) -> None:
        points = intervals.points
        start, end = WINDOW_NAMES[points.search_names]
        ids = request.get("meter_ids")
        self._meters = (
            None if ids is None or (not ids and points.empty_meter_ids_are_all) else {id_.lower() for id_ in ids}
        )
        self._state = request.get("state")
        self._window = (_bound(request.get(start)), _bound(request.get(end)))
        self._deadline = (_bound(request.get(DEADLINE_NAMES[0])), _bound(request.get(DEADLINE_NAMES[1])))
        self._rule = points.window

    def take(self, entry: MissingInterval, *, any_window: bool) -> MissingInterval | None:
        """The entry as it is sent, None for one that was not asked for."""
        if self._meters is not None and entry.meter not in self._meters:
            return None
        if self._state is not None and STATE_OF_STATUS[entry.status] != self._state:
            return None
        if not _inside(entry.deadline_ms, self._deadline):
            return None
        return entry if any_window else self._in_window(entry)

    def _in_window(self, entry: MissingInterval) -> MissingInterval | None:
        if self._rule is WindowRule.START:
            return entry if _inside(entry.start_ms, self._window) else None
        start_ms, end_ms = self._window
        start_ms = entry.start_ms if start_ms is None else max(start_ms, entry.start_ms)
        end_ms = entry.end_ms if end_ms is None else min(end_ms, entry.end_ms)
        if start_ms >= end_ms:
            return None
        if self._rule is WindowRule.OVERLAP:
            return entry
        return MissingInterval(
            meter=entry.meter,
            schema=entry.schema,
            start_ms=start_ms,
            end_ms=end_ms,
            deadline_ms=entry.deadline_ms,
            status=entry.status,
        )


def _bound(value: object) -> int | None:
    return time_ms(value) if isinstance(value, str) else None


def _inside(at_ms: int, window: tuple[int | None, int | None]) -> bool:
    start_ms, end_ms = window
    return (start_ms is None or at_ms >= start_ms) and (end_ms is None or at_ms < end_ms)
