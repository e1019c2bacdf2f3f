"""An SMA Sunny Boy Storage on unit 3, steered by a group of six write-only registers.

Big-endian, 32-bit values. 30775 AC power + = discharge; battery and meter come as two magnitudes each.
The group (40236 mode, 40793 to 40799 limits, 40801 grid exchange) takes effect when all six have been written within
60 s of each other, also with unchanged values; 60 s after the last complete group it ends. Then the battery serves the
home, or keeps the last group where the installer left 41193 at "keep". All of it is RAM and lost in a reboot. 2289
charges between its minimum and maximum, 2290 discharges so, 2424 steers the meter to 40801 within the maxima. The
firmware does not protect its reserve in 2290. Parameters (40187, 41193 to 41198) are flash: `flash_writes` counts.
Unit 1 answers 42109 (serial u32, SUSy id u16, unit id u16) so that a client finds the unit.
Source: SMA "Modbus interface" technical information 1.5 and TI-28 register workbook; evcc-io/evcc templates
sma-sbs-modbus, commit b29b49e30. 31391 is the battery's health, as the client sma-modbus 2.1.3 lists it.
Unverified: when exactly a group ends, what 41193 does to it, values of 30955.
"""

import math
import struct
from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots

DISCOVERY_UNIT = 1
DISCOVERY = 42_109
SUSY_ID = 346
CLASS_BATTERY_INVERTER = 8007
TYPE_SBS_5_0 = 9358
NAN_S32, NAN_U32, NAN_ENUM = -0x80000000, 0xFFFFFFFF, 0x00FFFFFD
OK, FAULT = 307, 35
STANDBY, CHARGING, DISCHARGING = 2291, 2292, 2293

MODE, CHARGE_MIN, CHARGE_MAX, DISCHARGE_MIN, DISCHARGE_MAX, GRID = 40_236, 40_793, 40_795, 40_797, 40_799, 40_801
GROUP = (MODE, CHARGE_MIN, CHARGE_MAX, DISCHARGE_MIN, DISCHARGE_MAX, GRID)
OFF, ON, CHARGE, DISCHARGE, DEFAULT, AUTOMATIC = 303, 308, 2289, 2290, 2424, 1438
MODES = (OFF, ON, CHARGE, DISCHARGE, DEFAULT, AUTOMATIC)

CAPACITY, FALLBACK, FALLBACK_TIME, FALLBACK_PERCENT = 40_187, 41_193, 41_195, 41_197
KEEP, USE_FALLBACK = 2506, 2507
PARAMETERS = (CAPACITY, FALLBACK, FALLBACK_TIME, FALLBACK_PERCENT)


class SmaSbs:
    """Simulated Sunny Boy Storage. `fallback`: KEEP or USE_FALLBACK, as the installer set 41193.

    `asleep`: the DC side sleeps and some values are NaN. `alarms`: other than 0, the product reports a fault.
    """

    profile: ClassVar[str] = "sma-sbs"

    def __init__(
        self,
        plant: Plant,
        *,
        unit: int = 3,
        window_s: float = 60.0,
        fallback: int = USE_FALLBACK,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.asleep = False
        self.alarms = 0
        self.flash_writes = 0
        self.serial = 1_900_000_000 + plant.index
        self._unit = unit
        self._window_s = window_s
        self._staged: dict[int, tuple[int, float]] = {}
        self._group: dict[int, int] | None = None
        self._left_s = math.inf
        self._reboots = Reboots(self.reboot)
        self.server = ModbusServer(self)
        self.server.after_write = self._reboots.wrote
        self.registers = Registers()
        self.discovery = Registers()
        self._parameters = {
            CAPACITY: round(plant.capacity_wh),
            FALLBACK: fallback,
            FALLBACK_TIME: 300,
            FALLBACK_PERCENT: 10_000,
        }
        self.registers.u32(30_051, CLASS_BATTERY_INVERTER)
        self.registers.u32(30_053, TYPE_SBS_5_0)
        self.registers.u32(30_057, self.serial)
        self.registers.u32(30_059, 0x03100F04)
        self.registers.u32(30_233, max(plant.discharge_w_max, plant.charge_w_max))
        self.discovery.u32(DISCOVERY, self.serial)
        self.discovery.u16(DISCOVERY + 2, SUSY_ID)
        self.discovery.u16(DISCOVERY + 3, unit)

    # connection

    async def start(self, *, port: int = 0) -> Connection:
        port = await self.server.start(port=port)
        return Connection(url=f"modbus://127.0.0.1:{port}", units={"inverter": self._unit})

    async def stop(self) -> None:
        await self.server.stop()

    def reboot(self) -> None:
        self._staged.clear()
        self._end()
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    # registers

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        if unit == DISCOVERY_UNIT and unit != self._unit:
            return self.discovery.block(address, count)
        if unit != self._unit:
            raise ModbusRefused(Refusal.NO_TARGET)
        self._measure()
        return self.registers.block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        if unit != self._unit:
            raise ModbusRefused(Refusal.NO_TARGET)
        written = self._decode(address, values)
        for at, value in written.items():
            self._judge(at, value)
        for at, value in written.items():
            if at in PARAMETERS:
                self._parameters[at] = value
                self.flash_writes += 1
            else:
                self._staged[at] = (value, 0.0)
        if len(self._staged) == len(GROUP):
            self._group = {at: value for at, (value, _) in self._staged.items()}
            self._staged.clear()
            self._left_s = self._window_s

    @staticmethod
    def _decode(address: int, words: list[int]) -> dict[int, int]:
        """The whole values a request covers; 40801 is signed."""
        found: dict[int, int] = {}
        for i in range(0, len(words), 2):
            at, pair = address + i, words[i : i + 2]
            if at not in (*GROUP, *PARAMETERS) or len(pair) < 2:
                raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
            found[at] = int(struct.unpack(">i" if at == GRID else ">I", struct.pack(">HH", *pair))[0])
        return found

    def _judge(self, address: int, value: int) -> None:
        plant = self.plant
        if address == MODE:
            fine = value in MODES
        elif address in (CHARGE_MIN, CHARGE_MAX):
            fine = value <= plant.charge_w_max
        elif address in (DISCHARGE_MIN, DISCHARGE_MAX):
            fine = value <= plant.discharge_w_max
        elif address == FALLBACK:
            fine = value in (KEEP, USE_FALLBACK)
        else:
            fine = True
        if not fine:
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)

    def _measure(self) -> None:
        plant, registers = self.plant, self.registers
        battery_w, grid_w, asleep = plant.battery_w, plant.grid_w, self.asleep
        status = STANDBY if abs(battery_w) < 10 else DISCHARGING if battery_w > 0 else CHARGING
        registers.u32(30_201, FAULT if self.alarms else OK)
        registers.i32(30_775, battery_w)
        registers.u32(30_845, plant.soc_pct)
        registers.i32(30_849, NAN_S32 if asleep else plant.temp_c * 10)
        registers.u32(30_851, NAN_U32 if asleep else 400 * 100)
        registers.u32(30_865, grid_w)
        registers.u32(30_867, -grid_w)
        registers.u32(30_955, NAN_ENUM if asleep else status)
        registers.u32(31_391, NAN_ENUM if asleep else FAULT if self.alarms else OK)
        registers.u32(31_393, NAN_U32 if asleep else -battery_w)
        registers.u32(31_395, NAN_U32 if asleep else battery_w)
        registers.u64(31_397, plant.charged_wh)
        registers.u64(31_401, plant.discharged_wh)
        for address, value in self._parameters.items():
            registers.u32(address, value)

    # time

    def step(self, dt_s: float) -> None:
        aged = {at: (value, age_s + dt_s) for at, (value, age_s) in self._staged.items()}
        self._staged = {at: entry for at, entry in aged.items() if entry[1] <= self._window_s}
        self._left_s -= dt_s
        if self._left_s <= 0:
            if self._parameters[FALLBACK] == KEEP:
                self._left_s = math.inf
            else:
                self._end()
        self._steer()
        self.plant.step(dt_s)

    def _end(self) -> None:
        self._group = None
        self._left_s = math.inf

    def _steer(self) -> None:
        if not self.controlled or self._group is None:
            self.plant.serve_home()
        else:
            self.plant.follow(self._target_w(self._group))

    def _target_w(self, group: dict[int, int]) -> float:
        plant, mode = self.plant, group[MODE]
        if mode == OFF:
            return 0.0
        own_w = plant.home_w() - group[GRID]
        if mode == CHARGE:
            return min(max(own_w, -group[CHARGE_MAX]), -group[CHARGE_MIN])
        if mode == DISCHARGE:
            return max(min(own_w, group[DISCHARGE_MAX]), group[DISCHARGE_MIN])
        if plant.soc_pct <= plant.reserve_pct:
            own_w = min(own_w, 0.0)
        return min(max(own_w, -group[CHARGE_MAX]), group[DISCHARGE_MAX])

    # the owner

    def settings(self) -> dict[str, float]:
        return {str(address): float(value) for address, value in self._parameters.items()}

    def overwrite(self) -> None:
        """As the maker's energy manager does with a group of its own."""
        self._staged.clear()
        self._end()

    @property
    def controlled(self) -> bool:
        if self._group is None:
            return False
        released = {
            CHARGE_MIN: 0,
            CHARGE_MAX: round(self.plant.charge_w_max),
            DISCHARGE_MIN: 0,
            DISCHARGE_MAX: round(self.plant.discharge_w_max),
            GRID: 0,
        }
        own = self._group[MODE] in (ON, DEFAULT, AUTOMATIC)
        return not (own and all(self._group[at] == value for at, value in released.items()))
