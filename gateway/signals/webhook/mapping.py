"""Reads the events out of a peer's body, purely. What is wrong is told with the pointer to it."""

from dataclasses import dataclass, replace
from typing import Any

import orjson

from gateway.domain.errors import InvalidInput
from gateway.domain.events.request import EventKind, EventRequest, Target, TargetGroup, Want
from gateway.domain.types import EventId
from gateway.schemas.body import PROBLEM_SHOWN, members_twice
from gateway.schemas.event import parse_event
from gateway.signals.webhook.fields import MISSING, VALUE_SHOWN, EventFields
from gateway.signals.webhook.language import WebhookDocument
from gateway.signals.webhook.pointer import ABSENT, value_at

EVENTS_MAX = 64
"""Events in a body."""
CANCELLED_LENGTH_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """An event as its peer sent it. `revision` None: messages count as they arrive. `request` None: a cancellation that
    says no more than the id."""

    id: EventId
    cancelled: bool
    revision: int | None
    request: EventRequest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadEvent:
    """An event that was not understood: its place in the body, its id where that could be read, and every fault as
    `/pointer: what is wrong`."""

    place: str
    id: str | None
    problems: tuple[str, ...]


def read_events(document: WebhookDocument, payload: bytes, received_ms: int) -> list[WebhookEvent | BadEvent]:
    """The events of a body that came at `received_ms` (UTC), each by itself. Raises InvalidInput where it is no body of
    events at all."""
    body = _parsed(payload)
    if document.events is None:
        return [_event(document, body, "", received_ms)]
    found = value_at(body, document.events)
    if not isinstance(found, list) or not found:
        raise InvalidInput([f"{document.events}: {'a list of events is needed' if found is not ABSENT else MISSING}"])
    if len(found) > EVENTS_MAX:
        raise InvalidInput([f"{document.events}: more than {EVENTS_MAX} events"])
    return [_event(document, one, f"{document.events}/{i}", received_ms) for i, one in enumerate(found)]


def _parsed(payload: bytes) -> Any:
    try:
        body = orjson.loads(payload)
        twice = members_twice(payload)
    except (ValueError, RecursionError) as error:
        words = str(error) if isinstance(error, ValueError) else "nested too deep"
        raise InvalidInput([f"(body): not JSON: {words[:PROBLEM_SHOWN]}"]) from error
    if twice:
        raise InvalidInput([f"(body): {name[:VALUE_SHOWN]}: stands twice" for name in twice[:8]])
    return body


def _event(document: WebhookDocument, event: Any, place: str, received_ms: int) -> WebhookEvent | BadEvent:
    reading = EventFields(document.event, event)
    fields = document.event
    name = reading.take(reading.name)
    cancelled = fields.active is not None and not reading.take(lambda: reading.flag(fields.active), default=True)
    revision = reading.take(reading.revision)
    faults = list(reading.faults)
    request: EventRequest | None = None
    if not faults:
        reading.take_all()
        request, found = _request(document, reading, str(name), revision, cancelled, received_ms)
        # a cancellation is taken whatever else it says of its event
        faults = [] if cancelled else reading.faults or found
    if faults or name is None:
        told = (f"{f'{place}{pointer}' or '(body)'}: {words}" for pointer, words in faults)
        return BadEvent(place=place, id=name, problems=tuple(one[:PROBLEM_SHOWN] for one in told))
    return WebhookEvent(id=EventId(name), cancelled=cancelled, revision=revision, request=request)


def _request(
    document: WebhookDocument, reading: EventFields, name: str, revision: int | None, cancelled: bool, received_ms: int
) -> tuple[EventRequest | None, list[tuple[str, str]]]:
    """The event in the domain's words, or what is wrong with it, by the pointers its members came from."""
    if reading.faults:
        return None, []
    own = document.constants
    body: dict[str, Any] = reading.members | {
        "id": name, "revision": revision or 0, "cancelled": cancelled, "priority": own.priority,
        "voluntary": own.voluntary, "compensation": own.compensation, "takes_backup": own.takes_backup,
        "start_spread_s": own.start_spread_s,
    }  # fmt: skip
    try:
        return parse_event(orjson.dumps(body), source=document.webhook, received_ms=received_ms), []
    except InvalidInput as error:
        return None, [reading.placed(problem) for problem in error.problems]


def revised(event: WebhookEvent, known: EventRequest | None, source: str, received_ms: int) -> EventRequest | None:
    """What to submit of an event, `known` being the newest that was accepted; None: nothing, it stays cancelled.

    A peer that orders its changes says which is newer; at the same order a cancellation wins. Of one that does not,
    what differs is newer, and a cancellation is final: a late repetition must not bring its event back.
    """
    known = None if known is None else replace(known, id=event.id)
    ordered = event.revision is not None
    if event.cancelled:
        if known is None:
            return event.request or _nothing(event, source, received_ms)
        revision = known.revision + (not known.cancelled) if event.revision is None else event.revision
        return replace(known, revision=revision, cancelled=True)
    request = event.request
    if request is None or known is None:
        return request
    if known.cancelled and (not ordered or request.revision == known.revision):
        return None
    if ordered:
        return request
    same = _anchored(replace(request, revision=known.revision), known)
    return same if same == known else replace(request, revision=known.revision + 1)


def _anchored(request: EventRequest, known: EventRequest) -> EventRequest:
    """A request that says "now", at the "now" of its first receipt."""
    if not (request.anchored and known.anchored and request.length_ms == known.length_ms):
        return request
    end_ms = request.end_ms if request.open_ended else request.end_ms + known.start_ms - request.start_ms
    return replace(request, start_ms=known.start_ms, end_ms=end_ms)


def _nothing(event: WebhookEvent, source: str, received_ms: int) -> EventRequest:
    """The cancellation of an event that is not known yet: it wins when the event comes."""
    return EventRequest(
        id=event.id, revision=event.revision or 0, kind=EventKind.REAL, program="unknown",
        group=TargetGroup(all=True), start_ms=received_ms, end_ms=received_ms + CANCELLED_LENGTH_MS,
        target=Target(want=Want.POWER, power_w=0.0), priority=1000, cancelled=True, source=source, sent_ms=received_ms,
    )  # fmt: skip
