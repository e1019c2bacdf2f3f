"""One word has one meaning: no public class stands twice under `gateway/`."""

import ast
from collections import defaultdict
from pathlib import Path

GATEWAY = Path(__file__).parents[1] / "gateway"


def test_public_class_names_are_unique() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(GATEWAY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(GATEWAY)))
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
