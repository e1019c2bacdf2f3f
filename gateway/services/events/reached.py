"""Which devices events address: found again when an event or the fleet has changed."""

from collections.abc import Iterable

import numpy as np

from gateway.domain.events.book import members
from gateway.domain.events.lifecycle import ActiveEvent, BookEntry
from gateway.domain.events.request import EventRequest, Target
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import EventId, Floats, Slots
from gateway.services.events.sources import SourceBounds

COUNTS_MAX = 1_000
"""Events whose number of devices is known without counting again."""


class Reached:
    """The devices of an event's group that its source may ask for."""

    def __init__(self, fleet: Fleet, sources: SourceBounds) -> None:
        self._fleet = fleet
        self._sources = sources
        self._members: dict[int, tuple[EventRequest, int, Slots]] = {}
        self._each_w: dict[int, tuple[Target, int, Floats]] = {}
        self._counts: dict[EventId, tuple[EventRequest, int, int]] = {}

    def members(self, index: int, request: EventRequest) -> Slots:
        """Slots that an event addresses."""
        known = self._members.get(index)
        if known is None or known[0] is not request or known[1] != self._fleet.version:
            known = self._members[index] = (request, self._fleet.version, self._find(request))
        return known[2]

    def devices(self, entry: BookEntry) -> int:
        """How many registered devices an event addresses."""
        name, request, version = entry.request.id, entry.request, self._fleet.version
        known = self._counts.get(name)
        if known is None or known[0] is not request or known[1] != version:
            known = self._counts[name] = (request, version, len(self._find(request)))
            while len(self._counts) > COUNTS_MAX:
                del self._counts[next(iter(self._counts))]
        return known[2]

    def each_w(self, event: ActiveEvent) -> Floats:
        """The power of each device by slot, W, of an event whose target asks for one of each; 0 of all others."""
        target, names = event.target, event.request.group.ids
        known = self._each_w.get(event.index)
        if known is None or known[0] is not target or known[1] != self._fleet.version or len(known[2]) != self._fleet.n:
            found = np.zeros(self._fleet.n)
            pairs = [(slot, w) for name, w in zip(names, target.each_w, strict=True)
                     if (slot := self._fleet.slot_of.get(name)) is not None]  # fmt: skip
            if pairs:
                slots, powers_w = zip(*pairs, strict=True)
                found[list(slots)] = powers_w
            known = self._each_w[event.index] = (target, self._fleet.version, found)
        return known[2]

    def forget(self, running: Iterable[int]) -> None:
        """Keep what is known of these events only."""
        keep = frozenset(running)
        for index in [index for index in self._members if index not in keep]:
            del self._members[index]
        for index in [index for index in self._each_w if index not in keep]:
            del self._each_w[index]

    def _find(self, request: EventRequest) -> Slots:
        return self._sources.within(request, members(self._fleet, request.group))
