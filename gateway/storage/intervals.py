"""The interval log: every interval record ever closed, in one total order, read by cursors.

One SQLite file per UTC day of commit, `<sequence, 8 digits>-<yyyy-mm-dd>.sqlite`; the day never goes back, so a late
revision goes into the current file. A cursor is (file sequence, row). Each file also holds the number of the last spool
record whose closes it contains, moved in the same transaction, so that a restart neither loses nor repeats any.
All SQLite work runs in one thread; a commit is a handful of multi-row statements, because every statement has to win
the interpreter back from a busy loop.
"""

import asyncio
import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from gateway.clock import Clock
from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.model import IntervalRecord
from gateway.files import sync_directory
from gateway.storage.interval_rows import (
    SCHEMA_VERSION,
    SELECT_AFTER,
    SELECT_IDENTITY,
    Columns,
    Row,
    as_stored,
    columns_of,
    create_sql,
    identity,
    insertions,
    record_of,
    rows_of,
)
from gateway.storage.recovery import Unlogged
from gateway.storage.spool import CORRUPT_SUFFIX

log = logging.getLogger(__name__)

T = TypeVar("T")

SUFFIX = ".sqlite"
CURSORS = "cursors.sqlite"
READ_MAX = 50_000


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the log: everything up to row `row` of file `file` has been read."""

    file: int = 0
    row: int = 0


START = Cursor()


@dataclass(slots=True)
class LogStats:
    """Counters. `repeated`: rows that were there already; `conflicting`: there already with different content (the
    first one stays); `nameless`: rows whose device is not known any more."""

    rows: int = 0
    commits: int = 0
    failures: int = 0
    repeated: int = 0
    conflicting: int = 0
    nameless: int = 0
    corrupt_files: int = 0
    dropped_files: int = 0
    held_files: int = 0
    failing: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class _File:
    sequence: int
    day: date
    path: Path


class IntervalLog:
    """Append-only log of interval records with durable cursors. Use as an async context manager."""

    def __init__(self, directory: Path, *, clock: Clock) -> None:
        self.directory = directory
        self.stats = LogStats()
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="interval-log")
        self._files: list[_File] = []
        self._newest: sqlite3.Connection | None = None
        self._older: tuple[int, sqlite3.Connection] | None = None
        self._cursors: sqlite3.Connection | None = None
        self._position = 0
        self._largest = 0

    async def __aenter__(self) -> Self:
        try:
            await self._run(self._begin)
        except BaseException:
            self._pool.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._run(self._end)
        self._pool.shutdown(wait=False)

    @property
    def position(self) -> int:
        """The last spool record whose closes are in the log."""
        return self._position

    def files_from(self, from_ms: int) -> list[Path]:
        """Files that may hold intervals that begin at `from_ms` or later, in the order of commits. A device's clock may
        be a little ahead; how late a record came is not bounded."""
        day = datetime.fromtimestamp(from_ms / 1000, tz=UTC).date() - timedelta(days=1)
        return [file.path for file in list(self._files) if file.day >= day]

    async def append(self, entries: Sequence[Unlogged]) -> int:
        """Make the closes of these spool records durable in one transaction; returns how many rows are new. Entries
        up to `position` are left out. Raises StorageError; then none of them is in the log."""
        day = datetime.fromtimestamp(self._clock.now().utc_ms / 1000, tz=UTC).date()
        try:
            added = await self._run(lambda: self._append(entries, day))
        except StorageError as error:
            if self.stats.failing is None:
                log.error("interval records cannot be stored", extra={"why": str(error)})
            self.stats.failing = str(error)
            raise
        if self.stats.failing is not None:
            log.info("interval records are stored again")
            self.stats.failing = None
        return added

    async def read(self, cursor: Cursor, limit: int) -> tuple[list[IntervalRecord], Cursor]:
        """Up to `limit` records after `cursor` (at most `READ_MAX`), and the cursor after them."""
        return await self._run(lambda: self._read(cursor, min(limit, READ_MAX)))

    async def load_cursor(self, name: str) -> Cursor:
        """Where the reader `name` is; the start for a new one."""
        return await self._run(lambda: self._load_cursors().get(name, START))

    async def save_cursor(self, name: str, cursor: Cursor) -> None:
        """Durably remember where the reader `name` is."""
        await self._run(lambda: self._save_cursor(name, cursor))

    async def backlog(self, cursor: Cursor) -> tuple[int, int | None]:
        """Records after `cursor`, and the start (UTC ms) of the first of them."""
        return await self._run(lambda: self._backlog(cursor))

    async def retain(self, days: int, readers: Iterable[str]) -> int:
        """Drop files of days more than `days` ago that every reader has passed; returns how many. A file that a
        reader still needs is kept and counted as held."""
        today = datetime.fromtimestamp(self._clock.now().utc_ms / 1000, tz=UTC).date()
        names = tuple(readers)
        return await self._run(lambda: self._retain(today - timedelta(days=days), names))

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (sqlite3.Error, OSError) as error:
            self.stats.failures += 1
            raise StorageError(f"interval log: {error}") from error

    # Below: the log's thread.

    def _begin(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files = sorted(
            _File(int(path.name[:8]), date.fromisoformat(path.name[9:19]), path)
            for path in self.directory.glob(f"????????-????-??-??{SUFFIX}")
            if path.name[:8].isdigit()
        )
        self._largest = self._files[-1].sequence if self._files else 0
        for path in self.directory.glob(f"????????-????-??-??{SUFFIX}{CORRUPT_SUFFIX}"):
            self._largest = max(self._largest, int(path.name[:8]))
        while self._files and self._newest is None:
            try:
                self._newest = _open(self._files[-1].path)
                if self._newest is None:
                    self._drop(self._files[-1])
                    continue
                self._position = int(self._newest.execute("select record from position").fetchone()[0])
            except sqlite3.DatabaseError as error:
                self._newest = None
                self._set_aside(self._files.pop(), error)
        try:
            self._cursors = self._open_cursors()
        except sqlite3.DatabaseError as error:
            self._set_aside(_File(0, date.min, self.directory / CURSORS), error)
            self._cursors = self._open_cursors()

    def _open_cursors(self) -> sqlite3.Connection:
        connection = _connect(self.directory / CURSORS)
        connection.execute(
            "create table if not exists cursor (name text primary key, file integer not null, row integer not null)"
        )
        sync_directory(self.directory)
        return connection

    def _end(self) -> None:
        for connection in (self._newest, self._older and self._older[1], self._cursors):
            if connection is not None:
                connection.close()

    def _set_aside(self, file: _File, error: sqlite3.DatabaseError) -> None:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise error
        self.stats.corrupt_files += 1
        log.error("an interval log file is damaged", extra={"file": file.path.name, "why": str(error)})
        for path in (file.path, *(file.path.with_name(file.path.name + end) for end in ("-wal", "-shm"))):
            if path.exists():
                path.replace(path.with_name(path.name + CORRUPT_SUFFIX))
        sync_directory(self.directory)

    def _current(self, day: date) -> sqlite3.Connection:
        if self._newest is not None and (not self._files or day <= self._files[-1].day):
            return self._newest
        sequence = self._largest + 1
        path = self.directory / f"{sequence:08d}-{day.isoformat()}{SUFFIX}"
        connection = _connect(path)
        connection.executescript(create_sql(self._position))
        sync_directory(self.directory)
        if self._newest is not None:
            self._newest.close()
        self._newest, self._largest = connection, sequence
        self._files.append(_File(sequence, day, path))
        return connection

    def _append(self, entries: Sequence[Unlogged], day: date) -> int:
        wanted = [entry for entry in entries if entry.record > self._position]
        if not wanted:
            return 0
        parts = [columns_of(entry.closes, entry.ids) for entry in wanted]
        columns = [list(itertools.chain.from_iterable(column)) for column in zip(*parts, strict=True)]
        self.stats.nameless += sum(len(entry.closes) for entry in wanted) - len(columns[0])
        connection = self._current(day)
        connection.execute("begin immediate")
        try:
            added = self._insert(connection, columns)
            connection.execute("update position set record = ?", (wanted[-1].record,))
            connection.execute("commit")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        self._position = wanted[-1].record
        self.stats.rows += added
        self.stats.commits += 1
        return added

    def _insert(self, connection: sqlite3.Connection, columns: Columns) -> int:
        added = 0
        variables_max = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        for part, statement, values in insertions(columns, variables_max):
            new = connection.execute(statement, values).rowcount
            added += new
            if new < part.stop - part.start:
                self._explain(connection, rows_of(columns, part), part.stop - part.start - new)
        return added

    def _explain(self, connection: sqlite3.Connection, rows: list[Row], repeated: int) -> None:
        """Some of `rows` were there already: the same, or with other content?"""
        there = [connection.execute(SELECT_IDENTITY, identity(row)).fetchone() for row in rows]
        conflicting = [row for row, found in zip(rows, there, strict=True) if found != as_stored(row)]
        self.stats.conflicting += len(conflicting)
        self.stats.repeated += repeated - len(conflicting)
        if conflicting:
            log.error(
                "interval records were made twice with different content",
                extra={"rows": len(conflicting), "first": repr(identity(conflicting[0]))},
            )

    def _read(self, cursor: Cursor, limit: int) -> tuple[list[IntervalRecord], Cursor]:
        out: list[IntervalRecord] = []
        for file in list(self._files):
            if file.sequence < cursor.file or limit <= len(out):
                continue
            row = cursor.row if file.sequence == cursor.file else 0
            try:
                rows = self._reader(file).execute(SELECT_AFTER, (row, limit - len(out))).fetchall()
            except sqlite3.DatabaseError as error:
                if file is self._files[-1]:
                    raise
                self._forget(file, error)
                continue
            out += [record_of(values) for values in rows]
            if rows:
                cursor = Cursor(file.sequence, rows[-1][0])
        return out, cursor

    def _reader(self, file: _File) -> sqlite3.Connection:
        if file is self._files[-1] and self._newest is not None:
            return self._newest
        if self._older is None or self._older[0] != file.sequence:
            if self._older is not None:
                self._older[1].close()
            self._older = None
            connection = _open(file.path)
            if connection is None:
                raise sqlite3.DatabaseError("an old log file is empty")
            self._older = (file.sequence, connection)
        return self._older[1]

    def _forget(self, file: _File, error: sqlite3.DatabaseError) -> None:
        if self._older is not None:
            self._older[1].close()
            self._older = None
        self._set_aside(file, error)
        self._files.remove(file)

    def _load_cursors(self) -> dict[str, Cursor]:
        connection = self._cursors
        if connection is None:
            raise StorageError("the interval log is not open")
        return {name: Cursor(file, row) for name, file, row in connection.execute("select name, file, row from cursor")}

    def _save_cursor(self, name: str, cursor: Cursor) -> None:
        if self._cursors is None:
            raise StorageError("the interval log is not open")
        self._cursors.execute(
            "insert into cursor values (?, ?, ?) on conflict (name) do update set file = excluded.file, "
            "row = excluded.row",
            (name, cursor.file, cursor.row),
        )

    def _backlog(self, cursor: Cursor) -> tuple[int, int | None]:
        count = 0
        for file in self._files:
            if file.sequence >= cursor.file:
                last = self._reader(file).execute("select coalesce(max(id), 0) from interval").fetchone()[0]
                count += max(last - (cursor.row if file.sequence == cursor.file else 0), 0)
        if not count:
            return 0, None
        first, _ = self._read(cursor, 1)
        return count, first[0].start_ms if first else None

    def _retain(self, oldest: date, readers: tuple[str, ...]) -> int:
        cursors = self._load_cursors()
        wanted = min((cursors.get(name, START) for name in readers), default=None)
        dropped = 0
        self.stats.held_files = 0
        for file in self._files[:-1]:
            if file.day >= oldest:
                break
            if wanted is not None and self._backlog_in(file, wanted):
                self.stats.held_files += 1
                continue
            self._drop(file)
            dropped += 1
        if dropped:
            sync_directory(self.directory)
            self.stats.dropped_files += dropped
        return dropped

    def _backlog_in(self, file: _File, cursor: Cursor) -> bool:
        if cursor.file > file.sequence:
            return False
        row = cursor.row if cursor.file == file.sequence else 0
        found = self._reader(file).execute("select exists (select 1 from interval where id > ?)", (row,)).fetchone()
        return bool(found[0])

    def _drop(self, file: _File) -> None:
        if self._older is not None and self._older[0] == file.sequence:
            self._older[1].close()
            self._older = None
        for end in ("", "-wal", "-shm"):
            file.path.with_name(file.path.name + end).unlink(missing_ok=True)
        self._files = [other for other in self._files if other is not file]


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=16)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _open(path: Path) -> sqlite3.Connection | None:
    """A log file, or None for one whose creation was cut short. Raises CorruptState for one of a newer version."""
    connection = _connect(path)
    try:
        version = connection.execute("pragma user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise CorruptState(f"{path.name} was written by a newer version (schema {version}, known {SCHEMA_VERSION})")
        if version:
            connection.execute("select max(id) from interval").fetchone()
            return connection
    except (sqlite3.Error, CorruptState):
        connection.close()
        raise
    connection.close()
    return None
