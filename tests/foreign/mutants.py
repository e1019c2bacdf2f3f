"""One mistake at a time in what a profile says of a canonical quantity: its sign, scale, word order or one address."""

from dataclasses import dataclass
from typing import Literal

from gateway.profiles.language.base import Sign
from gateway.profiles.language.control import Step
from gateway.profiles.language.points import Point, PointType, Reading
from gateway.profiles.language.product import ProfileDocument

Kind = Literal["sign", "scale", "word order", "address"]
READ = ("soc_pct", "battery_w", "grid_w")
CONTROL = "control"
QUANTITIES = (*READ, CONTROL)
OTHER_SIGN = {
    Sign.DISCHARGE_POSITIVE: Sign.CHARGE_POSITIVE,
    Sign.CHARGE_POSITIVE: Sign.DISCHARGE_POSITIVE,
    Sign.IMPORT_POSITIVE: Sign.EXPORT_POSITIVE,
    Sign.EXPORT_POSITIVE: Sign.IMPORT_POSITIVE,
}
SIGNED = (PointType.I16, PointType.I32, PointType.I64, PointType.F32, PointType.F64)
BOTH_WAYS = ("setpoint_w", "grid_target_w", "inverter_target_w")
TARGETS = ("magnitude_w", *BOTH_WAYS)
SCALED = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A mistake of `kind` in `points`, which are those of `quantity` or one of them. `values`: of a point that gives a
    direction by a constant, what it says for discharge and for charge."""

    quantity: str
    kind: Kind
    points: tuple[str, ...]
    values: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        whole = self.kind in ("sign", "scale", "word order") and self.quantity != CONTROL
        return self.kind if whole else f"{self.kind} of {self.points[0]}"


def mutants(document: ProfileDocument, quantity: str) -> tuple[Mutant, ...]:
    """Every mistake that `quantity` can have in this profile; none where the profile lacks it."""
    if quantity == CONTROL:
        return _of_control(document)
    reading = document.readings.get(quantity)
    names = _points(reading) if reading is not None else ()
    points = [document.points[name] for name in names]
    found = []
    if reading is not None and reading.sign is not None:
        found.append(Mutant(quantity=quantity, kind="sign", points=names))
    if points:
        found.append(Mutant(quantity=quantity, kind="scale", points=names))
    if any(point.register_count > 1 for point in points):
        found.append(Mutant(quantity=quantity, kind="word order", points=names))
    return (*found, *(Mutant(quantity=quantity, kind="address", points=(name,)) for name in names))


def _points(reading: Reading) -> tuple[str, ...]:
    return (reading.point,) if reading.point is not None else tuple(dict.fromkeys(reading.points()))


def _of_control(document: ProfileDocument) -> tuple[Mutant, ...]:
    """Of the points that carry the wanted power, and of those that say its direction."""
    control = document.control
    if control is None or not control.discharge:
        return ()
    out, into = _writes(control.discharge), _writes(control.charge)
    found: list[Mutant] = []
    for name in dict.fromkeys((*out, *into)):
        point, steps = document.points[name], [steps[name] for steps in (out, into) if name in steps]
        kinds: list[Kind] = []
        values = None
        if any(step.source in TARGETS for step in steps):
            kinds = ["scale", "address"]
            if point.type in SIGNED or any(step.source in BOTH_WAYS for step in steps):
                kinds.append("sign")
            if point.register_count > 1:
                kinds.append("word order")
        elif len(steps) == 2 and steps[0].value != steps[1].value:
            given = [step.value for step in steps]
            if all(isinstance(value, int | float) for value in given):
                values = (float(given[0] or 0), float(given[1] or 0))
                kinds = ["sign"]
            kinds.append("address")
        found += [Mutant(quantity=CONTROL, kind=kind, points=(name,), values=values) for kind in kinds]
    return tuple(found)


def _writes(steps: tuple[Step, ...]) -> dict[str, Step]:
    flat = [inner for step in steps for inner in (step.together or (step,))]
    return {step.write: step for step in flat if step.write is not None}


def in_profile(document: ProfileDocument, mutant: Mutant) -> ProfileDocument:
    """The profile with the mistake."""
    if mutant.values is not None and mutant.kind == "sign":
        return _turned(document, mutant.points[0])
    if mutant.kind == "sign" and mutant.quantity != CONTROL:
        reading = document.readings[mutant.quantity]
        other = OTHER_SIGN[reading.sign] if reading.sign is not None else None
        changed = reading.model_copy(update={"sign": other})
        return document.model_copy(update={"readings": document.readings | {mutant.quantity: changed}})
    changed_points = {name: _mistaken(document, document.points[name], mutant) for name in mutant.points}
    return document.model_copy(update={"points": document.points | changed_points})


def _turned(document: ProfileDocument, name: str) -> ProfileDocument:
    """The profile that says discharge where it means charge."""
    assert document.control is not None
    out, into = document.control.discharge, document.control.charge
    changed = {"discharge": _with(out, name, into), "charge": _with(into, name, out)}
    return document.model_copy(update={"control": document.control.model_copy(update=changed)})


def _with(steps: tuple[Step, ...], name: str, others: tuple[Step, ...]) -> tuple[Step, ...]:
    other = _writes(others)[name]
    return tuple(
        step.model_copy(update={"together": _with(step.together, name, others)})
        if step.together
        else step.model_copy(update={"value": other.value})
        if step.write == name
        else step
        for step in steps
    )


def _mistaken(document: ProfileDocument, point: Point, mutant: Mutant) -> Point:
    kind = mutant.kind
    if kind == "sign":
        other = OTHER_SIGN[point.sign] if point.sign is not None else Sign.CHARGE_POSITIVE
        return point.model_copy(update={"sign": other})
    if kind == "scale":
        return point.model_copy(update={"scale": point.scale * SCALED})
    if kind == "word order":
        section = document.modbus
        order = point.word_order or (section.word_order if section is not None else "big")
        return point.model_copy(update={"word_order": "little" if order == "big" else "big"})
    if point.address is not None:
        return point.model_copy(update={"address": point.address + point.register_count})
    if point.offset is not None:
        return point.model_copy(update={"offset": point.offset + point.register_count})
    if point.write is not None and mutant.quantity == CONTROL:
        place = (
            {"path": f"{point.write.path}/elsewhere"} if point.write.path else {"topic": f"{point.write.topic}/else"}
        )
        return point.model_copy(update={"write": point.write.model_copy(update=place)})
    return point.model_copy(update={"pointer": f"{point.pointer}_elsewhere"})
