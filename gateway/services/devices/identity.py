"""What a polled device says it is."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from gateway.ports.links import PointTarget
from gateway.profiles.compiled.points import Value
from gateway.profiles.compiled.readings import whole_number
from gateway.profiles.language.points import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Serial:
    """The serial number that a device tells, and the point that it tells it by."""

    point: str
    told: str


Again = Callable[[], Awaitable[Serial | None]]
"""Asks once more who answers."""


def stated(identity: Identity | None, values: Mapping[str, Value]) -> tuple[str, str, str]:
    """Maker, product and firmware as the device states them; "" where it does not."""
    points = () if identity is None else (identity.maker, identity.product, identity.firmware)
    words = [str(values.get(point) or "").strip() if point is not None else "" for point in points]
    return (words[0], words[1], words[2]) if words else ("", "", "")


def serial_of(identity: Identity | None, values: Mapping[str, Value]) -> Serial | None:
    """The serial number that the device tells; None where it tells none."""
    point = None if identity is None else identity.serial
    told = "" if point is None else str(values.get(point) or "").strip()
    return Serial(point=point, told=told) if point is not None and told else None


def other_serial(target: PointTarget, values: Mapping[str, Value]) -> list[str]:
    """Another device of the same product at this address is not the one that was registered. A serial that the device
    says as a number is the same with and without leading zeros."""
    wanted = dict(target.connection.parameters).get("serial")
    identity = target.document.identity
    if wanted is None or identity is None or identity.serial is None:
        return []
    found = values.get(identity.serial)
    number = whole_number(found)
    if number is not None:
        same = wanted.isascii() and wanted.isdecimal() and wanted.lstrip("0") == str(number).lstrip("0")
        return [] if same else [f"serial is {number}, expected {wanted}"]
    return [] if found == wanted else [f"serial is {found!r}, expected {wanted!r}"]
