"""The part of the graph that changes what the aggregator holds."""

from gateway.app.parts import RunningParts
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.ports.journal import Journal
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.outbox import ChangeOutbox
from gateway.signals.leap_account.peer import LeapPeer
from gateway.storage.programs.outbox import SqliteOutbox
from gateway.transports.leap.client import LeapClient


async def outbox(
    settings: Settings, *, enrollments: Enrollments, clock: Clock, journal: Journal, parts: RunningParts
) -> ChangeOutbox:
    """The outbox for the configured account, if there is one."""
    store = await parts.start(SqliteOutbox(settings.state_dir))
    account, peer = settings.leap.account, None
    if account is not None:
        peer = await parts.start(LeapPeer(LeapClient(account), enrollments.personal))
    book = enrollments.book
    found = await parts.start(ChangeOutbox(store, peer, clock=clock, journal=journal, meters=lambda: book.meters))
    await found.load()
    return found
