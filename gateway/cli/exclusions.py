"""Commands about exclusions: owners' opt-outs, storms, and territories."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import former_names
from gateway.cli.progress import progress
from gateway.cli.shared import (
    DEFAULT_URL,
    AsJson,
    Url,
    ask,
    fail,
    out,
    read_body,
    show,
    tell_rejected,
    user,
    warn,
    warn_of,
)
from gateway.schemas import operations as ops

KINDS = {".csv": "text/csv", ".jsonl": "application/x-ndjson", ".json": "application/x-ndjson"}

TERRITORY = {
    "postcode": "postcodes", "county": "counties", "utility": "utilities", "feeder": "feeders", "program": "programs",
}  # fmt: skip
"""What homes can be named by, and its member in a body."""


def _group(*, former: bool) -> typer.Typer:
    """The commands, over the path that is, or over the former one."""
    show_all, put, end = (
        (former and operation.former) or operation
        for operation in (ops.LIST_EXCLUSIONS, ops.SET_EXCLUSION, ops.LIFT_EXCLUSION)
    )
    member = former_names.MEMBERS["exclusions"] if former else "exclusions"
    group = typer.Typer(no_args_is_help=True, help="Devices kept out of dispatch: opt-outs, storms, territories.")

    @group.command("list")
    def exclusions_list(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
        """List exclusions."""
        page = ask(url, show_all)
        if as_json:
            out.print_json(data=page)
            return
        show([row | {"territory": _area(row.get("territory"))} for row in page[member]], of="exclusions")

    @group.command("set")
    def exclusions_set(
        file: Annotated[str, typer.Argument(help="file with the exclusion as JSON; - reads standard input")],
        url: Url = DEFAULT_URL,
    ) -> None:
        """Keep devices out of dispatch; the same id replaces the exclusion."""
        answer = ask(url, put, f"by={user()}", body=read_body(file))
        out.print_json(data=answer)
        warn_of(answer)

    @group.command("lift")
    def exclusions_lift(exclusion: str, url: Url = DEFAULT_URL) -> None:
        """End an exclusion."""
        out.print_json(data=ask(url, end, f"by={user()}", id=exclusion))

    if not former:
        _of_territories(group)
    return group


def _of_territories(group: typer.Typer) -> None:
    """The commands about territories, which have no former names."""

    @group.command("preview")
    def exclusions_preview(
        file: Annotated[str, typer.Argument(help="file with the exclusion as JSON; - reads standard input")],
        url: Url = DEFAULT_URL,
    ) -> None:
        """Say what an exclusion would do if it were set: devices, homes, power and programs."""
        _preview(url, read_body(file))

    @group.command("territory")
    def exclusions_territory(
        name: Annotated[str, typer.Argument(metavar="ID", help="the same id replaces the exclusion")],
        reason: Annotated[str, typer.Option("--reason", help="storm, outage, weather, utility_request or other")],
        until: Annotated[str, typer.Option("--until", help="like 2030-06-02T00:00:00-07:00")],
        inside: Annotated[
            list[str],
            typer.Option("--in", metavar="KIND=NAME", help=f"{', '.join(TERRITORY)}; several of a kind: any of them"),
        ],
        since: Annotated[str | None, typer.Option("--from", help="without it: from now on")] = None,
        note: Annotated[str, typer.Option("--note", help="why, in words")] = "",
        reserve_pct: Annotated[float | None, typer.Option("--reserve-pct", help="raise the reserve to it")] = None,
        above_reserve: Annotated[
            bool, typer.Option("--dispatch-above-reserve", help="what is above the reserve may be dispatched")
        ] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what it would do")] = False,
        url: Url = DEFAULT_URL,
    ) -> None:
        """Keep the homes of a territory out of dispatch. Of each kind that is named a home must be one."""
        body: dict[str, Any] = {
            "id": name, "reason": reason, "until": until, "note": note, "territory": _territory(inside),
            "dispatch_above_reserve": above_reserve,
        }  # fmt: skip
        body |= {} if since is None else {"from": since}
        body |= {} if reserve_pct is None else {"reserve_pct": reserve_pct}
        payload = json.dumps(body).encode()
        if dry_run:
            _preview(url, payload)
            return
        answer = ask(url, ops.SET_EXCLUSION, f"by={user()}", body=payload)
        out.print_json(data=answer)
        warn_of(answer)

    @group.command("import")
    def exclusions_import(file: Path, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
        """Set exclusions of territories from a .csv, .jsonl or .json file (a list of rows). Good rows are taken; bad
        ones are named with their line, of a .json file with their number. Exits with 1 if there are any."""
        kind, raw = KINDS.get(file.suffix), read_body(str(file))
        if kind is None:
            fail([f"{file}: neither .csv nor .jsonl nor .json"], code=2)
        if file.suffix == ".json":
            raw = _lines(file, raw)
        with progress(f"the gateway imports {file.name}"):
            report = ask(url, ops.IMPORT_EXCLUSIONS, f"by={user()}", body=raw, kind=kind)
        if as_json:
            out.print_json(data=report)
        else:
            tell_rejected(file, report)
            out.print(
                f"{report['rows']} rows, {report['changed']} new or changed, {report['unchanged']} as they were, "
                f"{report['rejected_total']} rejected",
                highlight=False,
            )
        warn_of(report)
        if report["rejected_total"]:
            raise typer.Exit(1)


def _territory(inside: list[str]) -> dict[str, list[str]]:
    """The territory of a body; exits with 2 where something in it has no such kind."""
    found: dict[str, list[str]] = {}
    for one in inside:
        kind, equals, name = one.partition("=")
        if kind not in TERRITORY or not equals:
            fail([f"--in {one}: not KIND=NAME with one of {', '.join(TERRITORY)}"], code=2)
        found.setdefault(TERRITORY[kind], []).append(name)
    return found


def _preview(url: str, body: bytes) -> None:
    effect = ask(url, ops.PREVIEW_EXCLUSION, f"by={user()}", body=body)
    out.print_json(data=effect)
    warn(effect["warnings"])


def _lines(file: Path, raw: bytes) -> bytes:
    """The rows of a list, a line each."""
    try:
        rows = json.loads(raw)
    except (ValueError, RecursionError) as error:
        fail([f"{file}: not JSON: {error}"], code=2)
    if not isinstance(rows, list):
        fail([f"{file}: not a list of rows"], code=2)
    return b"\n".join(json.dumps(row).encode() for row in rows)


def _area(territory: dict[str, list[str]] | None) -> str | None:
    """A territory in a cell of a table."""
    if not territory:
        return None
    return "; ".join(f"{kind} {' '.join(names)}" for kind, names in territory.items() if names)


exclusions = _group(former=False)
formerly = _group(former=True)
