"""Tables of local hours, as CSV: official hours and prices, and what a battery discharged.

Columns by name, in any order: `date` (2025-05-22), `hour_end` (1 to 24, local), `event_type`, `price_usd_per_mwh` or
`caiso_lmp_usd_per_mwh`, `net_discharge_kw` (discharge less charge), `site_load_kw`. An empty cell is unknown. An hour
that a clock repeats may stand twice, the first one first.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.local_hours import hour_starts
from gateway.domain.programs.pricing import TableHour
from gateway.domain.rules.performance import Formula
from gateway.domain.rules.program import ProgramVersion

DATE, HOUR_END, EVENT_TYPE = "date", "hour_end", "event_type"
PRICES = ("price_usd_per_mwh", "caiso_lmp_usd_per_mwh")
NET_DISCHARGE, SITE_LOAD = "net_discharge_kw", "site_load_kw"
KNOWN = frozenset({DATE, HOUR_END, EVENT_TYPE, *PRICES, NET_DISCHARGE, SITE_LOAD})
ROWS_MAX = 200_000
FAULTS_MAX = 50
LARGEST = Decimal(10) ** 9
PLACES_MAX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class HourRow:
    """A row: its line, when it begins (UTC ms), and its cells; None = empty or not there."""

    line: int
    day: date
    hour_end: int
    start_ms: int
    event_type: str | None
    price: Decimal | None
    net_kw: Decimal | None
    load_kw: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HourTable:
    """Rows in the order of their hours, the columns that are there, and those that nobody reads."""

    name: str
    rows: tuple[HourRow, ...]
    columns: frozenset[str]
    ignored: tuple[str, ...]

    @property
    def priced(self) -> bool:
        return bool(self.columns & set(PRICES))


def read_hours(text: str, *, name: str, zone: str) -> HourTable:
    """Read a table; `name` is that of its file in messages. Raises InvalidInput with every fault, up to a bound, as
    `file:line: column: what is wrong`."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    faults: list[str] = []
    rows: list[HourRow] = []
    seen: dict[tuple[date, int], int] = {}
    try:
        columns = [one.strip().casefold() for one in next(reader, [])]
        faults += _header(columns, name)
        if faults:
            raise InvalidInput(faults)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            try:
                rows.append(_row(columns, cells, zone, seen, reader.line_num))
            except ValueError as error:
                faults.append(f"{name}:{reader.line_num}: {error}")
            if len(faults) >= FAULTS_MAX or len(rows) > ROWS_MAX:
                break
    except csv.Error as error:
        faults.append(f"{name}:{reader.line_num}: not CSV: {error}")
    if len(rows) > ROWS_MAX:
        faults.append(f"{name}: more than {ROWS_MAX} rows")
    if not rows and not faults:
        faults.append(f"{name}: no rows")
    if faults:
        raise InvalidInput(faults)
    rows.sort(key=lambda row: row.start_ms)
    ignored = tuple(sorted(set(columns) - KNOWN - {""}))
    return HourTable(name=name, rows=tuple(rows), columns=frozenset(columns) & KNOWN, ignored=ignored)


def series_rows(table: HourTable, column: str) -> list[HourRow]:
    """The rows of a series, one per hour. Raises InvalidInput where the column is not there."""
    there = table.priced if column == PRICES[0] else column in table.columns
    if not there:
        raise InvalidInput([f"{table.name}:1: {column}: missing column"])
    return list(table.rows)


def hours_of(
    table: HourTable, discharge: HourTable | None, net_kw: Fraction | None, version: ProgramVersion
) -> list[TableHour]:
    """The hours to be priced: what was discharged stands in the table, in a second one, or is `net_kw` in each hour.
    Raises InvalidInput where more than one of those is given, or none, and where a column that the program needs is not
    there."""
    given = [NET_DISCHARGE in table.columns, discharge is not None, net_kw is not None]
    faults = []
    if sum(given) > 1:
        faults.append(f"{NET_DISCHARGE}: given in more than one way; give one of a column, a second file and an option")
    elif not any(given):
        faults.append(f"{NET_DISCHARGE}: missing; give a column, a second file, or one figure for every hour")
    if discharge is not None and NET_DISCHARGE not in discharge.columns:
        faults.append(f"{discharge.name}:1: {NET_DISCHARGE}: missing column")
    rules = version.performance
    weighted = rules is not None and rules.formula.value is Formula.PRICE_WEIGHTED_CAPACITY
    if weighted and not table.priced:
        faults.append(f"{table.name}:1: {PRICES[0]}: missing column, by which the program weights hours")
    if rules is not None and rules.event_types is not None and EVENT_TYPE not in table.columns:
        faults.append(f"{table.name}:1: {EVENT_TYPE}: missing column, which says whether an hour counts")
    if faults:
        raise InvalidInput(faults)
    second = {} if discharge is None else {row.start_ms: row.net_kw for row in discharge.rows}

    def discharged(row: HourRow) -> Fraction | None:
        if net_kw is not None:
            return net_kw
        found = row.net_kw if discharge is None else second.get(row.start_ms)
        return None if found is None else Fraction(found)

    return [
        TableHour(
            day=row.day, hour_end=row.hour_end, start_ms=row.start_ms, event_type=row.event_type, price=row.price,
            net_kw=discharged(row), load_kw=None if row.load_kw is None else Fraction(row.load_kw),
        )
        for row in table.rows
    ]  # fmt: skip


def _header(columns: Sequence[str], name: str) -> list[str]:
    faults = [f"{name}:1: {one}: missing column" for one in (DATE, HOUR_END) if one not in columns]
    faults += [f"{name}:1: {one}: stands twice" for one in sorted(KNOWN) if columns.count(one) > 1]
    if all(one in columns for one in PRICES):
        faults.append(f"{name}:1: {PRICES[0]} and {PRICES[1]} contradict: give one of them")
    return faults


def _row(
    columns: Sequence[str], cells: Sequence[str], zone: str, seen: dict[tuple[date, int], int], line: int
) -> HourRow:
    """Raises ValueError with what is wrong."""
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells, {len(columns)} columns")
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    day, hour_end = _day(row[DATE]), _hour(row[HOUR_END])
    starts = hour_starts(zone, day, hour_end)
    if not starts:
        raise ValueError(f"hour_end: the clock in {zone} leaves out this hour of {day}")
    found = seen.get((day, hour_end), 0)
    if found >= len(starts):
        raise ValueError(f"hour_end: hour {hour_end} of {day} stands in the table already")
    seen[day, hour_end] = found + 1
    price = next((one for one in PRICES if one in row), PRICES[0])
    return HourRow(
        line=line,
        day=day,
        hour_end=hour_end,
        start_ms=starts[found],
        event_type=row.get(EVENT_TYPE) or None,
        price=_number(row, price),
        net_kw=_number(row, NET_DISCHARGE),
        load_kw=_number(row, SITE_LOAD),
    )


def _day(text: str) -> date:
    try:
        if len(text) == 10:
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError(f"date: a day is written 2025-05-22, not {text!r}")


def _hour(text: str) -> int:
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= 24:
        return int(text)
    raise ValueError(f"hour_end: a whole hour from 1 to 24, not {text!r}")


def _number(row: Mapping[str, str], name: str) -> Decimal | None:
    text = row.get(name, "")
    return decimal_of(text, name) if text else None


def decimal_of(text: str, name: str) -> Decimal:
    """A number with a decimal point. Raises ValueError that names it."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    exponent = value.as_tuple().exponent
    if not value.is_finite() or abs(value) > LARGEST or not isinstance(exponent, int) or -exponent > PLACES_MAX:
        raise ValueError(f"{name}: a number is needed, not {text!r}")
    return value
