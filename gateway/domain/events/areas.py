"""Which homes an area covers. It is matched with territories, of which there are far fewer than homes, and only with
those that are new since it was matched last."""

from collections.abc import Mapping

import numpy as np

from gateway.domain.fleet.fleet import Fleet
from gateway.domain.registry.territory import Area
from gateway.domain.types import Bools, Ints, Slots

ProgramHomes = Mapping[str, Slots]
"""Who is in each program that an area names; the same array for as long as nothing changes."""

KNOWN_MAX = 1_200
"""More than there are areas with those that they replace."""

NOBODY: Slots = np.zeros(0, dtype=np.int32)


class AreaMatches:
    """Where areas are, by territory; at most `KNOWN_MAX` areas are known."""

    def __init__(self) -> None:
        self._inside: dict[Area, Bools] = {}
        self._counts: tuple[int, Ints] = (-1, np.zeros(0, dtype=np.int64))

    def inside(self, fleet: Fleet, area: Area) -> Bools:
        """Which territories an area covers, by number; the last element is of homes of which none is known."""
        territories = fleet.territories
        known = self._inside.get(area)
        if known is None or len(known) <= len(territories.known):
            before = np.zeros(0, dtype=np.bool_) if known is None else known[:-1]
            nowhere = np.array([bool(area) and not area.named()])
            known = np.concatenate([before, territories.matching(area, len(before)), nowhere])
            self._inside[area] = known
            if len(self._inside) > KNOWN_MAX:
                del self._inside[next(iter(self._inside))]
        return known

    def count(self, fleet: Fleet, area: Area) -> int:
        """How many registered devices are in an area by where they are."""
        if self._counts[0] != fleet.version or len(self._counts[1]) != len(fleet.territories.known):
            where = fleet.nameplate.territory[: fleet.n]
            counts = np.bincount(where + 1, minlength=len(fleet.territories.known) + 1)[1:]
            self._counts = fleet.version, counts
        return int(self._counts[1][self.inside(fleet, area)[:-1]].sum())

    def slots(self, fleet: Fleet, area: Area, programs: ProgramHomes) -> Slots:
        """The registered devices in an area, ascending."""
        n = fleet.n
        covered = self.inside(fleet, area)[fleet.nameplate.territory[:n]] & fleet.nameplate.registered[:n]
        if area.programs:
            covered &= in_programs(area, programs, n)
        return np.flatnonzero(covered).astype(np.int32)


def in_programs(area: Area, programs: ProgramHomes, n: int) -> Bools:
    """Which of the first `n` devices are in a program that an area names."""
    found: Bools = np.zeros(n, dtype=np.bool_)
    for name in area.programs:
        slots = programs.get(name, NOBODY)
        found[slots[slots < n]] = True
    return found


def unplaced(fleet: Fleet, area: Area) -> dict[str, int]:
    """How many registered devices lack what an area names of where homes are, by member: they are not in it."""
    where = fleet.nameplate.territory[: fleet.n][fleet.nameplate.registered[: fleet.n]]
    counts = {}
    for member in area.named():
        blank = np.array([not getattr(one, member) for one in fleet.territories.known] + [True], dtype=np.bool_)
        counts[member] = int(np.count_nonzero(blank[where]))
    return {member: count for member, count in counts.items() if count}
