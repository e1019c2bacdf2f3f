"""Readings of utilities' meters, in `utility.sqlite`, written by the command that imports them, beside the daemon.

`imports` (id, source, digest: SHA-256 of the rows, imported_ms, who, rows), `meter_days` (meter, day: UTC, its ordinal
number; length_s, import: its revision; body). A body is a zlib stream of 4-byte whole Wh, + = taken from the grid, one
for each interval of the day, the lowest number there is = unknown. Nothing is changed or removed: an import that says
something else of a day makes that day's next revision, which holds; intervals that it does not name stay as they were.
"""

import hashlib
import json
import os
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import quote

import numpy as np

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.types import Bools, Ints
from gateway.files import sync_directory
from gateway.storage.sqlite_thread import transaction

NAME = "utility.sqlite"
SCHEMA_VERSION = 1
BUSY_S = 10.0
DAY_S = 86_400
EPOCH = date(1970, 1, 1).toordinal()
UNKNOWN = np.iinfo(np.int32).min

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS imports (id INTEGER PRIMARY KEY, source TEXT NOT NULL, digest TEXT NOT NULL, "
    "imported_ms INTEGER NOT NULL, who TEXT NOT NULL, rows INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS meter_days (meter TEXT NOT NULL, day INTEGER NOT NULL, length_s INTEGER NOT NULL, "
    "import INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (meter, length_s, day, import)) WITHOUT ROWID",
)
# of the rows of a group, max() chooses the one whose other columns are read
_NEWEST = (
    "SELECT meter, day, body, max(import) FROM meter_days WHERE length_s = ? AND day >= ? AND day < ? "
    "AND meter IN (SELECT value FROM json_each(?)) GROUP BY meter, day ORDER BY meter, day"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What a meter read in one interval: start (UTC ms), length in s, whole Wh (+ = taken from the grid)."""

    meter: str
    start_ms: int
    length_s: int
    wh: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageImport:
    """`revision`: what holds from now on; `changed_days`: meter-days that it made a revision of (0: all was known)."""

    revision: int
    rows: int
    changed_days: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeterDay:
    """One UTC day of one meter at the revision that holds."""

    meter: str
    day: date
    wh: Ints
    known: Bools
    revision: int


class UtilityMeters:
    """Reads and writes the readings in a state directory; blocks. Raises StorageError, CorruptState."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / NAME

    def add(self, rows: Sequence[UsageRow], *, source: str, who: str, now_ms: int) -> UsageImport:
        """Add readings, of which no two are of one interval, in one transaction."""
        by_day: defaultdict[tuple[str, int, int], list[UsageRow]] = defaultdict(list)
        for row in rows:
            by_day[row.meter, row.length_s, EPOCH + row.start_ms // (DAY_S * 1000)].append(row)
        told = sorted((row.meter, row.start_ms, row.length_s, row.wh) for row in rows)
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        with self._open(write=True) as db, transaction(db):
            number = db.execute(
                "INSERT INTO imports (source, digest, imported_ms, who, rows) VALUES (?, ?, ?, ?, ?)",
                (source, digest, now_ms, who, len(rows)),
            ).lastrowid
            changed = 0
            for (meter, length_s, day), some in sorted(by_day.items()):
                old = db.execute(
                    "SELECT body FROM meter_days WHERE meter = ? AND length_s = ? AND day = ? ORDER BY import DESC "
                    "LIMIT 1",
                    (meter, length_s, day),
                ).fetchone()
                wh = np.full(DAY_S // length_s, UNKNOWN, dtype="<i4") if old is None else _read(old[0])
                new = wh.copy()
                for row in some:
                    new[row.start_ms // 1000 % DAY_S // length_s] = row.wh
                if old is not None and np.array_equal(new, wh):
                    continue
                body = zlib.compress(new.astype("<i4").tobytes(), 9)
                db.execute("INSERT INTO meter_days VALUES (?, ?, ?, ?, ?)", (meter, day, length_s, number, body))
                changed += 1
        return UsageImport(revision=int(number or 0), rows=len(rows), changed_days=changed)

    def days(self, meters: Sequence[str], length_s: int, first: date, until: date) -> list[MeterDay]:
        """The UTC days of these meters from `first` until before `until` that are there."""
        with self._open() as db:
            found = db.execute(
                _NEWEST, (length_s, first.toordinal(), until.toordinal(), json.dumps(list(meters)))
            ).fetchall()
        told = []
        for meter, day, body, revision in found:
            wh = _read(body)
            known = wh != UNKNOWN
            told.append(
                MeterDay(
                    meter=meter, day=date.fromordinal(day), wh=np.where(known, wh, 0).astype(np.int64), known=known,
                    revision=revision,
                )
            )  # fmt: skip
        return told

    def meters(self) -> list[tuple[str, int]]:
        """Every meter and interval length of which there are readings."""
        with self._open() as db:
            return list(db.execute("SELECT DISTINCT meter, length_s FROM meter_days ORDER BY meter, length_s"))

    def revision(self) -> int:
        """The newest import; 0 = there is none."""
        with self._open() as db:
            return int(db.execute("SELECT coalesce(max(id), 0) FROM imports").fetchone()[0])

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """One connection; a read creates nothing."""
        try:
            if write and not self.path.exists():
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
                sync_directory(self.path.parent)
            there = self.path.exists()
            address = f"file:{quote(str(self.path.absolute()))}?mode={'rw' if write else 'ro'}"
            with closing(
                sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_S)
                if there else sqlite3.connect(":memory:", isolation_level=None)
            ) as db:  # fmt: skip
                found = int(db.execute("PRAGMA user_version").fetchone()[0])
                if found > SCHEMA_VERSION:
                    raise CorruptState(f"{self.path}: schema {found} is newer than {SCHEMA_VERSION}, the newest known")
                if write:
                    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                        db.execute(f"PRAGMA {pragma}").fetchall()
                if write or not there:
                    with transaction(db):
                        for statement in _SCHEMA:
                            db.execute(statement)
                        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                yield db
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptState(f"{self.path}: {error}") from error
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error


def _read(body: bytes) -> np.ndarray:
    try:
        return np.frombuffer(zlib.decompress(body), dtype="<i4")
    except (zlib.error, ValueError) as error:
        raise CorruptState(f"{NAME}: a meter's day cannot be read: {error}") from error
