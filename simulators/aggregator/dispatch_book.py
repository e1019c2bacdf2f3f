"""Dispatch events: one book per account, to which a test adds, and the webhook bodies that tell of them.

A slot with a known event id replaces the stored one wholly. There is no version and no time of change (section 2.1).
An event may be hidden from search for a while; `returned` and `withheld` say what search gave and kept back.
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

from simulators.aggregator.dispatch_shapes import GROUP_SLOT, METER_SLOT
from simulators.aggregator.times import ServerClock, time_ms, time_text


class Kind(StrEnum):
    """What an event addresses."""

    METER = "meter"
    GROUP = "group"

    @property
    def event_key(self) -> str:
        return "meter_event_id" if self is Kind.METER else "market_group_event_id"

    @property
    def target_key(self) -> str:
        return "meter_id" if self is Kind.METER else "market_group_id"


class Flag(StrEnum):
    """How a body spells that it is a communication test; the specification and one example differ."""

    SPEC = "communication_test"
    EXAMPLE = "is_communication_test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One slot of one meter or group. `hidden_until_ms`: search does not show it before (epoch ms)."""

    kind: Kind
    target: str
    slot: dict[str, Any]
    partner_reference: str | None = None
    members: tuple[str, ...] = ()
    partner_references: tuple[str, ...] = ()
    communication_test: bool = False
    hidden_until_ms: int = 0

    @property
    def event_id(self) -> str:
        return str(self.slot[self.kind.event_key])

    @property
    def start_ms(self) -> int:
        return time_ms(self.slot["start_time"])

    @property
    def end_ms(self) -> int:
        return time_ms(self.slot["end_time"])


def slot(kind: Kind, start_ms: int, end_ms: int, *, event_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """A slot with what is usual, apart from `fields`: standard, exported without a limit, as much as possible."""
    usual = {
        kind.event_key: event_id or str(uuid.uuid4()),
        "start_time": time_text(start_ms),
        "end_time": time_text(end_ms),
        "cancelled": False,
        "energy_kw": None,
        "nomination_kw": None,
        "performance_compensation_cap": "grid-exports-allowed",
        "priority": 4,
        "is_voluntary": True,
        "dispatch_event_types": ["standard"],
        "programs": ["CEC-DSGS"],
    }
    return usual | fields


class DispatchBook:
    """The account's events by id."""

    def __init__(self, clock: ServerClock) -> None:
        self.events: dict[tuple[Kind, str], Event] = {}
        self.returned: dict[str, list[int]] = {}
        self.withheld: dict[str, int] = {}
        self._clock = clock

    def put(self, event: Event) -> Event:
        """Add an event, or replace the one of its id; enums and programs are open."""
        shape = METER_SLOT if event.kind is Kind.METER else GROUP_SLOT
        shape.check(event.slot, open_enums=True)
        self.events[event.kind, event.event_id] = event
        return event

    def change(self, event: Event, **fields: Any) -> Event:
        """The event with other fields in its slot, under its id."""
        return self.put(replace(event, slot=event.slot | fields))

    def cancel(self, event: Event) -> Event:
        """The event, cancelled."""
        return self.change(event, cancelled=True)

    def hide(self, event: Event, until_ms: int) -> Event:
        """The event, which search does not show before (epoch ms)."""
        return self.put(replace(event, hidden_until_ms=until_ms))

    def found(self, kind: Kind, start_ms: int, end_ms: int, *, by_start: bool) -> Iterator[Event]:
        """What search sees in a window, by target, start and id; what it hides is counted."""
        now_ms = self._clock.utc_ms()
        for event in sorted(self.events.values(), key=lambda one: (one.target, one.start_ms, one.event_id)):
            inside = event.start_ms >= start_ms if by_start else event.end_ms > start_ms
            if event.kind is not kind or not inside or event.start_ms >= end_ms:
                continue
            if event.hidden_until_ms > now_ms:
                self.withheld[event.event_id] = self.withheld.get(event.event_id, 0) + 1
                continue
            yield event

    def note(self, events: Iterable[Event]) -> None:
        """Search gave these, now."""
        for event in events:
            self.returned.setdefault(event.event_id, []).append(self._clock.utc_ms())


def grouped(kind: Kind, events: Iterable[Event], *, flags: bool) -> list[dict[str, Any]]:
    """Events by meter or group, each with its slots; in search every slot carries the flag of its test."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        entry = found.setdefault(event.target, {kind.target_key: event.target, "timeslots": []})
        if kind is Kind.METER and event.partner_reference is not None:
            entry["partner_reference"] = event.partner_reference
        if kind is Kind.GROUP:
            entry["meter_ids"] = list(event.members)
            if event.partner_references:
                entry["partner_references"] = list(event.partner_references)
        entry["timeslots"].append(event.slot | ({"communication_test": event.communication_test} if flags else {}))
    return list(found.values())


def webhook_body(
    kind: Kind, events: Iterable[Event], *, integration_test: bool = False, flag: Flag = Flag.SPEC, **unknown: Any
) -> bytes:
    """What is posted of these events (section 2.2); a body is a communication test if one of its events is."""
    listed = list(events)
    body = {
        "integration_test_notification": integration_test,
        flag.value: any(event.communication_test for event in listed),
        f"{kind.value}_dispatches": grouped(kind, listed, flags=False),
    }
    return orjson.dumps(body | unknown)
