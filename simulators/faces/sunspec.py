"""A SunSpec register map: marker, chain of models, scale factors, values a product has not implemented.

Wire: base "SunS", then per model id u16, length u16 (without these two words) and its points; 0xFFFF, 0 ends the chain.
All big-endian. Physical value = raw * 10 ^ scale factor, in both directions.
Source: SunSpec Device Information Model specification; sunspec/models json/model_N.json, commit 7abdf89.
"""

import math
import struct
from dataclasses import dataclass

from simulators.faces.modbus import ModbusRefused, Refusal, Registers
from simulators.faces.sunspec_models import MODELS

MARKER = (0x5375, 0x6E53)
END = (0xFFFF, 0)
HEADER = 2

FORMATS = {
    "u16": ">H",
    "e16": ">H",
    "b16": ">H",
    "i16": ">h",
    "sf": ">h",
    "pad": ">h",
    "u32": ">I",
    "b32": ">I",
    "acc32": ">I",
    "i32": ">i",
    "u64": ">Q",
    "acc64": ">Q",
}
ABSENT = {
    "u16": 0xFFFF,
    "e16": 0xFFFF,
    "b16": 0xFFFF,
    "i16": -0x8000,
    "sf": -0x8000,
    "pad": -0x8000,
    "u32": 0xFFFFFFFF,
    "b32": 0xFFFFFFFF,
    "acc32": 0,
    "i32": -0x80000000,
    "u64": 0xFFFFFFFFFFFFFFFF,
    "acc64": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of a model: `offset` from the model's id word."""

    name: str
    type: str
    offset: int
    size: int
    scale: str
    writable: bool

    def raw(self, words: list[int]) -> int:
        """The number in `words`."""
        return int(struct.unpack(FORMATS[self.type], struct.pack(f">{self.size}H", *words))[0])

    def words(self, raw: int) -> list[int]:
        """`raw` in words, at the nearest number of the type that is not its "not implemented"."""
        if self.type.startswith("s") and self.type != "sf":
            return [raw] * self.size
        low, high = _range(self.type)
        clamped = raw if raw == ABSENT[self.type] else min(max(raw, low), high)
        return list(struct.unpack(f">{self.size}H", struct.pack(FORMATS[self.type], clamped)))


def finest(magnitude: float, most: int, *, at_least: int) -> int:
    """The smallest scale factor, from `at_least` up, by which `magnitude` fits a raw number of at most `most`."""
    factor = at_least
    while magnitude / 10.0**factor > most:
        factor += 1
    return factor


def _range(kind: str) -> tuple[int, int]:
    bits = 8 * struct.calcsize(FORMATS[kind])
    if kind in ("i16", "i32", "sf", "pad"):
        return -(1 << bits - 1) + 1, (1 << bits - 1) - 1
    return 0, (1 << bits) - 2


def _point(text: str, offset: int) -> Point:
    name, kind, scale = (*text.rstrip("*").split(":"), "")[:3]
    size = int(kind[1:]) if kind not in FORMATS else struct.calcsize(FORMATS[kind]) // 2
    return Point(name=name, type=kind, offset=offset, size=size, scale=scale, writable=text.endswith("*"))


def _layout(model: int, repeats: int) -> list[tuple[str, Point]]:
    """Key and point of everything in a model; the keys of repeated points are `name.0`, `name.1` and so on."""
    head, _, group = MODELS[model].partition("|")
    points: list[tuple[str, Point]] = []
    offset = HEADER
    for repeat, texts in enumerate([head.split(), *([group.split()] * repeats)]):
        for text in texts:
            point = _point(text, offset)
            points.append((point.name if repeat == 0 else f"{point.name}.{repeat - 1}", point))
            offset += point.size
    return points


class Model:
    """One model in the map, its points by key. Physical values, already scaled; NaN = not implemented."""

    def __init__(self, registers: Registers, number: int, address: int, *, repeats: int, length: int | None) -> None:
        self.number = number
        self.address = address
        self._registers = registers
        self.points = dict(_layout(number, repeats))
        full = sum(point.size for point in self.points.values())
        self.length = full if length is None else length
        if self.length < full:
            self.points = {k: p for k, p in self.points.items() if p.offset + p.size <= self.length + HEADER}
        registers.u16(address, number)
        registers.u16(address + 1, self.length)
        self.blank()

    def blank(self) -> None:
        """Everything becomes "not implemented", the scale factors too."""
        for key, point in self.points.items():
            if point.type in FORMATS:
                self.set_raw(key, ABSENT[point.type])
            else:
                self._registers.text(self.address + point.offset, "", point.size)

    def _factor(self, point: Point) -> float:
        if not point.scale:
            return 1.0
        return 10.0 ** self.raw(point.scale)

    def raw(self, key: str) -> int:
        point = self.points[key]
        return point.raw(self._registers.block(self.address + point.offset, point.size))

    def set_raw(self, key: str, raw: int) -> None:
        point = self.points[key]
        for i, word in enumerate(point.words(raw)):
            self._registers.words[self.address + point.offset + i] = word

    def text(self, key: str, value: str) -> None:
        point = self.points[key]
        self._registers.text(self.address + point.offset, value, point.size)

    def set(self, **values: float) -> None:
        """Points by name, physical."""
        for key, value in values.items():
            self.put(key, value)

    def put(self, key: str, value: float) -> None:
        point = self.points[key]
        self.set_raw(key, ABSENT[point.type] if math.isnan(value) else round(value / self._factor(point)))

    def physical(self, key: str, raw: int) -> float:
        """What `raw` means at this point; NaN if it means "not implemented"."""
        point = self.points[key]
        if raw == ABSENT[point.type] and not point.type.startswith("acc"):
            return math.nan
        return raw * self._factor(point)

    def get(self, key: str) -> float:
        return self.physical(key, self.raw(key))


@dataclass(frozen=True, slots=True)
class Written:
    """One point of a write request, whole."""

    model: Model
    key: str
    raw: int

    @property
    def name(self) -> str:
        return f"{self.model.number}.{self.key}"

    @property
    def value(self) -> float:
        return self.model.physical(self.key, self.raw)


class SunSpecMap:
    """The map of one unit: models are added in the order of the chain, `end()` closes it."""

    def __init__(self, base: int = 40_000, registers: Registers | None = None) -> None:
        self.registers = Registers() if registers is None else registers
        self.models: list[Model] = []
        self.registers.words[base], self.registers.words[base + 1] = MARKER
        self._next = base + 2

    def add(self, number: int, *, repeats: int = 0, length: int | None = None) -> Model:
        """Append a model; `length` where the product's differs from the standard's full one."""
        model = Model(self.registers, number, self._next, repeats=repeats, length=length)
        self.models.append(model)
        self._next += HEADER + model.length
        return model

    def end(self) -> None:
        self.registers.words[self._next], self.registers.words[self._next + 1] = END

    def written(self, address: int, values: list[int]) -> list[Written]:
        """The points a write request covers; nothing is stored.

        Raises ModbusRefused(ILLEGAL_ADDRESS) unless every word belongs to a whole point that may be written.
        """
        found: list[Written] = []
        at = address
        while at < address + len(values):
            model, key, point = self._starting_at(at)
            words = values[at - address : at - address + point.size]
            if not point.writable or len(words) < point.size:
                raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
            found.append(Written(model, key, point.raw(words)))
            at += point.size
        return found

    def _starting_at(self, address: int) -> tuple[Model, str, Point]:
        for model in self.models:
            if model.address <= address < model.address + HEADER + model.length:
                for key, point in model.points.items():
                    if model.address + point.offset == address:
                        return model, key, point
        raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)


def common(model: Model, *, maker: str, product: str, firmware: str, serial: str, options: str = "") -> None:
    """Fill model 1."""
    model.text("Mn", maker)
    model.text("Md", product)
    model.text("Opt", options)
    model.text("Vr", firmware)
    model.text("SN", serial)
    model.set_raw("DA", 1)
