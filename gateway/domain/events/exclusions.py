"""Exclusions from dispatch by choice: owners who opted out, groups and areas that keep their energy for a storm.

An exclusion names devices or an area, a time and a reason. An opt-out may be for one event only; it then survives every
update of that event. One of an area is of whoever is in it at the moment, and may raise the reserve there; of
several the highest holds. An exclusion counts at once; one that it replaces goes on until the new one is durable. It
ends by itself, or once its lifting is durable; a clock that is set back neither ends nor suspends it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gateway.domain.events.areas import AreaMatches, ProgramHomes
from gateway.domain.events.book import members
from gateway.domain.events.request import TargetGroup
from gateway.domain.events.scope import own_id
from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.registry.territory import Area
from gateway.domain.table import Singles
from gateway.domain.types import Bools, EventId, Now, Slots

EXCLUSIONS_MAX = 50_000
AREAS_MAX = 500
EVER_MS = 1 << 62

GroupReason = Literal["opt_out", "storm"]
AreaReason = Literal["storm", "outage", "weather", "utility_request", "other"]
REASONS: tuple[str, ...] = tuple(dict.fromkeys((*get_args(GroupReason), *get_args(AreaReason))))
REASON_OF: Mapping[str, ExclusionReason] = {
    "opt_out": ExclusionReason.OPTED_OUT,
    "storm": ExclusionReason.STORM,
    "outage": ExclusionReason.STORM,
    "weather": ExclusionReason.STORM,
    "utility_request": ExclusionReason.EXCLUDED,
    "other": ExclusionReason.EXCLUDED,
}
"""What an exclusion does: devices opt out, keep their energy (and may charge), or are left alone altogether."""

_BIT_OF = {reason: np.uint8(1 << number) for number, reason in enumerate(REASONS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """`group`, or whoever is in `area`, is excluded from `from_ms` until `until_ms` (UTC; None = until it is lifted).
    `event`: for events of this id only, whatever their source, which belongs to opt-outs. `by` names who set it.
    `note`: why, in words. `reserve_pct`: the reserve is raised to it meanwhile; `dispatch_above_reserve`: what is above
    it may be dispatched."""

    id: str
    reason: GroupReason | AreaReason
    group: TargetGroup = field(default_factory=TargetGroup)
    from_ms: int
    until_ms: int | None
    event: EventId | None = None
    by: str = ""
    area: Area | None = None
    note: str = ""
    reserve_pct: float | None = None
    dispatch_above_reserve: bool = False

    @property
    def bit(self) -> ExclusionReason:
        """What it does to its devices besides raising their reserve."""
        return ExclusionReason(0) if self.dispatch_above_reserve else REASON_OF[self.reason]

    @property
    def leaves_alone(self) -> bool:
        """Whether it keeps its devices from charging, too."""
        return self.bit not in (0, ExclusionReason.STORM)

    @property
    def locks_out(self) -> bool:
        """Whether it is a storm before which programs may leave devices alone."""
        return self.reason == "storm" and not self.dispatch_above_reserve

    def over(self, now: Now) -> bool:
        return self.until_ms is not None and now.utc_ms >= self.until_ms

    def applies(self, now: Now) -> bool:
        return now.utc_ms >= self.from_ms and not self.over(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bits:
    """What exclusions do to a fleet, and why (a bit of `reasons` each), from `from_ms` until `until_ms`."""

    bits: NDArray[np.uint8]
    reasons: NDArray[np.uint8]
    raised_reserve_pct: Singles
    version: int
    from_ms: int
    until_ms: int

    def holds(self, fleet: Fleet, now: Now) -> bool:
        return self.version == fleet.version and self.from_ms <= now.utc_ms < self.until_ms


class _Marks:
    """What exclusions do to each of `n` devices, or territories."""

    def __init__(self, n: int) -> None:
        self.bits = np.zeros(n, dtype=np.uint8)
        self.reasons = np.zeros(n, dtype=np.uint8)
        self.raised_reserve_pct: Singles = np.zeros(n, dtype=np.float32)

    def mark(self, exclusion: Exclusion, some: Slots | Bools) -> None:
        """Add an exclusion of some of them: of several reserves the highest holds."""
        self.bits[some] |= np.uint8(exclusion.bit)
        self.reasons[some] |= _BIT_OF[exclusion.reason]
        if exclusion.reserve_pct is not None:
            self.raised_reserve_pct[some] = np.maximum(self.raised_reserve_pct[some], exclusion.reserve_pct)

    def join(self, others: "_Marks", of: NDArray[np.integer]) -> None:
        """Add those of others: `of` says which of them each belongs to."""
        self.bits |= others.bits[of]
        self.reasons |= others.reasons[of]
        self.raised_reserve_pct = np.maximum(self.raised_reserve_pct, others.raised_reserve_pct[of])


class Exclusions:
    """All exclusions, by id. What a tick asks is worked out anew only where an exclusion begins, ends or changes."""

    def __init__(self, exclusions: Iterable[Exclusion] = ()) -> None:
        self._exclusions: dict[str, Exclusion] = {one.id: one for one in exclusions}
        self._ids = sorted(self._exclusions)
        self._of_events: dict[str, Exclusion] = {}
        self._storms: dict[str, Exclusion] = {}
        self._areas: dict[str, Exclusion] = {}
        for one in self._exclusions.values():
            self._file(one)
        self._matches = AreaMatches()
        self._programs: ProgramHomes = {}
        self._former: dict[str, Exclusion] = {}
        self._first_end_ms = min(
            (one.until_ms for one in self._exclusions.values() if one.until_ms is not None), default=EVER_MS
        )
        self._members: dict[str, Slots] = {}
        self._version = -1
        self._bits: _Bits | None = None
        self._now_ms = -EVER_MS

    def __len__(self) -> int:
        return len(self._exclusions)

    def set(self, exclusion: Exclusion) -> None:
        """Begin an exclusion. The one of its id that is durable stays in force beside it until `settle`."""
        former = self._former.get(exclusion.id) or self._exclusions.get(exclusion.id)
        self.lift(exclusion.id)
        if former is not None:
            self._former[exclusion.id] = former
        self._exclusions[exclusion.id] = exclusion
        insort(self._ids, exclusion.id)
        self._file(exclusion)
        if exclusion.until_ms is not None:
            self._first_end_ms = min(self._first_end_ms, exclusion.until_ms)

    def _file(self, exclusion: Exclusion) -> None:
        if exclusion.event is not None:
            self._of_events[exclusion.id] = exclusion
        if exclusion.locks_out:
            self._storms[exclusion.id] = exclusion
        if exclusion.area is not None:
            self._areas[exclusion.id] = exclusion

    def settle(self, exclusion: Exclusion) -> None:
        """End what an exclusion replaced: it is durable. Where it was replaced itself meanwhile, it goes on instead."""
        if self._exclusions.get(exclusion.id) is exclusion:
            self._former.pop(exclusion.id, None)
        elif exclusion.id in self._former:
            self._former[exclusion.id] = exclusion
        self._bits = None

    def unsettled(self) -> list[Exclusion]:
        """Those beside which the one that they replaced goes on."""
        return [self._exclusions[name] for name in self._former]

    def lift(self, exclusion_id: str) -> None:
        self._former.pop(exclusion_id, None)
        if self._exclusions.pop(exclusion_id, None) is not None:
            del self._ids[bisect_left(self._ids, exclusion_id)]
        for kind in (self._of_events, self._storms, self._areas):
            kind.pop(exclusion_id, None)
        self._members.pop(exclusion_id, None)
        self._bits = None

    def observe(self, now: Now) -> list[Exclusion]:
        """Note the time, every tick. Returns those that had begun and would begin anew because the clock was set back:
        they begin now."""
        before_ms, self._now_ms = self._now_ms, now.utc_ms
        if now.utc_ms >= before_ms:
            return []
        begun = [
            replace(one, from_ms=now.utc_ms)
            for one in self._exclusions.values()
            if now.utc_ms < one.from_ms <= before_ms
        ]
        for one in begun:
            self._exclusions[one.id] = one
            self._file(one)
        self._bits = None
        return begun

    def programs(self) -> frozenset[str]:
        """The programs that areas name; whoever knows says in every tick who is in them (`observe_programs`)."""
        areas = (one.area for one in (*self._areas.values(), *self._former.values()) if one.area is not None)
        return frozenset(program for area in areas for program in area.programs)

    def observe_programs(self, programs: ProgramHomes) -> None:
        """Note who is in the programs that areas name."""
        known, self._programs = self._programs, programs
        if known.keys() == programs.keys() and all(known[name] is programs[name] for name in programs):
            return
        for name, one in self._areas.items():
            if one.area is not None and one.area.programs:
                self._members.pop(name, None)
        self._bits = None

    def get(self, exclusion_id: str) -> Exclusion | None:
        return self._exclusions.get(exclusion_id)

    def ids(self) -> list[str]:
        """All ids, in order."""
        return self._ids.copy()

    def all(self) -> list[Exclusion]:
        """All exclusions in the order of their ids."""
        return [self._exclusions[name] for name in self._ids]

    def storms(self) -> list[Exclusion]:
        """Those that keep energy for a storm."""
        return list(self._storms.values())

    def areas(self) -> list[Exclusion]:
        """Those of areas."""
        return list(self._areas.values())

    def over(self, now: Now) -> list[str]:
        """Ids of those that have ended by themselves."""
        if now.utc_ms < self._first_end_ms:
            return []
        ends = [one.until_ms for one in self._exclusions.values() if one.until_ms is not None]
        self._first_end_ms = min(ends, default=EVER_MS)
        return [one.id for one in self._exclusions.values() if one.over(now)]

    def bits(self, fleet: Fleet, now: Now) -> NDArray[np.uint8]:
        """`ExclusionReason` bits of every device, from exclusions that are not for one event only."""
        return self._known(fleet, now).bits.copy()

    def raised_reserve_pct(self, fleet: Fleet, now: Now) -> Singles:
        """The reserve to which exclusions raise that of every device, percent; 0 = none does."""
        return self._known(fleet, now).raised_reserve_pct

    def _known(self, fleet: Fleet, now: Now) -> "_Bits":
        known = self._bits
        if known is None or not known.holds(fleet, now):
            known = self._bits = self._worked_out(fleet, now)
        return known

    def _worked_out(self, fleet: Fleet, now: Now) -> "_Bits":
        by_device, by_territory = _Marks(fleet.n), _Marks(len(fleet.territories.known) + 1)
        until_ms = EVER_MS
        for exclusion in (*self._exclusions.values(), *self._former.values()):
            for edge_ms in (exclusion.from_ms, exclusion.until_ms):
                if edge_ms is not None and now.utc_ms < edge_ms < until_ms:
                    until_ms = edge_ms
            if exclusion.event is not None or not exclusion.applies(now):
                continue
            if exclusion.area is None or exclusion.area.programs:
                by_device.mark(exclusion, self.devices(fleet, exclusion))
            else:
                by_territory.mark(exclusion, self._matches.inside(fleet, exclusion.area))
        if self._areas or self._former:
            # the last territory is that of nobody: who is not registered is nowhere, and nothing covers that
            by_device.join(by_territory, fleet.nameplate.territory[: fleet.n])
        return _Bits(
            bits=by_device.bits, reasons=by_device.reasons, raised_reserve_pct=by_device.raised_reserve_pct,
            version=fleet.version, from_ms=now.utc_ms, until_ms=until_ms,
        )  # fmt: skip

    def devices(self, fleet: Fleet, exclusion: Exclusion) -> Slots:
        """Devices of an exclusion, cached until a device is registered or who is in a program changes."""
        if exclusion.group.all:
            return members(fleet, exclusion.group)
        if fleet.version != self._version:
            self._members, self._version = {}, fleet.version
        if self._exclusions.get(exclusion.id) is not exclusion:
            return self._found(fleet, exclusion)
        found = self._members.get(exclusion.id)
        if found is None:
            found = self._members[exclusion.id] = self._found(fleet, exclusion)
        return found

    def _found(self, fleet: Fleet, exclusion: Exclusion) -> Slots:
        if exclusion.area is None:
            return members(fleet, exclusion.group)
        return self._matches.slots(fleet, exclusion.area, self._programs)

    def covered(self, fleet: Fleet, area: Area, programs: ProgramHomes) -> Slots:
        """The devices in an area, given who is in the programs that it names."""
        return self._matches.slots(fleet, area, programs)

    def covers(self, fleet: Fleet, exclusion: Exclusion, slots: Slots) -> Bools:
        """Which of some devices an exclusion of an area covers."""
        if exclusion.area is None or exclusion.area.programs:
            inside: Bools = np.isin(slots, self.devices(fleet, exclusion))
        else:
            inside = self._matches.inside(fleet, exclusion.area)[fleet.nameplate.territory[slots]]
        return inside

    def count(self, fleet: Fleet, exclusion: Exclusion) -> int:
        """How many devices an exclusion covers."""
        if exclusion.area is None or exclusion.area.programs:
            return len(self.devices(fleet, exclusion))
        return self._matches.count(fleet, exclusion.area)

    def among(self, fleet: Fleet, some: Iterable[Exclusion], slots: Slots) -> tuple[Bools, list[str]]:
        """Which of these devices exclusions of areas cover, and the ids of those that cover any."""
        where = fleet.nameplate.territory[slots]
        present = np.bincount(where + 1, minlength=len(fleet.territories.known) + 1)[1:] > 0
        out: Bools = np.zeros(len(slots), dtype=np.bool_)
        there: Bools = np.zeros(len(present) + 1, dtype=np.bool_)
        names = []
        for one in some:
            if one.area is None or one.area.programs:
                covered = self.covers(fleet, one, slots)
                out |= covered
            else:
                inside = self._matches.inside(fleet, one.area)
                covered = inside[:-1] & present
                there |= inside
            if covered.any():
                names.append(one.id)
        return out | there[where], names

    def by_slot(self, fleet: Fleet, slots: Slots, now: Now) -> dict[int, list[str]]:
        """The ids of the exclusions of areas in force that cover some of these devices, by slot."""
        found: dict[int, list[str]] = {}
        for one in self._areas.values():
            if one.applies(now):
                for slot in slots[self.covers(fleet, one, slots)].tolist():
                    found.setdefault(slot, []).append(one.id)
        return found

    def by_reason(self, fleet: Fleet, now: Now) -> dict[str, Bools]:
        """Which devices exclusions in force cover, by reason; those of one event do not count."""
        reasons = self._known(fleet, now).reasons
        return {reason: (reasons & bit) != 0 for reason, bit in _BIT_OF.items()}

    def within(self, from_ms: int, until_ms: int) -> list[Exclusion]:
        """Those of areas, and not for what is above their reserve only, that apply at some time of a span."""
        return [
            one
            for one in self._areas.values()
            if one.bit and one.from_ms < until_ms and (one.until_ms is None or from_ms < one.until_ms)
        ]

    def without(self, fleet: Fleet, index_of: Mapping[EventId, int], now: Now) -> dict[int, Slots]:
        """Slots that opted out of one event, by the event's index. `index_of`: by the event's id within the gateway. An
        owner names an event by the id that its source uses: every event of that id is meant."""
        named: dict[EventId, list[int]] = {}
        for event, index in index_of.items():
            named.setdefault(own_id(event), []).append(index)
        found: dict[int, list[Slots]] = {}
        former = [one for one in self._former.values() if one.event is not None]
        for exclusion in (*self._of_events.values(), *former):
            for index in named.get(exclusion.event, ()) if exclusion.event is not None else ():
                if exclusion.applies(now):
                    found.setdefault(index, []).append(self.devices(fleet, exclusion))
        return {index: np.unique(np.concatenate(parts)).astype(np.int32) for index, parts in found.items()}
