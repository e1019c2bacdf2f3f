"""The command line. `run` is the daemon; other commands check files, ask a device or talk REST to a running daemon.

Exit codes: 0 done; 1 the daemon or a device refused, cannot be reached, or took only a part; 2 the input or the
configuration has faults, also of a command that only checks them; 70 the gateway is broken.
"""

import sys

import typer

from gateway import __version__, former_names
from gateway.cli.lazy import LazyGroup, Named


class CommandLine(LazyGroup):
    """Every command and group, by name."""

    named = {
        "run": Named(
            module="gateway.cli.daemon", group="daemon", command="run", help="Run the gateway until SIGTERM or SIGINT."
        ),
        "resume": Named(
            module="gateway.cli.daemon", group="daemon", command="resume",
            help="Let the next start run events again, after the gateway has come up release-only; then restart it.",
        ),
        "validate": Named(
            module="gateway.cli.daemon", group="daemon", command="validate",
            help="Check a configuration and the files that it names, and print every fault.",
        ),
        "schema": Named(
            module="gateway.cli.daemon", group="daemon", command="schema",
            help="Write (or check) the OpenAPI and AsyncAPI documents and the JSON Schemas of files.",
        ),
        "profiles": Named(module="gateway.cli.profiles", group="profiles", help="Device profiles."),
        "programs": Named(module="gateway.cli.programs", group="programs", help="Rules of grid programs."),
        "prices": Named(
            module="gateway.cli.series", group="prices", help="Prices of local hours by program and area."
        ),
        "meters": Named(
            module="gateway.cli.meters", group="meters",
            help="Readings of utilities' meters, and how homes' own ones compare.",
        ),
        "calendar": Named(module="gateway.cli.series", group="calendar", help="Official event hours of programs."),
        "devices": Named(module="gateway.cli.devices", group="devices", help="Registered devices."),
        "dispatch": Named(module="gateway.cli.dispatch", group="dispatch", help="Dispatch events."),
        "exclusions": Named(
            module="gateway.cli.exclusions", group="exclusions",
            help="Devices kept out of dispatch: opt-outs, storms, territories.",
        ),
        former_names.COMMANDS["exclusions"]: Named(
            module="gateway.cli.exclusions", group="formerly", help="Former name of `exclusions`.", former=True
        ),
        "enrollments": Named(
            module="gateway.cli.enrollments", group="enrollments",
            help="Enrollments in programs: who takes part, and why not.",
        ),
        "deadlines": Named(
            module="gateway.cli.enrollments", group="due", command="deadlines",
            help="What has to be done by when, in each program's local time.",
        ),
        "customers": Named(
            module="gateway.cli.enrollments", group="customers",
            help="Customers by reference, their consents and what has to be done.",
        ),
        "intervals": Named(
            module="gateway.cli.intervals", group="intervals", help="Interval energy: list, check and export it."
        ),
        "sinks": Named(
            module="gateway.cli.sinks", group="sinks",
            help="Receivers of interval records: their progress, what they refused, sending again.",
        ),
        "leap": Named(
            module="gateway.cli.leap", group="leap",
            help="The aggregator: what it has confirmed, uploads, dispatch, webhooks.",
        ),
        "outbox": Named(
            module="gateway.cli.outbox", group="outbox",
            help="Changes at the aggregator: proposed, approved, sent, read back.",
        ),
        "homes": Named(
            module="gateway.cli.homes", group="homes", help="Homes that underperform, and what each did on a day."
        ),
        "webhooks": Named(
            module="gateway.cli.webhooks", group="webhooks",
            help="Peers that send events by webhook, and their messages.",
        ),
        "audit": Named(
            module="gateway.cli.audit", group="audit",
            help="What was changed, when, by whom and through which door.",
        ),
        "access": Named(module="gateway.cli.access", group="access", help="Who may ask the gateway what."),
        "state": Named(
            module="gateway.cli.state", group="state", help="The whole state directory, for backups and moves."
        ),
    }  # fmt: skip


cli = typer.Typer(cls=CommandLine, no_args_is_help=True, pretty_exceptions_enable=False)


@cli.callback(
    epilog="`gateway --version` prints the version. Exit codes: 0 done; 1 the gateway or a device refused, cannot be "
    "reached, or took only a part; 2 the input or the configuration has faults."
)
def _gateway() -> None:
    """Battery fleet gateway: dispatches home batteries and sends their interval energy upstream."""


def main() -> None:
    """Entry point of the command `gateway`."""
    # not an option of the group: the library would import pydantic to read it, whatever the command
    if sys.argv[1:] == ["--version"]:
        print(f"battery-fleet-gateway {__version__}")
        return
    cli()
