"""The interval log: stores every interval record ever closed, in one total order; readers follow it by cursors.

One SQLite file per UTC day of commit, `<sequence, 8 digits>-<yyyy-mm-dd>.sqlite`; the day never goes back, so a late
revision goes into the current file. A cursor is (file sequence, row). Each file also stores the number of the last
spool record whose interval records it contains, updated in the same transaction, so that a restart neither loses nor
repeats any. All SQLite work runs in one thread; a commit is a handful of multi-row statements, because every statement
has to win the interpreter back from a busy loop.
"""

import asyncio
import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.domain.intervals.columns import IntervalColumns, joined
from gateway.domain.intervals.record import IntervalRecord
from gateway.files import sync_directory
from gateway.observability.metrics import Sample
from gateway.observability.parts import Part
from gateway.storage.interval_log.files import LogFile, connect, is_damage
from gateway.storage.interval_log.folder import LogFolder
from gateway.storage.interval_log.outcomes import Given, Places
from gateway.storage.interval_log.pages import DamagedRow, fetch
from gateway.storage.interval_log.positions import START, Cursor, Parked, Position, Positions
from gateway.storage.interval_log.retention import DiskBudget, retain
from gateway.storage.interval_log.rows import (
    SELECT_AFTER,
    SELECT_IDENTITY,
    Columns,
    Identity,
    Row,
    as_stored,
    columns_of,
    identity,
    insertions,
    rows_of,
)
from gateway.storage.interval_log.stats import LogStats
from gateway.storage.recovery import Unlogged

log = logging.getLogger(__name__)

T = TypeVar("T")

CURSORS = "cursors.sqlite"
ROW_MAX = (1 << 63) - 1
READ_MAX = 50_000


class IntervalLog(Part):
    """Append-only log of interval records with durable cursors. Use as an async context manager."""

    component = "upstream"

    def __init__(self, directory: Path, *, clock: Clock) -> None:
        self.directory = directory
        self.stats = LogStats()
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="interval-log")
        self.folder = LogFolder(directory, self.stats)
        self._positions_open: Positions | None = None
        self._position = 0

    async def __aenter__(self) -> Self:
        try:
            await self._run(self._begin)
        except BaseException:
            self._pool.shutdown(wait=False)
            raise
        return self

    async def close(self) -> None:
        await self._run(self._end)
        self._pool.shutdown(wait=False)

    def samples(self) -> Iterable[Sample]:
        return self.stats.samples()

    def warnings(self) -> list[str]:
        return self.stats.warnings()

    @property
    def position(self) -> int:
        """The last spool record whose interval records are in the log."""
        return self._position

    def files_from(self, from_ms: int) -> list[Path]:
        """Files that may contain intervals that begin at `from_ms` or later, in the order of commits. A device's clock
        may be a little ahead; a record may be late without a bound."""
        day = datetime.fromtimestamp(from_ms / 1000, tz=UTC).date() - timedelta(days=1)
        return [file.path for file in list(self.folder.files) if file.day >= day]

    async def append(self, entries: Sequence[Unlogged]) -> int:
        """Write the interval records of these spool records durably in one transaction; returns how many rows are new.
        Skips entries up to `position`. Raises StorageError; then none of them is in the log."""
        day = datetime.fromtimestamp(self._clock.now().utc_ms / 1000, tz=UTC).date()
        try:
            added = await self._run(lambda: self._append_or_begin_anew(entries, day))
        except StorageError as error:
            if self.stats.failing is None:
                log.error("interval records cannot be stored", extra={"error": str(error)})
            self.stats.failing = str(error)
            raise
        if self.stats.failing is not None:
            log.info("interval records are stored again")
            self.stats.failing = None
        return added

    async def read(
        self, cursor: Cursor, limit: int, until: Cursor | None = None
    ) -> tuple[list[IntervalRecord], Cursor]:
        """Up to `limit` records after `cursor` (at most 50,000) and not after `until`, and the cursor after them."""

        def work() -> tuple[list[IntervalRecord], Cursor]:
            columns, _, after = self._read(cursor, min(limit, READ_MAX), until)
            return columns.objects(), after

        return await self._run(work)

    async def read_columns(
        self, cursor: Cursor, limit: int, until: Cursor | None = None
    ) -> tuple[IntervalColumns, Places, Cursor]:
        """The same records as columns, every revision of each, in the order of commits, and the place of each."""
        return await self._run(lambda: self._read(cursor, min(limit, READ_MAX), until))

    async def end(self) -> Cursor:
        """The place after the newest record."""
        return await self._run(self._end_of_log)

    async def position_of(self, name: str) -> Position:
        """Where the reader `name` is; the start for a new one."""
        return await self._run(lambda: self._positions.load(name))

    async def save_position(
        self, name: str, position: Position, parked: Sequence[Parked] = (), unparked: Sequence[Identity] = (),
        given: Given | None = None,
    ) -> None:  # fmt: skip
        """Store durably where the reader `name` is, what its receiver refused (`parked`), what is no longer parked
        (`unparked`), and what it was `given`."""
        await self._run(lambda: self._positions.save(name, position, parked, unparked, given))

    async def ask(self, question: Callable[[Positions], T]) -> T:
        """Run another query about the readers' positions on the log's thread."""
        return await self._run(lambda: question(self._positions))

    async def backlog(self, position: Position) -> int:
        """How many records this reader has still to read."""
        return await self._run(lambda: self._backlog(position))

    async def retain(self, days: int, readers: Iterable[str], disk_budget: DiskBudget | None = None) -> int:
        """Drop files more than `days` old that every reader has read, and what `disk_budget` requires besides; see
        `retention`. Returns how many log files it dropped."""
        today = datetime.fromtimestamp(self._clock.now().utc_ms / 1000, tz=UTC).date()
        names, oldest = tuple(readers), today - timedelta(days=days)
        return await self._run(lambda: retain(self.folder, self.stats, oldest, self._positions, names, disk_budget))

    async def check(self) -> None:
        """Check the integrity of every file and set the damaged ones aside. Slow: call it once damage is found."""
        await self._run(self.folder.check)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (sqlite3.Error, OSError) as error:
            self.stats.failures += 1
            raise StorageError(f"interval log: {error}") from error

    # Below: the log's thread.

    def _begin(self) -> None:
        self._position = self.folder.open()
        try:
            self._open_positions()
        except sqlite3.DatabaseError as error:
            self.folder.set_aside(LogFile(0, date.min, self.folder.directory / CURSORS), error)
            self._open_positions()

    def _open_positions(self) -> None:
        connection = connect(self.folder.directory / CURSORS)
        try:
            self._positions_open = Positions(connection)
        except sqlite3.Error:
            connection.close()
            raise
        sync_directory(self.folder.directory)

    @property
    def _positions(self) -> Positions:
        if self._positions_open is None:
            raise StorageError("the interval log is not open")
        return self._positions_open

    def _end(self) -> None:
        self.folder.close()
        if self._positions_open is not None:
            self._positions_open.close()

    def _append_or_begin_anew(self, entries: Sequence[Unlogged], day: date) -> int:
        try:
            return self._append(entries, day)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.folder.forget(self.folder.files[-1], error)
            return self._append(entries, day)

    def _append(self, entries: Sequence[Unlogged], day: date) -> int:
        wanted = [entry for entry in entries if entry.record > self._position]
        if not wanted:
            return 0
        each = [columns_of(entry.records, entry.ids) for entry in wanted]
        columns = [list(itertools.chain.from_iterable(column)) for column in zip(*each, strict=True)]
        self.stats.nameless += sum(len(entry.records) for entry in wanted) - len(columns[0])
        connection = self.folder.current(day, self._position)
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
        for chunk, statement, values in insertions(columns, variables_max):
            new = connection.execute(statement, values).rowcount
            added += new
            if new < chunk.stop - chunk.start:
                self._count_repeated(connection, rows_of(columns, chunk), chunk.stop - chunk.start - new)
        return added

    def _count_repeated(self, connection: sqlite3.Connection, rows: list[Row], repeated: int) -> None:
        """Some of `rows` were in the log already: count those with the same content and those with other content."""
        stored = [connection.execute(SELECT_IDENTITY, identity(row)).fetchone() for row in rows]
        conflicting = [row for row, found in zip(rows, stored, strict=True) if found != as_stored(row)]
        self.stats.conflicting += len(conflicting)
        self.stats.repeated += repeated - len(conflicting)
        if conflicting:
            log.error(
                "interval records were made twice with different content",
                extra={"rows": len(conflicting), "first": repr(identity(conflicting[0]))},
            )

    def _read(self, cursor: Cursor, limit: int, until: Cursor | None) -> tuple[IntervalColumns, Places, Cursor]:
        out: list[IntervalColumns] = []
        files, rows = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        left = limit
        for file in list(self.folder.files):
            if file.sequence < cursor.file or left <= 0 or (until and file.sequence > until.file):
                continue
            row = cursor.row if file.sequence == cursor.file else 0
            last = until.row if until and file.sequence == until.file else ROW_MAX
            try:
                # a page may have damaged records alone: what follows them in the file is still due
                while left > 0 and (page := fetch(self.folder.reader(file), SELECT_AFTER, (row, last, left))).last_id:
                    if page.damaged:
                        self._damaged_rows(file, page.damaged)
                    out.append(page.columns)
                    rows.append(page.ids)
                    files.append(np.full(len(page.ids), file.sequence, dtype=np.int64))
                    left -= len(page.columns)
                    row = page.last_id
                    cursor = Cursor(file.sequence, row)
                    if not page.damaged:
                        break
            except sqlite3.DatabaseError as error:
                self.folder.forget(file, error)
        places = Places(files=np.concatenate(files), rows=np.concatenate(rows))
        return out[0] if len(out) == 1 else joined(out), places, cursor

    def _damaged_rows(self, file: LogFile, rows: Sequence[DamagedRow]) -> None:
        """Records that differ from what was written go nowhere: disk or memory damaged them."""
        self.stats.corrupt_rows += len(rows)
        first = rows[0]
        log.error(
            "interval records are damaged and left out",
            extra={
                "file": file.path.name,
                "rows": len(rows),
                "first": repr((first.start_ms, first.device, first.revision)),
            },
        )

    def _end_of_log(self) -> Cursor:
        return (
            Cursor(self.folder.files[-1].sequence, self.folder.rows_in(self.folder.files[-1]))
            if self.folder.files
            else START
        )

    def _backlog(self, position: Position) -> int:
        return sum(self.folder.backlog_in(file, position) for file in list(self.folder.files))
