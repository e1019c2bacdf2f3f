"""Sends changes to the aggregator: proposed, approved where that is demanded, sent under a brake, and read back.

A row is marked as on its way before it is sent. What was on its way when the gateway ended is looked for at the peer
before anything is sent again, because the peer knows no idempotency: a create that is repeated creates twice.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.clock import Clock
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.domain.journal.changes import AuditDoor, OutboxChanged
from gateway.domain.programs.outbox import (
    OPEN,
    Content,
    OutboxRow,
    WriteKind,
    WriteState,
    brake,
    differences,
    may_approve,
    plan,
)
from gateway.observability.metrics import Sample, gauge, words
from gateway.observability.parts import Part
from gateway.ports.journal import Journal
from gateway.ports.outbox import OutboxPeer, OutboxStore, Written

log = logging.getLogger(__name__)

BATCH = 500
"""Rows of one request."""
BATCH_NAME = "outbox-"
OPEN_MAX = 200_000
PROPOSED_MAX = 10_000
FAULTS_MAX = 50
"""Rows of one proposal."""

ROWS = gauge(
    "gateway_outbox_rows", "Changes for the aggregator that are open.", kind=words(WriteKind), state=words(OPEN)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A change that somebody wants: of whom, and what the peer is to have."""

    subject: str
    after: Content


@dataclass(slots=True, kw_only=True)
class RunReport:
    """What a run did, or (`dry`) would do. `refusal`: why nothing was sent; `error`: why it ended early; `rows`: those
    it touched, as they are now; `waiting`: rows that lack leave."""

    kind: WriteKind
    dry: bool
    would_send: int = 0
    waiting: int = 0
    refusal: str | None = None
    error: str | None = None
    rows: list[OutboxRow] = field(default_factory=list)


UNCONFIGURED = {WriteKind.WEBHOOK: "signals.leap and leap.account: not both are configured"}
"""Why there is nobody to write to, where it is not for want of an account alone."""


class ChangeOutbox(Part):
    """The rows and their way to the peers, each for its kinds; a kind without one is not configured. `meters`: how many
    meters there are."""

    component = "programs"

    def __init__(
        self, store: OutboxStore, peers: Mapping[WriteKind, OutboxPeer], *, clock: Clock, journal: Journal,
        meters: Callable[[], int],
    ) -> None:  # fmt: skip
        self.store = store
        self._peers = peers
        self._clock = clock
        self._journal = journal
        self._meters = meters
        self._one_at_a_time = asyncio.Lock()
        self._counts: dict[tuple[WriteKind, WriteState], int] = {}

    async def load(self) -> None:
        """Count what an earlier run left."""
        try:
            await self._count()
        except GatewayError as error:
            log.error("changes for the aggregator cannot be read", extra={"error": str(error)})

    async def propose(
        self, kind: WriteKind, proposals: Sequence[Proposal], *, by: str, door: AuditDoor = AuditDoor.REST
    ) -> list[OutboxRow]:
        """Store changes that differ from what the peer has, and from what is open already; returns those that are new.
        Raises InvalidInput, StorageError, and what asking the peer raises."""
        peer = self._asked(kind)
        now_ms = self._clock.now().utc_ms
        faults = [fault for one in proposals for fault in peer.faults(kind, one.subject, one.after, now_ms)]
        faults += [] if 0 < len(proposals) <= PROPOSED_MAX else [f"rows: 1 to {PROPOSED_MAX} of them"]
        if faults:
            raise InvalidInput(faults[:FAULTS_MAX])
        async with self._one_at_a_time:
            known = {(row.subject, _frozen(row.after)) for row in await self._open(kind)}
            rows = [
                OutboxRow(
                    number=-1 - at, kind=kind, subject=one.subject, after=one.after, proposed_by=by, proposed_ms=now_ms
                )
                for at, one in enumerate(proposals)
                if (one.subject, _frozen(one.after)) not in known
            ]
            has = await _read(peer, kind, rows)
            new = [
                replace(row, before=has[row.number])
                for row in rows
                if has[row.number] is None or differences(has[row.number], row.after)
            ]
            added = await self.store.add(new) if new else []
            await self._note("proposed", added, by=by, door=door)
            return added

    async def approve(self, numbers: Sequence[int], *, by: str) -> list[OutboxRow]:
        """Give leave to rows, all or none. Raises InvalidInput, StorageError."""
        async with self._one_at_a_time:
            rows = await self._named(numbers)
            faults = [why for row in rows if (why := may_approve(row, by)) is not None]
            if faults:
                raise InvalidInput(faults)
            approved = [replace(row, approved_by=by) for row in rows]
            # the trail first: nothing goes on a leave that nobody can find again
            await self._note("approved", approved, by=by)
            await self.store.put(approved)
            return approved

    async def withdraw(self, numbers: Sequence[int], *, by: str, door: AuditDoor = AuditDoor.REST) -> list[OutboxRow]:
        """Take back rows that were not sent, all or none. Raises InvalidInput, StorageError."""
        async with self._one_at_a_time:
            rows = await self._named(numbers)
            faults = [f"row {row.number} is {row.state.value}" for row in rows if row.state is not WriteState.PROPOSED]
            if faults:
                raise InvalidInput(faults)
            taken = [replace(row, state=WriteState.WITHDRAWN) for row in rows]
            await self.store.put(taken)
            await self._note("withdrawn", taken, by=by, door=door)
            return taken

    async def send(self, kind: WriteKind, *, dry: bool, confirm: int | None, by: str) -> RunReport:
        """Send what is ready of a kind, or show it. Raises InvalidInput, StorageError."""
        async with self._one_at_a_time:
            found = plan(await self._open(kind))
            report = RunReport(kind=kind, dry=dry, waiting=len(found.kept))
            if dry:
                report.would_send, report.rows = len(found.go), [*found.look, *found.go]
                report.refusal = brake(len(found.go), self._meters(), confirm)
                return report
            peer = self._asked(kind)
            try:
                again = await self._looked(peer, kind, found.look, report)
                go = [*again, *found.go]
                report.would_send = len(go)
                report.refusal = brake(len(go), self._meters(), confirm)
                if report.refusal is None:
                    for first in range(0, len(go), BATCH):
                        await self._send(peer, kind, go[first : first + BATCH], report, by=by)
            except GatewayError as error:
                report.error = str(error)
                log.warning("changes could not be sent to the aggregator", extra={"kind": kind, "error": str(error)})
            await self._count()
            return report

    def _asked(self, kind: WriteKind) -> OutboxPeer:
        peer = self._peers.get(kind)
        if peer is None:
            raise InvalidInput([UNCONFIGURED.get(kind, "leap.account: none is configured")])
        return peer

    # -- one step each -------------------------------------------------------------------------------------------

    async def _looked(
        self, peer: OutboxPeer, kind: WriteKind, rows: Sequence[OutboxRow], report: RunReport
    ) -> list[OutboxRow]:
        """What was on its way: settled where the peer has it or works on it; the others, to be sent again."""
        if not rows:
            return []
        working = [row for row in rows if row.job]
        said = await peer.look(working) if working else {}
        settled = [_after(row, said[row.number]) for row in working if row.number in said]
        has = await _read(peer, kind, rows)
        again: list[OutboxRow] = []
        kept: list[OutboxRow] = []
        for row in rows:
            told = next((one for one in settled if one.number == row.number), row)
            arrived = has[row.number] is not None and not differences(has[row.number], row.after)
            if arrived:
                kept.append(replace(told, state=WriteState.DONE, detail=""))
            elif told.state is WriteState.DONE or (told.state is WriteState.WAITS and not told.job):
                kept.append(_verified(told, has[row.number]))
            elif told.state is WriteState.SENDING:
                again.append(replace(told, state=WriteState.PROPOSED, job=""))
            else:
                kept.append(told)
        await self.store.put([*kept, *again])
        report.rows += kept
        return again

    async def _send(
        self, peer: OutboxPeer, kind: WriteKind, rows: Sequence[OutboxRow], report: RunReport, *, by: str
    ) -> None:
        # by this name the peer finds the batch again, should its answer be lost
        batch = f"{BATCH_NAME}{rows[0].number}-{rows[-1].number}-{self._clock.now().utc_ms}"
        sending = [replace(row, state=WriteState.SENDING, job=batch) for row in rows]
        await self.store.put(sending)
        await self._note("sent", sending, by=by)
        said = await peer.write(kind, sending)
        after = [_after(row, said[row.number]) if row.number in said else row for row in sending]
        # nothing is done before it was read back, also where the gateway ends in between
        await self.store.put([
            replace(row, state=WriteState.WAITS) if row.state is WriteState.DONE else row for row in after
        ])  # fmt: skip
        done = [row for row in after if row.state is WriteState.DONE]
        has = await _read(peer, kind, done)
        after = [_verified(row, has[row.number]) if row.number in has else row for row in after]
        await self.store.put(after)
        report.rows += after

    async def _open(self, kind: WriteKind | None) -> list[OutboxRow]:
        return await self.store.rows(kind=kind, unfinished=True, limit=OPEN_MAX)

    async def _named(self, numbers: Sequence[int]) -> list[OutboxRow]:
        wanted = set(numbers)
        found = [row for row in await self._open(None) if row.number in wanted]
        missing = sorted(wanted - {row.number for row in found})
        if missing or not wanted:
            raise InvalidInput([f"row {number} is not open" for number in missing] or ["no row is named"])
        return found

    async def open_rows(self, kind: WriteKind) -> list[OutboxRow]:
        """Rows of a kind of which something is still to come. Raises StorageError."""
        return await self._open(kind)

    async def _note(self, action: str, rows: Sequence[OutboxRow], *, by: str, door: AuditDoor = AuditDoor.REST) -> None:
        """Write the audit trail, a row for each kind."""
        for kind in WriteKind:
            some = [row for row in rows if row.kind is kind]
            if some:
                names = tuple(row.subject for row in some)
                numbers = tuple(row.number for row in some)
                change = OutboxChanged(action=action, write=kind.value, names=names, numbers=numbers, by=by, door=door)
                await self._journal.commit([change])
        await self._count()

    async def _count(self) -> None:
        counts: dict[tuple[WriteKind, WriteState], int] = {}
        for row in await self._open(None):
            counts[row.kind, row.state] = counts.get((row.kind, row.state), 0) + 1
        self._counts = counts

    def samples(self) -> Iterable[Sample]:
        for (kind, state), count in sorted(self._counts.items()):
            yield ROWS.sample(count, kind=kind.value, state=state.value)


async def _read(peer: OutboxPeer, kind: WriteKind, rows: Sequence[OutboxRow]) -> Mapping[int, Content | None]:
    """What the peer has of rows."""
    found: dict[int, Content | None] = {row.number: None for row in rows}
    for first in range(0, len(rows), BATCH):
        found |= await peer.read(kind, rows[first : first + BATCH])
    return found


def _after(row: OutboxRow, said: Written) -> OutboxRow:
    return replace(row, state=said.state, job=said.job, detail=said.detail)


def _verified(row: OutboxRow, has: Content | None) -> OutboxRow:
    """A row that the peer took, after it was read back."""
    left = differences(has, row.after)
    if not left:
        return replace(row, state=WriteState.DONE, detail="")
    return replace(row, state=WriteState.DIFFERS, detail=f"the peer has another {', '.join(d.member for d in left)}")


def _frozen(content: Content) -> str:
    return repr(sorted(content.items(), key=lambda item: item[0]))
