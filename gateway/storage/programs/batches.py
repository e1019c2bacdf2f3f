"""What each commit of facts changed, beside the facts: before and after of every one, and the row of the audit trail
that tells of it, kept until the trail has it. No personal data.

`batches` (number, id, noted_ms, who, door, body, told): one row for each commit that changed something; `body` as the
trail has it. `fact_changes` (batch, place, kind, key, before, after): JSON, null = there was none.
"""

import hashlib
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.domain.journal.changes import AuditDoor
from gateway.ports.programs import FactBatch, FactChange

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS batches (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, noted_ms INTEGER "
    "NOT NULL, who TEXT NOT NULL, door TEXT NOT NULL, body TEXT NOT NULL, told INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX IF NOT EXISTS batches_untold ON batches (number) WHERE told = 0",
    "CREATE TABLE IF NOT EXISTS fact_changes (batch TEXT NOT NULL, place INTEGER NOT NULL, kind TEXT NOT NULL, "
    "key TEXT NOT NULL, before TEXT, after TEXT, PRIMARY KEY (batch, place)) WITHOUT ROWID",
)
FEW = 20
"""Changes that the trail's row holds itself; the others are found by the batch."""

Changed = tuple[str, str, str | None, str | None]
"""Kind, key, before and after, as JSON."""


def before(db: sqlite3.Connection, rows: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, str]]:
    """Revision and body of the facts that stand under these kinds and keys."""
    found = db.execute(
        "SELECT facts.kind, facts.key, revision, body FROM json_each(?) AS asked CROSS JOIN facts "
        "ON facts.kind = asked.value ->> '$[0]' AND facts.key = asked.value ->> '$[1]'",
        (msgspec.json.encode(rows).decode(),),
    )
    return {(kind, key): (revision, body) for kind, key, revision, body in found}


def note(db: sqlite3.Connection, changed: Sequence[Changed], *, now_ms: int, by: str, door: AuditDoor) -> None:
    """Keep what a transaction changes, within it."""
    if not changed:
        return
    batch = secrets.token_hex(8)
    rows = [(batch, place, *one) for place, one in enumerate(changed)]
    db.executemany("INSERT INTO fact_changes (batch, place, kind, key, before, after) VALUES (?, ?, ?, ?, ?, ?)", rows)
    body = {
        "batch": batch,
        "count": len(changed),
        "kinds": dict(sorted(Counter(kind for kind, _, _, _ in changed).items())),
        "sha256": digest(changed),
        "changed": [_plain(one) for one in changed[:FEW]],
    }
    db.execute(
        "INSERT INTO batches (id, noted_ms, who, door, body) VALUES (?, ?, ?, ?, ?)",
        (batch, now_ms, by, door.value, msgspec.json.encode(body).decode()),
    )


def digest(changed: Sequence[Changed]) -> str:
    """SHA-256 over the changes in their order, one JSON array a line."""
    out = hashlib.sha256()
    for one in changed:
        out.update(msgspec.json.encode(one) + b"\n")
    return out.hexdigest()


def untold(db: sqlite3.Connection, limit: int) -> Iterator[FactBatch]:
    """The oldest batches that the trail may not have."""
    for batch, noted_ms, who, door, body in db.execute(
        "SELECT id, noted_ms, who, door, body FROM batches WHERE told = 0 ORDER BY number LIMIT ?", (limit,)
    ):
        yield FactBatch(id=batch, noted_ms=noted_ms, by=who, door=AuditDoor(door), body=msgspec.json.decode(body))


def told(db: sqlite3.Connection, batch: str) -> None:
    """The trail has it, and all before it."""
    db.execute("UPDATE batches SET told = 1 WHERE number <= (SELECT number FROM batches WHERE id = ?)", (batch,))


def changes(db: sqlite3.Connection, batch: str, after: int, limit: int) -> list[FactChange]:
    """What a batch changed, from a place on."""
    found = db.execute(
        "SELECT place, kind, key, before, after FROM fact_changes WHERE batch = ? AND place >= ? "
        "ORDER BY place LIMIT ?",
        (batch, after, limit),
    )
    return [FactChange(place=place, **_plain((kind, key, old, new))) for place, kind, key, old, new in found]


def recount(db: sqlite3.Connection, batch: str) -> str | None:
    """The hash of what is stored of a batch now; None = there is none."""
    found = db.execute("SELECT kind, key, before, after FROM fact_changes WHERE batch = ? ORDER BY place", (batch,))
    rows = found.fetchall()
    return digest(rows) if rows else None


def _plain(one: Changed) -> dict[str, Any]:
    kind, key, old, new = one
    return {"kind": kind, "key": msgspec.json.decode(key), "before": _read(old), "after": _read(new)}


def _read(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
