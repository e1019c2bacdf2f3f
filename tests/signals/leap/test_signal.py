"""From a webhook to the book of events, through the process that reads bodies: once, whatever is killed."""

import asyncio
import json
import os
import random
import signal as signals
from pathlib import Path

import pytest

from gateway.domain.events.book import Outcome
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import EventKind
from gateway.signals.leap.inbox import BodyInbox
from tests.signals.leap.bodies import HOUR, T0, body, group_body, slot, uid
from tests.signals.leap.rig import Meters, Rig, signal_at

pytestmark = pytest.mark.real_time


def spoil(directory: Path) -> None:
    for path in directory.glob("slots.sqlite*"):
        path.write_bytes(b"no database at all" * 100)


def state(rig: Rig, name: str) -> EventState:
    entry = rig.known(name)
    assert entry is not None
    return entry.state


async def test_an_event_is_scheduled_changed_and_cancelled_as_revisions_of_one(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({f"m{i}": [slot(f"e{i}")] for i in range(3)}))
        name = min(uid(f"e{i}") for i in range(3))
        assert state(rig, name) is EventState.SCHEDULED
        await rig.post(body({f"m{i}": [slot(f"e{i}", hours=(1, 3))] for i in range(3)}))
        await rig.post(body({f"m{i}": [slot(f"e{i}", cancelled=True)] for i in range(3)}))
        assert [(request.id, request.revision, request.cancelled, answer.outcome) for request, answer in rig.asked] == [
            (name, 0, False, Outcome.ACCEPTED), (name, 1, False, Outcome.ACCEPTED), (name, 2, True, Outcome.ACCEPTED),
        ]  # fmt: skip
        assert rig.asked[1][0].end_ms == T0 + 3 * HOUR
        assert state(rig, name) is EventState.CANCELLED
        assert rig.files("inbox") == []


async def test_fifty_duplicates_in_any_order_are_one_event(tmp_path: Path) -> None:
    told = [body({f"m{i}": [slot(f"e{i}")]}) for i in range(2)] + [body({f"m{i}": [slot(f"e{i}")] for i in range(2)})]
    messages = [told[i % 3] for i in range(50)]
    random.Random(4).shuffle(messages)
    async with signal_at(tmp_path) as rig:
        for message in messages:
            await rig.come(message)
        await rig.signal.caught_up()
        entries = [entry for entry in rig.world.dispatcher.entries() if entry.state is EventState.SCHEDULED]
        assert [set(entry.request.group.ids) for entry in entries] == [{"home-00", "home-01"}]
        assert len(rig.asked) <= 3


async def test_a_bad_slot_is_kept_out_alone_and_a_body_that_is_no_json_is_set_aside(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({"m0": [slot("e0"), slot("bad", energy_kw=-1)]}))
        await rig.post(b"<html>no</html>")
        await rig.post({"meter_dispatches": "?"})
        assert state(rig, uid("e0")) is EventState.SCHEDULED
        assert len(rig.files("bad")) == 2
        assert rig.metric("gateway_leap_slots_bad") == 1
        assert rig.metric("gateway_leap_bodies_set_aside") == 2
        assert any("could not be read" in text for text in rig.signal.warnings())
        for name in rig.files("bad"):
            (tmp_path / "bad" / name).unlink()
        rig.clock.advance(s=61)
        await rig.signal.caught_up()
        assert rig.metric("gateway_leap_bodies_set_aside") == 0
        told = await rig.signal.ask({"ask": "bad", "limit": 10})
        assert [one["place"] for one in told["bad"]] == ["(body)", "(body)", "meter_dispatches[0].timeslots[1]"]
        assert told["bad"][2]["event_id"] == uid("bad")


async def test_a_reader_that_is_killed_is_started_again_and_the_body_is_read_once(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({"m0": [slot("e0")]}))
        pid = rig.signal.reader.pid
        assert pid is not None
        os.kill(pid, signals.SIGKILL)
        await rig.post(body({"m1": [slot("e1")]}))
        await rig.signal.caught_up()
        assert [(request.id, request.group.ids) for request, _ in rig.asked] == [
            (uid("e0"), ("home-00",)), (uid("e0"), rig.asked[1][0].group.ids),
        ]  # fmt: skip
        assert len(rig.asked[1][0].group.ids) == 2
        assert rig.metric("gateway_leap_reader_restarts") >= 1
        assert rig.files("inbox") == rig.files("bad") == []


async def test_a_body_that_no_reader_survives_is_set_aside_and_the_next_is_read(tmp_path: Path) -> None:
    async with signal_at(tmp_path, read_timeout_s=1.0) as rig:
        # nobody ever reads to its end
        os.mkfifo(tmp_path / "inbox" / f"{T0:015d}-999999-00000000.meter")
        await rig.post(body({"m1": [slot("e1")]}))
        while rig.files("inbox"):
            await rig.signal.caught_up()
        assert len(rig.files("bad")) == 1
        assert rig.metric("gateway_leap_reader_restarts") >= 2
        assert rig.metric("gateway_leap_bodies_bad") == 1
        assert state(rig, uid("e1")) is EventState.SCHEDULED


async def test_a_body_that_is_deep_beyond_reason_is_set_aside(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(b'{"a":' * 2_000_000)
        assert len(rig.files("bad")) == 1


async def test_what_waits_at_the_start_is_read_and_what_was_half_written_was_never_answered(tmp_path: Path) -> None:
    inbox = BodyInbox(tmp_path)
    inbox.open()
    whole, half = inbox.begin("meter", T0), inbox.begin("meter", T0 + 1)
    whole.write(json.dumps(body({"m0": [slot("e0")]})).encode())
    half.write(json.dumps(body({"m1": [slot("e1")]})).encode())
    whole.keep()
    async with signal_at(tmp_path) as rig:
        await rig.signal.caught_up()
        assert state(rig, uid("e0")) is EventState.SCHEDULED
        assert rig.known(uid("e1")) is None
        assert rig.files("inbox") == []


async def test_a_body_that_was_read_before_a_kill_is_not_read_again(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({"m0": [slot("e0", energy_kw=2)]}))
        await rig.post(body({"m0": [slot("e0", energy_kw=3)]}))
        world, first = rig.world, rig.files("done")[0]
    # the kill came after it was read and before it was moved away
    (tmp_path / "done" / first).rename(tmp_path / "inbox" / first)
    async with signal_at(tmp_path, world=world) as rig:
        await rig.signal.caught_up()
        entry = rig.known(uid("e0"))
        assert entry is not None
        assert entry.request.target.power_w == 3_000
        assert rig.asked == []


async def test_the_next_run_goes_on_from_the_same_book(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({f"m{i}": [slot(f"e{i}", energy_kw=i + 1)] for i in range(3)}))
        world, name = rig.world, rig.asked[0][0].id
    async with signal_at(tmp_path, world=world) as rig:
        await rig.signal.caught_up()
        assert rig.asked == []
        await rig.post(body({"m1": [slot("e1", energy_kw=4)]}))
        assert [(request.id, request.revision) for request, _ in rig.asked] == [(name, 1)]


async def test_slots_that_cannot_be_read_any_more_are_set_aside_and_nothing_is_cancelled(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({"m0": [slot("e0")]}))
        world = rig.world
    spoil(tmp_path)
    async with signal_at(tmp_path, world=world) as rig:
        await rig.signal.caught_up()
        assert state(rig, uid("e0")) is EventState.SCHEDULED
        assert rig.asked == []
        await rig.post(body({"m0": [slot("e0")]}))
        assert rig.asked == []


async def test_a_late_retry_waits_for_search_and_search_decides(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({"m0": [slot("e0")]}))
        item = body({"m0": [slot("e0", cancelled=True)]})["meter_dispatches"][0]
        rig.clock.advance(s=10)
        await rig.search(item)
        assert state(rig, uid("e0")) is EventState.CANCELLED
        rig.clock.advance(s=10)
        await rig.post(body({"m0": [slot("e0")]}))
        assert state(rig, uid("e0")) is EventState.CANCELLED
        assert rig.signal.hints == 1


async def test_a_meter_without_a_battery_is_told_and_joins_once_enrollment_knows_it(tmp_path: Path) -> None:
    meters = Meters(2, lost={"m1"})
    async with signal_at(tmp_path, homes=2, meters=meters) as rig:
        await rig.post(body({"m0": [slot("e0")], "m1": [slot("e1")]}))
        assert rig.metric("gateway_leap_unknown_meters") == 1
        assert any("without a known battery" in text for text in rig.signal.warnings())
        assert rig.submission.standing.unknown_named == [uid("m1")]
        meters.lost.clear()
        meters.version = (2, 1)
        await rig.signal.caught_up()
        assert rig.asked[-1][0].group.ids == tuple(sorted(("home-00", "home-01"), key=rig.asked[-1][0].group.ids.index))
        assert len(rig.asked[-1][0].group.ids) == 2
        assert rig.metric("gateway_leap_unknown_meters") == 0


async def test_an_event_that_the_book_refuses_is_told_and_not_asked_for_again_at_once(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({"m0": [slot("far", hours=(24 * 20, 24 * 20 + 1))]}))
        await rig.post(body({"m1": [slot("e1")]}))
        assert [answer.reason for _, answer in rig.asked] == ["too_far_ahead", None]
        assert rig.metric("gateway_leap_events", state="early") == 1
        rig.clock.advance(s=7 * 86_400)
        await rig.signal.caught_up()
        assert state(rig, uid("far")) is EventState.SCHEDULED
        assert rig.metric("gateway_leap_events", state="early") == 0


async def test_an_operators_cancellation_stands_whatever_is_posted_again(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({"m0": [slot("e0")]}))
        await rig.world.dispatcher.cancel(uid("e0"))
        await rig.post(body({"m0": [slot("e0", energy_kw=2)]}))
        assert state(rig, uid("e0")) is EventState.CANCELLED
        assert rig.asked[-1][1].reason == "cancelled_by_operator"


async def test_a_test_of_the_interface_is_a_dry_run_beside_the_real_event(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({"m0": [slot("e0", energy_kw=2)]}))
        await rig.post(body({"m0": [slot("e0", energy_kw=5)]}, integration_test_notification=True))
        kinds = {request.id: request.kind for request, _ in rig.asked}
        assert kinds == {uid("e0"): EventKind.REAL, f"test-{uid('e0')}": EventKind.DRY_RUN}


async def test_group_dispatch_is_taken(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(group_body("g", ["m0", "m1"], slot("e", group=True, energy_kw=3)), "group")
        assert [(request.group.ids, request.target.power_w) for request, _ in rig.asked] == [
            (("home-00", "home-01"), 3_000)
        ]


async def test_adjacent_hours_run_without_a_release_between_and_the_second_as_the_market_cut_it(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        world = rig.world
        await world.go(2)
        began = (world.clock.now().utc_ms - T0) / HOUR
        hours = [(began, began + 60 / 3600), (began + 60 / 3600, began + 120 / 3600)]
        slots = [slot(f"e{i}", hours=span, energy_kw=2) for i, span in enumerate(hours)]
        await rig.post(body({"m0": slots}))
        await world.go(30)
        assert world.homes.battery_w[0] == pytest.approx(2_000, abs=5)
        await rig.post(body({"m0": [slots[1] | {"energy_kw": 1, "dispatch_event_types": ["hour-ahead"]}]}))
        trace = []
        for _ in range(60):
            await world.go(1)
            trace.append(float(world.homes.battery_w[0]))
        assert min(trace) >= 995
        assert trace[-1] == pytest.approx(1_000, abs=5)


async def test_ten_thousand_meters_with_four_slots_are_one_event_within_seconds(tmp_path: Path) -> None:
    hours = [(h, h + 1) for h in range(1, 5)]
    told = {
        f"m{i}": [slot(f"e{i}-{a}", hours=(a, b), energy_kw=1 + i % 50 / 10) for a, b in hours] for i in range(10_000)
    }
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            longest = max(longest, loop.time() - before)

    async with signal_at(tmp_path, meters=Meters(4)) as rig, asyncio.TaskGroup() as tasks:
        raw = json.dumps(body(told)).encode()
        watching = tasks.create_task(watch(), name="watch")
        await rig.post(raw)
        watching.cancel()
        assert len(rig.asked) == 1
        assert [len(leg.target.each_w) or 1 for leg in rig.asked[0][0].legs] == [4] * 4
        assert rig.metric("gateway_leap_unknown_meters") == 10_000 - 4
        print(f"{len(raw)} bytes; longest pause {longest * 1000:.1f} ms")


async def test_cancellation_that_comes_after_the_clock_was_set_back_counts(tmp_path: Path) -> None:
    async with signal_at(tmp_path) as rig:
        await rig.post(body({"m0": [slot("e0")]}))
        assert state(rig, uid("e0")) is EventState.SCHEDULED
        rig.clock.utc -= 30_000
        await rig.post(body({"m0": [slot("e0", cancelled=True)]}))
        assert state(rig, uid("e0")) is EventState.CANCELLED
