"""Programs that do not ship can be written: their windows, rates, bounds and penalties have words."""

from datetime import date
from decimal import Decimal

import pytest

from gateway.domain.rules.calendar import HOUR_MS, local_ms
from gateway.domain.rules.permission import Asked, permission
from gateway.domain.rules.rates import ChosenRate, RateCase, RateUnit, choose_rate
from gateway.domain.rules.values import Asker
from gateway.programs.compile import compile_program
from gateway.programs.loader import parse_program

TAIL = "evidence: reported, source: rider}"
HEAD = """\
language: 1
program: other
title: A program of somebody else
pricing: rates
sources:
  rider: The rider of the tariff
versions:
  - version: "1"
    from: 2026-07-16
    evidence: reported
    source: rider
    measurement:
      point: {value: battery_ac, evidence: reported, source: rider}
      interval_length_s: {value: 900, evidence: reported, source: rider}
"""

WEEKDAY_INJECTION = f"""{HEAD}\
    rules:
      season: {{value: [{{name: summer, from: 06-01, to: 09-30}}], effect: refuse, {TAIL}
      weekdays: {{value: {{days: [mon, tue, wed, thu, fri]}}, effect: refuse, {TAIL}
      window: {{value: [{{from: "16:00", until: "18:00"}}], effect: refuse, {TAIL}
    performance:
      baseline: {{value: none, {TAIL}
      formula: {{value: mean_window_power, {TAIL}
    rates:
      - {{name: season, season: summer, amount: "10", currency: USD, per: kw_season, {TAIL}
zone: America/Chicago
"""

SHARE_OF_SEASON = f"""{HEAD}\
    performance:
      baseline: {{value: none, {TAIL}
      formula: {{value: mean_event_power, {TAIL}
      parameters:
        capacity-share: {{value: "0.8", {TAIL}
        event-hours: {{value: 3, {TAIL}
    rates:
      - {{name: season, amount: "50", currency: USD, per: kw_season, {TAIL}
zone: America/New_York
"""

BANDS = f"""{HEAD}\
    performance:
      baseline: {{value: caiso-pdr, {TAIL}
      formula: {{value: bid_bands, {TAIL}
      parameters:
        full-from: {{value: "0.75", {TAIL}
        half-from: {{value: "0.6", {TAIL}
        cap-at: {{value: "1.05", {TAIL}
      cap: {{value: {{of: nomination, level: aggregation, per: month}}, {TAIL}
    rates:
      - {{name: bid, amount: "10", currency: USD, per: kw_month, {TAIL}
    penalties:
      - {{kind: bid_bands, {TAIL}
zone: America/Los_Angeles
"""


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        (WEEKDAY_INJECTION, RateUnit.KW_SEASON, 10),
        (SHARE_OF_SEASON, RateUnit.KW_SEASON, 50),
        (BANDS, RateUnit.KW_MONTH, 10),
    ],
)
def test_a_program_of_another_kind_is_read_and_has_its_rate(text: str, unit: RateUnit, amount: int) -> None:
    (version,) = compile_program(parse_program(text, name="other.yaml")).versions
    event = date(2026, 8, 4)
    season = version.calendar.season(event)
    case = RateCase(event=event, season="" if season is None else season.name)
    found = choose_rate(version.rates, version.factors, unit, case)
    assert isinstance(found, ChosenRate)
    assert (found.amount, found.certain) == (Decimal(amount), False)


def test_windows_may_differ_by_season() -> None:
    seasons = "[{name: early, from: 06-01, to: 07-31}, {name: late, from: 08-01, to: 09-30}]"
    windows = '[{season: early, from: "16:00", until: "18:00"}, {season: late, from: "15:00", until: "17:00"}]'
    text = WEEKDAY_INJECTION.replace("[{name: summer, from: 06-01, to: 09-30}]", seasons)
    text = text.replace('[{from: "16:00", until: "18:00"}]', windows).replace("season: summer", "season: late")
    program = compile_program(parse_program(text, name="other.yaml"))
    by_start = {(7, 30, 16): [], (7, 30, 15): ["window"], (8, 4, 15): [], (8, 4, 16): ["window"]}
    for (month, day, hour), rules in by_start.items():
        start_ms = local_ms(program.zone, date(2026, month, day), hour * 60)
        asked = Asked(span=(start_ms, start_ms + 2 * HOUR_MS), asker=Asker.LOCAL)
        assert [breach.rule for breach in permission(program, asked, start_ms).breaches] == rules
