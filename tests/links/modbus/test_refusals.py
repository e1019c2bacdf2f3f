"""A device that refuses a value, told from one that is busy, by what its profile says of exception codes."""

from typing import Any

import pytest

from gateway.domain.errors import PeerBusy, PeerRefused
from simulators.faces.modbus import ModbusRefused, Refusal
from tests.scenes.modbus_rig import Bench, Device, Served, image, target, writes

SHARED: dict[str, Any] = {"busy_codes": [4, 5, 6], "refusal_codes": [4], "busy_retries": 3}
WRITE_MODE, READ_MODE = (1, 6, 112, 1), (1, 3, 112, 1)


class Choosy(Device):
    """Answers exception 4 to every mode above 2; `contended`: so many more requests, reads too."""

    def __init__(self) -> None:
        super().__init__(image())
        self.contended = 0

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        self._contend()
        return super().read(unit, function, address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        self._contend()
        if values[0] > 2:
            raise ModbusRefused(Refusal.DEVICE_FAILURE)
        super().write(unit, function, address, values)

    def _contend(self) -> None:
        if self.contended:
            self.contended -= 1
            raise ModbusRefused(Refusal.DEVICE_FAILURE)


async def test_value_that_is_refused_with_a_busy_code_is_refused_at_the_first_answer() -> None:
    async with Bench() as bench, Served(Choosy()) as served:
        link = await bench.open(target(served.port, **SHARED))
        with pytest.raises(PeerRefused, match="exception 4 "):
            await link.write(writes(mode=(3,)))
        assert served.server.requests == [WRITE_MODE, READ_MODE]
        assert bench.stats.busy == 0


async def test_busy_device_that_answers_a_write_with_a_refusal_code_is_asked_again() -> None:
    device = Choosy()
    async with Bench() as bench, Served(device) as served:
        link = await bench.open(target(served.port, **SHARED))
        device.contended = 4
        await link.write(writes(mode=(2,)))
        assert device.images[1][112] == 2
        assert served.server.requests == [WRITE_MODE, READ_MODE] * 2 + [WRITE_MODE]
        assert bench.stats.busy == 2


async def test_device_that_stays_busy_has_not_refused() -> None:
    device = Choosy()
    async with Bench() as bench, Served(device) as served:
        link = await bench.open(target(served.port, **SHARED))
        device.contended = 100
        with pytest.raises(PeerBusy):
            await link.write(writes(mode=(2,)))


async def test_read_that_is_answered_with_a_refusal_code_is_asked_again() -> None:
    device = Choosy()
    async with Bench() as bench, Served(device) as served:
        link = await bench.open(target(served.port, **SHARED))
        device.contended = 1
        assert await link.read(["soc"]) == {"soc": (101,)}
        assert bench.stats.busy == 1


async def test_register_that_can_only_be_written_tells_a_refusal_too() -> None:
    mode = {"register": 112, "type": "u16", "access": "w", "storage": "volatile", "poll": "never"}
    device = Choosy()
    del device.images[1][112]
    async with Bench() as bench, Served(device) as served:
        link = await bench.open(target(served.port, {"mode": mode}, **SHARED))
        with pytest.raises(PeerRefused, match="exception 4 "):
            await link.write(writes(mode=(3,)))
        assert bench.stats.busy == 0
