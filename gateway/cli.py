"""The command line. `run` is the daemon; the rest checks files or talks REST to a running daemon.

Exit codes: 0 done, 1 the daemon or some rows said no, 2 the input or the configuration is faulty.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from gateway.api.documents import documents
from gateway.app import import_offline, run_daemon
from gateway.client import Daemon, DaemonError
from gateway.config import Settings, load_settings
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.profiles.loader import load_profiles, parse_profile

cli = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Battery fleet gateway.", pretty_exceptions_enable=False
)
profiles_cli = typer.Typer(no_args_is_help=True, help="Device profiles.")
devices_cli = typer.Typer(no_args_is_help=True, help="Enrolled devices.")
dispatch_cli = typer.Typer(no_args_is_help=True, help="Dispatch events.")
cli.add_typer(profiles_cli, name="profiles")
cli.add_typer(devices_cli, name="devices")
cli.add_typer(dispatch_cli, name="dispatch")

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

ConfigFile = Annotated[Path, typer.Option("--config", help="configuration file")]
Url = Annotated[str, typer.Option("--url", envvar="GATEWAY_URL", help="the daemon's address")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_PROFILES = Path("device_profiles")


def _fail(problems: list[str], *, code: int) -> NoReturn:
    for problem in problems:
        err.print(problem, markup=False, highlight=False)
    raise typer.Exit(code)


def _settings(path: Path) -> Settings:
    try:
        return load_settings(path)
    except InvalidInput as error:
        _fail(error.problems, code=2)


@cli.command()
def run(
    config: ConfigFile,
    release: Annotated[bool, typer.Option(help="on a stop, release every device, ramped, before leaving")] = False,
) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    settings = _settings(config)
    try:
        run_daemon(settings, release_on_stop=release)
    except InvalidInput as error:
        _fail(error.problems, code=2)
    except GatewayError as error:
        _fail([str(error)], code=1)


@cli.command()
def validate(config: ConfigFile) -> None:
    """Check a configuration and the profiles it names; every fault at once."""
    problems: list[str] = []
    try:
        settings = load_settings(config)
        load_profiles(settings.profiles_dir)
    except InvalidInput as error:
        problems = error.problems
    if problems:
        _fail(problems, code=2)
    out.print(f"{config}: valid", markup=False, highlight=False)


@cli.command()
def schema(
    directory: Annotated[Path, typer.Option(help="where the documents lie")] = Path("deploy/api"),
    profiles: Annotated[Path, typer.Option(help="directory of profiles")] = DEFAULT_PROFILES,
    check: Annotated[bool, typer.Option("--check", help="compare only; fail when out of date")] = False,
) -> None:
    """Write (or check) the OpenAPI and AsyncAPI documents."""
    stale: list[str] = []
    for name, document in documents(profiles).items():
        path = directory / name
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(f"{path}: out of date; run `gateway schema`")
        else:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        _fail(stale, code=1)


# -- profiles ------------------------------------------------------------------------------------------------


@profiles_cli.command("list")
def profiles_list(
    directory: Annotated[Path, typer.Option("--dir")] = DEFAULT_PROFILES, as_json: AsJson = False
) -> None:
    """List the installed profiles."""
    try:
        codecs = load_profiles(directory)
    except InvalidInput as error:
        _fail(error.problems, code=2)
    rows = [
        {
            "profile": codec.name,
            "maker": codec.document.maker,
            "product": codec.document.product,
            "transport": codec.document.transport,
            "control": codec.encoder is not None,
            "lease_s": codec.facts.lease_s,
            "evidence": codec.document.evidence.tag.value,
        }
        for codec in codecs.values()
    ]
    _show(rows, as_json=as_json)


@profiles_cli.command("check")
def profiles_check(
    files: Annotated[list[Path] | None, typer.Argument(help="profile files; default: the whole directory")] = None,
    directory: Annotated[Path, typer.Option("--dir")] = DEFAULT_PROFILES,
) -> None:
    """Check profiles; every fault with file and place."""
    problems: list[str] = []
    try:
        if files:
            for file in files:
                try:
                    parse_profile(file.read_text(encoding="utf-8"), name=file.name)
                except (OSError, UnicodeDecodeError) as error:
                    problems.append(f"{file}: cannot be read: {error}")
        else:
            load_profiles(directory)
    except InvalidInput as error:
        problems += error.problems
    if problems:
        _fail(problems, code=2)
    out.print(f"{len(files) if files else directory}: valid", markup=False, highlight=False)


# -- devices -------------------------------------------------------------------------------------------------


@devices_cli.command("list")
def devices_list(
    url: Url = DEFAULT_URL,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List enrolled devices."""
    page = _ask(url, "GET", f"/v1/devices?offset={offset}&limit={limit}")
    if as_json:
        out.print_json(data=page)
        return
    shown = ("online", "reading_age_s", "soc_pct", "battery_w", "reserve_pct", "held", "setpoint_w")
    _show([{"id": d["device"]["id"]} | {k: d[k] for k in shown} for d in page["devices"]], as_json=False)
    out.print(f"{len(page['devices'])} of {page['total']}", highlight=False)


@devices_cli.command("show")
def devices_show(device: str, url: Url = DEFAULT_URL) -> None:
    """Show one device."""
    out.print_json(data=_ask(url, "GET", f"/v1/devices/{_segment(device)}"))


@devices_cli.command("unenrolled")
def devices_unenrolled(url: Url = DEFAULT_URL) -> None:
    """List devices that send telemetry without being enrolled."""
    out.print_json(data=_ask(url, "GET", "/v1/unenrolled"))


@devices_cli.command("import")
def devices_import(
    file: Path,
    url: Url = DEFAULT_URL,
    offline: Annotated[bool, typer.Option("--offline", help="write to the state directory; no daemon may run")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="configuration file (with --offline)")] = None,
) -> None:
    """Import devices from a .csv or .jsonl file. Good rows are taken, every bad row is named with its line."""
    form = {".csv": "csv", ".jsonl": "jsonl"}.get(file.suffix)
    if form is None:
        _fail([f"{file}: neither .csv nor .jsonl"], code=2)
    try:
        raw = file.read_bytes()
    except OSError as error:
        _fail([f"{file}: cannot be read: {error}"], code=2)
    if offline:
        if config is None:
            _fail(["--offline needs --config"], code=2)
        try:
            report = import_offline(_settings(config), raw.decode("utf-8-sig"), form=form)
        except InvalidInput as error:
            _fail([f"{file}: {problem}" for problem in error.problems], code=2)
        except (GatewayError, UnicodeDecodeError) as error:
            _fail([f"{file}: {error}"], code=1)
    else:
        kind = "text/csv" if form == "csv" else "application/x-ndjson"
        report = _ask(url, "POST", "/v1/devices", raw, kind)
    for row in report["rejected"]:
        err.print(f"{file}:{row['line']}: {row['problem']}", markup=False, highlight=False)
    out.print(
        f"{report['rows']} rows, {report['enrolled']} new or changed, {report['rejected_total']} rejected",
        highlight=False,
    )
    if report["rejected_total"]:
        raise typer.Exit(1)


# -- dispatch ------------------------------------------------------------------------------------------------


@dispatch_cli.command("send")
def dispatch_send(
    file: Annotated[str, typer.Argument(help="event as JSON; - reads standard input")], url: Url = DEFAULT_URL
) -> None:
    """Send an event (or a new revision of one)."""
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        _fail([f"{file}: cannot be read: {error}"], code=2)
    out.print_json(data=_ask(url, "POST", "/v1/dispatch-events", body, "application/json"))


@dispatch_cli.command("list")
def dispatch_list(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List events."""
    page = _ask(url, "GET", "/v1/dispatch-events")
    if as_json:
        out.print_json(data=page)
        return
    if page["stopped"]:
        out.print("dispatch is stopped: `gateway dispatch stop-all --clear` allows it again", highlight=False)
    shown = (
        "id",
        "revision",
        "state",
        "start",
        "end",
        "target_w",
        "commanded_w",
        "delivered_w",
        "unserved_w",
        "devices",
    )
    _show([{k: event[k] for k in shown} for event in page["events"]], as_json=False)


@dispatch_cli.command("show")
def dispatch_show(event: str, url: Url = DEFAULT_URL) -> None:
    """Show one event with its devices."""
    out.print_json(data=_ask(url, "GET", f"/v1/dispatch-events/{_segment(event)}"))


@dispatch_cli.command("cancel")
def dispatch_cancel(event: str, url: Url = DEFAULT_URL) -> None:
    """Cancel an event."""
    out.print_json(data=_ask(url, "DELETE", f"/v1/dispatch-events/{_segment(event)}"))


@dispatch_cli.command("stop-all")
def dispatch_stop_all(
    url: Url = DEFAULT_URL, clear: Annotated[bool, typer.Option("--clear", help="allow dispatch again")] = False
) -> None:
    """Release everything, ramped, and refuse new events until cleared."""
    body = json.dumps({"active": not clear, "by": os.environ.get("USER", "operator")}).encode()
    out.print_json(data=_ask(url, "POST", "/v1/dispatch/stop-all", body, "application/json"))


# -- shared --------------------------------------------------------------------------------------------------


def _ask(url: str, method: str, path: str, body: bytes | None = None, kind: str | None = None) -> Any:
    try:
        return Daemon(url, token=os.environ.get("GATEWAY_TOKEN")).ask(method, path, body=body, content_type=kind)
    except DaemonError as error:
        _fail(error.problems, code=1)


def _segment(name: str) -> str:
    """An id as one segment of a path, whatever is in it."""
    return quote(name, safe="")


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        out.print_json(data=rows)
        return
    table = Table(box=None)
    for name in rows[0] if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    out.print(table)


def main() -> None:
    """Entry point of the command `gateway`."""
    cli()
