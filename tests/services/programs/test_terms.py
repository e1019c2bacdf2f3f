"""A program's terms come from its file; the configuration may narrow them, and never contradict."""

from datetime import date
from pathlib import Path

import pytest

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.eligibility import Requirements
from gateway.domain.programs.terms import ProgramTerms, TermsVersion
from gateway.domain.rules.rates import DateRange
from gateway.programs.loader import load_programs
from gateway.services.programs.terms import every_program, moved_terms, program_terms
from gateway.services.settings import EligibilitySettings, ProgramSettings

SHIPPED = {name: one.terms for name, one in load_programs(Path(__file__).parents[3] / "config" / "programs").items()}
JUNE_MS, DECEMBER_MS = 1_780_297_200_000, 1_796_000_000_000
FILE = ProgramTerms(
    zone="America/New_York",
    exclusive=frozenset({"east"}),
    versions=(
        TermsVersion(
            name="2026", days=DateRange(first=date(2026, 1, 1)),
            requirements=Requirements(min_w=2_000, min_hours=2, max_w=50_000),
        ),
    ),
)  # fmt: skip


def refused(**settings: object) -> list[str]:
    with pytest.raises(InvalidInput) as found:
        program_terms({"p": ProgramSettings.model_validate(settings)}, {"p": FILE})
    return list(found.value.problems)


def test_the_terms_of_a_program_with_a_file_are_those_of_the_file() -> None:
    terms = program_terms({"p": ProgramSettings(enrollment="enforce")}, {"p": FILE})["p"]
    assert (terms.zone, sorted(terms.exclusive)) == ("America/New_York", ["east"])
    assert terms.on(JUNE_MS).requirements == FILE.versions[0].requirements


def test_a_program_that_only_a_file_knows_is_known_and_observed() -> None:
    assert every_program({}, {"p": FILE})["p"].enrollment == "observe"
    assert program_terms({}, {"p": FILE})["p"].zone == "America/New_York"


def test_the_configuration_adds_groups_and_asks_for_more() -> None:
    asked = EligibilitySettings(min_kw=3, completeness_pct=90, territories=("north",))
    settings = ProgramSettings(exclusive_groups=("mine",), eligibility=asked, time_zone="America/New_York")
    terms = program_terms({"p": settings}, {"p": FILE})["p"]
    assert terms.exclusive == {"east", "mine"}
    assert terms.on(JUNE_MS).requirements == Requirements(
        min_w=3_000, min_hours=2, max_w=50_000, completeness_pct=90, territories=frozenset({"north"})
    )


def test_another_time_zone_than_that_of_the_file_is_refused() -> None:
    assert refused(time_zone="UTC") == [
        "programs.p.time_zone: UTC; the program's file says America/New_York: keep that alone"
    ]


@pytest.mark.parametrize(("key", "value"), [("min_kw", 1.5), ("min_hours", 0)])
def test_asking_for_less_than_the_file_is_refused(key: str, value: float) -> None:
    [problem] = refused(eligibility={key: value})
    assert problem.startswith(f"programs.p.eligibility.{key}: {value:g}; the program's file asks for 2 in version 2026")


def test_asking_for_more_than_a_program_takes_is_refused() -> None:
    assert refused(eligibility={"min_kw": 60}) == [
        "programs.p.eligibility.min_kw: 60; the program takes 50 at most"
    ]  # fmt: skip


def test_a_program_without_a_file_has_the_terms_of_the_configuration() -> None:
    settings = ProgramSettings(time_zone="Europe/Berlin", eligibility=EligibilitySettings(min_kw=1))
    terms = program_terms({"q": settings}, {})["q"]
    assert (terms.zone, terms.on(JUNE_MS).requirements.min_w) == ("Europe/Berlin", 1_000)


def test_what_the_next_release_reads_in_the_file_alone_is_said() -> None:
    assert moved_terms({"p": ProgramSettings(exclusive_groups=("x",)), "q": ProgramSettings()}) == [
        "programs.p.exclusive_groups: the next release reads it in the program's file in programs_dir alone"
    ]


def test_requirements_are_those_of_the_version_of_the_day() -> None:
    first = TermsVersion(
        name="a", days=DateRange(first=date(2025, 1, 1), until=date(2026, 9, 1)),
        requirements=Requirements(min_w=1_000),
    )  # fmt: skip
    later = TermsVersion(
        name="b", days=DateRange(first=date(2026, 9, 1)), requirements=Requirements(min_w=2_000)
    )  # fmt: skip
    terms = ProgramTerms(zone="America/New_York", versions=(first, later))
    assert [terms.on(ms).requirements.min_w for ms in (0, JUNE_MS, DECEMBER_MS)] == [1_000, 1_000, 2_000]


def test_a_shipped_site_gives_one_kilowatt_for_two_hours_and_the_value_says_how_well_it_is_known() -> None:
    terms = SHIPPED["dsgs-option3"]
    asked = terms.on(JUNE_MS)
    assert (asked.requirements.min_w, asked.requirements.min_hours, asked.unverified) == (1_000, 2, frozenset())
    assert SHIPPED["connectedsolutions-ma"].on(JUNE_MS).requirements.max_w == 50_000
