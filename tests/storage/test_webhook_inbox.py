"""Messages of webhooks are kept as they came, until they are carried out and within bounds after that."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.domain.errors import StorageError
from gateway.storage import webhook_inbox
from gateway.storage.webhook_inbox import NAME, WebhookInbox


async def test_message_waits_over_a_restart_until_it_is_carried_out(tmp_path: Path) -> None:
    async with WebhookInbox(tmp_path) as inbox:
        first, second = (await inbox.keep("a", 5, b"1")).id, (await inbox.keep("b", 6, b"\xff")).id
        await inbox.finish(first, "refused", ["/x: missing"])
    async with WebhookInbox(tmp_path) as inbox:
        (left,) = await inbox.waiting()
        assert (left.id, left.source, left.received_ms, left.payload, left.outcome) == (second, "b", 6, b"\xff", "")
        (told,) = await inbox.newest("a", 10)
        assert (told.outcome, told.problems, told.payload) == ("refused", ("/x: missing",), b"1")
    assert (tmp_path / NAME).stat().st_mode & 0o077 == 0


async def test_refused_messages_push_out_none_that_were_taken_and_none_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_inbox, "KEPT_MAX", 3)
    monkeypatch.setattr(webhook_inbox, "KEPT_BYTES_MAX", 25)
    async with WebhookInbox(tmp_path) as inbox:
        waiting = (await inbox.keep("a", 0, b"wait")).id
        await inbox.finish((await inbox.keep("a", 1, b"good")).id, "done")
        for i in range(10):
            await inbox.finish((await inbox.keep("a", 2 + i, b"bad")).id, "refused")
        found = await inbox.newest("a", 100)
        assert [one.received_ms for one in found] == [11, 10, 9, 1, 0]
        await inbox.finish((await inbox.keep("a", 20, b"x" * 20)).id, "refused")
        await inbox.finish((await inbox.keep("a", 21, b"y" * 20)).id, "refused")
        assert [one.received_ms for one in await inbox.newest("a", 100)] == [21, 1, 0]
        assert [one.id for one in await inbox.waiting()] == [waiting]


async def test_damaged_file_is_kept_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no database at all, whatever its name says" * 100)
    async with WebhookInbox(tmp_path) as inbox:
        with pytest.raises(StorageError):
            await inbox.keep("a", 1, b"1")
        assert (await inbox.keep("a", 1, b"1")).id == 1
        assert inbox.warnings() == [f"webhooks: messages could not be read; the file is kept as {NAME}.1.corrupt"]


async def test_file_from_before_messages_had_ids_is_read_and_those_after_a_message_are_found(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as db:
        db.execute(
            "CREATE TABLE kept (id INTEGER PRIMARY KEY, source TEXT NOT NULL, received_ms INTEGER NOT NULL, "
            "outcome TEXT NOT NULL DEFAULT '', problems TEXT NOT NULL DEFAULT '[]', payload BLOB NOT NULL)"
        )
        db.execute("INSERT INTO kept (source, received_ms, payload) VALUES ('a', 1, x'31')")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    async with WebhookInbox(tmp_path) as inbox:
        (left,) = await inbox.waiting()
        assert (left.payload, left.message_id, left.issued_ms) == (b"1", None, None)
        first = await inbox.keep("a", 2, b"2", message_id="m", issued_ms=7)
        await inbox.keep("b", 3, b"3", message_id="m", issued_ms=7)
        last = await inbox.keep("a", 4, b"4", message_id="n", issued_ms=8)
        again = await inbox.keep("a", 5, b"2", message_id="m", issued_ms=7)
    async with WebhookInbox(tmp_path) as inbox:
        assert (await inbox.waiting())[1] == first
        assert await inbox.after("a", "m") == [again, last]
        assert await inbox.after("a", "o") == []
