"""Checks of a product with points beyond its schema: names resolve, powers have a sign, control is safe to repeat."""

import re
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_

from gateway.profiles.checks.factors import factor_faults
from gateway.profiles.checks.messages import message_faults
from gateway.profiles.checks.order import order_faults
from gateway.profiles.compiled.overlays import combinations, together
from gateway.profiles.compiled.points import PointCodec, Unwritable
from gateway.profiles.language.base import FLIPPED, ModelKey, Sign
from gateway.profiles.language.control import Control, Step, Watchdog
from gateway.profiles.language.points import REGISTERS, Identity, Match, Point, PointType, Reading
from gateway.profiles.language.product import Overlay, ProfileDocument
from gateway.profiles.language.quantities import READINGS, CanonicalQuantity
from gateway.profiles.language.transport import COMMON_WORDS, HttpSection, ModbusSection, MqttSection, SunSpec

BATTERY_SIGNS = (Sign.DISCHARGE_POSITIVE, Sign.CHARGE_POSITIVE)
GRID_SIGNS = (Sign.IMPORT_POSITIVE, Sign.EXPORT_POSITIVE)
CYCLIC = ("discharge", "charge", "hold", "block", "heartbeat")
PRODUCTS = {"W": ["A", "V"], "Wh": ["Ah", "V"]}
"""Units of the two points of a product, by the unit of what they make."""
NEEDED = ("battery_w", "soc_pct")
REGISTER_MAX = 65535
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def faults_of(document: ProfileDocument) -> list[str]:
    """Every fault of a well-formed document, each with its path."""
    if document.messages:
        return message_faults(document)
    faults = list(_variant_faults(document, None))
    return faults + list(_overlay_faults(document, set(faults)))


def _overlay_faults(document: ProfileDocument, known: set[str]) -> Iterator[str]:
    """Faults of the product under each overlay, and under those that may hold together."""
    for taken in sorted(combinations(document.overlays), key=len):
        overlay = together([document.overlays[i] for i in taken])
        beside = f" (beside {', '.join(document.overlays[i].name for i in taken[:-1])})" if len(taken) > 1 else ""
        for fault in _variant_faults(document, overlay):
            if fault not in known:
                known.add(fault)
                yield f"overlays.{taken[-1]}.{fault}{beside}"
    for i, one in enumerate(document.overlays):
        points = document.points | one.points
        for k, match in enumerate(one.when):
            yield from (f"overlays.{i}.when.{k}.{fault}" for fault in _match_faults(match, points))


def _variant_faults(document: ProfileDocument, overlay: Overlay | None) -> Iterator[str]:
    document = document.under(overlay)
    yield from _section_faults(document)
    points = document.points | (overlay.points if overlay else {})
    readings = document.readings | (overlay.readings if overlay else {})
    control = (overlay.control if overlay else None) or document.control
    if overlay is not None and overlay.read_only:
        control = None
    for name, point in points.items():
        for fault in (*_point_faults(document, point), *_fallback_faults(point, points), *_guard_faults(point, points)):
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
    if control is not None:
        yield from (f"control.{fault}" for fault in _control_faults(control, points))
        watchdog = (overlay.watchdog if overlay else None) or document.watchdog
        if control.discharge:
            yield from (f"control.{fault}" for fault in order_faults(control, readings, watchdog))
        if watchdog is not None and control.discharge:
            yield from _watchdog_faults(watchdog, control, points)


def _identity_faults(identity: Identity, points: dict[str, Point]) -> Iterator[str]:
    for named in (identity.serial, identity.product, identity.firmware):
        if named is not None and named not in points:
            yield f"identity: {named!r} is not a point"
    serial = points.get(identity.serial or "")
    if serial is not None and (serial.scale, serial.shift, serial.scale_factor) != (1.0, 0.0, None):
        yield f"identity: {identity.serial!r} is a serial and has no scale"
    for i, rule in enumerate(identity.rules):
        yield from (f"identity.rules.{i}.{fault}" for fault in _match_faults(rule, points))
    for i, other in enumerate(identity.excludes):
        yield from (f"identity.excludes.{i}.{fault}" for fault in _match_faults(other, points))
    for i, build in enumerate(identity.builds):
        for j, match in enumerate(build):
            yield from (f"identity.builds.{i}.{j}.{fault}" for fault in _match_faults(match, points))


def _section_faults(document: ProfileDocument) -> Iterator[str]:
    if document.modbus is not None and document.modbus.sunspec is not None:
        yield from (f"modbus.{fault}" for fault in _sunspec_faults(document.modbus, document.modbus.sunspec))
    if document.http is not None:
        yield from (f"http.auth.{fault}" for fault in _auth_faults(document.http))
    if document.mqtt is not None and document.mqtt.keepalive is not None:
        yield from (f"mqtt.keepalive.topic: {f}" for f in _topic_faults(document.mqtt.keepalive.topic, document.mqtt))


def _sunspec_faults(section: ModbusSection, sunspec: SunSpec) -> Iterator[str]:
    for place, keys in (("required", sunspec.required), ("blocks", sunspec.blocks)):
        yield from (f"sunspec.{place}: {key!r} is not in modbus.sunspec.models" for key in keys if not sunspec.ids(key))
    if "serial" in sunspec.models:
        yield "sunspec.models: 'serial' is what a registration calls the serial number of the device itself"
    if section.registers_max < COMMON_WORDS and any(model.options for model in sunspec.models.values()):
        yield f"registers_max: a common block is read whole to choose by it, {COMMON_WORDS} registers"


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
    if point.model is not None and section.sunspec is not None and not section.sunspec.ids(point.model):
        yield f"model: {point.model!r} is not in modbus.sunspec.models"
    if point.block is not None and section.sunspec is not None:
        blocks = section.sunspec.blocks.get(point.model or 0)
        if blocks is None:
            yield f"block: model {point.model} has no modbus.sunspec.blocks"
        elif not blocks.knows(point.block):
            named = f", none of them named {point.block!r}" if isinstance(point.block, str) else ""
            yield f"block: model {point.model} has {' or '.join(map(str, blocks.counts))} blocks{named}"
    if point.register_count > section.registers_max:
        yield f"words: longer than registers_max {section.registers_max}"
    written = point.write.address if point.write is not None else None
    for key, address in (("register", point.address), ("write.register", written)):
        if address is None:
            continue
        last = address + point.register_count - 1
        if last > REGISTER_MAX:
            yield f"{key}: ends at {last}, after {REGISTER_MAX}"
        if any(first <= last and address <= final for first, final in section.forbidden):
            yield f"{key}: lies in modbus.forbidden"


def _fallback_faults(point: Point, points: dict[str, Point]) -> Iterator[str]:
    if point.fallback is None:
        return
    other = points.get(point.fallback)
    if other is None or not other.readable:
        yield f"fallback: {point.fallback!r} is not a point that can be read"
    elif other.fallback is not None:
        yield f"fallback: {point.fallback!r} has one itself"
    elif (other.unit, other.poll) != (point.unit, point.poll):
        yield f"fallback: {point.fallback!r} must have the same unit and poll"


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
    if reading.point is not None or reading.sum or reading.mean or reading.product is not None:
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
    if reading.product is not None:
        yield from _product_faults(reading.product, canonical, points)
    measured = [term.point for term in reading.sum] + [share.point for share in reading.mean]
    for used in ([reading.point] if reading.point else []) + measured:
        point = points.get(used)
        if point is not None and canonical.unit and point.unit != canonical.unit:
            yield f"unit: {used!r} is in {point.unit!r}, must be {canonical.unit!r} (scale converts)"


def _product_faults(product: tuple[str, str], canonical: CanonicalQuantity, points: dict[str, Point]) -> Iterator[str]:
    known = [points[name] for name in product if name in points]
    units = sorted(point.unit for point in known)
    if len(known) == len(product) and PRODUCTS.get(canonical.unit) != units:
        wanted = " and ".join(PRODUCTS.get(canonical.unit, ()))
        yield f"product: units {' and '.join(units)}, " + (f"must be {wanted}" if wanted else "this is no product")
    if len({point.poll for point in known}) > 1:
        yield "product: both are read together, so they have one poll"


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
    parts = [part for steps in control.sequences().values() for step in steps for part in (step.together or (step,))]
    for name in sorted(restored):
        written = [part.bits for part in parts if part.write == name]
        ours = None if None in written or not written else reduce(or_, (bits or 0 for bits in written))
        if any(part.restore == name and part.bits != ours for part in parts):
            what = "the whole point is" if ours is None else f"bits {ours:#x} alone are"
            yield f"release: {name!r}: {what} written, so {what} restored"


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
    if part.bits is not None and not _holds_bits(point):
        yield f"{part.write!r}: bits are those of a u16 or u32 that can be read, without scale and sentinels"
    if part.percent_of is not None and part.percent_of not in points:
        yield f"percent_of: {part.percent_of!r} is not a point"


def _holds_bits(point: Point) -> bool:
    plain = point.scale == 1 and point.shift == 0 and point.scale_factor is None and not point.sentinels
    return plain and point.type in (PointType.U16, PointType.U32) and point.readable and point.poll != "never"


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
        places = [_written_to(point) for point in together]
        for (unit, model, place), (next_unit, next_model, following), point in zip(
            places, places[1:], together, strict=False
        ):
            if (unit, model, place + point.register_count) != (next_unit, next_model, following):
                yield "together: registers of one request must follow each other"
    elif len({(p.write.method, p.write.path, p.write.topic) for p in together if p.write}) > 1:
        yield "together: members of one request must go to the same place"


def _written_to(point: Point) -> tuple[str, ModelKey | None, int]:
    """Unit, model and register that a point is written to."""
    if point.write is not None and point.write.address is not None:
        return point.unit_id, None, point.write.address
    return point.unit_id, point.model, point.address if point.address is not None else point.offset or 0


def _restored(step: Step) -> list[str]:
    return [part.restore for part in (step.together or (step,)) if part.restore is not None]


def _sources(steps: Sequence[Step]) -> set[str | None]:
    return {part.source for step in steps for part in (step.together or (step,))}
