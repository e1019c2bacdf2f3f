"""A FoxESS H3-Smart three-phase hybrid inverter with battery, over Modbus TCP (unit 247, holding registers).

Source: nathanmarlor/foxess_modbus entity descriptions of its H3 Pro and Smart (the word with the higher address is the
lower one) and its discussion 792; ioBroker/ioBroker.modbus issue 811 (an owner's register list). It answers nothing
where the H3 keeps its values. Remote control is not simulated: these registers can be read.
"""

from typing import ClassVar

from simulators.faces.foxess_h3 import MIN_SOC_ON_GRID, PACK_V, WORK_MODE, FoxessH3, model_words
from simulators.faces.modbus import ModbusRefused, Refusal, Registers
from simulators.faces.plant import Plant
from simulators.faces.upkeep import thirds


class FoxessH3Smart(FoxessH3):
    """The product. `model`: what it says it is."""

    profile: ClassVar[str] = "foxess-h3-smart"

    def __init__(self, plant: Plant, *, unit: int = 247, model: str = "H3-10.0-Smart") -> None:
        super().__init__(plant, unit=unit, model=model)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        self._check_unit(unit)
        raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)

    def _image(self) -> Registers:
        plant = self.plant
        image = Registers()
        model_words(image, self.model)
        image.u16(37609, PACK_V * 10)
        image.i16(37610, plant.battery_w / PACK_V * 10)
        image.i16(37611, plant.temp_c * 10)
        image.u16(37612, plant.soc_pct)
        image.i32(38814, -plant.grid_w * 10)
        for i in range(3):
            image.i32(38816 + 2 * i, thirds(-plant.grid_w)[i] * 10)
        image.i32(39237, plant.battery_w)
        for i in range(6):
            image.i32(39279 + 2 * i, thirds(plant.pv_w)[i] if i < 3 else 0)
        for at, value in ((46001, 0), (46002, 0), (46003, 0), (46004, 0)):
            image.u16(at, value)
        for at, value in ((46609, 10), (46610, 100), (46611, self._stored[MIN_SOC_ON_GRID])):
            image.u16(at, value)
        image.u16(49203, self._stored[WORK_MODE] + 1)
        return image
