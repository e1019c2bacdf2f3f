"""Stores settlement messages that nobody could take when they came, as they came, in their order.

One SQLite file in the state directory (`raw.sqlite`; WAL, synchronous=FULL), used from a thread of its own. `raw` (id,
topic, received_ms, problem, payload): `problem` is '' where a message could be read but for its device. A file that is
damaged, or of another version, is set aside and a new one begun, at a start and whenever that shows: settlement of the
whole fleet would wait for it.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from gateway.domain.errors import StorageError
from gateway.domain.readings import RawMessage
from gateway.observability.parts import Part

log = logging.getLogger(__name__)

T = TypeVar("T")

NAME = "raw.sqlite"
OVERHEAD_BYTES = 64
"""What a message takes beside its topic and payload, about."""
VACUUM_PAGES = 4_096
"""Go back to the disk at once, at most."""
FEW_TOPICS = 64
"""Of so many, the index finds the messages; of more, a walk through all of them does."""

_SCHEMA = """
create table if not exists raw (id integer primary key, topic text not null, received_ms integer not null,
  problem text not null, payload blob not null);
create index if not exists raw_topic on raw (topic, id);
"""
_BYTES = f"length(topic) + length(payload) + {OVERHEAD_BYTES}"
_COLUMNS = "id, topic, received_ms, problem, payload"


def stored_bytes(message: RawMessage) -> int:
    """What a message takes on the disk, about."""
    return len(message.topic) + len(message.payload) + OVERHEAD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRaw:
    """A message as stored; `id` grows in the order of receipt."""

    id: int
    received_ms: int
    message: RawMessage


@dataclass(slots=True, kw_only=True)
class TopicTotals:
    """What is stored of a topic: messages, those of them that cannot be read, bytes, and when the first and the newest
    came (UTC ms)."""

    messages: int = 0
    unreadable: int = 0
    bytes: int = 0
    since_ms: int = 0
    newest_ms: int = 0


class RawStore(Part):
    """The file. Every method raises StorageError. Use as an async context manager."""

    component = "telemetry"

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / NAME
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="raw-messages")
        self.begun = 0
        """Files that were set aside so far: with each, nothing is stored any more."""
        self._db: sqlite3.Connection | None = None
        self._set_aside: Path | None = None

    async def totals(self) -> dict[str, TopicTotals]:
        """What is stored, by topic."""
        return await self._ask(_totals)

    async def add(self, messages: Sequence[RawMessage], received_ms: int) -> None:
        """Store messages durably."""
        rows = [(one.topic, received_ms, one.problem, one.payload) for one in messages]
        await self._ask(lambda db: _add(db, rows))

    async def waiting(self, topics: Sequence[str], after: int, limit: int) -> list[StoredRaw]:
        """The next messages of these topics that wait for their device, in their order."""
        # a plus keeps SQLite from the index
        term = "topic" if len(topics) <= FEW_TOPICS else "+topic"
        sql = (
            f"select {_COLUMNS} from raw where {term} in (select value from json_each(?)) "  # noqa: S608
            "and problem = '' and id > ? order by id limit ?"
        )
        return await self._ask(lambda db: _rows(db.execute(sql, (orjson.dumps(list(topics)).decode(), after, limit))))

    async def unreadable(self, after: int, until: int, limit: int) -> list[StoredRaw]:
        """The next messages that could not be read, of all topics."""
        sql = f"select {_COLUMNS} from raw where id > ? and id <= ? and problem != '' order by id limit ?"  # noqa: S608
        return await self._ask(lambda db: _rows(db.execute(sql, (after, until, limit))))

    async def newest(self, topic: str, limit: int) -> list[StoredRaw]:
        """The newest messages of a topic, newest first."""
        sql = f"select {_COLUMNS} from raw where topic = ? order by id desc limit ?"  # noqa: S608
        return await self._ask(lambda db: _rows(db.execute(sql, (topic, limit))))

    async def last_id(self) -> int:
        """The number of the newest message; 0 = none."""
        return await self._ask(lambda db: int(db.execute("select coalesce(max(id), 0) from raw").fetchone()[0]))

    async def finish(self, read: Sequence[int], problems: Sequence[tuple[int, str]] = ()) -> None:
        """Forget messages that were read and are durable elsewhere, and note why others cannot be."""
        await self._ask(lambda db: _finish(db, read, problems))

    async def discard(self, topic: str) -> None:
        """Forget all messages of a topic."""
        await self._ask(lambda db: _discard(db, topic))

    def warnings(self) -> list[str]:
        if self._set_aside is None:
            return []
        return [f"telemetry: raw messages could not be read; the file is kept as {self._set_aside.name}"]

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=True)

    async def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    # Below: the store's thread.

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._db is None:
                self._db = self._open()
            return work(self._db)
        except sqlite3.Error as error:
            if _damaged(error):
                self._begin_anew(error)
            elif self._db is not None and self._db.in_transaction:
                self._db.rollback()
            raise StorageError(f"{self.path.name}: {error}") from error
        except OSError as error:
            raise StorageError(f"{self.path.name}: {error.strerror or error}") from error

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except sqlite3.Error as error:
            if not _damaged(error) and _code(error) != sqlite3.SQLITE_ERROR:
                raise
            self._begin_anew(error)
            return _connect(self.path)

    def _begin_anew(self, error: sqlite3.Error) -> None:
        self._close()
        self._set_aside = _aside(self.path)
        self.begun += 1
        log.error("raw messages cannot be read", extra={"error": str(error), "kept": self._set_aside.name})

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _code(error: sqlite3.Error) -> int:
    """The primary result code; errors of the `sqlite3` module itself have none (0)."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _damaged(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        # pages of messages that were read go back to the disk
        db.execute("pragma auto_vacuum = incremental")
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        db.executescript(_SCHEMA)
        db.execute(f"select {_COLUMNS} from raw limit 1").fetchone()  # noqa: S608
    except sqlite3.Error:
        db.close()
        raise
    return db


def _aside(path: Path) -> Path:
    """Keep what is damaged under a name that is free."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}.corrupt")).exists():
        number += 1
    path.rename(aside)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        # the newest messages may be in there alone
        wal.rename(aside.with_name(aside.name + "-wal"))
    return aside


def _totals(db: sqlite3.Connection) -> dict[str, TopicTotals]:
    found = db.execute(
        f"select topic, count(*), sum(problem != ''), sum({_BYTES}), min(received_ms), max(received_ms) "  # noqa: S608
        "from raw group by topic"
    )
    return {
        topic: TopicTotals(messages=messages, unreadable=unreadable, bytes=size, since_ms=since, newest_ms=newest)
        for topic, messages, unreadable, size, since, newest in found
    }


def _rows(found: sqlite3.Cursor) -> list[StoredRaw]:
    return [
        StoredRaw(id=number, received_ms=received_ms, message=RawMessage(topic=topic, payload=payload, problem=problem))
        for number, topic, received_ms, problem, payload in found
    ]


def _add(db: sqlite3.Connection, rows: Sequence[tuple[str, int, str, bytes]]) -> None:
    db.execute("begin immediate")
    db.executemany("insert into raw (topic, received_ms, problem, payload) values (?, ?, ?, ?)", rows)
    db.execute("commit")


def _finish(db: sqlite3.Connection, read: Sequence[int], problems: Sequence[tuple[int, str]]) -> None:
    db.execute("begin immediate")
    db.execute("delete from raw where id in (select value from json_each(?))", (orjson.dumps(list(read)).decode(),))
    db.executemany("update raw set problem = ? where id = ?", [(problem, number) for number, problem in problems])
    db.execute("commit")
    _give_back(db)


def _discard(db: sqlite3.Connection, topic: str) -> None:
    db.execute("delete from raw where topic = ?", (topic,))
    _give_back(db)


def _give_back(db: sqlite3.Connection) -> None:
    """Give free pages back to the disk. What was committed before stands, also where this fails."""
    with contextlib.suppress(sqlite3.OperationalError):
        # `execute` would stop after the first page
        db.executescript(f"pragma incremental_vacuum({VACUUM_PAGES})")
