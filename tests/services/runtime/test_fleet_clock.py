"""A clock that most of the fleet contradicts begins and ends nothing; one that nobody speaks of stands."""

import logging

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.events.book import Outcome, Refusal
from gateway.domain.events.request import power
from gateway.domain.fleet.clock_skew import ClockSkew, ClockTrust, clock_skew
from gateway.domain.fleet.columns import Authority
from gateway.domain.types import NEVER_MS, Now
from gateway.services.runtime.fleet_clock import FleetClock
from tests.builders.homes import homes
from tests.scenes.street import Street

HOUR_S = 3_600
NOW = Now(utc_ms=1_800_000_000_000, mono_ms=1_000_000)


async def street(count: int = 4) -> Street:
    """Homes that serve an event of half an hour for a minute."""
    made = Street(homes(count))
    await made.go(5)
    await made.submit("e", s=HOUR_S / 2, target=power(8_000.0))
    return await made.go(60)


def state(made: Street, name: str = "e") -> str:
    entry = made.dispatcher.entry(name)
    assert entry is not None
    return entry.state.value


async def restarted(made: Street, *, step_s: float, away_s: float = 5.0) -> Street:
    """The gateway comes back on a machine whose clock stepped meanwhile."""
    made.clock.utc += round(1000 * step_s)
    await made.restart(away_s=away_s)
    made.wire.deliver = made._delivered
    return made


@pytest.mark.fault("F11")
async def test_event_that_runs_survives_a_restart_with_the_clock_an_hour_ahead_and_goes_on_once_it_is_right(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = await restarted(await street(), step_s=HOUR_S)
    await made.go(30)
    assert state(made) == "active"
    assert made.fleet_clock.trust is ClockTrust.CONTRADICTED
    assert made.fleet_clock.reasons() == [
        "clock: 4 of 4 devices contradict it (median -3600 s), no event begins or ends"
    ]
    errors = [r for r in caplog.records if r.levelno == logging.ERROR and "contradict" in r.getMessage()]
    assert len(errors) == 1
    # the leases run out by themselves and nothing is written by a time that is wrong
    await made.go(200)
    assert not made.remote.any()
    assert state(made) == "active"
    made.clock.utc -= HOUR_S * 1000
    await made.go(120)
    assert made.fleet_clock.reasons() == []
    assert made.devices.batteries.battery_w.sum() == pytest.approx(8_000, rel=0.02)
    await made.go(HOUR_S / 2)
    assert state(made) == "completed"


async def test_restart_with_the_clock_an_hour_ahead_leaves_every_device_the_rest_of_its_lease() -> None:
    made = await street()
    seen = len(made.devices.commands_seen)
    await restarted(made, step_s=HOUR_S)
    await made.go(20)
    assert len(made.devices.commands_seen) == seen
    assert made.remote.sum() == 4


async def test_event_to_come_does_not_begin_by_a_clock_that_is_contradicted() -> None:
    made = Street(homes(4))
    await made.go(5)
    await made.submit("e", in_s=1_800, s=600, target=power(8_000.0))
    await restarted(made, step_s=2_000)
    await made.go(60)
    assert state(made) == "scheduled"
    await restarted(made, step_s=3_000)
    await made.go(60)
    assert state(made) == "scheduled"
    assert not made.remote.any()


async def test_event_is_refused_by_name_while_the_clock_is_contradicted_and_a_cancellation_is_not() -> None:
    made = await restarted(await street(), step_s=HOUR_S)
    await made.go(10)
    answer = await made.submit("new", s=600, target=power(8_000.0))
    assert (answer.outcome, answer.reason) == (Outcome.REJECTED, Refusal.CLOCK_CONTRADICTED)
    await made.cancel("e")
    await made.go(5)
    assert state(made) == "cancelled"


async def test_stop_all_hands_devices_back_while_the_clock_is_contradicted() -> None:
    made = await restarted(await street(), step_s=HOUR_S)
    await made.go(10)
    await made.stop_all(active=True)
    await made.go(30)
    assert not made.remote.any()


async def test_event_that_ended_while_the_gateway_was_away_is_completed_once_devices_have_told_the_time() -> None:
    made = await street()
    await restarted(made, step_s=0, away_s=HOUR_S / 2)
    assert state(made) == "completed"
    await made.go(5)
    assert state(made) == "completed"
    assert [a.name for a in map(Authority, made.fleet.control.authority[:4].tolist())] == ["DEVICE"] * 4


async def test_event_does_not_end_after_a_start_before_a_device_has_told_the_time_and_for_a_minute_at_most() -> None:
    made = await street()
    await restarted(made, step_s=HOUR_S)
    made.wire.up = False
    await made.go(50)
    assert state(made) == "active"
    # nobody speaks: our clock is the only one there is
    await made.go(20)
    assert state(made) == "completed"


# -- the verdict ---------------------------------------------------------------------------------------------


def skew(*offsets_s: float | None, others: int = 0, age_s: float = 0.0) -> ClockSkew:
    """What devices that tell a time say, with `others` that cannot."""
    n = len(offsets_s) + others
    offset_ms = np.array([np.nan if s is None else 1000 * s for s in offsets_s] + [np.nan] * others)
    told = np.where(np.isnan(offset_ms), NEVER_MS, NOW.mono_ms - round(1000 * age_s))
    speakers = np.arange(n) < len(offsets_s)
    return clock_skew(offset_ms, told, speakers, np.ones(n, dtype=np.bool_), NOW)


def test_most_that_are_too_far_off_contradict_and_half_of_them_do_not() -> None:
    assert skew(-3_600, -3_600, 0.0).contradicted
    assert not skew(-3_600, 0.0).contradicted
    assert not skew(59, 59, -119).contradicted
    assert skew(-3_600, -3_600, 0.0).offset_s == -3_600


def test_few_of_a_fleet_do_not_speak_for_it() -> None:
    assert not skew(-3_600, others=20).contradicted
    assert skew(-3_600, -3_600, others=18).contradicted
    assert skew(None, others=20).trust(starting=True) is ClockTrust.SURE


def test_what_was_told_long_ago_does_not_count_and_nobody_has_no_median() -> None:
    old = skew(-3_600, age_s=121)
    assert (old.contradicted, old.offset_s) == (False, None)
    assert skew().trust(starting=True) is ClockTrust.SURE
    assert skew(None).trust(starting=True) is ClockTrust.UNSURE
    assert skew(None).trust(starting=False) is ClockTrust.SURE


def test_metrics_show_the_median_only_where_somebody_told_a_time() -> None:
    told = ClockSkew()
    watch = FleetClock(ManualClock(), lambda _now: told)
    watch.observe(NOW)
    assert {s.name: s.value for s in watch.samples()} == {
        "gateway_fleet_clock_devices": 0, "gateway_clock_contradicted": 0,
    }  # fmt: skip
    told = skew(-3_600, -3_600)
    watch.observe(NOW)
    assert {s.name: s.value for s in watch.samples()} == {
        "gateway_fleet_clock_skew_seconds": -3_600, "gateway_fleet_clock_devices": 2, "gateway_clock_contradicted": 1,
    }  # fmt: skip
