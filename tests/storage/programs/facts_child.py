"""Commits facts, three at a time, until it is killed; run by `test_facts`. Prints the newest durable revision."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from gateway.clock import ManualClock
from gateway.domain.journal.changes import AuditDoor
from gateway.storage.programs.facts import SqliteFacts
from tests.domain.programs.stated import device, enrolled


async def main(directory: Path) -> None:
    store = SqliteFacts(directory, clock=ManualClock())
    store.load(lambda _: None)
    while True:
        revisions = [store.revision() for _ in range(3)]
        facts = [enrolled(device(f"home-{revision}"), revision=revision) for revision in revisions]
        await store.commit(facts, by="child", door=AuditDoor.REST)
        print(revisions[-1], flush=True)


asyncio.run(main(Path(sys.argv[1])))
