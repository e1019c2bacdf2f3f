"""Reads intervals of some devices and a stretch of time from the log, page by page."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from gateway.domain.errors import InvalidInput
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.columns import IntervalColumns
from gateway.domain.intervals.record import IntervalRecord
from gateway.storage.interval_log.merge import IntervalSelection, Place
from gateway.storage.interval_log.query import IntervalQueries

STREAM_ROWS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Intervals that begin within `[from_ms, to_ms)` of the union of `devices` and of those with one of `tags`; of all
    devices if neither is given."""

    from_ms: int
    to_ms: int
    devices: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class History:
    """Reads intervals by device, group and time."""

    def __init__(self, queries: IntervalQueries, fleet: Fleet) -> None:
        self._queries = queries
        self._fleet = fleet

    async def page(
        self, question: Question, after: Place | None, limit: int
    ) -> tuple[Sequence[IntervalRecord], Place | None]:
        """The next intervals, by start and device, each at its newest revision. Raises InvalidInput, StorageError."""
        return await self._queries.page(self._wanted(question), after, limit)

    async def all(self, question: Question) -> AsyncGenerator[IntervalColumns]:
        """Yield all of them as columns, some thousand at a time; may include intervals that are stored meanwhile.
        Raises InvalidInput, StorageError."""
        async with aclosing(self._queries.columns(self._wanted(question), STREAM_ROWS)) as pages:
            async for page in pages:
                yield page

    def _wanted(self, question: Question) -> IntervalSelection:
        if question.to_ms <= question.from_ms:
            raise InvalidInput(["to: must be later than from"])
        known = self._fleet.tags
        unknown = [f"tag: {tag}: no device has it" for tag in question.tags if tag not in known]
        if unknown:
            raise InvalidInput(unknown)
        if not (question.devices or question.tags):
            return IntervalSelection(from_ms=question.from_ms, to_ms=question.to_ms)
        names = set(question.devices)
        for tag in question.tags:
            names.update(self._fleet.ids[slot] for slot in known[tag])
        return IntervalSelection(from_ms=question.from_ms, to_ms=question.to_ms, devices=tuple(sorted(names)))
