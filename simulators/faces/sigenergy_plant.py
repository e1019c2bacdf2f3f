"""A Sigenergy SigenStor plant over Modbus TCP: plant unit 247, one inverter, broadcast unit 0 (big-endian).

Sources: Sigenergy Modbus Protocol EN V2.9 (2026-05-13; input registers function 4, holding function 3, 6 and 16,
40000 write-only by function 6, one request a second, limits 40032/40034 in force in every mode, no time-out named);
register table of TypQxQ/Sigenergy-Local-Modbus for identity and neighbours of the inverter; 30282 and 30284, the load,
as the client `sigenergy2mqtt` 2026.10.10 reads them, which was not written by us and is run against this face.

What the protocol leaves open is the more dangerous choice here: nothing ends a remote mode, remote enable and every
other holding register survive a reboot, 40001 is taken at any time and acts as soon as its mode is in force, remote
discharge goes on below the cut-off and the backup SoC. In its own modes the higher of these two is the reserve.
"""

from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots, Spacing, signed, thirds, whole_items

START_STOP, TARGET, TARGET_PCT, ENABLE, MODE = 40000, 40001, 40005, 40029, 40031
MAX_CHARGE, MAX_DISCHARGE, PV_LIMIT = 40032, 40034, 40036
GRID_EXPORT, GRID_IMPORT, PCS_EXPORT, PCS_IMPORT = 40038, 40040, 40042, 40044
BACKUP_SOC, CUTOFF_CHARGE, CUTOFF_DISCHARGE, RAMP = 40046, 40047, 40048, 40049
PCS, STANDBY, SELF, CHARGE_GRID, CHARGE_PV, DISCHARGE_PV, DISCHARGE_ESS, V2G = 0, 1, 2, 3, 4, 5, 6, 8
REMOTE_EMS = 7
NO_LIMIT = 0xFFFFFFFF
POWER_LIMITS = (MAX_CHARGE, MAX_DISCHARGE, PV_LIMIT, GRID_EXPORT, GRID_IMPORT, PCS_EXPORT, PCS_IMPORT)
SOCS = (BACKUP_SOC, CUTOFF_CHARGE, CUTOFF_DISCHARGE)
SIZES = dict.fromkeys((START_STOP, TARGET_PCT, ENABLE, MODE, *SOCS), 1) | dict.fromkeys(
    (TARGET, RAMP, *POWER_LIMITS), 2
)


class SigenergyPlant:
    """The product. `ems_mode` is the owner's mode (0 self, 1 AI, 2 time of use, 5 full feed-in)."""

    profile: ClassVar[str] = "sigenergy-plant"

    def __init__(
        self, plant: Plant, *, unit: int = 247, inverter: int = 1, spacing_s: float = 1.0, guards_cutoff: bool = False
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.ems_mode = 0
        self.serial = f"110A{plant.index:08d}"
        self._unit = unit
        self._inverter = inverter
        self._guards_cutoff = guards_cutoff
        self._percent_counts = False
        self._stored = dict.fromkeys(SIZES, 0) | dict.fromkeys(POWER_LIMITS, NO_LIMIT)
        self._stored |= {
            START_STOP: 1,
            MAX_CHARGE: round(plant.charge_w_max),
            MAX_DISCHARGE: round(plant.discharge_w_max),
            BACKUP_SOC: round(plant.reserve_pct * 10),
            CUTOFF_CHARGE: 1000,
            CUTOFF_DISCHARGE: 50,
        }
        self._spacing = Spacing(spacing_s)
        self.server = ModbusServer(self, quiet_units=(0,))
        self._reboots = Reboots(self.reboot)
        self.server.after_write = self._reboots.wrote

    # the face

    async def start(self, *, port: int = 0) -> Connection:
        port = await self.server.start(port=port)
        return Connection(
            url=f"modbus://127.0.0.1:{port}",
            units={"plant": self._unit, "inverter": self._inverter},
            parameters={"serial": self.serial},
        )

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        self._steer()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        """Everything is stored, remote enable too."""
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        stored = {str(item): float(self._stored[item]) for item in (*POWER_LIMITS, *SOCS)}
        return stored | {"ems_mode": self.ems_mode}

    def overwrite(self) -> None:
        self._stored[ENABLE] = 0
        self.ems_mode = 0

    @property
    def controlled(self) -> bool:
        return self._stored[ENABLE] == 1

    @property
    def spacing_violations(self) -> int:
        return self._spacing.violations

    # steering

    @property
    def _floor_pct(self) -> float:
        return max(self._stored[BACKUP_SOC], self._stored[CUTOFF_DISCHARGE]) / 10

    @property
    def target_w(self) -> float:
        """The PCS target as written last, in W or in percent, + = out of the inverter."""
        if self._percent_counts:
            return signed(self._stored[TARGET_PCT], 1) / 10_000 * self.plant.discharge_w_max
        return float(signed(self._stored[TARGET], 2))

    def _wanted_w(self) -> float:
        plant, mode = self.plant, self._stored[MODE]
        if mode == PCS:
            return self.target_w - plant.pv_w
        if mode in (CHARGE_GRID, CHARGE_PV):
            return -plant.charge_w_max
        if mode == DISCHARGE_ESS:
            return plant.discharge_w_max
        if mode == DISCHARGE_PV:
            return max(0.0, min(float(self._stored[MAX_DISCHARGE]), plant.discharge_w_max) - plant.pv_w)
        return plant.home_w() if mode == SELF else 0.0

    def _steer(self) -> None:
        plant, stored = self.plant, self._stored
        plant.reserve_pct = self._floor_pct
        own = not self.controlled or stored[MODE] == SELF
        wanted_w = plant.home_w() if own else self._wanted_w()
        if not stored[START_STOP]:
            wanted_w = 0.0
        if (own or self._guards_cutoff) and plant.soc_pct <= self._floor_pct:
            wanted_w = min(wanted_w, 0.0)
        if own and plant.soc_pct >= stored[CUTOFF_CHARGE] / 10:
            wanted_w = max(wanted_w, 0.0)
        home_w, pv_w = plant.home_w(), plant.pv_w
        most_w = min(stored[MAX_DISCHARGE], stored[PCS_EXPORT] - pv_w, stored[GRID_EXPORT] + home_w)
        least_w = max(-stored[MAX_CHARGE], -stored[PCS_IMPORT] - pv_w, home_w - stored[GRID_IMPORT])
        plant.follow(min(max(wanted_w, least_w), most_w))

    # registers

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        self._spacing.note()
        if function == 4 and unit == self._unit:
            return self._plant_image().block(address, count)
        if function == 4 and unit == self._inverter:
            return self._inverter_image().block(address, count)
        if function == 3 and unit == self._unit:
            return self._holding_image().block(address, count)
        raise ModbusRefused(Refusal.ILLEGAL_ADDRESS if unit == self._inverter else Refusal.NO_TARGET)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        self._spacing.note()
        if unit not in (0, self._unit):
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS if unit == self._inverter else Refusal.NO_TARGET)
        wanted = whole_items(address, values, SIZES)
        if START_STOP in wanted and function != 6:
            raise ModbusRefused(Refusal.ILLEGAL_FUNCTION)
        if not all(self._fits(item, value) for item, value in wanted.items()):
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)
        self._stored |= wanted
        if wanted.keys() & {TARGET, TARGET_PCT}:
            self._percent_counts = TARGET_PCT in wanted
        self.plant.reserve_pct = self._floor_pct

    def _fits(self, item: int, value: int) -> bool:
        if item in (START_STOP, ENABLE):
            return value in (0, 1)
        if item == MODE:
            return value <= DISCHARGE_ESS or value == V2G
        if item in SOCS:
            return value <= 1000
        if item == TARGET_PCT:
            return abs(signed(value, 1)) <= 10_000
        return True

    def _holding_image(self) -> Registers:
        image = Registers()
        for item, value in self._stored.items():
            if item != START_STOP:
                image.u32(item, value) if SIZES[item] == 2 else image.u16(item, value)
        return image

    def _plant_image(self) -> Registers:
        plant = self.plant
        image = Registers()
        for at in (*range(30000, 30098), *range(30200, 30224), *range(30280, 30288)):
            image.u16(at, 0)
        image.u16(30003, REMOTE_EMS if self.controlled else self.ems_mode)
        image.u16(30004, 1)
        image.i32(30005, plant.grid_w)
        image.u16(30009, 1 if plant.islanded else 0)
        image.u32(30010, plant.discharge_w_max)
        image.u16(30014, plant.soc_pct * 10)
        for i in range(3):
            image.i32(30015 + 2 * i, thirds(plant.pv_w + plant.battery_w)[i])
            image.i32(30052 + 2 * i, thirds(plant.grid_w)[i])
        image.i32(30031, plant.pv_w + plant.battery_w)
        image.i32(30035, plant.pv_w)
        image.i32(30037, -plant.battery_w)
        image.u32(30047, min(plant.charge_limit_w, self._stored[MAX_CHARGE]))
        image.u32(30049, min(plant.discharge_limit_w, self._stored[MAX_DISCHARGE]))
        image.u16(30051, 1 if self._stored[START_STOP] else 3)
        ceiling_pct = self._stored[CUTOFF_CHARGE] / 10
        image.u32(30064, max(0.0, ceiling_pct - plant.soc_pct) * plant.capacity_wh / 1000)
        image.u32(30066, max(0.0, plant.soc_pct - self._floor_pct) * plant.capacity_wh / 1000)
        image.u32(30068, plant.charge_w_max)
        image.u32(30070, plant.discharge_w_max)
        image.u32(30083, plant.capacity_wh / 10)
        image.u16(30085, self._stored[CUTOFF_CHARGE])
        image.u16(30086, self._stored[CUTOFF_DISCHARGE])
        image.u16(30087, 1000)
        load_wh = plant.imported_wh + plant.pv_wh + plant.discharged_wh - plant.exported_wh - plant.charged_wh
        image.u64(30088, plant.pv_wh / 10)
        image.u64(30094, load_wh / 10)
        image.u64(30200, plant.charged_wh / 10)
        image.u64(30204, plant.discharged_wh / 10)
        image.u64(30216, plant.imported_wh / 10)
        image.u64(30220, plant.exported_wh / 10)
        image.i32(30282, plant.load_w)
        image.i32(30284, plant.load_w)
        image.i16(30286, plant.temp_c * 10)
        return image

    def _inverter_image(self) -> Registers:
        plant = self.plant
        image = Registers()
        for at in (*range(30540, 30612), *range(31000, 31040)):
            image.u16(at, 0)
        image.text(30500, f"SigenStor EC {plant.discharge_w_max / 1000:.1f} TP", 15)
        image.text(30515, self.serial, 10)
        image.text(30525, "V100R001C00SPC112", 15)
        for at in (30540, 30542, 30544, 30552):
            image.u32(at, plant.discharge_w_max)
        for at in (30546, 30550):
            image.u32(at, plant.charge_w_max)
        image.u32(30548, plant.capacity_wh / 10)
        image.u64(30568, plant.charged_wh / 10)
        image.u64(30574, plant.discharged_wh / 10)
        image.u16(30578, 1 if self._stored[START_STOP] else 3)
        image.i32(30587, plant.pv_w + plant.battery_w)
        image.i32(30599, -plant.battery_w)
        image.u16(30601, plant.soc_pct * 10)
        image.u16(30602, 1000)
        image.i16(30603, plant.temp_c * 10)
        image.i32(31035, plant.pv_w)
        return image
