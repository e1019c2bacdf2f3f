"""The days of sites by version, in `columns.sqlite`, which the process beside the daemon alone writes.

A file of its own: SQLite has one writer per file, so nothing that is written here, however long, can make the daemon
wait for what it writes to `programs.sqlite`. The daemon reads it without a lock (WAL).

`frames` (id, zone, length_s), `sites` (id, name), `frame_days` (frame, day, written_ms: when its lateness limit had
passed), `site_days` (id: grows with every write, the token of exports; frame, day, site, version: 1, 2, ..; written_ms,
body: see `domain/programs/site_day`), `holds` (site_day, holder: somebody's figures rest on that version),
`progress` (name, file, row: how far a reader of the interval log has come). A day is its ordinal number.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Self
from urllib.parse import quote

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.programs.site_day import DayFrame, SiteDays, decode, encode, same_content
from gateway.files import sync_directory
from gateway.storage.sqlite_thread import transaction

DIRECTORY = "money"
NAME = "columns.sqlite"
SCHEMA_VERSION = 1
BUSY_S = 10.0
KEPT_FREE_PART, KEPT_FREE_BYTES = 0.06, 640 << 20
"""The daemon's own stores leave less free: this process stops before they have to."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS frames (id INTEGER PRIMARY KEY, zone TEXT NOT NULL, length_s INTEGER NOT NULL, "
    "UNIQUE (zone, length_s))",
    "CREATE TABLE IF NOT EXISTS sites (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS frame_days (frame INTEGER NOT NULL, day INTEGER NOT NULL, written_ms INTEGER NOT NULL, "
    "PRIMARY KEY (frame, day)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS site_days (id INTEGER PRIMARY KEY AUTOINCREMENT, frame INTEGER NOT NULL, "
    "day INTEGER NOT NULL, site INTEGER NOT NULL, version INTEGER NOT NULL, written_ms INTEGER NOT NULL, "
    "body BLOB NOT NULL, UNIQUE (frame, day, site, version))",
    "CREATE TABLE IF NOT EXISTS holds (site_day INTEGER NOT NULL, holder TEXT NOT NULL, "
    "PRIMARY KEY (site_day, holder)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS progress (name TEXT PRIMARY KEY, file INTEGER NOT NULL, row INTEGER NOT NULL) "
    "WITHOUT ROWID",
)
# of the rows of a group, max() chooses the one whose other columns are read
_NEWEST = (
    "SELECT sites.name, body, max(version) FROM site_days JOIN sites ON sites.id = site WHERE frame = ? AND day = ? "
    "AND written_ms <= ? {some} GROUP BY site ORDER BY sites.name"
)
_SOME = "AND sites.name IN (SELECT value FROM json_each(?))"
EVER_MS = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDayKey:
    """One version of one site's day."""

    frame: DayFrame
    day: date
    site: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSiteDay:
    """A version as it is stored; `token` grows with every one that is written."""

    token: int
    key: SiteDayKey
    written_ms: int
    body: bytes


class DailyColumns:
    """The columns of a state directory; blocks. `write`: creates the file and may change it. Without it one that is
    not there is empty. Use as a context manager. Raises StorageError, CorruptState."""

    def __init__(self, state_dir: Path, *, write: bool = False) -> None:
        self.path = state_dir / DIRECTORY / NAME
        self._write = write
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        try:
            with self._told():
                self._open()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._db.close()

    # reading

    def days(
        self, frame: DayFrame, days: Iterable[date], *, sites: Sequence[str] | None = None, as_of_ms: int = EVER_MS
    ) -> Iterator[SiteDays]:
        """The newest versions (of those written by `as_of_ms`) of these sites, or of all, on each day that is there."""
        number = self._frame(frame)
        for day in days:
            values: list[object] = [number, day.toordinal(), as_of_ms]
            if sites is not None:
                values.append(_json(sites))
            with self._told():
                statement = _NEWEST.format(some="" if sites is None else _SOME)
                found = self._db.execute(statement, values).fetchall()
            if found:
                names, bodies, versions = zip(*found, strict=True)
                yield decode(frame, day, names, bodies, versions)

    def version(self, key: SiteDayKey) -> SiteDays | None:
        """One version."""
        with self._told():
            found = self._db.execute(
                "SELECT body FROM site_days WHERE frame = ? AND day = ? AND version = ? "
                "AND site = (SELECT id FROM sites WHERE name = ?)",
                (self._frame(key.frame), key.day.toordinal(), key.version, key.site),
            ).fetchone()
        return None if found is None else decode(key.frame, key.day, [key.site], [found[0]], [key.version])

    def written(self, frame: DayFrame) -> list[date]:
        """The days that were written when their lateness limit had passed, ascending."""
        with self._told():
            found = self._db.execute("SELECT day FROM frame_days WHERE frame = ? ORDER BY day", (self._frame(frame),))
            return [date.fromordinal(day) for (day,) in found]

    def frames(self) -> list[DayFrame]:
        """Every division of days that was ever written."""
        with self._told():
            found = self._db.execute("SELECT zone, length_s FROM frames ORDER BY id")
            return [DayFrame(zone=zone, length_s=length_s) for zone, length_s in found]

    def since(
        self, token: int, first: date, until: date, frames: Sequence[DayFrame], limit: int
    ) -> list[StoredSiteDay]:
        """Up to `limit` versions written after a token, of days from `first` until before `until`, by token."""
        by_number = {self._frame(frame): frame for frame in frames}
        with self._told():
            found = self._db.execute(
                "SELECT site_days.id, frame, day, sites.name, version, written_ms, body FROM site_days "
                "JOIN sites ON sites.id = site WHERE site_days.id > ? AND day >= ? AND day < ? "
                "AND frame IN (SELECT value FROM json_each(?)) ORDER BY site_days.id LIMIT ?",
                (token, first.toordinal(), until.toordinal(), _json([*by_number]), limit),
            ).fetchall()
        return [
            StoredSiteDay(
                token=number, written_ms=written_ms, body=body,
                key=SiteDayKey(frame=by_number[frame], day=date.fromordinal(day), site=site, version=version),
            )
            for number, frame, day, site, version, written_ms, body in found
        ]  # fmt: skip

    def changed_days(self, token: int) -> tuple[int, set[tuple[DayFrame, date]]]:
        """The newest token, and the days of which a version was written after a token."""
        with self._told():
            (newest,) = self._db.execute("SELECT coalesce(max(id), 0) FROM site_days").fetchone()
            found = self._db.execute(
                "SELECT DISTINCT zone, length_s, day FROM site_days JOIN frames ON frames.id = frame "
                "WHERE site_days.id > ?",
                (token,),
            )
            days = {
                (DayFrame(zone=zone, length_s=length_s), date.fromordinal(day)) for zone, length_s, day in found
            }  # fmt: skip
        return max(token, int(newest)), days

    def newest_token(self, frame: DayFrame, first: date, until: date) -> int:
        """The token of the version that was written last of a day from `first` until before `until`, 0 = of none."""
        with self._told():
            found = self._db.execute(
                "SELECT max(id) FROM site_days WHERE frame = ? AND day >= ? AND day < ?",
                (self._frame(frame), first.toordinal(), until.toordinal()),
            ).fetchone()
        return int(found[0] or 0)

    def progress(self, name: str) -> tuple[int, int] | None:
        """Up to which place (file, row) of the interval log everything is in here."""
        with self._told():
            found = self._db.execute("SELECT file, row FROM progress WHERE name = ?", (name,)).fetchone()
        return None if found is None else (int(found[0]), int(found[1]))

    # writing

    def put(self, days: SiteDays, now_ms: int) -> int:
        """Store what differs from the newest versions as the next ones; returns how many."""
        with self._told():
            check_free(self.path)
        bodies = encode(days)
        with self._told(), transaction(self._db):
            number = self._added_frame(days.frame)
            self._db.execute("INSERT OR IGNORE INTO sites (name) SELECT value FROM json_each(?)", (_json(days.sites),))
            known = {
                name: (site, body, version or 0)
                for site, name, body, version in self._db.execute(
                    "SELECT sites.id, name, body, max(version) FROM sites LEFT JOIN site_days "
                    "ON site = sites.id AND frame = ? AND day = ? WHERE name IN (SELECT value FROM json_each(?)) "
                    "GROUP BY sites.id",
                    (number, days.day.toordinal(), _json(days.sites)),
                )
            }
            new = [
                (number, days.day.toordinal(), known[name][0], known[name][2] + 1, now_ms, body)
                for name, body in zip(days.sites, bodies, strict=True)
                if known[name][1] is None or not same_content(known[name][1], body)
            ]
            self._db.executemany(
                "INSERT INTO site_days (frame, day, site, version, written_ms, body) VALUES (?, ?, ?, ?, ?, ?)", new
            )
        return len(new)

    def note_written(self, frame: DayFrame, day: date, now_ms: int) -> None:
        """All sites of this day are stored."""
        with self._told(), transaction(self._db):
            values = (self._added_frame(frame), day.toordinal(), now_ms)
            self._db.execute("INSERT OR IGNORE INTO frame_days VALUES (?, ?, ?)", values)

    def note_progress(self, name: str, file: int, row: int) -> None:
        """See `progress`."""
        with self._told(), transaction(self._db):
            self._db.execute("INSERT OR REPLACE INTO progress VALUES (?, ?, ?)", (name, file, row))

    def hold(self, holder: str, keys: Iterable[SiteDayKey]) -> None:
        """Keep these versions for as long as `holder` rests on them."""
        rows = [(holder, self._frame(key.frame), key.day.toordinal(), key.version, key.site) for key in keys]
        with self._told(), transaction(self._db):
            self._db.executemany(
                "INSERT OR IGNORE INTO holds SELECT id, ? FROM site_days WHERE frame = ? AND day = ? AND version = ? "
                "AND site = (SELECT id FROM sites WHERE name = ?)",
                rows,
            )

    def release(self, holder: str) -> None:
        """Nothing of `holder` rests on any version any more."""
        with self._told(), transaction(self._db):
            self._db.execute("DELETE FROM holds WHERE holder = ?", (holder,))

    def prune(self, before: date, most: int = 10_000) -> int:
        """Remove up to `most` versions of days before `before` that nobody holds; returns how many."""
        with self._told(), transaction(self._db):
            gone = self._db.execute(
                "DELETE FROM site_days WHERE id IN (SELECT id FROM site_days WHERE day < ? "
                "AND NOT EXISTS (SELECT 1 FROM holds WHERE site_day = site_days.id) LIMIT ?)",
                (before.toordinal(), most),
            ).rowcount
            if gone < most:
                self._db.execute("DELETE FROM frame_days WHERE day < ?", (before.toordinal(),))
        return gone

    def size(self) -> tuple[int, int]:
        """Versions that are stored, and the bytes of their bodies."""
        with self._told():
            rows, size = self._db.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM site_days").fetchone()
        return int(rows), int(size)

    def _frame(self, frame: DayFrame) -> int:
        with self._told():
            found = self._db.execute(
                "SELECT id FROM frames WHERE zone = ? AND length_s = ?", (frame.zone, frame.length_s)
            ).fetchone()
        return -1 if found is None else int(found[0])

    def _added_frame(self, frame: DayFrame) -> int:
        self._db.execute("INSERT OR IGNORE INTO frames (zone, length_s) VALUES (?, ?)", (frame.zone, frame.length_s))
        return self._frame(frame)

    def _created(self) -> None:
        if not self.path.exists():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            sync_directory(self.path.parent)

    def _open(self) -> None:
        if self._write:
            self._created()
        if self.path.exists():
            self._db.close()
            address = f"file:{quote(str(self.path.absolute()))}?mode={'rw' if self._write else 'ro'}"
            self._db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_S)
        self._prepare()

    def _prepare(self) -> None:
        found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found > SCHEMA_VERSION:
            raise CorruptState(f"{self.path}: schema {found} is newer than {SCHEMA_VERSION}, the newest known")
        if self._write:
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                self._db.execute(f"PRAGMA {pragma}").fetchall()
        if found < SCHEMA_VERSION and (self._write or not self.path.exists()):
            with transaction(self._db):
                for statement in _SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif found < SCHEMA_VERSION:
            # it was created just now, and nothing is in it yet
            self._db.close()
            self._db = sqlite3.connect(":memory:", isolation_level=None)
            for statement in _SCHEMA:
                self._db.execute(statement)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptState(f"{self.path}: {error}") from error
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error


def _json(values: Sequence[object]) -> str:
    return json.dumps(values)


def check_free(path: Path) -> None:
    """Raises StorageError where the disk of a file has less left than the daemon's own stores leave."""
    usage = shutil.disk_usage(path.parent)
    kept = min(max(KEPT_FREE_PART * usage.total, KEPT_FREE_BYTES), usage.total / 2)
    if usage.free < kept:
        raise StorageError(f"{path}: the disk has {usage.free >> 20} MiB left; {int(kept) >> 20} stay free")
