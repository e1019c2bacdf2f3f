"""What REST shows of grid programs: their rules, and what these leave to be dispatched."""

import asyncio
from collections.abc import Callable, Mapping
from operator import itemgetter
from types import MappingProxyType

import numpy as np

from gateway.api.program_models import (
    AllowanceBody,
    AllowedBody,
    AllowedList,
    EnergyBody,
    ProgramList,
    ProgramRow,
    ProgramState,
)
from gateway.clock import Clock
from gateway.domain.events.energy_shares import EnergyAsk, asked_wh, energy_left, next_span, rank
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.events.scope import own_id
from gateway.domain.limits.types import Envelope
from gateway.domain.rules.allowed import allowances_left, allowed_spans
from gateway.domain.rules.calendar import DAY_MS, Span, united
from gateway.domain.types import Now
from gateway.programs.loader import LoadedProgram
from gateway.programs.summary import plain, program_summary
from gateway.schemas.interval_rows import rfc3339
from gateway.services.events.intake import Dispatcher

ENERGY_EVENTS = 200
"""Events, by rank, that energy is shared among; those after them ask for what is left of it."""


class ProgramView:
    """Reads from what was loaded and from the dispatcher; decides nothing. `envelope`: of the newest tick, if any."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        clock: Clock,
        envelope: Callable[[], Envelope | None] = lambda: None,
        programs: Mapping[str, LoadedProgram] = MappingProxyType({}),
    ) -> None:
        self._envelope = envelope
        self._programs = programs
        self._summaries = {name: program_summary(loaded) for name, loaded in programs.items()}
        self._dispatcher = dispatcher
        self._clock = clock

    def all(self) -> ProgramList:
        """Every program, by name."""
        return ProgramList(programs=[self._row(loaded) for loaded in self._programs.values()])

    def one(self, name: str) -> ProgramState | None:
        """A program with its rules; None = there is none of this name."""
        loaded = self._programs.get(name)
        return None if loaded is None else ProgramState(**dict(self._row(loaded)), rules=plain(loaded.document))

    async def allowed(self, name: str, from_ms: int, until_ms: int) -> AllowedList | None:
        """What could be dispatched from `from_ms` until `until_ms` (UTC); None = there is no such program. Raises
        StorageError."""
        loaded = self._programs.get(name)
        if loaded is None:
            return None
        rules, now = self._dispatcher.rules, self._clock.now()
        await rules.recall(now)
        used = rules.used(name, self._dispatcher.entries(), now)
        events = united(span for spans in used.values() for span in spans)
        left = allowances_left(loaded.program, from_ms, until_ms, events)
        return AllowedList(
            program=name,
            start=rfc3339(from_ms),
            end=rfc3339(until_ms),
            spans=[
                AllowedBody(
                    start=rfc3339(one.span[0]), end=rfc3339(one.span[1]), version=one.version,
                    notice_by=None if one.notice_by_ms is None else rfc3339(one.notice_by_ms),
                )
                for one in allowed_spans(loaded.program, from_ms, until_ms, left)
            ],
            left=[
                AllowanceBody(
                    rule=one.rule, version=one.version, per=one.per.value, start=rfc3339(one.within[0]),
                    end=rfc3339(one.within[1]), most=one.most, used=round(one.used, 3), left=round(one.left, 3),
                    effect=one.effect.value, evidence=one.certainty.value,
                )
                for one in left
            ],
            energy=await self._energy(name, now),
        )  # fmt: skip

    async def _energy(self, name: str, now: Now) -> list[EnergyBody] | None:
        """What is left of energy for the events of a program that run or begin within a day; None before the first
        tick."""
        allowed = self._envelope()
        if allowed is None:
            return None
        wants: list[tuple[tuple[object, ...], BookEntry, Span, bool]] = []
        for entry in self._dispatcher.entries():
            span = next_span(entry, now.utc_ms, now.utc_ms + DAY_MS)
            if span is not None:
                loaded = self._programs.get(entry.request.program)
                version = None if loaded is None else loaded.program.version_at(span[0])
                yields = version is not None and version.stacking.yields
                wants.append((rank(entry, yields=yields), entry, span, yields))
                await asyncio.sleep(0)
        wants.sort(key=itemgetter(0))
        able_wh = np.where(allowed.controllable, allowed.deliverable_wh, 0.0)
        asks = (self._ask(entry, span, len(able_wh), yields) for _, entry, span, yields in wants[:ENERGY_EVENTS])
        found: list[EnergyBody] = []
        for one in energy_left(asks, able_wh):
            request = one.ask.entry.request
            if request.program == name:
                found.append(
                    EnergyBody(
                        event=own_id(request.id), source=request.source, start=rfc3339(one.ask.span[0]),
                        end=rfc3339(one.ask.span[1]), left_wh=round(one.left_wh), yields=one.ask.yields,
                        asked_wh=None if one.ask.wh is None else round(one.ask.wh),
                    )
                )  # fmt: skip
            await asyncio.sleep(0)
        return found

    def _ask(self, entry: BookEntry, span: Span, n: int, yields: bool) -> EnergyAsk:
        members = self._dispatcher.members(entry.index, entry.request)
        members = members[members < n]
        wh = asked_wh(entry.request, span, len(members))
        return EnergyAsk(entry=entry, span=span, wh=wh, members=members, yields=yields)

    def _row(self, loaded: LoadedProgram) -> ProgramRow:
        told = self._summaries[loaded.program.id]
        version = loaded.program.version_at(self._clock.now().utc_ms)
        return ProgramRow(
            program=told.program,
            title=told.title,
            pricing=told.pricing,
            zone=told.zone,
            in_force=None if version is None else version.name,
            versions=[*told.versions],
            values=told.values,
            unverified=told.unverified,
            digest=told.digest,
        )
