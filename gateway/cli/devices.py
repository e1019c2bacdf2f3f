"""Commands about registered devices."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import former_names
from gateway.cli.progress import progress
from gateway.cli.shared import (
    DEFAULT_URL,
    ROWS_SHOWN,
    AlwaysJson,
    AsJson,
    Limit,
    Offset,
    Url,
    ask,
    err,
    fail,
    out,
    segment,
    show,
    tell_rejected,
    user,
)
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.schemas import operations as ops

devices = typer.Typer(no_args_is_help=True, help="Registered devices.")

"""Of the bad rows of an import, and of the notes, as many are printed."""


@devices.command("list")
def devices_list(
    url: Url = DEFAULT_URL,
    offset: Offset = 0,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List registered devices."""
    page = ask(url, ops.LIST_DEVICES, f"offset={offset}&limit={limit}")
    if as_json:
        out.print_json(data=page)
        return
    shown = ("steerable", "online", "reading_age_s", "soc_pct", "battery_w", "reserve_pct", "authority", "setpoint_w")
    named = [
        {k: d["device"][k] for k in ("id", "profile", "address")} | {k: d[k] for k in shown} for d in page["devices"]
    ]
    show(named, of="devices")
    out.print(f"{len(page['devices'])} of {page['total']}", highlight=False)


@devices.command("show")
def devices_show(device: str, url: Url = DEFAULT_URL, _json: AlwaysJson = False) -> None:
    """Show one device."""
    out.print_json(data=ask(url, ops.SHOW_DEVICE, id=device))


@devices.command("unregistered")
@devices.command(
    former_names.COMMANDS["unregistered"], help="Former name of `unregistered`.", hidden=True, deprecated=True
)
def devices_unregistered(url: Url = DEFAULT_URL, _json: AlwaysJson = False) -> None:
    """List devices that send telemetry but are not registered."""
    out.print_json(data=ask(url, ops.LIST_UNREGISTERED))


@devices.command("quarantine")
def devices_quarantine(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List devices and products that cannot be trusted and get no setpoints: why, since when, what lifts it."""
    page = ask(url, ops.SHOW_QUARANTINE)
    if as_json:
        out.print_json(data=page)
        return
    shown = ("name", "reason", "since", "lifted_by", "detail")
    show(
        [{key: entry[key] or None for key in shown} for entry in page["entries"]],
        of="devices or products in quarantine",
    )


@devices.command("trust")
def devices_trust(
    name: str,
    url: Url = DEFAULT_URL,
    reason: Annotated[str, typer.Option("--reason", help="why it may be trusted again; kept in the journal")] = "",
) -> None:
    """Lift the quarantine or freeze of a device (or a product, as `product:<name>`) after it has been repaired."""
    query = f"by={user()}&reason={segment(reason)}"
    out.print_json(data=ask(url, ops.TRUST, query, name=name))


@devices.command("import")
def devices_import(
    file: Path,
    url: Url = DEFAULT_URL,
    offline: Annotated[bool, typer.Option("--offline", help="write to the state directory; no daemon may run")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="configuration file (with --offline)")] = None,
    as_json: AsJson = False,
) -> None:
    """Import devices from a .csv or .jsonl file. Good rows are imported; bad ones are named with their line and every
    fault. Exits with 1 if there are any."""
    form = {".csv": "csv", ".jsonl": "jsonl"}.get(file.suffix)
    if form is None:
        fail([f"{file}: neither .csv nor .jsonl"], code=2)
    try:
        raw = file.read_bytes()
    except OSError as error:
        fail([f"{file}: cannot be read: {error}"], code=2)
    if offline:
        if config is None:
            fail(["--offline needs --config"], code=2)
        # only this way needs the gateway's own parts
        from gateway.app.offline import import_offline
        from gateway.cli.configuration import settings_of

        try:
            with progress(f"importing {file.name}") as told:
                report = import_offline(settings_of(config), raw.decode("utf-8-sig"), form=form, progress=told)
        except InvalidInput as error:
            fail([f"{file}: {problem}" for problem in error.problems], code=2)
        except UnicodeDecodeError as error:
            fail([f"{file}: {error}"], code=2)
        except GatewayError as error:
            fail([f"{file}: {error}"], code=1)
    else:
        kind = "text/csv" if form == "csv" else "application/x-ndjson"
        with progress(f"the gateway imports {file.name}"):
            report = ask(url, ops.IMPORT_DEVICES, f"by={user()}", body=raw, kind=kind)
    if as_json:
        out.print_json(data=report)
    else:
        _tell_import(file, report)
    if report["rejected_total"]:
        raise typer.Exit(1)


@devices.command("remove")
def devices_remove(names: list[str], url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Remove devices: those under control are handed back first. Their intervals and history stay."""
    told = [ask(url, ops.REMOVE_DEVICE, f"by={user()}", id=name) for name in names]
    if as_json:
        out.print_json(data=told)
        return
    _tell_gone(told, "removed")


def _tell_gone(told: list[dict[str, Any]], done: str) -> None:
    for one in told:
        what = done if one["gone"] else f"waits: {one['waits_for']}"
        out.print(f"{one['device']}: {what}", markup=False, highlight=False)


@devices.command("departures")
def devices_departures(
    url: Url = DEFAULT_URL,
    offset: Offset = 0,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List devices that leave their place, or are removed, once they are handed back there."""
    page = ask(url, ops.LIST_DEPARTURES, f"offset={offset}&limit={limit}")
    if as_json:
        out.print_json(data=page)
        return
    show(
        [
            {
                "device": one["device"],
                "to": "removed" if one["to"] is None else f"{one['to']['profile']} {one['to']['address']}".strip(),
                "since": one["since"],
                "waits_for": one["waits_for"],
            }
            for one in page["departures"]
        ],
        of="devices that leave their place",
    )


@devices.command("abandon")
def devices_abandon(
    device: str,
    reason: Annotated[str, typer.Option("--reason", help="why it is given up; kept in the journal")],
    url: Url = DEFAULT_URL,
) -> None:
    """Give up what is left under control where a device leaves from, since nothing answers there any more."""
    _tell_gone([ask(url, ops.ABANDON, f"by={user()}&reason={segment(reason)}", id=device)], "gone")


@devices.command("connections")
def devices_connections(device: str, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List what a device was, where it answered, and at which site and meter, over time; also of one that was
    removed."""
    page = ask(url, ops.LIST_CONNECTIONS, id=device)
    if as_json:
        out.print_json(data=page)
        return
    show(page["connections"], of="connections")
    show(page["placements"], of="placements")


@devices.command("raw")
def devices_raw(
    name: Annotated[str | None, typer.Argument(help="a device or a topic; without: all that have some")] = None,
    url: Url = DEFAULT_URL,
    offset: Offset = 0,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List settlement messages that are kept as they came, and why: whose, or the newest of one device."""
    if name is not None:
        page = ask(url, ops.SHOW_RAW, f"limit={min(limit, 100)}", name=name)
        found = page["messages"]
        shown = [
            {"received": m["received"], "problem": m["problem"] or None, "message": m["text"] or m["base64"]}
            for m in found
        ]
    else:
        page = ask(url, ops.LIST_RAW, f"offset={offset}&limit={limit}")
        found = page["topics"]
        keys = ("device", "topic", "messages", "unreadable", "since", "newest", "discarded", "reason")
        shown = [{key: topic[key] for key in keys} for topic in found]
    if as_json:
        out.print_json(data=page)
        return
    show(shown, of="raw messages")


@devices.command("discard")
def devices_discard(
    name: str,
    reason: Annotated[str, typer.Option("--reason", help="why they are given up; kept in the journal")],
    url: Url = DEFAULT_URL,
) -> None:
    """Discard the settlement messages that are kept raw of a device or a topic."""
    told = ask(url, ops.DISCARD_RAW, f"by={user()}&reason={segment(reason)}", name=name)
    out.print(f"{name}: {told['discarded']} messages discarded", markup=False, highlight=False)


def _tell_import(file: Path, report: dict[str, Any]) -> None:
    """Print the first bad rows, each with its faults, and the first notes; count the rest."""
    notes = report.get("notes", [])
    tell_rejected(file, report)
    for row in notes[:ROWS_SHOWN]:
        err.print(f"{file}:{row['line']}: note: {row['note']}", markup=False, highlight=False)
    if len(notes) > ROWS_SHOWN:
        err.print(f"{file}: and {len(notes) - ROWS_SHOWN} more notes; --json has more of them", highlight=False)
    out.print(
        f"{report['rows']} rows, {report['enrolled']} new or changed, "
        + (f"{report['departing']} once they are handed back, " if report.get("departing") else "")
        + f"{report['rejected_total']} rejected",
        highlight=False,
    )
