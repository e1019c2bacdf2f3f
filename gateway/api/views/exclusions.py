"""What REST sees of exclusions: whom each covers, and what one would do."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.api.exclusion_models import AffectedProgram, AreaBody, ExclusionAnswer, ExclusionEffect, ExclusionState
from gateway.clock import Clock
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import RUNS, BookEntry, EventState
from gateway.domain.events.scope import own_id
from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import ExclusionSet
from gateway.domain.types import Bools, Slots
from gateway.schemas.interval_rows import rfc3339
from gateway.services.control.queries import ControlQueries
from gateway.services.events.intake import Dispatcher

CHOSEN = np.uint8(ExclusionReason.OPTED_OUT | ExclusionReason.STORM | ExclusionReason.EXCLUDED)
EVENTS_NAMED = 20
EXCLUSIONS_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusionView:
    """Reads from the services; decides nothing."""

    fleet: Fleet
    dispatcher: Dispatcher
    queries: ControlQueries
    clock: Clock

    def all(self) -> Iterator[ExclusionState]:
        """All exclusions by id, each as it is when its turn comes."""
        exclusions = self.dispatcher.exclusions
        owed = {change.exclusion.id for change in self.dispatcher.pending.owed(ExclusionSet)}
        for name in exclusions.ids():
            found = exclusions.get(name)
            if found is not None:
                yield self._state(found, durable=name not in owed)

    def set(self, exclusion: Exclusion, *, durable: bool) -> ExclusionAnswer:
        """The answer to whoever set an exclusion: as it stands now."""
        known = self.dispatcher.exclusions.get(exclusion.id) or exclusion
        state = self._state(known, durable=durable)
        return ExclusionAnswer(**dict(state), warnings=[*self.dispatcher.missed(known)])

    def of(self, devices: Sequence[str]) -> dict[str, list[str]]:
        """The exclusions of territories in force that cover some of these devices, by device."""
        slots = np.array(
            [slot for name in devices if (slot := self.fleet.slot_of.get(name)) is not None], dtype=np.int32
        )
        found = self.dispatcher.excluding.of(slots)
        return {self.fleet.ids[slot]: names[:EXCLUSIONS_NAMED] for slot, names in found.items()}

    def members(self, entry: BookEntry) -> int:
        """How many devices of a running event are excluded now by choice, as of the newest tick."""
        slots = self.dispatcher.members(entry.index, entry.request)
        return int(np.count_nonzero(self._kept_out(slots)))

    async def effect(self, exclusion: Exclusion) -> ExclusionEffect:
        """What an exclusion would do."""
        slots = self.dispatcher.excluding.covered(exclusion)
        plate, allowed = self.fleet.nameplate, self.queries.envelope
        known = slots if allowed is None else slots[slots < len(allowed.discharge_w)]
        return ExclusionEffect(
            id=exclusion.id,
            replaces=self.dispatcher.exclusions.get(exclusion.id) is not None,
            devices=len(slots),
            homes=len(np.unique(plate.site[slots])),
            excluded=int(np.count_nonzero(self._kept_out(slots))),
            rated_w=round(float(plate.discharge_w_max[slots].sum()), 1),
            discharge_w=None if allowed is None else round(float(allowed.discharge_w[known].sum()), 1),
            warnings=[*self.dispatcher.missed(exclusion)],
            programs=await self._programs(slots),
        )

    def _kept_out(self, slots: Slots) -> Bools:
        out: Bools = (self.fleet.control.exclusions[slots] & CHOSEN) != 0
        return out

    async def _programs(self, slots: Slots) -> list[AffectedProgram]:
        """The programs that some of the devices are in, and the events of those that are not over."""
        n, now = self.fleet.n, self.clock.now()
        some = np.zeros(n, dtype=np.bool_)
        some[slots] = True
        named: dict[str, Bools] = {}
        events: dict[str, list[str]] = {}
        for entry in self.dispatcher.entries():
            if entry.state not in RUNS and entry.state is not EventState.SCHEDULED:
                continue
            mine = self.dispatcher.members(entry.index, entry.request)
            mine = mine[mine < n]
            hit = mine[some[mine]]
            if len(hit):
                program = entry.request.program
                named.setdefault(program, np.zeros(n, dtype=np.bool_))[hit] = True
                events.setdefault(program, []).append(own_id(entry.request.id))
            await asyncio.sleep(0)
        found = []
        for program in sorted({*named, *self.dispatcher.excluding.programs}):
            enrolled = self.dispatcher.excluding.enrolled(program, now)
            inside = int(np.count_nonzero(some[enrolled[enrolled < n]]))
            count = int(np.count_nonzero(named[program])) if program in named else 0
            if inside or count:
                found.append(
                    AffectedProgram(
                        program=program, enrolled=inside, named=count, events=events.get(program, [])[:EVENTS_NAMED]
                    )
                )
            await asyncio.sleep(0)
        return found

    def _state(self, exclusion: Exclusion, *, durable: bool) -> ExclusionState:
        area = exclusion.area
        return ExclusionState(
            id=exclusion.id,
            reason=exclusion.reason,
            event=exclusion.event,
            since=rfc3339(exclusion.from_ms),
            until=None if exclusion.until_ms is None else rfc3339(exclusion.until_ms),
            by=exclusion.by,
            devices=self.dispatcher.exclusions.count(self.fleet, exclusion),
            active=exclusion.applies(self.clock.now()),
            durable=durable,
            territory=None if area is None else AreaBody(
                postcodes=list(area.postcodes), counties=list(area.counties), utilities=list(area.utilities),
                feeders=list(area.feeders), programs=list(area.programs),
            ),
            note=exclusion.note,
            reserve_pct=exclusion.reserve_pct,
            dispatch_above_reserve=exclusion.dispatch_above_reserve,
        )  # fmt: skip
