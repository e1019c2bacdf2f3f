"""Commands about utilities' meters: their readings, and how homes' own meters compare; none of them asks a daemon, and
none waits for one."""

import os
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from gateway.cli.configuration import ConfigFile, settings_of
from gateway.cli.shared import AsJson, fail, out, read_body, show, warn
from gateway.clock import SystemClock
from gateway.domain.errors import GatewayError
from gateway.services.programs.usage_table import LENGTHS_S, read_usage
from gateway.storage.programs.match_file import SiteMatch, read_matches
from gateway.storage.programs.utility_meters import UtilityMeters

meters = typer.Typer(no_args_is_help=True, help="Readings of utilities' meters, and how homes' own ones compare.")

T = TypeVar("T")


@meters.command("import")
def meters_import(
    file: Annotated[str, typer.Argument(help="CSV, or - for standard input")],
    *,
    config: ConfigFile,
    source: Annotated[str, typer.Option("--source", help="where the rows are read")],
    length_s: Annotated[int, typer.Option("--length-s", help="length of an interval, where no column says it")] = 900,
    as_json: AsJson = False,
) -> None:
    """Import readings: meter, start (with its zone), usage_wh (+ = taken from the grid), and length_s where it differs.
    Of an interval the newest import holds; earlier ones are kept. Good rows are taken; bad ones are named with their
    line, and then it exits with 1."""
    if length_s not in LENGTHS_S:
        fail([f"--length-s {length_s}: none of {', '.join(map(str, LENGTHS_S))}"], code=2)
    settings = settings_of(config)
    try:
        table = read_usage(read_body(file).decode("utf-8"), length_s=length_s)
    except UnicodeDecodeError:
        fail([f"{file}: not UTF-8"], code=2)
    told: dict[str, Any] = {"rows": len(table.rows), "empty": table.empty, "bad": table.bad, "revision": None}
    if table.rows:
        os.umask(0o077)
        who, now_ms = os.environ.get("USER") or "operator", SystemClock().now().utc_ms
        done = _tried(
            lambda: UtilityMeters(settings.state_dir).add(table.rows, source=source, who=who, now_ms=now_ms)
        )  # fmt: skip
        told |= {"revision": done.revision, "changed_days": done.changed_days}
    if as_json:
        out.print_json(data=told | {"faults": list(table.faults)})
    else:
        out.print(
            f"{told['rows']} readings, {table.empty} without one, {table.bad} bad; revision {told['revision']}",
            markup=False, highlight=False,
        )  # fmt: skip
        warn(table.faults)
    if table.bad or not table.rows:
        fail([] if table.bad else [f"{file}: no row has a reading"], code=1)


@meters.command("list")
def meters_list(
    *,
    config: ConfigFile,
    mismatches: Annotated[bool, typer.Option("--mismatches", help="only sites whose meters differ")] = False,
    as_json: AsJson = False,
) -> None:
    """List how each home's own meter compares with its utility's over the last 90 days: ratio, the band that most days
    are within, and whether it is reversed, scaled or unlike. What is worked out from the home's own meter for a program
    that measures at the utility's is an estimate within that band, and never payable as final."""
    settings = settings_of(config)
    found = _tried(lambda: read_matches(settings.state_dir)).rows
    rows = [_told(one) for one in found if one.match.mismatch is not None or not mismatches]
    show(rows, of="mismatches" if mismatches else "meters", as_json=as_json)


def _told(one: SiteMatch) -> dict[str, Any]:
    match, band = one.match, one.match.band
    return {
        "site": one.site, "meter": one.meter, "length_s": one.length_s, "revision": one.revision, "days": match.days,
        "intervals": match.intervals, "ratio": _rounded(match.ratio),
        "low": _rounded(None if band is None else band.low), "high": _rounded(None if band is None else band.high),
        "mismatch": None if match.mismatch is None else match.mismatch.value,
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _tried(work: Callable[[], T]) -> T:
    try:
        return work()
    except GatewayError as error:
        fail([str(error)], code=1)
