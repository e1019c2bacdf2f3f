"""Program files in a few lines: a sample, and the same with one thing changed."""

from gateway.domain.rules.program import GridProgram
from gateway.programs.compile import compile_program
from gateway.programs.loader import parse_program

SAMPLE = """\
language: 1
program: sample
title: A program of the tests
pricing: rates
zone: America/Los_Angeles
utilities: {value: [North, South], evidence: verified, source: page}
holidays:
  few: {dates: [2025-07-04, 2026-07-03], evidence: verified, source: page}
sources:
  page: A page that is read
versions:
  - version: one
    from: 2025-01-01
    until: 2026-01-01
    evidence: verified
    source: page
    rules:
      season: {value: [{name: summer, from: 05-01, to: 10-31}], effect: refuse, evidence: verified, source: page}
      weekdays: {value: {days: [mon, tue, wed, thu, fri], but: few}, effect: refuse, evidence: verified, source: page}
      window: {value: [{from: "16:00", until: "21:00"}], effect: refuse, evidence: verified, source: page}
      notice: {value: {hours: 2}, effect: warn, evidence: verified, source: page}
      length_h: {value: {min: 1, max: 4}, effect: clip, evidence: verified, source: page}
      events: {value: {max: 35, per: season}, effect: refuse, evidence: verified, source: page}
      hours: {value: {max: 60, per: season}, effect: clip, evidence: verified, source: page}
      rest_h: {value: 3, effect: refuse, evidence: verified, source: page}
      storm_lockout_h: {value: 48, effect: refuse, evidence: verified, source: page}
      reserve_pct: {value: 20, effect: clip, evidence: verified, source: page}
      export: {value: false, effect: clip, evidence: verified, source: page}
      grid_charge: {value: true, effect: refuse, evidence: verified, source: page}
    measurement:
      point: {value: battery_ac, evidence: verified, source: page}
      interval_length_s: {value: 900, evidence: verified, source: page}
      coverage_min_pct: {value: 90, evidence: verified, source: page}
    preparation:
      keep_h: {value: 4, evidence: verified, source: page}
      charge_from_grid: {value: true, evidence: verified, source: page}
    performance:
      baseline: {value: none, evidence: verified, source: page}
      formula: {value: mean_event_power, evidence: verified, source: page}
      floor: {value: {kw: 0, level: site, per: month}, evidence: verified, source: page}
      cap: {value: {of: nomination, level: aggregation, per: event}, evidence: verified, source: page}
    participation_years: {value: calendar_year, evidence: verified, source: page}
    rates:
      - {name: north, utilities: [North], season: summer, years: {from: 1, to: 5},
         amount: "8.775", currency: USD, per: kw_season, evidence: verified, source: page}
      - {name: south, utilities: [South], season: summer, enrolled: {from: 2024-06-01},
         amount: 7, currency: USD, per: kw_season, evidence: verified, source: page}
    factors:
      - {name: bonus, factor: "1.3", events: {from: 2025-01-01, until: 2025-07-01}, evidence: verified, source: page}
    penalties:
      - {kind: bid_bands, evidence: verified, source: page}
"""

SECOND = """\
  - version: two
    from: 2026-01-01
    evidence: verified
    source: page
    rules:
      season: {value: [{name: summer, from: 06-01, to: 09-30}], effect: refuse, evidence: verified, source: page}
    measurement:
      point: {value: site_ct, evidence: verified, source: page}
      interval_length_s: {value: 900, evidence: verified, source: page}
    performance:
      baseline: {value: none, evidence: verified, source: page}
      formula: {value: energy, evidence: verified, source: page}
    rates:
      - {name: energy, amount: "2", currency: USD, per: kwh, evidence: verified, source: page}
"""


def changed(old: str, new: str, *, text: str = SAMPLE) -> str:
    """The sample with one place changed, which must be there once."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def program(text: str = SAMPLE) -> GridProgram:
    """The program of a text without faults."""
    return compile_program(parse_program(text, name="sample.yaml"))
