"""What the tests of the Modbus link share: made-up products, a register device, and a server that answers as told."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self

import yaml

from gateway.clock import Clock, ManualClock
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.links.modbus.link import ModbusLink, ModbusLinks
from gateway.ports.links import PointTarget
from gateway.profiles.compiled.sequences import PointWrite, Request
from gateway.profiles.loader import parse_profile
from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal
from simulators.faces.plant import Trouble

CEILING_S = 10.0
POINTS = {
    "power": {"register": 100, "type": "i16", "unit": "W"},
    "soc": {"register": 101, "type": "u16", "unit": "%"},
    "energy": {"register": 102, "type": "u32", "unit": "Wh"},
    "limit": {"register": 110, "type": "i32", "access": "rw", "storage": "volatile"},
    "mode": {"register": 112, "type": "u16", "access": "rw", "storage": "volatile"},
}


def target(
    port: int,
    points: dict[str, Any] | None = None,
    *,
    name: str = "home-1",
    own_units: tuple[tuple[str, int], ...] = (),
    url: str | None = None,
    **section: Any,
) -> PointTarget:
    """A device of a made-up product at `port`, registered with `own_units`; `section` lies over its modbus section."""
    made = POINTS if points is None else points
    needed = {"power": POINTS["power"], "soc": POINTS["soc"]}
    modbus = {"units": {"main": 1}, "timeout_s": 1, "busy_wait_s": 0.01, "gap_max": 0} | section
    text = yaml.safe_dump(
        {
            "language": 1,
            "profile": "made-up",
            "maker": "Sample",
            "product": "Battery",
            "evidence": {"tag": "documented", "source": "made up"},
            "transport": "modbus",
            "facts": {
                "command_latency_s": 5,
                "efficiency_discharge": 0.95,
                "efficiency_charge": 0.95,
                "standby_w": 30,
                "soc_uncertainty_pct": 5,
            },
            "modbus": modbus,
            "identity": {"rules": [{"point": "soc", "above": -1}]},
            "points": needed | made,
            "readings": {
                "battery_w": {
                    "point": "power",
                    "sign": "discharge_positive",
                    "measured_at": "battery_ac",
                    "range": [-9000, 9000],
                },
                "soc_pct": {"point": "soc", "range": [0, 100]},
            },
        }
    )
    document = parse_profile(text, name="made-up.yaml")
    return PointTarget(
        device=DeviceId(name),
        connection=DeviceConnection(url=url or f"modbus://127.0.0.1:{port}", units=own_units),
        secret="",
        document=document,
        points={name: point for name, point in document.points.items() if name in made},
    )


def writes(**raws: tuple[int, ...]) -> Request:
    """One request that writes these points."""
    return Request(writes=tuple(PointWrite(point=name, raw=raw, value=None) for name, raw in raws.items()))


class Bench:
    """Links, on a clock that is moved by hand unless they have `clock`; closed at the end."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = ManualClock()
        self.links = ModbusLinks(clock or self.clock)
        self.stats = self.links.stats

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.links.close()

    async def open(self, made: PointTarget) -> ModbusLink:
        link = self.links.link(made)
        await link.open()
        return link


class Device:
    """Registers by unit. `refusals` are given first, one a request; `before_read` may change the registers."""

    def __init__(self, words: dict[int, int] | None = None, *, units: Iterable[int] = (1,)) -> None:
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.images: dict[int, dict[int, int]] = {unit: dict(words or {}) for unit in units}
        self.refusals: list[int] = []
        self.before_read: Callable[[dict[int, int]], None] | None = None

    def _image(self, unit: int) -> dict[int, int]:
        if self.refusals:
            raise ModbusRefused(self.refusals.pop(0))
        if unit not in self.images:
            raise ModbusRefused(Refusal.NO_TARGET)
        return self.images[unit]

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        image = self._image(unit)
        if self.before_read is not None:
            self.before_read(image)
        try:
            return [image[at] for at in range(address, address + count)]
        except KeyError:
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS) from None

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        image = self._image(unit)
        for i, value in enumerate(values):
            image[address + i] = value


def image(*extra: int) -> dict[int, int]:
    """Words of `POINTS`: each register holds its own address."""
    return {at: at for at in (*range(100, 104), *range(110, 113), *extra)}


class Served:
    """A device behind the simulators' server."""

    def __init__(self, device: Device, **settings: Any) -> None:
        self.device = device
        self.server = ModbusServer(device, **settings)
        self.port = 0

    async def __aenter__(self) -> Self:
        self.port = await self.server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.stop()

    def asked(self) -> list[tuple[int, int]]:
        """(address, count) of the requests since the last look."""
        found = [(address, count) for _, _, address, count in self.server.requests]
        self.server.requests.clear()
        return found


class Asked:
    """One request as it came, and the means to answer it when and as the test likes."""

    def __init__(self, writer: asyncio.StreamWriter, transaction: int, unit: int, pdu: bytes) -> None:
        self.writer = writer
        self.transaction = transaction
        self.unit = unit
        self.pdu = pdu

    @property
    def address(self) -> int:
        return int.from_bytes(self.pdu[1:3], "big")

    def frame(self, *, fill: int | None = None, transaction: int | None = None, unit: int | None = None) -> bytes:
        """The right answer; every word is `fill`, or the register's own address."""
        return framed(
            self.transaction if transaction is None else transaction,
            self.unit if unit is None else unit,
            self.right(fill),
        )

    def right(self, fill: int | None = None) -> bytes:
        if self.pdu[0] in (6, 16):
            return self.pdu[:5]
        count = int.from_bytes(self.pdu[3:5], "big")
        words = [self.address + i if fill is None else fill for i in range(count)]
        return struct.pack(f">BB{count}H", self.pdu[0], 2 * count, *words)

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    def answer(self, **changes: Any) -> None:
        self.send(self.frame(**changes))


def framed(transaction: int, unit: int, pdu: bytes, *, length: int | None = None, protocol: int = 0) -> bytes:
    return struct.pack(">HHHB", transaction, protocol, len(pdu) + 1 if length is None else length, unit) + pdu


class Scripted:
    """A server whose requests wait in `inbox` until the test answers them, or go to `handler`."""

    def __init__(self, handler: Callable[[Asked], Awaitable[None] | None] | None = None) -> None:
        self.inbox: asyncio.Queue[Asked] = asyncio.Queue()
        self.handler = handler
        self.connects = 0
        self.port = 0
        self.arrived_s: list[float] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.wait_for(self._server.wait_closed(), CEILING_S)

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def next(self) -> Asked:
        return await asyncio.wait_for(self.inbox.get(), CEILING_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects += 1
        self._writers.add(writer)
        try:
            while True:
                transaction, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                asked = Asked(writer, transaction, unit, await reader.readexactly(length - 1))
                self.arrived_s.append(asyncio.get_running_loop().time())
                if self.handler is None:
                    self.inbox.put_nowait(asked)
                    continue
                result = self.handler(asked)
                if result is not None:
                    await result
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
