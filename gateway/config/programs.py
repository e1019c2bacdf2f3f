"""Reads the former blocks `intervals.programs` and `control.programs` into the one block `programs`.

What was moved keeps its place in the file, for faults and warnings.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway import former_names
from gateway.config.faults import Loc

BLOCK = "programs"


@dataclass(slots=True)
class MovedPrograms:
    """A document whose programs stand in one block. `places`: where the file has what was moved, by where it is now.
    `faults`: what could not be moved. `contradicted`: by the place in the file of a value that was not moved, where the
    other value of the same key is. `former`: the blocks that were read, each with a warning."""

    document: Any
    places: dict[Loc, Loc] = field(default_factory=dict)
    faults: list[tuple[Loc, str]] = field(default_factory=list)
    contradicted: dict[Loc, Loc] = field(default_factory=dict)
    former: list[tuple[Loc, str]] = field(default_factory=list)

    def place(self, loc: Loc) -> Loc:
        """Where the file has the value at `loc` of the document."""
        return self.places.get(loc, loc)


def moved_programs(document: Any) -> MovedPrograms:
    """The document with every former block of programs moved, and nothing else changed."""
    moved = MovedPrograms(document)
    if not isinstance(document, dict):
        return moved
    given = document.get(BLOCK, {})
    programs = dict(given) if isinstance(given, dict) else {}
    for section, keys in former_names.PROGRAMS.items():
        block = document.get(section)
        if not isinstance(block, dict) or BLOCK not in block:
            continue
        renamed = "".join(f", {old} as {new}" for old, new in keys.items() if old != new)
        moved.former.append(((section, BLOCK), f"the next release knows this block only as {BLOCK}{renamed}"))
        moved.document = moved.document | {section: {name: value for name, value in block.items() if name != BLOCK}}
        for loc, value in _values(moved, (section, BLOCK), block[BLOCK]):
            _move(moved, programs, keys, loc, value)
    if programs and isinstance(given, dict):
        moved.document = moved.document | {BLOCK: programs}
    return moved


def _values(moved: MovedPrograms, at: Loc, block: Any) -> Iterator[tuple[Loc, Any]]:
    """Each key of each program in a former block, with its value."""
    if not isinstance(block, dict):
        moved.faults.append((at, "not a mapping of programs"))
        return
    for name, program in block.items():
        if isinstance(program, dict) and program:
            yield from (((*at, name, key), value) for key, value in program.items())
        else:
            moved.faults.append(((*at, name), "not a mapping with a value"))


def _move(moved: MovedPrograms, programs: dict[str, Any], keys: Mapping[str, str], loc: Loc, value: Any) -> None:
    """Put one value where it stands now, if it contradicts nothing there."""
    name, key = str(loc[-2]), str(loc[-1])
    if key not in keys:
        moved.faults.append((loc, f"unknown key; here stands only {', '.join(keys)}"))
        return
    program, new = programs.get(name, {}), (BLOCK, name, keys[key])
    if not isinstance(program, dict):
        return
    if keys[key] not in program:
        programs[name] = program | {keys[key]: value}
        moved.places[new] = loc
        moved.places.setdefault(new[:-1], loc[:-1])
    elif program[keys[key]] != value:
        moved.contradicted[loc] = new
