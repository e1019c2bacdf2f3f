"""Events of every kind over devices that follow: overlaps, owners, storms, legs, records, restarts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.domain.commands import CommandOp
from gateway.domain.control.allocation import Shortfall
from gateway.domain.events.book import Outcome
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import Compensation, Leg, Target, TargetGroup, Want, power, power_of_each
from gateway.domain.fleet.reserve import SUSTAINED_S
from gateway.domain.journal.changes import EventDelivered, EventMoved, ExclusionLifted, Trusted
from gateway.domain.readings import StatusBatch
from gateway.domain.types import DeviceId, EventId
from gateway.services.settings import ControlSettings, FeederSettings, MaintenanceSettings, ProgramSettings
from tests.builders.fakes import FACTS, home
from tests.scenes.world import SETTINGS, World, group, homes_of

BLOCKS = replace(FACTS, blocks=True)


def exclusion(world: World, name: str, *ids: str, reason: str = "opt_out", **other: object) -> Exclusion:
    known: dict[str, object] = {
        "id": name, "reason": reason, "group": group(*ids), "from_ms": world.clock.utc, "until_ms": None,
    }  # fmt: skip
    return Exclusion(**(known | other))  # type: ignore[arg-type]


async def running(count: int = 4, *, target_w: float = 8_000.0, **other: Any) -> World:
    world = World(homes_of(count))
    await world.go(2)
    await world.submit(s=600, target_w=target_w, **other)
    return await world.go(30)


# -- overlaps ---------------------------------------------------------------------------------------------------


@pytest.mark.fault("F18")
async def test_dispatch_loser_of_a_device_resumes_when_the_winner_is_over() -> None:
    world = await running()
    await world.submit("other", s=60, target_w=-3_000, priority=1, group=group("home-00", "home-01"))
    await world.go(40)
    assert world.homes.battery_w[:2].sum() == pytest.approx(-3_000, abs=100)
    assert world.homes.battery_w[2:].sum() == pytest.approx(8_000, rel=0.02)
    await world.go(60)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    assert world.state("other") == "completed"


async def test_dispatch_event_that_loses_everybody_is_superseded_and_comes_back() -> None:
    world = await running()
    await world.submit("other", s=60, target_w=-3_000, priority=1)
    await world.go(2)
    assert world.state() == "superseded"
    assert {row["status"] for row in world.rows().values()} == {"superseded"}
    await world.go(80)
    assert world.state() == "active"
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.03)


async def test_dispatch_stacked_programs_share_the_batteries_and_each_is_credited() -> None:
    world = World(homes_of(4))
    world.homes.load_w[:] = 800
    await world.go(2)
    await world.submit(
        "ra", s=600, target_w=8_000, priority=1, voluntary=False, compensation=Compensation.SITE_LOAD, program="ra"
    )
    await world.submit("dsgs", s=600, target_w=8_000, program="dsgs")
    await world.go(40)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    totals = world.queries.totals()
    assert totals["ra"].attributed_w == pytest.approx(3_200, rel=0.02)
    assert totals["dsgs"].attributed_w == pytest.approx(4_800, rel=0.03)


async def test_dispatch_program_that_pays_for_load_only_does_not_export() -> None:
    world = World(homes_of(4))
    world.homes.load_w[:] = 800
    await world.go(2)
    await world.submit(s=600, target_w=8_000, compensation=Compensation.SITE_LOAD)
    await world.go(40)
    assert (world.homes.battery_w <= 800).all()
    assert world.homes.battery_w.sum() == pytest.approx(4 * 750, rel=0.02)


async def test_dispatch_adjacent_events_are_joined_without_a_gap() -> None:
    world = World(homes_of(4))
    await world.go(2)
    start_ms = world.clock.utc
    for i in range(3):
        await world.submit(f"hour-{i}", s=60, target_w=8_000, start_ms=start_ms + i * 60_000,
                           end_ms=start_ms + (i + 1) * 60_000)  # fmt: skip
    await world.go(30)
    world.trace.clear()
    await world.go(145)
    assert min(world.trace) >= 8_000 * 0.99
    assert CommandOp.RELEASE not in world.ops()


@pytest.mark.parametrize("steady", [0, 9])
async def test_dispatch_event_that_reverses_is_not_slowed_by_those_that_stand_still(steady: int) -> None:
    world = World(homes_of(10 + steady), settings=SETTINGS.model_copy(update={"fleet_w_per_s": 10_000.0}))
    await world.go(2)
    for i in range(steady):
        await world.submit(f"steady-{i}", s=3_600, target_w=1_000.0, group=group(f"home-{10 + i:02d}"))
    mine = group(*(f"home-{i:02d}" for i in range(10)))
    await world.submit("large", s=3_600, target_w=45_000.0, group=mine)
    await world.go(20)
    await world.submit("large", s=3_600, target_w=-45_000.0, group=mine, revision=2)
    world.trace.clear()
    await world.go(10)
    assert world.homes.battery_w[:10].sum() <= -0.98 * 45_000
    assert world.steps_w() <= 1.02 * 10_000


async def test_dispatch_legs_follow_each_other_with_a_target_each() -> None:
    world = World(homes_of(4))
    await world.go(2)
    legs = tuple(
        Leg(after_ms=a * 1000, until_ms=u * 1000, target=power(w))
        for a, u, w in ((0, 60, 8_000.0), (60, 120, 2_000.0), (120, 180, -4_000.0))
    )
    await world.submit(s=180, target_w=8_000, legs=legs)
    powers = [float((await world.go(58)).homes.battery_w.sum()) for _ in range(3)]
    assert powers == pytest.approx([8_000, 2_000, -4_000], rel=0.02)


async def test_dispatch_event_that_repeats_hands_back_between_and_keeps_a_record_of_each() -> None:
    world = World(homes_of(2))
    await world.go(2)
    leg = Leg(after_ms=0, until_ms=60_000, target=power(4_000.0))
    await world.submit(s=600, target_w=4_000, legs=(leg,), every_ms=180_000)
    await world.go(40)
    assert world.authority() == ["CONTROLLED"] * 2
    await world.go(60)
    assert world.authority() == ["DEVICE"] * 2
    assert world.state() == "scheduled"
    await world.go(110)
    assert world.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)
    await world.go(60)
    kept = [change for change in world.journal.kept if isinstance(change, EventDelivered)]
    assert len({change.occurrence_ms for change in kept}) == len(kept) == 2


# -- owners and storms ------------------------------------------------------------------------------------------


async def test_dispatch_owner_who_opts_out_is_handed_back_within_a_tick_and_others_take_over() -> None:
    world = await running()
    await world.dispatcher.exclude(exclusion(world, "no-thanks", "home-01"))
    await world.go(1)
    assert world.ops(1)[-1] is CommandOp.RELEASE
    assert world.homes.battery_w[1] == 0
    await world.go(20)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    assert world.rows()["home-01"]["status"] == "opted_out"


async def test_dispatch_opt_out_of_one_event_survives_its_updates_and_not_the_next_event() -> None:
    world = await running()
    await world.dispatcher.exclude(exclusion(world, "not-this-one", "home-01", event=EventId("e")))
    await world.go(2)
    written = len(world.ops(1))
    for revision in (2, 3):
        await world.dispatcher.submit(world.event(s=600, target_w=6_000, revision=revision))
        await world.go(20)
    assert len(world.ops(1)) == written
    assert world.homes.battery_w[1] == 0
    world.restart(away_s=2)
    await world.go(20)
    assert world.homes.battery_w[1] == 0
    await world.dispatcher.cancel("e")
    await world.go(40)
    await world.submit("next", s=600, target_w=8_000)
    await world.go(30)
    assert world.homes.battery_w[1] > 1_000


async def test_dispatch_owner_who_opts_out_on_the_device_is_handed_back_within_a_tick() -> None:
    world = await running()
    world.homes.opted_out.add(2)
    await world.go(1)
    assert world.homes.battery_w[2] == 0
    # Neither one reading nor a restart of its controller takes an owner's word back.
    world.homes.opted_out.clear()
    await world.go(round(SUSTAINED_S) - 1)
    assert world.homes.battery_w[2] == 0
    await world.go(30)
    assert world.homes.battery_w[2] > 1_000


@pytest.mark.parametrize("reason", ["opt_out", "storm"])
async def test_dispatch_exclusion_of_a_whole_group_is_no_step(reason: str) -> None:
    world = World(homes_of(20), settings=ControlSettings(fleet_w_per_s=6_000.0, release_spread_s=10.0))
    await world.submit(s=3_600, target_w=40_000)
    await world.go(30)
    world.trace.clear()
    everybody = exclusion(world, "all", *world.fleet.ids, reason=reason)
    await world.dispatcher.exclude(everybody)
    await world.go(3)
    assert world.trace[0] == pytest.approx(40_000, rel=0.03)
    await world.go(40)
    assert world.steps_w() < 6_000 * 1.1
    assert abs(world.trace[-1]) < 100
    after = world.authority()
    assert after == (["DEVICE"] * 20 if reason == "opt_out" else after)


async def test_dispatch_owners_leaving_one_event_all_at_once_are_no_step() -> None:
    world = World(homes_of(20), settings=ControlSettings(fleet_w_per_s=6_000.0, release_spread_s=2.0))
    await world.submit(s=3_600, target_w=40_000)
    await world.go(30)
    world.trace.clear()
    await world.dispatcher.exclude(exclusion(world, "all", *world.fleet.ids, event=EventId("e")))
    await world.go(60)
    assert world.steps_w() < 6_000 * 1.1
    assert world.authority() == ["DEVICE"] * 20


async def test_clock_guard_maintenance_that_waits_for_a_silent_device_does_not_keep_a_wrong_clock() -> None:
    world = World(homes_of(2), settings=ControlSettings(maintenance=MaintenanceSettings(full_charge_cycles=10)))
    world.fleet.live.since_full_wh[:2] = 250_000
    world.homes.silent.add(1)
    await world.go(30)
    world.clock.utc += 7_200_000
    await world.go(600)
    assert world.queries.idle()
    assert world.clock_guard._clock.step_ms == 0


async def test_dispatch_opt_out_ends_by_itself_and_the_journal_forgets_it() -> None:
    world = await running()
    await world.dispatcher.exclude(exclusion(world, "short", "home-01", until_ms=world.clock.utc + 20_000))
    await world.go(15)
    assert world.homes.battery_w[1] == 0
    await world.go(40)
    assert world.homes.battery_w[1] > 1_000
    assert ExclusionLifted(id="short") in world.journal.kept
    assert world.journal.load().exclusions == ()


async def test_dispatch_storm_keeps_energy_and_lets_charging_go_on() -> None:
    world = await running()
    await world.dispatcher.exclude(exclusion(world, "storm", "home-00", "home-01", reason="storm"))
    await world.go(2)
    assert (world.homes.battery_w[:2] <= 0).all()
    await world.dispatcher.cancel("e")
    await world.go(40)
    await world.submit("fill", s=600, target_w=-4_000)
    await world.go(30)
    assert world.homes.battery_w[:2].sum() < -1_000


# -- members that are given nothing -----------------------------------------------------------------------------


async def test_dispatch_what_is_missing_counts_what_members_take_by_themselves_while_that_changes() -> None:
    world = World(homes_of(3))
    world.homes.soc_pct[1:] = 20
    missing_w: list[float] = []

    def changes() -> None:
        world.homes.own_w[1:] = -300 - 200 * (world.clock.utc // 1000 % 5)
        for slot in (1, 2):
            world.homes.revert(slot)
        missing_w.append(world.progress().target_w - world.progress().delivered_w - world.progress().unserved_w)

    await world.go(2)
    await world.submit(s=600, target_w=6_000)
    await world.go(30)
    await world.go(60, each=changes)
    assert world.authority() == ["CONTROLLED", "DEVICE", "DEVICE"]
    # what changed within the second, and no more
    assert max(map(abs, missing_w)) <= 2 * 1_000


async def test_dispatch_member_at_its_reserve_is_kept_from_discharging_where_the_product_can() -> None:
    world = World(homes_of(3), facts_of={"home-02": BLOCKS})
    world.homes.soc_pct[2] = 20
    world.homes.own_w[2] = -700
    await world.go(2)
    await world.submit(s=600, target_w=4_000)
    await world.go(30)
    assert world.ops(2) == [CommandOp.BLOCK]
    assert world.homes.battery_w[2] == -700
    assert world.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)
    await world.go(100)
    assert set(world.ops(2)) == {CommandOp.BLOCK}


async def test_dispatch_member_at_its_reserve_is_left_to_itself_where_the_device_keeps_the_reserve() -> None:
    world = World(homes_of(3))
    world.homes.soc_pct[2] = 20
    await world.go(2)
    await world.submit(s=600, target_w=4_000)
    await world.go(30)
    assert world.ops(2) == []
    assert world.authority()[2] == "DEVICE"


async def test_dispatch_member_at_its_reserve_is_held_where_the_device_would_go_below() -> None:
    world = World(homes_of(3))
    world.homes.soc_pct[2] = 20
    world.homes.reserve_pct[2] = 5
    await world.go(2)
    # the owner's 20 % are registered, the device keeps 5 % and refuses another
    world.fleet.control.written_reserve_pct[2] = 20
    await world.submit(s=600, target_w=4_000)
    await world.go(30)
    assert set(world.ops(2)) == {CommandOp.HOLD}


@pytest.mark.fault("F23")
async def test_dispatch_event_that_begins_while_homes_run_by_themselves_is_no_step() -> None:
    world = World(homes_of(12), facts=BLOCKS)
    world.homes.own_w[:] = 1_500
    for slot in range(12):
        world.homes.revert(slot)
    # half of them can spare little
    world.homes.soc_pct[6:] = 25
    await world.go(2)
    await world.submit(s=600, target_w=20_000)
    await world.go(30)
    assert world.homes.battery_w.sum() == pytest.approx(20_000, rel=0.02)
    assert world.steps_w() <= 1_500 + SETTINGS.fleet_w_per_s


# -- other targets ----------------------------------------------------------------------------------------------


async def test_dispatch_power_of_each_device_is_ramped_and_ends_with_the_event() -> None:
    world = World(homes_of(4))
    await world.go(2)
    await world.submit(s=60, target_w=None, target=Target(want=Want.DEVICE_POWER, power_w=-2_000))
    await world.go(20)
    assert world.homes.battery_w.tolist() == [-2_000] * 4
    assert world.steps_w() <= 1_000 * 1.01
    await world.go(80)
    assert world.authority() == ["DEVICE"] * 4


async def test_dispatch_each_device_has_its_own_power_through_revisions_and_legs() -> None:
    world = World(homes_of(4))
    await world.go(2)
    named = group("home-02", "home-00", "home-03", "nobody")
    first, second = power_of_each([1_000, 2_000, 3_000, 500]), power_of_each([1_500, 500, 700, 500])
    legs = (Leg(after_ms=0, until_ms=40_000, target=first), Leg(after_ms=40_000, until_ms=80_000, target=second))
    await world.submit(s=80, target_w=None, target=first, legs=legs, group=named)
    await world.go(20)
    assert world.homes.battery_w.tolist() == pytest.approx([2_000, 0, 1_000, 3_000], abs=10)
    await world.go(40)
    assert world.homes.battery_w.tolist() == pytest.approx([500, 0, 1_500, 700], abs=10)
    fewer = group("home-01", "home-02")
    target = power_of_each([900, 1_100])
    await world.submit(s=60, target_w=None, target=target, group=fewer, revision=2)
    await world.go(20)
    assert world.homes.battery_w[1:3].tolist() == pytest.approx([900, 1_100], abs=10)
    assert world.authority()[1:3] == ["CONTROLLED"] * 2


@pytest.mark.parametrize(
    ("each_w", "asked"),
    [
        ((1_000.0,), group("home-00", "home-01")),
        ((1_000.0, -1_000.0), group("home-00", "home-01")),
        ((1_000.0, 0.0), group("home-00", "home-01")),
        ((1_000.0, float("nan")), group("home-00", "home-01")),
        ((1_000.0, 2_000.0), TargetGroup(ids=group("home-00", "home-01").ids, tags=("all",))),
    ],
)
async def test_dispatch_a_power_of_each_that_fits_nobody_is_refused(
    each_w: tuple[float, ...], asked: TargetGroup
) -> None:
    world = World(homes_of(2))
    await world.go(2)
    target = Target(want=Want.DEVICE_POWER, power_w=1_000.0, each_w=each_w)
    answer = await world.submit(s=60, target_w=None, target=target, group=asked)
    assert answer.outcome is Outcome.REJECTED
    assert answer.reason == "target_not_finite"


async def test_dispatch_idle_event_stops_discharge_of_everybody() -> None:
    world = World(homes_of(2), facts_of={"home-01": BLOCKS})
    world.homes.own_w[:] = 900
    for slot in (0, 1):
        world.homes.revert(slot)
    await world.go(2)
    await world.submit(s=60, target_w=None, target=Target(want=Want.IDLE))
    await world.go(5)
    assert world.homes.battery_w.tolist() == [0, 0]
    assert (world.ops(0)[-1], world.ops(1)[-1]) == (CommandOp.HOLD, CommandOp.BLOCK)


async def test_dispatch_members_keep_their_energy_before_the_event_and_start_on_time() -> None:
    world = World(homes_of(2), facts=BLOCKS)
    world.homes.own_w[:] = 900
    for slot in (0, 1):
        world.homes.revert(slot)
    await world.go(2)
    start_ms = world.clock.utc + 60_000
    await world.submit(s=120, target_w=4_000, start_ms=start_ms, end_ms=start_ms + 60_000, prepare_s=50.0)
    await world.go(9)
    assert world.homes.battery_w.sum() == 1_800
    await world.go(3)
    assert world.homes.battery_w.sum() == 0
    await world.go(58)
    assert world.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)


# -- ceilings ---------------------------------------------------------------------------------------------------


async def test_dispatch_ceilings_of_programs_and_feeders_hold() -> None:
    settings = SETTINGS.model_copy(update={"feeders": FeederSettings(ceilings_kw={"f1": 2.0})})
    devices = [home(f"home-{i:02d}", feeder="f1" if i < 2 else "") for i in range(4)]
    world = World(devices, settings=settings, programs={"test": ProgramSettings(ceiling_mw=0.006)})
    await world.go(2)
    much = await world.submit("much", s=600, target_w=6_001)
    assert (much.reason, len(much.warnings)) == ("over_ceiling", 1)
    await world.submit("a", s=600, target_w=4_000)
    await world.submit("b", s=600, target_w=4_000, group=group("home-02", "home-03"))
    await world.go(40)
    assert world.homes.battery_w[:2].sum() <= 2_000
    assert world.homes.battery_w.sum() <= 6_000 * 1.01


@pytest.mark.parametrize("ceiling", ["program", "target"])
@pytest.mark.parametrize(
    "target",
    [
        power(None), Target(want=Want.DEVICE_POWER, power_w=4_000.0), Target(want=Want.BACKUP),
        Target(want=Want.CHARGE_TO, soc_pct=100.0),
    ],
    ids=["the most", "device_power", "backup", "charge_to"],
)  # fmt: skip
async def test_dispatch_ceiling_holds_for_every_kind_of_target(target: Target, ceiling: str) -> None:
    if ceiling == "program":
        world = World(homes_of(4), programs={"test": ProgramSettings(ceiling_mw=0.005)})
    else:
        world = World(homes_of(4), settings=SETTINGS.model_copy(update={"ceiling_mw": 0.005}))
    await world.go(2)
    assert (await world.submit(s=600, target_w=None, target=target)).outcome is Outcome.ACCEPTED
    await world.go(40)
    assert max(abs(power_w) for power_w in world.trace) <= 5_000
    assert abs(world.homes.battery_w.sum()) >= 4_900
    assert world.progress().reason is Shortfall.CEILING


# -- records ----------------------------------------------------------------------------------------------------


async def test_dispatch_records_tell_every_step_upstream_and_are_put_away_at_the_end() -> None:
    world = World(homes_of(2))
    world.homes.offline.add(1)
    await world.go(2)
    await world.submit(s=60, target_w=2_000)
    told: list[tuple[str, str]] = []

    def hear() -> None:
        while (report := world.control.records.changed(100)) is not None:
            told.extend((row["device"], row["status"]) for row in report.rows)

    await world.go(100, each=hear)
    mine = [status for device, status in told if device == "home-00"]
    assert mine[0] in ("scheduled", "sent", "acknowledged", "delivering")
    assert mine[-2:] == ["delivering", "completed"]
    assert [status for device, status in told if device == "home-01"] == ["failed"]
    rows = world.rows()
    assert rows["home-00"]["id"] == "e/home-00"
    assert rows["home-00"]["delivered_wh"] == pytest.approx(2_000 * 58 / 3600, rel=0.1)
    assert (rows["home-01"]["failure"], rows["home-01"]["delivered_wh"]) == ("offline", 0)
    assert [c.state.value for c in world.journal.kept if isinstance(c, EventMoved)] == ["active", "completed"]


async def test_dispatch_record_that_the_peer_rejected_is_published_again_as_it_is_by_then() -> None:
    world = await running()
    records = world.control.records
    while (report := records.changed(2)) is not None:
        last = report
    assert records.waiting == 0
    records.give_back(last)
    assert records.waiting == 2
    again = records.changed(100)
    assert again is not None
    assert [row["id"] for row in again.rows] == [row["id"] for row in last.rows]


async def test_dispatch_cancelled_event_closes_its_records_as_cancelled() -> None:
    world = await running()
    await world.dispatcher.cancel("e")
    await world.go(2)
    assert {row["status"] for row in world.rows().values()} == {"cancelled"}
    assert world.state() == "cancelled"


async def test_dispatch_rejected_event_is_shown_with_its_reason() -> None:
    world = World(homes_of(1))
    await world.submit("late", s=-10, target_w=1_000)
    entry = world.dispatcher.entry("late")
    assert entry is not None
    assert (entry.state.value, entry.reason) == ("rejected", "end_before_start")


@pytest.mark.fault("F14")
async def test_dispatch_same_event_ten_times_has_one_effect() -> None:
    world = World(homes_of(2))
    await world.go(2)
    asked = world.event(s=600, target_w=2_000)
    outcomes = [(await world.dispatcher.submit(asked)).outcome.value for _ in range(10)]
    assert outcomes == ["accepted"] + ["duplicate"] * 9
    await world.go(20)
    assert world.homes.battery_w.sum() == pytest.approx(2_000, rel=0.02)
    assert world.dispatcher.outcomes["duplicate"] == 9


# -- what cannot be trusted -------------------------------------------------------------------------------------


@pytest.mark.fault("F21")
async def test_quarantine_inverted_device_is_quarantined_and_its_lease_runs_out() -> None:
    world = World(homes_of(6))
    world.homes.inverted.add(2)
    await world.go(2)
    await world.submit(s=1_200, target_w=12_000)
    await world.go(30)
    assert world.control.quarantine.quarantined == {}
    await world.go(90)
    assert world.control.quarantine.quarantined == {"home-02": "wrong_sign"}
    written = len(world.ops(2))
    await world.go(130)
    assert len(world.ops(2)) == written
    assert world.homes.battery_w[2] == 0
    assert world.rows()["home-02"]["failure"] == "excluded"
    world.restart(away_s=1)
    await world.go(30)
    assert len(world.ops(2)) == written
    world.homes.inverted.clear()
    assert await world.control.trust("home-02")
    assert not await world.control.trust("home-02")
    await world.go(30)
    assert world.homes.battery_w[2] > 500
    assert world.journal.load().quarantined == {}


@pytest.mark.fault("F21")
async def test_quarantine_many_of_one_product_stop_the_product_and_no_other() -> None:
    devices = [home(f"home-{i:02d}", profile="p" if i < 14 else "q") for i in range(24)]
    world = World(devices)
    world.homes.inverted |= set(range(12))
    await world.go(2)
    await world.submit(s=1_200, target_w=36_000)
    await world.go(150)
    assert "product:p" in world.control.quarantine.quarantined
    await world.go(150)
    assert world.homes.battery_w[:14].tolist() == [0] * 14
    assert world.homes.battery_w[14:].sum() == pytest.approx(36_000, rel=0.02)


async def test_quarantine_product_that_is_trusted_again_is_not_condemned_by_what_was_proven_before() -> None:
    world = World([home(f"home-{i:02d}", profile="p") for i in range(14)])
    world.homes.inverted |= set(range(12))
    await world.go(2)
    await world.submit(s=2_400, target_w=14_000)
    await world.go(130)
    assert "product:p" in world.control.quarantine.quarantined
    world.homes.inverted -= set(range(11))
    for name in list(world.control.quarantine.quarantined):
        assert await world.control.trust(name)
    await world.go(300)
    assert world.control.quarantine.quarantined == {"home-11": "wrong_sign"}
    assert np.delete(world.homes.battery_w, 11).sum() == pytest.approx(14_000, rel=0.02)


@pytest.mark.fault("F22")
async def test_quarantine_unresponsive_devices_are_marked_and_made_up_for() -> None:
    world = World(homes_of(10))
    world.homes.unresponsive |= {0, 1, 2}
    await world.go(2)
    await world.submit(s=1_200, target_w=14_000)
    await world.go(100)
    assert world.homes.battery_w.sum() == pytest.approx(14_000, rel=0.02)
    assert np.flatnonzero(world.control.quarantine.silent).tolist() == [0, 1, 2]
    assert {world.rows()[f"home-0{i}"]["failure"] for i in range(3)} == {"no_response"}


@pytest.mark.fault("F40")
async def test_quarantine_product_that_fails_at_once_is_frozen_and_the_shortfall_is_reported() -> None:
    devices = [home(f"home-{i:02d}", profile="p" if i < 10 else "q") for i in range(14)]
    world = World(devices)
    await world.go(8)
    await world.submit(s=1_200, target_w=40_000)
    await world.go(60)
    world.homes.faults[:6] = 4
    await world.go(6)
    assert world.control.quarantine.frozen == ["p"]
    assert any("frozen" in reason for reason in world.queries.reasons())
    written = {slot: world.ops(slot).count(CommandOp.SETPOINT) for slot in range(10)}
    # the leases have run out, and the 4 that are left carry 20 kW at most
    await world.go(140)
    assert {slot: world.ops(slot).count(CommandOp.SETPOINT) for slot in range(10)} == written
    assert world.progress().unserved_w == pytest.approx(20_000, rel=0.02)
    world.homes.faults[:6] = 0
    await world.go(120)
    assert world.control.quarantine.frozen == []
    assert world.homes.battery_w.sum() == pytest.approx(40_000, rel=0.02)


@pytest.mark.fault("F40")
async def test_quarantine_those_of_a_product_that_answer_carry_the_event_of_those_that_are_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World([home(f"home-{i:02d}", profile="p") for i in range(15)])
    await world.go(8)
    await world.submit(s=1_200, target_w=40_000)
    await world.go(60)
    world.homes.offline |= set(range(6))
    world.homes.silent |= set(range(6))
    world.homes.unresponsive |= set(range(6))
    await world.go(36)
    assert world.control.quarantine.frozen == []
    assert world.control.quarantine.warnings() == ["product p: many devices lost at once"]
    assert world.progress().delivered_w == pytest.approx(40_000, rel=0.02)
    await world.go(100)
    assert world.homes.battery_w[6:].sum() == pytest.approx(40_000, rel=0.02)
    assert {world.rows()[f"home-{i:02d}"]["failure"] for i in range(6)} == {"offline"}
    world.trace.clear()
    world.homes.offline.clear()
    world.homes.silent.clear()
    world.homes.unresponsive.clear()
    await world.go(120)
    assert world.steps_w() <= 1_000
    assert world.homes.battery_w[:6].sum() > 10_000
    assert world.homes.battery_w.sum() == pytest.approx(40_000, rel=0.02)
    told = [record.message for record in caplog.records if "of a product" in record.message]
    assert told == [
        "many devices of a product were lost at once; the others go on",
        "the devices of a product are back",
    ]


def made_by(world: World, slots: range, maker: str) -> None:
    """These homes say who made them."""
    words = [np.full(len(slots), word, dtype=np.object_) for word in (maker, "Box", "1.2")]
    world.fleet.observe_status(
        StatusBatch(
            slots=np.array(slots, dtype=np.int32), online=np.ones(len(slots), dtype=np.bool_),
            maker=words[0], product=words[1], firmware=words[2],
        ),
        world.clock.now(),
    )  # fmt: skip


@pytest.mark.fault("F40")
async def test_quarantine_makers_failure_freezes_no_other_maker_s_devices_and_an_operator_can_lift_it() -> None:
    world = World([home(f"home-{i:02d}", profile="p") for i in range(20)])
    made_by(world, range(10), "Acme / 2")
    made_by(world, range(10, 20), "Other")
    await world.go(8)
    await world.submit(s=1_200, target_w=40_000)
    await world.go(60)
    world.homes.faults[:6] = 4
    await world.go(6)
    assert world.control.quarantine.frozen == ["p:Acme-2:Box:1.2"]
    await world.go(140)
    assert world.homes.battery_w[:10].tolist() == [0] * 10
    assert world.homes.battery_w[10:].sum() == pytest.approx(40_000, rel=0.02)
    assert await world.control.trust("product:p:Acme-2:Box:1.2", by="anna", reason="a bad release, rolled back")
    await world.go(60)
    assert world.control.quarantine.frozen == []
    assert world.homes.battery_w[6:10].sum() > 5_000
    assert not await world.control.trust("product:p:Acme-2:Box:1.2")
    lifted = [change for change in world.journal.kept if isinstance(change, Trusted)]
    assert [(change.by, change.reason) for change in lifted] == [("anna", "a bad release, rolled back")]


@pytest.mark.fault("F21")
async def test_quarantine_product_that_runs_the_wrong_way_stops_its_makers_homes_alone() -> None:
    world = World([home(f"home-{i:02d}", profile="p") for i in range(28)])
    made_by(world, range(14), "Acme")
    made_by(world, range(14, 28), "Other")
    world.homes.inverted |= set(range(12))
    await world.go(2)
    await world.submit(s=1_200, target_w=60_000)
    await world.go(150)
    assert {name for name in world.control.quarantine.quarantined if name.startswith("product:")} == {
        "product:p:Acme:Box:1.2"
    }
    await world.go(150)
    assert world.homes.battery_w[:14].tolist() == [0] * 14
    assert world.homes.battery_w[14:].sum() == pytest.approx(60_000, rel=0.02)
    # a name that an older journal knows covers whoever made them
    assert len(world.fleet.products_of("p")) == 3


async def test_control_refusing_device_is_not_asked_every_second() -> None:
    world = World(homes_of(3))
    world.homes.refusing.add(0)
    await world.go(2)
    await world.submit(s=1_200, target_w=6_000)
    await world.go(300)
    assert world.homes.battery_w.sum() == pytest.approx(6_000, rel=0.02)
    assert 1 <= world.ops(0).count(CommandOp.SETPOINT) <= 4
    assert world.rows()["home-00"]["failure"] == "refused"


# -- after the event --------------------------------------------------------------------------------------------


async def test_maintenance_charges_what_is_below_its_reserve_after_an_event_and_no_more_than_a_feeder_may() -> None:
    settings = SETTINGS.model_copy(update={"feeders": FeederSettings(recharge_kw=1.5)})
    world = World([home(f"home-{i:02d}", feeder="f") for i in range(3)], settings=settings)
    await world.go(2)
    await world.submit(s=60, target_w=6_000)
    await world.go(58)
    world.homes.soc_pct[:] = [15, 15, 60]
    await world.go(60)
    assert world.homes.battery_w.tolist() == pytest.approx([-750, -750, 0], abs=1)
    assert world.control.maintenance.stats.recovering == 2
    rebound = world.control.maintenance.rebounds[EventId("e")]
    assert rebound.power_w == pytest.approx(1_500, abs=2)
    assert rebound.peak_w >= rebound.power_w
    world.homes.soc_pct[:2] = 30
    await world.go(40)
    assert world.homes.battery_w.tolist() == [0, 0, 0]
    assert world.authority() == ["DEVICE"] * 3


async def test_maintenance_outside_a_time_of_recovery_leaves_batteries_alone() -> None:
    world = World(homes_of(1))
    world.homes.soc_pct[:] = 15
    await world.go(40)
    assert world.ops() == []


async def test_maintenance_fills_what_was_not_full_for_long_and_any_event_comes_first() -> None:
    settings = SETTINGS.model_copy(update={"maintenance": MaintenanceSettings(full_charge_cycles=10)})
    world = World(homes_of(2), settings=settings)
    world.fleet.live.since_full_wh[:2] = [250_000, 10_000]
    await world.go(40)
    assert world.homes.battery_w[0] < -1_000
    assert world.homes.battery_w[1] == 0
    await world.submit(s=600, target_w=4_000)
    await world.go(30)
    assert world.homes.battery_w.sum() == pytest.approx(4_000, rel=0.02)


async def test_maintenance_charges_no_fleet_at_once_of_which_it_has_seen_no_full_charge() -> None:
    settings = SETTINGS.model_copy(update={"maintenance": MaintenanceSettings(full_charge_cycles=10)})
    world = World(homes_of(4), settings=settings)
    await world.go(120)
    assert np.isnan(world.fleet.live.since_full_wh[:4]).all()
    assert world.ops() == []
    # a battery that has moved ten cycles before our eyes is due all the same
    world.fleet.live.unfilled_wh[1] = 250_000
    await world.go(120)
    assert world.homes.battery_w[1] < -1_000
    assert world.homes.battery_w[[0, 2, 3]].tolist() == [0, 0, 0]


async def test_maintenance_keeps_to_its_hours() -> None:
    hour = 1_800_000_000_000 // 3_600_000 % 24
    settings = SETTINGS.model_copy(
        update={
            "maintenance": MaintenanceSettings(
                full_charge_cycles=10, full_charge_hours=((hour + 1) % 24, (hour + 2) % 24)
            )
        }
    )
    world = World(homes_of(1), settings=settings)
    world.fleet.live.since_full_wh[:1] = 250_000
    await world.go(40)
    assert world.ops() == []


# -- time -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("F11")
@pytest.mark.parametrize("step_s", [-3 * 3_600, 2 * 86_400])
async def test_dispatch_event_ends_when_it_was_to_end_though_the_wall_clock_steps(step_s: int) -> None:
    world = await running()
    world.clock.utc += step_s * 1_000
    await world.go(500)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    assert any("wall clock" in reason for reason in world.clock_guard.reasons())
    await world.go(120)
    assert world.state() == "completed"
    assert world.authority() == ["DEVICE"] * 4
    assert world.clock_guard.reasons() == []


@pytest.mark.fault("F19")
async def test_dispatch_source_that_goes_silent_leaves_the_event_as_it_was_received() -> None:
    world = await running()
    await world.go(560)
    assert world.homes.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    # not a word more: it ends when it was to end, and leases are not renewed past it
    await world.go(15 + 20)
    assert world.state() == "completed"
    assert world.authority() == ["DEVICE"] * 4
    assert not world.homes.lease_end_ms.any()


# -- herds and faults -------------------------------------------------------------------------------------------


@pytest.mark.fault("F23")
async def test_dispatch_thousands_of_homes_start_turn_and_stop_within_the_slope() -> None:
    settings = SETTINGS.model_copy(update={"fleet_w_per_s": 500_000.0})
    world = World([home(f"home-{i:04d}") for i in range(2_000)], settings=settings)
    await world.go(2)
    await world.submit(s=600, target_w=6_000_000)
    await world.go(20)
    assert world.homes.battery_w.sum() == pytest.approx(6_000_000, rel=0.01)
    await world.submit(s=600, target_w=-2_000_000, revision=2)
    await world.go(25)
    assert world.homes.battery_w.sum() == pytest.approx(-2_000_000, rel=0.01)
    await world.dispatcher.cancel("e")
    await world.go(20)
    assert world.authority() == ["DEVICE"] * 2_000
    assert world.steps_w() <= 500_000 * 1.1


@pytest.mark.fault("F41")
@pytest.mark.parametrize("place", ["write", "commit"])
@pytest.mark.parametrize("nth", range(1, 9))
async def test_control_exception_at_any_await_is_survived_by_everybody(place: str, nth: int) -> None:
    world = World(homes_of(4))
    await world.go(2)
    await world.submit(s=600, target_w=8_000)
    owner = world.homes if place == "write" else world.journal
    honest, calls = getattr(owner, place), 0

    async def faulty(*args: Any, **names: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise RuntimeError("nobody expected this")
        return await honest(*args, **names)

    setattr(owner, place, faulty)

    async def lives(s: int) -> None:
        for _ in range(s):
            try:
                await world.go(1)
            except RuntimeError:  # what the supervisor catches before it starts the loop again
                world.clock.advance(s=1)

    world.homes.silent.add(3)
    await lives(240)
    # the others make up for the one that says nothing, whose reading has grown too old meanwhile
    assert world.homes.battery_w[:3].sum() == pytest.approx(8_000, rel=0.02)
    assert world.homes.battery_w[3] == 0
    assert world.rows()["home-03"]["failure"] == "offline"
    await lives(380)
    assert world.authority() == ["DEVICE"] * 4
    assert not world.homes.lease_end_ms.any()


# -- restarts ---------------------------------------------------------------------------------------------------


async def test_dispatch_restart_in_mid_event_completes_it_and_does_not_call_it_expired() -> None:
    world = await running()
    world.restart(away_s=10)
    await world.go(600)
    assert world.state() == "completed"


async def test_dispatch_event_that_passed_while_the_gateway_was_away_has_expired() -> None:
    world = World(homes_of(1))
    await world.go(2)
    start_ms = world.clock.utc + 10_000
    await world.submit(s=60, target_w=1_000, start_ms=start_ms, end_ms=start_ms + 20_000)
    world.restart(away_s=60)
    await world.go(5)
    assert world.state() == "expired"
    assert world.ops() == []


def test_settings_say_what_bounds_programs_feeders_and_maintenance() -> None:
    assert ControlSettings().feeders.ceiling_kw is None
    assert ControlSettings().maintenance.full_charge_cycles is None
    assert TargetGroup(ids=(DeviceId("a"),)) == group("a")
