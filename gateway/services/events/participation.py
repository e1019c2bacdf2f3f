"""Who of the devices that an event names takes no part in its program: asked by the dispatcher, known by `programs`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import EventRequest
from gateway.domain.types import Now, Slots

MembersOf = Callable[[int, EventRequest], Slots]


class Participation(Protocol):
    """What programs say of the members of events."""

    def without(self, events: Sequence[ActiveEvent], members: MembersOf, now: Now) -> Mapping[int, Slots]:
        """Slots that each event must leave alone now, by its index."""
        ...


class Everybody:
    """Nobody is left out."""

    def without(self, _events: Sequence[ActiveEvent], _members: MembersOf, _now: Now) -> Mapping[int, Slots]:
        return {}
