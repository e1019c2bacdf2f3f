"""Devices whose clock is wrong: told validity by their own clock where that is sure, and named where it is not."""

import numpy as np
import pytest

from gateway.api.views.dispatch import DispatchView, cause_of_row
from gateway.api.views.fleet import FleetView
from gateway.clock import ManualClock
from gateway.domain.events.request import power
from gateway.domain.types import NEVER_MS, Now
from gateway.links.mqtt.clocks import DeviceClocks, clock_cause
from gateway.services.devices.registry import DeviceRegistry
from simulators.commands import Result
from tests.builders.homes import START_MS, homes
from tests.links.mqtt.test_messages_unclear import Rig, live
from tests.scenes.street import Street, reference, registered


async def street(ahead_s: float) -> Street:
    """Four homes whose clocks are ahead of the gateway's, in an event of 8 kW for a minute."""
    made = Street(homes(4))
    made.now_ms += round(1000 * ahead_s)
    made.devices._next_live_ms += round(1000 * ahead_s)
    made.devices._next_energy_ms += round(1000 * ahead_s)
    await made.go(5)
    await made.submit("e", s=3_600, target=power(8_000.0))
    return await made.go(60)


@pytest.mark.fault("F12")
@pytest.mark.parametrize("ahead_s", [0, 15, 25, 50])
async def test_devices_whose_clocks_are_ahead_are_controlled(ahead_s: float) -> None:
    made = await street(ahead_s)
    assert made.devices.batteries.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    assert {seen.result for seen in made.devices.commands_seen} == {Result.APPLIED}
    assert made.problems == []


@pytest.mark.fault("F12")
async def test_device_whose_clock_is_ahead_refuses_a_command_that_is_late_by_its_validity() -> None:
    made = await street(25)
    held: list[tuple[str, bytes]] = []
    made.wire.deliver = lambda topic, payload: held.append((topic, payload))
    await made.go(1)
    await made.stop_all(active=True)
    await made.go(2)
    assert held
    made.wire.deliver = lambda _topic, _payload: None
    # twenty seconds of validity, and what a dead zone of 2 s may add
    await made.go(23)
    made.devices.take_answers()
    results = {
        made.devices.take_command(made._index[topic], payload, made.now_ms) is not None
        and made.devices.commands_seen[-1].result
        for topic, payload in held
    }
    assert results == {Result.EXPIRED}


async def test_device_whose_clock_is_set_right_is_told_by_it_from_its_next_reading_on() -> None:
    clocks, slots = DeviceClocks(), np.array([0, 1], dtype=np.int32)
    now = Now(utc_ms=START_MS, mono_ms=0)
    clocks.observe(slots, np.array([START_MS + 25_000, START_MS]), now)
    assert clocks.ahead_ms(slots).tolist() == [25_000, 0]
    clocks.observe(slots[:1], np.array([START_MS]), now)
    assert clocks.ahead_ms(slots).tolist() == [0, 0]


def test_clock_behind_is_not_corrected_for_a_late_reading_looks_the_same() -> None:
    clocks, slots = DeviceClocks(), np.array([0], dtype=np.int32)
    clocks.observe(slots, np.array([START_MS - 50_000]), Now(utc_ms=START_MS, mono_ms=0))
    assert (clocks.ahead_ms(slots).tolist(), clocks.offset_s(0)) == ([0], -50.0)


def test_clock_unknown_stays_unknown_and_changes_nothing() -> None:
    clocks = DeviceClocks()
    clocks.observe(np.array([1], dtype=np.int32), np.array([NEVER_MS]), Now(utc_ms=START_MS, mono_ms=0))
    assert clocks.ahead_ms(np.array([0, 1, 70_000], dtype=np.int32)).tolist() == [0, 0, 0]
    assert (clocks.offset_s(1), clocks.offset_s(70_000), clocks.off()) == (None, None, [])


@pytest.mark.parametrize(
    ("t_ms", "ahead_ms"),
    [(0, 0), (9_000_000_000_000_000, 0), (START_MS + 60_001, 0), (START_MS + 60_000, 60_000), (START_MS + 1_999, 0),
     (START_MS + 2_000, 2_000)],
)  # fmt: skip
def test_clock_corrects_times_from_two_seconds_to_a_minute_ahead(t_ms: int, ahead_ms: int) -> None:
    rig = Rig().hear(live(t_ms))
    assert rig.link.clocks.ahead_ms(np.array([0], dtype=np.int32)).tolist() == [ahead_ms]


@pytest.mark.parametrize(
    ("offset_s", "cause"),
    [
        (None, None),
        (0.0, None),
        (4.9, None),
        (-4.9, None),
        (25.0, "clock off by +25 s"),
        (-130.4, "clock off by -130 s"),
    ],
)
def test_cause_names_a_clock_that_is_off(offset_s: float | None, cause: str | None) -> None:
    assert clock_cause(offset_s) == cause


def test_link_warns_of_clocks_that_are_off_and_names_the_first() -> None:
    rig = Rig()
    assert rig.link.warnings() == []
    rig.hear(live(START_MS + 70_000), device="home-1")
    assert rig.link.warnings() == ["devices: clocks of 1 are off, first of home-1, clock off by +70 s"]
    rig.hear(live(START_MS), device="home-1")
    assert rig.link.warnings() == []


@pytest.mark.parametrize(("ahead_s", "lines"), [(4.9, []), (25.0, [("home-1", 25.0)]), (-25.0, [])])
def test_clock_that_is_ahead_is_logged_once_and_says_by_how_much(
    ahead_s: float, lines: list[tuple[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    for second in range(3):
        rig.hear(live(START_MS + 1_000 * second + round(1000 * ahead_s)))
        rig.clock.advance(s=1)
    assert [(r.__dict__["first"], r.__dict__["offset_s"]) for r in caplog.records] == lines


def contradicted(*told: tuple[float, float]) -> bool:
    """Whether a device contradicts our clock: `told` are (second in which a message came, time that it told)."""
    clocks, slots, every = DeviceClocks(), np.array([0], dtype=np.int32), np.ones(1, dtype=np.bool_)
    for second, told_s in told:
        now = Now(utc_ms=START_MS + round(1000 * second), mono_ms=round(1000 * second))
        clocks.observe(slots, np.array([START_MS + round(1000 * told_s)]), now)
    return clocks.skew(every, every, now).contradicted


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([(0, -200)], "nothing speaks for our clock"),
        ([(0, 0), *((second, second - 200) for second in range(1, 7))], "for 5 s it is off by the same time"),
        ([(0, 0), (60, -140), (120, -79)], "seldom told, and off by the same time"),
        ([(0, 0), (1, 201)], "a queue holds nothing of the future"),
    ],
)
def test_clock_that_is_off_by_the_same_time_contradicts_ours(told: list[tuple[float, float]], why: str) -> None:
    assert contradicted(*told), why


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([(0, 0), *((200, second) for second in range(1, 61))], "kept, and handed over at once"),
        ([(0, 0), *((200 + second / 5, second) for second in range(1, 61))], "kept, and handed over in 12 s"),
        ([(0, 0), *((second, second - 200) for second in range(1, 5))], "not for long yet"),
        ([(0, -200), (1, 1)], "set right"),
    ],
)
def test_readings_that_a_queue_kept_do_not_contradict_our_clock(told: list[tuple[float, float]], why: str) -> None:
    assert not contradicted(*told), why


def test_link_retained_message_says_nothing_of_a_clock() -> None:
    rig = Rig().hear(live(START_MS - 600_000), retain=True)
    assert rig.link.clocks.offset_s(0) is None


async def test_record_of_a_device_whose_clock_is_too_far_off_names_it_and_so_does_the_device() -> None:
    made = Street(homes(4))
    made.edits[0] = lambda body: body.update(t=body["t"] + 70_000)
    await made.go(5)
    await made.submit("e", s=3_600, target=power(8_000.0))
    await made.go(60)
    view = DispatchView(
        fleet=made.fleet, dispatcher=made.dispatcher, queries=made.queries, store=made.journal, clock=made.time,
        cause_of=made.link.cause_of,
    )  # fmt: skip
    (event,) = await view.find("e", None)
    status = await view.one(event, offset=0, limit=1)
    assert status is not None
    assert status.members is not None
    assert (status.members[0].failure, status.members[0].cause) == ("offline", "clock off by +70 s")
    inventory = DeviceRegistry(
        clock=ManualClock(), fleet=made.fleet, journal=made.journal, codecs={"reference-mqtt": reference()}
    )
    inventory.load(registered(made.homes))
    device = FleetView(
        fleet=made.fleet, inventory=inventory, link=made.link, clock=made.time, reach=made.control.reach
    ).one(made.homes.ids[0])
    assert device is not None
    assert device.clock_offset_s == 70.0


async def test_record_of_a_device_that_is_controlled_names_no_clock() -> None:
    made = await street(25)
    view = DispatchView(
        fleet=made.fleet, dispatcher=made.dispatcher, queries=made.queries, store=made.journal, clock=made.time,
        cause_of=made.link.cause_of,
    )  # fmt: skip
    (event,) = await view.find("e", None)
    status = await view.one(event, offset=0, limit=4)
    assert status is not None
    assert status.members is not None
    assert {(row.result, row.failure, row.cause) for row in status.members} == {("applied", None, None)}


def test_record_that_is_expired_names_the_clock() -> None:
    row = {"device": "a", "result": "expired", "failure": None}
    assert cause_of_row(row, lambda _: "clock off by +25 s") == "clock off by +25 s"
    assert cause_of_row(row | {"result": "applied"}, lambda _: "clock off by +25 s") is None


@pytest.mark.parametrize(
    ("t_ms", "why"),
    [
        (START_MS, None),
        (START_MS + 60_000, None),
        (START_MS + 60_001, "clock_ahead"),
        (START_MS - 120_000, None),
        (START_MS - 120_001, "clock_behind"),
    ],
)
def test_live_message_that_does_not_count_has_its_cause(t_ms: int, why: str | None) -> None:
    rig = Rig().hear(live(t_ms))
    assert rig.link.clocks.unheeded(0) == why
    assert rig.link.clocks.unheeded(1) is None
    heard = rig.fleet.live.seen_mono_ms[0] != NEVER_MS
    assert heard == (why is None)
    assert sum(rig.link.clocks.counts().values()) == (0 if heard else 1)


def test_live_message_without_a_time_has_its_cause_until_one_says_it(caplog: pytest.LogCaptureFixture) -> None:
    timeless = live().replace(b'"t":%d,' % START_MS, b"")
    assert timeless != live()
    rig = Rig().hear(timeless).hear(timeless)
    assert rig.link.clocks.unheeded(0) == "no_time"
    assert rig.link.cause_of("home-1") == "its live messages say no time"
    assert rig.link.warnings() == ["devices: live messages of 1 say no time and do not count"]
    assert [r.__dict__["reason"] for r in caplog.records] == ["no_time"]
    rig.hear(live())
    assert (rig.link.clocks.unheeded(0), rig.link.warnings(), rig.link.cause_of("home-1")) == (None, [], None)


def test_clock_that_steps_back_is_named_until_time_has_caught_up(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig().hear(live(START_MS))
    rig.clock.advance(s=2)
    rig.hear(live(START_MS - 18_000))
    assert rig.link.clocks.unheeded(0) == "clock_back"
    assert [(r.__dict__["reason"], r.__dict__["first"]) for r in caplog.records] == [("clock_back", "home-1")]
    rig.clock.advance(s=19)
    rig.hear(live(START_MS + 1_000))
    assert rig.link.clocks.unheeded(0) is None
