"""Checks of a product with messages beyond its schema: names, units, signs, repeated keys."""

import numpy as np

from gateway.profiles.language.base import Sign
from gateway.profiles.language.messages import Member, MemberType
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.language.quantities import CATALOGUE, CanonicalQuantity


def message_faults(document: ProfileDocument) -> list[str]:
    """Every fault of messages and commands: names that are not canonical, missing points, values that map nowhere."""
    faults: list[str] = []
    for kind, message in document.messages.items():
        catalogue = CATALOGUE[kind]
        for name, point in message.points.items():
            where = f"messages.{kind}.points.{name}"
            canonical = catalogue.get(name)
            if canonical is None:
                faults.append(f"{where}: not a point of {kind}; known are {', '.join(catalogue)}")
            else:
                faults += [f"{where}.{fault}" for fault in _point_faults(point, canonical)]
        for name, canonical in catalogue.items():
            if canonical.required and name not in message.points:
                faults.append(f"messages.{kind}.points.{name}: missing; {kind} needs it")
        keys = [message.identity, *(point.key for point in message.points.values())]
        faults += [
            f"messages.{kind}: key {key!r} is used twice" for key in sorted({k for k in keys if keys.count(k) > 1})
        ]
    if document.commands is not None:
        for op, form in document.commands.forms.items():
            members = ["identity", "id", "valid_until", *form.constants, *form.arguments.values()]
            keys = [document.commands.identity, document.commands.id, document.commands.valid_until, *members[3:]]
            faults += [
                f"commands.forms.{op}: key {k!r} is used twice" for k in sorted({k for k in keys if keys.count(k) > 1})
            ]
            if (
                op in ("setpoint", "hold", "block")
                and document.watchdog is not None
                and document.watchdog.kind == "in_command"
                and "lease_s" not in form.arguments
            ):
                faults.append(f"commands.forms.{op}: watchdog in_command needs the argument lease_s")
    if document.commands is not None and "ack" not in document.messages:
        faults.append("messages.ack: missing; a product that takes commands answers them")
    return faults


def _point_faults(point: Member, canonical: CanonicalQuantity) -> list[str]:
    faults: list[str] = []
    expected = {
        np.float64: MemberType.NUMBER,
        np.int64: MemberType.INTEGER,
        np.bool_: MemberType.BOOLEAN,
        np.object_: MemberType.STRING,
        np.int8: MemberType.BOOLEAN if canonical.flag else MemberType.ENUM,
    }[canonical.dtype]  # type: ignore[index]
    if point.type is not expected:
        faults.append(f"type: is {point.type.value}, must be {expected.value}")
    if canonical.unit and point.unit != canonical.unit:
        faults.append(f"unit: is {point.unit!r}, must be {canonical.unit!r} (scale converts)")
    if canonical.power and point.sign is None:
        faults.append("sign: missing; every power says its sign")
    if not canonical.power and point.sign is not None:
        faults.append("sign: this point has none")
    if canonical.power == "battery" and point.sign in (Sign.IMPORT_POSITIVE, Sign.EXPORT_POSITIVE):
        faults.append("sign: battery power is discharge_positive or charge_positive")
    if canonical.power == "grid" and point.sign in (Sign.DISCHARGE_POSITIVE, Sign.CHARGE_POSITIVE):
        faults.append("sign: grid power is import_positive or export_positive")
    if canonical.word and point.scale != 1:
        faults.append("scale: a field of bits has none")
    if canonical.required and not point.required:
        faults.append("required: must be true")
    if point.values is not None and canonical.members is not None:
        faults += [
            f"values.{raw}: {name!r} is not one of {', '.join(canonical.members)}"
            for raw, name in point.values.items()
            if name not in canonical.members
        ]
    if point.type in (MemberType.NUMBER, MemberType.INTEGER) and point.range is None:
        faults.append("range: missing; implausible values must be recognisable")
    return faults
