"""Commands about the aggregator."""

import json
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gateway.cli.shared import DEFAULT_URL, AsJson, Limit, Url, ask, out, show, user
from gateway.schemas import operations as ops

leap = typer.Typer(no_args_is_help=True, help="The aggregator: what it has confirmed, uploads, dispatch, webhooks.")
nominations = typer.Typer(no_args_is_help=True, help="Nominations at the aggregator: followed, and suggested.")
connect = typer.Typer(no_args_is_help=True, help="Sign-ups of customers on the aggregator's page.")
webhook = typer.Typer(no_args_is_help=True, help="Where the aggregator posts dispatch.")
leap.add_typer(webhook, name="webhook")
leap.add_typer(nominations, name="nominations")
leap.add_typer(connect, name="connect")


@leap.callback()
def _leap() -> None:
    """The aggregator."""


@leap.command("status")
def leap_status(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show uploads (the last file, what is missing, what waits and why) and dispatch (what runs, is refused, is not
    known)."""
    status, dispatch = ask(url, ops.SHOW_LEAP), ask(url, ops.SHOW_LEAP_DISPATCH)
    if as_json:
        out.print_json(data=status | {"dispatch": dispatch})
        return
    for line in (*_lines(status), "", *_dispatch(dispatch)):
        out.print(line, markup=False, highlight=False)


@leap.command("catch-up")
def leap_catch_up(
    since: Annotated[
        str | None, typer.Option("--from", help="RFC 3339; without both ends, as the schedule does")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="RFC 3339")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Search the aggregator's dispatch now, and bring events to what it says."""
    body = json.dumps({"start": since, "end": to}).encode()
    out.print_json(data=ask(url, ops.LEAP_CATCH_UP, body=body))


@leap.command("sync")
def leap_sync(
    newest: Annotated[bool, typer.Option("--newest", help="show the newest read and ask nobody")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Read the aggregator's enrollments now and state what is new; show what contradicts our book, and what is to be
    done."""
    found = ask(url, ops.SHOW_LEAP_ENROLLMENTS) if newest else ask(url, ops.READ_LEAP_ENROLLMENTS, body=b"{}")
    if as_json:
        out.print_json(data=found)
        return
    counts = f"{found['meters']} meters, {found['rows']} enrollments, {found['changed']} new"
    if found["proposed"] or found["withdrawn"]:
        counts += f"; for what owners want {found['proposed']} rows proposed, {found['withdrawn']} taken back"
    text = f"read {found['read'] or 'never'}: {counts}"
    for line in (text, *([f"failing: {found['failing']}"] if found["failing"] else []), *found["conflicts"]):
        out.print(line, markup=False, highlight=False)
    show(found["actions"], of="required actions")


@nominations.command("list")
def nominations_list(
    state: Annotated[str | None, typer.Option(help="sent, accepted, changed, rejected, gone or unknown")] = None,
    read: Annotated[bool, typer.Option("--read", help="ask the aggregator first")] = False,
    offset: Annotated[int, typer.Option(min=0, help="the `next` of the page before")] = 0,
    limit: Limit = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List what became of suggested nominations, with what was sent and what the aggregator has."""
    if read:
        ask(url, ops.READ_NOMINATIONS, body=b"{}")
    query = {"offset": offset, "limit": limit} | ({"state": state} if state else {})
    found = ask(url, ops.LIST_NOMINATIONS, urlencode(query))
    if as_json:
        out.print_json(data=found)
        return
    counts = ", ".join(f"{count} {name}" for name, count in found["counts"].items() if count) or "none"
    failing = f"; it fails now: {found['failing']}" if found["failing"] else ""
    text = f"read {found['read'] or 'never'}: {counts}; {found['holding_total']} nominations hold{failing}"
    out.print(text, markup=False, highlight=False)
    show(found["suggestions"], of="suggestions")


@nominations.command("suggest")
def nominations_suggest(
    program: Annotated[str, typer.Argument(help="our program")],
    kw: Annotated[float, typer.Option(help="of the whole program, shared over its active meters")],
    start: Annotated[str, typer.Option("--from", help="first day, YYYY-MM-DD")],
    end: Annotated[str | None, typer.Option("--until", help="the day after the last one; none = no end")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Propose a power as rows of the outbox. They are sent with the leave of another person alone: `gateway outbox
    approve`."""
    body = json.dumps({"program": program, "kw": kw, "start_date": start, "end_date": end}).encode()
    out.print_json(data=ask(url, ops.SUGGEST_NOMINATION, f"by={user()}", body=body))


@connect.command("list")
def connect_list(
    after: Annotated[str, typer.Option(help="the `next` of the page before")] = "",
    limit: Limit = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List sign-ups of which something was heard: how far each is, and what somebody has to do."""
    found = ask(url, ops.LIST_SIGN_UPS, urlencode({"after": after, "limit": limit}))
    if as_json:
        out.print_json(data=found)
        return
    show([_sign_up(one) for one in found["sign_ups"]], of="sign-ups")


@connect.command("show")
def connect_show(
    ref: Annotated[str, typer.Argument(help="the customer's reference")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show a customer's link to the aggregator's sign-up page, and how far that is."""
    found = ask(url, ops.SHOW_SIGN_UP, id=ref)
    if as_json:
        out.print_json(data=found)
        return
    out.print(found["link"] or "no link: see leap.connect", markup=False, highlight=False, soft_wrap=True)
    show([_sign_up(found)], of="sign-ups")


def _sign_up(one: dict[str, Any]) -> dict[str, Any]:
    utilities = ", ".join(f"{each['utility']} {each['state']}" for each in one["authorizations"])
    return {
        "reference": one["reference"], "state": one["state"], "since": one["since"] or "", "utilities": utilities,
        "to do": "; ".join(one["required_actions"]),
    }  # fmt: skip


@webhook.command("verify")
def webhook_verify(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Ask the aggregator where it posts dispatch, and whether that is this gateway."""
    found = ask(url, ops.VERIFY_LEAP_WEBHOOKS)["webhooks"]
    show([one | {"headers": ", ".join(one["headers"])} for one in found], of="webhooks", as_json=as_json)


@webhook.command("register")
def webhook_register(
    level: Annotated[str, typer.Argument(help="meter or group")],
    replace: Annotated[str | None, typer.Option("--replace", help="the address that is registered now")] = None,
    really: Annotated[bool, typer.Option("--send", help="send it; without it this only shows")] = False,
    confirm: Annotated[int | None, typer.Option(min=0, help="the exact number of changes that go")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Propose that the aggregator posts dispatch to this gateway, as a row of the outbox. There is one address per
    account: another one that is registered already loses its dispatch, and must be named with --replace. Exits with 1
    if nothing was sent that was to be."""
    body = json.dumps({"level": level, "replace": replace, "send": really, "confirm": confirm}).encode()
    answer = ask(url, ops.REGISTER_LEAP_WEBHOOK, f"by={user()}", body=body)
    out.print_json(data=answer)
    refused = any(row["state"] in ("refused", "differs") for row in answer["entries"])
    if really and (answer["refusal"] or answer["error"] or refused):
        raise typer.Exit(1)


def _lines(status: dict[str, Any]) -> Iterable[str]:
    yield f"{status['state']}: " + (
        f"not confirmed by the aggregator: {', '.join(status['unconfirmed'])}"
        if status["unconfirmed"]
        else "all points"
    )
    for point, value in status["confirmed"].items():
        yield f"  confirmed {point}: {value}"
    if not status["sinks"]:
        yield "no sink of kind leap_csv is configured"
    for sink in status["sinks"]:
        yield ""
        yield f"{sink['sink']} over {sink['transport']}, schema {sink['upload_schema']}, {sink['meters']} meters"
        if sink["meters_failing"]:
            yield f"  the newest file of meters is not in force: {sink['meters_failing']}"
        yield f"  last file          {_file(sink['last_file'])}"
        yield f"  on its way         {_file(sink['on_its_way'])}"
        row = sink["last_accepted"]
        yield "  last accepted row  " + (
            f"{row['start']} {row['device']} revision {row['revision']}" if row else "none"
        )
        yield from _missing(sink)
        oldest = f", the oldest begins {sink['oldest']}" if sink["oldest"] else ""
        yield f"  waits              {sink['backlog']} records{oldest}"
        if sink["failing"]:
            stopped = "STOPPED, somebody must act" if sink["stopped"] else "will be tried again"
            detail = f" ({sink['detail']})" if sink["detail"] else ""
            yield f"  why                {sink['failing']}{detail}: {stopped}"
        for reason, count in sink["waiting"].items():
            yield f"  waits              {count} rows: {reason}"
        for reason, count in sink["parked"].items():
            yield f"  parked             {count} records: {reason}"


def _dispatch(told: dict[str, Any]) -> Iterable[str]:
    if not told.get("configured"):
        yield "no dispatch from the aggregator is configured (signals.leap)"
        return
    yield f"dispatch: {told['events']} events to run, the newest webhook came at {told['newest_webhook'] or 'no time'}"
    if told["search_configured"]:
        failing = f"; it fails now: {told['search_failing']}" if told["search_failing"] else ""
        yield f"  searched           {told['searched'] or 'never'}{failing}"
        yield f"  search hides       {told['hidden']} slots; {told['hints']} wait for its word"
    for name, reason in told["refused"].items():
        yield f"  REFUSED            {name}: {reason}"
    if told["unknown_meters"]:
        first = ", ".join(told["unknown_meters_first"])
        yield f"  UNKNOWN METERS     {told['unknown_meters']} without a known battery: {first}"
    for name in told["without_devices"]:
        yield f"  WITHOUT DEVICES    {name}"
    for name in told["unknown_programs"]:
        yield f"  unknown program    {name} (it runs)"
    if told["early"]:
        yield f"  early              {told['early']} events begin later than the gateway looks ahead"
    if told["bodies_waiting"] or told["bodies_set_aside"]:
        yield f"  bodies             {told['bodies_waiting']} wait, {told['bodies_set_aside']} were set aside"
    for bad in told["bad"]:
        yield f"  NOT READ           {bad['at']} {bad['place']}: {bad['problem']} {bad['event']}"


def _file(file: dict[str, Any] | None) -> str:
    if file is None:
        return "none"
    job = f", job {file['job']}" if file["job"] else ""
    return f"{file['name']}, {file['rows']} rows, {file['status']} at {file['at']}{job}"


def _missing(sink: dict[str, Any]) -> Iterable[str]:
    missing = sink["missing"]
    if missing is None:
        yield f"  missing there      not known: {sink['missing_unknown']}"
        return
    if not missing["entries"]:
        yield "  missing there      nothing"
    else:
        who = missing["oldest_device"] or f"meter {missing['oldest_meter']}"
        yield f"  missing there      {missing['entries']} entries, the oldest of {who} from {missing['oldest']}"
    yield f"  next deadline      {missing['next_deadline'] or 'none told'}"
