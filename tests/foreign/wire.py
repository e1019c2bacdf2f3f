"""Puts the mistake of a profile into the simulated product too: both agree then, and only somebody else can notice."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.clock import SystemClock
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.links.modbus.link import ModbusLinks
from gateway.ports.links import PointTarget
from gateway.profiles.compiled.variant import PointProduct
from gateway.profiles.language.points import Point, PointType
from gateway.profiles.language.product import ProfileDocument
from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, RegisterDevice
from simulators.faces.plant import Connection, Trouble
from tests.foreign.mutants import SCALED, SIGNED, Mutant

FORMATS = {
    PointType.U16: ">H", PointType.I16: ">h", PointType.U32: ">I", PointType.I32: ">i", PointType.U64: ">Q",
    PointType.I64: ">q", PointType.F32: ">f", PointType.F64: ">d",
}  # fmt: skip
MARK = 0x4000
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a point is on the wire, and how its words make a number. `functions`: the profile's own, and the other one
    where the product answers the same to both."""

    unit: int
    functions: tuple[int, ...]
    address: int
    point: Point
    little: bool

    @property
    def count(self) -> int:
        return self.point.register_count

    def number(self, words: list[int]) -> float:
        data = struct.pack(f">{len(words)}H", *(reversed(words) if self.little else words))
        return float(struct.unpack(FORMATS[self.point.type], data)[0])

    def words(self, number: float) -> list[int]:
        given = FORMATS[self.point.type]
        value = number if self.point.type in (PointType.F32, PointType.F64) else round(number)
        words = list(struct.unpack(f">{self.count}H", struct.pack(given, value)))
        return words[::-1] if self.little else words


class Mistaken:
    """The registers of a product whose places in `places` are made with the mistake of `mutant`; without one they are
    as they were. `broken`: what went wrong in here, which no client may take for a mistake of the product."""

    def __init__(self, device: RegisterDevice, mutant: Mutant | None = None, places: tuple[Place, ...] = ()) -> None:
        self._device = device
        self._mutant = mutant
        self._places = places
        self.broken: list[str] = []
        self.trouble, self.late_s = Trouble.NONE, 0.0

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        words = self._device.read(unit, function, address, count)
        for place in self._places:
            if place.unit == unit and function in place.functions:
                for at, word in self._whole(self._shown, place).items():
                    if address <= at < address + count:
                        words[at - address] = word
        return words

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        wanted = dict(enumerate(values, start=address))
        for place in self._places:
            if place.unit == unit and 3 in place.functions:
                self._whole(self._meant, place, wanted)
        for start, words in _runs(wanted):
            self._device.write(unit, 6 if function == 6 and len(words) == 1 else 16, start, words)

    def _whole(self, turn: Callable[..., Result], *arguments: Any) -> Result:
        """What `turn` gives; a failure of it is noted, since a client only sees that it gets no answer."""
        try:
            return turn(*arguments)
        except ModbusRefused:
            raise
        except Exception as error:
            self.broken.append(repr(error))
            raise

    def _shown(self, place: Place) -> dict[int, int]:
        """The words around a place as the mistaken product shows them."""
        assert self._mutant is not None
        try:
            words = self._device.read(place.unit, place.functions[0], place.address, place.count)
        except ModbusRefused:
            return {}  # an option that this one lacks
        if self._mutant.kind == "address":
            moved = dict(enumerate([0] * place.count, start=place.address))
            return moved | dict(enumerate(words, start=place.address + place.count))
        if self._mutant.kind == "word order":
            words = words[::-1]
        elif self._mutant.kind == "scale":
            words = place.words(place.number(words) / SCALED)
        elif self._mutant.values is not None:
            words = place.words(self._other(place, place.number(words)))
        elif place.point.type in SIGNED:
            words = place.words(-place.number(words))
        elif len(self._places) == 2:
            # two magnitudes: each says what the other one is
            (other,) = [one for one in self._places if one is not place]
            words = self._device.read(other.unit, other.functions[0], other.address, other.count)
        return dict(enumerate(words, start=place.address))

    def _meant(self, place: Place, wanted: dict[int, int]) -> None:
        """Turn what is written to a place into what the mistaken product makes of it."""
        assert self._mutant is not None
        addresses = range(place.address, place.address + place.count)
        if self._mutant.kind == "address":
            moved = {at: wanted.pop(at + place.count) for at in addresses if at + place.count in wanted}
            if any(at in wanted for at in addresses):
                raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
            wanted |= moved
            return
        if not all(at in wanted for at in addresses):
            return
        words = [wanted[at] for at in addresses]
        if self._mutant.kind == "word order":
            words = words[::-1]
        elif self._mutant.kind == "scale":
            words = place.words(place.number(words) / SCALED)
        elif self._mutant.values is not None:
            words = place.words(self._other(place, place.number(words)))
        else:
            words = place.words(-place.number(words))
        wanted |= dict(enumerate(words, start=place.address))

    def _other(self, place: Place, raw: float) -> float:
        """The raw constant of the other direction; anything else stays."""
        values = self._mutant.values if self._mutant is not None and self._mutant.values else (0.0, 0.0)
        out, into = ((value - place.point.shift) / place.point.scale for value in values)
        return into if raw == out else out if raw == into else raw


def _runs(words: dict[int, int]) -> Iterator[tuple[int, list[int]]]:
    """Consecutive registers together."""
    run: list[int] = []
    for at in sorted(words):
        if run and at != run[-1] + 1:
            yield run[0], [words[one] for one in run]
            run = []
        run.append(at)
    if run:
        yield run[0], [words[one] for one in run]


class Marking:
    """The registers of a product, of which one request is answered with marks: the n-th word is MARK + n."""

    def __init__(self, device: RegisterDevice) -> None:
        self.device = device
        self.trouble, self.late_s = Trouble.NONE, 0.0
        self.marks = False
        self.asked: list[tuple[int, int, int, int]] = []

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        self.asked.append((unit, function, address, count))
        words = self.device.read(unit, function, address, count)
        return [MARK + i for i in range(count)] if self.marks else words

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)

    @contextmanager
    def marking(self) -> Iterator[None]:
        self.asked.clear()
        self.marks = True
        try:
            yield
        finally:
            self.marks = False


async def places_of(document: ProfileDocument, device: RegisterDevice, names: tuple[str, ...]) -> tuple[Place, ...]:
    """Where our own link finds these points in this product."""
    section = document.modbus
    assert section is not None
    points = {name: document.points[name] for name in names}
    where: dict[str, tuple[int, int, int]] = {
        name: (section.units[point.unit_id], point.function, point.address)
        for name, point in points.items()
        if point.address is not None
    }
    if len(where) < len(names):
        where |= await _in_models(document, device, tuple(name for name in names if name not in where))
    found = []
    for name, (unit, function, address) in where.items():
        point = points[name]
        little = (point.word_order or section.word_order) == "little"
        functions: tuple[int, ...] = (function,)
        if point.readable and _same_by_both(device, unit, address, point.register_count):
            functions = (function, 7 - function)
        found.append(Place(unit=unit, functions=functions, address=address, point=point, little=little))
    return tuple(found)


def _same_by_both(device: RegisterDevice, unit: int, address: int, count: int) -> bool:
    try:
        return device.read(unit, 3, address, count) == device.read(unit, 4, address, count)
    except ModbusRefused:
        return False


async def _in_models(
    document: ProfileDocument, device: RegisterDevice, names: tuple[str, ...]
) -> dict[str, tuple[int, int, int]]:
    """Unit, function and address of points of SunSpec models, as our link asks for them: where its answer has the marks
    of the request."""
    marking = Marking(device)
    server, connection = await served(marking)
    product = PointProduct(document)
    links = ModbusLinks(SystemClock())
    target = PointTarget(
        device=DeviceId("sought"),
        connection=DeviceConnection(url=connection.url, units=(), parameters=(), username=""),
        secret="",
        document=document,
        points=product.base.points,
    )
    link = links.link(target)
    found: dict[str, tuple[int, int, int]] = {}
    try:
        await link.open()
        for name in names:
            with marking.marking():
                raw = (await link.read((name,))).get(name)
            if not isinstance(raw, tuple):
                continue  # a model that this one lacks
            offset = raw[0] - MARK
            found[name] = next(
                (unit, function, address + offset)
                for unit, function, address, count in reversed(marking.asked)
                if offset + len(raw) <= count
            )
    finally:
        await link.close()
        await links.close()
        await server.stop()
    return found


async def served(device: RegisterDevice) -> tuple[ModbusServer, Connection]:
    """A server of its own for these registers."""
    server = ModbusServer(device)
    return server, Connection(url=f"modbus://127.0.0.1:{await server.start()}")
