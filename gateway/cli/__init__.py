"""The command line. `run` is the daemon; other commands check files, ask a device or talk REST to a running daemon.

Exit codes: 0 done, 1 the daemon, a device or some rows refused, 2 the input or the configuration has faults.
"""

import typer

from gateway import former_names
from gateway.cli.daemon import daemon
from gateway.cli.devices import devices
from gateway.cli.dispatch import dispatch
from gateway.cli.exclusions import exclusions, formerly
from gateway.cli.intervals import intervals
from gateway.cli.leap import leap
from gateway.cli.profiles import profiles
from gateway.cli.sinks import sinks
from gateway.cli.state import state

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Battery fleet gateway: dispatches home batteries and sends their interval energy upstream.",
    pretty_exceptions_enable=False,
)
cli.add_typer(daemon)
cli.add_typer(profiles, name="profiles")
cli.add_typer(devices, name="devices")
cli.add_typer(dispatch, name="dispatch")
cli.add_typer(exclusions, name="exclusions")
cli.add_typer(
    formerly,
    name=former_names.COMMANDS["exclusions"],
    help="Former name of `exclusions`.",
    hidden=True,
    deprecated=True,
)
cli.add_typer(intervals, name="intervals")
cli.add_typer(sinks, name="sinks")
cli.add_typer(leap, name="leap")
cli.add_typer(state, name="state")


def main() -> None:
    """Entry point of the command `gateway`."""
    cli()
