"""Commands about grid programs: as data, which asks no daemon, what their events came to, and what their fleets
will give."""

from dataclasses import asdict
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gateway.cli.configuration import settings_of
from gateway.cli.shared import DEFAULT_PROGRAMS, DEFAULT_URL, AsJson, Limit, Url, ask, fail, out, show, warn
from gateway.cli.site_days import programs_export
from gateway.cli.stored_hours import StoredMonth, stored_hours
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.domain.programs.pricing import PricedSite, price_table
from gateway.programs.loader import LoadedProgram, load_program, load_programs
from gateway.programs.priced import priced_plain
from gateway.programs.summary import days_of, plain, program_summary, stated
from gateway.programs.tables import decimal_of, hours_of, read_hours
from gateway.schemas import operations as ops

programs = typer.Typer(no_args_is_help=True, help="Rules of grid programs.")
programs.command("export")(programs_export)

Directory = Annotated[Path, typer.Option("--dir", help="folder of programs")]


@programs.command("list")
def programs_list(directory: Directory = DEFAULT_PROGRAMS, as_json: AsJson = False) -> None:
    """List the programs that have rules here."""
    told = [asdict(program_summary(one)) for one in _loaded(directory).values()]
    shown = ("program", "pricing", "zone", "values", "unverified", "digest")
    rows = [{name: row[name] for name in shown} | {"versions": "; ".join(row["versions"])} for row in told]
    show(told if as_json else rows, of="programs", as_json=as_json)


@programs.command("check")
def programs_check(
    paths: Annotated[list[Path] | None, typer.Argument(help="program files or folders")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="folder to check when no path is given")] = DEFAULT_PROGRAMS,
    as_json: AsJson = False,
) -> None:
    """Check programs and print every fault with file, line and path."""
    problems: list[str] = []
    good: list[dict[str, Any]] = []
    for path in paths or [directory]:
        try:
            found = [*load_programs(path).values()] if path.is_dir() else [load_program(path)]
        except InvalidInput as error:
            problems += error.problems
        else:
            good += [asdict(program_summary(one)) for one in found]
    if as_json:
        out.print_json(data={"good": good, "problems": problems})
    else:
        for row in good:
            text = f"{row['program']}: valid, {len(row['versions'])} versions, {row['values']} values"
            out.print(f"{text}, {row['unverified']} unverified", markup=False, highlight=False)
    if problems:
        fail([] if as_json else problems, code=2)


@programs.command("show")
def programs_show(
    program: Annotated[str, typer.Argument(help="name of a program")],
    on: Annotated[str | None, typer.Option("--on", help="a local day, like 2026-07-07: the version in force")] = None,
    directory: Directory = DEFAULT_PROGRAMS,
    as_json: AsJson = False,
) -> None:
    """Show the rules of a program with effect, evidence and source; with --on only those in force on that day. Exits
    with 1 if none are."""
    found = _loaded(directory).get(program)
    if found is None:
        fail([f"{program}: no such program in {directory}"], code=2)
    document, versions = found.document, found.document.versions
    if on is not None:
        day = _day(on)
        versions = tuple(version for version in versions if day in version.dates().dates())
        if not versions:
            fail([f"{program}: no version is in force on {day}"], code=1)
    if as_json:
        out.print_json(data=plain(document) | {"versions": [plain(version) for version in versions]})
        return
    out.print(f"{program}: {document.title} (pricing: {document.pricing.value})", markup=False, highlight=False)
    for note in (document.notes, *(version.notes for version in versions)):
        if note is not None:
            out.print(note, markup=False, highlight=False)
    for version in versions:
        out.print(f"\n{days_of(version)} ({version.evidence.value}, {version.source})", markup=False, highlight=False)
        show([asdict(value) | {"value": _words(value.value)} for value in stated(version)], of="values")


@programs.command("forecast")
def programs_forecast(
    program: Annotated[str, typer.Argument(help="name of a program")], url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Show what a program's fleet will give in its next event and in a nomination period, with a band for 80 % of
    outcomes."""
    found = ask(url, ops.SHOW_FORECAST, id=program)
    if as_json:
        out.print_json(data=found)
        return
    rows = [{"event": "next", **one} for one in found["next"]]
    show([*rows, {"event": "nomination period", **found["period"], "recovery_h": None}], of="forecasts")
    out.print(f"{found['homes']} homes, by {found['events']} past events", markup=False, highlight=False)


@programs.command("price")
def programs_price(
    *,
    program: Annotated[str, typer.Option("--program", help="name of a program")],
    on: Annotated[str, typer.Option("--on", help="a local day, like 2026-07-07: the version in force")],
    hours: Annotated[
        Path | None,
        typer.Option(
            "--hours",
            help="CSV of local hours: date, hour_end, event_type, price_usd_per_mwh (or caiso_lmp_usd_per_mwh), "
            "net_discharge_kw, site_load_kw",
        ),
    ] = None,
    stored: Annotated[
        bool,
        typer.Option("--stored", help="instead of --hours: the official hours and prices of the month, as imported"),
    ] = False,
    config: Annotated[Path | None, typer.Option("--config", help="with --stored: configuration file")] = None,
    area: Annotated[str | None, typer.Option("--area", help="with --stored: price area")] = None,
    nominal_kw: Annotated[str | None, typer.Option("--nominal-kw", help="nominal power of the battery")] = None,
    baseline_kw: Annotated[
        str | None, typer.Option("--baseline-kw", help="the baseline itself; comes before one of nominal power")
    ] = None,
    no_baseline: Annotated[bool, typer.Option("--no-baseline", help="the site qualifies for no baseline")] = False,
    net_discharge_kw: Annotated[
        str | None, typer.Option("--net-discharge-kw", help="the same net discharge in every hour")
    ] = None,
    discharge: Annotated[
        Path | None, typer.Option("--discharge", help="second CSV: date, hour_end, net_discharge_kw")
    ] = None,
    nomination_kw: Annotated[str | None, typer.Option("--nomination-kw", help="what was nominated or bid")] = None,
    rate_class: Annotated[
        str, typer.Option("--rate-class", help="a duration like 2h, a utility, or the name of a rate")
    ] = "",
    enrolled: Annotated[str | None, typer.Option("--enrolled", help="the day of enrollment")] = None,
    directory: Directory = DEFAULT_PROGRAMS,
    as_json: AsJson = False,
) -> None:
    """Price a table of local hours, or the stored official hours of a month, by the rules of a program, with every
    figure on the way. Nothing is asked of a daemon. An hour without net discharge counts as 0; one without a price
    makes a range, never a figure."""
    found = _loaded(directory).get(program)
    if found is None:
        fail([f"{program}: no such program in {directory}"], code=2)
    day = _day(on)
    version = found.program.version_on(day)
    if version is None:
        fail([f"{program}: no version is in force on {day}"], code=2)
    try:
        site = PricedSite(
            nominal_kw=_kw(nominal_kw, "--nominal-kw", least=0),
            nomination_kw=_kw(nomination_kw, "--nomination-kw", least=0),
            baseline_kw=_kw(baseline_kw, "--baseline-kw"),
            no_baseline=no_baseline,
            rate_class=rate_class,
            enrolled=None if enrolled is None else _day(enrolled, "--enrolled"),
        )
        more = None if discharge is None else read_hours(_text(discharge), name=discharge.name, zone=version.zone)
        same_kw = _kw(net_discharge_kw, "--net-discharge-kw")
        if hours is not None and not (stored or config or area):
            table = read_hours(_text(hours), name=hours.name, zone=version.zone)
            rows = hours_of(table, more, same_kw, version)
        elif stored and hours is None and config is not None and area is not None:
            rows = stored_hours(settings_of(config), version, StoredMonth(day=day, area=area), more, same_kw)
        else:
            raise InvalidInput(["give --hours, or --stored with --config and --area"])
        priced = price_table(version, rows, site)
    except InvalidInput as error:
        fail(error.problems, code=2)
    except GatewayError as error:
        fail([str(error)], code=1)
    if hours is not None and table.ignored:
        warn([f"{hours.name}: columns that nobody reads: {', '.join(table.ignored)}"])
    told = priced_plain(priced) | {"on": day.isoformat(), "digest": found.digest}
    if as_json:
        out.print_json(data=told)
        return
    columns = (
        "period",
        "status",
        "hours_counted",
        "hours_missing",
        "quantity",
        "bounded",
        "pay",
        "pay_low",
        "pay_high",
    )
    show([{name: one[name] for name in columns} for one in told["periods"]], of="periods")
    total = told["total"] or f"between {told['total_low']} and {told['total_high']}, or unknown"
    out.print(f"total: {total} {told['currency'] or ''}", markup=False, highlight=False)
    for one in told["rests_on_unverified"]:
        out.print(f"not verified: {one['path']} ({one['evidence']}, {one['source']})", markup=False, highlight=False)


@programs.command("performance")
def programs_performance(
    program: Annotated[str, typer.Argument(help="name of a program")],
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; without it, 62 days before --to")] = None,
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339; without it, now")] = None,
    after: Annotated[str | None, typer.Option(help="the `next` of the page before")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List the performance of a program's events: what was given, what is short, what it is worth for now."""
    asked = {"from": since, "to": until, "after": after, "limit": limit}
    page = ask(url, ops.LIST_PROGRAM_PERFORMANCE, _query(asked), id=program)
    if as_json:
        out.print_json(data=page)
        return
    rows = [
        {"event": one["event"], "start": one["start"], "revision": one["revision"]} | _figure(one["figure"])
        for one in page["events"]
    ]
    show(rows, of="events")
    _more(page)


@programs.command("event")
def programs_event(
    event: Annotated[str, typer.Argument(help="id of an event, as its source calls it or as the gateway does")],
    level: Annotated[str, typer.Option(help="device, site, customer or program")] = "site",
    occurrence: Annotated[
        str | None, typer.Option(help="start of the occurrence, RFC 3339; without it, newest")
    ] = None,
    revision: Annotated[int | None, typer.Option(help="an older revision")] = None,
    after: Annotated[str | None, typer.Option(help="the `next` of the page before")] = None,
    limit: Limit = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show the performance of one event: its figures, what is not verified, and why it was revised."""
    asked = {"level": level, "occurrence": occurrence, "revision": revision, "after": after, "limit": limit}
    found = ask(url, ops.SHOW_EVENT_PERFORMANCE, _query(asked), id=event)
    if as_json:
        out.print_json(data=found)
        return
    head = f"{found['program']} {found['version']}, {found['start']} to {found['end']}, revision {found['revision']}"
    out.print(f"{head}{' (an estimate: not the program meter)' * found['estimate']}", markup=False, highlight=False)
    for why in found["because"]:
        out.print(f"revised: {why}", markup=False, highlight=False)
    show([{"name": one["name"] or "all"} | _figure(one) for one in (found["figure"], *found["figures"])], of="figures")
    for one in found["rests_on_unverified"]:
        out.print(f"not verified: {one['path']} ({one['evidence']}, {one['source']})", markup=False, highlight=False)
    _more(found)


def _query(asked: dict[str, Any]) -> str:
    return urlencode({name: value for name, value in asked.items() if value is not None})


def _more(page: dict[str, Any]) -> None:
    if page["next"]:
        out.print(f"there are more: --after '{page['next']}'", markup=False, highlight=False)


def _figure(one: dict[str, Any]) -> dict[str, Any]:
    """A figure in one line."""
    value = one["value"] or {"status": None, "value": None, "low": None, "high": None, "currency": None}
    money = value["value"] or (f"{value['low']} to {value['high']}" if value["low"] is not None else None)
    return {
        "energy_wh": one["energy_wh"], "asked_wh": one["asked_wh"], "short_wh": one["short_wh"],
        "because": ", ".join(f"{why} {wh}" for why, wh in one["short_because"].items()) or None,
        "covered_pct": one["covered_pct"], "value": money and f"{money} {value['currency'] or ''}".strip(),
        "status": value["status"],
    }  # fmt: skip


def _kw(text: str | None, option: str, *, least: int | None = None) -> Fraction | None:
    if text is None:
        return None
    try:
        value = decimal_of(text, option)
    except ValueError as error:
        raise InvalidInput([str(error)]) from error
    if least is not None and value < least:
        raise InvalidInput([f"{option}: not below {least}"])
    return Fraction(value)


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        raise InvalidInput([f"{file}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise InvalidInput([f"{file}: not UTF-8"]) from error


def _loaded(directory: Path) -> dict[str, LoadedProgram]:
    try:
        return load_programs(directory)
    except InvalidInput as error:
        fail(error.problems, code=2)


def _day(text: str, option: str = "--on") -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail([f"{option}: a day is written 2026-07-07, not {text!r}"], code=2)


def _words(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(_words, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
