"""Remembers the devices that their owners took back from events, and what to journal of that."""

from collections.abc import Mapping, Sequence

import numpy as np

from gateway.domain.events.take_backs import EntryOf, TakeBack, TakeBacks
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import Change, TakeBackOver, TakenBack
from gateway.domain.journal.stored import JournalState
from gateway.domain.rules.program import GridProgram
from gateway.domain.types import EventId, Now, Slots


class TakenBackDevices:
    """All take-backs of the fleet. `entry_of`: an event of the book; `programs`: those whose rules are known."""

    def __init__(self, fleet: Fleet, entry_of: EntryOf, programs: Mapping[str, GridProgram]) -> None:
        self._fleet = fleet
        self._entry_of = entry_of
        self._programs = programs
        self._all = TakeBacks(programs=programs)

    def load(self, remembered: JournalState) -> None:
        """Load those of earlier runs."""
        self._all = TakeBacks(remembered.taken_back, self._programs)

    def add(self, left: Mapping[int, Sequence[int]], names: Mapping[int, EventId], now: Now) -> list[Change]:
        """Remember that owners took devices back (slots by the index of their event); returns what to journal."""
        changes: list[Change] = []
        for index, slots in left.items():
            event = names.get(index)
            if event is not None:
                devices = self._fleet.names(np.array(slots))
                changes.append(TakenBack(event=event, devices=devices, at_ms=now.utc_ms))
                for device in devices:
                    self._all.add(TakeBack(device=device, event=event, at_ms=now.utc_ms))
        return changes

    def excuse(self, slots: Sequence[int]) -> list[Change]:
        """Forget that devices were taken back: they had restarted. Returns what to journal."""
        excused = self._all.excuse(self._fleet.names(np.array(slots)))
        return [TakeBackOver(event=event, devices=tuple(devices)) for event, devices in excused.items()]

    def forget(self, now: Now) -> list[Change]:
        """Forget what is over; returns what to journal."""
        gone = self._all.forget(now, self._entry_of)
        return [TakeBackOver(event=event, devices=tuple(devices)) for event, devices in gone.items()]

    def apart(self, index_of: Mapping[EventId, int]) -> dict[int, Slots]:
        """Slots that each event must leave alone, by the event's index. `index_of`: by the event's id."""
        return self._all.apart(self._fleet, index_of)

    def lasting(self, now: Now) -> dict[int, bool]:
        """Slots that their owners took back, and whether the occurrence in which they did goes on."""
        held, slot_of = self.held(now), self._fleet.slot_of
        return {slot_of[one.device]: slot_of[one.device] in held for one in self._all if one.device in slot_of}

    def held(self, now: Now) -> set[int]:
        """Slots that no event gets, because their owners took them back in an occurrence that goes on."""
        return self._all.held(self._fleet, now, self._entry_of)
