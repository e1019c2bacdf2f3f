"""The two products, on one battery of the simulation each."""

from abc import ABC, abstractmethod
from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots


class RegisterFace(ABC):
    """What both have: registers, of which some may be written, and control that ends after a fixed time."""

    profile: ClassVar[str]
    ends_after_s: ClassVar[float]
    writable: ClassVar[frozenset[int]]
    renews: ClassVar[frozenset[int]]

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.registers = Registers()
        self._reboots = Reboots(self.reboot)
        self.server = ModbusServer(self)
        self.server.after_write = self._reboots.wrote
        self._left_s = 0.0
        self.overwrite()

    async def start(self, *, port: int = 0) -> Connection:
        return Connection(url=f"modbus://127.0.0.1:{await self.server.start(port=port)}")

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        self._left_s -= dt_s
        if self.controlled and self._left_s <= 0:
            self.overwrite()
        if self.controlled:
            self.plant.follow(self.wanted_w())
        else:
            self.plant.serve_home()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        self.overwrite()
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        return {}

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        places = range(address, address + len(values))
        if not self.writable.issuperset(places):
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        self.registers.words.update(zip(places, values, strict=True))
        if not self.renews.isdisjoint(places):
            self._left_s = self.ends_after_s

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        self.show()
        return self.registers.block(address, count)

    @abstractmethod
    def overwrite(self) -> None:
        """Back to its own mode."""

    @abstractmethod
    def show(self) -> None:
        """Put what the battery does into the registers."""

    @abstractmethod
    def wanted_w(self) -> float:
        """The setpoint in force, + = discharge."""

    @property
    @abstractmethod
    def controlled(self) -> bool:
        """Whether somebody outside steers it."""


class SolisHybrid(RegisterFace):
    """Remote control by 43135 (1 charge with 43136, 2 discharge with 43129, in 10 W), for 5 min."""

    profile = "solis-hybrid"
    ends_after_s = 300.0
    writable = frozenset((43129, 43135, 43136))
    renews = writable

    def overwrite(self) -> None:
        for address in self.writable:
            self.registers.u16(address, 0)

    @property
    def controlled(self) -> bool:
        return self.registers.get_u16(43135) in (1, 2)

    def wanted_w(self) -> float:
        charging = self.registers.get_u16(43135) == 1
        return -10.0 * self.registers.get_u16(43136) if charging else 10.0 * self.registers.get_u16(43129)

    def show(self) -> None:
        plant, registers = self.plant, self.registers
        registers.u16(34502, 0xAA55)
        registers.u16(34503, 3)
        registers.u32(33057, plant.pv_w)
        registers.u16(33135, 1 if plant.battery_w > 0 else 0)
        registers.u16(33139, plant.soc_pct)
        registers.i32(33149, abs(plant.battery_w))
        registers.i32(33263, -plant.grid_w)
        registers.u32(33161, plant.charged_wh // 1000)
        registers.u32(33165, plant.discharged_wh // 1000)


class MarstekVenus(RegisterFace):
    """Enabled by 42000, which must be repeated within 90 to 120 s; the second generation's registers."""

    profile = "marstek-venus"
    ends_after_s = 100.0
    writable = frozenset((42000, 42010, 42020, 42021))
    renews = frozenset((42000,))

    def overwrite(self) -> None:
        self.registers.u16(42000, 21947)
        self.registers.u16(43000, 1)
        for address in (42010, 42020, 42021):
            self.registers.u16(address, 0)

    @property
    def controlled(self) -> bool:
        return self.registers.get_u16(42000) == 21930

    def wanted_w(self) -> float:
        direction = self.registers.get_u16(42010)
        return {1: -float(self.registers.get_u16(42020)), 2: float(self.registers.get_u16(42021))}.get(direction, 0.0)

    def show(self) -> None:
        self.registers.u16(32104, self.plant.soc_pct)
        self.registers.i32(32202, self.plant.battery_w)


class MarstekVenus3(MarstekVenus):
    """The third generation has SoC and power elsewhere, in other steps and widths."""

    def show(self) -> None:
        self.registers.u16(34002, 10 * self.plant.soc_pct)
        self.registers.i16(30006, self.plant.battery_w)
