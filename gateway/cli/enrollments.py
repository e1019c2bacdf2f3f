"""Commands about enrollments, customers and consents."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.progress import progress
from gateway.cli.shared import (
    DEFAULT_URL,
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
from gateway.schemas import operations as ops
from gateway.schemas.operations import Operation

enrollments = typer.Typer(no_args_is_help=True, help="Enrollments in programs: who takes part, and why not.")
customers = typer.Typer(no_args_is_help=True, help="Customers by reference, their consents and what has to be done.")

due = typer.Typer(no_args_is_help=True, help="What has to be done by when.")

KINDS = {".csv": "text/csv", ".jsonl": "application/x-ndjson"}
ENROLLMENT = {"enforce": "enforced", "observe": "observed", "unknown": "observed, and nobody knows the program"}

Program = Annotated[str | None, typer.Option("--program", help="of this program alone")]
Customer = Annotated[str | None, typer.Option("--customer", help="of this customer alone")]
After = Annotated[int, typer.Option("--after", min=0, help="the `next` of the page before")]


@enrollments.command("list")
def enrollments_list(
    url: Url = DEFAULT_URL,
    program: Program = None,
    subject: Annotated[str | None, typer.Option("--subject", help="of this device or meter alone")] = None,
    after: After = 0,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List what is stated of enrollments."""
    page = ask(url, ops.LIST_ENROLLMENTS, _query(program=program, subject=subject, after=after, limit=limit))
    if as_json:
        out.print_json(data=page)
        return
    shown = ("subject", "program", "delivery_period", "since", "status", "peer_status", "market_group")
    show([{name: row[name] for name in shown} for row in page["enrollments"]], of="enrollments")
    _more(page["next"])


@enrollments.command("show")
def enrollments_show(
    name: Annotated[str, typer.Argument(help="a device, or a meter of the aggregator")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show how a device or a meter stands in every program, and why."""
    found = ask(url, ops.SHOW_ENROLLMENT, id=name)
    if as_json:
        out.print_json(data=found)
        return
    show(found["memberships"], of="programs")
    shown = ("program", "delivery_period", "since", "status", "peer_status", "rate_key")
    show([{name: row[name] for name in shown} for row in found["enrollments"]], of="enrollments")


@enrollments.command("rates")
def enrollments_rates(
    name: Annotated[str, typer.Argument(help="a device, or a meter of the aggregator")],
    on: Annotated[str | None, typer.Option("--on", help="the local day of the event; else today")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show which rate an enrollment is paid by for an event on a day, or why there is none."""
    found = ask(url, ops.SHOW_RATES, _query(on=on), id=name)
    if as_json:
        out.print_json(data=found)
        return
    shown = ("program", "on", "version", "enrolled", "year", "rate", "amount", "currency", "unit", "evidence", "reason")
    show([{key: row[key] for key in shown} for row in found["rates"]], of="rates")


@enrollments.command("participation")
def enrollments_participation(
    program: str, url: Url = DEFAULT_URL, offset: Offset = 0, limit: Limit = 100, as_json: AsJson = False
) -> None:
    """List who takes part in a program's running or next event, who does not, and why."""
    found = ask(url, ops.LIST_PARTICIPATION, f"offset={offset}&limit={limit}", id=program)
    if as_json:
        out.print_json(data=found)
        return
    event = found["event"]
    out.print(
        f"{program}: enrollment is {ENROLLMENT[found['enrollment']]}; "
        + ("no event" if event is None else f"event {event['id']} {event['state']} from {event['start']}"),
        markup=False, highlight=False,
    )  # fmt: skip
    show(
        [row | {name: " ".join(row[name]) or None for name in ("limits", "excluded_by")} for row in found["devices"]],
        of="devices",
    )
    for why, count in found["left_out"].items():
        out.print(f"{why}: {count} of {found['total']}", markup=False, highlight=False)
    if found.get("excluded"):
        out.print(f"territory excluded: {found['excluded']} of {found['total']}", markup=False, highlight=False)


@enrollments.command("eligible")
def enrollments_eligible(
    program: str,
    url: Url = DEFAULT_URL,
    offset: Offset = 0,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 100,
    as_json: AsJson = False,
) -> None:
    """List which devices a program may have, and why not the others."""
    page = ask(url, ops.LIST_ELIGIBILITY, f"offset={offset}&limit={limit}", id=program)
    if as_json:
        out.print_json(data=page)
        return
    show([row | {"reasons": " ".join(row["reasons"]) or None} for row in page["devices"]], of="devices")
    out.print(f"{len(page['devices'])} of {page['total']}; telemetry of {page['days']} days", highlight=False)
    for name in page["unverified"]:
        out.print(f"{name} of {program} is not verified", markup=False, highlight=False)


@enrollments.command("changes")
def enrollments_changes(
    batch: Annotated[str, typer.Argument(help="as `gateway audit list` names it")],
    url: Url = DEFAULT_URL,
    offset: Offset = 0,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List what one commit of enrollments, consents or customers changed, before and after."""
    found = ask(url, ops.LIST_FACT_CHANGES, f"offset={offset}&limit={limit}", id=segment(batch))
    if as_json:
        out.print_json(data=found)
        return
    for one in found["changes"]:
        out.print_json(data=one, indent=None)
    out.print(f"{found['batch']}: SHA-256 {found['sha256']}", markup=False, highlight=False)


@enrollments.command("import")
def enrollments_import(file: Path, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Import enrollments from a .csv or .jsonl file in the aggregator's columns. Good rows are taken; bad ones are
    named with their line. Exits with 1 if there are any."""
    _import(file, url, ops.IMPORT_ENROLLMENTS, as_json=as_json)


@due.command("deadlines")
def deadlines(
    url: Url = DEFAULT_URL,
    days: Annotated[int, typer.Option("--days", min=1, max=400, help="from now on")] = 30,
    as_json: AsJson = False,
) -> None:
    """What has to be done by when, in each program's local time.

    Enrollments and activations that are open, consents that expire, locked rates that end, data and nominations."""
    found = ask(url, ops.LIST_DEADLINES, _query(days=days))["deadlines"]
    if as_json:
        out.print_json(data=found)
        return
    rows = [
        {name: one[name] for name in ("local", "what", "program", "delivery_period", "count")}
        | {
            "first": " ".join(one["some"]),
            "missing": one["missing_intervals"],
            "since": one["missing_since"],
            "unverified": "not verified" if one["unverified"] else None,
            "lacking": " ".join(f"{reason} ({count})" for reason, count in one["lacking"].items()) or None,
        }
        for one in found
    ]
    show(rows, of=f"deadlines within {days} days")


@customers.command("list")
def customers_list(
    url: Url = DEFAULT_URL,
    after: Annotated[str | None, typer.Option("--after", help="the `next` of the page before")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List customers, by reference."""
    page = ask(url, ops.LIST_CUSTOMERS, _query(after=after, limit=limit))
    if as_json:
        out.print_json(data=page)
        return
    show(page["customers"], of="customers")
    _more(page["next"])


@customers.command("show")
def customers_show(ref: str, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show what stands under a customer's reference, and what has to be done."""
    found = ask(url, ops.SHOW_CUSTOMER, id=ref)
    if as_json:
        out.print_json(data=found)
        return
    for name in ("holdings", "payees", "consents"):
        show(found[name], of=name)
    for action in found["required_actions"]:
        out.print(f"to do: {action}", markup=False, highlight=False)


@customers.command("import")
def customers_import(file: Path, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Import customers from a .csv or .jsonl file: what they have, who is paid, and who they are."""
    _import(file, url, ops.IMPORT_CUSTOMERS, as_json=as_json)


@customers.command("erase")
def customers_erase(
    ref: str,
    url: Url = DEFAULT_URL,
    sure: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a customer's personal data for good. What stands under the reference stays."""
    if not sure:
        typer.confirm(f"Erase who {ref} is, for good?", abort=True)
    told = ask(url, ops.ERASE_CUSTOMER, f"by={user()}", id=ref)
    if as_json:
        out.print_json(data=told)
        return
    out.print(f"{ref}: {'erased' if told['had'] else 'there was nothing to erase'}", markup=False, highlight=False)


@customers.command("consents")
def customers_consents(
    url: Url = DEFAULT_URL,
    program: Program = None,
    customer: Customer = None,
    after: After = 0,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List consents and withdrawals."""
    page = ask(url, ops.LIST_CONSENTS, _query(program=program, customer=customer, after=after, limit=limit))
    if as_json:
        out.print_json(data=page)
        return
    show(page["consents"], of="consents")
    _more(page["next"])


@customers.command("import-consents")
def customers_import_consents(file: Path, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Import consents with their evidence, and withdrawals, from a .csv or .jsonl file."""
    _import(file, url, ops.IMPORT_CONSENTS, as_json=as_json)


def _query(**given: str | int | None) -> str:
    return "&".join(f"{name}={segment(str(value))}" for name, value in given.items() if value is not None)


def _more(following: str | int | None) -> None:
    if following is not None:
        out.print(f"more: --after {following}", highlight=False)


def _import(file: Path, url: str, operation: Operation, *, as_json: bool) -> None:
    kind = KINDS.get(file.suffix)
    if kind is None:
        fail([f"{file}: neither .csv nor .jsonl"], code=2)
    try:
        raw = file.read_bytes()
    except OSError as error:
        fail([f"{file}: cannot be read: {error}"], code=2)
    with progress(f"the gateway imports {file.name}"):
        report: dict[str, Any] = ask(url, operation, f"by={user()}", body=raw, kind=kind)
    if as_json:
        out.print_json(data=report)
    else:
        tell_rejected(file, report)
        out.print(
            f"{report['rows']} rows, {report['changed']} new or changed, {report['unchanged']} known already, "
            f"{report['rejected_total']} rejected",
            highlight=False,
        )
        for name in report["unknown_programs"]:
            err.print(
                f"{name}: neither configuration nor programs_dir knows this program", markup=False, highlight=False
            )
    if report["rejected_total"]:
        raise typer.Exit(1)
