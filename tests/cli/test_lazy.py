"""The command line imports what a command needs, and nothing before."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gateway.cli import CommandLine, cli, main

HEAVY = ("aiohttp", "numpy", "pydantic", "gateway.app")
SCRIPT = f"""
import sys
from gateway.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
else:
    code = 0
print("LOADED", code, [name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "args",
    [("--version",), ("--help",), ("devices", "--help"), ("dispatch", "--help"), ("exclusions", "--help"),
     ("enrollments", "--help"), ("customers", "--help"), ("intervals", "--help"), ("sinks", "--help"),
     ("leap", "--help")],
)  # fmt: skip
def test_cli_help_and_version_load_none_of_the_gateway(args: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *args], capture_output=True, text=True, check=True, timeout=60
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "LOADED 0 []", done.stdout + done.stderr


def test_cli_version_is_that_of_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gateway", "--version"])
    main()
    assert capsys.readouterr().out.startswith("battery-fleet-gateway 0.")


@pytest.mark.parametrize("name", sorted(CommandLine.named))
def test_cli_list_of_commands_says_of_each_what_the_command_says_itself(name: str) -> None:
    place = CommandLine.named[name]
    found = CliRunner().invoke(cli, [name, "--help"], env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert found.exit_code == 0
    assert place.former or place.help in found.output
    assert ("deprecated" in found.output) == place.former


def test_cli_lists_every_command_that_is_not_former() -> None:
    found = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "300", "NO_COLOR": "1"}).output
    for name, place in CommandLine.named.items():
        assert (f" {name} " in found and place.help in found) is not place.former


def test_cli_command_that_does_not_exist_is_answered_with_the_one_that_may_be_meant() -> None:
    found = CliRunner().invoke(cli, ["valdate"])
    assert found.exit_code == 2
    assert "Did you mean 'validate'?" in found.output
