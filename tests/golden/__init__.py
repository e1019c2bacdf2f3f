"""Golden files: what the gateway shows and stores, as text, so that a change of it is a visible change of a file.

`python -m tests.golden` compares, `python -m tests.golden --write` rewrites every file (both take pytest's arguments).
A difference that nobody meant is a fault; one that somebody meant is committed with its reason. What differs between
runs or machines (times, ports, versions, measured durations) is not in the files: see `masks`.
"""

import difflib
import os
from pathlib import Path

FILES = Path(__file__).parent / "files"
WRITE = "GATEWAY_GOLDEN_WRITE"


def golden(name: str, text: str) -> None:
    """Compare `text` with the file of this name, or make it that file."""
    path, text = FILES / name, text.rstrip("\n") + "\n"
    if os.environ.get(WRITE):
        path.write_text(text, encoding="utf-8")
        return
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    told = difflib.unified_diff(known.splitlines(), text.splitlines(), str(path), "as it is now", lineterm="", n=1)
    assert known == text, "\n".join(["python -m tests.golden --write, if this was meant:", *list(told)[:200]])
