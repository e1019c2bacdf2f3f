"""Prices and official hours of programs, in `programs.sqlite`, written by a process of its own beside the daemon.

`series_imports` (id, kind: price or hour, program, area, version: counts those of kind, program and area; source,
digest: SHA-256 of what was imported; imported_ms, who), `price_hours` (import, start_ms, price: decimal text,
currency), `official_hours` (import, start_ms, event_type: NULL = not known, announced_by) and `site_areas` (program,
site, from_ms, area, noted_ms, who). Nothing is changed or removed: of an hour the newest import holds, and an official
hour of the type `Withdrawn` is none. An import is one transaction. The schema's number stays with `facts`, which these
tables are beside.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.programs.official_hours import OfficialHour
from gateway.domain.programs.prices import HourPrice, SeriesOrigin, SiteArea
from gateway.files import sync_directory
from gateway.storage.programs.facts import NAME, SCHEMA_VERSION
from gateway.storage.sqlite_thread import transaction

Kind = Literal["price", "hour"]
WITHDRAWN = "Withdrawn"
BUSY_S = 10.0

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS series_imports (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, program TEXT NOT NULL, "
    "area TEXT NOT NULL, version INTEGER NOT NULL, source TEXT NOT NULL, digest TEXT NOT NULL, "
    "imported_ms INTEGER NOT NULL, who TEXT NOT NULL, UNIQUE (kind, program, area, version))",
    "CREATE TABLE IF NOT EXISTS price_hours (import INTEGER NOT NULL, start_ms INTEGER NOT NULL, price TEXT NOT NULL, "
    "currency TEXT NOT NULL, PRIMARY KEY (import, start_ms)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS official_hours (import INTEGER NOT NULL, start_ms INTEGER NOT NULL, event_type TEXT, "
    "announced_by TEXT NOT NULL, PRIMARY KEY (import, start_ms)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS site_areas (program TEXT NOT NULL, site TEXT NOT NULL, from_ms INTEGER NOT NULL, "
    "area TEXT NOT NULL, noted_ms INTEGER NOT NULL, who TEXT NOT NULL, PRIMARY KEY (program, site, from_ms, noted_ms)) "
    "WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesKey:
    """A series: of a program, in a price area or a utility's area."""

    program: str
    area: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesImport:
    """What is imported: from which source, by whom, when (UTC)."""

    source: str
    who: str
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedSeries:
    """The version of a series that holds now; not `changed`: the newest import had the same rows of the same source."""

    version: int
    rows: int
    changed: bool


class ProgramSeries:
    """Reads and writes the series in a state directory; blocks. Raises StorageError, CorruptState."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / NAME

    def add_prices(
        self, key: SeriesKey, rows: Sequence[tuple[int, Decimal, str]], about: SeriesImport
    ) -> ImportedSeries:
        """Add prices: start of the hour (UTC ms), price per MWh, currency."""
        texts = [[start_ms, f"{price:f}", currency] for start_ms, price, currency in rows]
        return self._add("price", key, texts, about)

    def add_hours(
        self, key: SeriesKey, rows: Sequence[tuple[int, str | None, str]], about: SeriesImport
    ) -> ImportedSeries:
        """Add official hours: start (UTC ms), type (None = not known), who announced it."""
        return self._add("hour", key, [list(row) for row in rows], about)

    def add_areas(self, program: str, rows: Sequence[SiteArea], about: SeriesImport) -> None:
        """Say in which price area sites are, and from when."""
        with self._open(write=True) as db, transaction(db):
            db.executemany(
                "INSERT OR REPLACE INTO site_areas VALUES (?, ?, ?, ?, ?, ?)",
                [(program, row.site, row.from_ms, row.area, about.now_ms, about.who) for row in rows],
            )

    def prices(self, key: SeriesKey, from_ms: int, until_ms: int) -> list[HourPrice]:
        """The prices that hold, ascending."""
        return [
            HourPrice(start_ms=start_ms, price=Decimal(price), currency=currency, origin=origin)
            for start_ms, price, currency, origin in self._rows("price", key, from_ms, until_ms)
        ]

    def hours(self, key: SeriesKey, from_ms: int, until_ms: int) -> list[OfficialHour]:
        """The official hours that hold, ascending."""
        return [
            OfficialHour(start_ms=start_ms, event_type=kind, announced_by=announced_by, origin=origin)
            for start_ms, kind, announced_by, origin in self._rows("hour", key, from_ms, until_ms)
            if kind is None or kind.casefold() != WITHDRAWN.casefold()
        ]

    def areas(self, program: str, kind: Kind) -> list[str]:
        """The areas of which a program has a series."""
        with self._open() as db:
            found = db.execute(
                "SELECT DISTINCT area FROM series_imports WHERE kind = ? AND program = ? ORDER BY area", (kind, program)
            )
            return [area for (area,) in found]

    def site_areas(self, program: str) -> list[SiteArea]:
        """In which price area each site is, and from when; of one day the newest statement."""
        with self._open() as db:
            return [
                SiteArea(site=site, area=area, from_ms=from_ms)
                for site, area, from_ms, _ in db.execute(
                    "SELECT site, area, from_ms, max(noted_ms) FROM site_areas WHERE program = ? "
                    "GROUP BY site, from_ms ORDER BY site, from_ms",
                    (program,),
                )
            ]

    def sign(self, program: str) -> str:
        """Another text once something was imported for a program, or said of where its sites are."""
        with self._open() as db:
            newest = db.execute("SELECT max(id) FROM series_imports WHERE program = ?", (program,)).fetchone()[0]
            areas = db.execute("SELECT count(*), max(noted_ms) FROM site_areas WHERE program = ?", (program,))
            return f"{newest}/{'/'.join(map(str, areas.fetchone()))}"

    def _add(self, kind: Kind, key: SeriesKey, rows: Sequence[list[object]], about: SeriesImport) -> ImportedSeries:
        text = msgspec.json.encode(rows)
        digest = hashlib.sha256(text).hexdigest()
        series = (kind, key.program, key.area)
        with self._open(write=True) as db, transaction(db):
            newest = db.execute(
                "SELECT version, digest, source FROM series_imports WHERE kind = ? AND program = ? AND area = ? "
                "ORDER BY version DESC LIMIT 1",
                series,
            ).fetchone()
            version = 0 if newest is None else int(newest[0])
            if newest is not None and newest[1:] == (digest, about.source):
                return ImportedSeries(version=version, rows=len(rows), changed=False)
            number = db.execute(
                "INSERT INTO series_imports (kind, program, area, version, source, digest, imported_ms, who) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*series, version + 1, about.source, digest, about.now_ms, about.who),
            ).lastrowid
            db.execute(
                f"INSERT INTO {_TABLES[kind]} SELECT ?, value ->> '$[0]', value ->> '$[1]', value ->> '$[2]' "  # noqa: S608 names of this module
                "FROM json_each(?)",
                (number, text.decode()),
            )
        return ImportedSeries(version=version + 1, rows=len(rows), changed=True)

    def _rows(
        self, kind: Kind, key: SeriesKey, from_ms: int, until_ms: int
    ) -> Iterator[tuple[int, str, str, SeriesOrigin]]:
        columns = "price, currency" if kind == "price" else "event_type, announced_by"
        with self._open() as db:
            # of the rows of a group, max() chooses the one whose other columns are read
            found = db.execute(
                f"SELECT start_ms, {columns}, version, source, imported_ms, max(id) FROM series_imports "  # noqa: S608 names of this module
                f"JOIN {_TABLES[kind]} ON import = id WHERE kind = ? AND program = ? AND area = ? "
                "AND start_ms >= ? AND start_ms < ? GROUP BY start_ms ORDER BY start_ms",
                (kind, key.program, key.area, from_ms, until_ms),
            ).fetchall()
        for start_ms, one, two, version, source, imported_ms, _ in found:
            yield start_ms, one, two, SeriesOrigin(version=version, source=source, imported_ms=imported_ms)

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """One connection; a read creates nothing, and sees nothing of what nobody has written."""
        try:
            if write:
                self._create()
            with closing(self._connected(write=write)) as db:
                found = int(db.execute("PRAGMA user_version").fetchone()[0])
                if found > SCHEMA_VERSION:
                    raise CorruptState(f"{self._path}: schema {found} is newer than {SCHEMA_VERSION}, the newest known")
                yield db
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptState(f"{self._path}: {error}") from error
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error

    def _create(self) -> None:
        if not self._path.exists():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            sync_directory(self._path.parent)

    def _connected(self, *, write: bool) -> sqlite3.Connection:
        if not write and not self._path.exists():
            return _empty()
        address = f"file:{quote(str(self._path.absolute()))}?mode={'rw' if write else 'ro'}"
        db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_S)
        try:
            known = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            whole = known.issuperset(_NAMES)
            if write:
                for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                    db.execute(f"PRAGMA {pragma}").fetchall()
                if not whole:
                    with transaction(db):
                        _make(db)
        except BaseException:
            db.close()
            raise
        if write or whole:
            return db
        db.close()
        return _empty()


def _empty() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    _make(db)
    return db


def _make(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        db.execute(statement)


_TABLES: dict[Kind, str] = {"price": "price_hours", "hour": "official_hours"}
_NAMES = ("series_imports", "price_hours", "official_hours", "site_areas")
