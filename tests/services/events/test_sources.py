"""Events of several sources under one id: none touches another's, from the decision to the report, over a restart."""

from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import TargetGroup
from gateway.domain.types import DeviceId, EventId
from gateway.services.settings import SourceSettings
from tests.builders.fakes import FACTS, home
from tests.scenes.world import World, homes_of

FIRST, SECOND = TargetGroup(ids=(DeviceId("home-00"),)), TargetGroup(ids=(DeviceId("home-01"),))


async def two() -> World:
    """The platform discharges the first home, somebody local charges the second, under one id."""
    world = World(homes_of(2))
    await world.go(2)
    taken = [
        await world.submit("1", s=600, target_w=2_000.0, source="mqtt", group=FIRST),
        await world.submit("1", s=600, target_w=-2_000.0, source="rest", group=SECOND, revision=2),
    ]
    assert [answer.outcome.value for answer in taken] == ["accepted", "accepted"]
    await world.go(20)
    return world


def powers(world: World) -> list[int]:
    return [round(w, -2) for w in world.homes.battery_w.tolist()]


def states(world: World) -> dict[str, str]:
    return {entry.request.source: entry.state.value for entry in world.dispatcher.find("1")}


async def test_events_of_two_sources_under_one_id_each_run_as_asked() -> None:
    world = await two()
    assert powers(world) == [2_000, -2_000]
    assert states(world) == {"mqtt": "active", "rest": "active"}


async def test_events_source_cannot_cancel_or_revise_the_event_of_another() -> None:
    world = await two()
    await world.submit("1", s=600, target_w=0.0, source="rest", revision=90, cancelled=True)
    await world.go(20)
    assert (powers(world)[0], states(world)) == (2_000, {"mqtt": "active", "rest": "cancelled"})
    again = await world.submit("1", s=500, target_w=1_000.0, source="mqtt", revision=3, group=FIRST)
    assert again.outcome.value == "accepted", "no revision of the other source stands in its way"
    await world.go(20)
    assert powers(world)[0] == 1_000


async def test_events_of_two_sources_go_on_after_a_restart_each_as_its_own() -> None:
    world = await two()
    world.restart(away_s=2)
    await world.go(20)
    assert (powers(world), states(world)) == ([2_000, -2_000], {"mqtt": "active", "rest": "active"})
    await world.submit("1", s=600, target_w=0.0, source="mqtt", revision=2, cancelled=True)
    await world.go(20)
    assert states(world) == {"mqtt": "cancelled", "rest": "active"}


async def test_records_of_two_sources_under_one_id_are_kept_and_reported_apart() -> None:
    world = await two()
    reports: dict[str, list[str]] = {}
    while (report := world.control.records.changed(100)) is not None:
        reports.setdefault(report.source, []).extend(row["device"] for row in report.rows)
    assert {source: set(devices) for source, devices in reports.items()} == {"mqtt": {"home-00"}, "rest": {"home-01"}}
    columns = world.control.records.columns()
    assert len({name.split("/")[0] for name in columns}) == 2
    for entry in world.dispatcher.find("1"):
        await world.dispatcher.cancel(entry.request.id)
    await world.go(2)
    kept = {entry.request.source: world.journal.delivered(entry.request.id) for entry in world.dispatcher.find("1")}
    assert {source: [one.devices for one in past] for source, past in kept.items()} == {
        "mqtt": [("home-00",)], "rest": [("home-01",)],
    }  # fmt: skip


async def test_opt_out_of_an_event_holds_for_every_source_that_has_one_of_that_id() -> None:
    world = await two()
    everybody = Exclusion(
        id="out", reason="opt_out", group=TargetGroup(all=True), from_ms=world.clock.utc, until_ms=None,
        event=EventId("1"),
    )  # fmt: skip
    await world.dispatcher.exclude(everybody)
    await world.go(30)
    assert powers(world) == [0, 0]


async def test_opt_out_of_an_event_leaves_events_of_other_ids_alone() -> None:
    world = await two()
    other = Exclusion(
        id="out", reason="opt_out", group=TargetGroup(all=True), from_ms=world.clock.utc, until_ms=None,
        event=EventId("2"),
    )  # fmt: skip
    await world.dispatcher.exclude(other)
    await world.go(30)
    assert powers(world) == [2_000, -2_000]


# -- bounds of a source ----------------------------------------------------------------------------------------


def bounded(**settings: object) -> World:
    return World(
        [home("home-00", tags=("east",)), home("home-01", tags=("east",)), home("home-02", tags=("west",))],
        sources={"desk": SourceSettings.model_validate(settings)},
    )


async def answers(world: World, *asked: TargetGroup, source: str = "desk", **other: object) -> list[str | None]:
    """Outcome or refusal of an event to each of these groups."""
    found: list[str | None] = []
    for number, one in enumerate(asked):
        answer = await world.submit(f"{source}-{number}", s=60, target_w=500.0, group=one, source=source, **other)
        found.append(answer.reason or answer.outcome.value)
    return found


async def test_source_asks_for_its_own_devices_alone() -> None:
    world = bounded(tags=["east"])
    await world.go(2)
    others = (TargetGroup(all=True), TargetGroup(tags=("west",)), TargetGroup(ids=(DeviceId("home-02"),)))
    asked = (*others, TargetGroup(tags=("east", "west")), TargetGroup(tags=("east",)), FIRST)
    assert await answers(world, *asked) == ["outside_source"] * 4 + ["accepted"] * 2
    assert await answers(world, *asked, source="room") == ["accepted"] * 6


async def test_device_that_leaves_what_a_source_may_ask_for_leaves_its_events() -> None:
    world = bounded(tags=["east"])
    await world.go(2)
    await answers(world, TargetGroup(ids=(DeviceId("home-00"), DeviceId("home-01"))))
    await world.go(10)
    assert powers(world)[:2] == [200, 200]
    world.fleet.register(home("home-01", tags=("west",)), FACTS)
    await world.go(20)
    assert powers(world)[:2] == [500, 0]


async def test_events_of_a_source_stay_below_its_ceiling_together() -> None:
    world = bounded(ceiling_mw=0.0015)
    await world.go(2)
    for number in range(2):
        await world.submit(f"e{number}", s=600, target_w=1_000.0, source="desk", program=f"p{number}", group=FIRST)
    await world.go(20)
    assert sum(powers(world)) <= 1_500
    assert (await world.submit("e", s=600, target_w=1_600.0, source="desk")).reason == "over_ceiling"


async def test_source_that_sends_too_often_is_refused_and_may_cancel_all_the_same() -> None:
    world = bounded(events_per_min=2)
    assert await answers(world, FIRST, FIRST, FIRST) == ["accepted", "accepted", "too_often"]
    again = await world.submit("desk-0", s=60, target_w=0, source="desk", revision=2, cancelled=True, group=FIRST)
    assert again.outcome.value == "accepted"
    await world.go(30)
    assert await answers(world, SECOND) != ["too_often"]


async def test_source_that_sends_an_event_again_sends_no_other_one() -> None:
    """Platforms repeat what they are not sure of."""
    world = bounded(events_per_min=2)
    for _ in range(5):
        again = await world.submit("e", s=60, target_w=500.0, source="desk", group=FIRST)
        assert again.reason is None
    assert await answers(world, FIRST, FIRST) == ["accepted", "too_often"]


async def cancellations(world: World, *names: str, revision: int = 5, source: str = "desk") -> list[str]:
    out = []
    for name in names:
        found = await world.submit(
            name, s=60, target_w=0, source=source, revision=revision, cancelled=True, group=FIRST
        )  # fmt: skip
        out.append(found.reason or found.outcome.value)
    return out


async def test_cancellation_that_comes_before_its_event_wins_and_counts_against_the_rate_of_its_source() -> None:
    world = bounded(events_per_min=2)
    assert await cancellations(world, "early", "other", "third") == ["accepted", "accepted", "too_often"]
    assert world.dispatcher.find("third")[0].state is EventState.REJECTED
    await world.go(60)
    late = await world.submit("early", s=60, target_w=500.0, source="desk", group=FIRST)
    assert late.outcome.value == "superseded"
    # told that it was refused, the source sends it again, and it wins
    assert await cancellations(world, "third") == ["accepted"]
    # the same cancellation again costs nothing
    assert await cancellations(world, "third", "third", "third") == ["duplicate"] * 3


async def test_cancellations_of_what_is_over_are_bounded_too_and_those_of_what_runs_never() -> None:
    world = bounded(events_per_min=2)
    await answers(world, FIRST, SECOND)
    assert await cancellations(world, "desk-0", "desk-1") == ["accepted"] * 2
    assert await cancellations(world, "desk-0", revision=6) == ["too_often"]


async def test_source_without_bounds_may_send_as_many_idle_cancellations_as_events() -> None:
    world = bounded(events_per_min=2)
    found = await cancellations(world, *(f"e{i}" for i in range(1_001)), source="room")
    assert (found.count("accepted"), found[-1]) == (1_000, "too_often")
    # its events are not touched by that
    assert await answers(world, FIRST, source="room") == ["accepted"]
