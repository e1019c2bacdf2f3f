"""The audit trail: a row for each change that is journalled, who asked for it, and through which door it came."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any

import orjson

from gateway.domain.journal.changes import (
    AuditDoor,
    CaseChanged,
    Change,
    ControlEnded,
    ControlTaken,
    DepartureAsked,
    DepartureOver,
    DeviceRegistered,
    DeviceRemoved,
    EpochRaised,
    EventDecided,
    EventDelivered,
    EventMoved,
    EventsArchived,
    EventWithdrawn,
    ExclusionLifted,
    ExclusionSet,
    FactsChanged,
    OutboxChanged,
    PriorRestored,
    PriorSaved,
    Quarantined,
    RawDiscarded,
    ReserveChanged,
    StopAll,
    TakeBackOver,
    TakenBack,
    Trusted,
    WithdrawalLifted,
)
from gateway.domain.journal.stored import AuditEntry, AuditQuestion
from gateway.storage.journal.audit_before import changed
from gateway.storage.journal.bodies import device_body, event_body, exclusion_body

NAMED_IN_AUDIT = 20
ADDED = {
    ("audit", "who"): "ALTER TABLE audit ADD COLUMN who TEXT",
    ("audit", "door"): "ALTER TABLE audit ADD COLUMN door TEXT",
}
"""Columns that release 0.1 does not know."""

Row = tuple[str, dict[str, Any], str, str]
"""The kind, the body, who, and through which door."""


def audit(changes: Sequence[Change], before: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Row]:
    """Audit rows of changes of one kind: small however many devices they name. `before`: by name what was so until
    then, see `audit_before`."""
    kind, name = type(changes[0]), _TOGETHER.get(type(changes[0]))
    if name is None:
        name, body_of = _EACH[kind]
        yield from ((name, _since(change, body_of(change), before), *_who(change)) for change in changes)
        return
    for who, some in groupby(changes, _who):
        together = list(some)
        body = _named([_device_of(change) for change in together])
        yield (name, body | (_devices_since(together, before) if before else {}), *who)


def _since(change: Any, body: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a change with what was so before it."""
    if not before:
        return body
    if isinstance(change, ExclusionSet | ExclusionLifted):
        name = change.exclusion.id if isinstance(change, ExclusionSet) else change.id
        return body | {"before": before.get(name)}
    if isinstance(change, StopAll):
        return body | {"before": before["stopped"]}
    names = change.devices if isinstance(change, ReserveChanged) else change.names
    return body | {"before": {name: before[name] for name in names if name in before}}


def _devices_since(changes: Sequence[Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Of devices that were known what is different, and what those were that are gone."""
    if isinstance(changes[0], DeviceRemoved):
        return {"before": {change.device: before[change.device] for change in changes if change.device in before}}
    bodies = {change.device.id: orjson.loads(orjson.dumps(device_body(change.device))) for change in changes}
    different = {name: changed(before[name], body) for name, body in bodies.items() if name in before}
    return {"changed": {name: columns for name, columns in different.items() if columns}}


def _who(change: Any) -> tuple[str, str]:
    """Who asked for a change, and through which door it came."""
    if isinstance(change, EventDecided):
        return change.by or change.request.source, change.request.source
    if isinstance(change, ReserveChanged | TakenBack):
        return "owner", AuditDoor.DEVICE.value
    by, door = getattr(change, "by", ""), getattr(change, "door", AuditDoor.GATEWAY)
    return by or door.value, door.value


def entries(db: sqlite3.Connection, question: AuditQuestion, limit: int) -> list[AuditEntry]:
    """What was journalled, newest first."""
    found = db.execute(
        "SELECT id, utc_ms, kind, coalesce(who, body ->> '$.by'), door, body FROM audit WHERE id < ? "
        "AND utc_ms >= coalesce(?, utc_ms) AND utc_ms < coalesce(?, utc_ms + 1) AND kind = coalesce(?, kind) "
        "ORDER BY id DESC LIMIT ?",
        (question.before or 1 << 62, question.from_ms, question.until_ms, question.kind, limit),
    )
    return [
        AuditEntry(id=number, utc_ms=utc_ms, kind=kind, by=by, door=door, body=orjson.loads(body))
        for number, utc_ms, kind, by, door, body in found
    ]


def _device_of(change: Any) -> str:
    return str(change.device.id if isinstance(change, DeviceRegistered) else change.device)


def _of_event(change: EventDecided) -> dict[str, Any]:
    body: dict[str, Any] = event_body(change)
    body["request"]["group"]["ids"] = _named(change.request.group.ids)
    return body


def _of_exclusion(change: ExclusionSet) -> dict[str, Any]:
    body: dict[str, Any] = exclusion_body(change.exclusion)
    body["group"]["ids"] = _named(change.exclusion.group.ids)
    return body


def _of_reserves(change: ReserveChanged) -> dict[str, Any]:
    chosen: dict[str, Any] = {"source": change.source, "reserve_pct": change.reserve_pct[:NAMED_IN_AUDIT]}
    return chosen | _named(change.devices)


_TOGETHER: dict[type, str] = {
    DeviceRegistered: "device_enrolled",
    DeviceRemoved: "device_removed",
    DepartureAsked: "departure_asked",
    PriorSaved: "prior_saved",
    PriorRestored: "prior_restored",
}
_EACH: dict[type, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    DepartureOver: ("departure_over", lambda c: {"reason": c.reason, "why": c.why, **_named(c.devices)}),
    EventDecided: ("event_accepted", _of_event),
    EventMoved: ("event_moved", lambda c: {"event": c.event, "revision": c.revision, "state": c.state.value}),
    EventWithdrawn: ("event_withdrawn", lambda c: {"event": c.event, "by": c.by}),
    WithdrawalLifted: ("withdrawal_lifted", lambda c: {"event": c.event, "by": c.by}),
    EventsArchived: ("events_archived", lambda c: {"count": len(c.events)}),
    EventDelivered: ("event_delivered", lambda c: {"event": c.event, "occurrence_ms": c.occurrence_ms}),
    ControlTaken: ("control_taken", lambda c: {"event": c.event, **_named(c.devices)}),
    ControlEnded: ("control_ended", lambda c: {"reason": c.reason, **_named(c.devices)}),
    ReserveChanged: ("reserve_changed", _of_reserves),
    ExclusionSet: ("hold_set", _of_exclusion),
    ExclusionLifted: ("hold_lifted", lambda c: {"id": c.id}),
    Quarantined: ("quarantined", lambda c: {"reason": c.reason, **_named(c.names)}),
    Trusted: ("trusted", lambda c: {"reason": c.reason, **_named(c.names)}),
    FactsChanged: ("facts_changed", lambda c: {"noted_ms": c.noted_ms, **c.body}),
    OutboxChanged: (
        "outbox_changed",
        lambda c: {"action": c.action, "write": c.write, "rows": list(c.numbers[:NAMED_IN_AUDIT]), **_named(c.names)},
    ),
    CaseChanged: (
        "case_changed",
        lambda c: {"action": c.action, "cases": list(c.numbers[:NAMED_IN_AUDIT]), **_named(c.names)},
    ),
    RawDiscarded: ("raw_discarded", lambda c: {"reason": c.reason, "messages": c.messages, **_named(c.names)}),
    EpochRaised: ("epoch_raised", lambda c: {"epoch": c.epoch}),
    TakenBack: ("taken_back", lambda c: {"event": c.event, **_named(c.devices)}),
    TakeBackOver: ("take_back_over", lambda c: {"event": c.event, **_named(c.devices)}),
    StopAll: ("stop_all", lambda c: {"active": c.active, "by": c.by}),
}
AUDITED = frozenset({*_TOGETHER, *_EACH})
KINDS = tuple(sorted({*_TOGETHER.values(), *(name for name, _ in _EACH.values())}))
"""What the rows of the trail are."""


def _named(devices: Sequence[str]) -> dict[str, Any]:
    return {"count": len(devices), "devices": list(devices[:NAMED_IN_AUDIT])}
