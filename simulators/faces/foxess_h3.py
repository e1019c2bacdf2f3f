"""A FoxESS H3 three-phase hybrid inverter with battery, over Modbus TCP (unit 247, holding registers, big-endian).

Sources: evcc-io/evcc `templates/definition/meter/fox-ess-h3.yaml`; nathanmarlor/foxess_modbus entity descriptions,
remote control manager and model detection; evcc-io/evcc issue 23887 (an owner: the minimum SoC is refused above the one
"on grid"). Client code by third parties, no vendor document.

The outside setpoint is the inverter's AC power: PV that it does not let through goes into the battery. What is not
known is the more dangerous choice here: discharge by remote control goes on below the minimum SoC (one client says the
H1 stops there: `guards_min_soc`), a time-out of 0 never ends, the setpoint is limited to the rating without a word.
Written by no source: refusals of unknown addresses and of values out of range. What a client asks at set-up (firmware
30016-30018, currents 41007 and 41008, the least SoC while the grid is up 41011) follows the questions of the client
`foxess-modbus` 0.1.0, which was not written by us and is run against this face.
"""

import struct
from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots, thirds

SELF_USE, FEED_IN_FIRST, BACK_UP, PEAK_SHAVING = 0, 1, 2, 4
WORK_MODE, MIN_SOC, MAX_SOC, MIN_SOC_ON_GRID = 41000, 41009, 41010, 41011
CHARGE_A, DISCHARGE_A = 41007, 41008
ENABLE, TIMEOUT, POWER_HIGH, POWER_LOW = 44000, 44001, 44002, 44003
MODEL, MODEL_WORDS = 30000, 16
FIRMWARE = 30016
SOC_RANGE = range(10, 101)
CURRENTS = range(501)  # 0.1 A
SIZES_KW = (5.0, 6.0, 8.0, 9.9, 10.0, 12.0)
PACK_V = 307.2


def _model(rated_w: float) -> str:
    size_kw = next((size for size in SIZES_KW if 1000 * size >= rated_w), SIZES_KW[-1])
    return f"H3-{size_kw:.1f}-E"


def model_words(image: Registers, model: str) -> None:
    """The product's name: one character a register, and a space before it."""
    for i, character in enumerate(f" {model}".ljust(MODEL_WORDS)[:MODEL_WORDS]):
        image.u16(MODEL + i, ord(character))


class FoxessH3:
    """The product. `timer_scale`: real length of its time-out per second set; `model`: what it says it is, "" = an H3
    of the next size."""

    profile: ClassVar[str] = "foxess-h3"

    def __init__(
        self,
        plant: Plant,
        *,
        unit: int = 247,
        timer_scale: float = 1.0,
        guards_min_soc: bool = False,
        setpoint_at_battery: bool = False,
        model: str = "",
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.model = model or _model(plant.discharge_w_max)
        self._unit = unit
        self._timer_scale = timer_scale
        self._guards_min_soc = guards_min_soc
        self._setpoint_at_battery = setpoint_at_battery
        # the owner keeps as much of the battery for either
        least_pct = max(round(plant.reserve_pct), SOC_RANGE[0])
        self._stored = {WORK_MODE: SELF_USE, MIN_SOC: least_pct, MAX_SOC: 100, MIN_SOC_ON_GRID: least_pct}
        self._stored |= {CHARGE_A: 260, DISCHARGE_A: 260}
        self._ram = dict.fromkeys((ENABLE, TIMEOUT, POWER_HIGH, POWER_LOW), 0)
        self._left_s = 0.0
        self.server = ModbusServer(self, quiet_units=())
        self._reboots = Reboots(self.reboot)
        self.server.after_write = self._reboots.wrote

    # the face

    async def start(self, *, port: int = 0) -> Connection:
        port = await self.server.start(port=port)
        return Connection(url=f"modbus://127.0.0.1:{port}", units={"inverter": self._unit})

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        if self.controlled and self._ram[TIMEOUT]:
            self._left_s -= dt_s
            if self._left_s <= 0:
                self._ram[ENABLE] = 0
        self._steer()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        """Work mode and SoC limits are stored; enable, time-out and power are not."""
        self._ram = dict.fromkeys(self._ram, 0)
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        stored = self._stored
        return {
            "work_mode": stored[WORK_MODE],
            "min_soc": stored[MIN_SOC],
            "max_soc": stored[MAX_SOC],
            "min_soc_on_grid": stored[MIN_SOC_ON_GRID],
        }

    def overwrite(self) -> None:
        self._ram[ENABLE] = 0
        self._stored[WORK_MODE] = SELF_USE

    @property
    def controlled(self) -> bool:
        return self._ram[ENABLE] == 1

    @property
    def active_power_w(self) -> int:
        """The setpoint as written, + = out of the inverter."""
        words = struct.pack(">HH", self._ram[POWER_HIGH], self._ram[POWER_LOW])
        return int(struct.unpack(">i", words)[0])

    # steering

    @property
    def _least_pct(self) -> float:
        """The SoC at which discharging ends: one while the grid is up, a lower one for the backup."""
        return float(self._stored[MIN_SOC if self.plant.islanded else MIN_SOC_ON_GRID])

    def _steer(self) -> None:
        plant, mode = self.plant, self._stored[WORK_MODE]
        plant.reserve_pct = self._least_pct
        if self.controlled:
            limit_w = plant.discharge_w_max
            setpoint_w = min(max(float(self.active_power_w), -limit_w), limit_w)
            battery_w = setpoint_w if self._setpoint_at_battery else setpoint_w - plant.pv_w
            if self._guards_min_soc and plant.soc_pct <= plant.reserve_pct:
                battery_w = min(battery_w, 0.0)
            plant.follow(battery_w)
        elif mode == BACK_UP and plant.soc_pct < self._stored[MAX_SOC]:
            plant.serve_backup()
        elif mode == FEED_IN_FIRST or plant.soc_pct >= self._stored[MAX_SOC]:
            # what PV leaves over goes to the grid
            plant.follow(max(plant.home_w(), 0.0) if plant.soc_pct > plant.reserve_pct else 0.0)
        else:
            plant.serve_home()

    # registers

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        self._check_unit(unit)
        if function != 3:
            raise ModbusRefused(Refusal.ILLEGAL_FUNCTION)
        return self._image().block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        self._check_unit(unit)
        addresses = range(address, address + len(values))
        if ENABLE in addresses and TIMEOUT in addresses:
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        wanted = dict(zip(addresses, values, strict=True))
        for at, value in wanted.items():
            self._check(at, value)
        limits = self._stored | wanted
        if limits[MIN_SOC] > limits[MIN_SOC_ON_GRID]:
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)
        for at, value in wanted.items():
            (self._stored if at in self._stored else self._ram)[at] = value
        if wanted.keys() & self._ram.keys():
            self._left_s = self._ram[TIMEOUT] * self._timer_scale
        self.plant.reserve_pct = self._least_pct

    def _check_unit(self, unit: int) -> None:
        if unit != self._unit:
            raise ModbusRefused(Refusal.NO_TARGET)

    def _check(self, address: int, value: int) -> None:
        if address == WORK_MODE:
            fits = value in (SELF_USE, FEED_IN_FIRST, BACK_UP, PEAK_SHAVING)
        elif address in (MIN_SOC, MAX_SOC, MIN_SOC_ON_GRID):
            fits = value in SOC_RANGE
        elif address in (CHARGE_A, DISCHARGE_A):
            fits = value in CURRENTS
        elif address == ENABLE:
            fits = value in (0, 1)
        elif address in self._ram:
            fits = True
        else:
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        if not fits:
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)

    def _image(self) -> Registers:
        plant = self.plant
        image = Registers()
        for at in (*range(31000, 31052), *range(32000, 32024), *range(41000, 41012)):
            image.u16(at, 0)
        model_words(image, self.model)
        pv_w = round(plant.pv_w)
        for at, string_w in ((31000, pv_w // 2), (31003, pv_w - pv_w // 2)):
            image.u16(at, 4000 if string_w else 0)
            image.u16(at + 1, string_w / 400 * 10)
            image.i16(at + 2, string_w)
        for i in range(3):
            image.u16(31006 + i, 2300)
            image.i16(31012 + i, thirds(plant.pv_w + plant.battery_w)[i])
            image.i16(31026 + i, thirds(-plant.grid_w)[i])
            image.i16(31029 + i, thirds(plant.load_w)[i])
        image.u16(31015, 5000)
        image.i16(31032, (plant.temp_c + 10) * 10)
        image.i16(31033, plant.temp_c * 10)
        image.u16(31034, PACK_V * 10)
        image.i16(31035, plant.battery_w / PACK_V * 10)
        image.i16(31036, plant.battery_w)
        image.i16(31037, plant.temp_c * 10)
        image.u16(31038, plant.soc_pct)
        image.u16(31041, 3)
        for i, version in enumerate((176, 102, 0x0180)):  # master 1.76, slave 1.02, manager 1.80
            image.u16(FIRMWARE + i, version)
        self._energies(image)
        for at, value in (self._stored | self._ram).items():
            image.u16(at, value)
        return image

    def _energies(self, image: Registers) -> None:
        plant = self.plant
        load_wh = plant.imported_wh + plant.pv_wh + plant.discharged_wh - plant.exported_wh - plant.charged_wh
        image.u32(32000, plant.pv_wh / 100)
        image.u32(32003, plant.charged_wh / 100)
        image.u32(32006, plant.discharged_wh / 100)
        image.u32(32009, plant.exported_wh / 100)
        image.u32(32012, plant.imported_wh / 100)
        image.u32(32021, load_wh / 100)
