"""Takes exclusions in, ends them, and knows whom they cover. One counts at once, its end once that is durable."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway.clock import Clock
from gateway.domain.errors import InvalidInput
from gateway.domain.events import advice
from gateway.domain.events.areas import ProgramHomes
from gateway.domain.events.exclusions import AREAS_MAX, EXCLUSIONS_MAX, REASONS, Exclusion, Exclusions
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import EventRequest
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import AuditDoor, Change, ExclusionLifted, ExclusionSet
from gateway.domain.types import Now, Slots
from gateway.services.events.participation import MembersOf, Participation
from gateway.services.runtime.pending_changes import PendingChanges

log = logging.getLogger(__name__)

SLICE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """What became of several exclusions: how many are new or other than before, which were `refused` and why, and
    whether the others are durable."""

    changed: int
    unchanged: int
    refused: Mapping[str, str]
    durable: bool


class Excluding:
    """`pending` keeps what is not durable yet; `members` says whom an event names, `participation` who is enrolled."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        pending: PendingChanges,
        clock: Clock,
        participation: Participation,
        members: MembersOf,
    ) -> None:
        self._fleet = fleet
        self._pending = pending
        self._clock = clock
        self._participation = participation
        self._members = members
        self._events: Sequence[ActiveEvent] = ()
        self._homes: dict[str, tuple[Sequence[Slots], Slots]] = {}
        self.exclusions = Exclusions()

    def load(self, remembered: Sequence[Exclusion]) -> None:
        """Load those of earlier runs."""
        self.exclusions = Exclusions(remembered)

    def anew(self, exclusion: Exclusion) -> Exclusion | None:
        """What setting an exclusion would change: one of an area that is sent again without another beginning goes on
        since when it began. None = nothing. Raises InvalidInput where it cannot be set."""
        now, known = self._clock.now(), self.exclusions.get(exclusion.id)
        if exclusion.over(now):
            raise InvalidInput(["until: is over already"])
        if known is None and len(self.exclusions) >= EXCLUSIONS_MAX:
            raise InvalidInput([f"there are {EXCLUSIONS_MAX} exclusions already"])
        if exclusion.area is None:
            return exclusion
        of_area = known is not None and known.area is not None
        if not of_area and len(self.exclusions.areas()) >= AREAS_MAX:
            raise InvalidInput([f"there are {AREAS_MAX} exclusions of areas already"])
        if known is None:
            return exclusion
        if known.from_ms <= exclusion.from_ms <= now.utc_ms:
            exclusion = replace(exclusion, from_ms=known.from_ms)
        return None if replace(exclusion, by=known.by) == known else exclusion

    async def exclude(self, exclusion: Exclusion) -> bool:
        """Exclude devices from dispatch, at once; the same id replaces. Returns whether that is durable yet. Raises
        InvalidInput."""
        anew = self.anew(exclusion)
        if anew is None:
            return exclusion.id not in {change.exclusion.id for change in self._pending.owed(ExclusionSet)}
        self._begin(anew)
        return await self._keep([anew])

    async def exclude_all(self, asked: Sequence[Exclusion]) -> "Excluded":
        """The same for several, which become durable together; what cannot be set is named, the others are set."""
        begun: list[Exclusion] = []
        refused: dict[str, str] = {}
        for count, exclusion in enumerate(asked):
            try:
                anew = self.anew(exclusion)
            except InvalidInput as error:
                refused[exclusion.id] = "; ".join(error.problems)
                continue
            if anew is not None:
                self._begin(anew)
                begun.append(anew)
            if count % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        durable = await self._keep(begun) if begun else True
        return Excluded(
            changed=len(begun), unchanged=len(asked) - len(begun) - len(refused), refused=refused, durable=durable
        )

    def _begin(self, exclusion: Exclusion) -> None:
        self.exclusions.set(exclusion)
        self._observe_programs(self._clock.now())

    async def _keep(self, begun: Sequence[Exclusion]) -> bool:
        durable = await self._pending.keep(
            [ExclusionSet(exclusion=one, by=one.by, door=AuditDoor.REST) for one in begun]
        )
        for exclusion in begun:
            if durable:
                self.exclusions.settle(exclusion)
            # where homes are stays out of the log
            warnings = () if exclusion.area is not None else self.missed(exclusion)
            log.info(
                "exclusion set",
                extra={"exclusion": exclusion.id, "reason": exclusion.reason, "by": exclusion.by,
                       "event": exclusion.event, "durable": durable, "warnings": warnings},
            )  # fmt: skip
        return durable

    async def lift(self, exclusion_id: str, *, by: str) -> bool:
        """End an exclusion once that is durable; returns whether there was one. Raises StorageError."""
        meant = self.exclusions.get(exclusion_id)
        if meant is None:
            return False
        await self._pending.commit([ExclusionLifted(id=exclusion_id, by=by, door=AuditDoor.REST)])
        if self.exclusions.get(exclusion_id) is not meant:
            # set anew while the disk was asked
            return True
        self.exclusions.lift(exclusion_id)
        log.info("exclusion lifted", extra={"exclusion": exclusion_id, "by": by})
        return True

    def missed(self, exclusion: Exclusion) -> tuple[str, ...]:
        """What whoever set an exclusion should know of whom it misses."""
        if exclusion.area is None:
            return advice.unmatched(self._fleet, exclusion.group)
        return advice.unmatched_area(self._fleet, exclusion.area, len(self.covered(exclusion)))

    def covered(self, exclusion: Exclusion) -> Slots:
        """The devices that an exclusion covers now, whether it is set or not."""
        if exclusion.area is None:
            return self.exclusions.devices(self._fleet, exclusion)
        homes = self._program_homes(exclusion.area.programs, self._clock.now())
        return self.exclusions.covered(self._fleet, exclusion.area, homes)

    @property
    def programs(self) -> Collection[str]:
        """The programs in which somebody may be enrolled."""
        return self._participation.programs()

    def enrolled(self, program: str, now: Now) -> Slots:
        """Who is enrolled in a program."""
        return self._participation.enrolled(program, now)

    def warnings(self, request: EventRequest, slots: Slots) -> tuple[str, ...]:
        """What the source of an event should know: how many of the devices that it names are in areas that are
        excluded within its time."""
        some = self.exclusions.within(request.start_ms, request.end_ms)
        if not some:
            return ()
        out, names = self.exclusions.among(self._fleet, some, slots)
        return advice.excluded(int(np.count_nonzero(out)), len(slots), names)

    def of(self, slots: Slots) -> dict[int, list[str]]:
        """The exclusions of areas in force, by the slots of these devices that they cover."""
        return self.exclusions.by_slot(self._fleet, slots, self._clock.now())

    def homes(self) -> dict[str, int]:
        """How many homes the exclusions in force cover, by reason."""
        now, site = self._clock.now(), self._fleet.nameplate.site
        found = dict.fromkeys(REASONS, 0)
        for reason, covered in self.exclusions.by_reason(self._fleet, now).items():
            found[reason] = int(np.count_nonzero(np.bincount(site[: len(covered)][covered])))
        return found

    # -- for the tick ----------------------------------------------------------------------------------------

    def observe(self, now: Now) -> None:
        """Note the time: exclusions go on where the clock was set back."""
        self._pending.owe(ExclusionSet(exclusion=one, by=one.by) for one in self.exclusions.observe(now))

    def observe_events(self, events: Sequence[ActiveEvent], now: Now) -> None:
        """Note which events run, before it is asked who is excluded: who they name is in their programs."""
        self._events = events
        self._observe_programs(now)

    def ended(self, *, sure: bool, now: Now) -> list[Change]:
        """End what is over, where the clock can be believed, and what was replaced by what is durable by now; returns
        what to journal."""
        unsettled = self.exclusions.unsettled()
        if unsettled:
            owed = {id(change.exclusion) for change in self._pending.owed(ExclusionSet)}
            for exclusion in unsettled:
                if id(exclusion) not in owed:
                    self.exclusions.settle(exclusion)
        over = self.exclusions.over(now) if sure else []
        for exclusion_id in over:
            self.exclusions.lift(exclusion_id)
        return [ExclusionLifted(id=exclusion_id) for exclusion_id in over]

    def _observe_programs(self, now: Now) -> None:
        programs = self.exclusions.programs()
        if not programs:
            self._homes = {}
        self.exclusions.observe_programs(self._program_homes(programs, now))

    def _program_homes(self, programs: Collection[str], now: Now) -> ProgramHomes:
        """Who is in each of these programs: enrolled in it, or named by an event of it that runs. The same arrays for
        as long as nothing changes."""
        found: Mapping[str, list[Slots]] = {
            name: [
                self._participation.enrolled(name, now),
                *(self._members(e.index, e.request) for e in self._events if e.request.program == name),
            ]
            for name in programs
        }
        for name, parts in found.items():
            known = self._homes.get(name)
            same = known is not None and len(known[0]) == len(parts)
            if known is None or not (same and all(a is b for a, b in zip(known[0], parts, strict=True))):
                self._homes[name] = parts, np.unique(np.concatenate(parts)).astype(np.int32)
        return {name: self._homes[name][1] for name in found}
