"""Devices that their owner, or maker, took back in mid-event: somebody else changed the mode that the gateway had set.

The rule. No event gets the device until the occurrence in which it was taken back is over: its legs and the pauses
between them are one, and so is the preparation for it, whatever events of higher rank come and go meanwhile, and a
revision counts by its own times. The
event itself does not get it for `APART_MS` from then on either, so that no later occurrence, leg or revision of the
same day takes it again; other events may. Both hold through restarts. A cancelled event is over. An occurrence without
an end is over for this 24 h after the take-back.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from gateway.domain.events.calendar import DAY_MS
from gateway.domain.events.lifecycle import OVER, BookEntry, EventState
from gateway.domain.events.preparation import keeping
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.rules.program import GridProgram
from gateway.domain.types import DeviceId, EventId, Now, Slots

APART_MS = 18 * 3_600_000
"""Longer than from a morning to the evening, shorter than to the same hour of the next day."""

CHECK_EVERY_MS = 60_000

EntryOf = Callable[[EventId], BookEntry | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeBack:
    """`device` was taken back at `at_ms` (UTC) while it was in `event`."""

    device: DeviceId
    event: EventId
    at_ms: int


def occurs(taken: TakeBack, entry: BookEntry | None, now: Now, program: GridProgram | None = None) -> bool:
    """Whether the occurrence in which a device was taken back goes on. `entry`: its event, None = nobody knows it;
    `program`: the rules of its program, if any."""
    if entry is None or not _alive(entry):
        return False
    request = entry.request
    from_ms = max(taken.at_ms, request.start_ms)
    next_ms = request.next_ms(from_ms)
    if next_ms is not None and from_ms >= request.until_over_ms(from_ms):
        kept = keeping(request, program, next_ms)
        # it was being prepared for the occurrence to come
        from_ms = next_ms if kept is not None and from_ms >= kept.from_ms else from_ms
    return now.utc_ms < (from_ms + DAY_MS if request.endless else request.until_over_ms(from_ms))


def _alive(entry: BookEntry) -> bool:
    return entry.state not in OVER and entry.state is not EventState.REJECTED


def over(taken: TakeBack, entry: BookEntry | None, now: Now, program: GridProgram | None = None) -> bool:
    """Whether a take-back holds no more, not for its event either."""
    return now.utc_ms >= taken.at_ms + APART_MS and not occurs(taken, entry, now, program)


class TakeBacks:
    """All take-backs, by event and device. `programs`: the rules of those that have some here, by name."""

    def __init__(
        self, taken: Iterable[TakeBack] = (), programs: Mapping[str, GridProgram] = MappingProxyType({})
    ) -> None:
        self._programs = programs
        self._of: dict[EventId, dict[DeviceId, TakeBack]] = {}
        self._slots: dict[EventId, tuple[int, Slots]] = {}
        self._checked_ms: int | None = None
        for one in taken:
            self.add(one)

    def __iter__(self) -> Iterator[TakeBack]:
        return (one for devices in self._of.values() for one in devices.values())

    def add(self, taken: TakeBack) -> None:
        self._of.setdefault(taken.event, {})[taken.device] = taken
        self._slots.pop(taken.event, None)

    def forget(self, now: Now, entry_of: EntryOf) -> Mapping[EventId, list[DeviceId]]:
        """Forget what is over, looked for once a minute; returns the devices of each event."""
        if self._checked_ms is not None and 0 <= now.utc_ms - self._checked_ms < CHECK_EVERY_MS:
            return {}
        self._checked_ms = now.utc_ms
        gone: dict[EventId, list[DeviceId]] = {}
        for event, devices in self._of.items():
            entry = entry_of(event)
            found = [name for name, taken in devices.items() if over(taken, entry, now, self._program(entry))]
            if found:
                gone[event] = found
        self._drop(gone)
        return gone

    def excuse(self, devices: Iterable[DeviceId]) -> Mapping[EventId, list[DeviceId]]:
        """Forget the newest take-back of each device; returns the devices of each event."""
        gone: dict[EventId, list[DeviceId]] = {}
        for device in devices:
            mine = [taken for of in self._of.values() if (taken := of.get(device)) is not None]
            if mine:
                gone.setdefault(max(mine, key=lambda taken: taken.at_ms).event, []).append(device)
        self._drop(gone)
        return gone

    def apart(self, fleet: Fleet, index_of: Mapping[EventId, int]) -> dict[int, Slots]:
        """Slots that each event must leave alone, by the event's index. `index_of`: by the event's id."""
        return {index_of[event]: self._members(fleet, event) for event in self._of if event in index_of}

    def held(self, fleet: Fleet, now: Now, entry_of: EntryOf) -> set[int]:
        """Slots that no event gets now."""
        found: set[int] = set()
        for event, devices in self._of.items():
            entry = entry_of(event)
            if entry is not None and _alive(entry):
                found |= {
                    slot
                    for taken in devices.values()
                    if (slot := fleet.slot_of.get(taken.device)) is not None
                    and occurs(taken, entry, now, self._program(entry))
                }
        return found

    def _program(self, entry: BookEntry | None) -> GridProgram | None:
        return None if entry is None else self._programs.get(entry.request.program)

    def _drop(self, gone: Mapping[EventId, list[DeviceId]]) -> None:
        for event, names in gone.items():
            for name in names:
                del self._of[event][name]
            if not self._of[event]:
                del self._of[event]
            self._slots.pop(event, None)

    def _members(self, fleet: Fleet, event: EventId) -> Slots:
        known = self._slots.get(event)
        if known is None or known[0] != fleet.version:
            slots = [slot for name in self._of[event] if (slot := fleet.slot_of.get(name)) is not None]
            known = self._slots[event] = (fleet.version, np.array(sorted(slots), dtype=np.int32))
        return known[1]
