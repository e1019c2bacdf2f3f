"""What the tests of register faces share: a plant on a bench, time moved by hand, a plain client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from pymodbus.client import AsyncModbusTcpClient

from simulators.battery import Batteries
from simulators.faces.plant import Connection, Face, Plant
from tests.builders.homes import homes

NOON_S = 43_200.0


def make_plant(*, guard: bool = False, time_s: float = 64_800.0, **columns: Any) -> Plant:
    """A battery of 5 kW and 10 kWh at 60 %, reserve 20 %; by day (`time_s` = NOON_S) with PV of `pv_peak_w`."""
    values: dict[str, Any] = {
        "discharge_w_max": 5_000.0,
        "charge_w_max": 5_000.0,
        "capacity_wh": 10_000.0,
        "reserve_pct": 20.0,
        "grid_charge_allowed": True,
        "slew_w_per_s": 5_000.0,
        "response_s": 0.8,
    }
    return Plant(Batteries(homes(1, **(values | columns)), guard=guard, time_s=time_s), 0)


def go(face: Face, s: float, *, dt_s: float = 0.5) -> None:
    """Let `s` simulated seconds pass."""
    for _ in range(round(s / dt_s)):
        face.step(dt_s)
        face.plant.batteries.step(dt_s)


def controlled(face: Face) -> bool:
    """`face.controlled`, read anew where a type checker would take it for constant."""
    return face.controlled


class Peer:
    """A plain Modbus client of one unit; a refusal comes back as minus its exception code."""

    def __init__(self, client: AsyncModbusTcpClient, unit: int) -> None:
        self.client = client
        self.unit = unit

    async def words(self, address: int, count: int = 1, *, fc: int = 3, unit: int | None = None) -> list[int]:
        read = self.client.read_holding_registers if fc == 3 else self.client.read_input_registers
        answer = await read(address, count=count, device_id=self.unit if unit is None else unit)
        return [-answer.exception_code] if answer.isError() else list(answer.registers)

    async def number(self, address: int, kind: str = "u16", *, fc: int = 3, unit: int | None = None) -> int:
        """`kind`: u16, i16, u32, i32 or u64, most significant word first."""
        bits = int(kind[1:])
        words = await self.words(address, bits // 16, fc=fc, unit=unit)
        if words[0] < 0:
            return words[0]
        return int.from_bytes(b"".join(w.to_bytes(2, "big") for w in words), "big", signed=kind[0] == "i")

    async def text(self, address: int, count: int, *, fc: int = 3, unit: int | None = None) -> str:
        words = await self.words(address, count, fc=fc, unit=unit)
        return b"".join(w.to_bytes(2, "big") for w in words).rstrip(b"\0").decode("ascii")

    async def set(self, address: int, value: int, *, unit: int | None = None) -> int:
        """Function 6."""
        device = self.unit if unit is None else unit
        answer = await self.client.write_register(address, value & 0xFFFF, device_id=device)
        return -answer.exception_code if answer.isError() else 0

    async def put(self, address: int, *values: int, unit: int | None = None) -> int:
        """Function 16."""
        words = [value & 0xFFFF for value in values]
        device = self.unit if unit is None else unit
        answer = await self.client.write_registers(address, words, device_id=device)
        return -answer.exception_code if answer.isError() else 0

    async def put32(self, address: int, value: int, *, unit: int | None = None) -> int:
        """A 32-bit value by function 16."""
        return await self.put(address, value >> 16, value, unit=unit)


@asynccontextmanager
async def peer_of(connection: Connection, unit: int, *, timeout_s: float = 2.0) -> AsyncIterator[Peer]:
    """A connected client without retries or reconnects of its own."""
    address = urlsplit(connection.url)
    client = AsyncModbusTcpClient(
        address.hostname or "",
        port=address.port or 0,
        timeout=timeout_s,
        retries=0,
        reconnect_delay=0,
        reconnect_delay_max=0,
    )
    try:
        if not await client.connect():
            raise ConnectionError("the face does not listen")
        yield Peer(client, unit)
    finally:
        client.close()
