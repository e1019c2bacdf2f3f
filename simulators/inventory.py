"""The inventory that enrolls simulated homes at a gateway: a CSV file, and the secrets it refers to."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from simulators.homes import Floats, Homes, inventory_rows
from simulators.polled import PolledHomes

PROFILES = Path(__file__).parents[1] / "device_profiles"
CONNECTED = ("address", "parameters", "username", "secret")


def write_inventory(path: Path, homes: Homes, reserve_pct: Floats, polled: PolledHomes) -> None:
    """Write the homes as a CSV file; polled ones with what it takes to reach them."""
    rows = inventory_rows(homes)
    levels = _topic_levels()
    for i, row in enumerate(rows):
        row["reserve_pct"] = f"{reserve_pct[i]:g}"
        row |= dict.fromkeys(CONNECTED, "") | {"experimental": "false"}
        if i in polled.faces:
            row |= polled.inventory(i, levels)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_environment(path: Path, variables: Mapping[str, str]) -> None:
    """Write the environment variables that the inventory refers to as `NAME=value`, readable by their owner only."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in variables.items())


def periods_s(count: int, polled: PolledHomes, *, otherwise_s: float) -> Floats:
    """The period of each home's live readings, s: of polled ones as their profile declares it."""
    out = np.full(count, otherwise_s)
    for index, face in polled.faces.items():
        profile = yaml.safe_load((PROFILES / f"{face.profile}.yaml").read_text(encoding="utf-8"))
        out[index] = profile["polling"]["live_s"]
    return out


def _topic_levels() -> dict[str, list[str]]:
    """Topic levels that each profile wants enrollment to give."""
    out: dict[str, list[str]] = {}
    for path in PROFILES.glob("*.yaml"):
        section = yaml.safe_load(path.read_text(encoding="utf-8")).get("mqtt") or {}
        out[path.stem] = list(section.get("variables", ()))
    return out
