"""A GoodWe ET hybrid inverter with battery, over Modbus TCP (unit 247, holding registers, big-endian).

Sources: marcelblijleven/goodwe `goodwe/et.py`, `inverter.py` (registers, EMS modes, battery limit); evcc-io/evcc
`templates/definition/meter/goodwe-hybrid.yaml` (EMS sequences, power 0 to 10000 W, unused PV strings all ones);
OpenEMS/openems `io.openems.edge.goodwe` (register 45356 by its name BMS_SOC_UNDER_MIN). Client code by third parties.

There is no watchdog: an EMS mode stays until someone writes another. What is not known is the more dangerous choice
here: EMS mode and power survive a reboot, EMS modes discharge below the minimum SoC whatever the protection switch
says (`guards_min_soc` = True keeps it). Register 45356 is the minimum SoC, as the library computes it (100 less depth
of discharge). Not simulated: that some EMS modes throttle PV, EMS mode 7 (off-grid), eco and peak-shaving schedules,
the UDP framing. Written by no source: refusals of unknown addresses and of values out of range.
"""

from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots, thirds, whole_items

AUTO, CHARGE_PV, DISCHARGE_PV, IMPORT_AC, EXPORT_AC, CONSERVE = 1, 2, 3, 4, 5, 6
OFF_GRID, STANDBY, BUY, SELL, CHARGE, DISCHARGE = 7, 8, 9, 10, 11, 12
MIN_SOC, MIN_SOC_OFFLINE, WORK_MODE, SOC_PROTECTION = 45356, 45358, 47000, 47500
EXPORT_LIMITED, EXPORT_LIMIT, EMS_MODE, EMS_POWER, CLEAR = 47509, 47510, 47511, 47512, 47533
BACKUP = 2
PACK_V, PV_V = 384.0, 400.0
EMS_POWER_MAX = 10_000
IDLE_W = 20.0
SKEW_PCT = 5.0


class GoodweEt:
    """The product; its minimum SoC is the plant's reserve. `second_part`: a second battery's part of the power, whose
    SoC is `SKEW_PCT` below the home's as the first one's is above; 0 = there is none."""

    profile: ClassVar[str] = "goodwe-et"

    def __init__(self, plant: Plant, *, unit: int = 247, guards_min_soc: bool = False) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.second_part = 0.0
        self.late_s = 0.0
        self.model = f"GW{plant.discharge_w_max / 1000:.0f}K-ET"
        self.serial = f"9{plant.discharge_w_max / 100:04.0f}ETU{plant.index:08d}"
        self._unit = unit
        self._guards_min_soc = guards_min_soc
        self._ranges = {
            MIN_SOC: range(101),
            MIN_SOC_OFFLINE: range(101),
            WORK_MODE: range(6),
            SOC_PROTECTION: range(2),
            EXPORT_LIMITED: range(2),
            EXPORT_LIMIT: range(0x10000),
            EMS_MODE: range(AUTO, DISCHARGE + 1),
            EMS_POWER: range(max(EMS_POWER_MAX, round(plant.discharge_w_max), round(plant.charge_w_max)) + 1),
            CLEAR: range(0x10000),
        }
        self._stored = dict.fromkeys(self._ranges, 0) | {
            MIN_SOC: round(plant.reserve_pct),
            MIN_SOC_OFFLINE: 10,
            SOC_PROTECTION: 1,
            EXPORT_LIMIT: 10_000,
            EMS_MODE: AUTO,
        }
        self.server = ModbusServer(self, quiet_units=())
        self._reboots = Reboots(self.reboot)
        self.server.after_write = self._reboots.wrote

    # the face

    async def start(self, *, port: int = 0) -> Connection:
        port = await self.server.start(port=port)
        return Connection(
            url=f"modbus://127.0.0.1:{port}", units={"inverter": self._unit}, parameters={"serial": self.serial}
        )

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        self._steer()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        """Everything is stored, EMS mode and power too."""
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        names = {
            "minimum_soc": MIN_SOC,
            "minimum_soc_offline": MIN_SOC_OFFLINE,
            "work_mode": WORK_MODE,
            "soc_protection": SOC_PROTECTION,
            "export_limited": EXPORT_LIMITED,
            "export_limit": EXPORT_LIMIT,
            "ems_mode": EMS_MODE,
        }
        return {name: float(self._stored[at]) for name, at in names.items()}

    def overwrite(self) -> None:
        self._stored |= {EMS_MODE: AUTO, EMS_POWER: 0}

    @property
    def controlled(self) -> bool:
        return self._stored[EMS_MODE] != AUTO

    # steering

    def _steer(self) -> None:
        plant, stored = self.plant, self._stored
        plant.reserve_pct = float(stored[MIN_SOC])
        if not self.controlled:
            if stored[WORK_MODE] == BACKUP:
                plant.serve_backup()
            else:
                plant.serve_home()
            return
        wanted_w = self._ems_w()
        if stored[EXPORT_LIMITED]:
            wanted_w = min(wanted_w, max(plant.home_w() + stored[EXPORT_LIMIT], 0.0))
        if self._guards_min_soc and plant.soc_pct <= stored[MIN_SOC]:
            wanted_w = min(wanted_w, 0.0)
        plant.follow(min(max(wanted_w, -plant.charge_w_max), plant.discharge_w_max))

    def _ems_w(self) -> float:
        """Battery power by the EMS mode, each with its own point of control; + = discharge."""
        plant, x_w = self.plant, float(self._stored[EMS_POWER])
        match self._stored[EMS_MODE]:
            case mode if mode in (CHARGE_PV, IMPORT_AC):
                return -(plant.pv_w + x_w)
            case mode if mode in (DISCHARGE_PV, DISCHARGE):
                return x_w
            case mode if mode == CHARGE:
                return -x_w
            case mode if mode == EXPORT_AC:
                return max(x_w - plant.pv_w, 0.0)
            case mode if mode == CONSERVE:
                return -plant.pv_w
            case mode if mode == BUY:
                return plant.home_w() - x_w
            case mode if mode == SELL:
                return plant.home_w() + x_w
        return 0.0

    # registers

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        self._check_unit(unit)
        if function != 3:
            raise ModbusRefused(Refusal.ILLEGAL_FUNCTION)
        return self._image().block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        self._check_unit(unit)
        wanted = whole_items(address, values, dict.fromkeys(self._ranges, 1))
        if any(value not in self._ranges[at] for at, value in wanted.items()) or wanted.get(EMS_MODE) == OFF_GRID:
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)
        self._stored |= wanted
        self.plant.reserve_pct = float(self._stored[MIN_SOC])

    def _check_unit(self, unit: int) -> None:
        if unit != self._unit:
            raise ModbusRefused(Refusal.NO_TARGET)

    def _image(self) -> Registers:
        image = Registers()
        for at in (*range(35000, 35033), *range(35100, 35225), *range(36000, 36045), *range(37000, 37024)):
            image.u16(at, 0)
        self._identity(image)
        self._sun_and_grid(image)
        self._battery(image)
        self._energies(image)
        self._meter(image)
        for at, value in self._stored.items():
            if at != CLEAR:
                image.u16(at, value)
        return image

    def _identity(self, image: Registers) -> None:
        plant = self.plant
        image.u16(35001, plant.discharge_w_max)
        image.u16(35002, 1)
        image.text(35003, self.serial, 8)
        image.text(35011, self.model.ljust(10), 5)
        for at, version in ((35016, 10), (35017, 10), (35018, 220), (35019, 22), (35020, 290)):
            image.u16(at, version)
        image.text(35021, "04029-10-S11", 6)
        image.text(35027, "02041-22-S00", 6)

    def _sun_and_grid(self, image: Registers) -> None:
        plant = self.plant
        image.words |= {35100: 26 << 8 | 1, 35101: 1 << 8 | int(plant.batteries.time_s / 3600 % 24), 35102: 0}
        first_w = round(plant.pv_w) // 2
        for at, string_w in ((35103, first_w), (35107, round(plant.pv_w) - first_w)):
            image.u16(at, PV_V * 10 if string_w else 0)
            image.u16(at + 1, string_w / PV_V * 10)
            image.u32(at + 2, string_w)
        for at in range(35111, 35119):
            image.u16(at, 0xFFFF)  # strings 3 and 4 do not exist
        inverter_w = plant.pv_w + plant.battery_w
        for i in range(3):
            image.u16(35121 + 5 * i, 2300)
            image.u16(35122 + 5 * i, abs(thirds(inverter_w)[i]) / 230 * 10)
            image.u16(35123 + 5 * i, 5000)
            image.i32(35124 + 5 * i, thirds(inverter_w)[i])
            image.i32(35163 + 2 * i, thirds(plant.load_w)[i])
        image.u16(35136, 0 if plant.islanded else 1)
        image.i32(35137, inverter_w)
        image.i32(35139, -plant.grid_w)
        image.i32(35171, plant.load_w)
        image.i16(35174, (plant.temp_c + 15) * 10)
        image.i16(35175, (plant.temp_c + 12) * 10)
        image.i16(35176, (plant.temp_c + 10) * 10)
        image.u16(35178, 6200)
        image.u16(35187, 2 if plant.islanded else 1)

    def _second_battery(self, image: Registers, power_w: float, soc_pct: float) -> None:
        for at in (*range(35262, 35268), *range(39000, 39022)):
            image.u16(at, 0)
        image.u16(35262, PACK_V * 10)
        image.i16(35263, power_w / PACK_V * 10)
        image.i32(35264, power_w)
        image.u16(39000, 1)
        image.i16(39001, self.plant.temp_c * 10)
        image.u16(39005, soc_pct)

    def _battery(self, image: Registers) -> None:
        plant = self.plant
        power_w = plant.battery_w * (1 - self.second_part)
        soc_pct = plant.soc_pct
        if self.second_part:
            skew_pct = min(SKEW_PCT, soc_pct, 100 - soc_pct)
            self._second_battery(image, plant.battery_w * self.second_part, soc_pct - skew_pct)
            soc_pct += skew_pct
        image.u16(35180, PACK_V * 10)
        image.i16(35181, power_w / PACK_V * 10)
        image.i32(35182, power_w)
        image.u16(35184, 1 if abs(power_w) < IDLE_W else 2 if power_w > 0 else 3)
        image.u16(37000, 255)
        image.u16(37002, 1)
        image.i16(37003, plant.temp_c * 10)
        image.u16(37004, plant.charge_limit_w / PACK_V)
        image.u16(37005, plant.discharge_limit_w / PACK_V)
        image.u16(37007, soc_pct)
        image.u16(37008, 98)
        image.u16(37009, 5)
        image.i16(37020, (plant.temp_c + 1) * 10)
        image.i16(37021, (plant.temp_c - 1) * 10)
        image.u16(37022, 3330)
        image.u16(37023, 3310)
        image.u16(45350, plant.capacity_wh / PACK_V)
        image.u16(45351, 5)
        image.u16(45353, plant.charge_w_max / PACK_V * 10)
        image.u16(45355, plant.discharge_w_max / PACK_V * 10)

    def _energies(self, image: Registers) -> None:
        plant = self.plant
        load_wh = plant.imported_wh + plant.pv_wh + plant.discharged_wh - plant.exported_wh - plant.charged_wh
        image.u32(35191, plant.pv_wh / 100)
        image.u32(35195, plant.exported_wh / 100)
        image.u32(35200, plant.imported_wh / 100)
        image.u32(35203, load_wh / 100)
        image.u32(35206, plant.charged_wh / 100)
        image.u32(35209, plant.discharged_wh / 100)

    def _meter(self, image: Registers) -> None:
        plant = self.plant
        image.u16(36000, 1)
        image.u16(36003, 1)
        image.u16(36004, 1)
        image.u16(36014, 5000)
        for i, phase_w in enumerate(thirds(-plant.grid_w)):
            image.i16(36005 + i, phase_w)
            image.i32(36019 + 2 * i, phase_w)
        image.i16(36008, -plant.grid_w)
        image.f32(36015, plant.exported_wh)
        image.f32(36017, plant.imported_wh)
        image.i32(36025, -plant.grid_w)
        image.u16(36043, 2)
