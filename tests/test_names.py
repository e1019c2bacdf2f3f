"""A public class name stands once under `gateway/`, former names stand in one module, and no module is long."""

import ast
from collections import defaultdict
from pathlib import Path

from gateway.former_names import CHECKPOINT_COLUMNS, COMMANDS, CONFIGURATION, PATHS, PROFILE, SCHEMAS

GATEWAY = Path(__file__).parents[1] / "gateway"
LINES_MAX = 450
FORMER = {*CHECKPOINT_COLUMNS.values(), *PATHS.values(), *SCHEMAS.values(), *PROFILE.values()}
FORMER_AT_THE_DOORS = {*COMMANDS.values(), *CONFIGURATION.values()}
"""Words that still mean something else in a stored file or inside the gateway."""
DOORS = {"api", "app", "cli", "config"}


def test_no_module_is_longer_than_can_be_read_in_one_go() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in GATEWAY.rglob("*.py")}
    long = {str(path.relative_to(GATEWAY)): lines for path, lines in lengths.items() if lines > LINES_MAX}
    assert long == {}


def test_public_class_names_are_unique() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(GATEWAY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(GATEWAY)))
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_former_public_names_stand_in_one_module_alone() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(GATEWAY.rglob("*.py")):
        place = path.relative_to(GATEWAY)
        words = FORMER | (FORMER_AT_THE_DOORS if place.parts[0] in DOORS else set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in words:
                found[str(place)].add(str(node.value))
    assert set(found) == {"former_names.py"}
    assert found["former_names.py"] == FORMER
