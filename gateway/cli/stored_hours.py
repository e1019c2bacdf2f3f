"""Official hours and prices of a month as they were imported, to be priced on the command line."""

from dataclasses import dataclass
from datetime import date
from fractions import Fraction

from gateway.config.settings import Settings
from gateway.domain.errors import InvalidInput
from gateway.domain.programs.local_hours import month_span
from gateway.domain.programs.official_hours import table_hours
from gateway.domain.programs.pricing import TableHour
from gateway.domain.rules.program import ProgramVersion
from gateway.programs.tables import NET_DISCHARGE, HourTable
from gateway.storage.programs.series import ProgramSeries, SeriesKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMonth:
    """The local month of a day, in a price area."""

    day: date
    area: str


def stored_hours(
    settings: Settings,
    version: ProgramVersion,
    month: StoredMonth,
    discharge: HourTable | None,
    net_kw: Fraction | None,
) -> list[TableHour]:
    """The hours to be priced, with what a second table, or one figure for every hour, says was discharged. Raises
    InvalidInput where there is not exactly one of these, or no official hour, and StorageError, CorruptState."""
    if (discharge is None) == (net_kw is None):
        raise InvalidInput([f"{NET_DISCHARGE}: give a second file, or one figure for every hour"])
    if discharge is not None and NET_DISCHARGE not in discharge.columns:
        raise InvalidInput([f"{discharge.name}:1: {NET_DISCHARGE}: missing column"])
    span = month_span(version.zone, (month.day.year, month.day.month))
    key, series = SeriesKey(program=version.program, area=month.area), ProgramSeries(settings.state_dir)
    official = series.hours(key, *span)
    if not official:
        raise InvalidInput([f"{version.program}, {month.area}: no official hour of {month.day:%Y-%m} is stored"])
    given = {hour.start_ms: net_kw for hour in official} if net_kw is not None else {}
    if discharge is not None:
        given = {row.start_ms: Fraction(row.net_kw) for row in discharge.rows if row.net_kw is not None}
    known = {start_ms: kw for start_ms, kw in given.items() if kw is not None}
    return table_hours(version.zone, official, series.prices(key, *span), known)
