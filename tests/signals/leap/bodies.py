"""Dispatch bodies as the contract sheet has them, and the domain's side of them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from gateway.signals.leap.slots import DispatchSlot, read_webhook

T0 = 1_800_000_000_000 // 3_600_000 * 3_600_000
HOUR = 3_600_000
_SPACE = UUID("00000000-0000-4000-8000-000000000000")


def uid(name: str) -> str:
    return str(uuid5(_SPACE, name))


def at(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def slot(event: str = "e", *, hours: tuple[float, float] = (1, 2), group: bool = False, **other: Any) -> dict[str, Any]:
    """A slot `hours` after T0, as a DSGS event has it."""
    known: dict[str, Any] = {
        "market_group_event_id" if group else "meter_event_id": uid(event),
        "start_time": at(T0 + round(hours[0] * HOUR)), "end_time": at(T0 + round(hours[1] * HOUR)),
        "cancelled": False, "energy_kw": None, "nomination_kw": None,
        "performance_compensation_cap": "grid-exports-allowed", "priority": 4, "is_voluntary": True,
        "dispatch_event_types": ["standard"], "programs": ["CEC-DSGS"],
    }  # fmt: skip
    return known | other


def body(meters: dict[str, list[dict[str, Any]]], **other: Any) -> dict[str, Any]:
    """A webhook's body, by the names of meters."""
    items = [
        {"meter_id": uid(meter), "partner_reference": meter, "timeslots": slots} for meter, slots in meters.items()
    ]
    return {"integration_test_notification": False, "communication_test": False, "meter_dispatches": items} | other


def group_body(group: str, meters: list[str], *slots: dict[str, Any], **other: Any) -> dict[str, Any]:
    item = {
        "market_group_id": uid(group), "meter_ids": [uid(meter) for meter in meters], "partner_references": meters,
        "timeslots": list(slots),
    }  # fmt: skip
    return {"integration_test_notification": False, "communication_test": False, "group_dispatches": [item]} | other


def slots_of(found: dict[str, Any], level: str = "meter") -> list[DispatchSlot]:
    read = read_webhook(found, "group" if level == "group" else "meter")
    assert (read.bad, read.problem) == ([], "")
    return read.slots


def one(event: str = "e", meter: str = "m", **other: Any) -> DispatchSlot:
    """The slot of a meter."""
    return slots_of(body({meter: [slot(event, **other)]}))[0]
