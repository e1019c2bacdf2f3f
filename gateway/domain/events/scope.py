"""Scopes events by their source: several sources may use one id, and none touches another's event.

An event's id within the gateway is unique: it is the id that its source uses, or `SOURCE~ID` where another source
already has an event of that id.
"""

from gateway.domain.events.request import EventRequest
from gateway.domain.types import EventId

MARK = "~"
"""Stands in no id that a source may use."""

UNSCOPED = ""
"""The source of a cancellation that release 0.1 stored: it does not say whose event was cancelled, and holds for the
first source that speaks of the id."""


def unscoped(request: EventRequest) -> bool:
    """Whether this is a cancellation that does not say whose event it is about."""
    return request.cancelled and request.source == UNSCOPED


def qualified(source: str, own: str) -> EventId:
    """The id within the gateway of an event whose own id another source has already."""
    return EventId(f"{source}{MARK}{own}")


def own_id(event: EventId) -> EventId:
    """The id that the event's source uses."""
    return EventId(event.rpartition(MARK)[2])
