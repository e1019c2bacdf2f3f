"""The paths of a GX and their values: system, battery, grid meter, inverter/charger, PV inverter, settings, overrides.

Paths, units and signs: victronenergy/dbus_modbustcp `CCGX-Modbus-TCP-register-list.xlsx`. Powers in W, battery
+ = charge, grid + = import; DC powers and energies are the AC ones here. None = invalid, e.g. a phase that is not
there. The PV inverter is a service that goes at night.
"""

from collections.abc import Collection

from simulators.faces.ess import EXTERNAL, Ess
from simulators.faces.plant import Plant
from simulators.faces.upkeep import thirds

Value = float | int | str | None
PACK_V = 51.2
STANDBY_W = 20.0
VEBUS, BATTERY, GRID, PVINVERTER = "vebus/276", "battery/512", "grid/30", "pvinverter/20"
CGWACS = "settings/0/Settings/CGwacs"
OVERRIDES = "hub4/0/Overrides"


def service_of(path: str) -> str:
    """ "battery/512" of "battery/512/Soc"."""
    return "/".join(path.split("/", 2)[:2])


class GxTree:
    """`phases` 1 or 3."""

    def __init__(self, plant: Plant, ess: Ess, *, portal: str, phases: int, version: str) -> None:
        self._plant = plant
        self._ess = ess
        self._portal = portal
        self._phases = phases
        self._version = version

    def image(self, gone: Collection[str]) -> dict[str, Value]:
        """Every path with its value now, without the services that have gone."""
        image = {**self._system(BATTERY not in gone), **self._devices(), **self._control()}
        return {path: value for path, value in image.items() if service_of(path) not in gone} if gone else image

    def _per_phase(self, prefix: str, suffix: str, total: float | None) -> dict[str, Value]:
        """Phases that are not there are null."""
        if total is None:
            parts: tuple[Value, ...] = (None, None, None)
        else:
            parts = thirds(total) if self._phases == 3 else (round(total), None, None)
        return {f"{prefix}/L{i + 1}/{suffix}": part for i, part in enumerate(parts)}

    def _pv(self) -> tuple[float | None, float | None]:
        """PV on the AC side and on the DC side; None = there is none."""
        plant = self._plant
        coupled = plant.batteries.homes.inverter_w_max[plant.index] < float("inf")
        return (None, plant.pv_w) if coupled else (plant.pv_w, None)

    def _system(self, known: bool) -> dict[str, Value]:
        plant = self._plant
        ac_pv_w, dc_pv_w = self._pv()
        return {
            "system/0/Serial": self._portal,
            "system/0/Ac/ActiveIn/Source": 240 if plant.islanded else 1,
            "system/0/Ac/Grid/NumberOfPhases": self._phases,
            "system/0/Ac/Consumption/NumberOfPhases": self._phases,
            **self._per_phase("system/0/Ac/Grid", "Power", plant.grid_w),
            **self._per_phase("system/0/Ac/Consumption", "Power", plant.load_w),
            **self._per_phase("system/0/Ac/PvOnGrid", "Power", ac_pv_w),
            "system/0/Dc/Pv/Power": None if dc_pv_w is None else round(dc_pv_w),
            "system/0/Dc/Battery/Power": round(-plant.battery_w),
            "system/0/Dc/Battery/Current": round(-plant.battery_w / PACK_V, 1),
            "system/0/Dc/Battery/Voltage": PACK_V,
            "system/0/Dc/Battery/Soc": round(plant.soc_pct, 1) if known else None,
            "system/0/Dc/Battery/Temperature": round(plant.temp_c, 1) if known else None,
            "system/0/Dc/Battery/State": self._battery_state(),
            "system/0/DynamicEss/Active": int(self._ess.dynamic_ess),
            "system/0/SystemState/State": 252 if self._ess.stored.mode == EXTERNAL else 256,
            "platform/0/Firmware/Installed/Version": self._version,
            "platform/0/Device/Model": "Cerbo GX",
        }

    def _battery_state(self) -> int:
        power_w = self._plant.battery_w
        return 0 if abs(power_w) < STANDBY_W else 2 if power_w > 0 else 1

    def _devices(self) -> dict[str, Value]:
        plant = self._plant
        ac_pv_w, _ = self._pv()
        fault = 2 if bool(plant.batteries.inhibited[plant.index]) else 0
        devices: dict[str, Value] = {
            f"{BATTERY}/ProductId": 0xB00A,
            f"{BATTERY}/ProductName": "Lithium battery",
            f"{BATTERY}/Serial": f"BAT{plant.index:08d}",
            f"{BATTERY}/Connected": 1,
            f"{BATTERY}/Dc/0/Power": round(-plant.battery_w),
            f"{BATTERY}/Dc/0/Voltage": PACK_V,
            f"{BATTERY}/Dc/0/Current": round(-plant.battery_w / PACK_V, 1),
            f"{BATTERY}/Dc/0/Temperature": round(plant.temp_c, 1),
            f"{BATTERY}/Soc": round(plant.soc_pct, 1),
            f"{BATTERY}/Soh": 100,
            f"{BATTERY}/InstalledCapacity": round(plant.capacity_wh / PACK_V, 1),
            f"{BATTERY}/Info/MaxChargeCurrent": round(plant.charge_limit_w / PACK_V, 1),
            f"{BATTERY}/Info/MaxDischargeCurrent": round(plant.discharge_limit_w / PACK_V, 1),
            f"{BATTERY}/Info/MaxChargeVoltage": 56.8,
            f"{BATTERY}/History/ChargedEnergy": round(plant.charged_wh / 1000, 2),
            f"{BATTERY}/History/DischargedEnergy": round(plant.discharged_wh / 1000, 2),
            f"{BATTERY}/Alarms/InternalFailure": fault,
            f"{BATTERY}/Alarms/LowSoc": 0,
            f"{BATTERY}/Alarms/HighTemperature": 0,
            f"{GRID}/ProductId": 0xB002,
            f"{GRID}/ProductName": "Grid meter",
            f"{GRID}/Serial": f"EM{plant.index:08d}",
            f"{GRID}/Connected": 1,
            f"{GRID}/Ac/Power": round(plant.grid_w),
            **self._per_phase(f"{GRID}/Ac", "Power", plant.grid_w),
            f"{GRID}/Ac/Energy/Forward": round(plant.imported_wh / 1000, 2),
            f"{GRID}/Ac/Energy/Reverse": round(plant.exported_wh / 1000, 2),
            f"{VEBUS}/ProductId": 0x2623,
            f"{VEBUS}/ProductName": "MultiPlus-II 48/5000/70-50",
            f"{VEBUS}/Connected": 1,
            f"{VEBUS}/State": 252 if self._ess.stored.mode == EXTERNAL else 9 if plant.islanded else 3,
            f"{VEBUS}/Mode": 3,
            f"{VEBUS}/VebusError": 0,
            f"{VEBUS}/Dc/0/Power": round(-plant.battery_w),
            **self._per_phase(f"{VEBUS}/Ac/ActiveIn", "P", -plant.battery_w),
        }
        if ac_pv_w:
            devices[f"{PVINVERTER}/ProductName"] = "PV inverter"
            devices[f"{PVINVERTER}/Ac/Power"] = round(ac_pv_w)
            devices[f"{PVINVERTER}/Ac/Energy/Forward"] = round(plant.pv_wh / 1000, 2)
        return devices

    def _control(self) -> dict[str, Value]:
        ess = self._ess
        stored, overrides, inverter = ess.stored, ess.overrides, ess.inverter
        settings = {f"{CGWACS}/{name}": value for name, value in ess.settings().items()}
        phases = inverter.setpoints_w[: self._phases]
        if stored.mode != EXTERNAL:
            # in its own modes the product writes these itself each second
            phases = [float(part) for part in thirds(-ess.wanted_w)] if self._phases == 3 else [-round(ess.wanted_w)]
        return {
            **settings,
            f"{CGWACS}/Hub4Mode": stored.mode,
            f"{CGWACS}/BatteryLife/State": stored.state,
            "hub4/0/PvPowerLimiterActive": 0,
            f"{OVERRIDES}/Setpoint": overrides.grid_setpoint_w,
            f"{OVERRIDES}/ForceCharge": overrides.force_charge,
            f"{OVERRIDES}/MaxChargePower": overrides.charge_w_max,
            f"{OVERRIDES}/MaxDischargePower": overrides.discharge_w_max,
            f"{VEBUS}/Hub4/DisableCharge": inverter.disable_charge,
            f"{VEBUS}/Hub4/DisableFeedIn": inverter.disable_feed_in,
            **{f"{VEBUS}/Hub4/L{i + 1}/AcPowerSetpoint": power_w for i, power_w in enumerate(phases)},
        }
