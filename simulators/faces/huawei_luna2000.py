"""A Huawei SUN2000 hybrid inverter with a LUNA2000 battery, over Modbus TCP (holding registers, big-endian).

Sources: wlcrs/huawei-solar-lib `registers.py`, `bridge.py` (1.5 s rest, 50 ms between requests, 64 registers a read,
gaps of up to 16 joined, busy and permission codes); evcc-io/evcc `templates/definition/meter/huawei-sun2000-*.yaml`
(forced periods, release) and issue 31595 (without a meter 37100 and 37113 read 0). Client code by third parties. Values
out of range are answered with exception 4, and the discharge cut-off ends at 20 %: owners' reports in
wlcrs/huawei_solar#277 and #1175.

What no source says is the more dangerous choice here: a new power counts from the next start command only, a period of
0 minutes never ends, a period ends on the product's own minute, up to one late, a forced command survives a reboot and
its period then begins anew, and forced discharge goes on below the cut-off. Whether a repeated start command restarts
the period is a setting (`repeat_restarts`). Vendor login (function 0x41) is not simulated: `installer_only` refuses
every protected write as a product does to a client that has not logged in.
"""

from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots, Spacing, thirds, whole_items

BLOCK_MAX, GAP_MAX = 64, 16
STOP, CHARGE, DISCHARGE = 0, 1, 2
SELF_CONSUMPTION, FULLY_FED = 2, 4
MAX_CHARGE, MAX_DISCHARGE = 47075, 47077
CUTOFF_CHARGE, CUTOFF_DISCHARGE = 47081, 47082
PERIOD, WORKING_MODE, GRID_CHARGE, GRID_CHARGE_CUTOFF = 47083, 47086, 47087, 47088
FORCED, TARGET_SOC, BACKUP_SOC = 47100, 47101, 47102
STOP_CONDITION, CHARGE_POWER, DISCHARGE_POWER = 47246, 47247, 47249
REMOTE_MODE, GRID_CHARGE_POWER = 47589, 47590
TIME_ZONE, HEARTBEAT = 43006, 49999
U32_ITEMS = frozenset((MAX_CHARGE, MAX_DISCHARGE, CHARGE_POWER, DISCHARGE_POWER, GRID_CHARGE_POWER))
OWNERS = (
    MAX_CHARGE,
    MAX_DISCHARGE,
    CUTOFF_CHARGE,
    CUTOFF_DISCHARGE,
    WORKING_MODE,
    GRID_CHARGE,
    GRID_CHARGE_CUTOFF,
    BACKUP_SOC,
    GRID_CHARGE_POWER,
)
NO_I32 = 0x7FFFFFFF
BUS_V = 450.0


class HuaweiLuna2000:
    """The product. `fc16_only`: storage settings refuse function 6 (seen on some firmware); `export_negative`: the
    exported energy counts downwards from 0; `meter_online` may be changed at any time, and
    `second_part`: a second battery's part of the power; both units are told by themselves, and their sum."""

    profile: ClassVar[str] = "huawei-luna2000"

    def __init__(
        self,
        plant: Plant,
        *,
        unit: int = 1,
        rest_s: float = 1.0,
        spacing_s: float = 0.05,
        clients_max: int = 1,
        fc16_only: bool = True,
        installer_only: bool = False,
        repeat_restarts: bool = True,
        export_negative: bool = True,
        model: str = "SUN2000-5KTL-L1",
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.meter_online = True
        self.second_part = 0.0
        self.model = model
        self.serial = f"HV{plant.index:010d}"
        self._unit = unit
        self._fc16_only = fc16_only
        self._installer_only = installer_only
        self._repeat_restarts = repeat_restarts
        self._export_negative = export_negative
        self._limits = self._ranges()
        self._sizes = {item: 2 if item in U32_ITEMS else 1 for item in self._limits}
        self._stored = dict.fromkeys(self._limits, 0) | {
            MAX_CHARGE: round(plant.charge_w_max),
            MAX_DISCHARGE: round(plant.discharge_w_max),
            CUTOFF_CHARGE: 1000,
            CUTOFF_DISCHARGE: round(plant.reserve_pct * 10),
            WORKING_MODE: SELF_CONSUMPTION,
            GRID_CHARGE_CUTOFF: 1000,
            GRID_CHARGE_POWER: round(plant.charge_w_max),
        }
        self._force_w = 0.0
        self._elapsed_s = 0.0
        self._minute_s = 0.0
        self._running_min = 0
        self._spacing = Spacing(spacing_s)
        self.server = ModbusServer(
            self, clients_max=clients_max, rest_s=rest_s, read_max=BLOCK_MAX, quiet_units=(),
            refusal=Refusal.DEVICE_FAILURE,
        )  # fmt: skip
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
        self._elapsed_s += dt_s
        self._minute_s += dt_s
        if self._minute_s >= 60:
            self._minute_s -= 60
            if self._stored[STOP_CONDITION] == 0 and 0 < self._running_min * 60 <= self._elapsed_s:
                self._end()
        if self._stored[STOP_CONDITION] == 1 and self._target_reached():
            self._end()
        self._steer()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        """Everything is stored, the forced command too; its period begins anew."""
        self._elapsed_s = 0.0
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        return {str(address): float(self._stored[address]) for address in OWNERS}

    def overwrite(self) -> None:
        self._end()
        self._stored[WORKING_MODE] = SELF_CONSUMPTION

    @property
    def controlled(self) -> bool:
        return self._stored[FORCED] != STOP or self._stored[MAX_DISCHARGE] == 0

    @property
    def spacing_violations(self) -> int:
        return self._spacing.violations

    # steering

    def _end(self) -> None:
        self._stored[FORCED] = STOP
        self._force_w = 0.0
        self._running_min = 0

    def _target_reached(self) -> bool:
        target_pct, soc_pct = self._stored[TARGET_SOC] / 10, self.plant.soc_pct
        return soc_pct >= target_pct if self._stored[FORCED] == CHARGE else soc_pct <= target_pct

    def _begin(self, again: bool) -> None:
        kind = self._stored[FORCED]
        power_w = {STOP: 0, CHARGE: -self._stored[CHARGE_POWER], DISCHARGE: self._stored[DISCHARGE_POWER]}[kind]
        self._force_w = float(power_w)
        if kind == STOP:
            self._end()
        elif not again or self._repeat_restarts:
            self._running_min = self._stored[PERIOD]
            self._elapsed_s = 0.0

    def _steer(self) -> None:
        plant, stored = self.plant, self._stored
        plant.reserve_pct = stored[CUTOFF_DISCHARGE] / 10
        charge_w, discharge_w = float(stored[MAX_CHARGE]), float(stored[MAX_DISCHARGE])
        if stored[FORCED] != STOP:
            wanted_w = self._force_w
            grid_charge = stored[GRID_CHARGE] == 1 and plant.soc_pct < stored[GRID_CHARGE_CUTOFF] / 10
            if wanted_w < 0 and not grid_charge:
                wanted_w = max(wanted_w, -plant.pv_w)
        elif stored[WORKING_MODE] == FULLY_FED:
            wanted_w = 0.0
        else:
            wanted_w = plant.home_w()
            if plant.soc_pct <= plant.reserve_pct:
                wanted_w = min(wanted_w, 0.0)
            if plant.soc_pct >= stored[CUTOFF_CHARGE] / 10:
                wanted_w = max(wanted_w, 0.0)
            elif charge_w >= plant.charge_w_max and discharge_w >= plant.discharge_w_max:
                plant.serve_home()
                return
        plant.follow(min(max(wanted_w, -charge_w), discharge_w))

    # registers

    def _ranges(self) -> dict[int, int]:
        """Highest value of each item that may be written."""
        charge_w, discharge_w = round(self.plant.charge_w_max), round(self.plant.discharge_w_max)
        return {
            MAX_CHARGE: charge_w,
            MAX_DISCHARGE: discharge_w,
            CUTOFF_CHARGE: 1000,
            CUTOFF_DISCHARGE: 200,
            PERIOD: 1440,
            WORKING_MODE: 5,
            GRID_CHARGE: 1,
            GRID_CHARGE_CUTOFF: 1000,
            FORCED: 2,
            TARGET_SOC: 1000,
            BACKUP_SOC: 1000,
            STOP_CONDITION: 1,
            CHARGE_POWER: charge_w,
            DISCHARGE_POWER: discharge_w,
            REMOTE_MODE: 4,
            GRID_CHARGE_POWER: charge_w,
            TIME_ZONE: 0xFFFF,
            HEARTBEAT: 0xFFFF,
        }

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        self._spacing.note()
        self._check_unit(unit)
        if function != 3:
            raise ModbusRefused(Refusal.ILLEGAL_FUNCTION)
        words = self._image().words
        gap = GAP_MAX
        for at in range(address, address + count):
            gap = 0 if at in words else gap + 1
            if gap > GAP_MAX:
                raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        return [words.get(at, 0) for at in range(address, address + count)]

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        self._spacing.note()
        self._check_unit(unit)
        if function == 6 and self._fc16_only and address in OWNERS:
            raise ModbusRefused(Refusal.ILLEGAL_FUNCTION)
        wanted = whole_items(address, values, self._sizes)
        if self._installer_only and wanted.keys() != {HEARTBEAT}:
            raise ModbusRefused(Refusal.PERMISSION)
        if any(value > self._limits[item] for item, value in wanted.items()):
            raise ModbusRefused(Refusal.DEVICE_FAILURE)
        before = self._stored[FORCED]
        self._stored |= wanted
        if FORCED in wanted:
            self._begin(again=wanted[FORCED] == before)
        self.plant.reserve_pct = self._stored[CUTOFF_DISCHARGE] / 10

    def _check_unit(self, unit: int) -> None:
        if unit != self._unit:
            raise ModbusRefused(Refusal.NO_TARGET)

    def _image(self) -> Registers:
        image = Registers()
        self._inverter(image)
        self._storage(image)
        self._meter(image)
        for item, value in self._stored.items():
            if item in U32_ITEMS:
                image.u32(item, value)
            elif item != HEARTBEAT:
                image.u16(item, value)
        image.u16(42900, 0)
        image.u16(47000, 2)
        image.u16(47089, 0)
        return image

    def _inverter(self, image: Registers) -> None:
        plant = self.plant
        image.text(30000, self.model, 15)
        image.text(30015, self.serial, 10)
        image.text(30025, "01074311-006", 10)
        image.text(30035, "V200R001C00SPC124", 15)
        image.text(30050, "V200R001C00SPC124", 15)
        image.u32(30068, 0x00030000)
        image.u16(30070, 410)
        image.u16(30071, 2)
        image.u16(30072, 2)
        image.u32(30073, plant.discharge_w_max)
        image.u32(30075, plant.discharge_w_max)
        for at in range(32000, 32011):
            image.u16(at, 0)
        image.u16(32000, 0 if plant.islanded else 0b110)
        for at in (32016, 32018):
            image.i16(at, 3800 if plant.pv_w else 0)
            image.i16(at + 1, plant.pv_w / 2 / 380 * 100)
        image.i32(32064, plant.pv_w)
        image.i32(32080, plant.pv_w + plant.battery_w)
        image.u16(32085, 5000)
        image.i16(32087, (plant.temp_c + 12) * 10)
        image.u16(32089, 0x0203 if plant.islanded else 0x0200)
        image.u16(32090, 0)
        image.u32(32106, plant.pv_wh / 10)
        image.u32(32108, plant.pv_wh / 10)
        image.u16(37200, 0)

    def _storage(self, image: Registers) -> None:
        plant = self.plant
        image.u16(37000, 2)
        second_w = plant.battery_w * self.second_part
        skew_pct = min(5.0, plant.soc_pct, 100 - plant.soc_pct) if self.second_part else 0.0
        image.i32(37001, second_w - plant.battery_w)
        image.u16(37003, BUS_V * 10)
        image.u16(37004, (plant.soc_pct + skew_pct) * 10)
        image.u16(37738, (plant.soc_pct - skew_pct) * 10 if self.second_part else 0)
        image.u16(37741, 2 if self.second_part else 0)
        image.i32(37743, -second_w)
        image.u32(37007, plant.charge_w_max)
        image.u32(37009, plant.discharge_w_max)
        image.u16(37014, 0)
        image.i16(37021, -plant.battery_w / BUS_V * 10)
        image.i16(37022, plant.temp_c * 10)
        image.u32(37046, plant.charge_w_max)
        image.u32(37048, plant.discharge_w_max)
        image.text(37052, f"LN{plant.index:08d}", 10)
        image.u32(37758, plant.capacity_wh)
        image.u16(37760, plant.soc_pct * 10)
        image.u16(37762, 2)
        image.u16(37763, BUS_V * 10)
        image.i16(37764, -plant.battery_w / BUS_V * 10)
        image.i32(37765, -plant.battery_w)
        for charged, discharged in ((37066, 37068), (37780, 37782)):
            image.u32(charged, plant.charged_wh / 10)
            image.u32(discharged, plant.discharged_wh / 10)

    def _meter(self, image: Registers) -> None:
        plant, online = self.plant, self.meter_online
        image.u16(37100, online)
        image.u16(37125, 1)
        image.i32(37113, -plant.grid_w if online else 0)
        image.i32(37119, plant.exported_wh / (-10 if self._export_negative else 10) if online else NO_I32)
        image.i32(37121, plant.imported_wh / 10 if online else NO_I32)
        for i, phase_w in enumerate(thirds(-plant.grid_w)):
            image.i32(37132 + 2 * i, phase_w if online else NO_I32)
