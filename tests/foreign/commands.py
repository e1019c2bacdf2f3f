"""What others send to a product, as they published it, against what a profile sends for the same power.

A file of `published/<profile>/` says the battery's power in W (+ = discharge), and what was written by place: a
register's address, `METHOD path` or topic. The value of registers is a number, or the words where those or their order
were published too. `kind`: `used` = an owner says that it is what runs at home; `run` = a client library sends it which
a test of the simulated product runs; `said` = the text or code of others says so, and it was not run here. What is
only said has to agree, but confirms nothing.
"""

from pathlib import Path
from typing import Literal

import yaml

from gateway.domain.commands import CommandOp
from gateway.profiles.compiled.points import PointCodec
from gateway.profiles.compiled.sequences import PointWrite, Quantities, Request
from gateway.profiles.compiled.variant import PointProduct
from gateway.profiles.language.base import Source, StrictModel
from gateway.profiles.language.product import ProfileDocument
from tests.foreign.mutants import CONTROL, in_profile, mutants

PUBLISHED = Path(__file__).parent / "published"
FILES = sorted(PUBLISHED.glob("*/*.yaml"))
Number = int | float | str
Words = tuple[int, ...]


class PublishedCommand(StrictModel):
    """One command that somebody sent."""

    source: Source
    kind: Literal["used", "run", "said"]
    note: str = ""
    power_w: float
    writes: dict[str, Number | Words]


def command_of(path: Path) -> PublishedCommand:
    return PublishedCommand.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def sent(document: ProfileDocument, power_w: float) -> dict[str, tuple[Number, Words]]:
    """What the profile writes for this power, by place: the number and the words, which only registers have."""
    variant = PointProduct(document).base
    given = Quantities(setpoint_w=power_w, lease_s=60.0, grid_target_w=-power_w, inverter_target_w=power_w)
    steps = variant.sequence(CommandOp.SETPOINT, power_w)
    requests = [action for action in variant.actions(steps, given, {}, {}) if isinstance(action, Request)]
    return dict(_placed(variant.codecs[write.point], write) for request in requests for write in request.writes)


def _placed(codec: PointCodec, write: PointWrite) -> tuple[str, tuple[Number, Words]]:
    point = codec.point
    if point.address is not None and isinstance(write.raw, tuple):
        return str(point.address), (_number(codec, write.raw), write.raw)
    assert point.write is not None
    assert isinstance(write.raw, int | float | str)
    if point.write.path is not None:
        return f"{point.write.method} {point.write.path}", (write.raw, ())
    return str(point.write.topic), (write.raw, ())


def _number(codec: PointCodec, words: tuple[int, ...]) -> int:
    """The number that the words are in the order which the profile takes them to have."""
    ordered = words if (codec.point.word_order or "big") == "big" else words[::-1]
    number = 0
    for word in ordered:
        number = number << 16 | word
    return number


def contradicts(document: ProfileDocument, published: PublishedCommand) -> bool:
    """Whether the profile sends something else to a place that was written, or nothing."""
    found = sent(document, published.power_w)
    return any(value not in found.get(place, ()) for place, value in published.writes.items())


def found_by_commands(document: ProfileDocument) -> dict[tuple[str, str], list[str]]:
    """By mistake in its control, the published commands that the profile with the mistake contradicts."""
    given = {path.stem: command_of(path) for path in FILES if path.parent.name == document.profile}
    commands = {name: one for name, one in given.items() if one.kind != "said"}
    found: dict[tuple[str, str], list[str]] = {}
    for mutant in mutants(document, CONTROL):
        wrong = in_profile(document, mutant)
        found[CONTROL, mutant.name] = [name for name, one in commands.items() if contradicts(wrong, one)]
    return found
