"""What each source of events may ask for: which devices, and how often. Its power is bounded where events are decided
and tracked, beside that of programs."""

from collections.abc import Mapping

import numpy as np

from gateway.domain.access import TokenBucket
from gateway.domain.events.book import Refusal, members
from gateway.domain.events.request import EventRequest, TargetGroup
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import Now, Slots
from gateway.services.settings import SourceSettings


class SourceBounds:
    """Bounds of sources by name; a source that is not named has none."""

    def __init__(self, settings: Mapping[str, SourceSettings], fleet: Fleet) -> None:
        self._settings = settings
        self._fleet = fleet
        self._allowances: dict[str, TokenBucket] = {}

    def refusal(self, request: EventRequest, now: Now) -> Refusal | None:
        """Why a source may not ask for this. A cancellation is always taken."""
        known = self._settings.get(request.source)
        if known is None or request.cancelled:
            return None
        if known.events_per_min is not None:
            full = TokenBucket.full(known.events_per_min, now.mono_ms)
            if self._allowances.setdefault(request.source, full).take(now.mono_ms):
                return Refusal.TOO_OFTEN
        outside = known.tags is not None and len(self._outside(request, known.tags))
        return Refusal.OUTSIDE_SOURCE if outside else None

    def within(self, request: EventRequest, slots: Slots) -> Slots:
        """Those of the devices of an event that its source may ask for: tags change while an event runs, too."""
        known = self._settings.get(request.source)
        if known is None or known.tags is None:
            return slots
        return np.intersect1d(slots, members(self._fleet, TargetGroup(tags=known.tags)))

    def _outside(self, request: EventRequest, tags: tuple[str, ...]) -> Slots:
        """Devices that a request addresses and its source may not ask for."""
        return np.setdiff1d(members(self._fleet, request.group), members(self._fleet, TargetGroup(tags=tags)))
