"""What is wrong with a program beyond its schema: versions in time, names that must be there, rates that rival."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.programs.loader import parse_program
from tests.builders.programs import SAMPLE, SECOND, changed, program

BOTH = SAMPLE + SECOND


def faults(text: str) -> list[str]:
    """Path and words of each fault."""
    try:
        parse_program(text, name="p.yaml")
    except InvalidInput as error:
        return [problem.split(": ", 1)[1] for problem in error.problems]
    return []


def versions(until: str | None, first: str) -> str:
    """The sample with a second version; the first one's end and the second one's start."""
    text = changed("    until: 2026-01-01\n", f"    until: {until}\n" if until else "", text=BOTH)
    text = changed("dates: [2025-07-04, 2026-07-03]", "dates: [2025-07-04, 2026-07-03, 2027-07-05]", text=text)
    return changed("    from: 2026-01-01\n", f"    from: {first}\n", text=text)


SAME_HOURS = "adjustment_window: {value: {from_h: 2, until_h: 2}, evidence: verified, source: page}"


@pytest.mark.parametrize(
    ("until", "first", "words"),
    [
        ("2026-01-01", "2026-01-01", None),
        ("2026-01-01", "2026-05-01", None),
        ("2026-01-02", "2026-01-01", "overlaps 'one', which is in force until 2026-01-02"),
        (None, "2026-01-01", "overlaps 'one', which is in force until further notice"),
        ("2026-01-01", "2026-05-02", "leaves a gap after 'one': 2026-05-01 is inside a season"),
        ("2026-01-01", "2024-12-31", "before that of 'one': versions stand in the order of their days"),
    ],
)
def test_versions_neither_overlap_nor_leave_a_gap_inside_a_season(
    until: str | None, first: str, words: str | None
) -> None:
    assert faults(versions(until, first)) == ([] if words is None else [f"versions.1.from: {words}"])


def test_a_gap_is_a_fault_on_any_day_for_a_program_without_seasons() -> None:
    season = "season: {value: [{name: summer, from: 06-01, to: 09-30}], effect: refuse"
    text = changed(season, "rest_h: {value: 1, effect: refuse", text=versions("2026-01-01", "2026-01-02"))
    assert faults(text) == ["versions.1.from: leaves a gap after 'one': 2026-01-01 is inside a season"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("    until: 2026-01-01\n", "    until: 2025-01-01\n", "versions.0.until: not after from"),
        ("currency: USD, per: kw_season, evidence: verified, source: page}\n    factors",
         "per: kw_season, evidence: verified, source: page}\n    factors",
         "versions.0.rates.1.currency: missing: a rate has a currency, like USD"),
        ("utilities: [South]", "utilities: [South, West]",
         "versions.0.rates.1.utilities.1: 'West' is not among the utilities of the program"),
        ("utilities: [North], season: summer", "utilities: [North], season: winter",
         "versions.0.rates.0.season: 'winter' is not a season of this version"),
        ("enrolled: {from: 2024-06-01}", "enrolled: {from: 2024-06-01, until: 2024-06-01}",
         "versions.0.rates.1.enrolled.until: not after from"),
        ("years: {from: 1, to: 5}", "years: {from: 5, to: 1}", "versions.0.rates.0.years.to: before from"),
        ("    participation_years: {value: calendar_year, evidence: verified, source: page}\n", "",
         "versions.0.rates.0.years: participation_years is missing: how are they counted?"),
        ("utilities: [South], season", "utilities: [South, North], season",
         "versions.0.rates.1: holds for the same events and homes as 'north'"),
        ("but: few", "but: many", "versions.0.rules.weekdays.value.but: 'many' is not among the holidays"),
        ("2025-07-04, 2026-07-03", "2026-07-03",
         "versions.0.rules.weekdays.value.but: 'few' has no day of 2025, in which this version is in force"),
        ("{value: 20, effect: clip", "{value: 20, effect: warn",
         "versions.0.rules.reserve_pct.effect: refuse or clip: this binds whoever dispatches"),
        ("{value: 48, effect: refuse", "{value: 48, effect: warn",
         "versions.0.rules.storm_lockout_h.effect: refuse or clip: this binds whoever dispatches"),
        ("{hours: 2}, effect: warn", "{hours: 2}, effect: clip",
         "versions.0.rules.notice.effect: refuse or warn: nothing of the event would be left"),
        ("      formula:", f"      {SAME_HOURS}\n      formula:",
         "versions.0.performance.adjustment_window.value: until_h: not less than from_h"),
        ("grid_charge: {value: true", "grid_charge: {value: false",
         "versions.0.preparation.charge_from_grid: rules.grid_charge does not permit it"),
        ('[{from: "16:00", until: "21:00"}]', '[{from: "16:00", until: "21:00"}, {from: "20:00", until: "22:00"}]',
         "versions.0.rules.window.value.1: overlaps another window"),
        ('[{from: "16:00", until', '[{season: autumn, from: "16:00", until',
         "versions.0.rules.window.value.0.season: 'autumn' is not a season of this version"),
        ("from: 05-01, to: 10-31}", "from: 05-01, to: 10-31}, {name: late, from: 10-31, to: 12-01}",
         "versions.0.rules.season.value.1: overlaps 'summer' on 10-31"),
        ("value: 90, evidence: verified, source: page", "value: 90, evidence: verified, source: book",
         "versions.0.measurement.coverage_min_pct.source: 'book' is not among the sources"),
        ("pricing: rates", "pricing: none", "versions.0.rates: there are none: the program's pricing is none"),
    ],
)  # fmt: skip
def test_a_fault_beyond_the_schema_is_told_with_its_path(old: str, new: str, fault: str) -> None:
    assert faults(changed(old, new)) == [fault]


def test_energy_is_kept_for_some_hours_or_from_a_notice_that_there_is() -> None:
    from_notice = changed("{value: 4, evidence", "{value: notice, evidence")
    assert faults(from_notice) == []
    rule = "      notice: {value: {hours: 2}, effect: warn, evidence: verified, source: page}\n"
    assert faults(changed(rule, "", text=from_notice)) == [
        "versions.0.preparation.keep_h: notice: there is no rules.notice"
    ]
    for wrong in ("0", "24.5", "always", "true", "[4]"):
        assert faults(changed("{value: 4, evidence", f"{{value: {wrong}, evidence")) == [
            "versions.0.preparation.keep_h.value: hours before an event, more than 0 and at most 24, or notice"
        ], wrong


def test_a_program_that_says_it_has_rates_has_some() -> None:
    head, _, tail = SAMPLE.partition("    rates:\n")
    assert faults(head + tail[tail.index("    factors:") :]) == [
        "versions.0.rates: missing: the program's pricing is rates"
    ]


@given(st.lists(st.integers(0, 900), min_size=4, max_size=4))
def test_at_most_one_version_of_a_program_without_faults_is_in_force_on_any_day(numbers: list[int]) -> None:
    days = [f"{date(2025, 1, 1) + timedelta(days=n)}" for n in numbers]
    text = changed("    from: 2026-01-01\n", "    from: second\n", text=BOTH)
    text = changed(
        "    from: 2025-01-01\n    until: 2026-01-01\n", f"    from: {days[0]}\n    until: {days[1]}\n", text=text
    )
    text = changed("    from: second\n", f"    from: {days[2]}\n    until: {days[3]}\n", text=text)
    text = changed("dates: [2025-07-04, 2026-07-03]", "dates: [2025-07-04, 2026-07-03, 2027-07-05]", text=text)
    if not faults(text):
        found = program(text)
        for n in range(-1, 902):
            day = date(2025, 1, 1) + timedelta(days=n)
            in_force = [version.name for version in found.versions if day in version.days]
            assert len(in_force) <= 1
            if not in_force and days[0] <= f"{day}" < days[3]:
                assert not 5 <= day.month <= 10
