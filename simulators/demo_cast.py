"""The homes of the demo with a part in the story: which they are, and what goes wrong with each."""

from dataclasses import dataclass, fields

import numpy as np

from simulators.faults import Fault, FaultKind
from simulators.firmware import FirmwareFleet
from simulators.homes import Homes

ABLE_W = 1_000.0
LOSES_GRID_S, STALE_S, REBOOTS_S = 12.0, 25.0, 35.0
"""Seconds of the event."""

TOLD = "one home hears nothing, one loses the grid, one stops reporting, one reboots, one owner raises the reserve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Homes by index, each with one part."""

    at_reserve: int
    raises_reserve: int
    stale: int
    deaf: int
    reboots: int
    islands: int

    @property
    def taken(self) -> list[int]:
        return [getattr(self, field.name) for field in fields(self)]


def choose(fleet: FirmwareFleet, homes: Homes, seed: int) -> Cast:
    """Homes that it makes sense for, drawn by chance; one of them sits at its reserve from the start."""
    batteries = fleet.devices.batteries
    able = np.flatnonzero((batteries.available_discharge_w(homes.reserve_pct) > ABLE_W) & ~fleet.devices.elsewhere)
    picks = [int(i) for i in np.random.default_rng(seed).permutation(able)]
    cast = Cast(**dict(zip((field.name for field in fields(Cast)), picks, strict=False)))
    batteries.reserve_pct[cast.at_reserve] = float(np.floor(batteries.true_soc_pct[cast.at_reserve]))
    return cast


def plant(cast: Cast, fleet: FirmwareFleet, *, begun_s: float, length_s: float) -> int:
    """Plant a fault in each; how many. `begun_s`: when the event begins, in seconds of the fleet."""
    soc = float(fleet.devices.batteries.true_soc_pct[cast.raises_reserve])
    raised = min(100.0, float(np.ceil(soc)) + 10)
    faults = (
        (cast.deaf, Fault(kind=FaultKind.DEAF, at_s=begun_s - 1, for_s=length_s + 30)),
        (cast.islands, Fault(kind=FaultKind.ISLAND, at_s=begun_s + LOSES_GRID_S, for_s=40)),
        (cast.stale, Fault(kind=FaultKind.STALE, at_s=begun_s + STALE_S, for_s=length_s - 30)),
        (cast.reboots, Fault(kind=FaultKind.REBOOT, at_s=begun_s + REBOOTS_S, for_s=6)),
        (cast.raises_reserve, Fault(kind=FaultKind.OWNER_RESERVE, at_s=begun_s + length_s / 2, value=raised)),
    )
    for index, fault in faults:
        fleet.inject(index, fault)
    return len(faults)
