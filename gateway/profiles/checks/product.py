"""Checks of a product with points beyond its schema: names resolve, powers have a sign, control is safe to repeat."""

import re
from collections.abc import Iterator, Sequence

from gateway.profiles.checks.factors import factor_faults
from gateway.profiles.checks.messages import message_faults
from gateway.profiles.compiled.points import PointCodec, Unwritable
from gateway.profiles.language.base import FLIPPED, Sign
from gateway.profiles.language.control import Control, Step, Watchdog
from gateway.profiles.language.points import REGISTERS, Identity, Match, Point, Reading
from gateway.profiles.language.product import Overlay, ProfileDocument
from gateway.profiles.language.quantities import READINGS, CanonicalQuantity
from gateway.profiles.language.transport import HttpSection, ModbusSection, MqttSection

BATTERY_SIGNS = (Sign.DISCHARGE_POSITIVE, Sign.CHARGE_POSITIVE)
GRID_SIGNS = (Sign.IMPORT_POSITIVE, Sign.EXPORT_POSITIVE)
CYCLIC = ("discharge", "charge", "hold", "block", "heartbeat")
NEEDED = ("battery_w", "soc_pct")
REGISTER_MAX = 65535
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def faults_of(document: ProfileDocument) -> list[str]:
    """Every fault of a well-formed document, each with its path."""
    if document.messages:
        return message_faults(document)
    faults = [*_section_faults(document), *_variant_faults(document, None)]
    for i, overlay in enumerate(document.overlays):
        faults += [f"overlays.{i}.{fault}" for fault in _variant_faults(document, overlay) if fault not in faults]
    return faults


def _variant_faults(document: ProfileDocument, overlay: Overlay | None) -> Iterator[str]:
    points = document.points | (overlay.points if overlay else {})
    readings = document.readings | (overlay.readings if overlay else {})
    control = (overlay.control if overlay else None) or document.control
    for name, point in points.items():
        for fault in (*_point_faults(document, point), *_guard_faults(point, points)):
            yield f"points.{name}.{fault}"
    yield from factor_faults(points, document.modbus)
    for name in NEEDED:
        if name not in readings:
            yield f"readings.{name}: missing; nothing can be done with a battery without it"
    for name, reading in readings.items():
        for fault in _reading_faults(name, reading, points):
            yield f"readings.{name}.{fault}"
    if document.identity is not None:
        yield from _identity_faults(document.identity, points)
    if overlay is not None:
        for i, match in enumerate(overlay.when):
            yield from (f"when.{i}.{fault}" for fault in _match_faults(match, points))
    if control is not None:
        yield from (f"control.{fault}" for fault in _control_faults(control, points))
        watchdog = (overlay.watchdog if overlay else None) or document.watchdog
        if watchdog is not None and control.discharge:
            yield from _watchdog_faults(watchdog, control, points)


def _identity_faults(identity: Identity, points: dict[str, Point]) -> Iterator[str]:
    for named in (identity.serial, identity.product, identity.firmware):
        if named is not None and named not in points:
            yield f"identity: {named!r} is not a point"
    for i, rule in enumerate(identity.rules):
        yield from (f"identity.rules.{i}.{fault}" for fault in _match_faults(rule, points))
    for i, other in enumerate(identity.excludes):
        yield from (f"identity.excludes.{i}.{fault}" for fault in _match_faults(other, points))


def _section_faults(document: ProfileDocument) -> Iterator[str]:
    if document.http is not None:
        yield from (f"http.auth.{fault}" for fault in _auth_faults(document.http))
    if document.mqtt is not None and document.mqtt.keepalive is not None:
        yield from (f"mqtt.keepalive.topic: {f}" for f in _topic_faults(document.mqtt.keepalive.topic, document.mqtt))


def _auth_faults(section: HttpSection) -> Iterator[str]:
    if section.auth.name is not None and not HEADER_NAME.fullmatch(section.auth.name):
        yield f"name: {section.auth.name!r} is not the name of a header"
    yield from (f"path: {fault}" for fault in _path_faults(section.auth.path))


def _point_faults(document: ProfileDocument, point: Point) -> Iterator[str]:
    if _transport_of(point) != document.transport:
        yield f"register, path or topic: this is not {document.transport}"
        return
    yield from _sentinel_faults(point)
    if document.modbus is not None:
        yield from _register_faults(point, document.modbus)
    yield from (f"path: {fault}" for fault in _path_faults(point.path))
    if document.mqtt is not None:
        yield from (f"topic: {fault}" for fault in _topic_faults(point.topic, document.mqtt))
    if point.write is not None:
        yield from (f"write.path: {fault}" for fault in _path_faults(point.write.path))
        if document.mqtt is not None:
            yield from (f"write.topic: {fault}" for fault in _topic_faults(point.write.topic, document.mqtt))


def _transport_of(point: Point) -> str:
    if point.address is not None or point.model is not None:
        return "modbus"
    on_http = point.path is not None or (point.write is not None and point.write.path is not None)
    return "http" if on_http else "mqtt"


def _sentinel_faults(point: Point) -> Iterator[str]:
    bits = 16 * REGISTERS.get(point.type, 0)
    for sentinel in point.sentinels if bits else ():
        if not -(1 << bits - 1) <= sentinel < 1 << bits:
            yield f"sentinels: {sentinel} does not fit {point.type.value}"


def _register_faults(point: Point, section: ModbusSection) -> Iterator[str]:
    if point.unit_id not in section.units:
        yield f"unit_id: {point.unit_id!r} is not in modbus.units"
    if point.model is not None and section.sunspec is None:
        yield "model: needs modbus.sunspec"
    if point.block is not None and section.sunspec is not None:
        blocks = section.sunspec.blocks.get(point.model or 0)
        if blocks is None:
            yield f"block: model {point.model} has no modbus.sunspec.blocks"
        elif point.block > blocks.count:
            yield f"block: model {point.model} has {blocks.count} blocks"
    if point.register_count > section.registers_max:
        yield f"words: longer than registers_max {section.registers_max}"
    if point.address is None:
        return
    last = point.address + point.register_count - 1
    if last > REGISTER_MAX:
        yield f"register: ends at {last}, after {REGISTER_MAX}"
    if any(first <= last and point.address <= final for first, final in section.forbidden):
        yield "register: lies in modbus.forbidden"


def _guard_faults(point: Point, points: dict[str, Point]) -> Iterator[str]:
    """A value and what says whether it is valid are read in the same poll; live points are read in every poll."""
    for key, matches in (("valid_when", point.valid_when), ("invalid_when", point.invalid_when)):
        for i, match in enumerate(matches):
            yield from (f"{key}.{i}.{fault}" for fault in _match_faults(match, points))
            guard = points.get(match.point)
            if guard is not None and guard.poll not in (point.poll, "live"):
                yield f"{key}.{i}: {match.point!r} must be polled {point.poll} like what it speaks of, not {guard.poll}"


def _path_faults(path: str | None) -> Iterator[str]:
    """A path stays on the device's own host and under its own root."""
    if path is not None and (path.startswith("//") or ".." in path.split("?")[0].split("/")):
        yield f"{path!r} leads away from the device"


def _topic_faults(topic: str | None, section: MqttSection) -> Iterator[str]:
    for level in (topic or "").split("/"):
        if "{" in level and level not in ("{device}", *(f"{{{v}}}" for v in section.variables)):
            yield f"{level} is none of mqtt.variables"


def _reading_faults(name: str, reading: Reading, points: dict[str, Point]) -> Iterator[str]:
    canonical = READINGS.get(name)
    if canonical is None:
        yield f"not a reading; known are {', '.join(READINGS)}"
        return
    for used in reading.points():
        if used not in points:
            yield f"{used!r} is not a point"
        elif not points[used].readable:
            yield f"{used!r} cannot be read"
    for case in reading.cases:
        if canonical.members is not None and case.value not in canonical.members:
            yield f"cases: {case.value!r} is not one of {', '.join(canonical.members)}"
    if reading.otherwise is not None and reading.otherwise not in (canonical.members or {}):
        yield f"otherwise: {reading.otherwise!r} is not one of {', '.join(canonical.members or {})}"
    if (canonical.members is not None) != bool(reading.cases):
        yield "cases: belongs to an enumeration, and an enumeration needs it"
    if (name == "faults" or canonical.flag) != bool(reading.any):
        yield "any: belongs to faults and flags, and they need it"
    if reading.point is not None or reading.sum:
        yield from _number_faults(reading, canonical, points)


def _number_faults(reading: Reading, canonical: CanonicalQuantity, points: dict[str, Point]) -> Iterator[str]:
    if reading.range is None:
        yield "range: missing; implausible values must be recognisable"
    if (reading.sign is not None) != bool(canonical.power):
        yield "sign: " + ("missing; every power says its sign" if canonical.power else "this reading has none")
    allowed = {"battery": BATTERY_SIGNS, "grid": GRID_SIGNS}.get(canonical.power, ())
    if reading.sign is not None and allowed and reading.sign not in allowed:
        yield f"sign: must be {' or '.join(sign.value for sign in allowed)}"
    if canonical.power and reading.measured_at is None:
        yield "measured_at: missing; every power says where it is measured"
    for used in ([reading.point] if reading.point else []) + [term.point for term in reading.sum]:
        point = points.get(used)
        if point is not None and canonical.unit and point.unit != canonical.unit:
            yield f"unit: {used!r} is in {point.unit!r}, must be {canonical.unit!r} (scale converts)"


def _match_faults(match: Match, points: dict[str, Point]) -> Iterator[str]:
    point = points.get(match.point)
    if point is None:
        yield f"point: {match.point!r} is not a point"
    elif not point.readable:
        yield f"point: {match.point!r} cannot be read"


def _control_faults(control: Control, points: dict[str, Point]) -> Iterator[str]:
    for i, need in enumerate(control.needs):
        yield from (f"needs.{i}.{fault}" for fault in _match_faults(need, points))
    for sequence, steps in control.sequences().items():
        for i, step in enumerate(steps):
            yield from (f"{sequence}.{i}.{fault}" for fault in _step_faults(step, control, sequence, points))
    yield from _restore_faults(control, points)
    yield from (f"apart: {name!r} is not a point" for pair in control.apart for name in pair if name not in points)
    for sequence in ("discharge", "charge") if control.discharge else ():
        if not {"setpoint_w", "magnitude_w", "grid_target_w", "inverter_target_w"} & _sources(
            control.sequences()[sequence]
        ):
            yield f"{sequence}: writes no setpoint"


def _restore_faults(control: Control, points: dict[str, Point]) -> Iterator[str]:
    """Saved points can be saved and are restored; restored points were saved."""
    restored = {name for step in control.release for name in _restored(step)}
    for name in control.saves:
        if name not in points or points[name].access != "rw":
            yield f"saves: {name!r} is not a point that can be read and written"
        if name not in restored:
            yield f"release: {name!r} is saved and not restored"
    for name in sorted(restored - set(control.saves)):
        yield f"release: {name!r} is restored and not in saves"


def _watchdog_faults(watchdog: Watchdog, control: Control, points: dict[str, Point]) -> Iterator[str]:
    """Sequences repeated under control must restart the device's timer."""
    if watchdog.point is None:
        return
    if watchdog.point not in points:
        yield f"watchdog.point: {watchdog.point!r} is not a point"
    for sequence in ("discharge", "charge", "hold", "block"):
        if not control.sequences()[sequence]:
            continue
        steps = (*control.sequences()[sequence], *(control.heartbeat.steps if control.heartbeat else ()))
        if watchdog.point not in {name for step in steps for name in step.touched()}:
            yield f"control.{sequence}: does not write the watchdog's {watchdog.point!r}; a refresh would not count"


def _step_faults(step: Step, control: Control, sequence: str, points: dict[str, Point]) -> Iterator[str]:
    for name in step.touched():
        point = points.get(name)
        if point is None or point.access == "r":
            yield f"{name!r} is not a point that can be written"
    for part in step.together or (step,):
        yield from _write_faults(part, sequence, points)
        yield from _constant_faults(part, points)
    if step.together:
        if len({part.if_changed for part in step.together}) > 1:
            yield "together: if_changed holds for all of them or for none"
        yield from _together_faults([points[n] for n in step.touched() if n in points], step.touched(), control)


def _write_faults(part: Step, sequence: str, points: dict[str, Point]) -> Iterator[str]:
    point = points.get(part.write or "")
    if point is None:
        return
    if sequence in CYCLIC and point.storage == "stored" and not part.if_changed:
        yield f"{part.write!r} is stored: in a sequence that is repeated it must be if_changed"
    if part.source in ("setpoint_w", "inverter_target_w") and point.sign not in BATTERY_SIGNS:
        yield f"{part.write!r}: a signed setpoint needs the point's sign"
    if part.source == "grid_target_w" and point.sign not in GRID_SIGNS:
        yield f"{part.write!r}: a grid target needs the point's sign"
    if part.source == "magnitude_w" and point.sign in FLIPPED:
        yield f"{part.write!r}: a magnitude has no sign"
    if part.source == "lease" and point.unit not in ("s", "min"):
        yield f"{part.write!r}: a lease needs the point's unit, s or min"
    if part.percent_of is not None and part.percent_of not in points:
        yield f"percent_of: {part.percent_of!r} is not a point"


def _constant_faults(step: Step, points: dict[str, Point]) -> Iterator[str]:
    """Constants that the point cannot hold, where no scale factor of the device decides that."""
    name = step.write or step.restore or step.keep or ""
    point = points.get(name)
    constant = step.value if step.restore is None else step.or_value
    if point is None:
        return
    if step.null and point.register_count:
        yield f"{name!r}: registers hold no null"
    if constant is None or point.scale_factor is not None:
        return
    number = float(constant) if isinstance(constant, int) and not isinstance(constant, bool) else constant
    codec = PointCodec(name, point)
    try:
        codec.encode(number * codec.flip if isinstance(number, float) else number, {})
    except Unwritable as fault:
        yield f"{name!r}: {fault}"


def _together_faults(together: Sequence[Point], names: Sequence[str], control: Control) -> Iterator[str]:
    for first, second in control.apart:
        if first in names and second in names:
            yield f"together: {first!r} and {second!r} must never share a request"
    if all(point.address is not None or point.model is not None for point in together):
        places = [(p.unit_id, p.model, p.address if p.address is not None else p.offset or 0) for p in together]
        for (unit, model, place), (next_unit, next_model, following), point in zip(
            places, places[1:], together, strict=False
        ):
            if (unit, model, place + point.register_count) != (next_unit, next_model, following):
                yield "together: registers of one request must follow each other"
    elif len({(p.write.method, p.write.path, p.write.topic) for p in together if p.write}) > 1:
        yield "together: members of one request must go to the same place"


def _restored(step: Step) -> list[str]:
    return [part.restore for part in (step.together or (step,)) if part.restore is not None]


def _sources(steps: Sequence[Step]) -> set[str | None]:
    return {part.source for step in steps for part in (step.together or (step,))}
