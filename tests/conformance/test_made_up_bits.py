"""A product whose switches are bits of one register, and that shows its setpoint elsewhere than it takes it: a file and
a simulator, both made up here, and the gateway as it is."""

from pathlib import Path
from typing import ClassVar

import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.errors import InvalidInput
from gateway.domain.types import Mode
from gateway.profiles.compile import Codec
from gateway.profiles.loader import load_profile
from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots
from tests.conformance.rig import bench

# bit 0 self-use, bit 4 backup, bit 5 outside control; only 0 and 5 are the gateway's business
PROFILE = """
language: 1
profile: acme-bits
maker: Acme
product: Bits
evidence: {tag: documented, source: "Acme Bits manual, page 3"}
transport: modbus
facts:
  {command_latency_s: 5, efficiency_discharge: 0.95, efficiency_charge: 0.95, standby_w: 20, soc_uncertainty_pct: 5}
modbus: {units: {main: 9}}
polling: {live_s: 2}
identity: {serial: serial, rules: [{point: name, begins: [BITS]}]}
points:
  name: {register: 100, type: text, words: 4, poll: once}
  serial: {register: 104, type: text, words: 4, poll: once}
  battery: {register: 110, type: i32, unit: W}
  soc: {register: 114, type: u16, scale: 0.1, unit: "%"}
  into: {register: 116, type: u32, unit: Wh, poll: energy}
  out_of: {register: 118, type: u32, unit: Wh, poll: energy}
  switches: {register: 200, type: u16, access: rw, storage: stored, writes_per_day_max: 50, poll: slow}
  seconds: {register: 201, type: u16, unit: s, access: rw, storage: volatile, range: [0, 3600], readback_s: null}
  power: {register: 120, function: 4, write: {register: 210}, type: i32, unit: W, sign: discharge_positive, access: rw,
          storage: volatile, range: [-6000, 6000]}
readings:
  battery_w: {point: battery, sign: discharge_positive, measured_at: battery_ac, range: [-10000, 10000]}
  soc_pct: {point: soc, range: [0, 100]}
  charge_counter_wh: {point: into, range: [0, 1.0e+9]}
  discharge_counter_wh: {point: out_of, range: [0, 1.0e+9]}
  mode: {cases: [{when: [{point: switches, all_bits: 32}], value: remote}], otherwise: self_consumption}
control:
  domain: battery_ac
  saves: [switches]
  discharge: &power
    - {write: seconds, from: lease}
    - {write: power, from: setpoint_w}
    - {write: switches, value: 32, bits: 33, if_changed: true}
  charge: *power
  hold: *power
  release:
    - {restore: switches, bits: 33}
    - {write: power, value: 0}
watchdog:
  {kind: device_timer, point: seconds, zero_means: at_once, lease_s: 60, reverts_within_s: 66,
   falls_back_to: self_consumption}
"""
SWITCHES, SECONDS, SHOWN, TAKEN = 200, 201, 120, 210
SELF_USE, BACKUP, OUTSIDE = 0x01, 0x10, 0x20


class AcmeBits:
    """The product."""

    profile: ClassVar[str] = "acme-bits"

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.registers = Registers()
        self.registers.text(100, "BITS-5", 4)
        self.registers.text(104, "A1", 4)
        self.registers.u16(SWITCHES, SELF_USE | BACKUP)
        self.taken_w, self._left_s = 0, 0.0
        self.switched: list[int] = []
        self._reboots = Reboots(self.reboot)
        self.server = ModbusServer(self)
        self.server.after_write = self._reboots.wrote

    @property
    def switches(self) -> int:
        return self.registers.get_u16(SWITCHES)

    def flip(self, bits: int) -> None:
        """The owner does, on the device itself."""
        self.registers.u16(SWITCHES, self.switches ^ bits)

    async def start(self, *, port: int = 0) -> Connection:
        return Connection(url=f"modbus://127.0.0.1:{await self.server.start(port=port)}", parameters={"serial": "A1"})

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        self._left_s -= dt_s
        if self.controlled and self._left_s <= 0:
            self.overwrite()
        if self.controlled:
            self.plant.follow(float(self.taken_w))
        else:
            self.plant.serve_home()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        return {"switches": float(self.switches)}

    def overwrite(self) -> None:
        self.registers.u16(SWITCHES, self.switches & ~OUTSIDE | SELF_USE)

    @property
    def controlled(self) -> bool:
        return bool(self.switches & OUTSIDE)

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        plant, image = self.plant, Registers()
        if function == 4:
            image.i32(SHOWN, self.taken_w)
            return image.block(address, count)
        image.words |= self.registers.words
        image.i32(110, plant.battery_w)
        image.u16(114, plant.soc_pct * 10)
        image.u32(116, plant.charged_wh)
        image.u32(118, plant.discharged_wh)
        return image.block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        if self.trouble is Trouble.REFUSE:
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)
        if address == TAKEN and len(values) == 2:
            self.taken_w = int.from_bytes(bytes(byte for value in values for byte in divmod(value, 256)), signed=True)
        elif address == SECONDS:
            self._left_s = float(values[0])
        elif address == SWITCHES:
            self.registers.u16(SWITCHES, values[0])
            self.switched.append(values[0])
        else:
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)


@pytest.fixture
def product(tmp_path: Path) -> tuple[Codec, type[AcmeBits]]:
    return load_profile(written(tmp_path, PROFILE)), AcmeBits


def written(folder: Path, text: str) -> Path:
    path = folder / "acme-bits.yaml"
    path.write_text(text)
    return path


async def test_bits_are_set_and_given_back_and_the_others_stay(product: tuple[Codec, type[AcmeBits]]) -> None:
    async with bench("acme-bits", product=product) as rig:
        for power_w in (2000, -1500):
            assert await rig.power(power_w) == rig.done
            await rig.expect_w(power_w)
            assert rig.face.settings() == {"switches": OUTSIDE | BACKUP}
            assert await rig.tell(CommandOp.RELEASE) == rig.done
            assert rig.face.settings() == {"switches": SELF_USE | BACKUP}
        assert rig.prior == {}


async def test_bit_that_its_owner_changes_in_the_middle_stays_as_it_is(product: tuple[Codec, type[AcmeBits]]) -> None:
    async with bench("acme-bits", product=product) as rig:
        assert await rig.power(2000) == rig.done
        rig.face.flip(BACKUP)  # type: ignore[attr-defined]
        assert await rig.power(1000) == rig.done
        assert rig.face.settings() == {"switches": OUTSIDE}
        assert await rig.tell(CommandOp.RELEASE) == rig.done
        assert rig.face.settings() == {"switches": SELF_USE}


async def test_bits_that_are_set_anew_stand_beside_what_the_owner_chose_since_the_last_poll(
    product: tuple[Codec, type[AcmeBits]],
) -> None:
    async with bench("acme-bits", product=product) as rig:
        assert await rig.power(2000) == rig.done
        rig.face.overwrite()
        rig.face.flip(BACKUP)  # type: ignore[attr-defined]
        assert await rig.power(1000) == rig.done
        assert rig.face.settings() == {"switches": OUTSIDE}
        await rig.expect_w(1000)


async def test_bit_of_ours_that_its_owner_changes_is_theirs_and_the_other_is_given_back(
    product: tuple[Codec, type[AcmeBits]],
) -> None:
    async with bench("acme-bits", product=product) as rig:
        rig.face.flip(SELF_USE)  # type: ignore[attr-defined]
        assert await rig.power(2000) == rig.done
        rig.face.flip(SELF_USE)  # type: ignore[attr-defined]
        assert await rig.tell(CommandOp.RELEASE) == rig.done
        assert rig.face.settings() == {"switches": SELF_USE | BACKUP}


async def test_bits_that_are_set_are_not_written_again(product: tuple[Codec, type[AcmeBits]]) -> None:
    async with bench("acme-bits", product=product) as rig:
        for _ in range(3):
            assert await rig.power(2000) == rig.done
        rig.face.flip(BACKUP)  # type: ignore[attr-defined]
        assert await rig.power(2000) == rig.done
        assert rig.face.switched == [OUTSIDE | BACKUP]  # type: ignore[attr-defined]
        await rig.until(lambda: rig.heard.live[-1]["mode"] == Mode.REMOTE, "the mode in a reading")


async def test_setpoint_is_written_to_one_register_and_proven_by_another(product: tuple[Codec, type[AcmeBits]]) -> None:
    async with bench("acme-bits", product=product) as rig:
        assert await rig.power(-1500) == rig.done
        assert rig.face.taken_w == -1500  # type: ignore[attr-defined]
        requests = rig.face.server.requests  # type: ignore[attr-defined]
        assert (9, 16, TAKEN, 2) in requests
        assert any(function == 4 and address == SHOWN for _, function, address, _ in requests)


async def test_product_reverts_by_itself_and_its_bits_are_tidied(product: tuple[Codec, type[AcmeBits]]) -> None:
    async with bench("acme-bits", product=product) as rig:
        assert await rig.power(2000) == rig.done
        await rig.detach()
        await rig.go(rig.unlocked_s)
        assert not rig.controlled()
        assert rig.face.settings() == {"switches": SELF_USE | BACKUP}


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("value: 32, bits: 33", "value: 34, bits: 33", "bits: 34 has others than 0x21"),
        (
            "{restore: switches, bits: 33}",
            "{restore: switches}",
            "'switches': bits 0x21 alone are written, so bits 0x21",
        ),
        ("{restore: switches, bits: 33}", "{restore: switches, bits: 32}", "'switches': bits 0x21 alone are written"),
        ("from: lease}", "from: lease, bits: 1}", "bits belong to write with a value, and to restore"),
        (
            "switches: {register: 200, type: u16,",
            "switches: {register: 200, type: u16, scale: 0.1,",
            "bits are those of a",
        ),
        ("write: {register: 210}", "write: {register: 210, key: x}", "key and as_text belong to path and topic"),
        ("write: {register: 210}", "write: {register: 65535}", "write.register: ends at 65536"),
        ("write: {register: 210}", "write: {topic: x}", "a register to a register"),
    ],
)
def test_mistake_about_bits_or_places_is_refused_with_its_line(
    tmp_path: Path, before: str, after: str, fault: str
) -> None:
    assert before in PROFILE
    with pytest.raises(InvalidInput) as refused:
        load_profile(written(tmp_path, PROFILE.replace(before, after)))
    assert any(fault in problem for problem in refused.value.problems), refused.value.problems
