"""Registrations through the outbox: never taken from another by mistake, read back, and the header in no row."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.domain.journal.changes import OutboxChanged
from gateway.domain.programs.outbox import WriteKind, WriteState, differences
from gateway.services.programs.outbox import ChangeOutbox, Proposal, RunReport
from gateway.signals.leap.registration import Registered
from gateway.signals.leap.webhook_rows import WebhookRows
from gateway.storage.programs.outbox import SqliteOutbox
from tests.builders.fakes import MemoryJournal
from tests.signals.leap.rig import SECRET
from tests.signals.leap.test_registration import OTHER, OURS, Peer, hook, registration

WEBHOOK = WriteKind.WEBHOOK
THIRD = "https://third.example/x"


@asynccontextmanager
async def outbox_of(
    directory: Path, peer: Peer, journal: MemoryJournal | None = None, **other: Any
) -> AsyncIterator[tuple[ChangeOutbox, WebhookRows]]:
    async with registration(peer, **other) as found, SqliteOutbox(directory) as store:
        webhooks = WebhookRows(found)
        peers = {WEBHOOK: webhooks}
        kept = journal or MemoryJournal()
        yield ChangeOutbox(store, peers, clock=ManualClock(), journal=kept, meters=lambda: 0), webhooks


async def proposed(outbox: ChangeOutbox, webhooks: WebhookRows, replace: str | None) -> int:
    after = await webhooks.content("meter", replace)
    return len(await outbox.propose(WEBHOOK, [Proposal(subject="meter", after=after)], by="ann"))


async def sent(outbox: ChangeOutbox) -> RunReport:
    return await outbox.send(WEBHOOK, dry=False, confirm=None, by="ann")


def stored_in(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.glob("outbox.sqlite*"))


async def states(outbox: ChangeOutbox) -> list[tuple[WriteState, str]]:
    return [(row.state, row.detail) for row in await outbox.store.rows(limit=100)]


async def test_registration_is_a_row_that_is_shown_before_it_is_sent_and_is_in_the_trail(tmp_path: Path) -> None:
    peer, journal = Peer(hook(OTHER)), MemoryJournal()
    async with outbox_of(tmp_path, peer, journal) as (outbox, webhooks):
        assert await proposed(outbox, webhooks, OTHER) == 1
        shown = await outbox.send(WEBHOOK, dry=True, confirm=None, by="ann")
        (row,) = shown.rows
        changes = {one.member: (one.before, one.after) for one in differences(row.before, row.after)}
        assert changes == {"url": (OTHER, OURS), "shared_header": (None, "ours")}
        assert peer.puts == []
        report = await sent(outbox)
        assert [one.state for one in report.rows] == [WriteState.DONE]
        assert await proposed(outbox, webhooks, None) == 0
    assert peer.puts == [{"url": OURS, "headers": [{"name": "x-leap-secret", "value": SECRET}]}]
    told = [(one.action, one.write, one.by) for one in journal.kept if isinstance(one, OutboxChanged)]
    assert told == [("proposed", "webhook", "ann"), ("sent", "webhook", "ann")]
    assert SECRET.encode() not in stored_in(tmp_path)


async def test_where_nothing_is_registered_this_gateway_is(tmp_path: Path) -> None:
    peer = Peer()
    async with outbox_of(tmp_path, peer) as (outbox, webhooks):
        await proposed(outbox, webhooks, None)
        await sent(outbox)
        assert await states(outbox) == [(WriteState.DONE, "")]
    assert len(peer.puts) == 1


@pytest.mark.parametrize("replace", [None, OURS, THIRD])
async def test_another_address_is_not_replaced_unless_it_is_named(tmp_path: Path, replace: str | None) -> None:
    peer = Peer(hook(OTHER))
    async with outbox_of(tmp_path, peer) as (outbox, webhooks):
        with pytest.raises(InvalidInput, match="production"):
            await proposed(outbox, webhooks, replace)
        # nor by a row that somebody wrote by hand
        by_hand = {"url": OURS, "shared_header": "ours"} | ({} if replace is None else {"replaces": replace})
        await outbox.propose(WEBHOOK, [Proposal(subject="meter", after=by_hand)], by="ann")
        await sent(outbox)
        assert await states(outbox) == [(WriteState.REFUSED, f"the aggregator posts to {OTHER} now")]
    assert peer.puts == []


async def test_address_that_came_after_the_row_was_proposed_is_not_replaced(tmp_path: Path) -> None:
    peer = Peer(hook(OTHER))
    async with outbox_of(tmp_path, peer) as (outbox, webhooks):
        await proposed(outbox, webhooks, OTHER)
        peer.webhook = hook(THIRD)
        await sent(outbox)
        assert await states(outbox) == [(WriteState.REFUSED, f"the aggregator posts to {THIRD} now")]
        # the one that was to be replaced is gone: nothing is taken from anybody
        peer.webhook = hook(OTHER)
        await proposed(outbox, webhooks, OTHER)
        peer.webhook = None
        await sent(outbox)
        assert (await states(outbox))[1] == (WriteState.DONE, "")


async def test_the_same_address_with_another_header_is_written_without_a_word_more(tmp_path: Path) -> None:
    peer = Peer(hook(OURS, "old-secret-0123456789"))
    async with outbox_of(tmp_path, peer) as (outbox, webhooks):
        await proposed(outbox, webhooks, None)
        (row,) = (await sent(outbox)).rows
        assert [(one.member, one.before) for one in differences(row.before, row.after)] == [
            ("shared_header", "another")
        ]
        assert row.state is WriteState.DONE


@pytest.mark.parametrize(("level", "other"), [("group", {}), ("meter", {"url": None})])
async def test_what_is_not_configured_is_not_registered(tmp_path: Path, level: Any, other: dict[str, Any]) -> None:
    peer = Peer()
    async with outbox_of(tmp_path, peer, **other) as (outbox, webhooks):
        with pytest.raises(InvalidInput):
            await webhooks.content(level, None)
        after = {"url": OURS, "shared_header": "ours"}
        with pytest.raises(InvalidInput):
            await outbox.propose(WEBHOOK, [Proposal(subject=level, after=after)], by="ann")
    assert peer.puts == []


@pytest.mark.parametrize(
    "after",
    [
        {"url": OTHER, "shared_header": "ours"}, {"url": OURS, "shared_header": SECRET}, {"url": OURS},
        {"url": OURS, "shared_header": "ours", "headers": []},
    ],
)  # fmt: skip
async def test_row_that_says_something_else_than_this_gateway_is_not_taken(
    tmp_path: Path, after: dict[str, Any]
) -> None:
    async with outbox_of(tmp_path, Peer()) as (outbox, _):
        with pytest.raises(InvalidInput) as refused:
            await outbox.propose(WEBHOOK, [Proposal(subject="meter", after=after)], by="ann")
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize("arrived", [True, False])
async def test_registration_whose_answer_was_lost_is_looked_for_before_it_is_sent_again(
    tmp_path: Path, arrived: bool
) -> None:
    peer = Peer(lost=1, arrives=arrived)
    async with outbox_of(tmp_path, peer) as (outbox, webhooks):
        await proposed(outbox, webhooks, None)
        assert (await sent(outbox)).error is not None
        assert [state for state, _ in await states(outbox)] == [WriteState.SENDING]
    # the gateway that comes back knows no more than the file
    async with outbox_of(tmp_path, peer) as (outbox, _):
        await sent(outbox)
        assert await states(outbox) == [(WriteState.DONE, "")]
    assert len(peer.puts) == (1 if arrived else 2)


async def test_key_of_another_environment_registers_nothing_and_says_so(tmp_path: Path) -> None:
    peer = Peer(status=403)
    async with outbox_of(tmp_path, peer) as (outbox, webhooks):
        with pytest.raises(GatewayError, match="403"):
            await proposed(outbox, webhooks, None)
        peer.status = None
        await proposed(outbox, webhooks, None)
        peer.status = 403
        assert "403" in ((await sent(outbox)).error or "")
        assert [state for state, _ in await states(outbox)] == [WriteState.SENDING]
    assert peer.puts == []


async def test_registration_that_was_sent_is_what_the_daemon_knows(tmp_path: Path) -> None:
    peer = Peer()
    async with registration(peer) as found, SqliteOutbox(tmp_path) as store:
        webhooks = WebhookRows(found)
        outbox = ChangeOutbox(
            store, {WEBHOOK: webhooks}, clock=ManualClock(), journal=MemoryJournal(), meters=lambda: 0
        )
        await found.verify()
        assert found.warnings() != []
        await proposed(outbox, webhooks, None)
        await sent(outbox)
        assert (found.newest["meter"].state, found.warnings()) == (Registered.OURS, [])
