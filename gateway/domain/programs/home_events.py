"""What homes were asked in the last events of a program and what they gave, as arrays: homes x events (x steps).

Power W and energy Wh, + = given to the home or the grid; SoC, reserve in percent of usable capacity; NaN = unknown.
"""

from dataclasses import dataclass, fields

import numpy as np

from gateway.domain.errors import InvalidInput
from gateway.domain.types import Bools, Floats, Ints

STEP_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeEvents:
    """Events, oldest first, of `homes`. Shapes: H homes, E events, S steps of `step_s`, U units of a home.

    `expected_w` (H, E): the mean power that a home in order could give over the event, by its rating and the energy
    above its reserve; 0 = not enrolled. `commanded_w` (H, E, S): what it was told to give; 0 = nothing, or charging.
    `delivered_wh` (H, E, S): measured at the battery. `acknowledged` (H, E): share of the commands that it took; NaN =
    none was sent. `coverage` (H, E): share of the event that was measured. `enrolled_days` (H, E): days in the program.
    `steps` (E): steps of each event. `opted_out` (H, E): the owner left it. `soc_pct`, `soc_end_pct` (H, E): at the
    start and at the end. `temperature_c` (H, E): of the battery. `firmware` (H, E): a number that changes with it.
    `capacity_wh` (H): usable. `unit_w` (H, U): rating of each battery. `neighbourhood` (H): homes of one weather have
    one number; -1 = unknown.
    """

    homes: tuple[str, ...]
    expected_w: Floats
    commanded_w: Floats
    delivered_wh: Floats
    acknowledged: Floats
    coverage: Floats
    enrolled_days: Floats
    steps: Ints
    opted_out: Bools
    soc_pct: Floats
    soc_end_pct: Floats
    temperature_c: Floats
    firmware: Ints
    capacity_wh: Floats
    unit_w: Floats
    neighbourhood: Ints
    step_s: int = STEP_S

    def __post_init__(self) -> None:
        """Raises InvalidInput where an array has another shape."""
        if self.delivered_wh.ndim != 3:
            raise InvalidInput(["delivered_wh: homes x events x steps"])
        homes, events, steps = self.delivered_wh.shape
        wanted: dict[str, tuple[int, ...]] = dict.fromkeys(("capacity_wh", "neighbourhood"), (homes,))
        wanted |= dict.fromkeys(("commanded_w", "delivered_wh"), (homes, events, steps))
        wanted |= {"steps": (events,), "unit_w": (homes, self.unit_w.shape[-1])}
        faults = [] if len(self.homes) == homes else [f"homes: {homes} of them"]
        for each in fields(self):
            value = getattr(self, each.name)
            shape = wanted.get(each.name, (homes, events))
            if isinstance(value, np.ndarray) and value.shape != shape:
                faults.append(f"{each.name}: the shape is {shape}, not {value.shape}")
        if faults:
            raise InvalidInput(faults)

    def until(self, events: int) -> "HomeEvents":
        """The first `events` of them."""
        homes = ("capacity_wh", "unit_w", "neighbourhood", "homes", "step_s")
        cut = {
            each.name: getattr(self, each.name)[..., :events]
            if each.name == "steps"
            else getattr(self, each.name)[:, :events]
            for each in fields(self)
            if each.name not in homes
        }
        return HomeEvents(**{name: getattr(self, name) for name in homes}, **cut)


def home_events(
    homes: tuple[str, ...],
    *,
    expected_w: Floats,
    commanded_w: Floats,
    delivered_wh: Floats,
    acknowledged: Floats,
    coverage: Floats | None = None,
    enrolled_days: Floats | None = None,
    steps: Ints | None = None,
    opted_out: Bools | None = None,
    soc_pct: Floats | None = None,
    soc_end_pct: Floats | None = None,
    temperature_c: Floats | None = None,
    firmware: Ints | None = None,
    capacity_wh: Floats | None = None,
    unit_w: Floats | None = None,
    neighbourhood: Ints | None = None,
    step_s: int = STEP_S,
) -> HomeEvents:
    """Events of which not everything is known: what is left out is unknown, or did not happen. Raises InvalidInput."""
    if delivered_wh.ndim != 3:
        raise InvalidInput(["delivered_wh: homes x events x steps"])
    shape = delivered_wh.shape
    unknown = np.full(shape[:2], np.nan)
    never = np.zeros(shape[:2], dtype=np.bool_)
    return HomeEvents(
        homes=homes, expected_w=expected_w, commanded_w=commanded_w, delivered_wh=delivered_wh,
        acknowledged=acknowledged, step_s=step_s,
        coverage=np.isfinite(delivered_wh).sum(axis=2) / max(shape[2], 1) if coverage is None else coverage,
        enrolled_days=np.full(shape[:2], np.inf) if enrolled_days is None else enrolled_days,
        steps=np.full(shape[1], shape[2], dtype=np.int64) if steps is None else steps,
        opted_out=never if opted_out is None else opted_out,
        soc_pct=unknown if soc_pct is None else soc_pct,
        soc_end_pct=unknown if soc_end_pct is None else soc_end_pct,
        temperature_c=unknown if temperature_c is None else temperature_c,
        firmware=never.astype(np.int64) if firmware is None else firmware,
        capacity_wh=np.full(shape[0], np.nan) if capacity_wh is None else capacity_wh,
        unit_w=np.full((shape[0], 1), np.nan) if unit_w is None else unit_w,
        neighbourhood=np.full(shape[0], -1, dtype=np.int64) if neighbourhood is None else neighbourhood,
    )  # fmt: skip
