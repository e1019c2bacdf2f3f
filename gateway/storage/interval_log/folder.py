"""The folder of an interval log: its files in order, the connections to them, and what happens to damaged ones."""

import logging
import sqlite3
from datetime import date
from pathlib import Path

from gateway.files import sync_directory
from gateway.storage.interval_log.files import LogFile, connect, is_damage, open_file, position_in, size
from gateway.storage.interval_log.positions import Cursor, Position, Range
from gateway.storage.interval_log.rows import create_sql
from gateway.storage.interval_log.stats import LogStats
from gateway.storage.spool.spool import CORRUPT_SUFFIX

log = logging.getLogger(__name__)

SUFFIX = ".sqlite"


class LogFolder:
    """`files` in the order of their sequence; `writer` is the connection to the newest, None = there is none to write
    to. Used from one thread. Every method raises sqlite3.Error and OSError."""

    def __init__(self, directory: Path, stats: LogStats) -> None:
        self.directory = directory
        self.files: list[LogFile] = []
        self.writer: sqlite3.Connection | None = None
        self._stats = stats
        self._reading: dict[int, sqlite3.Connection] = {}
        self._largest = 0

    def open(self) -> int:
        """Find the files, set damaged ones aside and migrate the others; returns the last spool record they contain."""
        position = 0
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.files = sorted(
            LogFile(int(path.name[:8]), date.fromisoformat(path.name[9:19]), path)
            for path in self.directory.glob(f"????????-????-??-??{SUFFIX}")
            if path.name[:8].isdigit()
        )
        self._largest = self.files[-1].sequence if self.files else 0
        for path in self.directory.glob(f"????????-????-??-??{SUFFIX}{CORRUPT_SUFFIX}"):
            self._largest = max(self._largest, int(path.name[:8]))
        while self.files and self.writer is None:
            try:
                self.writer = open_file(self.files[-1].path)
                if self.writer is None:
                    self.drop(self.files[-1])
                    continue
                position = position_in(self.writer)
            except sqlite3.DatabaseError as error:
                if self.writer is not None:
                    self.writer.close()
                self.writer = None
                self.set_aside(self.files.pop(), error)
        for file in self.files[:-1]:
            self._migrate(file)
        return position

    def close(self) -> None:
        """Close every connection."""
        self._stop_reading(*self._reading)
        if self.writer is not None:
            self.writer.close()

    def current(self, day: date, position: int) -> sqlite3.Connection:
        """The connection to write with on a UTC day; begins a new file on a new day. `position`: the last spool record
        that the files contain."""
        if self.writer is not None and (not self.files or day <= self.files[-1].day):
            return self.writer
        sequence = self._largest + 1
        path = self.directory / f"{sequence:08d}-{day.isoformat()}{SUFFIX}"
        connection = connect(path)
        connection.executescript(create_sql(position))
        sync_directory(self.directory)
        if self.writer is not None:
            self.writer.close()
        self.writer, self._largest = connection, sequence
        self.files.append(LogFile(sequence, day, path))
        return connection

    def reader(self, file: LogFile) -> sqlite3.Connection:
        """A connection to read a file with; those to the newest and to one older file stay open. The writer's is not
        used: what reading attaches and detaches would have its large statements compiled again."""
        found = self._reading.get(file.sequence)
        if found is None:
            self._stop_reading(*(other for other in self._reading if other != self.files[-1].sequence))
            found = open_file(file.path)
            if found is None:
                raise sqlite3.DatabaseError("a log file is empty")
            self._reading[file.sequence] = found
        return found

    def _stop_reading(self, *sequences: int) -> None:
        for sequence in sequences:
            connection = self._reading.pop(sequence, None)
            if connection is not None:
                connection.close()

    def forget(self, file: LogFile, error: sqlite3.DatabaseError) -> None:
        """Set a damaged file aside; new records go into the next one."""
        if not is_damage(error):
            raise error
        if file is self.files[-1] and self.writer is not None:
            self.writer.close()
            self.writer = None
        self._stop_reading(file.sequence)
        self.set_aside(file, error)
        self.files.remove(file)

    def rows_in(self, file: LogFile) -> int:
        """The largest row of a file."""
        return int(self.reader(file).execute("select coalesce(max(id), 0) from interval").fetchone()[0])

    def backlog_in(self, file: LogFile, position: Position) -> int:
        """How many records of a file a reader has still to read."""
        if file.sequence < position.oldest.file:
            return 0
        try:
            rows = self.rows_in(file)
        except sqlite3.DatabaseError as error:
            self.forget(file, error)
            return 0
        return sum(
            max(min(unread.until.within(file.sequence, rows), rows) - unread.after.within(file.sequence, rows), 0)
            for unread in (*position.backfill, Range(position.live, Cursor(file.sequence + 1)))
        )

    def check(self) -> None:
        """Set every file aside whose integrity is gone."""
        for file in list(self.files):
            try:
                verdict = self.reader(file).execute("pragma integrity_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise sqlite3.DatabaseError(verdict)
            except sqlite3.DatabaseError as error:
                self.forget(file, error)

    def set_aside(self, file: LogFile, error: sqlite3.DatabaseError) -> None:
        """Rename a damaged file, so that it is not read again; raises `error` if it says nothing of damage."""
        if not is_damage(error):
            raise error
        self._stats.corrupt_files += 1
        log.error("an interval log file is damaged", extra={"file": file.path.name, "error": str(error)})
        for path in (file.path, *(file.path.with_name(file.path.name + end) for end in ("-wal", "-shm"))):
            if path.exists():
                path.replace(path.with_name(path.name + CORRUPT_SUFFIX))
        sync_directory(self.directory)

    def drop(self, file: LogFile) -> None:
        """Delete a file."""
        self._stop_reading(file.sequence)
        for end in ("", "-wal", "-shm"):
            file.path.with_name(file.path.name + end).unlink(missing_ok=True)
        self.files = [other for other in self.files if other is not file]

    def aside(self) -> list[Path]:
        """Files set aside as damaged, the oldest first."""
        return sorted(self.directory.glob(f"*{CORRUPT_SUFFIX}"), key=lambda path: path.stat().st_mtime)

    def bytes(self) -> int:
        """Bytes of the log, files set aside included."""
        return sum(size(file.path) for file in self.files) + sum(path.stat().st_size for path in self.aside())

    def _migrate(self, file: LogFile) -> None:
        """Migrate an older file to the present schema, so that readers need to know only that one."""
        try:
            connection = open_file(file.path)
            if connection is None:
                raise sqlite3.DatabaseError("an old log file is empty")
            connection.close()
        except sqlite3.DatabaseError as error:
            self.set_aside(file, error)
            self.files.remove(file)
