"""Control of a product whose scale factors move: written by the newest factor, proven by the one valid at the read."""

from collections.abc import Mapping, Sequence

import pytest

from gateway.domain.commands import CommandOp, CommandResult
from gateway.profiles.compile import compile_profile
from gateway.profiles.compiled.points import Raw, Value
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.compiled.variant import ProductVariant
from gateway.profiles.loader import parse_profile
from tests.services.devices.test_device_control import PROFILE, START, Bench, Device, meets

SCALED = PROFILE.replace(
    "power: {register: 12, type: i16,", "power: {register: 12, type: i16, scale_factor: power_sf,"
).replace("limit: {register: 14, type: u16,", "limit: {register: 14, type: u16, scale_factor: limit_sf,")
POINTS = """  power_sf: {register: 15, type: i16}
  limit_sf: {register: 16, type: i16}
readings:
"""
FACTORS = {"power": "power_sf", "limit": "limit_sf"}


class Scaled(Device):
    """Holds numbers, as a product that shows them by whatever factor it has. `keeps_words`: it keeps the words instead,
    and what they mean moves with the factor. `moves_after`: the factor of the power after a write of a point."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = {"power": 0, "limit": 0}
        self.held = {name: float(self.registers[name]) for name in FACTORS}
        self.keeps_words = False
        self.moves_after: dict[str, int] = {}

    def move(self, **factors: int) -> None:
        for name, factor in factors.items():
            if self.keeps_words:
                self.held[name] *= 10.0 ** (factor - self.factors[name])
            self.factors[name] = factor

    async def read(self, points: Sequence[str]) -> dict[str, Raw]:
        """As a link: what is scaled comes with its factor."""
        names = dict.fromkeys([*points, *(FACTORS[name] for name in points if name in FACTORS)])
        return {name: (self._word(name) & 0xFFFF,) for name in names}

    def _word(self, name: str) -> int:
        if name in FACTORS:
            return int(self.held[name] / 10.0 ** self.factors[name])
        return self.factors[name.removesuffix("_sf")] if name.endswith("_sf") else self.registers[name]

    async def write(self, request: Request) -> None:
        await super().write(request)
        for write in request.writes:
            if write.point in FACTORS:
                word = self.registers[write.point]
                signed = word - 0x10000 if word & 0x8000 else word
                self.held[write.point] = signed * 10.0 ** self.factors[write.point]
            if write.point in self.moves_after:
                self.move(power=self.moves_after[write.point])


class ScaledBench(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.device: Scaled = Scaled()
        self.journal.device = self.device
        self.variant: ProductVariant = _program()


def _program() -> ProductVariant:
    text = SCALED.replace("readings:\n", POINTS, 1)
    product = compile_profile(parse_profile(text, name="made-up.yaml")).product
    assert product is not None
    return product.base


@pytest.fixture
async def bench() -> ScaledBench:
    made = ScaledBench()
    await made.poll()
    return made


def settings(bench: ScaledBench) -> Mapping[str, Value]:
    return {"limit": bench.device.held["limit"], "mode": bench.device.registers["mode"]}


@pytest.mark.parametrize(("factor", "word"), [(0, -1230), (1, -123), (-1, -12300)])
async def test_obey_setpoint_is_written_by_the_factor_of_the_newest_read(
    bench: ScaledBench, factor: int, word: int
) -> None:
    bench.device.move(power=factor)
    await bench.poll()
    assert (await bench.tell(CommandOp.SETPOINT, 1230))[1] is CommandResult.APPLIED
    assert f"power={word}" in bench.device.told
    assert bench.device.held["power"] == -1230.0


async def test_obey_setpoint_is_cut_by_a_coarse_factor_and_known_as_cut(bench: ScaledBench) -> None:
    bench.device.move(power=2)
    await bench.poll()
    assert (await bench.tell(CommandOp.SETPOINT, 1230))[1] is CommandResult.APPLIED
    assert (bench.device.held["power"], bench.values["power"]) == (-1200.0, -1200.0)


@pytest.mark.parametrize("factor", [-1, 1, 2])
async def test_obey_factor_moves_before_the_read_back_what_was_written_still_holds(
    bench: ScaledBench, factor: int
) -> None:
    bench.device.moves_after = {"power": factor}
    assert (await bench.tell(CommandOp.SETPOINT, 1230))[1] is CommandResult.APPLIED
    assert bench.stats.not_shown == 0


@pytest.mark.parametrize("factor", [-1, 1])
async def test_obey_factor_moves_under_a_word_that_stays_is_refused_and_handed_back(
    bench: ScaledBench, factor: int
) -> None:
    """The same word means ten times as much, or a tenth."""
    bench.device.keeps_words = True
    bench.device.moves_after = {"power": factor}
    assert (await bench.tell(CommandOp.SETPOINT, 1230))[1] is CommandResult.REFUSED
    assert bench.stats.not_shown == 1
    assert bench.device.registers["enable"] == 0


@pytest.mark.parametrize("factor", [-1, 1])
async def test_obey_factor_moves_between_the_newest_read_and_the_write_is_refused_and_handed_back(
    bench: ScaledBench, factor: int
) -> None:
    """What went out was made by a factor that was no longer valid: the read-back finds it."""
    bench.device.moves_after = {"lease": factor}
    assert (await bench.tell(CommandOp.SETPOINT, 1230))[1] is CommandResult.REFUSED
    assert (bench.stats.not_shown, bench.device.registers["enable"]) == (1, 0)
    bench.device.moves_after = {}
    assert (await bench.tell(CommandOp.SETPOINT, 1230))[1] is CommandResult.APPLIED
    assert bench.device.held["power"] == -1230.0


async def test_observe_factor_that_moves_with_every_poll_is_nobody_s_write(bench: ScaledBench) -> None:
    await bench.tell(CommandOp.SETPOINT, 1230)
    for factor in (-1, 0, 1, 2, -1):
        bench.device.move(power=factor, limit=factor)
        await bench.poll()
        assert not bench.control.taken_over
    assert bench.stats.foreign == 0


async def test_observe_somebody_else_writes_while_the_factor_moves_it_is_taken_over(bench: ScaledBench) -> None:
    await bench.tell(CommandOp.SETPOINT, 1230)
    bench.device.held["power"] = -1000.0
    for factor in (1, 2):
        bench.device.move(power=factor)
        await bench.poll()
    assert bench.control.taken_over


async def test_obey_stored_value_shown_by_another_factor_is_not_written_again(bench: ScaledBench) -> None:
    await bench.tell(CommandOp.SETPOINT, 1230)
    bench.device.move(limit=2)
    await bench.poll()
    await meets(bench.control, None)
    bench.device.told.clear()
    await bench.tell(CommandOp.SETPOINT, 1230)
    assert [line for line in bench.device.told if line.startswith("limit")] == []


async def test_release_restores_a_setting_by_the_factor_it_has_now(bench: ScaledBench) -> None:
    before = settings(bench)
    await bench.tell(CommandOp.SETPOINT, 1230)
    bench.device.move(limit=1)
    await bench.poll()
    assert (await bench.tell(CommandOp.RELEASE))[1] is CommandResult.APPLIED
    assert settings(bench) == before
    assert "limit=250" in bench.device.told


async def test_release_setting_an_owner_changed_while_the_factor_moved_stays(bench: ScaledBench) -> None:
    await bench.tell(CommandOp.SETPOINT, 1230)
    bench.device.held["limit"] = 1000.0
    bench.device.move(limit=2)
    await bench.tell(CommandOp.RELEASE)
    assert bench.device.held["limit"] == 1000.0
    assert START["limit"] != 1000


async def test_obey_factor_that_is_unknown_refuses_before_anything_is_sent(bench: ScaledBench) -> None:
    bench.device.move(power=-0x8000)
    bench.device.held["power"] = 0.0
    bench.values["power_sf"] = None
    assert (await bench.tell(CommandOp.SETPOINT, 1230))[1] is CommandResult.REFUSED
    assert [line for line in bench.device.told if not line.startswith("saved")] == []
