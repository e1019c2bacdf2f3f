"""One word has one meaning: no public class stands twice under `gateway/`, and former names stand in one module."""

import ast
from collections import defaultdict
from pathlib import Path

from gateway.former_names import CHECKPOINT_COLUMNS, COMMANDS, CONFIGURATION, PATHS, PROFILE, SCHEMAS

GATEWAY = Path(__file__).parents[1] / "gateway"
FORMER = {*CHECKPOINT_COLUMNS.values(), *PATHS.values(), *SCHEMAS.values(), *PROFILE.values()}
FORMER_AT_THE_DOORS = {*COMMANDS.values(), *CONFIGURATION.values()}
"""Words that still mean something else in a stored file or inside the gateway."""
DOORS = {"api", "app", "cli", "config"}


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
