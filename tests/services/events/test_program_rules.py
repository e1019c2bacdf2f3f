"""Rules of programs, when an event is decided and while it runs: refused here, a warning for the program's own
dispatcher, clipped to what a rule leaves."""

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import CorruptState, GatewayError, StorageError
from gateway.domain.events.book import Outcome, Refusal
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import OPEN_MS, Compensation, EventKind
from gateway.domain.journal.changes import EventDecided
from gateway.domain.journal.stored import StoredEvent
from gateway.domain.rules.calendar import ClockWindow
from gateway.domain.rules.counts import Allowance, Per
from gateway.domain.rules.program import GridProgram, LeadNotice, ProgramVersion
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.values import Certainty, Effect, Rule, T
from gateway.domain.types import EventId
from gateway.programs.loader import load_programs
from gateway.services.settings import ProgramSettings
from tests.builders.fakes import MemoryJournal
from tests.scenes.world import World, group, homes_of

HOUR_S = 3_600
NAME = "test"
PLATFORM, HERE = "mqtt", "rest"


def rule(value: T, effect: Effect = Effect.REFUSE, certainty: Certainty = Certainty.VERIFIED) -> Rule[T]:
    return Rule(value=value, effect=effect, certainty=certainty, source="page")


def window(first_h: float, until_h: float, effect: Effect = Effect.REFUSE) -> Rule[tuple[ClockWindow, ...]]:
    windows: tuple[ClockWindow, ...] = (ClockWindow(from_min=round(first_h * 60), until_min=round(until_h * 60)),)
    return rule(windows, effect)


VERSION = ProgramVersion(program=NAME, name="1", zone="UTC", days=DateRange(first=date(2027, 1, 1)))
"""The clock of these tests begins at 08:00 UTC on 15 January 2027."""


def world(version: ProgramVersion, **settings: object) -> World:
    programs = {NAME: ProgramSettings(**settings)} if settings else {}
    rules = {NAME: GridProgram(id=NAME, zone="UTC", versions=(version,))}
    return World(homes_of(2), programs=programs, rules=rules)


async def test_an_event_outside_the_window_is_refused_here_and_runs_with_a_warning_for_the_programs_dispatcher() -> (
    None
):
    found = world(replace(VERSION, window=window(16, 21)))
    await found.go(2)
    refused = await found.submit("here", s=HOUR_S, target_w=2_000.0, source=HERE)
    assert (refused.outcome, refused.reason) == (Outcome.REJECTED, Refusal.PROGRAM_RULES)
    assert refused.warnings == (
        "rule window of test 1 (verified): 16:00 to 21:00 in UTC; asked is 2027-01-15 08:00 UTC to "
        "2027-01-15 09:00 UTC; effect: refuse",
    )
    assert found.journal.of(EventDecided) == []
    accepted = await found.submit("theirs", s=HOUR_S, target_w=2_000.0, source=PLATFORM)
    assert accepted.outcome is Outcome.ACCEPTED
    assert "effect: warn" in accepted.warnings[0]
    await found.go(60)
    assert found.homes.battery_w.sum() > 1_500


async def test_who_the_programs_dispatcher_is_and_whether_it_is_refused_are_settings() -> None:
    outside = replace(VERSION, window=window(16, 21))
    by_settings = {
        (("rest",), False): Outcome.ACCEPTED,
        (("rest",), True): Outcome.REJECTED,
        (("other",), False): Outcome.REJECTED,
    }
    for (dispatchers, strict), outcome in by_settings.items():
        found = world(outside, dispatchers=dispatchers, refuse_outside_rules=strict)
        assert (await found.submit(s=HOUR_S, target_w=2_000.0, source=HERE)).outcome is outcome
    doubted = replace(outside, window=replace(window(16, 21), certainty=Certainty.REPORTED))
    found = world(doubted, refuse_outside_rules=True)
    assert (await found.submit(s=HOUR_S, target_w=2_000.0, source=PLATFORM)).outcome is Outcome.ACCEPTED


async def test_a_program_without_rules_is_asked_nothing() -> None:
    found = world(replace(VERSION, window=window(16, 21)))
    answer = await found.submit(s=HOUR_S, target_w=2_000.0, program="other", source=HERE)
    assert (answer.outcome, answer.warnings) == (Outcome.ACCEPTED, ())


async def test_a_clipped_event_runs_inside_the_window_alone() -> None:
    found = world(replace(VERSION, window=window(8 + 2 / 60, 8 + 5 / 60, Effect.CLIP)))
    await found.go(2)
    answer = await found.submit(s=600, target_w=2_000.0, source=HERE)
    assert (answer.outcome, len(answer.warnings)) == (Outcome.ACCEPTED, 1)
    await found.go(600)
    minutes = [max(found.trace[n : n + 60]) for n in range(0, 600, 60)]
    assert [power_w > 0 for power_w in minutes] == [False, False, True, True, True, True, *[False] * 4], "ramped down"
    assert minutes[3] > 1_900


async def test_the_most_that_a_clipped_event_can_give_is_given_until_the_window_closes() -> None:
    given: list[float] = []
    for until_h in (10.0, 18.0):
        found = world(replace(VERSION, window=window(8, until_h, Effect.CLIP)))
        await found.go(2)
        await found.submit(s=16 * HOUR_S, target_w=None, source=HERE)
        await found.go(60)
        given.append(float(found.homes.battery_w.sum()))
    assert given[0] > 3 * given[1] > 0


async def test_an_event_that_runs_is_judged_again_after_a_restart() -> None:
    found = world(replace(VERSION, window=window(8, 9)))
    await found.go(2)
    await found.submit(s=1_200, target_w=2_000.0, source=HERE)
    await found.go(60)
    assert found.homes.battery_w.sum() > 1_500
    later = replace(VERSION, window=window(16, 21))
    found.rules = {NAME: GridProgram(id=NAME, zone="UTC", versions=(later,))}
    found.restart(away_s=1)
    await found.go(120)
    assert found.homes.battery_w.sum() == 0
    assert found.authority() == ["DEVICE", "DEVICE"]


async def test_notice_is_that_of_the_revision_that_gave_the_start() -> None:
    found = world(replace(VERSION, notice=rule(LeadNotice(lead_s=7_200.0))))
    start_ms = found.clock.utc + 3 * HOUR_S * 1000
    event = replace(
        found.event(s=HOUR_S, target_w=2_000.0, source=HERE), start_ms=start_ms, end_ms=start_ms + HOUR_S * 1000
    )
    assert (await found.dispatcher.submit(event)).outcome is Outcome.ACCEPTED
    found.clock.advance(s=2 * HOUR_S)
    changed = replace(event, revision=2, nomination_w=1_000.0)
    assert (await found.dispatcher.submit(changed)).outcome is Outcome.ACCEPTED
    for revision in (3, 4):
        moved = replace(event, revision=revision, start_ms=start_ms + 60_000)
        assert (await found.dispatcher.submit(moved)).reason == Refusal.PROGRAM_RULES


async def test_a_rejected_event_does_not_have_its_notice_when_it_is_sent_again() -> None:
    found = world(replace(VERSION, notice=rule(LeadNotice(lead_s=7_200.0))))
    for _ in range(2):
        answer = await found.submit(s=HOUR_S, target_w=2_000.0, source=HERE)
        assert answer.reason == Refusal.PROGRAM_RULES


async def test_events_of_the_season_are_counted_with_those_that_only_the_store_has() -> None:
    found = world(replace(VERSION, events=rule(Allowance(most=3, per=Per.SEASON))))
    for day in range(3):
        await found.submit(f"e{day}", s=60, target_w=2_000.0, source=HERE)
        await found.go(70)
        found.clock.advance(s=10 * 86_400)
    await found.go(2)
    found.restart(away_s=1)
    assert found.dispatcher.find("e0") == [], "only the store has it"
    answer = await found.submit("more", s=60, target_w=2_000.0, source=HERE)
    assert answer.reason == Refusal.PROGRAM_RULES
    assert "3 events in a season; this is number 4" in answer.warnings[0]


class Unread(MemoryJournal):
    """A journal whose store of events that are over cannot be read."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__()
        self.error: GatewayError | None = error

    async def events(self, after: tuple[int, str] | None, limit: int) -> tuple[list[StoredEvent], bool]:
        if self.error is not None:
            raise self.error
        return await super().events(after, limit)


def unread(error: GatewayError) -> World:
    rules = {NAME: GridProgram(id=NAME, zone="UTC", versions=(VERSION,))}
    return World(homes_of(2), rules=rules, journal=Unread(error))


async def test_what_was_dispatched_before_and_is_damaged_stops_no_event_and_is_told() -> None:
    """It will never be readable; the counts begin anew, and say so."""
    found = unread(CorruptState("not readable events"))
    await found.dispatcher.rules.recall(found.clock.now())
    assert (await found.submit("e", s=HOUR_S, target_w=500.0, source=HERE)).outcome is Outcome.ACCEPTED
    assert "not readable events" in found.dispatcher.warnings()[0]


async def test_a_cancellation_is_taken_while_what_was_dispatched_before_cannot_be_read() -> None:
    found = unread(StorageError("disk"))
    journal = found.journal
    assert isinstance(journal, Unread)
    error, journal.error = journal.error, None
    assert (await found.submit("e", s=HOUR_S, target_w=500.0, source=HERE)).outcome is Outcome.ACCEPTED
    found.restart(away_s=1)
    journal.error = error
    with pytest.raises(StorageError):
        await found.submit("f", s=HOUR_S, target_w=500.0, source=HERE)
    over = await found.submit("e", s=HOUR_S, target_w=500.0, source=HERE, revision=2, cancelled=True)
    assert over.outcome is Outcome.ACCEPTED


async def test_an_event_that_was_cancelled_before_it_began_counts_nothing() -> None:
    found = world(replace(VERSION, events=rule(Allowance(most=1, per=Per.DAY))))
    start_ms = found.clock.utc + HOUR_S * 1000
    event = replace(found.event(s=HOUR_S, target_w=2_000.0, source=HERE), start_ms=start_ms, end_ms=start_ms + 60_000)
    await found.dispatcher.submit(event)
    assert (await found.submit("two", s=60, target_w=2_000.0, source=HERE)).reason == Refusal.PROGRAM_RULES
    await found.dispatcher.submit(replace(event, revision=2, cancelled=True))
    assert (await found.submit("two", s=60, target_w=2_000.0, source=HERE)).outcome is Outcome.ACCEPTED


async def test_an_event_that_an_operator_cancelled_before_it_began_counts_nothing() -> None:
    found = world(replace(VERSION, events=rule(Allowance(most=1, per=Per.DAY))))
    start_ms = found.clock.utc + HOUR_S * 1000
    event = replace(found.event(s=HOUR_S, target_w=2_000.0, source=HERE), start_ms=start_ms, end_ms=start_ms + 60_000)
    await found.dispatcher.submit(event)
    await found.dispatcher.cancel("e")
    assert (await found.submit("two", s=60, target_w=2_000.0, source=HERE)).outcome is Outcome.ACCEPTED


async def test_the_reserve_of_the_program_stays_in_every_battery_whoever_asks() -> None:
    found = world(replace(VERSION, reserve_pct=rule(55.0, Effect.CLIP)))
    await found.go(2)
    await found.submit(s=4 * HOUR_S, target_w=None, source=PLATFORM, reserve_pct=10.0)
    await found.go(10)
    assert found.fleet.control.program_reserve_pct[:2].tolist() == [55.0, 55.0]


async def test_a_program_without_exports_gives_to_the_homes_load_alone() -> None:
    found = world(replace(VERSION, export=rule(False, Effect.CLIP)))
    await found.go(2)
    answer = await found.submit(s=HOUR_S, target_w=6_000.0, source=PLATFORM, compensation=Compensation.EXPORTS)
    assert "effect: clip" in answer.warnings[0]
    await found.go(30)
    assert not found.fleet.control.pays_export[:2].any()


async def test_the_homes_that_a_storm_nears_are_left_alone_in_the_hours_before_it() -> None:
    found = world(replace(VERSION, storm_lockout_s=rule(HOUR_S * 2.0)))
    await found.go(2)
    await found.submit(s=4 * HOUR_S, target_w=2_000.0, source=PLATFORM)
    await found.go(60)
    storm = Exclusion(id="storm", reason="storm", group=group("home-00"), from_ms=found.clock.utc + HOUR_S * 1000,
                      until_ms=None)  # fmt: skip
    await found.dispatcher.exclude(storm)
    await found.go(60)
    assert (found.homes.battery_w[0], found.homes.battery_w[1] > 1_000) == (0.0, True)
    everybody = replace(storm, id="everywhere", group=replace(group(), all=True))
    await found.dispatcher.exclude(everybody)
    answer = await found.submit("late", s=HOUR_S, target_w=2_000.0, source=PLATFORM)
    assert answer.reason == Refusal.PROGRAM_RULES
    assert "storm_lockout" in answer.warnings[0]


async def test_a_dry_run_is_told_and_not_refused() -> None:
    found = world(replace(VERSION, window=window(16, 21)))
    answer = await found.submit(s=HOUR_S, target_w=2_000.0, source=HERE, kind=EventKind.DRY_RUN)
    assert (answer.outcome, "rule window" in answer.warnings[0]) == (Outcome.ACCEPTED, True)


async def test_an_event_until_further_notice_runs_in_the_window_of_every_day() -> None:
    found = world(replace(VERSION, window=window(8, 8 + 2 / 60, Effect.CLIP)))
    await found.go(2)
    answer = await found.submit(s=0, target_w=2_000.0, source=HERE, end_ms=OPEN_MS)
    assert (answer.outcome, "effect: clip" in answer.warnings[0]) == (Outcome.ACCEPTED, True)
    await found.go(240)
    assert (max(found.trace[30:120]) > 1_500, found.homes.battery_w.sum()) == (True, 0.0)
    found.clock.advance(s=86_400 - 240)
    await found.go(60)
    assert found.homes.battery_w.sum() > 1_500


async def test_broken_rules_are_counted_by_program_and_effect_from_zero_on() -> None:
    found = world(replace(VERSION, window=window(16, 21)))
    assert {sample.value for sample in found.dispatcher.samples()} == {0}
    await found.submit("here", s=60, target_w=2_000.0, source=HERE)
    for name in ("one", "two"):
        await found.submit(name, s=60, target_w=2_000.0, source=PLATFORM)
    counted = {dict(sample.labels).get("effect"): sample.value for sample in found.dispatcher.samples()}
    assert counted == {"refuse": 1, "clip": 0, "warn": 2, None: 0}


async def test_an_event_that_a_rule_holds_is_counted_once() -> None:
    found = world(replace(VERSION, window=window(8 + 1 / 60, 9, Effect.CLIP)))
    await found.submit(s=600, target_w=2_000.0, source=HERE)
    await found.go(120)
    assert [sample.value for sample in found.dispatcher.samples() if sample.name.endswith("held")] == [1]


async def test_a_dsgs_event_at_three_in_the_afternoon_runs_for_the_aggregator_and_is_refused_here() -> None:
    july_ms = round(datetime(2026, 7, 7, 15, tzinfo=ZoneInfo("America/Los_Angeles")).timestamp() * 1000)
    shipped = load_programs(Path(__file__).parents[3] / "config" / "programs")
    found = World(
        homes_of(2), rules={name: loaded.program for name, loaded in shipped.items()},
        clock=ManualClock(utc_ms=july_ms - 30 * HOUR_S * 1000),
    )  # fmt: skip
    await found.go(1)
    event = replace(
        found.event(s=2 * HOUR_S, target_w=2_000.0, program="dsgs-option3"),
        start_ms=july_ms, end_ms=july_ms + 2 * HOUR_S * 1000,
    )  # fmt: skip
    here = await found.dispatcher.submit(replace(event, id=EventId("here"), source=HERE))
    assert (here.reason, "rule window of dsgs-option3 2026 (verified)" in here.warnings[0]) == (
        Refusal.PROGRAM_RULES, True,
    )  # fmt: skip
    theirs = await found.dispatcher.submit(replace(event, id=EventId("theirs"), source=PLATFORM))
    assert (theirs.outcome, "effect: warn" in theirs.warnings[0]) == (Outcome.ACCEPTED, True)
    found.clock.advance(s=30 * HOUR_S)
    await found.go(60)
    assert found.homes.battery_w.sum() > 1_500
