"""One device's control episode, against a link that holds values and tells the order of everything."""

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from gateway.clock import ManualClock
from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.errors import LinkDown, PeerRefused, StorageError
from gateway.domain.journal.changes import Change, PriorRestored, PriorSaved
from gateway.domain.types import DeviceId
from gateway.ports.links import NO_MODELS
from gateway.profiles.compile import compile_profile
from gateway.profiles.compiled.points import Marker, Raw, Value
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.compiled.variant import ProductVariant
from gateway.profiles.loader import parse_profile
from gateway.services.devices.device_control import Command, DeviceControl, DeviceControlStats
from gateway.services.devices.identity import Serial
from tests.builders.fakes import MemoryJournal

DEVICE = DeviceId("home")
PROFILE = """
language: 1
profile: made-up
maker: Made
product: Up
evidence: {tag: documented, source: this test}
transport: modbus
facts:
  {command_latency_s: 5, efficiency_discharge: 0.95, efficiency_charge: 0.95, standby_w: 30, soc_uncertainty_pct: 5}
modbus: {units: {main: 1}}
identity: {rules: [{point: model_code, equals: [7]}]}
points:
  model_code: {register: 1, type: u16, poll: once}
  battery: {register: 2, type: i16, unit: W}
  soc: {register: 3, type: u16, unit: "%"}
  meter: {register: 4, type: i16, unit: W}
  allowed: {register: 5, type: u16}
  mode: {register: 10, type: u16, access: rw, storage: stored, writes_per_day_max: 3}
  lease: {register: 11, type: u16, unit: s, access: rw, storage: volatile}
  power: {register: 12, type: i16, unit: W, sign: charge_positive, range: [-3000, 3000], access: rw, storage: volatile}
  enable: {register: 13, type: u16, access: rw, storage: volatile}
  limit: {register: 14, type: u16, unit: W, access: rw, storage: stored, writes_per_day_max: 10}
readings:
  battery_w: {point: battery, sign: discharge_positive, measured_at: battery_ac, range: [-5000, 5000]}
  soc_pct: {point: soc, range: [0, 100]}
  grid_w: {point: meter, sign: import_positive, measured_at: grid_connection, range: [-9000, 9000]}
  mode: {cases: [{when: [{point: enable, equals: [1]}], value: remote}], otherwise: self_consumption}
control:
  domain: battery_ac
  needs: [{point: allowed, equals: [1]}]
  saves: [mode, limit]
  begin: [{write: mode, value: 2, if_changed: true}, {write: limit, value: 3000, if_changed: true}]
  discharge: &power
    - {write: lease, from: lease}
    - {write: power, from: setpoint_w}
    - {write: enable, value: 1}
  charge: *power
  hold: *power
  release: [{write: enable, value: 0}, {restore: mode}, {restore: limit}]
  step_w: 10
  setpoint_w_min: 50
watchdog:
  {kind: device_timer, point: lease, zero_means: never, lease_s: 60, reverts_within_s: 66, falls_back_to: backup}
"""
START = {"model_code": 7, "battery": 0, "soc": 60, "meter": 0, "allowed": 1, "mode": 1, "lease": 0, "power": 0,
         "enable": 0, "limit": 2500}  # fmt: skip


class Device:
    """A link whose registers hold what is written. `refuses` and `loses` name points; `told` is the story."""

    def __init__(self) -> None:
        self.registers = dict(START)
        self.told: list[str] = []
        self.refuses: set[str] = set()
        self.loses: set[str] = set()

    heard_mono_ms: int | None = None
    notice: str | None = None
    models = NO_MODELS

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self, points: Sequence[str]) -> dict[str, Raw]:
        return {name: (self.registers[name] & 0xFFFF,) for name in points}

    async def write(self, request: Request) -> None:
        for write in request.writes:
            if write.point in self.refuses:
                raise PeerRefused(f"{write.point}: exception 3")
            if write.point in self.loses:
                raise LinkDown("no answer")
            assert isinstance(write.raw, tuple), Marker
            self.registers[write.point] = write.raw[0]
            self.told.append(f"{write.point}={write.raw[0] if write.raw[0] < 0x8000 else write.raw[0] - 0x10000}")


class Journal(MemoryJournal):
    """Tells the device's log when something became durable."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.broken = False

    async def commit(self, changes: Sequence[Change]) -> None:
        if self.broken:
            raise StorageError("disk full")
        await super().commit(changes)
        for change in changes:
            if isinstance(change, PriorSaved):
                self.device.told.append(f"saved {dict(change.settings)}")
            if isinstance(change, PriorRestored):
                self.device.told.append("restored")


class Bench:
    def __init__(self, profile: str = PROFILE) -> None:
        self.clock = ManualClock()
        self.device = Device()
        self.journal = Journal(self.device)
        self.variant: ProductVariant = _program(profile)
        self.values: dict[str, Value] = {}
        self.book: dict[DeviceId, Mapping[str, float | str | bool]] = {}
        self.stats = DeviceControlStats()
        self.cmd = 0
        self.control = self.anew()

    def anew(self) -> DeviceControl:
        self.control = DeviceControl(
            DEVICE,
            values=self.values,
            prior=self.book,
            journal=self.journal,
            clock=self.clock,
            stats=self.stats,
        )
        return self.control

    async def poll(self) -> None:
        self.variant.decode(await self.device.read(self.variant.reads), self.values)
        self.control.read_mono_ms = self.clock.mono
        self.control.observe(self.variant)

    async def tell(
        self, op: CommandOp, setpoint_w: float = 0.0, **other: int
    ) -> tuple[WriteOutcome, CommandResult, str]:
        self.cmd += 1
        command = Command(
            op=op, setpoint_w=setpoint_w, lease_s=60, reserve_pct=float("nan"), cmd=self.cmd,
            valid_until_ms=self.clock.utc + 20_000,
        )  # fmt: skip
        told = dataclasses.replace(command, cmd=other.get("cmd", command.cmd))
        told = dataclasses.replace(told, valid_until_ms=other.get("valid_until_ms", told.valid_until_ms))
        done = await self.control.obey(told, self.variant, self.device)
        return done.delivery, done.result, done.why


def _program(profile: str) -> ProductVariant:
    product = compile_profile(parse_profile(profile, name="made-up.yaml")).product
    assert product is not None
    return product.base


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.poll()
    return made


async def test_obey_first_setpoint_saves_durably_before_the_first_write(bench: Bench) -> None:
    outcome = await bench.tell(CommandOp.SETPOINT, 1234)
    assert outcome[:2] == (WriteOutcome.ACCEPTED, CommandResult.APPLIED)
    assert bench.device.told == [
        "saved {'mode': 1.0, 'limit': 2500.0}", "mode=2", "limit=3000", "lease=60", "power=-1230", "enable=1",
    ]  # fmt: skip


async def test_obey_journal_fails_nothing_is_written(bench: Bench) -> None:
    bench.journal.broken = True
    delivery, result, why = await bench.tell(CommandOp.SETPOINT, 1000)
    assert (delivery, result) == (WriteOutcome.NOT_SENT, CommandResult.NONE)
    assert "disk full" in why
    assert bench.device.told == []


async def test_setting_that_could_not_be_restored_keeps_the_device_from_being_steered_and_says_so() -> None:
    bench = Bench(PROFILE.replace("mode: {register: 10,", "mode: {register: 10, range: [0, 4],"))
    bench.device.registers["mode"] = 5
    await bench.poll()
    delivery, result, why = await bench.tell(CommandOp.SETPOINT, 1000)
    assert (delivery, result) == (WriteOutcome.REFUSED, CommandResult.REFUSED)
    assert why == "mode is 5, which is none of the values known, so it could not be restored"
    assert bench.device.told == []
    bench.device.registers["mode"] = 4
    assert (await bench.tell(CommandOp.SETPOINT, 1000))[1] is CommandResult.APPLIED
    await bench.tell(CommandOp.RELEASE)
    assert bench.device.registers["mode"] == 4


async def test_obey_refresh_writes_the_whole_sequence_again_but_no_stored_value(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, 1000)
    bench.device.told.clear()
    await bench.tell(CommandOp.SETPOINT, 1000)
    assert bench.device.told == ["lease=60", "power=-1000", "enable=1"]


async def test_release_restores_what_was_and_forgets_it(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, -800)
    bench.device.told.clear()
    assert (await bench.tell(CommandOp.RELEASE))[1] is CommandResult.APPLIED
    assert bench.device.told == ["enable=0", "mode=1", "limit=2500", "restored"]
    assert bench.book == {}
    assert bench.journal.load().prior == {}


async def test_release_that_the_disk_did_not_take_is_cleared_later_and_not_against_a_new_episode(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, 1234)
    bench.journal.broken = True
    await bench.tell(CommandOp.RELEASE)
    assert bench.journal.load().prior != {}
    bench.journal.broken = False
    await bench.control.tidy(bench.variant, bench.device)
    assert bench.journal.load().prior == {}
    await bench.tell(CommandOp.SETPOINT, 1234)
    bench.journal.broken = True
    await bench.tell(CommandOp.RELEASE)
    bench.journal.broken = False
    await bench.tell(CommandOp.SETPOINT, 1234)
    await bench.control.tidy(bench.variant, bench.device)
    assert bench.journal.load().prior != {}, "the settings of the episode that runs"


async def test_release_after_restart_restores_from_the_journal(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, 500)
    bench.values.clear()
    bench.book = dict(bench.journal.load().prior)
    bench.anew()
    await bench.poll()
    await bench.tell(CommandOp.RELEASE)
    assert {name: bench.device.registers[name] for name in ("mode", "limit", "enable")} == {
        "mode": 1, "limit": 2500, "enable": 0,
    }  # fmt: skip


async def meets(control: DeviceControl, first: str | None, second: str | None = None) -> None:
    """A device says who it is, and says it once more where it is asked."""

    def said(told: str | None) -> Serial | None:
        return None if told is None else Serial(point="sn", told=told)

    async def again() -> Serial | None:
        return said(second)

    await control.meet(said(first), again)


async def test_settings_of_a_battery_that_was_replaced_are_not_restored_to_the_one_that_answers_now(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await meets(bench.control, "A-1")
    await bench.tell(CommandOp.SETPOINT, 500)
    bench.book = dict(bench.journal.load().prior)
    bench.device.told.clear()
    await meets(bench.anew(), "B-2", "B-2")
    assert (bench.device.told, bench.book, bench.journal.load().prior) == (["restored"], {}, {})
    assert "another battery answers" in caplog.text


@pytest.mark.parametrize("told", [("A-1",), (None,), ("B-2", "A-1"), ("B-2", None), ("B-2", "C-3")])
async def test_settings_of_a_battery_that_does_not_tell_twice_that_it_is_another_one_are_restored(
    bench: Bench, told: tuple[str | None, ...]
) -> None:
    await meets(bench.control, "A-1")
    await bench.tell(CommandOp.SETPOINT, 500)
    bench.book = dict(bench.journal.load().prior)
    await meets(bench.anew(), *told)
    await bench.poll()
    await bench.tell(CommandOp.RELEASE)
    assert (bench.device.registers["mode"], bench.device.registers["limit"], bench.book) == (1, 2500, {})


async def test_setpoint_after_restart_does_not_save_our_own_values(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, 500)
    bench.book = dict(bench.journal.load().prior)
    bench.anew()
    await bench.poll()
    await bench.tell(CommandOp.SETPOINT, 700)
    assert bench.journal.load().prior == {DEVICE: {"mode": 1.0, "limit": 2500.0}}


async def test_release_owner_changed_a_setting_meanwhile_it_stays(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, 500)
    bench.device.registers["limit"] = 1111
    await bench.tell(CommandOp.RELEASE)
    assert bench.device.registers["limit"] == 1111
    assert bench.device.registers["mode"] == 1


async def test_obey_need_not_met_is_refused_before_anything_is_read_or_written(bench: Bench) -> None:
    bench.device.registers["allowed"] = 0
    await bench.poll()
    delivery, result, why = await bench.tell(CommandOp.SETPOINT, 500)
    assert (delivery, result) == (WriteOutcome.REFUSED, CommandResult.REFUSED)
    assert "allowed" in why
    assert bench.device.told == []


async def test_obey_out_of_range_is_refused_whole_before_the_wire(bench: Bench) -> None:
    delivery, result, why = await bench.tell(CommandOp.SETPOINT, 3010)
    assert (delivery, result) == (WriteOutcome.REFUSED, CommandResult.REFUSED)
    assert "power" in why
    assert [line for line in bench.device.told if not line.startswith("saved")] == []


@pytest.mark.parametrize(("wanted_w", "written"), [(49, 0), (59, -50), (-59, 50), (50, -50), (0, 0)])
async def test_obey_step_and_minimum_cut_towards_zero(bench: Bench, wanted_w: float, written: int) -> None:
    await bench.tell(CommandOp.SETPOINT, wanted_w)
    assert f"power={written}" in bench.device.told


async def test_release_that_the_device_refuses_ends_what_goes_on_by_itself_all_the_same(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, 500)
    seen = [bench.control.running]
    bench.device.refuses = {"enable"}
    assert (await bench.tell(CommandOp.RELEASE))[1] is CommandResult.REFUSED
    assert [*seen, bench.control.running] == [True, False]
    assert bench.control.in_force is None


async def test_lease_that_no_command_renews_ends_what_goes_on_by_itself(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, 500)
    seen = []
    for s in (59, 1):
        bench.clock.advance(s=s)
        seen.append(bench.control.running)
    assert seen == [True, False]
    bench.device.told.clear()
    await bench.control.follow(bench.variant, bench.device)
    await bench.control.beat(bench.variant, bench.device)
    assert bench.device.told == []


async def test_obey_refused_half_way_hands_the_device_back(bench: Bench) -> None:
    bench.device.refuses = {"power"}
    assert (await bench.tell(CommandOp.SETPOINT, 500))[:2] == (WriteOutcome.REFUSED, CommandResult.REFUSED)
    assert bench.device.told[-4:] == ["enable=0", "mode=1", "limit=2500", "restored"]
    assert not bench.control.running


async def test_obey_link_lost_half_way_raises_and_keeps_what_was_saved(bench: Bench) -> None:
    bench.device.loses = {"enable"}
    with pytest.raises(LinkDown):
        await bench.tell(CommandOp.SETPOINT, 500)
    assert bench.journal.load().prior == {DEVICE: {"mode": 1.0, "limit": 2500.0}}


async def test_obey_device_that_does_not_show_what_was_written_is_refused_and_handed_back(bench: Bench) -> None:
    original = bench.device.read

    async def read(points: Sequence[str]) -> dict[str, Raw]:
        return await original(points) | ({"power": (1,)} if "power" in points else {})

    bench.device.read = read  # type: ignore[method-assign]
    assert (await bench.tell(CommandOp.SETPOINT, 500))[1] is CommandResult.REFUSED
    assert bench.stats.not_shown == 1
    assert bench.device.registers["enable"] == 0


async def test_obey_expired_and_older_commands_are_not_carried_out(bench: Bench) -> None:
    assert (await bench.tell(CommandOp.SETPOINT, 500, valid_until_ms=bench.clock.utc - 1))[1] is CommandResult.EXPIRED
    await bench.tell(CommandOp.SETPOINT, 500)
    assert (await bench.tell(CommandOp.SETPOINT, 900, cmd=1))[1] is CommandResult.OLDER
    assert "power=-900" not in bench.device.told


async def test_send_a_day_s_budget_is_used_up_refuses_until_tomorrow(bench: Bench) -> None:
    for _ in range(1):
        await bench.tell(CommandOp.SETPOINT, 500)
        await bench.tell(CommandOp.RELEASE)
    await bench.tell(CommandOp.SETPOINT, 500)
    assert (await bench.tell(CommandOp.RELEASE))[1] is CommandResult.REFUSED
    assert bench.stats.over_budget == 1
    bench.clock.advance(s=86_400)
    assert (await bench.tell(CommandOp.RELEASE))[1] is CommandResult.APPLIED
    assert bench.device.registers["mode"] == 1


async def test_observe_somebody_else_writes_twice_in_a_row_it_is_taken_over(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, 500)
    bench.device.registers["power"] = 77
    seen = []
    for _ in range(2):
        await bench.poll()
        seen.append(bench.control.taken_over)
    await bench.tell(CommandOp.SETPOINT, 500)
    await bench.poll()
    assert [*seen, bench.control.taken_over] == [False, True, False]


async def test_observe_what_the_product_still_shows_before_it_has_settled_is_nobody_s_choice(bench: Bench) -> None:
    control = bench.variant.control
    assert control is not None
    bench.variant.control = control.model_copy(update={"settle_s": 0.01})
    await bench.tell(CommandOp.SETPOINT, 500)
    bench.device.registers["power"] = 77
    for _ in range(3):
        await bench.poll()
    assert not bench.control.taken_over
    bench.clock.advance(s=0.01)
    await bench.poll()
    await bench.poll()
    assert bench.control.taken_over


async def test_observe_after_the_lease_a_change_is_nobody_s_business(bench: Bench) -> None:
    await bench.tell(CommandOp.SETPOINT, 500)
    bench.clock.advance(s=61)
    bench.device.registers["power"] = 77
    await bench.poll()
    await bench.poll()
    assert not bench.control.taken_over
