"""Homes with known physics: every scene has its own signs, so that a sign turned round cannot look right."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from simulators.faces.plant import Face, Plant
from tests.scenes.register_faces import NOON_S, make_plant

EVENING_S = 72_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A home at an hour. `battery` and `grid` are the signs of its powers (+ = discharge, + = import)."""

    name: str
    battery: int
    grid: int
    columns: dict[str, Any]

    def plant(self) -> Plant:
        return make_plant(**self.columns)


SCENES = (
    Scene(name="sunny", battery=-1, grid=-1, columns={"pv_peak_w": 14_000.0, "time_s": NOON_S}),
    Scene(
        name="evening", battery=1, grid=1, columns={"load_base_w": 7_000.0, "soc_start_pct": 43.0, "time_s": EVENING_S}
    ),
)
# by day, little sun: both directions of control can be told from what the battery would do by itself
STEERED = Scene(name="steered", battery=-1, grid=-1, columns={"pv_peak_w": 1_500.0, "time_s": NOON_S})


def truth(plant: Plant) -> dict[str, float]:
    """What the physics says, by canonical names; powers in W, + = discharge, + = import, AC + = out of the inverter."""
    return {
        "soc_pct": plant.soc_pct,
        "battery_w": plant.battery_w,
        "battery_ac_w": plant.battery_w,
        "grid_w": plant.grid_w,
        "grid_l1_w": plant.grid_w / 3,
        "pv_w": plant.pv_w,
        "load_w": plant.load_w,
        "ac_w": plant.pv_w + plant.battery_w,
    }


# what a product shows of its percents is on a scale of its own (the lowest 5 % are hidden)
SHOWN: dict[str, tuple[float, float]] = {"tesla-powerwall": (0.95, 5.0)}


def expected(face: Face, names: Iterable[str]) -> dict[str, Any]:
    """What a client has to say, to within the steps in which the product counts."""
    true = truth(face.plant)
    factor, offset = SHOWN.get(face.profile, (1.0, 0.0))
    true["soc_pct"] = true["soc_pct"] * factor + offset
    return {name: pytest.approx(true[name], abs=0.6 if name == "soc_pct" else 2.0) for name in names}
