"""Brings the book of events to what the plan says: new events, changes as revisions, ends as cancellations.

It compares, it does not follow messages: whatever came in which order, and wherever the process was killed, the same
plan ends in the same book, and what the book has already is not submitted again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from gateway.domain.events.book import Answer, Outcome, Refusal
from gateway.domain.events.lifecycle import OVER, BookEntry, EventState
from gateway.domain.events.request import EventRequest
from gateway.ports.signals import Submit
from gateway.signals.leap.requests import Batteries, PlanRows, make_request

log = logging.getLogger(__name__)

SLICE = 500
"""Meters whose batteries are looked up before others have their turn."""
UNKNOWN_TOLD = 20

Known = Callable[[str], BookEntry | None]
"""Our event by its own id."""


class MeterMap(Protocol):
    """Which batteries are behind the aggregator's meters."""

    @property
    def version(self) -> tuple[int, int]:
        """Another one once an answer may be another."""
        ...

    def batteries(self, meters: Sequence[str], at_ms: int) -> list[Batteries]:
        """The batteries behind each meter at an instant, UTC ms."""
        ...


@dataclass(slots=True, kw_only=True)
class DispatchStanding:
    """How the plan's events stand. `refused`: why the book does not take an event, by id; `early`: how many begin later
    than the book looks ahead; `unresolved`: events without
    any battery; `unknown_meters`: how many meters have none, and a few of them."""

    events: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    early: int = 0
    unresolved: list[str] = field(default_factory=list)
    unknown_meters: int = 0
    unknown_named: list[str] = field(default_factory=list)
    unknown_programs: list[str] = field(default_factory=list)


class Submission:
    """Submits what is new. `program_of`: our program for the aggregator's id; `per_device`: its power is of each
    battery. `counts`: answers by outcome."""

    def __init__(
        self, *, submit: Submit, known: Known, meters: MeterMap, program_of: Mapping[str, str], per_device: bool
    ) -> None:
        self.standing = DispatchStanding()
        self.counts = dict.fromkeys(Outcome, 0)
        self._submit = submit
        self._known = known
        self._meters = meters
        self._program_of = program_of
        self._per_device = per_device
        self._refused: dict[str, tuple[EventRequest, str]] = {}

    @property
    def version(self) -> tuple[int, int]:
        """Another one once an event may have other batteries."""
        return self._meters.version

    async def bring(self, events: Sequence[PlanRows], gone: Iterable[str], now_ms: int, *, again: bool) -> None:
        """Bring the book to the plan. `again`: ask once more for what was refused. Raises StorageError; then some of it
        is not done yet."""
        if again:
            self._refused.clear()
        standing = DispatchStanding()
        for event in sorted(events, key=lambda one: one.start_ms):
            if event.end_ms > now_ms:
                await self._bring(event, now_ms, standing)
        for name in gone:
            await self._withdraw(name)
        names = {event.id for event in events}
        self._refused = {name: why for name, why in self._refused.items() if name in names}
        early = {name for name, (_, reason) in self._refused.items() if reason == Refusal.TOO_FAR_AHEAD}
        standing.refused = {name: reason for name, (_, reason) in self._refused.items() if name not in early}
        standing.early = len(early)
        self._log(standing)
        self.standing = standing

    async def _bring(self, event: PlanRows, now_ms: int, standing: DispatchStanding) -> None:
        batteries: list[Batteries] = []
        at_ms = max(event.start_ms, now_ms)
        for at in range(0, len(event.meters), SLICE):
            batteries += self._meters.batteries(event.meters[at : at + SLICE], at_ms)
            await asyncio.sleep(0)
        known, refused = self._known(event.id), self._refused.get(event.id)
        found = await asyncio.to_thread(
            _prepared, event, batteries, known, None if refused is None else refused[0], program_of=self._program_of,
            per_device=self._per_device,
        )  # fmt: skip
        standing.events += 1
        standing.unknown_meters += found.unknown
        standing.unknown_named += found.unknown_named[: UNKNOWN_TOLD - len(standing.unknown_named)]
        if not found.program_known:
            standing.unknown_programs.append(event.id)
        if found.request is not None:
            await self._put(event.id, found.request)
        elif found.nobody:
            standing.unresolved.append(event.id)
            await self._withdraw(event.id)

    async def _put(self, name: str, request: EventRequest) -> None:
        """Submit a request that is not in the book as it is; once more where the book had forgotten the event."""
        asked: EventRequest | None = request
        for _ in range(2):
            if asked is None:
                return
            answer = await self._submit(asked)
            self.counts[answer.outcome] += 1
            if answer.outcome is Outcome.ACCEPTED:
                self._refused.pop(name, None)
                return
            if not _forgotten(answer):
                break
            asked = await asyncio.to_thread(_asked, request, self._known(name), None)
        if answer.outcome is Outcome.REJECTED:
            self._refused[name] = (replace(request, revision=0), answer.reason or "")
            level = logging.INFO if answer.reason == Refusal.TOO_FAR_AHEAD else logging.ERROR
            log.log(
                level,
                "an event of the aggregator is not taken",
                extra={"event": request.id, "reason": answer.reason, "warnings": answer.warnings},
            )

    async def _withdraw(self, name: str) -> None:
        known = self._known(name)
        if known is None or known.state in OVER or known.state is EventState.REJECTED or known.request.cancelled:
            return
        asked = replace(known.request, cancelled=True, revision=known.request.revision + 1)
        answer = await self._submit(asked)
        self.counts[answer.outcome] += 1

    def _log(self, standing: DispatchStanding) -> None:
        before = self.standing
        if standing.unknown_meters > before.unknown_meters:
            log.error(
                "the aggregator dispatches meters behind which no battery is known",
                extra={"count": standing.unknown_meters, "first": standing.unknown_named[:3]},
            )
        for name in set(standing.unknown_programs) - set(before.unknown_programs):
            log.warning("an event of a program that no file describes goes all the same", extra={"event": name})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """`request`: what is to be submitted of an event; None: `nobody` is behind its meters, or the book has it as it is,
    or has refused it."""

    request: EventRequest | None
    nobody: bool
    unknown: int
    unknown_named: list[str]
    program_known: bool


def _prepared(
    event: PlanRows, batteries: list[Batteries], known: BookEntry | None, refused: EventRequest | None, *,
    program_of: Mapping[str, str], per_device: bool,
) -> _Prepared:  # fmt: skip
    """For a thread beside the loop: an event may be for 100,000 batteries. `batteries` is emptied, for letting go of
    them takes its time too."""
    made = make_request(event, batteries, program_of=program_of, per_device=per_device)
    without = (meter for meter, behind in zip(event.meters, batteries, strict=True) if not behind)
    named = list(islice(without, UNKNOWN_TOLD)) if made.unknown else []
    batteries.clear()
    request = None if made.request is None else _asked(made.request, known, refused)
    return _Prepared(
        request=request, nobody=made.request is None, unknown=made.unknown, unknown_named=named,
        program_known=made.program_known,
    )  # fmt: skip


def _asked(request: EventRequest, known: BookEntry | None, refused: EventRequest | None) -> EventRequest | None:
    """A request as it is to be submitted, under the id that it has within the gateway; None: the book has it as it is,
    or has refused it."""
    if known is not None:
        # under the id that it has within the gateway, once it has one
        request = replace(request, id=known.request.id)
    if request == refused:
        return None
    if known is None or known.state is EventState.REJECTED:
        return request
    if replace(request, revision=known.request.revision) == known.request:
        return None
    return replace(request, revision=known.request.revision + 1)


def _forgotten(answer: Answer) -> bool:
    """Whether the book had forgotten the event, and has remembered it with this request: ask again."""
    return answer.outcome is Outcome.SUPERSEDED or answer.reason == Refusal.CONFLICT
