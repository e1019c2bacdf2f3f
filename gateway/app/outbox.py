"""The part of the graph that changes what the aggregator holds."""

from gateway.api.routes.leap_dispatch import LeapDispatch
from gateway.app.parts import RunningParts
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.domain.programs.outbox import WriteKind
from gateway.ports.journal import Journal
from gateway.ports.outbox import OutboxPeer
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.outbox import ChangeOutbox
from gateway.signals.leap_account.peer import LeapPeer
from gateway.storage.programs.outbox import SqliteOutbox
from gateway.transports.leap.client import LeapClient


async def outbox(
    settings: Settings, leap: LeapDispatch, *, enrollments: Enrollments, clock: Clock, journal: Journal,
    parts: RunningParts,
) -> ChangeOutbox:  # fmt: skip
    """The outbox for the configured account, if there is one."""
    store = await parts.start(SqliteOutbox(settings.state_dir))
    account = settings.leap.account
    peers: dict[WriteKind, OutboxPeer] = {}
    if account is not None:
        peer = await parts.start(LeapPeer(LeapClient(account), enrollments.personal))
        peers |= {kind: peer for kind in WriteKind if kind is not WriteKind.WEBHOOK}
    if leap.webhooks is not None:
        peers[WriteKind.WEBHOOK] = leap.webhooks
    book = enrollments.book
    found = await parts.start(ChangeOutbox(store, peers, clock=clock, journal=journal, meters=lambda: book.meters))
    await found.load()
    return found
