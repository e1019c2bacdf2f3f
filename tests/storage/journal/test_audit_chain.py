"""The audit trail is a chain: what is changed, taken out, put in or cut off is found; what we write is whole."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import TargetGroup
from gateway.domain.journal.changes import (
    DeviceRegistered,
    DeviceRemoved,
    ExclusionLifted,
    ExclusionSet,
    Quarantined,
    ReserveChanged,
    StopAll,
    Trusted,
)
from gateway.domain.journal.stored import AuditChain, AuditQuestion
from gateway.domain.types import DeviceId
from gateway.storage.journal import audit_chain
from tests.storage.journal.test_audit import Trail
from tests.storage.journal.test_journal import device

A = DeviceId("a")
STORM = Exclusion(id="h", reason="storm", group=TargetGroup(all=True), from_ms=0, until_ms=None, by="me")


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[Trail]:
    made = Trail(tmp_path / "journal.sqlite")
    yield made
    made.store.close()
    made.journal.close()


async def several(trail: Trail, count: int = 10) -> AuditChain:
    for number in range(count):
        await trail.journal.commit([StopAll(active=bool(number % 2), by=f"op-{number}")])
    return await trail.store.chain()


async def test_chain_of_what_was_written_is_whole_and_has_a_head(trail: Trail) -> None:
    found = await several(trail)
    assert (found.broken, found.rows, found.unchained, found.first, found.last) == (None, 10, 0, 1, 10)
    assert found.head is not None
    assert (await trail.store.chain(found.head)).broken is None


async def test_chain_goes_on_over_a_restart_and_where_the_oldest_rows_are_dropped(trail: Trail) -> None:
    await several(trail, 40)
    kept = (await trail.store.chain()).head
    trail.journal.close()
    again = Trail(trail.path)
    found = await several(again, 40)
    assert (found.broken, found.rows, found.first, found.last) == (None, 50, 31, 80)
    assert (await again.store.chain(kept)).broken is None, "the head of before is still in it"
    await several(again, 60)
    assert (await again.store.chain(kept)).broken is not None, "it is among the dropped"
    again.store.close()
    again.journal.close()


TAMPERED = {
    "another name": "UPDATE audit SET who = 'somebody' WHERE id = 5",
    "another time": "UPDATE audit SET utc_ms = utc_ms + 1 WHERE id = 5",
    "another body": "UPDATE audit SET body = replace(body, 'true', 'false') WHERE id = 6",
    "another kind": "UPDATE audit SET kind = 'trusted' WHERE id = 1",
    "another door": "UPDATE audit SET door = NULL WHERE id = 10",
    "without its hash": "UPDATE audit SET who = 'somebody', hash = NULL WHERE id = 5",
    "one less": "DELETE FROM audit WHERE id = 5",
    "without the first": "DELETE FROM audit WHERE id = 1",
    "two exchanged": "UPDATE audit SET id = 5 - id WHERE id IN (5, 6); UPDATE audit SET id = id + 6 WHERE id <= 0",
    "moved up": "DELETE FROM audit WHERE id = 1; UPDATE audit SET id = id - 1",
    "what is no text": "UPDATE audit SET who = CAST(x'ff' AS TEXT) WHERE id = 5",
    "bytes for a text": "UPDATE audit SET body = x'00' WHERE id = 5",
    "bytes for a hash": "UPDATE audit SET hash = x'00' WHERE id = 5",
    "one more": "INSERT INTO audit (utc_ms, kind, body, who, door, hash) SELECT utc_ms, kind, body, who, door, hash "
                "FROM audit WHERE id = 10",
}  # fmt: skip


@pytest.mark.parametrize("how", TAMPERED)
async def test_chain_that_somebody_tampered_with_is_broken(trail: Trail, how: str) -> None:
    await several(trail)
    with closing(sqlite3.connect(trail.path)) as db:
        db.executescript(TAMPERED[how])
    assert (await trail.store.chain()).broken is not None


async def test_rows_that_are_cut_off_are_missed_by_who_kept_the_head(trail: Trail) -> None:
    head = (await several(trail)).head
    with closing(sqlite3.connect(trail.path)) as db:
        db.executescript("DELETE FROM audit WHERE id > 8")
    assert (await trail.store.chain()).broken is None
    found = await trail.store.chain(head)
    assert found.broken is not None
    assert "cut off" in found.broken[1]


async def test_rows_of_a_release_before_are_counted_and_the_chain_begins_behind_them(trail: Trail) -> None:
    """And between, where that release had the file for a while."""
    with closing(sqlite3.connect(trail.path)) as db:
        row = "INSERT INTO audit (id, utc_ms, kind, body) VALUES (?, 7, 'stop_all', '{}')"
        db.executemany(row, [(number,) for number in range(100, 104)])
        db.commit()
        await several(trail, 3)
        db.execute(row, (None,))
        db.commit()
    found = await several(trail, 3)
    assert (found.broken, found.rows, found.unchained, found.first) == (None, 11, 5, 100)


def by_the_release_before(path: Path, count: int, most: int = 50) -> None:
    """Rows as release 0.1 writes them, which drops the oldest ones."""
    with closing(sqlite3.connect(path)) as db:
        for _ in range(count):
            db.execute("INSERT INTO audit (utc_ms, kind, body) VALUES (7, 'stop_all', '{}')")
            db.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (most,))
        db.commit()


@pytest.mark.parametrize("count", [1, 5, 49, 50, 60])
@pytest.mark.parametrize("before", [30, 50, 80])
async def test_full_trail_that_a_release_before_wrote_on_is_whole_at_the_next_start(
    tmp_path: Path, before: int, count: int
) -> None:
    path = tmp_path / "journal.sqlite"
    first = Trail(path)
    await several(first, before)
    first.store.close()
    first.journal.close()
    by_the_release_before(path, count)
    again = Trail(path)
    found = await again.store.chain()
    assert (found.broken, found.unchained) == (None, min(count, 50))
    kept = found.head
    assert (await several(again, 3)).broken is None
    assert (await again.store.chain(kept)).broken is None or count > 45
    # and what somebody takes out then is missed
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DELETE FROM audit WHERE id = (SELECT min(id) FROM audit WHERE hash IS NOT NULL)")
    again.store.close()
    again.journal.close()
    last = Trail(path)
    assert (await last.store.chain()).broken is not None
    last.store.close()
    last.journal.close()


async def test_more_than_a_release_before_can_have_dropped_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    first = Trail(path)
    await several(first, 50)
    first.store.close()
    first.journal.close()
    by_the_release_before(path, 3)
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DELETE FROM audit WHERE id <= 4")
    again = Trail(path)
    assert (await again.store.chain()).broken is not None
    again.store.close()
    again.journal.close()


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 7), max_size=20),
    most=st.integers(1, 12),
    texts=st.lists(st.text(max_size=9), min_size=1),
)
def test_chain_is_whole_whatever_is_written_and_dropped(sizes: list[int], most: int, texts: list[str]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(
            "CREATE TABLE audit (id INTEGER PRIMARY KEY, utc_ms INTEGER, kind TEXT, body TEXT, who TEXT, door TEXT)"
        )
        db.execute(audit_chain.ADDED["audit", "hash"])
        db.execute(audit_chain.SCHEMA[0])
        for at, size in enumerate(sizes):
            rows = [("k", {"x": texts[i % len(texts)]}, texts[0], "rest") for i in range(size)]
            audit_chain.append(db, at, rows)
            audit_chain.trim(db, most)
            found = audit_chain.verify(db)
            assert (found.broken, found.unchained) == (None, 0)
            assert found.rows <= most


async def test_rows_that_are_dropped_while_the_trail_is_read_are_not_missing(trail: Trail) -> None:
    await several(trail, 50)
    with closing(sqlite3.connect(trail.path)) as db, closing(sqlite3.connect(trail.path)) as other:
        asked: list[str] = []

        def drops(question: str) -> None:
            """Before the second question, as a commit does it."""
            asked.append(question)
            if sum(one.startswith("SELECT") for one in asked) == 2 and not other.total_changes:
                audit_chain.trim(other, 40)
                other.commit()

        db.set_trace_callback(drops)
        assert audit_chain.verify(db).broken is None
        assert other.total_changes
        db.set_trace_callback(None)
        found = audit_chain.verify(db)
        assert (found.broken, found.rows) == (None, 40)


@pytest.mark.parametrize("who", ["room: a\0b", "\0", "\x7f\u2028"])
async def test_chain_is_whole_whatever_characters_a_name_has(trail: Trail, who: str) -> None:
    await trail.journal.commit([StopAll(active=True, by=who)])
    assert (await several(trail, 1)).broken is None
    (*_, first) = await trail.store.audit(AuditQuestion(), 10)
    assert first.by == who


def steps_of_dropping(rows: int) -> int:
    """How often SQLite reports a hundred steps while one row too many is dropped."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(
            "CREATE TABLE audit (id INTEGER PRIMARY KEY, utc_ms INTEGER, kind TEXT, body TEXT, who TEXT, door TEXT)"
        )
        db.execute(audit_chain.ADDED["audit", "hash"])
        db.execute(audit_chain.SCHEMA[0])
        audit_chain.append(db, 0, [("k", {}, "me", "rest")] * (rows + 1))
        reports: list[None] = []
        db.set_progress_handler(lambda: reports.append(None), 100)
        audit_chain.trim(db, rows)
        db.set_progress_handler(None, 0)
        assert db.execute("SELECT count(*) FROM audit").fetchone() == (rows,)
        return len(reports)


def test_dropping_the_oldest_rows_reads_no_others() -> None:
    """Every commit does it."""
    assert steps_of_dropping(5_000) <= steps_of_dropping(50) + 1


# -- what was so before --------------------------------------------------------------------------------------


async def bodies(trail: Trail) -> dict[str, dict[str, object]]:
    """The newest body of each kind."""
    found = await trail.store.audit(AuditQuestion(), 100)
    return {entry.kind: dict(entry.body) for entry in reversed(found)}


async def test_trail_says_what_was_so_before_a_change(trail: Trail) -> None:
    journal = trail.journal
    known = device("a")
    await journal.commit([DeviceRegistered(device=known)])
    await journal.commit([DeviceRegistered(device=replace(known, site="elsewhere", tags=("new",)))])
    told = await bodies(trail)
    assert told["device_enrolled"]["changed"] == {
        "a": {"site": [known.site, "elsewhere"], "tags": [list(known.tags), ["new"]]}
    }
    await journal.commit([ReserveChanged(devices=(A,), reserve_pct=(60.0,), source="device")])
    await journal.commit([ReserveChanged(devices=(A,), reserve_pct=(30.0,), source="device")])
    assert (await bodies(trail))["reserve_changed"]["before"] == {"a": 60.0}
    await journal.commit([ExclusionSet(exclusion=STORM)])
    await journal.commit([ExclusionSet(exclusion=replace(STORM, reason="opt_out", by="you"))])
    before = (await bodies(trail))["hold_set"]["before"]
    assert isinstance(before, dict)
    assert (before["reason"], before["by"]) == ("storm", "me")
    await journal.commit([ExclusionLifted(id="h")])
    lifted = (await bodies(trail))["hold_lifted"]["before"]
    assert isinstance(lifted, dict)
    assert lifted["reason"] == "opt_out"
    await journal.commit([StopAll(active=True, by="x")])
    await journal.commit([StopAll(active=True, by="y")])
    assert (await bodies(trail))["stop_all"]["before"] is True
    await journal.commit([Quarantined(names=("a",), reason="stuck")])
    await journal.commit([Trusted(names=("a",), reason="seen")])
    assert (await bodies(trail))["trusted"]["before"] == {"a": "stuck"}
    await journal.commit([DeviceRemoved(device=A)])
    gone = (await bodies(trail))["device_removed"]["before"]
    assert isinstance(gone, dict)
    assert gone["a"]["site"] == "elsewhere"


async def test_trail_of_many_devices_at_once_stays_small(trail: Trail) -> None:
    many = [DeviceRegistered(device=device(f"d{number}")) for number in range(500)]
    await trail.journal.commit(many)
    await trail.journal.commit([replace(one, device=replace(one.device, site="s")) for one in many])
    body = (await bodies(trail))["device_enrolled"]
    assert body["count"] == 500
    assert "changed" not in body
