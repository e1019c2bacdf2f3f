"""The files a new product begins with: a read-only profile, a simulator face and a note about vectors.

They are whole: the profile passes its check, the face runs, and the profile reads the face. What the product differs in
is replaced, piece by piece. The example is a battery with registers over Modbus TCP.
"""

import re
from collections.abc import Mapping

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
NAME_MAX = 40

_PROFILE = """\
# yaml-language-server: $schema=../deploy/api/profile.schema.json
# @NAME@: read only. The language is on one page: device_profiles/README.md.
language: 1
profile: @NAME@
# The maker and the product as the maker writes them, and what a reader should know before trusting this file.
maker: Example
product: "@NAME@, read only"
evidence:
  # verified = seen on hardware; documented = in the maker's document; experimental = anything else. The source names
  # document and revision, or the client library and its commit.
  tag: experimental
  source: an example, from no document
transport: modbus

facts:
  # How long a command takes to have its effect, losses of each direction, what the product uses for itself, and how far
  # its SoC may be off.
  command_latency_s: 5
  efficiency_discharge: 0.94
  efficiency_charge: 0.94
  standby_w: 30
  soc_uncertainty_pct: 5

modbus:
  # Port and unit id of a product as it is delivered; limits are those of the maker's document.
  port: 502
  units: {main: 1}
  registers_max: 50
  gap_max: 4
  timeout_s: 3

polling: {live_s: 5, energy_s: 30, slow_s: 300}

identity:
  # What no other product says. What does not match is never used.
  product: model
  rules:
    - {point: model, equals: ["@MODEL@"]}

points:
  # Registers are zero-based, as on the wire. Powers keep the product's own sign here.
  model: {register: 100, type: text, words: 16, poll: once}
  battery_power: {register: 200, type: i32, unit: W}
  soc: {register: 202, type: u16, unit: "%"}
  grid_power: {register: 204, type: i32, unit: W}
  charged: {register: 300, type: u32, scale: 100, unit: Wh, poll: energy}
  discharged: {register: 302, type: u32, scale: 100, unit: Wh, poll: energy}

readings:
  # Canonical: battery + = discharge, grid + = import. `sign` says what the product means by +.
  battery_w: {point: battery_power, sign: discharge_positive, measured_at: battery_ac, range: [-30000, 30000]}
  soc_pct: {point: soc, range: [0, 100]}
  grid_w: {point: grid_power, sign: import_positive, measured_at: grid_connection, range: [-100000, 100000]}
  charge_counter_wh: {point: charged, range: [0, 1.0e+9]}
  discharge_counter_wh: {point: discharged, range: [0, 1.0e+9]}

# A product that can be steered has `control` and `watchdog` too: foxess-h3.yaml has both for registers.
"""

_FACE = '''\
"""@NAME@ over Modbus TCP (unit 1, holding registers, big-endian): read only.

Sources: name the maker's document and its revision here, or the client library and its commit, never the profile. What
is written by no source is said here too, with the more dangerous choice made.
"""

from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble

MODEL, MODEL_WORDS = 100, 16
POWER, SOC, GRID = 200, 202, 204
CHARGED, DISCHARGED = 300, 302


class @CLASS@:
    """The product. Nothing steers it: it serves its home."""

    profile: ClassVar[str] = "@NAME@"
    controlled = False

    def __init__(self, plant: Plant, *, unit: int = 1) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self._unit = unit
        self.server = ModbusServer(self, quiet_units=())

    async def start(self, *, port: int = 0) -> Connection:
        return Connection(url=f"modbus://127.0.0.1:{await self.server.start(port=port)}")

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        self.plant.serve_home()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        """Every connection is lost."""
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        """Nothing is ever written."""

    def settings(self) -> dict[str, float]:
        """What the product stores and a gateway could change."""
        return {}

    def overwrite(self) -> None:
        """What somebody else changes on the product."""

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        if unit != self._unit:
            raise ModbusRefused(Refusal.NO_TARGET)
        if function != 3:
            raise ModbusRefused(Refusal.ILLEGAL_FUNCTION)
        return self._image().block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        raise ModbusRefused(Refusal.ILLEGAL_FUNCTION)

    def _image(self) -> Registers:
        plant, image = self.plant, Registers()
        image.text(MODEL, "@MODEL@", MODEL_WORDS)
        image.i32(POWER, plant.battery_w)
        image.u16(SOC, plant.soc_pct)
        image.u16(SOC + 1, 0)
        image.i32(GRID, plant.grid_w)
        image.u32(CHARGED, plant.charged_wh / 100)
        image.u32(DISCHARGED, plant.discharged_wh / 100)
        return image
'''

_VECTORS = """\
# What was looked through for samples of real products. The first vector takes the place of this file:
# gateway profiles capture @NAME@ ADDRESS --out tests/vectors/@NAME@/capture.yaml
searched: [the example that this product began with]
why: nobody has looked for a published sample yet
"""


def new_product(name: str) -> Mapping[str, str]:
    """The files of a new product, by their path in a checkout. Raises ValueError for a name that none may have."""
    if not NAME.fullmatch(name) or len(name) > NAME_MAX:
        raise ValueError(f"{name!r}: small letters, digits and hyphens are expected, as in maker-model")
    words = {
        "@NAME@": name,
        "@CLASS@": "".join(part.capitalize() for part in name.split("-")),
        "@MODEL@": name.upper(),
    }
    files = {
        f"device_profiles/{name}.yaml": _PROFILE,
        f"simulators/faces/{name.replace('-', '_')}.py": _FACE,
        f"tests/vectors/{name}/none.yaml": _VECTORS,
    }
    for word, text in words.items():
        files = {path: template.replace(word, text) for path, template in files.items()}
    return files
