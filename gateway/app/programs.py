"""The part of the graph that knows who takes part in which program."""

import logging
from collections.abc import Mapping

from gateway.app.parts import RunningParts
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.domain.errors import GatewayError
from gateway.domain.programs.terms import ProgramTerms
from gateway.ports.journal import AuditTrail, Journal
from gateway.programs.loader import LoadedProgram
from gateway.services.programs.completeness import DataCompleteness
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.fact_trail import FactTrail
from gateway.services.programs.official_watch import OfficialHourWatch
from gateway.services.settings import ENFORCE
from gateway.storage.programs.facts import SqliteFacts
from gateway.storage.programs.personal import NAME, SqlitePersonal

log = logging.getLogger(__name__)


async def enrollments(
    settings: Settings,
    terms: Mapping[str, ProgramTerms],
    programs: Mapping[str, LoadedProgram],
    *,
    journal: Journal,
    audit: AuditTrail,
    clock: Clock,
    parts: RunningParts,
) -> Enrollments:
    """Open what is stored of programs, and load it."""
    enforced = any(program.enrollment == ENFORCE for program in settings.programs.values())
    store = await parts.start(SqliteFacts(settings.state_dir, clock=clock, decides=enforced))
    personal: SqlitePersonal | None = None
    # what an earlier configuration kept can be erased without its key
    if settings.customers.keys or (settings.state_dir / NAME).exists():
        personal = await parts.start(SqlitePersonal(settings.state_dir, keys=settings.customers.keys))
        personal.open()
    trail = await parts.start(FactTrail(store, journal, audit))
    watch = OfficialHourWatch(
        settings.state_dir,
        programs={name: one.program for name, one in programs.items()},
        concerned=lambda: {*settings.programs, *found.book.programs()},
        clock=clock,
    )
    data = await parts.start(DataCompleteness(settings.state_dir, clock=clock))
    found = await parts.start(
        Enrollments(store, personal, trail, clock=clock, terms=terms, also_due=watch.due, due_data=data.due)
    )
    store.load(found.book.add)
    await parts.start(watch)
    try:
        if left := await found.erase_noted():
            log.warning("personal data that was to be erased is erased now", extra={"count": left})
    except GatewayError as error:
        # told by the store's own reasons
        log.error("personal data that is to be erased may be there still", extra={"error": str(error)})
    return found
