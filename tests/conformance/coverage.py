"""What a product consists of: a profile, a simulator and captured vectors. All three, or none."""

from collections.abc import Set
from pathlib import Path

VECTORS = Path(__file__).parents[1] / "vectors"


def disagreements(profiles: Set[str], faces: Set[str], vectors: Path) -> list[str]:
    """What is missing, one line each; empty = every product is covered whole. `vectors` holds a directory per product
    with at least one file."""
    captured = {path.name for path in vectors.iterdir() if path.is_dir()} if vectors.is_dir() else set()
    filled = {name for name in captured if any(path.is_file() for path in (vectors / name).iterdir())}
    kinds = {
        "a profile with points in device_profiles/": profiles,
        "a simulator in simulators/faces/catalogue.py": faces,
        "vectors in tests/vectors/": filled,
    }
    every = profiles | faces | captured
    return [f"{name}: no {what}" for name in sorted(every) for what, there in kinds.items() if name not in there]
