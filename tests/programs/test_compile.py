"""From a program's document to the values that dispatch and money are judged by."""

from datetime import date
from decimal import Decimal
from typing import Any

from gateway.domain.rules.calendar import ClockWindow, Season
from gateway.domain.rules.counts import Allowance, Per
from gateway.domain.rules.preparation import AdjustmentWindow, KeepFrom
from gateway.domain.rules.program import ClockNotice, LeadNotice, LengthBounds
from gateway.domain.rules.rates import ChosenRate, RateCase, RateUnit, YearsBy, choose_rate
from gateway.domain.rules.stacking import PaidFor, StackingTerms
from gateway.domain.rules.values import Certainty, Effect, Rule
from tests.builders.programs import SAMPLE, SECOND, changed, program


def value(rule: Rule[Any] | None) -> object:
    assert rule is not None
    return rule.value


def test_every_rule_of_a_document_is_a_value_in_seconds_minutes_and_days() -> None:
    (version,) = program().versions
    assert (version.program, version.name, version.zone) == ("sample", "one", "America/Los_Angeles")
    assert value(version.season) == (Season(name="summer", first=(5, 1), last=(10, 31)),)
    assert value(version.window) == (ClockWindow(from_min=960, until_min=1260),)
    assert value(version.notice) == LeadNotice(lead_s=7200.0)
    assert value(version.length) == LengthBounds(least_s=3600.0, most_s=14_400.0)
    assert value(version.events) == Allowance(most=35, per=Per.SEASON)
    assert (value(version.rest_s), value(version.storm_lockout_s)) == (10_800.0, 172_800.0)
    assert [value(rule) for rule in (version.reserve_pct, version.export, version.grid_charge)] == [20, False, True]
    assert version.length is not None
    assert (version.length.effect, version.length.certainty, version.length.source) == (
        Effect.CLIP, Certainty.VERIFIED, "page",
    )  # fmt: skip
    assert version.calendar.weekdays == frozenset(range(5))
    assert date(2025, 7, 4) in version.calendar.holidays
    assert version.years_by is YearsBy.CALENDAR_YEAR


def test_what_is_kept_and_what_is_paid_for_keep_their_evidence() -> None:
    window = "adjustment_window: {value: {from_h: 4, until_h: 1}, evidence: reported, source: page}\n      formula:"
    stacks = """stacking:
      paid_for: {value: load, evidence: verified, source: page}
      beside_load: {value: exports, evidence: verified, source: page}
      up_to_nomination: {value: true, evidence: verified, source: page}
      yields: {value: true, evidence: verified, source: page}
    performance:"""
    (version,) = program(changed("formula:", window).replace("performance:", stacks, 1)).versions
    kept = version.preparation
    assert kept.keep_s is not None
    assert kept.adjustment is not None
    assert (kept.keep_s.value, kept.keep_s.source) == (14_400.0, "page")
    assert (kept.adjustment.value, kept.adjustment.certainty) == (
        AdjustmentWindow(from_s=14_400.0, until_s=3_600.0), Certainty.REPORTED,
    )  # fmt: skip
    terms = StackingTerms(paid_for=PaidFor.LOAD, beside_load=PaidFor.EXPORTS, up_to_nomination=True, yields=True)
    assert version.stacking == terms
    assert program().versions[0].stacking == StackingTerms(), "absent is nothing in particular"


def test_energy_is_kept_from_the_notice_on_where_the_file_says_so() -> None:
    (version,) = program(changed("keep_h: {value: 4,", "keep_h: {value: notice,")).versions
    kept = version.preparation.keep_s
    assert kept is not None
    assert kept.value is KeepFrom.NOTICE
    assert (version.kept_from_ms(7_200_000), version.kept_s_max) == (0, 7_200)
    (version,) = program().versions
    assert (version.kept_from_ms(14_400_000), version.kept_s_max) == (0, 14_400)


def test_notice_by_a_clock_time_is_kept_as_one() -> None:
    (version,) = program(changed("{hours: 2}", '{days_before: 1, by: "15:30"}')).versions
    assert value(version.notice) == ClockNotice(days_before=1, by_min=930)


def test_an_amount_is_what_was_written_as_a_text_or_as_a_number() -> None:
    for written in ('amount: "8.775"', "amount: 8.775"):
        (version,) = program(changed('amount: "8.775"', written)).versions
        case = RateCase(event=date(2025, 6, 1), season="summer", utility="North", enrolled=date(2025, 1, 1))
        found = choose_rate(version.rates, version.factors, RateUnit.KW_SEASON, case)
        assert isinstance(found, ChosenRate)
        assert (found.amount, found.rate.currency) == (Decimal("11.4075"), "USD")


def test_the_version_of_a_day_is_the_one_in_force_by_local_time() -> None:
    found = program(SAMPLE + SECOND)
    by_day = {date(2024, 12, 31): None, date(2025, 1, 1): "one", date(2025, 12, 31): "one", date(2026, 1, 1): "two"}
    for day, name in by_day.items():
        version = found.version_on(day)
        assert (None if version is None else version.name) == name
    new_year_ms = 1_767_254_400_000  # 2026-01-01 08:00 UTC
    assert [getattr(found.version_at(ms), "name", None) for ms in (new_year_ms - 1, new_year_ms)] == ["one", "two"]
