"""The part of the graph that knows who takes part in which program."""

from collections.abc import Mapping

from gateway.app.parts import RunningParts
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.domain.programs.terms import ProgramTerms
from gateway.services.programs.enrollment import Enrollments
from gateway.services.settings import ENFORCE
from gateway.storage.programs.facts import SqliteFacts
from gateway.storage.programs.personal import NAME, SqlitePersonal


async def enrollments(
    settings: Settings, terms: Mapping[str, ProgramTerms], *, clock: Clock, parts: RunningParts
) -> Enrollments:
    """Open what is stored of programs, and load it."""
    enforced = any(program.enrollment == ENFORCE for program in settings.programs.values())
    store = await parts.start(SqliteFacts(settings.state_dir, clock=clock, decides=enforced))
    personal: SqlitePersonal | None = None
    # what an earlier configuration kept can be erased without its key
    if settings.customers.keys or (settings.state_dir / NAME).exists():
        personal = await parts.start(SqlitePersonal(settings.state_dir, keys=settings.customers.keys))
        personal.open()
    found = await parts.start(
        Enrollments(
            store,
            personal,
            clock=clock,
            terms=terms,
        )
    )
    store.load(found.book.add)
    return found
