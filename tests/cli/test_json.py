"""Every command that shows something prints it as JSON on `--json`; progress never stands in what is printed."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup

from gateway.cli import CommandLine
from tests.cli.test_cli import HEADER, PROFILES, Script, config, daemon, run
from tests.programs.test_shipped import HOURS

__all__ = ["daemon"]

PROGRAMS = PROFILES.parent / "config" / "programs"
WEBHOOKS = PROFILES.parent / "config" / "webhooks"

ANSWER: dict[str, Any] = {
    "devices": [], "total": 0, "next": None, "messages": 0, "quarantined": {}, "frozen": [], "events": [],
    "stopped": False, "groups": [], "exclusions": [], "entries": [], "intervals": [], "day": "2026-11-01",
    "sinks": [], "missing": [], "state": "confirmed", "unconfirmed": [], "confirmed": {}, "rows": 0, "enrolled": 0,
    "rejected": [], "rejected_total": 0, "unknown_programs": [],
    "unverified": [], "notes": [], "departures": [], "topics": [], "connections": [],
    "placements": [], "device": "a", "gone": True, "waits_for": None, "unchained": 0, "head": None, "broken": None,
    "enrollments": [], "customers": [], "program": "p", "version": "one", "start": "", "end": "", "revision": 1,
    "estimate": False, "because": [], "figures": [], "rests_on_unverified": [],
    "would_send": 0, "waiting": 0, "refusal": None, "error": None, "dry_run": True,
    "consents": [], "webhooks": [], "memberships": [], "preferences": [], "deadlines": [], "changes": [],
    "batch": "b", "sha256": "",
    "holdings": [], "payees": [], "required_actions": [],
    "batteries": [],
    "changed": 0, "unchanged": 0, "personal": 0, "customer": "c", "had": True,
}  # fmt: skip
"""What a gateway without anything answers, whatever it is asked."""

SPAN = ("--from", "2026-11-01T00:00:00Z", "--to", "2026-11-02T00:00:00Z")
SERIES = ("--program", "dsgs-option3", "--config", "{config}")
SHOWING: dict[str, tuple[str, ...]] = {
    "access new": ("room", "--scope", "read"), "access check": ("{access}",),
    "audit list": (), "audit verify": (), "devices list": (), "devices show": ("a",), "devices unregistered": (),
    "devices departures": (), "devices raw": (), "devices connections": ("a",), "devices remove": ("a",),
    "devices quarantine": (), "devices import": ("{inventory}",), "dispatch list": (), "dispatch show": ("e",),
    "dispatch availability": (), "exclusions list": (),
    "exclusions import": ("{inventory}",), "intervals list": SPAN, "intervals completeness": (),
    "intervals export": ("{out}", *SPAN), "leap status": (), "leap sync": (), "leap webhook verify": (),
    "leap nominations list": (), "leap connect list": (), "leap connect show": ("c",),
    "sinks list": (), "sinks missing": ("s", *SPAN),
    "enrollments list": (), "enrollments show": ("a",), "enrollments rates": ("a",),
    "enrollments participation": ("p",),
    "enrollments eligible": ("p",), "deadlines": (), "enrollments changes": ("b",),
    "enrollments import": ("{inventory}",),
    "customers list": (), "customers show": ("c",), "customers import": ("{inventory}",),
    "customers erase": ("c", "--yes"), "customers consents": (), "customers import-consents": ("{inventory}",),
    "profiles list": ("--dir", str(PROFILES)), "profiles check": ("--dir", str(PROFILES)),
    "programs list": ("--dir", str(PROGRAMS)), "programs check": ("--dir", str(PROGRAMS)),
    "programs show": ("ra-leap", "--dir", str(PROGRAMS)),
    "programs forecast": ("p",),
    "programs price": (
        "--program", "dsgs-option3", "--on", "2025-05-31", "--hours", str(HOURS), "--net-discharge-kw", "1",
        "--no-baseline", "--dir", str(PROGRAMS),
    ),
    "programs export": ("{out}", "--config", "{config}", "--from", "2026-07-01", "--to", "2026-07-02"),
    "meters import": ("{usage}", "--config", "{config}", "--source", "s"), "meters list": ("--config", "{config}"),
    "programs performance": ("p",), "programs event": ("e",),
    "prices list": (*SERIES, "--area", "a"), "prices gaps": SERIES, "prices areas": SERIES,
    "prices import": (str(HOURS), *SERIES, "--area", "a", "--source", "s"),
    "calendar list": (*SERIES, "--area", "a"), "calendar diff": SERIES,
    "calendar import": (str(HOURS), *SERIES, "--area", "a", "--source", "s", "--announced-by", "n"),
    "profiles new": ("example-one", "--into", "{out}"), "validate": ("--config", "{config}"),
    "outbox list": (), "outbox propose": ("meter", "{dispatch}"), "outbox approve": ("1",), "outbox withdraw": ("1",),
    "outbox send": ("meter",),
    "homes cases": (), "homes explain": ("a", "--on", "2026-11-01"),
    "homes open": ("a", "late"), "homes assign": ("1", "ann"), "homes snooze": ("1",),
    "homes close": ("1", "--because", "mended"),
    "webhooks list": (), "webhooks messages": ("w",), "webhooks check": ("--dir", str(WEBHOOKS)),
    "webhooks try": ("voltus", "{dispatch}", "--dir", str(WEBHOOKS)),
    "state export": ("--config", "{config}", "--out", "{out}"),
    "state import": ("--config", "{config}", "--in", "{archive}", "--replace"),
}  # fmt: skip
"""Commands that list, show or check, or say what they did, each with what it needs."""

DEVICES = {"profiles probe", "profiles capture"}
"""Commands that show what a device answers; `tests/services/devices` has some."""

DOING = {
    "run", "resume", "schema", "profiles schema", "devices trust", "devices abandon", "devices discard",
    "dispatch send",
    "dispatch cancel", "dispatch lift", "dispatch stop-all", "exclusions set", "exclusions lift",
    "exclusions preview", "exclusions territory",
    "sinks resend", "sinks retry", "leap catch-up", "leap webhook register", "leap nominations suggest",
}  # fmt: skip
"""Commands that do something; what a gateway answers them is printed as it is, which is JSON."""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that is not hidden, by the words that call it."""
    for name, place in CommandLine.named.items():
        if place.former:
            continue
        found = place.load(name)
        if isinstance(found, TyperGroup):
            yield from _within(name, found)
        else:
            yield name, found


def _within(name: str, group: TyperGroup) -> Iterator[tuple[str, Any]]:
    for each, one in group.commands.items():
        if isinstance(one, TyperGroup):
            yield from _within(f"{name} {each}", one)
        elif not one.hidden:
            yield f"{name} {each}", one


def has_json(command: Any) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """What commands read and write."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "a").write_bytes(b"x")
    inventory, archive = tmp_path / "fleet.csv", tmp_path / "before.tar.gz"
    known = tmp_path / "access.yaml"
    known.write_text("callers: {a: {scopes: [read], certificate: a}}", encoding="utf-8")
    inventory.write_text(HEADER, encoding="utf-8")
    dispatch = tmp_path / "dispatch.json"
    dispatch.write_bytes(b'{"dispatches": [{"id": 1, "modification_number": 0, "authorized": false}]}')
    usage = tmp_path / "usage.csv"
    usage.write_text("meter,start,usage_wh\nm,2026-07-01T00:00:00Z,5\n", encoding="utf-8")
    settings = config(tmp_path, state_dir=str(tmp_path / "state"))
    assert run("state", "export", "--config", settings, "--out", str(archive)).exit_code == 0
    return {
        "config": settings, "inventory": str(inventory), "archive": str(archive), "out": str(tmp_path / "out"),
        "access": str(known), "dispatch": str(dispatch), "usage": str(usage),
    }  # fmt: skip


def test_every_command_shows_something_or_does_something() -> None:
    """A new command is added to one of these lists."""
    assert sorted([*SHOWING, *DEVICES, *DOING]) == sorted(name for name, _ in commands())


@pytest.mark.parametrize("name", [*SHOWING, *sorted(DEVICES)])
def test_command_that_shows_something_has_json(name: str) -> None:
    assert has_json(dict(commands())[name])


@pytest.mark.parametrize("name", SHOWING)
def test_command_prints_json_that_parses_and_nothing_else(name: str, daemon: Script, places: dict[str, str]) -> None:
    daemon.says(ANSWER)
    command = dict(commands())[name]
    url = ("--url", daemon.url) if any("--url" in parameter.opts for parameter in command.params) else ()
    told = run(*name.split(), *(one.format_map(places) for one in SHOWING[name]), *url, "--json")
    assert (told.exit_code, told.stderr) == (0, "")
    json.loads(told.stdout)


def test_validate_json_names_every_fault_and_exits_with_2(tmp_path: Path) -> None:
    told = run("validate", "--config", config(tmp_path, http={"port": -1}, surplus=1), "--json")
    assert (told.exit_code, told.stderr) == (2, "")
    found = json.loads(told.stdout)
    assert (found["valid"], len(found["problems"]), found["warnings"]) == (False, 2, [])


def test_exit_codes_are_told_by_the_help() -> None:
    assert "Exit codes: 0 done;" in " ".join(run("--help").stdout.split())


def on_terminal(*args: str) -> tuple[str, str]:
    """What the command prints into a pipe, and on the terminal that its errors go to."""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *args], stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=120,
        env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65_536):
            seen += part
    except OSError:
        # the terminal has no other end any more
        pass
    finally:
        os.close(ours)
    return done.stdout.decode(), seen.decode()


def test_progress_is_shown_on_a_terminal_and_does_not_stand_in_a_pipe(places: dict[str, str]) -> None:
    printed, seen = on_terminal("state", "export", "--config", places["config"], "--out", places["out"], "--json")
    assert json.loads(printed)["files"] == 1
    assert "writing the archive" in seen


def test_progress_is_silent_where_nobody_looks(places: dict[str, str]) -> None:
    told = run("devices", "import", places["inventory"], "--offline", "--config", places["config"])
    assert (told.exit_code, told.stderr) == (0, "")


def test_exit_code_is_2_for_input_with_faults_and_1_where_nobody_answers(places: dict[str, str]) -> None:
    Path(places["inventory"]).write_bytes(b"\xff")
    assert run("devices", "import", places["inventory"], "--offline", "--config", places["config"]).exit_code == 2
    assert run("devices", "list", "--url", "http://127.0.0.1:1").exit_code == 1
