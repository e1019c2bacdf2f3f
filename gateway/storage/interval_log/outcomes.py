"""Stores what a reader's receiver was given of the log, and what became of each record.

A stretch is a run of rows of one file, in the order of the log: one byte if all its rows have the same outcome, else a
byte for each, compressed. Stretches that touch become one where they are short or say the same. A record that was sent
again has its newest outcome by its identity; `file` is the newest file at that time, and it is dropped with that.
"""

import json
import sqlite3
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from gateway.domain.intervals.completeness import RowOutcome
from gateway.domain.types import Ints
from gateway.storage.interval_log.rows import Identity

MERGED_ROWS = 8_192
SCHEMA = """
create table if not exists given (
  name text not null, file integer not null, first integer not null, last integer not null, outcomes blob not null,
  primary key (name, file, first)) without rowid;
create table if not exists given_again (
  name text not null, start_ms integer not null, device text not null, revision integer not null,
  outcome integer not null, file integer not null, primary key (name, start_ms, device, revision)) without rowid;
"""
_LAST_BEFORE = (
    "select first, last, outcomes from given where name = ? and file = ? and first < ? order by first desc limit 1"
)

Outcomes = npt.NDArray[np.uint8]
"""A `RowOutcome` per record; 0 = none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where each of some records is in the log: its file's sequence and its row, ascending."""

    files: Ints
    rows: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Rows of one file from row `first` on, and the outcome of each."""

    file: int
    first: int
    outcomes: Outcomes

    @property
    def last(self) -> int:
        return self.first + len(self.outcomes) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a receiver has answered for: records in their turn (`stretches`), and records sent again."""

    stretches: Sequence[Stretch] = ()
    again: Mapping[Identity, RowOutcome] = field(default_factory=dict)

    @classmethod
    def of(cls, places: Places, outcomes: Outcomes) -> Self:
        """Records in their turn, and the outcome of each. Rows between them that could not be read have none."""
        stretches = []
        for file in np.unique(places.files).tolist():
            here = places.files == file
            rows = places.rows[here]
            spread = np.zeros(int(rows[-1] - rows[0]) + 1, dtype=np.uint8)
            spread[rows - rows[0]] = outcomes[here]
            stretches.append(Stretch(file=file, first=int(rows[0]), outcomes=spread))
        return cls(stretches=stretches)


class RecordedOutcomes:
    """What is recorded of one receiver, of some files. Not shared between threads."""

    def __init__(self, stretches: Sequence[tuple[int, int, int, bytes]], again: Mapping[Identity, RowOutcome]) -> None:
        self._places = [(file, first) for file, first, *_ in stretches]
        self._stretches = stretches
        self._again = again
        self._unpacked: dict[int, Outcomes] = {}

    def outcome(self, file: int, row: int, identity: Identity) -> RowOutcome | None:
        """What became of a record: accepted if it ever was, else the newest; None = nothing is recorded."""
        again, once = self._again.get(identity), self._in_turn(file, row)
        return once if once is RowOutcome.ACCEPTED or again is None else again

    def _in_turn(self, file: int, row: int) -> RowOutcome | None:
        at = bisect_right(self._places, (file, row)) - 1
        if at < 0:
            return None
        its, first, last, packed = self._stretches[at]
        if its != file or row > last:
            return None
        if len(packed) == 1:
            return RowOutcome(packed[0])
        if at not in self._unpacked:
            self._unpacked[at] = _unpacked(packed, last - first + 1)
        found = int(self._unpacked[at][row - first])
        return RowOutcome(found) if found else None


def record(connection: sqlite3.Connection, name: str, given: Given, newest_file: int) -> None:
    """Store what was given; within the caller's transaction. Raises sqlite3.Error."""
    for stretch in given.stretches:
        first, packed = stretch.first, _packed(stretch.outcomes)
        before = connection.execute(_LAST_BEFORE, (name, stretch.file, first)).fetchone()
        if before is not None and before[1] == first - 1:
            if before[2] == packed and len(packed) == 1:
                first = before[0]
            elif stretch.last - before[0] < MERGED_ROWS:
                outcomes = np.concatenate((_unpacked(before[2], first - before[0]), stretch.outcomes))
                first, packed = before[0], _packed(outcomes)
        row = (name, stretch.file, first, stretch.last, packed)
        connection.execute("insert or replace into given values (?, ?, ?, ?, ?)", row)
    # one statement: each step of another takes its turn beside a busy loop
    rows = json.dumps([[*identity, int(outcome)] for identity, outcome in given.again.items()])
    connection.execute(
        "insert or replace into given_again select ?, value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', "
        "value ->> '$[3]', ? from json_each(?)",
        (name, newest_file, rows),
    )


def recorded(
    connection: sqlite3.Connection, name: str, files: tuple[int, int], from_ms: int, to_ms: int
) -> RecordedOutcomes:
    """What is recorded of the files from the first to the last of `files`, and of what was sent again of intervals that
    begin within `[from_ms, to_ms)`. Raises sqlite3.Error."""
    stretches = connection.execute(
        "select file, first, last, outcomes from given where name = ? and file between ? and ? order by file, first",
        (name, *files),
    ).fetchall()
    again = connection.execute(
        "select start_ms, device, revision, outcome from given_again where name = ? and start_ms >= ? and start_ms < ?",
        (name, from_ms, to_ms),
    )
    return RecordedOutcomes(
        stretches, {(start, device, number): RowOutcome(found) for start, device, number, found in again}
    )


def forget(connection: sqlite3.Connection, before_file: int) -> None:
    """Drop what is recorded of files before `before_file`. Raises sqlite3.Error."""
    connection.execute("delete from given where file < ?", (before_file,))
    connection.execute("delete from given_again where file < ?", (before_file,))


def _packed(outcomes: Outcomes) -> bytes:
    return outcomes[:1].tobytes() if (outcomes == outcomes[0]).all() else zlib.compress(outcomes.tobytes(), 1)


def _unpacked(packed: bytes, rows: int) -> Outcomes:
    if len(packed) == 1:
        return np.full(rows, packed[0], dtype=np.uint8)
    return np.frombuffer(zlib.decompress(packed), dtype=np.uint8)
