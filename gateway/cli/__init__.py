"""The command line. `run` is the daemon; the rest checks files, asks a device or talks REST to a running daemon.

Exit codes: 0 done, 1 the daemon, a device or some rows said no, 2 the input or the configuration is faulty.
"""

import typer

from gateway.cli.daemon import daemon
from gateway.cli.devices import devices
from gateway.cli.dispatch import dispatch
from gateway.cli.holds import holds
from gateway.cli.intervals import intervals
from gateway.cli.profiles import profiles
from gateway.cli.sinks import sinks
from gateway.cli.state import state

cli = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Battery fleet gateway.", pretty_exceptions_enable=False
)
cli.add_typer(daemon)
cli.add_typer(profiles, name="profiles")
cli.add_typer(devices, name="devices")
cli.add_typer(dispatch, name="dispatch")
cli.add_typer(holds, name="holds")
cli.add_typer(intervals, name="intervals")
cli.add_typer(sinks, name="sinks")
cli.add_typer(state, name="state")


def main() -> None:
    """Entry point of the command `gateway`."""
    cli()
