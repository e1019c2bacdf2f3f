"""What is written again while a command is in force: it never keeps a device under control for longer than the command
gave it, whatever the product's timer counts in."""

import dataclasses

import pytest

from gateway.domain.commands import CommandOp, CommandResult
from gateway.profiles.compile import compile_profile
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.loader import parse_profile
from tests.services.devices.test_device_control import PROFILE, Bench, Device

LEASE_S = 60
FOLLOW_S = 5
PV_W = 700
OLD = "{register: 11, type: u16, unit: s, access: rw, storage: volatile}"
TIMER = (
    "  {kind: device_timer, point: lease, zero_means: never, lease_s: 60, reverts_within_s: 66, falls_back_to: backup}"
)


def changed(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


FOLLOWING = changed(
    PROFILE,
    ("  allowed: {register: 5", "  pv: {register: 6, type: u16, unit: W}\n  allowed: {register: 5"),
    ("  soc_pct: {point: soc", "  pv_w: {point: pv, range: [0, 9000]}\n  soc_pct: {point: soc"),
    ("domain: battery_ac", "domain: inverter_ac\n  follow_s: 5"),
    ("from: setpoint_w", "from: inverter_target_w"),
)
BEATING = changed(
    PROFILE, ("  step_w: 10", "  heartbeat: {every_s: 5, steps: [{write: lease, from: lease}]}\n  step_w: 10")
)
IMPLICIT = changed(
    FOLLOWING, ("    - {write: lease, from: lease}\n", ""),
    (TIMER, "  {kind: implicit, lease_s: 60, reverts_within_s: 66, falls_back_to: backup}"),
)  # fmt: skip


def timer(point: str) -> str:
    """The product that is followed, with another timer: `point` is what its register is."""
    return changed(FOLLOWING, (OLD, "{register: 11, type: u16, access: rw, storage: volatile, " + point + "}"))


class Slow(Device):
    """A device that takes its time over each write; `ends_ms` is when its own timer runs out, by what was written."""

    def __init__(self, bench: Bench, *, unit_s: float = 1.0, write_s: float = 0.0) -> None:
        super().__init__()
        self.registers["pv"] = PV_W
        self.ends_ms: list[float] = []
        self.expires_s: list[float | None] = []
        self._bench = bench
        self._unit_s = unit_s
        self._write_s = write_s

    async def write(self, request: Request) -> None:
        await super().write(request)
        self.expires_s.append(request.expires_s)
        for write in request.writes:
            if write.point == "lease":
                self.ends_ms.append(self._bench.clock.mono + 1000 * self._unit_s * self.registers["lease"])
        self._bench.clock.advance(s=self._write_s)


async def made(profile: str, *, unit_s: float = 1.0, write_s: float = 0.0) -> tuple[Bench, Slow]:
    bench = Bench(profile)
    device = bench.device = Slow(bench, unit_s=unit_s, write_s=write_s)
    bench.journal.device = device
    await bench.poll()
    assert (await bench.tell(CommandOp.SETPOINT, 1000))[1] is CommandResult.APPLIED
    return bench, device


async def follow(bench: Bench, s: float) -> list[str]:
    """Let time pass with nothing but what goes on by itself; what was written."""
    control = bench.variant.control
    assert control is not None
    bench.device.told.clear()
    end_ms = bench.clock.mono + round(1000 * s)
    while bench.clock.mono < end_ms:
        bench.clock.advance(s=FOLLOW_S)
        await bench.poll()
        if bench.control.running:
            await bench.control.beat(bench.variant, bench.device)
            if control.follow_s is not None:
                await bench.control.follow(bench.variant, bench.device)
    return bench.device.told


def leases(told: list[str]) -> list[int]:
    return [int(line.removeprefix("lease=")) for line in told if line.startswith("lease=")]


@pytest.mark.parametrize("profile", [FOLLOWING, BEATING], ids=["follow", "heartbeat"])
async def test_lease_that_nobody_renews_ends_when_the_command_said(profile: str) -> None:
    bench, device = await made(profile)
    told = await follow(bench, 300)
    assert leases(told) == [55, 50, 45, 40, 35, 30, 25, 20, 15, 10, 5]
    assert max(device.ends_ms) == device.ends_ms[0]


async def test_follow_works_the_target_out_anew_for_as_long_as_the_lease_runs() -> None:
    bench, device = await made(FOLLOWING)
    device.registers["pv"] = 900
    assert (await follow(bench, 5)) == ["lease=55", "power=-1900", "enable=1"]


async def test_command_that_renews_the_lease_gives_a_whole_one() -> None:
    bench, device = await made(FOLLOWING)
    await follow(bench, 30)
    bench.device.told.clear()
    await bench.tell(CommandOp.SETPOINT, 1000)
    assert leases(bench.device.told) == [LEASE_S]
    assert leases(await follow(bench, 10)) == [55, 50]
    assert max(device.ends_ms) == bench.clock.mono - 10_000 + 1000 * LEASE_S


async def test_follow_of_a_slow_device_counts_the_lease_from_before_its_writes() -> None:
    bench, device = await made(FOLLOWING, write_s=1.5)
    armed_ms = device.ends_ms[0]
    await follow(bench, 300)
    assert len(device.ends_ms) > 3
    assert max(device.ends_ms) <= armed_ms


async def test_follow_in_minutes_rounds_down_and_stops_in_the_last_one() -> None:
    minutes = changed(timer("unit: min"), ("lease_s: 60", "lease_s: 180"), ("within_s: 66", "within_s: 190"))
    bench, device = await made(minutes, unit_s=60)
    assert bench.control.in_force is not None
    whole = dataclasses.replace(bench.control.in_force, lease_s=170, cmd=bench.cmd + 1)
    assert (await bench.control.obey(whole, bench.variant, device)).result is CommandResult.APPLIED
    device.ends_ms.clear()
    began_ms = bench.clock.mono
    told = await follow(bench, 300)
    assert leases(told) == [2] * 10 + [1] * 12
    assert max(device.ends_ms) <= began_ms + 170_000
    # What cannot be given a lease is not written at all: the power alone would stand for whatever is left of the timer.
    assert len(told) == 3 * len(leases(told))


@pytest.mark.parametrize(
    ("point", "least"),
    [("unit: s, range: [20, 3600]", 20), ("unit: s, scale: 10", 10), ("unit: s, scale: 4, range: [0, 3600]", 4)],
)
async def test_follow_below_the_least_timer_value_writes_nothing(point: str, least: int) -> None:
    bench, device = await made(timer(point))
    told = await follow(bench, 300)
    assert "lease=0" not in told
    assert len(leases(told)) == (LEASE_S - least) // FOLLOW_S
    assert len(told) == 3 * len(leases(told))
    assert bench.stats.unwritable == 0
    assert device.registers["lease"] > 0


async def test_follow_of_a_device_with_a_time_of_its_own_stops_with_the_lease() -> None:
    bench, device = await made(IMPLICIT)
    last_ms = bench.clock.mono + 1000 * LEASE_S
    told = await follow(bench, 300)
    assert len(told) == 2 * (LEASE_S // FOLLOW_S - 1)
    # Nor may a broker keep one for longer than the lease.
    assert device.expires_s[:2] == [None, None]
    assert [e for e in device.expires_s if e is not None] == [float(s) for s in range(55, 0, -5) for _ in range(2)]
    bench.clock.mono = last_ms - 500
    device.told.clear()
    await bench.control.follow(bench.variant, device)
    assert device.told == []


async def test_heartbeat_of_a_device_that_somebody_else_took_stops() -> None:
    bench, device = await made(BEATING)
    device.registers["power"] = 77
    assert leases(await follow(bench, 5)) == [55]
    assert leases(await follow(bench, 30)) == []
    assert bench.stats.foreign == 1


# -- what the look-ahead counts on ---------------------------------------------------------------------------


REFRESHED = changed(
    IMPLICIT, ("domain: inverter_ac\n  follow_s: 5", "domain: battery_ac"), ("inverter_target_w", "setpoint_w")
)
CONSTANT = changed(BEATING, ("steps: [{write: lease, from: lease}]", "steps: [{write: lease, value: 60}]"))


@pytest.mark.parametrize(
    ("profile", "overrun_s"),
    [
        (PROFILE, 6), (FOLLOWING, 6), (BEATING, 6),
        # a time that the gateway cannot set is the whole one though the lease may be 60 % of it; a timer has its steps
        (REFRESHED, 30), (timer("unit: s, scale: 10"), 15), (timer("unit: min"), 30),
        # what is written again starts the device's own time anew, or one that a constant sets: up to the lease's end
        (IMPLICIT, 66), (CONSTANT, 66),
    ],
    ids=["refreshed", "followed", "beating", "implicit-refreshed", "in-steps", "in-minutes", "implicit-followed",
         "constant"],
)  # fmt: skip
def test_facts_overrun_is_what_a_device_may_do_beyond_its_lease(profile: str, overrun_s: float) -> None:
    facts = compile_profile(parse_profile(profile, name="made-up.yaml")).facts
    assert (facts.lease_s, facts.overrun_s) == (LEASE_S, overrun_s)


@pytest.mark.parametrize(
    ("profile", "step_s"),
    [
        (PROFILE, 1), (REFRESHED, LEASE_S), (timer("unit: min"), 60), (timer("unit: s, scale: 10"), 10),
        (timer("unit: s, range: [20, 3600]"), 20),
    ],
    ids=["seconds", "fixed", "minutes", "steps", "least"],
)  # fmt: skip
def test_facts_lease_step_is_what_the_timer_can_be_set_to(profile: str, step_s: float) -> None:
    assert compile_profile(parse_profile(profile, name="made-up.yaml")).facts.lease_step_s == step_s
