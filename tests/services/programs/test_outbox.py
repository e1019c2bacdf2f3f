"""The outbox: nothing goes unless somebody says so, what went is read back, and a kill makes no second create."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import InvalidInput, LinkDown
from gateway.domain.journal.changes import OutboxChanged
from gateway.domain.programs.outbox import Content, OutboxRow, WriteKind, WriteState
from gateway.ports.outbox import Written
from gateway.services.programs.outbox import ChangeOutbox, Proposal
from gateway.storage.programs.outbox import SqliteOutbox
from tests.builders.fakes import MemoryJournal

METER, IDLE, DISENROLL = WriteKind.METER, WriteKind.IDLE, WriteKind.DISENROLL


@dataclass
class Peer:
    """A peer that takes what it is sent. `has`: by subject; `cut`: answers are lost, after this many rows had an
    effect; `works`: it takes its time; `refuses`: subjects that it does not take; `deaf`: it answers no question, or
    none once it was written to."""

    has: dict[str, Content] = field(default_factory=dict)
    creates: list[str] = field(default_factory=list)
    requests: int = 0
    cut: int | None = None
    works: bool = False
    refuses: frozenset[str] = frozenset()
    changes_it: bool = False
    deaf: bool = False
    deaf_after_write: bool = False

    def faults(self, kind: WriteKind, subject: str, after: Content, now_ms: int) -> list[str]:
        return [f"{subject}: bad: unknown"] if "bad" in after else []

    async def read(self, kind: WriteKind, rows: Sequence[OutboxRow]) -> Mapping[int, Content | None]:
        if self.deaf:
            raise LinkDown("no answer")
        return {row.number: self.has.get(row.subject) for row in rows}

    async def write(self, kind: WriteKind, rows: Sequence[OutboxRow]) -> Mapping[int, Written]:
        self.requests += 1
        self.deaf = self.deaf_after_write
        for number, row in enumerate(rows):
            if self.cut is not None and number >= self.cut:
                break
            if row.subject not in self.refuses:
                self.creates.append(row.subject)
                self.has[row.subject] = {"kw": 1} if self.changes_it else dict(row.after)
        if self.cut is not None:
            raise LinkDown("no answer")
        state = WriteState.WAITS if self.works else WriteState.DONE
        refused = Written(state=WriteState.REFUSED, detail="FAILED: address")
        job = "" if kind is IDLE else "j"
        return {row.number: refused if row.subject in self.refuses else Written(state=state, job=job) for row in rows}

    async def look(self, rows: Sequence[OutboxRow]) -> Mapping[int, Written]:
        return {row.number: Written(state=WriteState.DONE, job="j") for row in rows if row.job == "j"}


@asynccontextmanager
async def opened(directory: Path, peer: Peer, journal: MemoryJournal, meters: int = 200) -> AsyncIterator[ChangeOutbox]:
    async with SqliteOutbox(directory) as store:
        peers = dict.fromkeys(WriteKind, peer)
        yield ChangeOutbox(store, peers, clock=ManualClock(), journal=journal, meters=lambda: meters)


def wanted(count: int, **after: object) -> list[Proposal]:
    return [Proposal(subject=f"home-{i}", after=after or {"kw": 5}) for i in range(count)]


async def states(outbox: ChangeOutbox) -> list[WriteState]:
    return [row.state for row in await outbox.store.rows(limit=1_000)]


async def test_change_is_shown_as_a_difference_and_a_dry_run_sends_nothing(tmp_path: Path) -> None:
    peer = Peer(has={"home-0": {"kw": 4}, "home-1": {"kw": 5}})
    async with opened(tmp_path, peer, MemoryJournal()) as outbox:
        added = await outbox.propose(METER, wanted(3), by="ann")
        # what the peer has already is no change
        assert [(row.subject, row.before) for row in added] == [("home-0", {"kw": 4}), ("home-2", None)]
        assert await outbox.propose(METER, wanted(3), by="ann") == []
        report = await outbox.send(METER, dry=True, confirm=None, by="ann")
        assert (report.would_send, report.refusal, peer.requests) == (2, None, 0)
        with pytest.raises(InvalidInput, match="bad: unknown"):
            await outbox.propose(METER, wanted(1, bad=1), by="ann")


async def test_brake_refuses_51_rows_and_lets_them_go_by_their_exact_number(tmp_path: Path) -> None:
    peer = Peer()
    async with opened(tmp_path, peer, MemoryJournal(), meters=100_000) as outbox:
        await outbox.propose(METER, wanted(51), by="ann")
        for confirm in (None, 50, 52):
            report = await outbox.send(METER, dry=False, confirm=confirm, by="ann")
            assert (report.refusal is not None, peer.requests, report.rows) == (True, 0, [])
        report = await outbox.send(METER, dry=False, confirm=51, by="ann")
        assert (report.refusal, len(peer.creates), {row.state for row in report.rows}) == (None, 51, {WriteState.DONE})
        # a second run writes nothing
        again = await outbox.send(METER, dry=False, confirm=None, by="ann")
        assert (again.would_send, peer.requests) == (0, 1)
        assert await outbox.propose(METER, wanted(51), by="ann") == []


async def test_row_that_needs_leave_goes_with_that_of_another_person_and_the_trail_has_both(tmp_path: Path) -> None:
    peer, journal = Peer(), MemoryJournal()
    async with opened(tmp_path, peer, journal) as outbox:
        (one, two) = await outbox.propose(DISENROLL, wanted(2), by="ann")
        report = await outbox.send(DISENROLL, dry=False, confirm=None, by="ann")
        assert (report.would_send, report.waiting, peer.requests) == (0, 2, 0)
        with pytest.raises(InvalidInput, match="ann proposed it; another person gives leave"):
            await outbox.approve([one.number], by="ann")
        await outbox.approve([one.number], by="bob")
        report = await outbox.send(DISENROLL, dry=False, confirm=1, by="ann")
        assert (report.waiting, peer.creates) == (1, ["home-0"])
        await outbox.withdraw([two.number], by="ann")
        assert await states(outbox) == [WriteState.DONE, WriteState.WITHDRAWN]
    told = [(one.action, one.by, one.numbers) for one in journal.kept if isinstance(one, OutboxChanged)]
    assert told == [
        ("proposed", "ann", (1, 2)), ("approved", "bob", (1,)), ("sent", "ann", (1,)), ("withdrawn", "ann", (2,)),
    ]  # fmt: skip


@pytest.mark.parametrize("arrived", range(4))
async def test_rows_whose_answer_was_lost_are_looked_for_before_they_are_sent_again(
    tmp_path: Path, arrived: int
) -> None:
    peer = Peer(cut=arrived)
    async with opened(tmp_path, peer, MemoryJournal()) as outbox:
        await outbox.propose(METER, wanted(3), by="ann")
        report = await outbox.send(METER, dry=False, confirm=3, by="ann")
        assert report.error == "no answer"
        assert await states(outbox) == [WriteState.SENDING] * 3
    peer.cut = None
    # the gateway that comes back knows no more than the file
    async with opened(tmp_path, peer, MemoryJournal(), meters=100_000) as outbox:
        await outbox.send(METER, dry=False, confirm=None, by="ann")
        assert await states(outbox) == [WriteState.DONE] * 3
    assert sorted(peer.creates) == ["home-0", "home-1", "home-2"]


async def test_row_that_the_peer_works_on_or_refuses_or_changes_is_told_as_that(tmp_path: Path) -> None:
    peer = Peer(refuses=frozenset({"home-1"}), works=True)
    async with opened(tmp_path, peer, MemoryJournal()) as outbox:
        await outbox.propose(METER, wanted(2), by="ann")
        await outbox.send(METER, dry=False, confirm=2, by="ann")
        assert await states(outbox) == [WriteState.WAITS, WriteState.REFUSED]
        await outbox.send(METER, dry=False, confirm=0, by="ann")
        assert await states(outbox) == [WriteState.DONE, WriteState.REFUSED]
        peer.changes_it, peer.works = True, False
        await outbox.propose(IDLE, [Proposal(subject="home-9", after={"kw": 7})], by="ann")
        report = await outbox.send(IDLE, dry=False, confirm=None, by="ann")
        (row,) = report.rows
        assert (row.state, row.detail) == (WriteState.DIFFERS, "the peer has another kw")


async def test_row_is_not_done_before_it_was_read_back_and_is_not_sent_again_for_that(tmp_path: Path) -> None:
    peer = Peer()
    async with opened(tmp_path, peer, MemoryJournal(), meters=100_000) as outbox:
        await outbox.propose(IDLE, wanted(2), by="ann")
        peer.deaf_after_write = True
        assert (await outbox.send(IDLE, dry=False, confirm=None, by="ann")).error == "no answer"
        assert await states(outbox) == [WriteState.WAITS] * 2
    peer.deaf = peer.deaf_after_write = False
    peer.has["home-1"] = {"kw": 1}
    async with opened(tmp_path, peer, MemoryJournal(), meters=100_000) as outbox:
        await outbox.send(IDLE, dry=False, confirm=None, by="ann")
        assert await states(outbox) == [WriteState.DONE, WriteState.DIFFERS]
    assert (peer.requests, sorted(peer.creates)) == (1, ["home-0", "home-1"])


async def test_outbox_without_an_account_takes_nothing(tmp_path: Path) -> None:
    async with SqliteOutbox(tmp_path) as store:
        outbox = ChangeOutbox(store, {}, clock=ManualClock(), journal=MemoryJournal(), meters=lambda: 0)
        with pytest.raises(InvalidInput, match=r"leap\.account: none is configured"):
            await outbox.propose(METER, wanted(1), by="ann")
        with pytest.raises(InvalidInput, match=r"signals\.leap and leap\.account"):
            await outbox.propose(WriteKind.WEBHOOK, wanted(1), by="ann")
