"""Chains the rows of the audit trail: each carries the hash of itself and of the one before it, so that a row that is
changed, taken out or put in breaks the chain from there on.

The rows at the end can be cut off without a trace in the file, and whoever can write it can write all of it anew: who
keeps a head (the hash of the newest row) outside of it finds out, see `verify`. Rows of releases before have no hash
and are counted apart; the oldest rows are dropped once there are too many, and the hash of the last of those is kept.
Release 0.1 drops rows without keeping it: `begin` takes up the chain behind what it dropped.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from gateway.domain.journal.stored import AuditChain
from gateway.storage.journal.audit_rows import Row

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS audit_dropped (only INTEGER PRIMARY KEY CHECK (only = 1), id INTEGER NOT NULL, "
    "hash TEXT NOT NULL) WITHOUT ROWID",
)
ADDED = {("audit", "hash"): "ALTER TABLE audit ADD COLUMN hash TEXT"}
BEGINNING = "0" * 64
"""The hash before the first row."""
PART = 2_000


def begin(db: sqlite3.Connection) -> None:
    """Call at a start, in a transaction. Where a release that does not know the chain wrote last, it dropped as many of
    the oldest rows as it wrote, at most, and the hash before the oldest that is left is gone: that row goes after them,
    as it would with the next change, and its hash is kept. What else is missing stays so."""
    oldest = db.execute("SELECT id, hash FROM audit ORDER BY id LIMIT 1").fetchone()
    chained = db.execute("SELECT max(id) FROM audit WHERE hash IS NOT NULL").fetchone()[0]
    if oldest is None or oldest[1] is None or chained is None:
        return
    (written,) = db.execute("SELECT count(*) FROM audit WHERE id > ?", (chained,)).fetchone()
    (dropped,) = db.execute("SELECT coalesce((SELECT id FROM audit_dropped), 0)").fetchone()
    if 0 < oldest[0] - dropped - 1 <= written:
        _drop(db, oldest[0])


def append(db: sqlite3.Connection, now_ms: int, rows: Sequence[Row]) -> None:
    """Add rows behind the newest, within a transaction."""
    if not rows:
        return
    newest, head = _newest(db)
    out = []
    for number, (kind, body, who, door) in enumerate(rows, start=newest + 1):
        text = orjson.dumps(body).decode()
        head = _hash(head, number, now_ms, kind, text, who, door)
        out.append((number, now_ms, kind, text, who, door, head))
    # one by one: SQLite's functions of JSON end a text at a NUL
    db.executemany("INSERT INTO audit (id, utc_ms, kind, body, who, door, hash) VALUES (?, ?, ?, ?, ?, ?, ?)", out)


def trim(db: sqlite3.Connection, most: int) -> None:
    """Drop the oldest rows, so that `most` are left."""
    # two questions: one for both reads every row
    found = db.execute("SELECT (SELECT max(id) FROM audit), (SELECT min(id) FROM audit)").fetchone()
    if found[0] is None or found[0] - found[1] < most:
        return
    _drop(db, found[0] - most)


def _drop(db: sqlite3.Connection, last: int) -> None:
    """Drop the rows up to this one, and keep the newest hash among them."""
    db.execute(
        "INSERT OR REPLACE INTO audit_dropped SELECT 1, id, hash FROM audit WHERE id <= ? AND hash IS NOT NULL "
        "ORDER BY id DESC LIMIT 1",
        (last,),
    )
    db.execute("DELETE FROM audit WHERE id <= ?", (last,))


def verify(db: sqlite3.Connection, head: str | None = None) -> AuditChain:
    """Read the whole chain, as it is at one moment. `head`: a hash that somebody kept, which must still be in it."""
    texts, db.text_factory = db.text_factory, _text
    db.execute("BEGIN")
    try:
        return _verified(db, head)
    finally:
        db.execute("COMMIT")
        db.text_factory = texts


def _text(stored: bytes) -> str:
    """A text as it is stored; what is none was not written by us, and has no hash."""
    return stored.decode("utf-8", "surrogateescape")


def _verified(db: sqlite3.Connection, head: str | None) -> AuditChain:
    dropped = db.execute("SELECT id, hash FROM audit_dropped").fetchone()
    before, known = (dropped[1] if dropped else None), head is None or (dropped is not None and dropped[1] == head)
    first = last = None
    rows = unchained = 0
    broken: tuple[int, str] | None = None
    for number, utc_ms, kind, text, who, door, hashed in _rows(db):
        expected = dropped[0] + 1 if dropped else 1
        if last is not None:
            expected = last + 1
        elif hashed is None:
            # a release before dropped rows without a trace
            expected = number
        first = number if first is None else first
        last, rows, unchained = number, rows + 1, unchained + (hashed is None)
        if number != expected:
            broken = number, f"rows {expected} to {number - 1} are missing"
        elif hashed is not None and not _is_hash(hashed, before, number, utc_ms, kind, text, who, door):
            broken = number, "it is not what was written, or not behind what was written before it"
        if broken is not None:
            break
        before = hashed or before
        known |= hashed is not None and hashed == head
    if broken is None and not known:
        broken = last or 0, "the head that was given is not in the trail: newer rows were cut off, or all written anew"
    return AuditChain(rows=rows, unchained=unchained, first=first, last=last, head=before, broken=broken)


def _newest(db: sqlite3.Connection) -> tuple[int, str]:
    """The number of the newest row, and the newest hash."""
    newest = db.execute("SELECT max(id) FROM audit").fetchone()[0]
    found = db.execute("SELECT hash FROM audit WHERE hash IS NOT NULL ORDER BY id DESC LIMIT 1").fetchone()
    dropped = db.execute("SELECT id, hash FROM audit_dropped").fetchone() or (0, BEGINNING)
    return (dropped[0] if newest is None else newest), (dropped[1] if found is None else found[0])


def _rows(db: sqlite3.Connection) -> Iterator[tuple[int, int, str, str, str | None, str | None, str | None]]:
    after = 0
    while True:
        part = db.execute(
            "SELECT id, utc_ms, kind, body, who, door, hash FROM audit WHERE id > ? ORDER BY id LIMIT ?", (after, PART)
        ).fetchall()
        if not part:
            return
        yield from part
        after = part[-1][0]


def _is_hash(hashed: str, before: str | None, *row: Any) -> bool:
    """Whether this is the hash of such a row."""
    try:
        return hashed == _hash(before or BEGINNING, *row)
    except TypeError:
        return False


def _hash(
    before: str, number: int, utc_ms: int, kind: str, text: str, who: str | None, door: str | None
) -> str:  # fmt: skip
    return hashlib.sha256(orjson.dumps([before, number, utc_ms, kind, text, who, door])).hexdigest()
