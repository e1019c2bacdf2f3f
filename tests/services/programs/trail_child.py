"""Imports one enrollment over real files and is killed by itself around the commit to the audit trail; run by
`test_fact_trail`: `before` it, or `after` it."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from gateway.clock import ManualClock
from gateway.domain.journal.changes import AuditDoor, Change
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.fact_trail import FactTrail
from gateway.storage.journal.event_store import SqliteEventStore
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.programs.facts import SqliteFacts
from tests.services.programs.stores import BASE, table


class DyingJournal(SqliteJournal):
    """Its process ends at a commit."""

    when = "before"

    async def commit(self, changes: Sequence[Change]) -> None:
        if self.when == "after":
            await super().commit(changes)
        os.kill(os.getpid(), signal.SIGKILL)


async def main(directory: Path, when: str) -> None:
    clock = ManualClock()
    journal = DyingJournal(directory / "journal.sqlite", clock=clock)
    journal.when = when
    journal.load()
    store = SqliteFacts(directory, clock=clock)
    store.load(lambda _: None)
    trail = FactTrail(store, journal, SqliteEventStore(journal.path))
    service = Enrollments(store, None, trail, clock=clock)
    await service.import_enrollments(table(BASE), form="csv", by="child", door=AuditDoor.REST)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
