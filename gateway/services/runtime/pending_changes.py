"""Keeps changes that have taken effect until the journal has them.

What is decided is numbered at once. A change that is owed and committed late therefore never undoes one that was
decided after it and committed before: the journal keeps the newer of the two.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from gateway.domain.errors import StorageError
from gateway.domain.events.lifecycle import EventState
from gateway.domain.journal.changes import (
    PAST,
    UNNUMBERED,
    Change,
    EventDelivered,
    EventMoved,
    EventsArchived,
    ExclusionLifted,
)
from gateway.observability.parts import Importance, Part
from gateway.ports.journal import Journal

log = logging.getLogger(__name__)

OWED_MAX = 10_000
PUT_AWAY_EVERY_S = 1.0
NO_ANSWER = "no answer in time"

C = TypeVar("C")


@dataclass(slots=True)
class PendingStats:
    """`failures` counts commits, `forgotten` changes that were too many to keep."""

    failures: int = 0
    forgotten: int = 0


class PendingChanges(Part):
    """Changes on their way to the journal. `failing`: why the newest commit failed; None = it did not. `late`: why
    what is over could not be put away; "" = it could."""

    service = "put-away"
    component = "control"
    importance = Importance.ESSENTIAL

    def __init__(self, journal: Journal, *, deadline_s: float, owed_max: int = OWED_MAX) -> None:
        self._journal = journal
        self._deadline_s = deadline_s
        self._owed_max = owed_max
        self._owed: list[Change] = []
        self.failing: str | None = None
        self.late = ""
        self.stats = PendingStats()

    def owe(self, changes: Iterable[Change]) -> None:
        """Number changes that have taken effect, and keep them until `flush` has made them durable."""
        self._owed += map(self._numbered, changes)
        self._bound()

    def owe_anew(self, change: Change) -> None:
        """The same, in place of an equal change that is owed already."""
        self._owed = [owed for owed in self._owed if type(owed) is not type(change) or owed != change]
        self.owe([change])

    async def keep(self, changes: Iterable[Change]) -> bool:
        """Owe changes and ask the disk at once; returns whether nothing is owed of them, or from before, any more."""
        self.owe(changes)
        return await self.flush()

    async def flush(self, further: Sequence[Change] = ()) -> bool:
        """Make durable what is owed, with `further` changes in the same commit; returns whether that was done. The
        further ones are not owed if it was not."""
        return await self._write([*self._due(), *map(self._numbered, further)])

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make durable what is owed and `changes`, however long the disk takes. Raises StorageError; then none of them
        is durable, and `changes` are not owed."""
        written = [*self._due(), *map(self._numbered, changes)]
        await self._journal.commit(written)
        self._done(written)

    async def run(self) -> None:
        """Put away what is over as it comes, until cancelled."""
        while True:
            await self.put_away()
            await asyncio.sleep(PUT_AWAY_EVERY_S)

    async def put_away(self) -> None:
        """Make durable what is over: delivery records, archived events. Nothing else waits for it."""
        for change in [change for change in self._owed if isinstance(change, EventDelivered | EventsArchived)]:
            try:
                await self._journal.put_away([change])
            except StorageError as error:
                self.stats.failures += 1
                if not self.late:
                    log.warning("delivery records cannot be written", extra={"error": str(error)})
                self.late = str(error)
                return
            self._owed = [owed for owed in self._owed if owed.seq != change.seq]
        self.late = ""

    async def close(self) -> None:
        """The last chance of what is in force and not durable yet, and of what is over."""
        await self.flush()
        await self.put_away()

    def owed(self, kind: type[C]) -> list[C]:
        """The changes of one kind that are not durable yet, oldest first."""
        return [change for change in self._owed if isinstance(change, kind)]

    def warnings(self) -> list[str]:
        """What would be lost if the gateway died now."""
        due, out = len(self._due()), []
        if self.failing is not None and due:
            some = "1 change is" if due == 1 else f"{due} changes are"
            out.append(f"journal: {some} in force and not durable yet: {self.failing}")
        if self.late:
            out.append(f"journal: delivery records are not durable yet: {self.late}")
        return out

    def _due(self) -> list[Change]:
        return [change for change in self._owed if not isinstance(change, PAST)]

    def _numbered(self, change: Change) -> Change:
        return replace(change, seq=self._journal.sequence()) if change.seq == UNNUMBERED else change

    async def _write(self, changes: Sequence[Change]) -> bool:
        if not changes:
            return True
        try:
            # a disk that hangs must not stop the refresh of leases, nor the answer to an owner
            async with asyncio.timeout(self._deadline_s):
                await self._journal.commit(changes)
        except (StorageError, TimeoutError) as error:
            self.stats.failures += 1
            if self.failing is None:
                log.warning(
                    "the journal cannot be written; no device newly comes under control", extra={"error": str(error)}
                )
            self.failing = str(error) or NO_ANSWER
            return False
        self._done(changes)
        return True

    def _done(self, written: Iterable[Change]) -> None:
        done = {change.seq for change in written}
        self._owed = [change for change in self._owed if change.seq not in done]
        self.failing = None

    def _bound(self) -> None:
        """Forget the oldest of what the next start finds out by itself, where too much is owed."""
        too_many = len(self._owed) - self._owed_max
        if too_many <= 0:
            return
        lesser = [change.seq for change in self._owed if _found_out(change)]
        gone = frozenset(lesser[:too_many])
        self.stats.forgotten += len(gone)
        self._owed = [change for change in self._owed if change.seq not in gone]


def _found_out(change: Change) -> bool:
    """Whether the next start finds a change out by itself. It does not know what was cancelled."""
    if isinstance(change, EventMoved):
        return change.state is not EventState.CANCELLED
    return isinstance(change, EventsArchived | ExclusionLifted)
