"""Commands about device profiles; none of them writes to a device."""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from gateway.app.offline import capture_device, probe_device
from gateway.cli.shared import (
    DEFAULT_PROFILES,
    AsJson,
    err,
    fail,
    json_text,
    out,
    show,
    warn,
    write_new,
)
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.profiles.compile import Codec
from gateway.profiles.confirmed import Mistakes, confirmation_of, load_confirmed
from gateway.profiles.language.json_schema import profile_schema
from gateway.profiles.loader import load_profile, load_profiles
from gateway.profiles.scaffold import new_product
from gateway.profiles.summary import summary
from gateway.services.devices.probe import Probe

profiles = typer.Typer(no_args_is_help=True, help="Device profiles.")


@profiles.command("list")
def profiles_list(
    directory: Annotated[Path, typer.Option("--dir")] = DEFAULT_PROFILES, as_json: AsJson = False
) -> None:
    """List the installed profiles and what others confirm of them."""
    try:
        codecs = load_profiles(directory)
        confirmed = load_confirmed(directory)
    except InvalidInput as error:
        fail(error.problems, code=2)
    shown = ("profile", "control", "watchdog", "evidence", "confirmed", "unconfirmed", "digest")
    told = [
        asdict(summary(codec)) | _confirmations(confirmed.get(codec.name, {}), as_json) for codec in codecs.values()
    ]
    show(told if as_json else [{name: row[name] for name in shown} for row in told], of="profiles", as_json=as_json)


def _confirmations(quantities: Mapping[str, Mistakes], as_json: bool) -> dict[str, Any]:
    """Quantities that others confirm, and those that they do not; as JSON with whom and what goes unnoticed."""
    found = {name: confirmation_of(mistakes) for name, mistakes in quantities.items()}
    if as_json:
        return {"confirmed": {name: asdict(one) | {"confirmed": one.confirmed} for name, one in found.items()}}
    return {
        said: ", ".join(name for name, one in found.items() if one.confirmed == wanted)
        for said, wanted in (("confirmed", True), ("unconfirmed", False))
    }


@profiles.command("check")
def profiles_check(
    paths: Annotated[list[Path] | None, typer.Argument(help="profile files or directories")] = None,
    directory: Annotated[
        Path, typer.Option("--dir", help="directory to check when no path is given")
    ] = DEFAULT_PROFILES,
    as_json: AsJson = False,
) -> None:
    """Check profiles and print every fault with file, line and path."""
    problems: list[str] = []
    good: list[dict[str, Any]] = []
    for path in paths or [directory]:
        try:
            codecs = [*load_profiles(path).values()] if path.is_dir() else [load_profile(path)]
        except InvalidInput as error:
            problems += error.problems
        else:
            good += [asdict(summary(codec)) for codec in codecs]
            warn(warning for codec in codecs for warning in (*codec.former, *codec.doubts))
    if as_json:
        out.print_json(data={"good": good, "problems": problems})
    else:
        for row in good:
            text = "{profile}: valid, {points} points, {readings} readings, {sequences} sequences ({control})"
            out.print(text.format_map(row), markup=False, highlight=False)
    if problems:
        fail([] if as_json else problems, code=2)


@profiles.command("schema")
def profiles_schema(
    file: Annotated[Path | None, typer.Option("--out", help="file to write; standard output unless given")] = None,
) -> None:
    """Write the JSON Schema of a profile, for editors."""
    text = json_text(profile_schema())
    if file is None:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        fail([f"{file}: cannot be written: {error}"], code=2)


CHECKOUT = ("device_profiles", "simulators/faces", "tests/vectors")
"""Folders of a checkout that the files of a product are in."""


@profiles.command("new")
def profiles_new(
    name: Annotated[str, typer.Argument(help="maker-model, in small letters")],
    into: Annotated[
        Path | None, typer.Option(help="folder to write to; this folder, if it is a checkout, unless given")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the files a new product begins with: a profile that reads a battery over Modbus TCP, a simulator face of
    it, and a note about vectors. Nothing that is there is replaced."""
    try:
        files = new_product(name)
    except ValueError as error:
        fail([str(error)], code=2)
    folder = into or Path()
    if into is None and not all(Path(part).is_dir() for part in CHECKOUT):
        fail([f"this folder is no checkout (it lacks one of {', '.join(CHECKOUT)}); name a folder with --into"], code=2)
    there = [f"{folder / path}: is there already" for path in files if (folder / path).exists()]
    if there:
        fail(there, code=2)
    for path, text in files.items():
        write_new(folder / path, text)
    if as_json:
        out.print_json(data={"written": [str(folder / path) for path in files]})
        return
    for path in files:
        out.print(str(folder / path), markup=False, highlight=False)
    out.print("list the face in simulators/faces/catalogue.py; docs/adding-a-product.md has the next steps")


Installed = Annotated[str, typer.Argument(help="name of an installed profile")]
Address = Annotated[str, typer.Argument(help="modbus://host[:port], http://host, mqtt://host")]
Units = Annotated[list[str] | None, typer.Option("--unit", help="NAME=ID, a Modbus unit id other than the profile's")]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", help="NAME=VALUE, as the device's registration would give it")
]
Secret = Annotated[str, typer.Option("--secret", help="env:NAME or file:/path")]


@profiles.command("probe")
def profiles_probe(
    profile: Installed,
    address: Address,
    directory: Annotated[Path, typer.Option("--dir")] = DEFAULT_PROFILES,
    unit: Units = None,
    parameter: Parameters = None,
    username: Annotated[str, typer.Option()] = "",
    secret: Secret = "",
    as_json: AsJson = False,
) -> None:
    """Identify one device and read every point; nothing is written. Exits with 1 if it is another product."""
    with _refusals(address):
        found = asyncio.run(
            probe_device(
                _installed(profile, directory), address, units=_pairs(unit, "--unit"),
                parameters=_pairs(parameter, "--param"), username=username, secret=secret,
            )
        )  # fmt: skip
    if as_json:
        out.print_json(data=asdict(found), default=str)
    else:
        out.print(f"{found.profile}{' / ' + found.variant if found.variant else ''} at {address}", highlight=False)
        for name, model in found.models.items():
            if model.said:
                out.print(f"{name}: {model.said}", markup=False, highlight=False)
        show([{"point": p.name, "value": p.value, "unit": p.unit, "raw": p.raw} for p in found.points], of="points")
        show([{"reading": name, "value": value} for name, value in found.readings.items()], of="readings")
    _tell_misfits(found)


@profiles.command("capture")
def profiles_capture(
    profile: Installed,
    address: Address,
    file: Annotated[Path, typer.Option("--out", help="the vector file to write; one that is there is not replaced")],
    directory: Annotated[Path, typer.Option("--dir")] = DEFAULT_PROFILES,
    unit: Units = None,
    parameter: Parameters = None,
    username: Annotated[str, typer.Option()] = "",
    secret: Secret = "",
    source: Annotated[str, typer.Option(help="where the device is, as the vector says it")] = "",
    as_json: AsJson = False,
) -> None:
    """Read one device once into a vector file; nothing is written to the device. Serial numbers, addresses and secrets
    are masked. A product with SunSpec models and registers beside them gets a second file. Exits with 1 if it is
    another product; what it said is written all the same."""
    if file.exists():
        fail([f"{file}: is there already"], code=2)
    with _refusals(address):
        found, vectors = capture_device(
            _installed(profile, directory), address, units=_pairs(unit, "--unit"),
            parameters=_pairs(parameter, "--param"), username=username, secret=secret, source=source,
        )  # fmt: skip
    written: list[dict[str, Any]] = []
    for number, (form, vector) in enumerate(vectors.items()):
        place = file if number == 0 else file.with_stem(f"{file.stem}-{form}")
        write_new(place, yaml.safe_dump(vector, sort_keys=False, width=110, default_flow_style=None))
        written.append({"file": str(place), "form": form, "points": len(vector["points"])})
    if as_json:
        out.print_json(data={"written": written, "problems": found.problems})
    else:
        if not written:
            err.print(f"{address}: it said nothing that the profile reads", markup=False, highlight=False)
        for one in written:
            out.print(f"{one['file']}: {one['points']} points in {one['form']}", markup=False, highlight=False)
    _tell_misfits(found)


def _tell_misfits(found: Probe) -> None:
    """Say why a device is another product, and exits with 1 if it is, or could not be controlled."""
    for problem in found.problems:
        err.print(f"not this product: {problem}", markup=False, highlight=False)
    if found.notice:
        err.print(found.notice, markup=False, highlight=False)
    for need in found.unmet:
        err.print(f"not controllable now: {need}", markup=False, highlight=False)
    if found.problems:
        raise typer.Exit(1)


def _installed(profile: str, directory: Path) -> Codec:
    codec = load_profiles(directory).get(profile)
    if codec is None:
        raise InvalidInput([f"{profile}: no such profile in {directory}"])
    return codec


@contextmanager
def _refusals(address: str) -> Iterator[None]:
    """Exit as documented if the input has faults, or the device refuses or cannot be reached."""
    try:
        yield
    except InvalidInput as error:
        fail(error.problems, code=2)
    except GatewayError as error:
        fail([f"{address}: {error}"], code=1)


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in given or ()]
    bad = [name for name, equals, _ in pairs if not equals]
    if bad:
        raise InvalidInput([f"{option} {bad[0]}: write NAME=VALUE"])
    return {name: value for name, _, value in pairs}
