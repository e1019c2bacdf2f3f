"""A Victron GX (Venus OS) with ESS, a CAN battery, a VE.Bus inverter and a grid meter, over Modbus TCP (big-endian).

Sources: victronenergy/dbus_modbustcp `CCGX-Modbus-TCP-register-list.xlsx` and README v1.0.101 (registers, units,
exceptions 10 and 11) and the server's code (a value that is not there is answered as 0); sfstar/hass-victron register
table (battery 301, 302) and its issue 226 (60 s in external mode).

The product steers the battery by itself so that the meter shows the grid setpoint: battery = load - PV - setpoint.
2716 is volatile and ends by itself; the time is not published (60 s assumed by clients, 5 min were seen: `override_s`).
What is not known is the more dangerous choice here: a setpoint in 2716 discharges below the minimum SoC
(`guards_min_soc` for the opposite).
"""

from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots, signed, thirds, whole_items

SETPOINT, CHARGE_PCT, DISCHARGE_PCT, SETPOINT_100 = 2700, 2701, 2702, 2703
DISCHARGE_10, CHARGE_A, FEED_IN_100 = 2704, 2705, 2706
EXPORT_LIMIT, INPUT_LIMIT, OVERRIDE, DISCHARGE_W, FEED_IN_W = 2713, 2714, 2716, 2720, 2722
LIFE_STATE, MIN_SOC, HUB4_MODE = 2900, 2901, 2902
EXTERNAL = 3
WORDS = (CHARGE_PCT, DISCHARGE_PCT, CHARGE_A, EXPORT_LIMIT, INPUT_LIMIT, LIFE_STATE, MIN_SOC, HUB4_MODE)
# address: (what it sets, W per step)
POWERS = {
    SETPOINT: ("setpoint", 1),
    SETPOINT_100: ("setpoint", 100),
    DISCHARGE_10: ("discharge", 10),
    DISCHARGE_W: ("discharge", 1),
    FEED_IN_100: ("feed_in", 100),
    FEED_IN_W: ("feed_in", 1),
}
WIDE = (OVERRIDE, DISCHARGE_W, FEED_IN_W)
SYSTEM_SIZES = {at: 2 if at in WIDE else 1 for at in (*WORDS, *POWERS, OVERRIDE)}
VEBUS_MODE, DISABLE_CHARGE, DISABLE_FEED_IN = 33, 38, 39
PHASES = {37: 0, 40: 1, 41: 2, 96: 0, 98: 1, 100: 2}
VEBUS_SIZES = dict.fromkeys((VEBUS_MODE, DISABLE_CHARGE, DISABLE_FEED_IN, 37, 40, 41), 1) | {96: 2, 98: 2, 100: 2}
NO_I32 = 0x7FFFFFFF
PACK_V = 51.2


class VictronGxModbus:
    """The product. `override_s`: life of 2716 after its last write; `external_s`: the same of VE.Bus setpoints;
    `battery_known`, `grid_known`: whether a service reports the battery, and the grid and its loads."""

    profile: ClassVar[str] = "victron-gx-modbus"

    def __init__(
        self,
        plant: Plant,
        *,
        battery_unit: int = 225,
        grid_unit: int = 30,
        vebus_unit: int = 227,
        override_s: float = 60.0,
        external_s: float = 60.0,
        guards_min_soc: bool = False,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.battery_known = self.grid_known = True
        self.portal_id = f"c0619ab{plant.index:05d}"
        self._units = {"system": 100, "battery": battery_unit, "grid": grid_unit, "vebus": vebus_unit}
        self._override_s = override_s
        self._external_s = external_s
        self._guards_min_soc = guards_min_soc
        self._powers = {"setpoint": 50, "discharge": -1, "feed_in": -1}
        self._words = dict.fromkeys(WORDS, 0xFFFF) | {
            CHARGE_PCT: 100,
            DISCHARGE_PCT: 100,
            LIFE_STATE: 10,
            MIN_SOC: round(plant.reserve_pct * 10),
            HUB4_MODE: 2,
        }
        self._vebus_mode = 3
        self._forget()
        self.server = ModbusServer(self, quiet_units=())
        self._reboots = Reboots(self.reboot)
        self.server.after_write = self._reboots.wrote

    def _forget(self) -> None:
        self._override_w: int | None = None
        self._override_left_s = 0.0
        self._external_w = [0, 0, 0]
        self._external_left_s = 0.0
        self._no_charge = self._no_feed_in = False

    # the face

    async def start(self, *, port: int = 0) -> Connection:
        port = await self.server.start(port=port)
        return Connection(
            url=f"modbus://127.0.0.1:{port}", units=dict(self._units), parameters={"portal": self.portal_id}
        )

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        self._override_left_s -= dt_s
        self._external_left_s -= dt_s
        if self._override_left_s <= 0:
            self._override_w = None
        self._steer()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        """Settings are stored; 2716 and what was written to VE.Bus setpoints are not."""
        self._forget()
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        words = {str(at): float(value) for at, value in self._words.items()}
        return words | {name: float(value) for name, value in self._powers.items()}

    def overwrite(self) -> None:
        self._forget()
        self._words[HUB4_MODE] = 2

    @property
    def controlled(self) -> bool:
        return self._override_w is not None or self._words[HUB4_MODE] == EXTERNAL

    # steering

    def _steer(self) -> None:
        plant = self.plant
        plant.reserve_pct = self._words[MIN_SOC] / 10
        charge_w, discharge_w = plant.charge_w_max, plant.discharge_w_max
        if self._words[HUB4_MODE] == EXTERNAL:
            wanted_w = -float(sum(self._external_w)) if self._external_left_s > 0 else 0.0
            if self._no_charge:
                wanted_w = max(wanted_w, 0.0)
            if self._no_feed_in:
                wanted_w = min(wanted_w, max(plant.home_w(), 0.0))
            plant.follow(min(max(wanted_w, -charge_w), discharge_w))
            return
        charge_w *= min(self._words[CHARGE_PCT], 100) / 100
        amps = signed(self._words[CHARGE_A], 1)
        if amps >= 0:
            charge_w = min(charge_w, amps * PACK_V)
        if self._words[DISCHARGE_PCT] < 50:
            discharge_w = 0.0
        if self._powers["discharge"] >= 0:
            discharge_w = min(discharge_w, self._powers["discharge"])
        overridden = self._override_w is not None
        setpoint_w = self._powers["setpoint"] if self._override_w is None else self._override_w
        wanted_w = plant.home_w() - setpoint_w
        if self._powers["feed_in"] >= 0:
            wanted_w = min(wanted_w, plant.home_w() + self._powers["feed_in"])
        if plant.soc_pct <= plant.reserve_pct and (self._guards_min_soc or not overridden):
            wanted_w = min(wanted_w, 0.0)
        plant.follow(min(max(wanted_w, -charge_w), discharge_w))

    # registers

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        if unit in (0, self._units["system"]):
            return self._system_image().block(address, count)
        if unit == self._units["battery"]:
            return self._battery_image().block(address, count)
        if unit == self._units["grid"]:
            return self._grid_image().block(address, count)
        if unit == self._units["vebus"]:
            return self._vebus_image().block(address, count)
        raise ModbusRefused(Refusal.NO_PATH)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        if unit in (0, self._units["system"]):
            self._set_system(whole_items(address, values, SYSTEM_SIZES))
        elif unit == self._units["vebus"]:
            self._set_vebus(whole_items(address, values, VEBUS_SIZES))
        elif unit in self._units.values():
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        else:
            raise ModbusRefused(Refusal.NO_PATH)

    def _set_system(self, wanted: dict[int, int]) -> None:
        most = {CHARGE_PCT: 100, DISCHARGE_PCT: 100, LIFE_STATE: 1, MIN_SOC: 1000, HUB4_MODE: 3}
        if any(value > most.get(at, NO_I32 * 2 + 1) for at, value in wanted.items()) or wanted.get(HUB4_MODE) == 0:
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)
        for at, value in wanted.items():
            if at == OVERRIDE:
                self._override_w = signed(value, 2)
                self._override_left_s = self._override_s
            elif at in POWERS:
                name, step_w = POWERS[at]
                number = signed(value, SYSTEM_SIZES[at])
                self._powers[name] = -1 if number == -1 and name != "setpoint" else number * step_w
            else:
                self._words[at] = value
        self.plant.reserve_pct = self._words[MIN_SOC] / 10

    def _set_vebus(self, wanted: dict[int, int]) -> None:
        for at, value in wanted.items():
            if at in PHASES:
                # in its own modes the product writes these itself, every second
                if self._words[HUB4_MODE] == EXTERNAL:
                    self._external_w[PHASES[at]] = signed(value, VEBUS_SIZES[at])
                    self._external_left_s = self._external_s
            elif at == DISABLE_CHARGE:
                self._no_charge = value != 0
            elif at == DISABLE_FEED_IN:
                self._no_feed_in = value != 0
            else:
                self._vebus_mode = value

    def _system_image(self) -> Registers:
        plant = self.plant
        image = Registers()
        for at in (*range(806, 827), *range(840, 872), *range(884, 914)):
            image.u16(at, 0)
        image.text(800, self.portal_id, 6)
        pv_w, load_w, grid_w = thirds(plant.pv_w), thirds(plant.load_w), thirds(plant.grid_w)
        for i in range(3 if self.grid_known else 0):
            image.u16(811 + i, pv_w[i])
            image.u16(817 + i, load_w[i])
            image.i16(820 + i, grid_w[i])
            image.u32(890 + 2 * i, pv_w[i])
            image.u32(902 + 2 * i, load_w[i])
            image.i32(908 + 2 * i, grid_w[i])
        image.u16(826, 240 if plant.islanded else 1)
        if self.battery_known:
            self._battery_summary(image)
        self._settings_image(image)
        return image

    def _battery_summary(self, image: Registers) -> None:
        plant = self.plant
        image.u16(840, PACK_V * 10)
        image.i16(841, -plant.battery_w / PACK_V * 10)
        image.i16(842, -plant.battery_w)
        image.u16(843, plant.soc_pct)
        image.u16(844, 0 if abs(plant.battery_w) < 10 else 1 if plant.battery_w < 0 else 2)
        image.i16(866, -plant.battery_w)
        image.i32(870, -plant.battery_w)

    def _settings_image(self, image: Registers) -> None:
        for at, value in self._words.items():
            image.u16(at, value)
        for at, (name, step_w) in POWERS.items():
            number = self._powers[name]
            number = -1 if number == -1 and name != "setpoint" else round(number / step_w)
            image.i32(at, number) if SYSTEM_SIZES[at] == 2 else image.i16(at, number)
        image.i32(OVERRIDE, self._override_w or 0)
        image.u16(2709, 0)
        image.u16(2903, self._words[MIN_SOC])

    def _battery_image(self) -> Registers:
        plant = self.plant
        image = Registers()
        for at in (*range(256, 268), *range(301, 311)):
            image.u16(at, 0)
        image.i32(256, -plant.battery_w)
        image.i16(258, -plant.battery_w)
        image.u16(259, PACK_V * 100)
        image.u16(260, 0xFFFF)
        image.i16(261, -plant.battery_w / PACK_V * 10)
        image.i16(262, plant.temp_c * 10)
        image.u16(266, plant.soc_pct * 10)
        image.u16(301, plant.discharged_wh / 100)
        image.u16(302, plant.charged_wh / 100)
        image.u16(304, 1000)
        image.u16(305, 568)
        image.u16(307, plant.charge_limit_w / PACK_V * 10)
        image.u16(308, plant.discharge_limit_w / PACK_V * 10)
        image.u16(309, plant.capacity_wh / PACK_V * 10)
        return image

    def _grid_image(self) -> Registers:
        plant = self.plant
        image = Registers()
        for i, phase_w in enumerate(thirds(plant.grid_w)):
            image.i16(2600 + i, phase_w)
            image.i32(2638 + 2 * i, phase_w)
        image.u32(2634, plant.imported_wh / 10)
        image.u32(2636, plant.exported_wh / 10)
        return image

    def _vebus_image(self) -> Registers:
        image = Registers()
        external = self._words[HUB4_MODE] == EXTERNAL
        image.u16(31, 3 if not external else 252 if self._external_left_s > 0 else 8)
        image.u16(32, 0)
        image.u16(VEBUS_MODE, self._vebus_mode)
        phases_w = self._external_w if external else thirds(-self.plant.battery_w)
        for at, phase in PHASES.items():
            image.i32(at, phases_w[phase]) if VEBUS_SIZES[at] == 2 else image.i16(at, phases_w[phase])
        image.u16(DISABLE_CHARGE, self._no_charge)
        image.u16(DISABLE_FEED_IN, self._no_feed_in)
        return image
