"""A FoxESS H1 single-phase hybrid inverter with battery by its LAN port (unit 247, holding registers, big-endian).

Source: StealthChesnut/HA-FoxESS-Modbus issue 26 and its register reference of the H1 (holding 30000 to 30027, 31000 to
31038 and 44000 to 44003 answer there, nothing else; 31031 to 31038 are fault words); rsaemann/HA-FoxESS-H3-Modbus (the
setpoint is one register, negative charges; the next one is reactive power). Work mode and SoC limits are not shown.
What is not known is as with the H3.
"""

from typing import ClassVar

from simulators.faces.foxess_h3 import (
    ENABLE,
    PACK_V,
    POWER_HIGH,
    POWER_LOW,
    TIMEOUT,
    FoxessH3,
    model_words,
)
from simulators.faces.modbus import ModbusRefused, Refusal, Registers
from simulators.faces.plant import Plant
from simulators.faces.upkeep import signed

POWER, REACTIVE = POWER_HIGH, POWER_LOW
SIZES_KW = (3.0, 3.7, 4.6, 5.0, 6.0)


class FoxessH1(FoxessH3):
    """The product. `model`: what it says it is, "" = an H1 of the next size. `reactive_w`: reactive power it was told
    to give."""

    profile: ClassVar[str] = "foxess-h1"

    def __init__(self, plant: Plant, *, unit: int = 247, timer_scale: float = 1.0, model: str = "") -> None:
        size_kw = next((size for size in SIZES_KW if 1000 * size >= plant.discharge_w_max), SIZES_KW[-1])
        super().__init__(plant, unit=unit, timer_scale=timer_scale, model=model or f"H1-{size_kw:.1f}-E")

    @property
    def active_power_w(self) -> int:
        return signed(self._ram[POWER], 1)

    @property
    def reactive_w(self) -> int:
        return signed(self._ram[REACTIVE], 1)

    def _check(self, address: int, value: int) -> None:
        if address not in (ENABLE, TIMEOUT, POWER, REACTIVE):
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        super()._check(address, value)

    def _image(self) -> Registers:
        plant = self.plant
        image = Registers()
        for at in (*range(30016, 30028), *range(31000, 31039)):
            image.u16(at, 0)
        model_words(image, self.model)
        pv_w = round(plant.pv_w)
        for at, string_w in ((31000, pv_w // 2), (31003, pv_w - pv_w // 2)):
            image.u16(at, 3500 if string_w else 0)
            image.i16(at + 1, string_w / 350 * 10)
            image.i16(at + 2, string_w)
        image.u16(31006, 2300)
        image.i16(31008, plant.pv_w + plant.battery_w)
        image.u16(31009, 5000)
        image.i16(31014, -plant.grid_w)
        image.i16(31016, plant.load_w)
        image.i16(31018, (plant.temp_c + 10) * 10)
        image.u16(31020, PACK_V * 10)
        image.i16(31021, plant.battery_w / PACK_V * 10)
        image.i16(31022, plant.battery_w)
        image.i16(31023, plant.temp_c * 10)
        image.u16(31024, plant.soc_pct)
        for at, value in self._ram.items():
            image.u16(at, value)
        return image
