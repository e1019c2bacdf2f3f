"""Exclusions from dispatch by choice: owners who opted out, groups that keep their energy for a storm.

An exclusion names devices, a time and a reason. An opt-out may be for one event only; it then survives every update of
that event. An exclusion counts at once; one that it replaces goes on until the new one is durable. It ends by itself,
or once its lifting is durable; a clock that is set back neither ends nor suspends it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.domain.events.book import members
from gateway.domain.events.request import TargetGroup
from gateway.domain.events.scope import own_id
from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import EventId, Now, Slots

EXCLUSIONS_MAX = 50_000
EVER_MS = 1 << 62
REASON_OF: Mapping[str, ExclusionReason] = {"opt_out": ExclusionReason.OPTED_OUT, "storm": ExclusionReason.STORM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """`group` is excluded from `from_ms` until `until_ms` (UTC; None = until it is lifted). `event`: for events of this
    id only, whatever their source, which belongs to opt-outs. `by` names who set it."""

    id: str
    reason: Literal["opt_out", "storm"]
    group: TargetGroup
    from_ms: int
    until_ms: int | None
    event: EventId | None = None
    by: str = ""

    def over(self, now: Now) -> bool:
        return self.until_ms is not None and now.utc_ms >= self.until_ms

    def applies(self, now: Now) -> bool:
        return now.utc_ms >= self.from_ms and not self.over(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bits:
    """Bits of a fleet as they are from `from_ms` until `until_ms`."""

    bits: NDArray[np.uint8]
    version: int
    from_ms: int
    until_ms: int

    def holds(self, fleet: Fleet, now: Now) -> bool:
        return self.version == fleet.version and self.from_ms <= now.utc_ms < self.until_ms


class Exclusions:
    """All exclusions, by id. What a tick asks is worked out anew only where an exclusion begins, ends or changes."""

    def __init__(self, exclusions: Iterable[Exclusion] = ()) -> None:
        self._exclusions: dict[str, Exclusion] = {one.id: one for one in exclusions}
        self._ids = sorted(self._exclusions)
        self._of_events = {one.id: one for one in self._exclusions.values() if one.event is not None}
        self._storms = {one.id: one for one in self._exclusions.values() if one.reason == "storm"}
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
        if exclusion.event is not None:
            self._of_events[exclusion.id] = exclusion
        if exclusion.reason == "storm":
            self._storms[exclusion.id] = exclusion
        if exclusion.until_ms is not None:
            self._first_end_ms = min(self._first_end_ms, exclusion.until_ms)

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
        self._of_events.pop(exclusion_id, None)
        self._storms.pop(exclusion_id, None)
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
            if one.event is not None:
                self._of_events[one.id] = one
            if one.reason == "storm":
                self._storms[one.id] = one
        self._bits = None
        return begun

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

    def over(self, now: Now) -> list[str]:
        """Ids of those that have ended by themselves."""
        if now.utc_ms < self._first_end_ms:
            return []
        ends = [one.until_ms for one in self._exclusions.values() if one.until_ms is not None]
        self._first_end_ms = min(ends, default=EVER_MS)
        return [one.id for one in self._exclusions.values() if one.over(now)]

    def bits(self, fleet: Fleet, now: Now) -> NDArray[np.uint8]:
        """`ExclusionReason` bits of every device, from exclusions that are not for one event only."""
        known = self._bits
        if known is None or not known.holds(fleet, now):
            known = self._bits = self._worked_out(fleet, now)
        return known.bits.copy()

    def _worked_out(self, fleet: Fleet, now: Now) -> "_Bits":
        bits = np.zeros(fleet.n, dtype=np.uint8)
        until_ms = EVER_MS
        for exclusion in (*self._exclusions.values(), *self._former.values()):
            for edge_ms in (exclusion.from_ms, exclusion.until_ms):
                if edge_ms is not None and now.utc_ms < edge_ms < until_ms:
                    until_ms = edge_ms
            if exclusion.event is None and exclusion.applies(now):
                bits[self.devices(fleet, exclusion)] |= np.uint8(REASON_OF[exclusion.reason])
        return _Bits(bits=bits, version=fleet.version, from_ms=now.utc_ms, until_ms=until_ms)

    def devices(self, fleet: Fleet, exclusion: Exclusion) -> Slots:
        """Devices of an exclusion, cached until a device is registered."""
        if exclusion.group.all:
            return members(fleet, exclusion.group)
        if fleet.version != self._version:
            self._members, self._version = {}, fleet.version
        if self._exclusions.get(exclusion.id) is not exclusion:
            return members(fleet, exclusion.group)
        found = self._members.get(exclusion.id)
        if found is None:
            found = self._members[exclusion.id] = members(fleet, exclusion.group)
        return found

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
