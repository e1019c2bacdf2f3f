"""A bench for the faces: one home, one face on a socket, time moved by hand; and pysunspec2 as a client."""

import asyncio
import re
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlsplit

from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP
from sunspec2.modbus.modbus import ModbusClientException

from simulators.battery import Batteries
from simulators.faces.plant import Connection, Face, Plant
from tests.builders.homes import homes

F = TypeVar("F", bound=Face)


def home(*, time_s: float = 64_800.0, **columns: Any) -> tuple[Batteries, Plant]:
    """One home whose firmware does not guard its reserve in remote mode; `columns` as of `homes`."""
    values: dict[str, Any] = {"capacity_wh": 10_000.0, "discharge_w_max": 5_000.0, "charge_w_max": 5_000.0}
    batteries = Batteries(homes(1, **(values | columns)), guard=False, time_s=time_s)
    return batteries, Plant(batteries, 0)


class Bench(Generic[F]):
    """A face that listens, its plant and its time."""

    def __init__(self, batteries: Batteries, face: F) -> None:
        self.batteries = batteries
        self.face = face
        self.plant = face.plant
        self.connection = Connection(url="")
        self.port = 0

    async def __aenter__(self) -> Self:
        self.connection = await self.face.start()
        self.port = urlsplit(self.connection.url).port or 0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.face.stop()

    def go(self, s: float, *, dt_s: float = 1.0) -> None:
        """Let `s` simulated seconds pass."""
        for _ in range(round(s / dt_s)):
            self.face.step(dt_s)
            self.batteries.step(dt_s)


class Peer:
    """pysunspec2 on one unit, over one connection; its blocking calls run in a thread."""

    def __init__(self, device: Any) -> None:
        self.device = device

    @classmethod
    async def scan(cls, bench: Bench[Any], unit: int, *, timeout_s: float = 5) -> Self:
        device = SunSpecModbusClientDeviceTCP(slave_id=unit, ipaddr="127.0.0.1", ipport=bench.port, timeout=timeout_s)
        await asyncio.to_thread(cls._scan, device)
        return cls(device)

    @staticmethod
    def _scan(device: Any) -> None:
        """Over one connection that is closed at once: every later call opens its own."""
        device.connect()
        try:
            device.scan(connect=False)
        finally:
            device.disconnect()

    async def read(self, *models: int) -> None:
        for number in models:
            for model in self.device.models[number]:
                await asyncio.to_thread(model.read)

    def value(self, model: int, point: str, *, at: int = 0) -> float:
        """The physical value; NaN where it is not implemented."""
        value = self.device.models[model][at].points[point].cvalue
        return float("nan") if value is None else float(value)

    def counter(self, model: int, point: str) -> float:
        """An accumulator, of which the standard takes 0 for "not implemented"."""
        return float(self.device.models[model][0].points[point].cvalue or 0)

    def text(self, model: int, point: str, *, at: int = 0) -> str:
        return str(self.device.models[model][at].points[point].value)

    async def write(self, model: int, **points: float) -> None:
        """Set physical values and write what changed, in the model's order; neighbours go in one request."""
        target = self.device.models[model][0]
        for name, value in points.items():
            point = target.points[name]
            if point.pdef.get("sf"):
                point.cvalue = value
            else:
                point.value = int(value)
        await asyncio.to_thread(target.write)

    async def refused(self, model: int, **points: float) -> int:
        """The exception code a write is answered with; 0 = it was taken."""
        try:
            await self.write(model, **points)
        except ModbusClientException as refused:
            found = re.search(r"exception:? (\d+)", str(refused))
            return int(found.group(1)) if found else -1
        return 0
