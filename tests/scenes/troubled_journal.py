"""A journal in memory whose disk is slow, and whose process dies at a commit."""

from collections.abc import Sequence

from gateway.domain.journal.changes import Change
from tests.builders.fakes import MemoryJournal


class Killed(Exception):
    """The process is gone, between two steps of a tick."""


class TroubledJournal(MemoryJournal):
    """A disk that may be slow: what a tick commits becomes durable, and the tick, which has a deadline, does not learn
    of it. `kill`: the process dies `before` or `after` the next commit of a tick. `ticking`: a tick is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.kill: str | None = None
        self.ticking = False

    async def commit(self, changes: Sequence[Change]) -> None:
        if self.kill is not None and self.ticking:
            where, self.kill = self.kill, None
            if where == "after":
                await super().commit(changes)
            raise Killed
        await super().commit(changes)
        if self.slow and self.ticking:
            raise TimeoutError
