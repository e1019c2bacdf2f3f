"""Commands about prices and official hours of programs, kept in the state directory; none of them asks a daemon, and
none waits for one: they are a process of their own beside it."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from gateway.cli.configuration import ConfigFile, settings_of
from gateway.cli.shared import DEFAULT_PROGRAMS, AsJson, fail, out, read_body, show, warn
from gateway.clock import SystemClock
from gateway.config.settings import Settings
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.events.program_rules import used_spans
from gateway.domain.programs.exact import shown
from gateway.domain.programs.local_hours import local_hour
from gateway.domain.programs.official_hours import OfficialHour, calendar_diff, undecided_months
from gateway.domain.programs.prices import SeriesOrigin, SiteArea, price_gaps
from gateway.domain.rules.calendar import Span, midnight_ms
from gateway.domain.rules.program import GridProgram
from gateway.programs.loader import load_programs
from gateway.programs.tables import EVENT_TYPE, PRICES, HourRow, read_hours, series_rows
from gateway.storage.journal.dispatched import dispatched_events
from gateway.storage.programs.series import WITHDRAWN, ImportedSeries, ProgramSeries, SeriesImport, SeriesKey

prices = typer.Typer(no_args_is_help=True, help="Prices of local hours by program and area.")
calendar = typer.Typer(no_args_is_help=True, help="Official event hours of programs.")

AREA_COLUMNS = ("site", "area", "from")
ROWS_MAX = 200_000
EVER_MS = 1 << 60

T = TypeVar("T")

Program = Annotated[str, typer.Option("--program", help="name of a program")]
Area = Annotated[str, typer.Option("--area", help="price area, or area of a utility")]
AnyArea = Annotated[str | None, typer.Option("--area", help="one area; otherwise every one that is known")]
Source = Annotated[str, typer.Option("--source", help="where the rows are read")]
First = Annotated[str | None, typer.Option("--from", help="first local day; without it, the month under way")]
Last = Annotated[str | None, typer.Option("--to", help="last local day; without it, the first one's month to its end")]
File = Annotated[str, typer.Argument(help="CSV, or - for standard input")]


@prices.command("import")
def prices_import(
    file: File, *, config: ConfigFile, program: Program, area: Area, source: Source, as_json: AsJson = False
) -> None:
    """Import prices: date, hour_end, price_usd_per_mwh (or caiso_lmp_usd_per_mwh). Of an hour the newest import holds;
    earlier ones are kept. An empty price is none."""
    settings, found = _found(config, program)
    rows = [(row.start_ms, row.price, "USD") for row in _rows(file, found, PRICES[0]) if row.price is not None]
    if not rows:
        fail([f"{file}: no row has a price"], code=2)
    done = _tried(lambda: _series(settings).add_prices(_key(program, area), rows, _about(source)))
    _told_import(program, area, done, as_json=as_json)


@prices.command("list")
def prices_list(
    *, config: ConfigFile, program: Program, area: Area, first: First = None, last: Last = None, as_json: AsJson = False
) -> None:
    """List the prices that hold, with their source, version and time of import."""
    settings, found = _found(config, program)
    from_ms, until_ms = _span(found, first, last)
    listed = _tried(lambda: _series(settings).prices(_key(program, area), from_ms, until_ms))
    show(
        [
            _hour(found, one.start_ms) | {"price_per_mwh": shown(one.price), "currency": one.currency}
            | _origin(one.origin)
            for one in listed
        ],
        of="prices", as_json=as_json,
    )  # fmt: skip


@prices.command("gaps")
def prices_gaps(
    *, config: ConfigFile, program: Program, area: AnyArea = None, first: First = None, last: Last = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List official hours that have no price: what rests on them is provisional."""
    settings, found = _found(config, program)
    from_ms, until_ms = _span(found, first, last)
    series = _series(settings)

    def gaps() -> list[dict[str, Any]]:
        told = []
        for one in [area] if area is not None else series.areas(program, "hour"):
            key = _key(program, one)
            starts = [hour.start_ms for hour in series.hours(key, from_ms, until_ms)]
            missing = price_gaps(one, starts, series.prices(key, from_ms, until_ms))
            told += [{"area": gap.area} | _hour(found, gap.start_ms) for gap in missing]
        return told

    show(_tried(gaps), of="gaps", as_json=as_json)


@prices.command("areas")
def prices_areas(
    file: Annotated[str | None, typer.Argument(help="CSV of site, area, from; without it, list what is known")] = None,
    *, config: ConfigFile, program: Program, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say in which price area sites are, from a local day on, or list it."""
    settings, found = _found(config, program)
    if file is not None:
        rows = _areas(file, found)
        _tried(lambda: _series(settings).add_areas(program, rows, _about(file)))
    listed = _tried(lambda: _series(settings).site_areas(program))
    told = [
        {"site": one.site, "area": one.area or None, "from": local_hour(found.zone, one.from_ms)[0].isoformat()}
        for one in listed
    ]
    show(told, of="areas", as_json=as_json)


@calendar.command("import")
def calendar_import(
    file: File, *, config: ConfigFile, program: Program, area: Area, source: Source,
    announced_by: Annotated[str, typer.Option("--announced-by", help="who announced the hours")],
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Import official hours: date, hour_end, event_type (empty = not known yet, Withdrawn = called off). Of an hour the
    newest import holds; earlier ones are kept."""
    settings, found = _found(config, program)
    rows = _rows(file, found, EVENT_TYPE)
    faults = [*_unknown_types(found, rows, file)]
    if faults:
        fail(faults[:50], code=2)
    hours = [(row.start_ms, row.event_type, announced_by) for row in rows]
    done = _tried(lambda: _series(settings).add_hours(_key(program, area), hours, _about(source)))
    _told_import(program, area, done, as_json=as_json)


@calendar.command("list")
def calendar_list(
    *, config: ConfigFile, program: Program, area: Area, first: First = None, last: Last = None, as_json: AsJson = False
) -> None:
    """List the official hours that hold, with their source, version and time of import."""
    settings, found = _found(config, program)
    from_ms, until_ms = _span(found, first, last)
    listed = _tried(lambda: _series(settings).hours(_key(program, area), from_ms, until_ms))
    show([_official(found, one) | _origin(one.origin) for one in listed], of="official hours", as_json=as_json)


@calendar.command("diff")
def calendar_diff_shown(
    *, config: ConfigFile, program: Program, area: AnyArea = None, first: First = None, last: Last = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List official hours that were never dispatched to us, or in part, and dispatched hours that are not official.
    Warns of a month that is past its 20th and has no official hour that counts."""
    settings, found = _found(config, program)
    from_ms, until_ms = _span(found, first, last)
    now_ms = SystemClock().now().utc_ms
    series = _series(settings)

    def compared() -> dict[str, Any]:
        areas = [area] if area is not None else series.areas(program, "hour")
        hours = [hour for one in areas for hour in series.hours(_key(program, one), from_ms, until_ms)]
        whole = [hour for one in areas for hour in series.hours(_key(program, one), 0, EVER_MS)]
        diff = calendar_diff(hours, _dispatched(settings, program, from_ms, until_ms))
        by_start = {hour.start_ms: hour for hour in hours}
        named = ("never_dispatched", "partly_dispatched")
        return {
            "program": program,
            "areas": areas,
            **{name: [_official(found, by_start[at]) for at in getattr(diff, name)] for name in named},
            "not_official": [_hour(found, at) for at in diff.not_official],
            "months_without_capacity_hour": [
                f"{year}-{month:02d}" for year, month in undecided_months(found, whole, now_ms)
            ],
            "agrees": diff.agrees,
        }

    told = _tried(compared)
    warn(
        f"{program}: {month} is past its 20th and has no official hour that counts"
        for month in told["months_without_capacity_hour"]
    )
    if as_json:
        out.print_json(data=told)
        return
    rows = [
        {"what": name.replace("_", " ")} | {key: row[key] for key in ("date", "hour_end", "begins")}
        for name in ("never_dispatched", "partly_dispatched", "not_official")
        for row in told[name]
    ]
    show(rows, of="differences")


def _found(config: Path, program: str) -> tuple[Settings, GridProgram]:
    settings = settings_of(config)
    directory = settings.programs_dir or DEFAULT_PROGRAMS
    try:
        known = load_programs(directory)
    except InvalidInput as error:
        fail(error.problems, code=2)
    if program not in known:
        fail([f"{program}: no such program in {directory}"], code=2)
    return settings, known[program].program


def _series(settings: Settings) -> ProgramSeries:
    return ProgramSeries(settings.state_dir)


def _key(program: str, area: str) -> SeriesKey:
    name = area.strip()
    if not name or len(name) > 64 or not name.isprintable():
        fail(["--area: 1 to 64 printable characters"], code=2)
    return SeriesKey(program=program, area=name)


def _about(source: str) -> SeriesImport:
    return SeriesImport(source=source, who=os.environ.get("USER") or "operator", now_ms=SystemClock().now().utc_ms)


def _tried(work: Callable[[], T]) -> T:
    try:
        return work()
    except GatewayError as error:
        fail([str(error)], code=1)


def _text(file: str) -> str:
    try:
        return read_body(file).decode("utf-8")
    except UnicodeDecodeError:
        fail([f"{file}: not UTF-8"], code=2)


def _rows(file: str, program: GridProgram, column: str) -> Sequence[HourRow]:
    try:
        return series_rows(read_hours(_text(file), name=file, zone=program.zone), column)
    except InvalidInput as error:
        fail(error.problems, code=2)


def _unknown_types(program: GridProgram, rows: Iterable[HourRow], file: str) -> Iterable[str]:
    for row in rows:
        version = program.version_on(row.day)
        stated = None if version is None or version.performance is None else version.performance.event_types
        if version is None:
            yield f"{file}:{row.line}: date: no version of {program.id} is in force on {row.day}"
        elif row.event_type is None or row.event_type.casefold() == WITHDRAWN.casefold() or stated is None:
            continue
        elif stated.value.counts(row.event_type) is None:
            known = ", ".join(sorted(stated.value.counted | stated.value.uncounted))
            yield f"{file}:{row.line}: event_type: {row.event_type!r} is none of the program (it has {known})"


def _areas(file: str, program: GridProgram) -> list[SiteArea]:
    reader = csv.DictReader(io.StringIO(_text(file).removeprefix("\ufeff"), newline=""))
    if tuple(reader.fieldnames or ()) != AREA_COLUMNS:
        fail([f"{file}:1: columns are {', '.join(AREA_COLUMNS)}"], code=2)
    rows, faults = [], []
    for row in reader:
        try:
            first = date.fromisoformat((row["from"] or "").strip())
            site, area = (row["site"] or "").strip(), (row["area"] or "").strip()
            if not site or len(site) > 64 or len(area) > 64:
                raise ValueError("site and area: at most 64 characters, and a site")
        except ValueError as error:
            faults.append(f"{file}:{reader.line_num}: {error}")
            continue
        rows.append(SiteArea(site=site, area=area, from_ms=midnight_ms(program.zone, first)))
    if len(rows) > ROWS_MAX:
        faults.append(f"{file}: more than {ROWS_MAX} rows")
    if faults or not rows:
        fail(faults[:50] or [f"{file}: no rows"], code=2)
    return rows


def _span(program: GridProgram, first: str | None, last: str | None) -> Span:
    """Local days, both inside, as a span of UTC ms."""
    today = local_hour(program.zone, SystemClock().now().utc_ms)[0]
    begin = today.replace(day=1) if first is None else _day(first, "--from")
    month_end = (begin.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    end = month_end if last is None else _day(last, "--to")
    if end < begin:
        fail([f"--to: {end} is before {begin}"], code=2)
    return midnight_ms(program.zone, begin), midnight_ms(program.zone, end + timedelta(days=1))


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail([f"{option}: a day is written 2026-07-07, not {text!r}"], code=2)


def _dispatched(settings: Settings, program: str, from_ms: int, until_ms: int) -> list[Span]:
    found: list[Span] = []
    for one in dispatched_events(settings.state_dir / "journal.sqlite", program, from_ms):
        entry = BookEntry(index=-1, request=one.request, state=one.state, decided_ms=one.decided_ms)
        found += used_spans(entry, from_ms, until_ms)
    return found


def _hour(program: GridProgram, start_ms: int) -> dict[str, Any]:
    day, hour_end = local_hour(program.zone, start_ms)
    return {"date": day.isoformat(), "hour_end": hour_end, "begins": _utc(start_ms)}


def _official(program: GridProgram, hour: OfficialHour) -> dict[str, Any]:
    return _hour(program, hour.start_ms) | {"event_type": hour.event_type, "announced_by": hour.announced_by}


def _origin(origin: SeriesOrigin) -> dict[str, Any]:
    return {"version": origin.version, "source": origin.source, "imported": _utc(origin.imported_ms)}


def _utc(utc_ms: int) -> str:
    return f"{datetime.fromtimestamp(utc_ms // 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _told_import(program: str, area: str, done: ImportedSeries, *, as_json: bool) -> None:
    told = {"program": program, "area": area, "version": done.version, "rows": done.rows, "changed": done.changed}
    if as_json:
        out.print_json(data=told)
        return
    words = f"version {done.version}, {done.rows} hours" if done.changed else f"unchanged since version {done.version}"
    out.print(f"{program}, {area}: {words}", markup=False, highlight=False)
