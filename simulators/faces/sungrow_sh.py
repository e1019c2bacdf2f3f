"""A Sungrow SH hybrid inverter with battery, over Modbus TCP: telemetry in input registers, control in holding ones.

32-bit values come least significant word first; the maker's register number is the address here + 1. Sources:
mkaiser/Sungrow-SHx-Inverter-Modbus-Home-Assistant `modbus_sungrow.yaml` and its issues #377 (trace of the heartbeat
counting down to mode 0) and #721 (mode 3 without a heartbeat ends after 20 to 30 s); evcc-io/evcc
`templates/definition/meter/sungrow-hybrid.yaml` (order of writes, sign by the flow bits); bohdan-s/SunGather#153 (mode
3 with command and power); KRoperUK/sungrow-hass#157 (mode 2 stays for ever); TCzerny/ha-modbus-manager#67 (stale
read-back); heartbeat 1 to 1000 s, SoC ranges: the maker's cloud parameters 10017, SoC upper and lower limit.

Not known, and chosen here for the worse: everything but the heartbeat is stored, so mode 2 and its command outlive a
reboot, and mode 3 goes on for `first_s` after it; command and power stay in their registers when mode 3 runs out; modes
2 and 3 work below minimum SoC and backup reserve. Sign of 5600 is not known, + = import here. Values out of
range are answered with exception 4, as a dongle that is busy answers everything: bohdan-s/SunGather#127,
mkaiser/Sungrow-SHx-Inverter-Modbus-Home-Assistant#406. Written by no source: refusals of unknown addresses. Not
simulated: backup mode, PV limits, short answers of old WiNet firmware.
"""

import math
from typing import ClassVar

from simulators.clock import loop_s
from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots, Spacing, thirds, whole_items

SELF_CONSUMPTION, FORCED, EXTERNAL, VPP = 0, 2, 3, 4
CHARGE, DISCHARGE, STOP = 0xAA, 0xBB, 0xCC
ON, OFF = 0xAA, 0x55
EMS_MODE, COMMAND, POWER, MAX_SOC, MIN_SOC = 13049, 13050, 13051, 13057, 13058
EXPORT_LIMIT, BACKUP_MODE, HEARTBEAT, EXPORT_LIMITED, BACKUP_SOC = 13073, 13074, 13079, 13086, 13099
CHARGE_MAX, DISCHARGE_MAX, CHARGE_START, DISCHARGE_START = 33046, 33047, 33148, 33149
NO_I32 = 0x7FFFFFFF
PACK_V = 256.0
SH10RT = 0x0E03
STATES = {SELF_CONSUMPTION: 0x0040, VPP: 0x0040, FORCED: 0x0800, EXTERNAL: 0x4000}
# What is there at set-up follows the questions of the clients `sungrow-sht-modbus` 0.1.0a3 and
# `sungrow-modbus` 0.1.0a17, which were not written by us and are run against this face. Both take 5600 for + = import.
BLOCKS = (
    *(range(4951, 5041), range(5114, 5116), range(5213, 5242), range(5600, 5640)),
    *(range(5719, 5746), range(12999, 13079)),
)
FIXED = {13017: OFF, 13087: 1000, 13088: OFF, 13089: 1000, 31212: OFF}
OLD_HAS_NOT = frozenset((5213, 5214, 5630))


class SungrowSh:
    """The product. `stale_s`: a holding register reads as before for so long after a write (real time); `spacing_s`:
    the dongle's minimum between requests, only counted; `legacy`: firmware before October 2024; `meter`: a directly
    attached meter serves 5600; `timer_scale`: real length of a heartbeat's second."""

    profile: ClassVar[str] = "sungrow-sh"

    def __init__(
        self,
        plant: Plant,
        *,
        unit: int = 1,
        spacing_s: float = 0.02,
        stale_s: float = 0.7,
        read_max: int = 100,
        legacy: bool = False,
        meter: bool = False,
        timer_scale: float = 1.0,
        first_s: float = 30.0,
        guards_min_soc: bool = False,
        device_type: int = SH10RT,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.serial = f"A22{plant.index:08d}"
        self._unit = unit
        self._stale_s = stale_s
        self._legacy = legacy
        self._meter = meter
        self._timer_scale = timer_scale
        self._first_s = first_s
        self._guards_min_soc = guards_min_soc
        self._device_type = device_type
        charge_w, discharge_w = round(plant.charge_w_max), round(plant.discharge_w_max)
        self._allowed: dict[int, range | tuple[int, ...]] = {
            EMS_MODE: (SELF_CONSUMPTION, FORCED, EXTERNAL, VPP),
            COMMAND: (CHARGE, DISCHARGE, STOP),
            POWER: range(max(charge_w, discharge_w) + 1),
            MAX_SOC: range(700, 1001),
            MIN_SOC: range(501),
            EXPORT_LIMIT: range(0x10000),
            BACKUP_MODE: (ON, OFF),
            HEARTBEAT: range(1001),
            EXPORT_LIMITED: (ON, OFF),
            BACKUP_SOC: range(101),
            CHARGE_MAX: range(1, charge_w // 10 + 1),
            DISCHARGE_MAX: range(1, discharge_w // 10 + 1),
            CHARGE_START: range(101),
            DISCHARGE_START: range(101),
        }
        self._stored = dict.fromkeys(self._allowed, 0) | {
            COMMAND: STOP,
            MAX_SOC: 1000,
            MIN_SOC: 50,
            EXPORT_LIMIT: 10_000,
            BACKUP_MODE: OFF,
            EXPORT_LIMITED: OFF,
            BACKUP_SOC: round(plant.reserve_pct),
            CHARGE_MAX: charge_w // 10,
            DISCHARGE_MAX: discharge_w // 10,
        }
        self._left_s = 0.0
        self._stale: dict[int, tuple[int, float]] = {}
        self._spacing = Spacing(spacing_s)
        self.server = ModbusServer(
            self, read_max=read_max, quiet_units=(), refusal=Refusal.DEVICE_FAILURE, busy=Refusal.DEVICE_FAILURE
        )
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
        if self._stored[EMS_MODE] == EXTERNAL:
            self._left_s -= dt_s / self._timer_scale
            if self._left_s <= 0:
                self._left_s = 0.0
                self._stored[EMS_MODE] = SELF_CONSUMPTION
        self._steer()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        """All is stored but the heartbeat, which begins anew."""
        self._left_s = self._first_s if self._stored[EMS_MODE] == EXTERNAL else 0.0
        self._stale.clear()
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        passing = (COMMAND, POWER, HEARTBEAT)
        return {str(at): float(value) for at, value in self._stored.items() if at not in passing}

    def overwrite(self) -> None:
        self._stored |= {EMS_MODE: SELF_CONSUMPTION, COMMAND: STOP}
        self._left_s = 0.0

    @property
    def controlled(self) -> bool:
        return self._stored[EMS_MODE] in (FORCED, EXTERNAL)

    @property
    def spacing_violations(self) -> int:
        return self._spacing.violations

    # steering

    def _reserve_pct(self) -> float:
        return max(self._stored[MIN_SOC] / 10, float(self._stored[BACKUP_SOC]))

    def _steer(self) -> None:
        plant, stored = self.plant, self._stored
        plant.reserve_pct = self._reserve_pct()
        charge_w, discharge_w = stored[CHARGE_MAX] * 10.0, stored[DISCHARGE_MAX] * 10.0
        limited = charge_w < plant.charge_w_max - 10 or discharge_w < plant.discharge_w_max - 10
        full = plant.soc_pct >= stored[MAX_SOC] / 10
        if self.controlled:
            wanted_w = {CHARGE: -stored[POWER], DISCHARGE: stored[POWER], STOP: 0}[stored[COMMAND]] * 1.0
            keeps = self._guards_min_soc
        elif not limited and not full and stored[EXPORT_LIMITED] == OFF:
            plant.serve_home()
            return
        else:
            wanted_w, keeps = plant.home_w(), True
        if keeps and plant.soc_pct <= plant.reserve_pct:
            wanted_w = min(wanted_w, 0.0)
        if keeps and full:
            wanted_w = max(wanted_w, 0.0)
        if stored[EXPORT_LIMITED] == ON:
            wanted_w = min(wanted_w, max(plant.home_w() + stored[EXPORT_LIMIT], 0.0))
        plant.follow(min(max(wanted_w, -charge_w), discharge_w))

    # registers

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        self._spacing.note()
        self._check_unit(unit)
        return (self._input() if function == 4 else self._holding()).block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        self._spacing.note()
        self._check_unit(unit)
        wanted = whole_items(address, values, dict.fromkeys(self._allowed, 1))
        if any(value not in self._allowed[at] for at, value in wanted.items()):
            raise ModbusRefused(Refusal.DEVICE_FAILURE)
        before, until_s = self._holding().words, loop_s() + self._stale_s
        self._stale |= {at: (before[at], until_s) for at in wanted}
        began = wanted.get(EMS_MODE) == EXTERNAL != self._stored[EMS_MODE]
        self._stored |= wanted
        if HEARTBEAT in wanted:
            self._left_s = float(wanted[HEARTBEAT])
        elif began and self._left_s <= 0:
            self._left_s = self._first_s
        self.plant.reserve_pct = self._reserve_pct()

    def _check_unit(self, unit: int) -> None:
        if unit != self._unit:
            raise ModbusRefused(Refusal.NO_TARGET)

    def _holding(self) -> Registers:
        image = Registers()
        for at, value in (FIXED | self._stored).items():
            image.u16(at, value)
        image.u16(HEARTBEAT, math.ceil(self._left_s))
        now_s = loop_s()
        self._stale = {at: old for at, old in self._stale.items() if old[1] > now_s}
        for at, (value, _) in self._stale.items():
            image.u16(at, value)
        return image

    def _input(self) -> Registers:
        image = Registers(little=True)
        for block in BLOCKS:
            for at in block:
                image.u16(at, 0)
        self._inverter(image)
        self._battery(image)
        self._meters(image)
        if self._legacy:
            for at in OLD_HAS_NOT:
                del image.words[at]
        return image

    def _inverter(self, image: Registers) -> None:
        plant = self.plant
        image.text(4989, self.serial, 10)
        image.u16(4999, self._device_type)
        image.u16(5000, plant.discharge_w_max / 100)
        image.u16(5001, 1)
        image.i16(5007, (plant.temp_c + 12) * 10)
        for at in (5010, 5012):
            image.u16(at, 4000 if plant.pv_w else 0)
            image.u16(at + 1, plant.pv_w / 2 / 400 * 10)
        image.u32(5016, plant.pv_w)
        for at in (5018, 5019, 5020):
            image.u16(at, 2300)
        image.u16(5035, 500)
        image.u16(5241, 5000)
        image.u16(12999, 0x1000 if plant.islanded else STATES[self._stored[EMS_MODE]])
        image.u32(13002, plant.pv_wh / 100)
        image.i32(13033, plant.pv_w + plant.battery_w)

    def _battery(self, image: Registers) -> None:
        plant = self.plant
        power_w = round(plant.battery_w)
        flows = (plant.pv_w > 0) << 0 | (power_w < 0) << 1 | (power_w > 0) << 2 | (plant.load_w > 0) << 3
        image.u16(13000, flows | (plant.grid_w < 0) << 4 | (plant.grid_w > 0) << 5)
        image.i32(5213, power_w)
        image.u16(5627, plant.discharge_w_max / 100)
        image.i16(5630, power_w / PACK_V * 10)
        image.u16(5634, plant.charge_limit_w / PACK_V)
        image.u16(5635, plant.discharge_limit_w / PACK_V)
        image.u16(5638, plant.capacity_wh / 10)
        image.u16(13019, PACK_V * 10)
        image.i16(13020, (abs(power_w) if self._legacy else power_w) / PACK_V * 10)
        image.i16(13021, abs(power_w) if self._legacy else power_w)
        image.u16(13022, plant.soc_pct * 10)
        image.u16(13023, 990)
        image.i16(13024, plant.temp_c * 10)
        image.u32(13026, plant.discharged_wh / 100)
        image.u32(13040, plant.charged_wh / 100)

    def _meters(self, image: Registers) -> None:
        plant = self.plant
        image.i32(5600, plant.grid_w if self._meter else NO_I32)
        for i, phase_w in enumerate(thirds(plant.grid_w)):
            image.i32(5602 + 2 * i, phase_w if self._meter else NO_I32)
        image.i32(13007, plant.load_w)
        image.i32(13009, -plant.grid_w)
        image.u32(13036, plant.imported_wh / 100)
        image.u32(13045, plant.exported_wh / 100)
