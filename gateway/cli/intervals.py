"""Commands about intervals: list them, check their completeness, export them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gateway import former_names
from gateway.cli.client import DaemonError
from gateway.cli.progress import progress
from gateway.cli.shared import DEFAULT_URL, AsJson, Offset, Url, ask, daemon_at, fail, out, show
from gateway.schemas import operations as ops

intervals = typer.Typer(no_args_is_help=True, help="Interval energy: list, check and export it.")

From = Annotated[str, typer.Option("--from", help="begins at or after this time (RFC 3339)")]
To = Annotated[str, typer.Option("--to", help="begins before this time (RFC 3339)")]
Devices = Annotated[list[str] | None, typer.Option("--device", help="of this device; may be given several times")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="of devices with this tag; may be given several times")]


class Format(StrEnum):
    """Format of an exported file."""

    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"


def _query(since: str, to: str, devices: list[str] | None, tags: list[str] | None, **more: str) -> str:
    given = [("from", since), ("to", to), *(("device", name) for name in devices or ())]
    given += [*(("tag", tag) for tag in tags or ()), *more.items()]
    return urlencode(given)


@intervals.command("list")
def intervals_list(
    since: From,
    to: To,
    device: Devices = None,
    tag: Tags = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    after: Annotated[str | None, typer.Option(help="the `next` of the page before")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List intervals by start and device, each with its newest revision."""
    more = {"limit": str(limit)} | ({} if after is None else {"after": after})
    page = ask(url, ops.LIST_INTERVALS, _query(since, to, device, tag, **more))
    if as_json:
        out.print_json(data=page)
        return
    show(page["intervals"], of="intervals")
    if page["next"] is not None:
        out.print(f"there are more: --after {page['next']}", markup=False, highlight=False)


@intervals.command("completeness")
@intervals.command(
    former_names.COMMANDS["completeness"], help="Former name of `completeness`.", hidden=True, deprecated=True
)
def intervals_completeness(
    day: Annotated[str | None, typer.Option(help="UTC day, YYYY-MM-DD; yesterday unless given")] = None,
    device: Devices = None,
    tag: Tags = None,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="list only devices that lack something")] = False,
    gaps: Annotated[bool, typer.Option("--gaps", help="list the gaps one by one")] = False,
    offset: Offset = 0,
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show each device's intervals of a day: expected, stored, accepted by each receiver, missing and why."""
    given = [("limit", str(limit)), ("offset", str(offset)), ("incomplete", str(incomplete).lower())]
    given += [] if day is None else [("day", day)]
    given += [*(("device", name) for name in device or ()), *(("tag", tag) for tag in tag or ())]
    page = ask(url, ops.SHOW_COMPLETENESS, urlencode(given))
    if as_json:
        out.print_json(data=page)
        return
    if gaps:
        show([{"device": d["device"], **gap} for d in page["devices"] for gap in d["gaps"]], of="gaps")
    else:
        show([_completeness_line(d) for d in page["devices"]], of="devices")
    if page["next"] is not None:
        out.print(f"there are more: --offset {page['next']}", markup=False, highlight=False)


def _completeness_line(day: dict[str, Any]) -> dict[str, Any]:
    line = {name: day[name] for name in ("device", "expected", "stored", "complete", "revised")}
    line["missing"] = " ".join(f"{reason}={count}" for reason, count in day["missing"].items()) or None
    for name, sink in day["sinks"].items():
        refused = "".join(f" {reason}={count}" for reason, count in sink["refused"].items())
        others = "".join(f" {kind}={sink[kind]}" for kind in ("not_wanted", "superseded", "inferred") if sink.get(kind))
        line[name] = f"{sink['accepted']}/{sink['sent']} waiting={sink['waiting']}{others}{refused}"
    return line


@intervals.command("export")
def intervals_export(
    file: Annotated[Path, typer.Argument(help="the file; it appears only when the export is complete")],
    since: From,
    to: To,
    device: Devices = None,
    tag: Tags = None,
    form: Annotated[Format, typer.Option("--format")] = Format.CSV,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Export all intervals within a stretch of time to a file."""
    if form is Format.PARQUET:
        from gateway.sinks.arrow import NEEDED, available

        if not available():
            fail([NEEDED], code=2)
    text, part = ("ndjson" if form is Format.NDJSON else "csv"), file.with_name(file.name + ".part")
    columns = file.with_name(file.name + ".part.parquet")
    try:
        daemon = daemon_at(url)
        with progress(f"exporting to {file.name}"):
            daemon.fetch(ops.LIST_INTERVALS.target({}, _query(since, to, device, tag, format=text)), part)
            if form is Format.PARQUET:
                _as_parquet(part, columns)
                columns.replace(part)
            part.replace(file)
        size = file.stat().st_size
    except DaemonError as error:
        fail(error.problems, code=1)
    except OSError as error:
        fail([f"{file}: cannot be written: {error}"], code=2)
    finally:
        part.unlink(missing_ok=True)
        columns.unlink(missing_ok=True)
    if as_json:
        out.print_json(data={"file": str(file), "bytes": size})


def _as_parquet(csv_file: Path, parquet_file: Path) -> None:
    """The same rows as Parquet: times as timestamps in UTC, numbers as numbers, unknown as null."""
    import pyarrow.csv
    import pyarrow.parquet

    from gateway.sinks.arrow import COMPRESSION, arrow_schema

    options = pyarrow.csv.ConvertOptions(column_types=arrow_schema())
    with (
        pyarrow.csv.open_csv(csv_file, convert_options=options) as rows,
        pyarrow.parquet.ParquetWriter(parquet_file, rows.schema, compression=COMPRESSION) as writer,
    ):
        for batch in rows:
            writer.write_batch(batch)
