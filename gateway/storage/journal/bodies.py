"""Converts devices, events, exclusions and settings to the journal's JSON bodies, and back.

Members are those of the domain's types; an unlimited site limit is the text "unlimited". A device's `connection` is
null or an object with `url`, `units`, `parameters`, `username` and `secret` (a reference, never the secret).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from itertools import zip_longest
from typing import Any

from gateway.domain.errors import invariant
from gateway.domain.events.book import Answer, Outcome
from gateway.domain.events.calendar import Daily
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import Compensation, EventKind, EventRequest, Leg, Target, TargetGroup, Want
from gateway.domain.events.scope import UNSCOPED
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.journal.changes import EventDecided, Setting
from gateway.domain.registry.territory import Area
from gateway.domain.types import UNLIMITED

LIMITS = ("inverter_w_max", "site_import_w_max", "site_export_w_max")
"""Members of a device that may be unlimited."""
PLACED = ("meter", "postcode", "county", "utility")
"""Members of a device that stand in its placement: release 0.1 would not start with them in its body."""
_OF_A_DEVICE = tuple(member.name for member in fields(Device) if member.name not in PLACED)
_OF_A_CONNECTION = tuple(member.name for member in fields(DeviceConnection))


def device_body(device: Device) -> dict[str, Any]:
    """A registered device as a body, without what its placement says: see `placements`."""
    body = {name: getattr(device, name) for name in _OF_A_DEVICE}
    body |= {name: "unlimited" for name in LIMITS if body[name] == UNLIMITED}
    if device.connection is not None:
        connection = device.connection
        units, parameters = dict(connection.units), dict(connection.parameters)
        members = {name: getattr(connection, name) for name in _OF_A_CONNECTION}
        body["connection"] = members | {"units": units, "parameters": parameters}
    return body


def _connection(body: dict[str, Any]) -> DeviceConnection:
    units, parameters = tuple(body["units"].items()), tuple(body["parameters"].items())
    return DeviceConnection(**(body | {"units": units, "parameters": parameters}))


def placed_body(device: Device) -> dict[str, str]:
    """What the placement of a device says beside its site."""
    return {name: getattr(device, name) for name in PLACED}


def read_device(body: dict[str, Any], reserve_pct: float | None, *placed: str | None) -> Device:
    """The device of a body. `reserve_pct`: the reserve chosen after registration (None = none was). `placed`: the
    members in `PLACED`, where its placement has them."""
    for name in LIMITS:
        if body[name] == "unlimited":
            body[name] = UNLIMITED
    body["tags"] = tuple(body["tags"])
    # A device registered before version 2 has no connection: it connects to us.
    if body.get("connection") is not None:
        body["connection"] = _connection(body["connection"])
    if reserve_pct is not None:
        body["reserve_pct"] = reserve_pct
    return Device(**({name: text or "" for name, text in zip(PLACED, placed, strict=False)} | body))


def event_body(decided: EventDecided) -> dict[str, Any]:
    """A decided event as a body."""
    request, answer = decided.request, decided.answer
    return {
        "request": {
            "id": request.id,
            "revision": request.revision,
            "kind": request.kind.value,
            "program": request.program,
            "group": _group_body(request.group),
            "start_ms": request.start_ms,
            "end_ms": request.end_ms,
            "target": _target_body(request.target),
            "legs": [[leg.after_ms, leg.until_ms, _target_body(leg.target)] for leg in request.legs],
            "starts_ms": request.starts_ms,
            "every_ms": request.every_ms,
            "anchored": request.anchored,
            "priority": request.priority,
            "voluntary": request.voluntary,
            "compensation": request.compensation.value,
            "nomination_w": request.nomination_w,
            "reserve_pct": request.reserve_pct,
            "start_spread_s": request.start_spread_s,
            "prepare_s": request.prepare_s,
            "precharge": request.precharge,
            "cancelled": request.cancelled,
            "source": request.source,
        },
        # beside the request, where release 0.1 passes over it
        **({"ends_ms": request.ends_ms} if request.ends_ms else {}),
        **({"takes_backup": True} if request.takes_backup else {}),
        **({"each_w": each_w} if any(each_w := [target.each_w for target in request.targets]) else {}),
        **({"labels": request.labels} if request.labels else {}),
        **({"daily": asdict(request.daily)} if request.daily is not None else {}),
        "answer": {
            "id": answer.id,
            "revision": answer.revision,
            "outcome": answer.outcome.value,
            "reason": answer.reason,
            "decided_ms": answer.decided_ms,
        },
    }


def read_event(body: dict[str, Any], source: str | None) -> EventDecided:
    """The event of a body. `source`: whose event it is. None where release 0.1 stored it, which gave every cancellation
    by an operator the source of the operator: whose event that was is unknown."""
    request, answer = body["request"], body["answer"]
    if source is not None:
        request["source"] = source
    elif request["cancelled"]:
        request["source"] = UNSCOPED
    if "target" not in request:
        # written before version 3: one setpoint, in one direction
        request["target"] = {"want": "power", "power_w": request.pop("target_w"), "soc_pct": None,
                             "charge_when_max": request.pop("charge_when_max")}  # fmt: skip
    each_w = [tuple(one) for one in body.get("each_w", ())]
    legs = request.get("legs", ())
    # of every target its own: of the legs in their order, or of the event without any
    of_legs = [_target(target, of_each) for (_, _, target), of_each in zip_longest(legs, each_w[: len(legs)])]
    request["legs"] = tuple(Leg(after_ms=a, until_ms=u, target=t) for (a, u, _), t in zip(legs, of_legs, strict=True))
    request["target"] = _target(request["target"], each_w[0] if each_w else None)
    request["starts_ms"] = tuple(request.get("starts_ms", ()))
    request["ends_ms"] = tuple(body.get("ends_ms", ()))
    daily = body.get("daily")
    request["daily"] = None if daily is None else Daily(**(daily | {"weekdays": tuple(daily["weekdays"])}))
    request["labels"] = tuple(body.get("labels", ()))
    request["takes_backup"] = bool(body.get("takes_backup", False))
    request["compensation"] = Compensation(request.get("compensation", Compensation.EXPORTS.value))
    request["kind"] = EventKind(request["kind"])
    request["group"] = _group(request["group"])
    answer["outcome"] = Outcome(answer["outcome"])
    return EventDecided(request=EventRequest(**request), answer=Answer(**answer))


def exclusion_body(exclusion: Exclusion) -> dict[str, Any]:
    """An exclusion as a body; what belongs to an area stands only in one of an area."""
    body = {
        "id": exclusion.id,
        "reason": exclusion.reason,
        "group": _group_body(exclusion.group),
        "from_ms": exclusion.from_ms,
        "until_ms": exclusion.until_ms,
        "event": exclusion.event,
        "by": exclusion.by,
    }
    if exclusion.area is None:
        return body
    return body | {
        "area": asdict(exclusion.area),
        "note": exclusion.note,
        "reserve_pct": exclusion.reserve_pct,
        "dispatch_above_reserve": exclusion.dispatch_above_reserve,
    }


def read_exclusion(body: dict[str, Any]) -> Exclusion:
    """The exclusion of a body."""
    read: dict[str, Any] = {"group": _group(body["group"])}
    if "area" in body:
        read["area"] = Area(**{member: tuple(texts) for member, texts in body["area"].items()})
    return Exclusion(**(body | read))


def _group_body(group: TargetGroup) -> dict[str, Any]:
    return {"all": group.all, "ids": group.ids, "tags": group.tags}


def _group(body: dict[str, Any]) -> TargetGroup:
    return TargetGroup(all=body["all"], ids=tuple(body["ids"]), tags=tuple(body["tags"]))


def _target_body(target: Target) -> dict[str, Any]:
    return {
        "want": target.want.value,
        "power_w": target.power_w,
        "soc_pct": target.soc_pct,
        "charge_when_max": target.charge_when_max,
    }


def _target(body: dict[str, Any], each_w: tuple[float, ...] | None = None) -> Target:
    return Target(**(body | {"want": Want(body["want"]), "each_w": each_w or ()}))


def settings_body(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings as a body. No device ever reported a number that is not finite: saving one is a bug."""
    numbers = [value for value in settings.values() if isinstance(value, float)]
    invariant(all(map(math.isfinite, numbers)), "a saved setting is known")
    return dict(settings)
