"""Who is kept out of dispatch by choice: owners who opted out, groups that keep their energy for a storm.

A hold names devices, a time and a reason. An opt-out may be for one event only; it then survives every update of that
event. Holds are decided by whoever sets them and durable before they count; they end by themselves or are lifted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.domain.events.book import members
from gateway.domain.events.request import TargetGroup
from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import EventId, Now, Slots

EXCLUSIONS_MAX = 50_000
REASON_OF: Mapping[str, ExclusionReason] = {"opt_out": ExclusionReason.OPTED_OUT, "storm": ExclusionReason.STORM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """`group` is held from `from_ms` until `until_ms` (UTC; None = until it is lifted). `event`: for this event only,
    which belongs to opt-outs. `by` names who set it."""

    id: str
    reason: Literal["opt_out", "storm"]
    group: TargetGroup
    from_ms: int
    until_ms: int | None
    event: EventId | None = None
    by: str = ""

    def over(self, now: Now) -> bool:
        return self.until_ms is not None and now.utc_ms >= self.until_ms

    def holds(self, now: Now) -> bool:
        return now.utc_ms >= self.from_ms and not self.over(now)


class Exclusions:
    """All holds, by id."""

    def __init__(self, holds: Iterable[Exclusion] = ()) -> None:
        self._holds: dict[str, Exclusion] = {hold.id: hold for hold in holds}
        self._members: dict[str, Slots] = {}
        self._version = -1

    def __len__(self) -> int:
        return len(self._holds)

    def set(self, hold: Exclusion) -> None:
        self._holds[hold.id] = hold
        self._members.pop(hold.id, None)

    def lift(self, hold_id: str) -> None:
        self._holds.pop(hold_id, None)
        self._members.pop(hold_id, None)

    def get(self, hold_id: str) -> Exclusion | None:
        return self._holds.get(hold_id)

    def all(self) -> list[Exclusion]:
        """Everything that is set, by id."""
        return [self._holds[name] for name in sorted(self._holds)]

    def over(self, now: Now) -> list[str]:
        """Ids of those that have ended by themselves."""
        return [hold.id for hold in self._holds.values() if hold.over(now)]

    def bars(self, fleet: Fleet, now: Now) -> NDArray[np.uint8]:
        """`ExclusionReason` bits of every device by holds that are for no event alone."""
        bits = np.zeros(fleet.n, dtype=np.uint8)
        for hold in self._holds.values():
            if hold.event is None and hold.holds(now):
                bits[self._slots(fleet, hold)] |= np.uint8(REASON_OF[hold.reason])
        return bits

    def _slots(self, fleet: Fleet, hold: Exclusion) -> Slots:
        """Devices of a hold, looked up once as long as nobody is enrolled."""
        if hold.group.all:
            return members(fleet, hold.group)
        if fleet.version != self._version:
            self._members, self._version = {}, fleet.version
        found = self._members.get(hold.id)
        if found is None:
            found = self._members[hold.id] = members(fleet, hold.group)
        return found

    def without(self, fleet: Fleet, index_of: Mapping[EventId, int], now: Now) -> dict[int, Slots]:
        """Slots that opted out of one event, by the event's index."""
        found: dict[int, list[Slots]] = {}
        for hold in self._holds.values():
            index = index_of.get(hold.event) if hold.event is not None else None
            if index is not None and hold.holds(now):
                found.setdefault(index, []).append(self._slots(fleet, hold))
        return {index: np.unique(np.concatenate(parts)).astype(np.int32) for index, parts in found.items()}
