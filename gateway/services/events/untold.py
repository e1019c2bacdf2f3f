"""Final delivery records that nobody has taken yet and that memory does not hold: read from the store page by page."""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.domain.journal.stored import StoredRecords
from gateway.domain.types import EventId
from gateway.ports.journal import EventStore

OCCURRENCES_MAX = 100_000
TRIES_MAX = 1_000
"""Times that records are looked for which are not in the store: they may still be on their way there."""

Key = tuple[EventId, int]


@dataclass(slots=True)
class Untold:
    """An occurrence that is over: its event's `source` and `revision`, its `rows` as far as they are known, the next of
    them to be read, and how often the store did not have it."""

    event: EventId
    source: str
    revision: int
    occurrence_ms: int
    rows: int = 1
    next_row: int = 0
    tries: int = 0


class UntoldRecords:
    """What waits, oldest first. `lost` counts records that were given up."""

    def __init__(self) -> None:
        self._waiting: dict[Key, Untold] = {}
        self.lost = 0

    def __iter__(self) -> Iterator[Untold]:
        return iter(self._waiting.values())

    @property
    def rows(self) -> int:
        """Records that wait."""
        return sum(max(one.rows - one.next_row, 0) for one in self)

    def add(self, one: Untold) -> None:
        """Tell this occurrence too."""
        self._waiting[one.event, one.occurrence_ms] = one
        while len(self._waiting) > OCCURRENCES_MAX:
            self._lose(next(iter(self)))

    async def page(self, store: EventStore, most: int) -> tuple[Untold, slice, StoredRecords] | None:
        """The next records of the oldest occurrence; None = there is nothing to tell now. They count as told until they
        are given back. Raises StorageError."""
        for one in list(self):
            part = slice(one.next_row, one.next_row + most)
            stored = await store.records(one.event, one.occurrence_ms, part)
            if stored.devices:
                one.rows, one.next_row = stored.total, part.stop
                return one, part, stored
            one.tries += 1
            if stored.total:
                del self._waiting[one.event, one.occurrence_ms]
            elif one.tries > TRIES_MAX:
                self._lose(one)
        return None

    def give_back(self, event: EventId, occurrence_ms: int, first: int) -> None:
        """Tell the records from the `first` on again."""
        one = self._waiting.get((event, occurrence_ms))
        if one is not None:
            one.next_row = first

    def _lose(self, one: Untold) -> None:
        del self._waiting[one.event, one.occurrence_ms]
        self.lost += max(one.rows - one.next_row, 0)
