"""Readings that do not come while events run: what is commanded stands still, what is assumed is called so."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gateway.domain.control.allocation import Shortfall
from gateway.domain.events.attribution import Credit
from gateway.domain.events.request import power
from gateway.domain.readings import StatusBatch
from gateway.services.control.metrics import control_samples
from gateway.services.events.delivery_records import bodies
from gateway.services.settings import FeederSettings
from gateway.transports.mqtt.connection import PublishOutcome
from simulators.faults import Fault, FaultKind
from simulators.messages import Outgoing
from tests.builders.fakes import FACTS
from tests.builders.homes import homes
from tests.scenes.street import Street
from tests.scenes.world import SETTINGS, World, group, homes_of

MISSING = "devices under control send no readings; others make up for them"
BACK = "devices under control send readings again"


async def tracking(count: int = 8, *, part: float = 0.96, target_w: float = 15_000.0, s: float = 1_800) -> World:
    """A fleet that does `part` of what it is told, and whose target has been reached."""
    world = World(homes_of(count))
    world.homes.part[:] = part
    world.homes.soc_pct[:] = 80
    await world.go(2)
    await world.submit(s=s, target_w=target_w)
    return await world.go(120)


def told_w(world: World) -> int:
    return int(world.fleet.control.setpoint_w[: world.fleet.n].sum())


def metrics(world: World) -> dict[str, float]:
    return {sample.name: sample.value for sample in control_samples(world.queries)}


# -- the trim ----------------------------------------------------------------------------------------------------


async def test_unmeasured_fleet_goes_on_with_what_it_was_told_though_a_part_of_it_never_followed() -> None:
    world = await tracking(part=1.0)
    world.homes.part[[0, 1]] = 0.3  # the others make up for these
    await world.go(120)
    before_w, commanded_w = world.trace[-1], told_w(world)
    assert commanded_w - before_w == pytest.approx(2_900, rel=0.1)
    assert before_w == pytest.approx(15_000, rel=0.03)
    world.homes.unseen |= set(range(8))
    world.trace.clear()
    await world.go(115)
    assert np.abs(np.array(world.trace) - before_w).max() <= 0.005 * before_w
    assert told_w(world) == pytest.approx(commanded_w, rel=0.005)


async def test_unmeasured_fleet_is_not_corrected_and_goes_on_where_it_was_when_readings_are_back() -> None:
    world = await tracking()
    before_w, offset_w = told_w(world), world.control._trackings[0].trim.offset_w
    world.homes.unseen |= set(range(8))
    await world.go(100)
    assert world.control._trackings[0].trim.offset_w == offset_w
    assert told_w(world) == pytest.approx(before_w, rel=0.005)
    world.homes.unseen.clear()
    world.trace.clear()
    await world.go(200)
    assert np.abs(np.array(world.trace) - 15_000).max() <= 0.015 * 15_000
    assert world.trace[-1] == pytest.approx(15_000, rel=0.005)
    assert world.steps_w() <= 100


async def test_unmeasured_part_is_made_up_for_and_the_measured_part_is_still_corrected() -> None:
    world = await tracking()
    await world.go(100)
    world.homes.unseen |= {0, 1, 2, 3}
    await world.go(60)
    assert world.homes.battery_w[:4].sum() == 0
    assert world.trace[-1] == pytest.approx(15_000, rel=0.005)
    world.homes.part[4:] = 0.955
    await world.go(100)
    assert world.trace[-1] == pytest.approx(15_000, rel=0.004)
    assert (world.progress().assumed_w, world.progress().unserved_w) == (0, 0)


# -- what may have flowed ----------------------------------------------------------------------------------------


async def revised(world: World, revision: int, target_w: float) -> None:
    await world.dispatcher.submit(world.event(s=600, target_w=target_w, revision=revision))


def most_w(world: World) -> float:
    """What the only home may still be told to discharge."""
    assert world.queries.envelope is not None
    return float(world.queries.envelope.discharge_w[0])


async def test_unmeasured_home_may_have_given_the_most_it_was_told_since_it_was_read_and_not_only_the_last() -> None:
    world = World(homes_of(1), settings=SETTINGS.model_copy(update={"fleet_w_per_s": 10_000.0}))
    world.homes.soc_pct[:] = 27.5  # 237.5 Wh above what its reserve needs
    await world.go(2)
    await world.submit(s=600, target_w=300)
    await world.go(30)
    world.homes.unseen.add(0)
    await revised(world, 2, 4_000)
    await world.go(60)
    for revision, target_w in ((3, 600), (4, 700)):
        await revised(world, revision, target_w)
        await world.go(5)
    assert world.homes.battery_w[0] == 700
    drained_ws = (4_000 + 30) * (70 + 5)
    assert most_w(world) == pytest.approx((3_600 * 237.5 - drained_ws) / 120 - 30, rel=0.02)
    # read again, what has flowed is in its state of charge
    world.homes.unseen.clear()
    world.homes.soc_pct[:] = 26.8
    await world.go(2)
    assert most_w(world) == pytest.approx((3_600 * 171 - (700 + 30) * 5) / 120 - 30, rel=0.02)


# -- what is told ------------------------------------------------------------------------------------------------


async def test_unmeasured_power_is_told_as_assumed_and_nothing_as_delivered_or_served() -> None:
    world = await tracking()
    assert world.progress().assumed_w == 0
    assert metrics(world)["gateway_event_assumed_watts"] == 0
    world.homes.unseen |= set(range(8))
    await world.go(40)
    told, found = world.progress(), metrics(world)
    assert (told.delivered_w, told.unmeasured, told.reason) == (0, 8, Shortfall.UNMEASURED)
    assert told.assumed_w == pytest.approx(15_000, rel=0.02)
    assert told.unserved_w == pytest.approx(15_000, rel=0.01)
    entry = world.dispatcher.entry("e")
    assert entry is not None
    assert world.queries.credit(entry) == Credit(own_w=0, shared_w=0)
    assert [round(found[f"gateway_event_{name}_watts"]) for name in ("delivered", "attributed")] == [0, 0]
    assert found["gateway_event_assumed_watts"] == told.assumed_w
    assert found["gateway_event_unserved_watts"] == told.unserved_w
    assert (found["gateway_measured_power_ratio"], found["gateway_unmeasured_devices"]) == (0, 8)


async def test_unmeasured_part_is_told_beside_what_is_delivered() -> None:
    world = await tracking(target_w=34_000.0)  # more than those that are measured can carry
    world.homes.unseen |= {0, 1}
    await world.go(40)
    told = world.progress()
    assert told.delivered_w == pytest.approx(float(world.homes.battery_w[2:].sum()))
    assert told.assumed_w == pytest.approx(float(world.homes.battery_w[:2].sum()), rel=0.01)
    assert told.unserved_w == pytest.approx(told.assumed_w / 0.96, rel=0.01)
    assert told.delivered_w == pytest.approx(6 * 5_000 * 0.96)
    rest_w = float(world.fleet.control.setpoint_w[:2].sum())
    assert metrics(world)["gateway_measured_power_ratio"] == pytest.approx(1 - rest_w / told_w(world), abs=0.001)
    world.homes.unseen.clear()
    read_w = float(world.homes.battery_w.sum())
    await world.go(1)
    back = world.progress()
    assert (back.assumed_w, back.unserved_w, back.unmeasured) == (0, 0, 0)
    assert back.delivered_w == pytest.approx(read_w)


async def test_unmeasured_energy_is_not_booked_and_the_record_says_how_much_was_asked_meanwhile() -> None:
    world = await tracking(target_w=38_000.0)
    world.homes.unseen.add(0)
    await world.go(35)
    before = world.rows()["home-00"]
    assert (before["status"], before["measured_w"]) == ("started", None)
    assert before["assumed_w"] == pytest.approx(float(world.homes.battery_w[0]), rel=0.02)
    await world.go(60)
    after, other = world.rows()["home-00"], world.rows()["home-01"]
    assert after["delivered_wh"] == before["delivered_wh"]
    asked_wh = after["asked_wh"] - before["asked_wh"]
    assert after["unmeasured_wh"] - before["unmeasured_wh"] == pytest.approx(asked_wh, abs=0.02)
    assert after["shortfall_wh"] - before["shortfall_wh"] == pytest.approx(asked_wh, abs=0.02)
    assert (other["status"], other["assumed_w"], other["unmeasured_wh"]) == ("delivering", None, 0)
    assert other["delivered_wh"] > after["delivered_wh"] + 25
    world.homes.soc_pct[:] = 76
    world.homes.unseen.clear()
    await world.go(60)
    assert world.rows()["home-00"]["status"] == "delivering"
    assert world.rows()["home-00"]["delivered_wh"] > after["delivered_wh"] + 25


async def test_unmeasured_rebound_is_not_counted() -> None:
    world = await tracking(2, part=1.0, target_w=2_000, s=140)
    world.homes.own_w[:] = -1_500
    await world.go(60)
    rebound = next(iter(world.control.maintenance.rebounds.values()))
    assert rebound.power_w == 3_000
    world.homes.unseen.add(0)
    await world.go(40)
    assert rebound.power_w == 1_500
    before_wh = rebound.energy_wh
    await world.go(36)
    assert rebound.energy_wh - before_wh == pytest.approx(15, rel=0.01)


async def test_unmeasured_record_from_before_there_was_the_word_tells_nothing_of_it() -> None:
    world = await tracking(1, target_w=1_000)
    rows = world.control.records.columns()
    columns = {name.rpartition("/")[2]: values for name, values in rows.items()}
    for name in ("slot", "assumed_w", "unmeasured_wh"):
        del columns[name]
    (body,) = bodies("e", ["home-00"], columns)
    assert (body["assumed_w"], body["unmeasured_wh"], body["status"]) == (None, None, "delivering")


# -- products that are read slowly -------------------------------------------------------------------------------


def every(world: World, seconds: int, seen_w: list[float]) -> Callable[[], None]:
    """Homes are read every so many seconds; what is assumed of them after each second."""

    def each() -> None:
        seen_w.append(world.progress().assumed_w)
        read = len(seen_w) % seconds == 0
        world.homes.unseen = set() if read else set(range(world.fleet.n))

    return each


@pytest.mark.parametrize(("report_s", "assumed"), [(10.0, False), (45.0, True)])
async def test_unmeasured_is_a_product_long_after_a_reading_and_not_overdue_before_several_more_were_due(
    report_s: float, assumed: bool
) -> None:
    world = World(homes_of(4), facts=replace(FACTS, report_s=report_s))
    await world.go(2)
    await world.submit(s=1_200, target_w=4_000)
    await world.go(60)
    seen_w: list[float] = []
    await world.go(300, each=every(world, 45, seen_w))
    assert (max(seen_w) > 0) is assumed
    assert world.queries.reasons() == []
    assert world.control.unmeasured.warnings() == (
        ["product p: measured every 45 s, its power in between is assumed"] if assumed else []
    )
    assert world.trace[-1] == pytest.approx(4_000, rel=0.01)


@pytest.mark.parametrize(("profile_s", "own_s", "most_s"), [(5.0, 1.0, 15), (5.0, None, 25), (1.0, 10.0, 50)])
async def test_unmeasured_device_is_told_and_made_up_for_by_the_period_that_it_states_itself(
    profile_s: float, own_s: float | None, most_s: int
) -> None:
    world = World(homes_of(4), facts=replace(FACTS, report_s=profile_s))
    if own_s is not None:
        slots = np.arange(4, dtype=np.int32)
        world.fleet.observe_status(
            StatusBatch(slots=slots, online=np.ones(4, dtype=np.bool_), report_s=np.full(4, own_s)), world.clock.now()
        )
    await world.go(2)
    await world.submit(s=1_200, target_w=8_000)
    await world.go(60)
    world.homes.silent.add(0)
    world.homes.unresponsive.add(0)
    world.homes.battery_w[0] = 0.0
    await world.go(most_s)
    assert world.homes.battery_w.sum() == pytest.approx(6_000, rel=0.02)
    await world.go(6)
    assert world.progress().delivered_w == pytest.approx(8_000, rel=0.02)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)


async def test_unmeasured_device_that_drops_out_again_and_again_is_not_told_something_else_each_time() -> None:
    world = World(homes_of(4), facts=replace(FACTS, report_s=1.0))
    await world.go(2)
    await world.submit(s=1_200, target_w=8_000)
    await world.go(60)
    told = len(world.ops(0))
    for _ in range(12):
        world.homes.unseen.add(0)
        await world.go(17)
        world.homes.unseen.clear()
        await world.go(5)
    assert len(world.ops(0)) - told <= 6
    await world.go(60)
    assert world.homes.battery_w[0] == pytest.approx(2_000, rel=0.05)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)


async def test_unmeasured_devices_that_are_heard_again_soon_after_each_other_move_power_once() -> None:
    world = World(homes_of(20), facts=replace(FACTS, report_s=1.0))
    await world.go(2)
    await world.submit(s=1_200, target_w=80_000)  # more than those that are heard can carry
    await world.go(100)
    world.homes.unseen |= set(range(10))
    await world.go(60)
    setpoints_w = [world.fleet.control.setpoint_w[:20].copy()]
    world.trace.clear()
    for _ in range(90):
        world.homes.unseen.discard(len(setpoints_w) - 1)  # one a second
        await world.go(1)
        setpoints_w.append(world.fleet.control.setpoint_w[:20].copy())
    moved_w = np.abs(np.diff(setpoints_w, axis=0)).sum()
    assert moved_w <= 1.3 * np.abs(setpoints_w[-1] - setpoints_w[0]).sum()
    assert setpoints_w[-1] == pytest.approx(np.full(20, 4_000), rel=0.02)
    assert world.trace == pytest.approx([80_000] * 90, rel=0.01)


async def test_unmeasured_power_that_may_still_flow_counts_where_a_feeder_bounds_those_that_make_up_for_it() -> None:
    settings = SETTINGS.model_copy(update={"feeders": FeederSettings(ceiling_kw=10.0)})
    world = World(homes_of(4, feeder="f"), facts=replace(FACTS, report_s=1.0), settings=settings)
    await world.go(2)
    await world.submit(s=1_200, target_w=8_000)
    await world.go(60)
    world.homes.silent.add(0)
    world.homes.unresponsive.add(0)
    world.trace.clear()
    await world.go(40)
    assert 9_800 <= max(world.trace) <= 10_000


# -- who is told -------------------------------------------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, int]]:
    return [
        (record.levelname, str(record.__dict__["event"]), int(record.__dict__["count"]))
        for record in caplog.records
        if record.message in (MISSING, BACK)
    ]


async def test_unmeasured_control_is_logged_on_its_edges_and_is_a_reason_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = await tracking()
    assert world.queries.reasons() == []
    world.homes.unseen |= {0, 1, 2}
    await world.go(30)
    assert (lines(caplog), world.queries.reasons()) == ([], [])
    await world.go(60)
    assert lines(caplog) == [("WARNING", "e", 3)]
    (reason,) = world.queries.reasons()
    assert reason.startswith("control: no readings of 3 devices under control (2")
    world.homes.unseen.clear()
    await world.go(5)
    assert lines(caplog) == [("WARNING", "e", 3), ("INFO", "e", 0)]
    assert world.queries.reasons() == []


async def test_unmeasured_one_home_of_many_is_neither_logged_nor_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    world = await tracking(16, target_w=30_000)
    world.homes.unseen.add(0)
    await world.go(90)
    assert world.progress().delivered_w == pytest.approx(30_000, rel=0.01)
    assert world.progress().unserved_w == 0
    assert world.rows()["home-00"]["failure"] == "offline"
    assert (lines(caplog), world.queries.reasons()) == ([], [])


async def test_unmeasured_event_is_named_though_the_fleet_as_a_whole_is_read(caplog: pytest.LogCaptureFixture) -> None:
    world = World(homes_of(16))
    world.homes.soc_pct[:] = 80
    await world.go(2)
    await world.submit("all", s=600, target_w=28_000, group=group(*(f"home-{i:02d}" for i in range(1, 16))))
    await world.submit("one", s=600, target_w=1_000, group=group("home-00"))
    await world.go(60)
    world.homes.unseen.add(0)
    await world.go(60)
    assert lines(caplog) == [("WARNING", "one", 1)]
    assert world.queries.reasons() == []


async def test_unmeasured_homes_outside_control_are_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    world = World(homes_of(4))
    await world.go(5)
    world.homes.unseen |= set(range(4))
    await world.go(60)
    assert (lines(caplog), world.queries.reasons()) == ([], [])
    assert metrics(world)["gateway_measured_power_ratio"] == 1


# -- with real firmware and batteries ----------------------------------------------------------------------------


async def test_unmeasured_street_gives_on_what_it_gave_while_commands_and_answers_go_through() -> None:
    n = 20
    street = Street(
        homes(n, capacity_wh=10_000.0, discharge_w_max=5_000.0, charge_w_max=5_000.0, soc_start_pct=80.0)
    )  # fmt: skip
    await street.go(3)
    for index in range(4):
        street.inject(index, Fault(kind=FaultKind.DEAF))
    await street.submit("e", s=1_200, target=power(40_000))
    await street.go(180)
    batteries = street.devices.batteries
    assert float(batteries.battery_w.sum()) == pytest.approx(40_000, rel=0.02)
    before_w = float(batteries.battery_w[4:].sum())  # the others do as their homes need
    for index in range(n):
        street.inject(index, Fault(kind=FaultKind.STALE, for_s=75))
    powers: list[float] = []
    for _ in range(75):
        await street.go(1)
        powers.append(float(batteries.battery_w[4:].sum()))
    assert np.abs(np.array(powers) - before_w).max() <= 0.002 * before_w
    entry = street.dispatcher.entry("e")
    assert entry is not None
    told = street.queries.progress(entry)
    assert told is not None
    assert (told.delivered_w, told.unserved_w >= 38_000) == (0, True)
    await street.go(60)
    told = street.queries.progress(entry)
    assert told is not None
    assert (told.assumed_w, told.unserved_w) == (0, 0)
    assert told.delivered_w == pytest.approx(40_000, rel=0.02)
    assert street.problems == []


@pytest.mark.parametrize("sign", [1, -1])
async def test_missing_readings_do_not_make_more_unserved_than_is_not_delivered(sign: int) -> None:
    """What an overdue device is assumed to give is no second time what could be given to nobody."""
    world = World(homes_of(2))
    await world.go(2)
    await world.submit(s=1_800, target_w=sign * 8_000.0)
    await world.go(30)
    world.homes.unseen = {0}
    seen = []

    def told() -> None:
        found = world.progress()
        seen.append(sign * (found.delivered_w + found.unserved_w))

    await world.go(300, each=told)
    assert max(seen) <= 8_000
    assert seen[-1] == pytest.approx(8_000, rel=0.01)


class HalfFrozen(Street):
    """A street of which `FROZEN` homes are behind a broker that stands still for a while. It keeps what they say in the
    first `KEPT_S` seconds of that and hands it over when it goes on; they connect again `AWAY_S` later."""

    FROZEN = frozenset(range(12))
    KEPT_S, AWAY_S = 60, 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.frozen, self.since_ms = False, 0
        self.kept: list[Outgoing] = []

    def freeze(self, *, on: bool) -> None:
        self.frozen, self.since_ms = on, self.now_ms
        topics = [self.devices.topics.command[i] for i in self.FROZEN]
        self.wire.failing = dict.fromkeys(topics, PublishOutcome.NOT_SENT) if on else {}

    def arriving(self, messages: list[Outgoing]) -> list[Outgoing]:
        since_s = (self.now_ms - self.since_ms) / 1000
        if not self.frozen and since_s > self.AWAY_S:
            return messages
        passed = [message for message in messages if message.index not in self.FROZEN]
        if not self.frozen:
            kept, self.kept = self.kept, []
            return kept + passed
        if since_s <= self.KEPT_S:
            self.kept += [message for message in messages if message.index in self.FROZEN]
        return passed


@pytest.mark.fault("F3")
async def test_unmeasured_street_is_not_taken_for_delivering_nor_left_without_target_by_readings_a_broker_kept() -> (
    None
):
    street = HalfFrozen(
        homes(20, capacity_wh=10_000.0, discharge_w_max=5_000.0, charge_w_max=5_000.0, soc_start_pct=80.0)
    )  # fmt: skip
    seen = slice(len(HalfFrozen.FROZEN), 20)
    await street.go(3)
    await street.submit("e", s=1_200, target=power(30_000))
    await street.go(60)
    street.freeze(on=True)
    await street.go(200)
    assert not street.remote[: seen.start].any()  # every lease has run out
    street.freeze(on=False)
    entry = street.dispatcher.entry("e")
    assert entry is not None
    told_w: list[float] = []
    seen_w: list[float] = []
    true_w = [np.inf]
    for _ in range(60):
        await street.go(1)
        told = street.queries.progress(entry)
        assert told is not None
        told_w.append(told.delivered_w)
        seen_w.append(float(street.devices.batteries.battery_w[seen].sum()))
        true_w.append(float(street.devices.batteries.battery_w.sum()))
    away = slice(HalfFrozen.AWAY_S)
    assert told_w[away] == pytest.approx(seen_w[away], rel=0.001)
    assert seen_w[away] == pytest.approx([30_000] * HalfFrozen.AWAY_S, rel=0.02)
    assert (np.array(told_w) <= 1 + np.maximum(true_w[1:], true_w[:-1])).all()
    assert told_w[-1] == pytest.approx(30_000, rel=0.02)
    assert street.fleet_clock.reasons() == []
    assert street.problems == []
