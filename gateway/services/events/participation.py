"""Who of the devices that an event names takes no part in its program: asked by the dispatcher, known by `programs`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import EventRequest
from gateway.domain.types import Now, Slots

MembersOf = Callable[[int, EventRequest], Slots]


class Participation(Protocol):
    """What programs say of the members of events."""

    def without(self, events: Sequence[ActiveEvent], members: MembersOf, now: Now) -> Mapping[int, Slots]:
        """Slots that each event must leave alone now, by its index."""
        ...

    def enrolled(self, program: str, now: Now) -> Slots:
        """Slots that are enrolled in a program, whatever their status; the same array while nothing changes."""
        ...

    def programs(self) -> Collection[str]:
        """The programs in which somebody may be enrolled."""
        ...


NOBODY: Slots = np.zeros(0, dtype=np.int32)


class Everybody:
    """Nobody is left out, and nobody is enrolled."""

    def without(self, _events: Sequence[ActiveEvent], _members: MembersOf, _now: Now) -> Mapping[int, Slots]:
        return {}

    def enrolled(self, _program: str, _now: Now) -> Slots:
        return NOBODY

    def programs(self) -> Collection[str]:
        return ()
