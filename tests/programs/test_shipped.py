"""The programs that ship: what is public of them holds, and what is not verified says so."""

import csv
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.domain.rules.calendar import HOUR_MS, Span, local_ms
from gateway.domain.rules.permission import Asked, permission
from gateway.domain.rules.rates import ChosenRate, RateCase, RateUnit, choose_rate
from gateway.domain.rules.stacking import PaidFor
from gateway.domain.rules.values import Asker, Certainty
from gateway.programs.language import DispatchRules, Performance, Preparation, Pricing, ProgramDocument, Stacking
from gateway.programs.loader import load_programs

PROGRAMS = load_programs(Path(__file__).parents[2] / "config" / "programs")
HOURS = Path(__file__).parent / "dsgs_2025_hours.csv"
"""The calendar of DSGS option 3 in 2025 with prices, from a public compilation (MIT license) of public data of CEC
docket 22-RENEW-01, TN 269155. `hour_end` 20 is 19:00 to 20:00 local time."""

SHIPPED = {
    "dsgs-option3", "ra-leap", "elrp-a4", "connectedsolutions-ma", "connectedsolutions-ri", "ct-ess",
    "generic-energy", "generic-capacity", "ma-clean-peak", "tou-daily",
}  # fmt: skip


def rate(name: str, unit: RateUnit, event: date, **case: object) -> Decimal | str:
    """The amount that a shipped program pays."""
    program = PROGRAMS[name].program
    version = program.version_on(event)
    assert version is not None
    season = version.calendar.season(event)
    whole = RateCase(
        event=event, season="" if season is None else season.name, years_by=version.years_by,
        **case,  # type: ignore[arg-type]
    )  # fmt: skip
    found = choose_rate(version.rates, version.factors, unit, whole)
    return found.amount if isinstance(found, ChosenRate) else found.reason


def cited(value: object) -> Iterator[tuple[Certainty, str]]:
    """Evidence and source of everything inside that has them."""
    if isinstance(value, BaseModel):
        evidence = getattr(value, "evidence", None)
        if isinstance(evidence, Certainty):
            yield evidence, value.source  # type: ignore[attr-defined]
        for key in type(value).model_fields:
            yield from cited(getattr(value, key))
    elif isinstance(value, tuple):
        for item in value:
            yield from cited(item)
    elif isinstance(value, dict):
        yield from cited(tuple(value.values()))


def test_the_programs_that_are_promised_ship() -> None:
    assert set(PROGRAMS) == SHIPPED
    unpriced = {name for name, one in PROGRAMS.items() if one.document.pricing is Pricing.NONE}
    assert unpriced == {"ma-clean-peak", "tou-daily"}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_what_no_text_says_is_unverified_and_what_is_verified_has_a_text(name: str) -> None:
    document = PROGRAMS[name].document
    found = list(cited(document))
    assert all((source == "none") <= (evidence is Certainty.UNVERIFIED) for evidence, source in found)
    assert set(document.sources) == {source for _, source in found}


def test_two_homes_of_rhode_island_with_one_event_are_paid_by_the_day_they_enrolled() -> None:
    for enrolled, amount in ((date(2024, 5, 31), 400), (date(2024, 6, 1), 225)):
        assert rate("connectedsolutions-ri", RateUnit.KW_SEASON, date(2025, 7, 8), enrolled=enrolled) == amount


def test_homes_of_connecticut_in_their_fifth_and_sixth_year_are_paid_differently() -> None:
    for event in (date(2025, 7, 8), date(2027, 7, 8)):
        by_enrolled = {
            date(event.year - 4, 7, 8): 200,
            date(event.year - 5, 7, 9): 200,
            date(event.year - 5, 7, 8): 115,
        }
        for enrolled, amount in by_enrolled.items():
            assert rate("ct-ess", RateUnit.KW_SEASON, event, enrolled=enrolled) == amount
    assert rate("ct-ess", RateUnit.KW_SEASON, date(2026, 1, 9), enrolled=date(2023, 1, 1)) == 25


def test_connecticut_has_one_version_until_march_2026_and_another_since() -> None:
    program = PROGRAMS["ct-ess"].program
    names = [getattr(program.version_on(day), "name", "") for day in (date(2026, 3, 31), date(2026, 4, 1))]
    assert names == ["passive-and-active", "active-only"]


def test_massachusetts_pays_by_utility() -> None:
    event = date(2026, 7, 7)
    for utility, amount in (("National Grid", 275), ("Eversource", 225)):
        assert rate("connectedsolutions-ma", RateUnit.KW_SEASON, event, utility=utility) == amount
    assert "no rate" in str(rate("connectedsolutions-ma", RateUnit.KW_SEASON, event, utility="Unitil"))
    assert rate("connectedsolutions-ma", RateUnit.KW_SEASON, event) == "the utility is unknown"


def test_dsgs_pays_the_published_amounts_of_2025_with_the_bonus() -> None:
    published = {5: "8.775", 6: "9.074", 7: "16.380", 8: "17.550", 9: "18.720", 10: "10.244"}
    for month, amount in published.items():
        assert rate("dsgs-option3", RateUnit.KW_MONTH, date(2025, month, 9), duration_h=2) == Decimal(amount)
    assert "no rate" in str(rate("dsgs-option3", RateUnit.KW_MONTH, date(2025, 7, 9), duration_h=4))


def test_elrp_pays_two_dollars_per_kwh() -> None:
    assert rate("elrp-a4", RateUnit.KWH, date(2026, 7, 7)) == 2


def events_of_2025() -> list[Span]:
    """Each evening of the public calendar as one event."""
    by_day: dict[date, list[int]] = {}
    with HOURS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_day.setdefault(date.fromisoformat(row["date"]), []).append(int(row["hour_end"]))
    zone = PROGRAMS["dsgs-option3"].program.zone
    return [
        (start_ms, start_ms + len(hours) * HOUR_MS)
        for day, hours in sorted(by_day.items())
        for start_ms in [local_ms(zone, day, (min(hours) - 1) * 60)]
    ]


def test_every_event_of_the_public_calendar_of_2025_is_inside_the_rules() -> None:
    events, program = events_of_2025(), PROGRAMS["dsgs-option3"].program
    assert len(events) == 34
    for n, span in enumerate(events):
        asked = Asked(span=span, asker=Asker.LOCAL, others=events[:n])
        assert permission(program, asked, span[0] - 30 * HOUR_MS).breaches == ()


def test_a_season_of_dsgs_has_thirty_five_events() -> None:
    events, program = events_of_2025(), PROGRAMS["dsgs-option3"].program
    zone = program.zone
    days = [date(2025, 10, 1) + timedelta(days=n) for n in range(31)]
    evenings = [(start_ms, start_ms + 2 * HOUR_MS) for day in days for start_ms in [local_ms(zone, day, 18 * 60)]]
    more = [evening for evening in evenings if all(end < evening[0] or start > evening[1] for start, end in events)]
    for others, refused in ((events, False), ([*events, more[1]], True)):
        asked = Asked(span=more[0], asker=Asker.LOCAL, others=others)
        assert permission(program, asked, more[0][0] - 30 * HOUR_MS).refused is refused


@pytest.mark.parametrize("name", ["dsgs-option3", "elrp-a4", "connectedsolutions-ma", "ct-ess"])
def test_an_event_at_an_hour_outside_the_window_is_refused_here_and_a_warning_for_the_programs_dispatcher(
    name: str,
) -> None:
    program = PROGRAMS[name].program
    start_ms = local_ms(program.zone, date(2026, 7, 7), 9 * 60)
    for asker, refused in ((Asker.LOCAL, True), (Asker.PROGRAM, False)):
        asked = Asked(span=(start_ms, start_ms + 2 * HOUR_MS), asker=asker)
        found = permission(program, asked, start_ms - 48 * HOUR_MS)
        assert [breach.rule for breach in found.breaches] == ["window"]
        assert (found.refused, found.outside_known_rules) == (refused, not refused)


def test_what_is_kept_before_an_event_and_who_yields_is_data() -> None:
    day = date(2026, 7, 7)
    versions = {name: loaded.program.version_on(day) for name, loaded in PROGRAMS.items()}
    keeps = {name for name, version in versions.items() if version is not None and version.kept_s_max > 0}
    assert keeps == {"dsgs-option3", "elrp-a4", "connectedsolutions-ma"}
    yields = {name for name, version in versions.items() if version is not None and version.stacking.yields}
    assert yields == {"tou-daily"}
    for name, version in versions.items():
        wants = None if version is None else version.preparation.charge_from_grid
        assert wants is None or not wants.value, f"{name}: no shipped program is known to want it"


def test_demand_response_is_paid_for_load_and_dsgs_beside_it_for_exports() -> None:
    resource, dsgs = PROGRAMS["ra-leap"].program.versions[0], PROGRAMS["dsgs-option3"].program.versions[-1]
    assert resource.stacking.paid_for is PaidFor.LOAD
    assert (dsgs.stacking.paid_for, dsgs.stacking.beside_load) == (PaidFor.BOTH, PaidFor.EXPORTS)


def test_the_page_of_the_language_names_every_program_and_key() -> None:
    page = (Path(__file__).parents[2] / "config" / "programs" / "README.md").read_text(encoding="utf-8")
    keys = [*ProgramDocument.model_fields, *(f"rules.{name}" for name in DispatchRules.model_fields)]
    keys += [*Preparation.model_fields, *Stacking.model_fields, *Performance.model_fields]
    missing = [name for name in (*SHIPPED, *keys) if f"`{name}`" not in page]
    assert missing == []
