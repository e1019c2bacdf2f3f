"""What is told of dispatch, to a peer that takes it, refuses it, or is not there; and records over a restart."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.events.request import Leg, power
from gateway.domain.journal.changes import EventDelivered
from gateway.domain.limits.types import Reason
from gateway.domain.types import EventId
from gateway.schemas.reports import AvailabilityBody, AvailabilityReport, DeliveryBody, DeliveryReport, Times
from gateway.services.events import delivery_records, untold
from gateway.services.events import reports as module
from gateway.services.events.delivery_records import StatusReport
from gateway.services.events.reports import PART, Body, Reports
from tests.scenes.waiting import service, until
from tests.scenes.world import World, group, homes_of


class Peer:
    """Takes reports while `takes`; every one that it was offered is counted."""

    def __init__(self) -> None:
        self.takes = True
        self.offered = 0
        self.told: dict[str, list[Body]] = {"deliveries": [], "events": [], "availability": []}

    async def publish(self, kind: str, body: Body) -> bool:
        self.offered += 1
        if self.takes:
            self.told[kind].append(body)
        return self.takes

    def newest(self) -> dict[str, dict[str, Any]]:
        """The last that was told of each device."""
        return {row["device"]: row for body in self.told["deliveries"] for row in body["rows"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_S", "RETRY_S", "EVENTS_EVERY_S"):
        monkeypatch.setattr(module, name, 0.001)
    monkeypatch.setattr(module, "PART", 3)


class Bodies:
    """What there is to tell; of events and availability nothing but what a test says."""

    def __init__(self, *events: list[Body], availability: tuple[Body, ...] = ()) -> None:
        self.events = list(events)
        self.availability = availability

    def delivery_reports(self, report: StatusReport) -> Body:
        return {"event": report.event, "rows": list(report.rows)}

    def event_reports(self) -> list[Body]:
        return self.events.pop(0) if self.events else []

    def availability_report(self) -> tuple[Body, ...]:
        return self.availability


async def told(world: World, peer: Peer, reports: Reports, found: int) -> None:
    """Run until `found` reports were offered and nothing waits."""
    async with service(reports.run):
        await until(lambda: peer.offered >= found and (not peer.takes or world.control.records.waiting == 0))


async def test_reports_records_are_told_in_pages_and_each_as_it_is_at_last() -> None:
    world, peer = World(homes_of(7)), Peer()
    reports = Reports(world.control.records, Bodies(), peer.publish, store=world.journal, availability_s=60)
    await world.submit(s=60, target_w=7_000)
    await world.go(20)
    await told(world, peer, reports, 3)
    assert [len(body["rows"]) for body in peer.told["deliveries"]] == [3, 3, 1]
    assert {row["status"] for row in peer.newest().values()} == {"delivering"}
    await world.go(60)
    await told(world, peer, reports, 6)
    assert {row["status"] for row in peer.newest().values()} == {"completed"}
    assert peer.newest() == world.rows()
    assert reports.stats.rows == sum(len(body["rows"]) for body in peer.told["deliveries"])


async def test_reports_what_the_peer_rejects_waits_and_is_published_as_it_is_by_then() -> None:
    world, peer = World(homes_of(4)), Peer()
    reports = Reports(world.control.records, Bodies(), peer.publish, store=world.journal, availability_s=60)
    await world.submit(s=60, target_w=4_000)
    await world.go(5)
    peer.takes = False
    await told(world, peer, reports, 5)
    assert (peer.told["deliveries"], reports.stats.rows, world.control.records.waiting) == ([], 0, 4)
    assert reports.stats.refused == peer.offered
    await world.go(80)  # it is over, and nobody has heard of it
    peer.takes = True
    await told(world, peer, reports, peer.offered + 2)
    assert {row["status"] for body in peer.told["deliveries"] for row in body["rows"]} == {"completed"}
    assert len(peer.newest()) == 4
    assert world.control.records.dropped == 0


async def test_reports_every_one_of_many_events_that_end_in_one_tick_is_told_as_it_ended() -> None:
    world, peer = World(homes_of(20)), Peer()
    reports = Reports(world.control.records, Bodies(), peer.publish, store=world.journal, availability_s=60)
    for number in range(20):
        await world.submit(f"zone-{number:02d}", s=20, target_w=1_000, group=group(f"home-{number:02d}"))
    await world.go(10)
    await told(world, peer, reports, 20)
    assert {row["status"] for row in peer.newest().values()} == {"delivering"}
    await world.go(20)
    await told(world, peer, reports, peer.offered + 20)
    assert [row["status"] for row in peer.newest().values()] == ["completed"] * 20
    assert world.control.records.dropped == 0


async def ended(world: World, events: int) -> None:
    """Events of one home each that end in one tick."""
    for number in range(events):
        await world.submit(f"zone-{number:02d}", s=20, target_w=1_000, group=group(f"home-{number:02d}"))
    await world.go(30)


async def all_told(world: World, peer: Peer, events: int) -> None:
    """Publish until the peer has the final record of every event."""
    reports = Reports(world.control.records, Bodies(), peer.publish, store=world.journal, availability_s=60)
    async with service(reports.run):
        await until(lambda: [row["status"] for row in peer.newest().values()] == ["completed"] * events)
    assert world.control.records.dropped == 0


async def test_reports_more_rows_than_memory_keeps_are_told_from_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_records, "OVER_ROWS_MAX", 4)
    world, peer = World(homes_of(30)), Peer()
    await ended(world, 30)
    in_memory = {row["device"]: row for row in await final(world, 30)}
    await all_told(world, peer, 30)
    assert peer.newest() == in_memory


async def final(world: World, events: int) -> list[Body]:
    """The records that the journal has."""
    found: list[Body] = []
    for number in range(events):
        event = EventId(f"zone-{number:02d}")
        stored = await world.journal.records(event, None, slice(None))
        found += delivery_records.bodies(event, stored.devices, stored.columns)
    return found


async def test_reports_record_that_the_peer_refuses_while_others_end_is_told_later() -> None:
    world, peer = World(homes_of(20)), Peer()
    await ended(world, 20)
    records = world.control.records
    report = records.changed(10)
    assert report is not None
    await world.go(3)
    records.give_back(report)
    await all_told(world, peer, 20)


@pytest.mark.parametrize("rows_max", [0, 100_000])
@pytest.mark.parametrize("checkpoint_s", [15, 29])
async def test_reports_final_records_that_nobody_had_at_a_kill_are_told_after_it(
    monkeypatch: pytest.MonkeyPatch, rows_max: int, checkpoint_s: int
) -> None:
    monkeypatch.setattr(delivery_records, "OVER_ROWS_MAX", rows_max)
    world, peer = World(homes_of(20)), Peer()
    saved: dict[str, Any] = {}

    def checkpoint() -> None:
        if not saved or world.clock.utc <= began_ms + checkpoint_s * 1000:
            saved.update(columns={k: v.copy() for k, v in world.control.records.columns().items()})
            saved.update(at_ms=world.clock.utc)

    began_ms = world.clock.utc
    for number in range(20):
        await world.submit(f"zone-{number:02d}", s=20, target_w=1_000, group=group(f"home-{number:02d}"))
    await world.go(30, each=checkpoint)
    world.restart(away_s=2)
    slot_of = {i: i for i in range(20)}
    world.control.records.load(saved["columns"], world.dispatcher.entries(), slot_of, saved["at_ms"])
    await world.go(2)
    await all_told(world, peer, 20)


async def test_reports_final_records_survive_a_journal_that_fails_while_they_end_and_a_kill_then() -> None:
    world, peer = World(homes_of(20)), Peer()
    for number in range(20):
        await world.submit(f"zone-{number:02d}", s=20, target_w=1_000, group=group(f"home-{number:02d}"))
    await world.go(10)
    columns, at_ms = {k: v.copy() for k, v in world.control.records.columns().items()}, world.clock.utc
    world.journal.failing = True
    await world.go(20)
    world.journal.failing = False
    world.restart(away_s=2)
    world.control.records.load(columns, world.dispatcher.entries(), {i: i for i in range(20)}, at_ms)
    await world.go(2)
    await all_told(world, peer, 20)
    assert {row["device"]: row for row in await final(world, 20)} == peer.newest()


async def test_reports_what_was_told_before_a_restart_is_not_told_again() -> None:
    world, peer = World(homes_of(20)), Peer()
    await ended(world, 20)
    await all_told(world, peer, 20)
    columns, at_ms = world.control.records.columns(), world.clock.utc
    world.clock.advance(s=60)
    world.restart(away_s=60)
    world.control.records.load(columns, world.dispatcher.entries(), {i: i for i in range(20)}, at_ms + 60_000)
    assert world.control.records.waiting == 0


async def test_reports_records_that_are_nowhere_are_given_up_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_records, "OVER_ROWS_MAX", 0)
    monkeypatch.setattr(untold, "TRIES_MAX", 3)
    world, peer = World(homes_of(2)), Peer()
    reports = Reports(world.control.records, Bodies(), peer.publish, store=world.journal, availability_s=60)
    await ended(world, 2)
    world.journal.kept = [c for c in world.journal.kept if not isinstance(c, EventDelivered)]
    names = {sample.name: sample.value for sample in reports.samples()}
    assert (names["gateway_report_rows_waiting"], names["gateway_report_rows_dropped"]) == (2, 0)
    async with service(reports.run):
        await until(lambda: world.control.records.waiting == 0)
    names = {sample.name: sample.value for sample in reports.samples()}
    assert names["gateway_report_rows_dropped"] == 2


async def test_reports_events_and_availability_are_told_again_and_again_and_not_without_words() -> None:
    world, peer = World(homes_of(1)), Peer()
    bodies = Bodies([], [{"n": 1}, {"n": 2}], availability=({"w": 5},))
    reports = Reports(world.control.records, bodies, peer.publish, store=world.journal, availability_s=0.001)
    async with service(reports.run):
        await until(lambda: not bodies.events and len(peer.told["availability"]) > 2)
        await asyncio.sleep(0)
    assert peer.told["events"] == [{"n": 1}, {"n": 2}]
    assert reports.stats.reports == 2 + len(peer.told["availability"])


def test_reports_longest_of_all_fit_a_packet() -> None:
    long, text = "x" * 64, "2030-06-01T17:00:00.000Z"
    times = Times(status=text, sent=text, acknowledged=text, started=text, ended=text)
    watts = -1_234_567.891
    record = DeliveryBody(
        id=f"{long}~{long}/{10**13}/{long}", device=long, status="acknowledged", failure="unreachable",
        unreachable="no_subscriber", asked_w=watts, allowed_w=watts,
        limits=[str(reason.name).lower() for reason in Reason], written_w=watts, commands=10**9, cmd=1 << 62,
        result="refused", measured_w=watts, assumed_w=watts, asked_wh=watts,
        delivered_wh=watts, shortfall_wh=watts, unmeasured_wh=watts, times=times,
    )  # fmt: skip
    group_ = AvailabilityBody(
        group=long, devices=10**6, hours=[1, 2, 3, 4], discharge_w=[watts] * 4, charge_w=[watts] * 4
    )
    told = (
        DeliveryReport(event=long, source=long, revision=2**53, occurrence=text, at=text, devices=[record] * PART),
        AvailabilityReport(at=text, groups=[group_] * PART),
    )
    assert all(len(body.model_dump_json()) < 64_000 for body in told)


async def test_records_records_of_a_checkpoint_go_on_where_they_were() -> None:
    world = World(homes_of(3))
    await world.submit(s=600, target_w=3_000)
    await world.go(120)
    before, columns = world.rows(), world.control.records.columns()
    world.restart(away_s=5)
    # one device is gone, and the others have other slots by now
    slot_of = {world.fleet.slot_of["home-01"]: 0, world.fleet.slot_of["home-02"]: 2}
    world.control.records.load(columns, world.dispatcher.entries(), slot_of, 0)
    after = world.rows()
    assert sorted(after) == ["home-00", "home-02"]
    assert after["home-00"] == before["home-01"] | {"device": "home-00", "id": after["home-00"]["id"]}
    assert after["home-02"] == before["home-02"]
    assert after["home-02"]["delivered_wh"] > 20
    await world.go(60)
    assert world.rows()["home-02"]["delivered_wh"] > after["home-02"]["delivered_wh"]


# -- one record per occurrence -----------------------------------------------------------------------------------


async def kept(world: World, name: str = "e") -> list[EventDelivered]:
    return world.journal.delivered(EventId(name))


def wh(record: EventDelivered) -> float:
    return round(float(record.columns["delivered_wh"].sum()), 2)


async def test_records_event_revised_after_its_end_has_records_of_both() -> None:
    world = World(homes_of(2))
    await world.submit(s=60, target_w=2_000)
    await world.go(70)
    (first,) = await kept(world)
    await world.dispatcher.submit(replace(world.event(s=50, target_w=2_000), revision=2, start_ms=first.occurrence_ms))
    await world.go(60)
    before, after = await kept(world)
    assert (wh(before), before.occurrence_ms) == (wh(first), first.occurrence_ms)
    assert before.ended_ms < after.occurrence_ms < after.ended_ms
    assert 0 < wh(after) < wh(first)


async def test_records_occurrences_that_follow_at_once_have_a_record_each() -> None:
    world = World(homes_of(2))
    legs = (Leg(after_ms=0, until_ms=60_000, target=power(2_000)),)
    await world.submit(s=180, target_w=2_000, legs=legs, every_ms=60_000)
    await world.go(190)
    found = await kept(world)
    start_ms = found[0].occurrence_ms
    assert [record.occurrence_ms - start_ms for record in found] == [0, 60_000, 120_000]
    assert [record.ended_ms - start_ms for record in found] == [60_000, 120_000, 180_000]
    assert [wh(record) > 20 for record in found] == [True] * 3


async def test_records_old_checkpoint_neither_overwrites_a_record_nor_ends_it_late() -> None:
    world = World(homes_of(2))
    await world.submit(s=60, target_w=2_000)
    await world.go(50)
    columns = world.control.records.columns()
    old = {name: column.copy() for name, column in columns.items()}
    await world.go(20)
    before = await kept(world)
    world.restart(away_s=3_600)
    world.control.records.load(old, world.dispatcher.entries(), {0: 0, 1: 1}, 0)
    await world.go(3)
    (after,) = await kept(world)
    assert (wh(after), after.ended_ms) == (wh(before[0]), before[0].ended_ms)
    # the same, had it died before the end
    world.journal.kept = [c for c in world.journal.kept if not isinstance(c, EventDelivered)]
    world.restart(away_s=10)
    world.control.records.load(old, world.dispatcher.entries(), {0: 0, 1: 1}, 0)
    await world.go(3)
    (late,) = await kept(world)
    assert late.ended_ms - late.occurrence_ms == 60_000


async def test_records_commands_of_another_event_are_not_in_a_record() -> None:
    world = World(homes_of(2))
    await world.submit("low", s=60, target_w=2_000, priority=50)
    await world.go(20)
    await world.submit("high", s=30, target_w=-3_000, priority=1)
    await world.go(2)
    before = {name: row["commands"] for name, row in world.rows("low").items()}
    await world.go(20)
    after = world.rows("low")
    assert {name: row["commands"] for name, row in after.items()} == before
    assert all(row["written_w"] > 0 for row in after.values())
    assert {row["status"] for row in after.values()} == {"superseded"}


async def test_records_report_given_back_after_its_event_was_revised_is_published_for_the_old_one() -> None:
    world = World(homes_of(3))
    records = world.control.records
    await world.submit(s=30, target_w=3_000)
    await world.go(40)
    report = records.changed(10)
    assert report is not None
    (first,) = await kept(world)
    again = replace(world.event(s=60, target_w=1_000), revision=2, start_ms=first.occurrence_ms, group=group("home-00"))
    await world.dispatcher.submit(again)
    await world.go(5)
    records.give_back(report)
    told = records.changed(10)
    assert told is not None
    assert (told.occurrence_ms, len(told.rows)) == (first.occurrence_ms, 3)


# -- what else an end brings --------------------------------------------------------------------------------------


async def test_maintenance_event_cancelled_in_the_middle_has_a_rebound_too() -> None:
    world = World(homes_of(2))
    await world.submit(s=600, target_w=2_000)
    await world.go(60)
    await world.dispatcher.cancel("e")
    await world.go(30)
    assert list(world.control.maintenance.rebounds) == ["e"]
