"""What each source of events may ask for: which devices, and how often. Its power is bounded where events are decided
and tracked, beside that of programs."""

from collections.abc import Iterable, Mapping

import numpy as np

from gateway.domain.access import TokenBucket
from gateway.domain.events.book import Refusal, members
from gateway.domain.events.lifecycle import OVER, BookEntry, EventState
from gateway.domain.events.request import EventRequest, TargetGroup
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import Now, Slots
from gateway.observability.metrics import Sample, counter
from gateway.services.settings import SourceSettings

NO_BOUNDS = SourceSettings()


CANCELLATIONS_PER_MIN = 1_000
"""Of events that are not there, where a source has no bound of its own: as many as it may have events."""

ENDED = OVER | {EventState.REJECTED}

REFUSED = counter(
    "gateway_source_refusals",
    "Events and cancellations that their source may not send: too often, or for devices that are not its own.",
    reason=(Refusal.TOO_OFTEN.value, Refusal.OUTSIDE_SOURCE.value),
)


class SourceBounds:
    """Bounds of sources by name; a source that is not named has none but that on idle cancellations. `refused` counts
    by reason."""

    def __init__(self, settings: Mapping[str, SourceSettings], fleet: Fleet) -> None:
        self._settings = settings
        self._fleet = fleet
        self._allowances: dict[str, TokenBucket] = {}
        self.refused = dict.fromkeys((Refusal.TOO_OFTEN, Refusal.OUTSIDE_SOURCE), 0)

    def refusal(self, request: EventRequest, known: BookEntry | None, now: Now) -> Refusal | None:
        """Why a source may not ask for this. `known`: the event as it is there now. What cancels an event that has not
        ended is always taken. A cancellation that comes before its event wins over it; the source may send so many as
        it may send events, for each is remembered."""
        if request.cancelled and known is not None and known.state not in ENDED:
            return None
        found = self._refusal(request, now)
        if found is not None:
            self.refused[found] += 1
        return found

    def _refusal(self, request: EventRequest, now: Now) -> Refusal | None:
        mine = self._settings.get(request.source, NO_BOUNDS)
        per_min = CANCELLATIONS_PER_MIN if mine.events_per_min is None and request.cancelled else mine.events_per_min
        if per_min is not None:
            full = TokenBucket.full(per_min, now.mono_ms)
            if self._allowances.setdefault(request.source, full).take(now.mono_ms):
                return Refusal.TOO_OFTEN
        outside = not request.cancelled and mine.tags is not None and len(self._outside(request, mine.tags))
        return Refusal.OUTSIDE_SOURCE if outside else None

    def samples(self) -> Iterable[Sample]:
        """What was refused."""
        return REFUSED.each({reason.value: count for reason, count in self.refused.items()})

    def within(self, request: EventRequest, slots: Slots) -> Slots:
        """Those of the devices of an event that its source may ask for: tags change while an event runs, too."""
        known = self._settings.get(request.source)
        if known is None or known.tags is None:
            return slots
        return np.intersect1d(slots, members(self._fleet, TargetGroup(tags=known.tags)))

    def _outside(self, request: EventRequest, tags: tuple[str, ...]) -> Slots:
        """Devices that a request addresses and its source may not ask for."""
        return np.setdiff1d(members(self._fleet, request.group), members(self._fleet, TargetGroup(tags=tags)))
