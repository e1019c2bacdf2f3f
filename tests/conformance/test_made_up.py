"""A further product: a file and a simulator, both made up here, and the gateway as it is."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.errors import InvalidInput
from gateway.domain.fleet.columns import Authority
from gateway.domain.types import Mode
from gateway.profiles.loader import load_profile
from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots
from tests.conformance.rig import Rig, bench

# Powers in tens of W with + = charge, a lease in minutes that counts down, direction apart from the magnitude.
PROFILE = """
language: 1
profile: acme-brick
maker: Acme
product: Brick
evidence: {tag: documented, source: "Acme Brick manual, page 7"}
transport: modbus
facts:
  {command_latency_s: 5, efficiency_discharge: 0.95, efficiency_charge: 0.95, standby_w: 20, soc_uncertainty_pct: 5}
modbus: {units: {main: 9}, word_order: little}
polling: {live_s: 2}
identity: {serial: serial, rules: [{point: name, begins: [BRICK]}]}
points:
  name: {register: 100, type: text, words: 4, poll: once}
  serial: {register: 104, type: text, words: 4, poll: once}
  battery: {register: 110, type: i32, scale: 10, unit: W}
  meter: {register: 112, type: i32, scale: 10, unit: W}
  soc: {register: 114, type: u16, scale: 0.1, sentinels: [0xFFFF], unit: "%"}
  into: {register: 116, type: u32, unit: Wh, poll: energy}
  out_of: {register: 118, type: u32, unit: Wh, poll: energy}
  owner_mode: {register: 200, type: u16, access: rw, storage: stored, writes_per_day_max: 20, range: [0, 3]}
  minutes: {register: 201, type: u16, unit: min, access: rw, storage: volatile, range: [0, 60]}
  direction: {register: 202, type: u16, access: rw, storage: volatile, range: [0, 2]}
  power: {register: 203, type: u32, scale: 10, unit: W, access: rw, storage: volatile, range: [0, 6000]}
readings:
  battery_w: {point: battery, sign: charge_positive, measured_at: battery_ac, range: [-10000, 10000]}
  grid_w: {point: meter, sign: import_positive, measured_at: grid_connection, range: [-50000, 50000]}
  soc_pct: {point: soc, range: [0, 100]}
  charge_counter_wh: {point: into, range: [0, 1.0e+9]}
  discharge_counter_wh: {point: out_of, range: [0, 1.0e+9]}
  mode: {cases: [{when: [{point: direction, equals: [1, 2]}], value: remote}], otherwise: self_consumption}
control:
  domain: battery_ac
  saves: [owner_mode]
  begin: [{write: owner_mode, value: 3, if_changed: true}]
  discharge:
    - {write: minutes, from: lease}
    - together: [{write: direction, value: 2}, {write: power, from: magnitude_w}]
  charge:
    - {write: minutes, from: lease}
    - together: [{write: direction, value: 1}, {write: power, from: magnitude_w}]
  hold:
    - {write: minutes, from: lease}
    - together: [{write: direction, value: 2}, {write: power, value: 0}]
  release: [{write: direction, value: 0}, {restore: owner_mode}]
  step_w: 10
watchdog: {kind: countdown, point: minutes, lease_s: 120, reverts_within_s: 180, falls_back_to: self_consumption}
"""
MODE, MINUTES, DIRECTION, POWER = 200, 201, 202, 203
CHARGE, DISCHARGE = 1, 2


class AcmeBrick:
    """The product."""

    profile: ClassVar[str] = "acme-brick"

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.registers = Registers(little=True)
        self.registers.text(100, "BRICK-5", 4)
        self.registers.text(104, "A1", 4)
        self.registers.u16(MODE, 1)
        self._reboots = Reboots(self.reboot)
        self.server = ModbusServer(self)
        self.server.after_write = self._reboots.wrote
        self._forget()

    def _forget(self) -> None:
        self._left_s = 0.0
        self.registers.u16(MINUTES, 0)
        self.registers.u16(DIRECTION, 0)
        self.registers.u32(POWER, 0)

    async def start(self, *, port: int = 0) -> Connection:
        return Connection(url=f"modbus://127.0.0.1:{await self.server.start(port=port)}", parameters={"serial": "A1"})

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        self._left_s = max(0.0, self._left_s - dt_s)
        if self.controlled and self._left_s == 0:
            self._forget()
        self.registers.u16(MINUTES, math.ceil(self._left_s / 60))
        if self.controlled:
            sign = 1 if self.registers.get_u16(DIRECTION) == DISCHARGE else -1
            self.plant.follow(sign * 10.0 * self.registers.get_u32(POWER))
        else:
            self.plant.serve_home()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        self._forget()
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        return {"mode": float(self.registers.get_u16(MODE))}

    def overwrite(self) -> None:
        self._forget()

    @property
    def controlled(self) -> bool:
        return self.registers.get_u16(DIRECTION) in (CHARGE, DISCHARGE)

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        plant, registers = self.plant, self.registers
        registers.i32(110, -plant.battery_w / 10)
        registers.i32(112, plant.grid_w / 10)
        registers.u16(114, plant.soc_pct * 10)
        registers.u32(116, plant.charged_wh)
        registers.u32(118, plant.discharged_wh)
        return registers.block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        if address < MODE or address + len(values) > POWER + 2:
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        for at, value in enumerate(values, start=address):
            self.registers.words[at] = value
        if MINUTES in range(address, address + len(values)):
            self._left_s = 60.0 * self.registers.get_u16(MINUTES)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acme-brick.yaml"
    path.write_text(PROFILE)
    return path


async def test_made_up_product_is_read_dispatched_and_released(file: Path) -> None:
    codec = load_profile(file)
    async with bench("acme-brick", product=(codec, AcmeBrick)) as rig:
        before = rig.face.settings()
        row = await rig.fresh()
        assert row["soc_pct"] == pytest.approx(rig.plant.soc_pct, abs=0.6)
        assert row["mode"] == Mode.SELF_CONSUMPTION
        for target_w in (2000, -1500):
            await rig.dispatch(target_w, s=3600, name=f"event{target_w}")
            await rig.tick_until(_gives(rig, target_w), f"{target_w} W")
            assert (await rig.fresh())["mode"] == Mode.REMOTE
            await rig.cancel(f"event{target_w}")
            await rig.tick_until(lambda: rig.authority is Authority.DEVICE, "the end of control")
            assert not rig.controlled()
            assert rig.face.settings() == before
            assert rig.prior == {}


async def test_made_up_product_reverts_when_the_controller_dies(file: Path) -> None:
    async with bench("acme-brick", product=(load_profile(file), AcmeBrick)) as rig:
        assert await rig.power(2000) == rig.done
        await rig.expect_w(2000)
        await rig.detach()
        await rig.go(rig.unlocked_s)
        assert not rig.controlled()


async def test_made_up_product_out_of_its_range_is_refused_before_the_wire(file: Path) -> None:
    async with bench("acme-brick", product=(load_profile(file), AcmeBrick)) as rig:
        assert await rig.power(6000) == rig.done
        assert await rig.power(-1234) == rig.done
        await rig.expect_w(-1230, tolerance_w=5)
        on_wire = rig.writes_on_wire()
        assert await rig.power(7000) != rig.done
        assert rig.writes_on_wire() == on_wire
        assert await rig.tell(CommandOp.RELEASE) == rig.done


def test_made_up_product_with_a_mistake_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "acme-brick.yaml"
    path.write_text(PROFILE.replace("point: minutes, lease_s", "point: hours, lease_s"))
    with pytest.raises(InvalidInput) as refused:
        load_profile(path)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), start=1) if "hours" in text)
    assert any(problem.startswith(f"acme-brick.yaml:{line}: watchdog") for problem in refused.value.problems)


def _gives(rig: Rig, target_w: float) -> Callable[[], bool]:
    return lambda: abs(rig.plant.battery_w - target_w) < 100
