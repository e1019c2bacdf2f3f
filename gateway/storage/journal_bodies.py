"""Bodies of the journal: devices, events and settings as JSON objects, and back.

Members are those of the domain's types; an unlimited site limit is the text "unlimited". A device's `connection` is
null or an object with `url`, `units`, `parameters`, `username` and `secret` (a reference, never the secret).
"""

import math
from collections.abc import Mapping
from typing import Any

from gateway.domain.dispatch import Answer, Outcome
from gateway.domain.errors import invariant
from gateway.domain.model import (
    UNLIMITED,
    Connection,
    Device,
    EventKind,
    EventRequest,
    TargetGroup,
)
from gateway.ports import EventDecided, Setting


def device_body(device: Device) -> dict[str, Any]:
    """An enrolled device as a body."""

    def limit(value: float | None) -> float | str | None:
        return "unlimited" if value == UNLIMITED else value

    return {
        "id": device.id,
        "profile": device.profile,
        "site": device.site,
        "feeder": device.feeder,
        "tags": device.tags,
        "capacity_wh": device.capacity_wh,
        "discharge_w_max": device.discharge_w_max,
        "charge_w_max": device.charge_w_max,
        "inverter_w_max": limit(device.inverter_w_max),
        "reserve_pct": device.reserve_pct,
        "export_allowed": device.export_allowed,
        "grid_charge_allowed": device.grid_charge_allowed,
        "site_import_w_max": limit(device.site_import_w_max),
        "site_export_w_max": limit(device.site_export_w_max),
        "site_phase_w_max": device.site_phase_w_max,
        "phases": device.phases,
        "fuse_protected": device.fuse_protected,
        "connection": None if device.connection is None else _connection_body(device.connection),
        "experimental": device.experimental,
    }


def _connection_body(connection: Connection) -> dict[str, Any]:
    return {
        "url": connection.url,
        "units": dict(connection.units),
        "parameters": dict(connection.parameters),
        "username": connection.username,
        "secret": connection.secret,
    }


def _connection(body: dict[str, Any]) -> Connection:
    units, parameters = tuple(body["units"].items()), tuple(body["parameters"].items())
    return Connection(**(body | {"units": units, "parameters": parameters}))


def read_device(body: dict[str, Any], reserve_pct: float | None) -> Device:
    """The device of a body, with its reserve as chosen since (None = not since)."""
    for name in ("inverter_w_max", "site_import_w_max", "site_export_w_max"):
        if body[name] == "unlimited":
            body[name] = UNLIMITED
    body["tags"] = tuple(body["tags"])
    # A device that was enrolled before version 2 has no connection: it comes to us.
    if body.get("connection") is not None:
        body["connection"] = _connection(body["connection"])
    if reserve_pct is not None:
        body["reserve_pct"] = reserve_pct
    return Device(**body)


def event_body(decided: EventDecided) -> dict[str, Any]:
    """A decided event as a body."""
    request, answer = decided.request, decided.answer
    return {
        "request": {
            "id": request.id,
            "revision": request.revision,
            "kind": request.kind.value,
            "program": request.program,
            "group": {"all": request.group.all, "ids": request.group.ids, "tags": request.group.tags},
            "start_ms": request.start_ms,
            "end_ms": request.end_ms,
            "target_w": request.target_w,
            "priority": request.priority,
            "cancelled": request.cancelled,
            "charge_when_max": request.charge_when_max,
            "source": request.source,
        },
        "answer": {
            "id": answer.id,
            "revision": answer.revision,
            "outcome": answer.outcome.value,
            "reason": answer.reason,
            "decided_ms": answer.decided_ms,
        },
    }


def read_event(body: dict[str, Any]) -> EventDecided:
    """The event of a body."""
    request, answer = body["request"], body["answer"]
    group = request.pop("group")
    request["kind"] = EventKind(request["kind"])
    request["group"] = TargetGroup(all=group["all"], ids=tuple(group["ids"]), tags=tuple(group["tags"]))
    answer["outcome"] = Outcome(answer["outcome"])
    return EventDecided(request=EventRequest(**request), answer=Answer(**answer))


def settings_body(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings as a body. A number that is not finite was never read from a device: that is a bug."""
    numbers = [value for value in settings.values() if isinstance(value, float)]
    invariant(all(map(math.isfinite, numbers)), "a setting that is saved is known")
    return dict(settings)
