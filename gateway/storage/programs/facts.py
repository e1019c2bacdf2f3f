"""Facts about enrollments, customers and consents, in `programs.sqlite` in the state directory.

`facts` (id, kind, key, revision, subject, customer, program, from_ms, noted_ms, who, door, body): one row per key of a
kind, that of the highest revision; `key` is a JSON array, `body` the whole fact as JSON. `customers` (ref, since_ms,
erased_ms, erased_by): references alone, see `personal`. A commit is one transaction; what it changed is in `batches`.
Where the file cannot be read the gateway runs all the same, knows nobody's consent, and says so.
"""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.clock import Clock
from gateway.domain.errors import CorruptState, GatewayError, StorageError
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.facts import (
    Consent,
    Enrollment,
    Fact,
    Holding,
    MeterDevice,
    OwnerPreference,
    Payee,
    Withdrawal,
)
from gateway.observability.parts import Part
from gateway.ports.programs import CustomerReference, FactBatch, FactChange, FactQuestion, LoadFact, StoredFact
from gateway.storage.programs import batches
from gateway.storage.sqlite_thread import SqliteThread, transaction

log = logging.getLogger(__name__)

NAME = "programs.sqlite"
SCHEMA_VERSION = 1
ROWS = 500
"""Go into one statement: while it is prepared nothing else runs."""

_KINDS: dict[str, type[Fact]] = {
    "enrollment": Enrollment,
    "preference": OwnerPreference,
    "holding": Holding,
    "payee": Payee,
    "meter_device": MeterDevice,
    "consent": Consent,
    "withdrawal": Withdrawal,
}
_KIND_OF = {of: name for name, of in _KINDS.items()}

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS facts (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, "
    "revision INTEGER NOT NULL, subject TEXT NOT NULL, customer TEXT NOT NULL, program TEXT NOT NULL, "
    "from_ms INTEGER NOT NULL, noted_ms INTEGER NOT NULL, who TEXT NOT NULL, door TEXT NOT NULL, body TEXT NOT NULL, "
    "UNIQUE (kind, key))",
    "CREATE INDEX IF NOT EXISTS facts_subject ON facts (subject)",
    "CREATE INDEX IF NOT EXISTS facts_customer ON facts (customer)",
    "CREATE TABLE IF NOT EXISTS customers (ref TEXT PRIMARY KEY, since_ms INTEGER NOT NULL, erased_ms INTEGER, "
    "erased_by TEXT) WITHOUT ROWID",
    *batches.SCHEMA,
)

_PUT = (
    "INSERT INTO facts (kind, key, revision, subject, customer, program, from_ms, noted_ms, who, door, body) "
    "SELECT value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', value ->> '$[3]', value ->> '$[4]', "
    "value ->> '$[5]', value ->> '$[6]', ?, ?, ?, value -> '$[7]' FROM json_each(?) WHERE true "
    "ON CONFLICT (kind, key) DO UPDATE SET "
    "revision = excluded.revision, subject = excluded.subject, customer = excluded.customer, "
    "program = excluded.program, from_ms = excluded.from_ms, noted_ms = excluded.noted_ms, who = excluded.who, "
    "door = excluded.door, body = excluded.body WHERE excluded.revision > facts.revision"
)


class SqliteFacts(Part):
    """Implements `gateway.ports.FactStore`. `decides`: somebody's dispatch rests on it, so that without it the gateway
    is not ready. Call `load` first and `close` at the end; both block."""

    component = "programs"

    def __init__(self, state_dir: Path, *, clock: Clock, decides: bool = True) -> None:
        self._clock = clock
        self._decides = decides
        self._file = SqliteThread(state_dir / NAME, name="programs", schema=_SCHEMA, version=SCHEMA_VERSION)
        self._revision = 0
        self._unreadable = ""

    def load(self, add: LoadFact) -> None:
        """Open the file (or create it) and hand over every fact. A file that cannot be read is left as it is, and
        nothing is written to it."""
        try:
            self._revision = self._file.now(lambda db: _load(db, add))
        except GatewayError as error:
            self._unreadable = str(error)
            log.error("enrollments cannot be read", extra={"error": str(error)})

    def revision(self) -> int:
        self._revision += 1
        return self._revision

    async def commit(
        self,
        facts: Sequence[Fact],
        *,
        by: str,
        door: AuditDoor,
        customers: Sequence[str] = (),
        people: Sequence[str] = (),
    ) -> None:
        self._check()
        now_ms = self._clock.now().utc_ms
        await self._file.ask(lambda db: _commit(db, facts, customers, people, now_ms=now_ms, by=by, door=door))

    async def untold(self, limit: int) -> list[FactBatch]:
        self._check()
        return await self._file.ask(lambda db: list(batches.untold(db, limit)))

    async def told(self, batch: str) -> None:
        self._check()
        await self._file.ask(lambda db: batches.told(db, batch))

    async def changes(self, batch: str, after: int, limit: int) -> list[FactChange]:
        self._check()
        return await self._file.ask(lambda db: batches.changes(db, batch, after, limit))

    async def digest(self, batch: str) -> str | None:
        self._check()
        return await self._file.ask(lambda db: batches.recount(db, batch))

    async def facts(self, question: FactQuestion, limit: int) -> list[StoredFact]:
        self._check()
        return await self._file.ask(lambda db: list(_facts(db, question, limit)))

    async def customers(self, after: str, limit: int, *, only: str | None = None) -> list[CustomerReference]:
        self._check()
        return await self._file.ask(
            lambda db: [
                CustomerReference(ref=ref, since_ms=since_ms, erased_ms=erased_ms)
                for ref, since_ms, erased_ms in db.execute(
                    "SELECT ref, since_ms, erased_ms FROM customers WHERE ref > ? AND ref = coalesce(?, ref) "
                    "ORDER BY ref LIMIT ?",
                    (after, only, limit),
                )
            ]
        )

    async def note_erased(self, ref: str, *, by: str, door: AuditDoor) -> bool:
        self._check()
        now_ms = self._clock.now().utc_ms
        return await self._file.ask(lambda db: _note_erased(db, ref, now_ms, by, door))

    def reasons(self) -> list[str]:
        return self._said() if self._decides else []

    def warnings(self) -> list[str]:
        return [] if self._decides else self._said()

    def close(self) -> None:
        self._file.close()

    def _said(self) -> list[str]:
        return [f"enrollments cannot be read: {self._unreadable}"] if self._unreadable else []

    def _check(self) -> None:
        if self._unreadable:
            raise StorageError(self._unreadable)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """What a fact is about, for questions; "" = it names none."""

    subject: str = ""
    customer: str = ""
    program: str = ""
    from_ms: int = 0


def _names(fact: Fact) -> _Names:
    match fact:
        case Enrollment() | OwnerPreference():
            return _Names(subject=fact.subject.id, program=fact.program, from_ms=fact.from_ms)
        case Holding():
            return _Names(subject=fact.subject.id, customer=fact.customer, from_ms=fact.from_ms)
        case Payee():
            return _Names(subject=fact.subject.id, from_ms=fact.from_ms)
        case MeterDevice():
            return _Names(subject=fact.device, from_ms=fact.from_ms)
        case Consent():
            return _Names(customer=fact.customer, program=fact.program, from_ms=fact.given_ms)
        case Withdrawal():
            return _Names(customer=fact.customer, program=fact.program, from_ms=fact.at_ms)


# Below: the file's thread.


def _load(db: sqlite3.Connection, add: LoadFact) -> int:
    newest = 0
    for kind, revision, body in db.execute("SELECT kind, revision, body FROM facts ORDER BY id"):
        add(read_fact(kind, body))
        newest = max(newest, revision)
    return newest


def read_fact(kind: str, body: str) -> Fact:
    """A fact out of its row. Raises CorruptState."""
    try:
        return msgspec.json.decode(body, type=_KINDS[kind])
    except (KeyError, msgspec.MsgspecError, GatewayError) as error:
        raise CorruptState(f"{NAME}: a fact of the kind {kind} cannot be read: {error}") from error


def _commit(
    db: sqlite3.Connection,
    facts: Sequence[Fact],
    refs: Sequence[str],
    people: Sequence[str],
    *,
    now_ms: int,
    by: str,
    door: AuditDoor,
) -> None:
    customers = set(refs)
    changed: list[batches.Changed] = []
    with transaction(db):
        for begin in range(0, len(facts), ROWS):
            rows: list[list[Any]] = []
            for fact in facts[begin : begin + ROWS]:
                names = _names(fact)
                rows.append(
                    [_KIND_OF[type(fact)], msgspec.json.encode(fact.key).decode(), fact.revision, names.subject,
                     names.customer, names.program, names.from_ms, msgspec.to_builtins(fact)]
                )  # fmt: skip
                if names.customer:
                    customers.add(names.customer)
            changed += _changed(db, rows)
            db.execute(_PUT, (now_ms, by, door.value, msgspec.json.encode(rows).decode()))
        some = sorted(customers)
        for begin in range(0, len(some), ROWS):
            added = db.execute(
                "INSERT OR IGNORE INTO customers (ref, since_ms) SELECT value, ? FROM json_each(?) RETURNING ref",
                (now_ms, msgspec.json.encode(some[begin : begin + ROWS]).decode()),
            ).fetchall()
            changed += [("customer", _key(ref), None, None) for (ref,) in added]
        changed += [("personal", _key(ref), None, None) for ref in sorted(people)]
        batches.note(db, changed, now_ms=now_ms, by=by, door=door)


def _changed(db: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> Iterator[batches.Changed]:
    """Before and after of rows that are about to be put, of which no two have one key."""
    known = batches.before(db, [(kind, key) for kind, key, *_ in rows])
    for kind, key, revision, *_, body in rows:
        old_revision, old = known.get((kind, key), (-1, None))
        if revision > old_revision:
            yield kind, key, old, msgspec.json.encode(body).decode()


def _key(ref: str) -> str:
    return msgspec.json.encode([ref]).decode()


def _facts(db: sqlite3.Connection, question: FactQuestion, limit: int) -> Iterator[StoredFact]:
    names = (("program", question.program), ("subject", question.subject), ("customer", question.customer))
    named = [(column, value) for column, value in names if value is not None]
    kinds = [_KIND_OF[kind] for kind in question.kinds]
    where = "".join(f" AND {column} = ?" for column, _ in named)
    found = db.execute(
        "SELECT id, kind, body, noted_ms, who, door FROM facts WHERE id > ? "  # noqa: S608
        f"AND kind IN ({', '.join('?' * len(kinds))}){where} ORDER BY id LIMIT ?",
        (question.after, *kinds, *(value for _, value in named), limit),
    )
    for number, kind, body, noted_ms, who, door in found:
        yield StoredFact(id=number, fact=read_fact(kind, body), noted_ms=noted_ms, by=who, door=door)


def _note_erased(db: sqlite3.Connection, ref: str, now_ms: int, by: str, door: AuditDoor) -> bool:
    with transaction(db):
        known = db.execute(
            "UPDATE customers SET erased_ms = coalesce(erased_ms, ?), erased_by = coalesce(erased_by, ?) WHERE ref = ?",
            (now_ms, by, ref),
        ).rowcount
        if known:
            batches.note(db, [("erased", _key(ref), None, None)], now_ms=now_ms, by=by, door=door)
        return known > 0
