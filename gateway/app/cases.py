"""The part of the graph that keeps cases of homes that underperform."""

from gateway.app.parts import RunningParts
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.ports.journal import Journal
from gateway.services.programs.cases import Cases
from gateway.sinks.tickets import TicketWebhook
from gateway.storage.programs.cases import SqliteCases


async def cases(settings: Settings, *, clock: Clock, journal: Journal, parts: RunningParts) -> Cases:
    """The cases, and the ticket system that is told of them, if one is configured."""
    store = await parts.start(SqliteCases(settings.state_dir))
    tickets = None if settings.tickets is None else await parts.start(TicketWebhook(settings.tickets))
    found = await parts.start(Cases(store, tickets, clock=clock, journal=journal))
    await found.load()
    return found
