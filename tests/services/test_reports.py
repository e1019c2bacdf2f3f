"""What is told of dispatch, to a peer that takes it, refuses it, or is not there; and records over a restart."""

import asyncio
from typing import Any

import pytest

from gateway.services import reports as module
from gateway.services.ledger import StatusReport
from gateway.services.reports import Body, Reports
from tests.services.waiting import service, until
from tests.services.world import World, homes_of


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
    for name in ("LOOK_S", "RETRY_S", "EVENTS_EVERY_S"):
        monkeypatch.setattr(module, name, 0.001)
    monkeypatch.setattr(module, "ROWS_MAX", 3)


def body_of(report: StatusReport) -> Body:
    return {"event": report.event, "rows": list(report.rows)}


async def told(world: World, peer: Peer, reports: Reports, found: int) -> None:
    """Run until `found` reports were offered and nothing waits."""

    async def run() -> None:
        await reports.run(peer.publish, records=body_of, events=lambda: None, availability=lambda: None)

    async with service(run):
        await until(lambda: peer.offered >= found and (not peer.takes or world.control.ledger.waiting == 0))


async def test_reports_records_are_told_in_pages_and_each_as_it_is_at_last() -> None:
    world, peer = World(homes_of(7)), Peer()
    reports = Reports(world.control.ledger, availability_s=60)
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


async def test_reports_what_nobody_takes_waits_and_is_told_as_it_is_by_then() -> None:
    world, peer = World(homes_of(4)), Peer()
    reports = Reports(world.control.ledger, availability_s=60)
    await world.submit(s=60, target_w=4_000)
    await world.go(5)
    peer.takes = False
    await told(world, peer, reports, 5)
    assert (peer.told["deliveries"], reports.stats.rows, world.control.ledger.waiting) == ([], 0, 4)
    await world.go(80)  # it is over, and nobody has heard of it
    peer.takes = True
    await told(world, peer, reports, peer.offered + 2)
    assert {row["status"] for body in peer.told["deliveries"] for row in body["rows"]} == {"completed"}
    assert len(peer.newest()) == 4
    assert world.control.ledger.dropped == 0


async def test_reports_too_many_untold_events_lose_the_oldest_and_count_it() -> None:
    world = World(homes_of(2))
    for number in range(10):
        await world.submit(f"e{number}", s=3, target_w=1_000)
        await world.go(5)
    assert world.control.ledger.dropped == 2 * (10 - 8)
    names = {sample.name: sample.value for sample in Reports(world.control.ledger, availability_s=60).samples()}
    assert names["gateway_report_rows_dropped"] == 4
    assert names["gateway_report_rows_waiting"] == 16


async def test_reports_events_and_availability_are_told_again_and_again_and_not_without_words() -> None:
    world, peer = World(homes_of(1)), Peer()
    reports = Reports(world.control.ledger, availability_s=0.001)
    words: list[Body | None] = [None, {"n": 1}]

    def events() -> Body | None:
        return words.pop(0) if words else None

    async def run() -> None:
        await reports.run(peer.publish, records=body_of, events=events, availability=lambda: {"w": 5})

    async with service(run):
        await until(lambda: not words and len(peer.told["availability"]) > 2)
        await asyncio.sleep(0)
    assert peer.told["events"] == [{"n": 1}]
    assert reports.stats.reports == 1 + len(peer.told["availability"])


async def test_ledger_records_of_a_checkpoint_go_on_where_they_were() -> None:
    world = World(homes_of(3))
    await world.submit(s=600, target_w=3_000)
    await world.go(120)
    before, columns = world.rows(), world.control.ledger.columns()
    world.restart(away_s=5)
    # one device is gone, and the others have other slots by now
    slot_of = {world.fleet.slot_of["home-01"]: 0, world.fleet.slot_of["home-02"]: 2}
    world.control.ledger.restore(columns, world.dispatcher.entries(), slot_of)
    after = world.rows()
    assert sorted(after) == ["home-00", "home-02"]
    assert after["home-00"] == before["home-01"] | {"device": "home-00", "id": after["home-00"]["id"]}
    assert after["home-02"] == before["home-02"]
    assert after["home-02"]["delivered_wh"] > 20
    await world.go(60)
    assert world.rows()["home-02"]["delivered_wh"] > after["home-02"]["delivered_wh"]
