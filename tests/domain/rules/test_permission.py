"""What a dispatch breaks of its program's rules, and what that does to whoever asks."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from gateway.domain.rules.calendar import HOUR_MS, MINUTE_MS, ClockWindow, Season, Span, local_ms
from gateway.domain.rules.counts import Allowance, Per
from gateway.domain.rules.permission import Asked, Permission, held_from_ms, permission, permission_now
from gateway.domain.rules.program import (
    ClockNotice,
    DispatchDays,
    GridProgram,
    LeadNotice,
    LengthBounds,
    ProgramVersion,
)
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.values import Asker, Certainty, Effect, Rule, T

ZONE = "America/Los_Angeles"
DAY = date(2026, 7, 7)
LOCAL, PROGRAM = Asker.LOCAL, Asker.PROGRAM


def rule(value: T, effect: Effect = Effect.REFUSE, certainty: Certainty = Certainty.VERIFIED) -> Rule[T]:
    return Rule(value=value, effect=effect, certainty=certainty, source="a text")


EVENINGS: tuple[ClockWindow, ...] = (ClockWindow(from_min=16 * 60, until_min=21 * 60),)
SUMMERS: tuple[Season, ...] = (Season(name="summer", first=(5, 1), last=(10, 31)),)
WINDOW = rule(EVENINGS)
EVENING = ProgramVersion(program="p", name="2026", zone=ZONE, days=DateRange(first=date(2026, 1, 1)), window=WINDOW)


def program(version: ProgramVersion) -> GridProgram:
    return GridProgram(id="p", zone=ZONE, versions=(version,))


def at(hour: float, hours: float = 2, day: date = DAY) -> Span:
    start_ms = local_ms(ZONE, day, round(hour * 60))
    return start_ms, start_ms + round(hours * HOUR_MS)


def found(version: ProgramVersion, asked: Asked, *, ahead: float = 48, strict: bool = False) -> Permission:
    return permission(program(version), asked, asked.span[0] - round(ahead * HOUR_MS), strict=strict)


def broken(version: ProgramVersion, asked: Asked, *, ahead: float = 48) -> list[tuple[str, str]]:
    return [(breach.rule, breach.effect.value) for breach in found(version, asked, ahead=ahead).breaches]


def test_an_event_inside_every_rule_breaks_none() -> None:
    assert found(EVENING, Asked(span=at(16, 5), asker=LOCAL)) == Permission(version="p 2026")


def test_an_early_event_goes_with_a_warning_for_the_programs_dispatcher_and_is_refused_here() -> None:
    local, from_program = (found(EVENING, Asked(span=at(15), asker=asker)) for asker in (LOCAL, PROGRAM))
    assert (local.refused, local.outside_known_rules) == (True, False)
    assert (from_program.refused, from_program.outside_known_rules) == (False, True)
    (breach,) = from_program.breaches
    assert (breach.rule, breach.version, breach.effect) == ("window", "p 2026", Effect.WARN)
    assert (
        breach.words == "16:00 to 21:00 in America/Los_Angeles; asked is 2026-07-07 15:00 PDT to 2026-07-07 17:00 PDT"
    )


@pytest.mark.parametrize(("certainty", "refused"), [(Certainty.VERIFIED, True), (Certainty.REPORTED, False)])
def test_the_programs_dispatcher_is_refused_only_by_verified_values_and_where_that_is_chosen(
    certainty: Certainty, refused: bool
) -> None:
    version = replace(EVENING, window=replace(WINDOW, certainty=certainty))
    asked = Asked(span=at(15), asker=PROGRAM)
    assert found(version, asked, strict=True).refused is refused
    assert not found(version, asked).refused


def test_a_clipped_event_is_accepted_and_runs_inside_alone() -> None:
    version = replace(EVENING, window=replace(WINDOW, effect=Effect.CLIP))
    asked = Asked(span=at(15), asker=LOCAL)
    assert broken(version, asked) == [("window", "clip")]
    start_ms = asked.span[0]
    held = [permission_now(program(version), LOCAL, [asked.span], start_ms + n * 30 * MINUTE_MS).held for n in range(4)]
    assert held == [True, True, False, False]


def test_a_clipped_event_of_which_nothing_is_left_is_refused() -> None:
    version = replace(EVENING, window=replace(WINDOW, effect=Effect.CLIP))
    assert broken(version, Asked(span=at(13), asker=LOCAL)) == [("window", "refuse")]


def test_season_and_days_are_told_apart_from_the_window() -> None:
    version = replace(
        EVENING,
        season=rule(SUMMERS),
        weekdays=rule(DispatchDays(weekdays=frozenset(range(5)), holidays=frozenset({date(2026, 7, 3)}))),
    )
    by_day = {
        date(2026, 7, 7): [],
        date(2026, 7, 3): [("weekdays", "refuse")],
        date(2026, 7, 4): [("weekdays", "refuse")],
        date(2026, 11, 3): [("season", "refuse")],
    }
    for day, breaches in by_day.items():
        assert broken(version, Asked(span=at(17, day=day), asker=LOCAL)) == breaches
    early = broken(version, Asked(span=at(12, day=date(2026, 11, 1)), asker=LOCAL))
    assert [name for name, _ in early] == ["window", "season", "weekdays"]


def test_notice_is_a_time_ahead_or_a_clock_time_some_days_before() -> None:
    lead = replace(EVENING, notice=rule(LeadNotice(lead_s=86_400.0)))
    clock = replace(EVENING, notice=rule(ClockNotice(days_before=1, by_min=17 * 60)))
    asked = Asked(span=at(18), asker=LOCAL)
    assert [broken(lead, asked, ahead=hours) for hours in (24, 23)] == [[], [("notice", "refuse")]]
    assert [broken(clock, asked, ahead=hours) for hours in (25, 24.9)] == [[], [("notice", "refuse")]]


def test_length_is_that_of_all_that_touches() -> None:
    version = replace(EVENING, length=rule(LengthBounds(least_s=7200.0, most_s=10_800.0)))
    first, second = at(17, 1), at(18, 1)
    assert broken(version, Asked(span=first, asker=LOCAL)) == [("length", "refuse")]
    assert broken(version, Asked(span=first, asker=LOCAL, others=[second])) == []
    assert broken(version, Asked(span=first, asker=LOCAL, others=[at(18, 3)])) == [("length", "refuse")]


def test_events_and_hours_of_a_season_are_counted_with_those_that_were() -> None:
    season = rule(SUMMERS)
    version = replace(
        EVENING, season=season, events=rule(Allowance(most=2, per=Per.SEASON)),
        hours=rule(Allowance(most=5.0, per=Per.SEASON)),
    )  # fmt: skip
    before = [at(18, 2, DAY - timedelta(days=n)) for n in (1, 2)]
    last_year = at(18, 2, DAY.replace(year=2025))
    asked = Asked(span=at(18), asker=LOCAL, others=[before[0], last_year])
    assert broken(version, asked) == []
    assert broken(version, replace(asked, others=before)) == [("events", "refuse"), ("hours", "refuse")]


def test_hours_that_are_clipped_end_an_event_when_they_are_used_up() -> None:
    version = replace(EVENING, hours=rule(Allowance(most=3.0, per=Per.DAY), Effect.CLIP))
    asked = Asked(span=at(18), asker=LOCAL, others=[at(16, 1.5)])
    assert broken(version, asked) == [("hours", "clip")]
    used = [asked.span, *asked.others]
    times_ms = [asked.span[0] + n * 30 * MINUTE_MS for n in range(4)]
    held = [permission_now(program(version), LOCAL, used, now_ms).held for now_ms in times_ms]
    assert held == [False, False, False, True]
    assert broken(version, replace(asked, others=[at(16, 3)])) == [("hours", "refuse")]


def test_rest_is_kept_before_and_after_other_events() -> None:
    version = replace(EVENING, rest_s=rule(3600.0))
    asked = Asked(span=at(18, 1), asker=LOCAL)
    by_other = {16.5: ["rest"], 16: [], 17: [], 19: [], 19.5: ["rest"], 20: []}
    for hour, breaches in by_other.items():
        told = broken(version, replace(asked, others=[at(hour, 1)]))
        assert [name for name, _ in told] == breaches, hour


def test_the_days_before_a_storm_bind_the_programs_dispatcher_too() -> None:
    version = replace(EVENING, storm_lockout_s=rule(2 * 86_400.0))
    storm = at(6, 24, DAY + timedelta(days=2))
    for asker in Asker:
        asked = Asked(span=at(18), asker=asker, storms=[storm])
        assert broken(version, asked) == [("storm_lockout", "refuse")]
        later = Asked(span=at(18, day=DAY - timedelta(days=1)), asker=asker, storms=[storm])
        assert broken(version, later) == []


def test_permissions_clip_what_can_be_clipped_and_refuse_the_rest() -> None:
    version = replace(EVENING, export=rule(False, Effect.CLIP), grid_charge=rule(False, Effect.CLIP))
    asked = Asked(span=at(18), asker=PROGRAM)
    assert broken(version, replace(asked, exports=True)) == [("export", "clip")]
    assert broken(version, replace(asked, precharges=True)) == [("grid_charge", "clip")]
    assert broken(version, replace(asked, charges=True)) == [("grid_charge", "refuse")]


def test_a_day_without_rules_in_force_warns_the_program_and_refuses_here() -> None:
    for asker, effect in ((LOCAL, "refuse"), (PROGRAM, "warn")):
        asked = Asked(span=at(18, day=date(2025, 12, 31)), asker=asker)
        assert broken(EVENING, asked) == [("version", effect)]
        assert found(EVENING, asked, strict=True).version == ""


def test_an_event_that_is_clipped_to_a_length_runs_so_long_whatever_else_the_evening_has() -> None:
    version = replace(EVENING, length=rule(LengthBounds(most_s=3600.0), Effect.CLIP))
    used = [at(17, 2), at(17, 4), at(20.5, 0.5)]
    times_ms = [used[0][0] + n * 30 * MINUTE_MS for n in range(4)]
    held = [permission_now(program(version), LOCAL, used, now_ms).held for now_ms in times_ms]
    assert held == [False, False, True, True]


def test_what_runs_is_warned_of_or_held_by_who_asks() -> None:
    early_ms = at(15)[0]
    said = {asker: permission_now(program(EVENING), asker, [at(15)], early_ms) for asker in Asker}
    assert (said[LOCAL].held, said[PROGRAM].held) == (True, False)
    assert permission_now(program(EVENING), PROGRAM, [at(15)], early_ms, strict=True).held


def test_what_runs_ends_where_the_calendar_binds_whoever_asks() -> None:
    start_ms, closes_ms = at(20)[0], at(21)[0]
    assert held_from_ms(program(EVENING), LOCAL, start_ms) == closes_ms
    assert held_from_ms(program(EVENING), PROGRAM, start_ms) is None
    assert held_from_ms(program(EVENING), PROGRAM, start_ms, strict=True) == closes_ms
    warning = replace(EVENING, window=replace(WINDOW, effect=Effect.WARN))
    assert held_from_ms(program(warning), LOCAL, start_ms) is None
    assert held_from_ms(program(replace(EVENING, window=None)), LOCAL, start_ms) is None
