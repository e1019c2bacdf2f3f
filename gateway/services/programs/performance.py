"""What the process beside the daemon has worked out of events, read by a thread for those who ask."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.event_performance import FigureLevel
from gateway.storage.programs.event_revisions import EventRevision, EventRevisions

T = TypeVar("T")
REVISIONS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureQuestion:
    """Figures of one level of an event by name, after a name; `occurrence_ms` None = of its newest occurrence,
    `revision` None = of the newest one."""

    level: FigureLevel
    after: str
    limit: int
    occurrence_ms: int | None = None
    revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFigures:
    """A revision, the others of its event (the newest first, of all occurrences), and a page of its figures. `more`:
    there are figures after them."""

    revision: EventRevision
    others: tuple[EventRevision, ...]
    figures: tuple[dict[str, Any], ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramEvents:
    """The newest revisions of a program's events by their start. `more`: there are others after them."""

    revisions: tuple[EventRevision, ...]
    more: bool


class PerformanceReader:
    """Reads the revisions of a state directory. Every method raises StorageError, CorruptState."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    async def event(self, name: str, asked: FigureQuestion) -> EventFigures | None:
        """An event as its source calls it, or as the gateway does; None = nothing is worked out of it, or not that
        revision. Raises InvalidInput where several sources call one so."""

        def read(store: EventRevisions) -> EventFigures | None:
            found = store.of_event(name, REVISIONS_MAX)
            events = sorted({one.event for one in found})
            if len(events) > 1:
                raise InvalidInput([f"several sources call an event so: ask for {' or '.join(events)}"])
            if not found:
                return None
            occurrence_ms = found[0].occurrence_ms if asked.occurrence_ms is None else asked.occurrence_ms
            one = (
                store.newest(events[0], occurrence_ms)
                if asked.revision is None
                else store.one(events[0], occurrence_ms, asked.revision)
            )
            if one is None:
                return None
            figures = store.figures(one.id, asked.level.value, asked.after, asked.limit + 1)
            return EventFigures(
                revision=one, others=tuple(found), figures=tuple(figures[: asked.limit]),
                more=len(figures) > asked.limit,
            )  # fmt: skip

        return await self._read(read)

    async def program(
        self, program: str, from_ms: int, until_ms: int, after: tuple[int, str] | None, limit: int
    ) -> ProgramEvents:
        """The events of a program that begin from an instant until before another one (UTC ms), after a place."""

        def read(store: EventRevisions) -> ProgramEvents:
            found = store.of_program(program, from_ms, until_ms, after, limit + 1)
            return ProgramEvents(revisions=tuple(found[:limit]), more=len(found) > limit)

        return await self._read(read)

    async def _read(self, work: Callable[[EventRevisions], T]) -> T:
        def read() -> T:
            with EventRevisions(self._state_dir) as store:
                return work(store)

        return await asyncio.to_thread(read)
