"""Members that keep their energy before an event whose program lets them not charge from PV."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gateway.domain.control.progress import Tracked
from gateway.domain.events.arbitration import Claims
from gateway.domain.events.lifecycle import ActiveEvent


def held(tracked: Tracked, events: Sequence[ActiveEvent], claims: Claims) -> Tracked:
    """The same, with such members held at 0 W instead of free to charge."""
    waiting = [event for event in events if event.keeping is not None and event.actuates and not event.keeping.from_pv]
    if not waiting:
        return tracked
    free = ~np.logical_or.reduce([claims.shares[event.index] for event in waiting])
    return replace(tracked, idle=tracked.idle & free, by_itself=tracked.by_itself & free)
