"""Reads an interval log beside the process that writes it: read-only, without a position of its own in it.

Nothing is migrated, set aside or created here; a file that goes while it is read is read to its end. A transaction is
as long as one statement, so the writer's checkpoints wait for nobody.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from gateway.domain.errors import StorageError
from gateway.domain.intervals.columns import IntervalColumns
from gateway.domain.types import DeviceId
from gateway.storage.interval_log.files import LogFile
from gateway.storage.interval_log.merge import IntervalSelection, Merge, Place
from gateway.storage.interval_log.positions import START, Cursor

PAGE_ROWS = 50_000
BUSY_S = 5.0

_NEW = (
    "select device, start_ms, max(id) from interval where id > ? and id <= ? and start_ms < ? "
    "group by device, start_ms / 3600000"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRows:
    """Rows of the log after a place: `touched` has a device and a start (UTC ms) per device and hour that begins before
    the bound asked for; `until`: everything up to here was looked at."""

    touched: Sequence[tuple[DeviceId, int]]
    until: Cursor


class IntervalLogBeside:
    """The log in a directory. Every method raises StorageError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def files(self) -> list[LogFile]:
        """The files, in the order of commits."""
        try:
            names = [path for path in self._directory.glob("????????-????-??-??.sqlite") if path.name[:8].isdigit()]
        except OSError as error:
            raise StorageError(f"{self._directory}: {error}") from error
        found = sorted(LogFile(int(path.name[:8]), date.fromisoformat(path.name[9:19]), path) for path in names)
        # the newest file is there before its table is, while the writer makes it
        return found[:-1] if found and not self._made(found[-1].path) else found

    def whole_from(self) -> date | None:
        """The first UTC day whose intervals cannot have gone by retention yet; None: there is no log."""
        files = self.files()
        return files[0].day if files else None

    def end(self) -> Cursor:
        """The place after the newest record."""
        files = self.files()
        if not files:
            return START
        with self._opened(files[-1].path) as db:
            return Cursor(files[-1].sequence, _rows(db))

    def new_rows(self, after: Cursor, before_ms: int, limit: int) -> NewRows:
        """What came after a place, of about `limit` rows of one file at most, that begins before `before_ms`."""
        for file in self.files():
            if file.sequence < after.file:
                continue
            row = after.row if file.sequence == after.file else 0
            with self._opened(file.path) as db:
                last = _rows(db)
                if last <= row:
                    continue
                until = min(last, row + limit)
                found = db.execute(_NEW, (row, until, before_ms)).fetchall()
            touched = [(DeviceId(device), start_ms) for device, start_ms, _ in found]
            return NewRows(touched=touched, until=Cursor(file.sequence, until))
        return NewRows(touched=(), until=after)

    def pages(self, wanted: IntervalSelection, rows: int = PAGE_ROWS) -> Iterator[IntervalColumns]:
        """All of these intervals, the newest revision of each, by start and device, in pages of about `rows`; each was
        checked, and damaged records are left out."""
        first = datetime.fromtimestamp(wanted.from_ms / 1000, tz=UTC).date() - timedelta(days=1)
        with ExitStack() as stack:
            files = [file.path for file in self.files() if file.day >= first]
            try:
                merge = Merge([stack.enter_context(self._opened(path)) for path in files], wanted, None, rows)
                going_on: Place | None = (wanted.from_ms, "")
                while going_on is not None:
                    page, going_on = merge.page()
                    yield page
            except sqlite3.Error as error:
                raise StorageError(f"interval log: {error}") from error

    def _made(self, path: Path) -> bool:
        with self._opened(path) as db:
            return db.execute("select 1 from sqlite_schema where name = 'interval'").fetchone() is not None

    @contextmanager
    def _opened(self, path: Path) -> Iterator[sqlite3.Connection]:
        try:
            address = f"file:{quote(str(path.absolute()))}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_S)) as db:
                yield db
        except sqlite3.Error as error:
            raise StorageError(f"{path.name}: {error}") from error


def _rows(db: sqlite3.Connection) -> int:
    return int(db.execute("select coalesce(max(id), 0) from interval").fetchone()[0])
