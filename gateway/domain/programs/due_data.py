"""What is missing of the data that a program wants by a deadline: intervals, at which sites, since when."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from gateway.domain.programs.site_day import BATTERY, GRID, SiteChannel, SiteDays
from gateway.domain.types import Ints

CHANNELS: Mapping[str, tuple[SiteChannel, ...]] = {"battery_ac": BATTERY, "site_ct": GRID}
"""What a program measures, by its point; the meter of a utility is not ours to complete."""
SOME = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DayGaps:
    """By site, how many intervals of a local day there should be, how many of them are missing, and when the first of
    these begins (UTC ms, where there is one)."""

    sites: tuple[str, ...]
    owed: Ints
    missing: Ints
    first_ms: Ints


_NONE: Ints = np.zeros(0, dtype=np.int64)
NO_GAPS = DayGaps(sites=(), owed=_NONE, missing=_NONE, first_ms=_NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueData:
    """A period's data, due at `due_ms`: of `owed` intervals of its days that are over `missing` are not known or not
    measured enough, at `sites` sites, of which `some` are named, since `since_ms` (None: nothing is missing).
    `waiting`: days that are over and may still get late data. All times in UTC ms."""

    program: str
    period: str
    from_ms: int
    until_ms: int
    due_ms: int
    owed: int
    missing: int
    sites: int
    some: tuple[str, ...]
    since_ms: int | None
    waiting: int


def day_gaps(days: SiteDays, channels: Sequence[SiteChannel], coverage_min_pct: float) -> DayGaps:
    """What of a day is owed and not complete."""
    lacking = days.owed & ~days.complete(channels, coverage_min_pct)
    first = np.argmax(lacking, axis=1)
    return DayGaps(
        sites=days.sites, owed=days.owed.sum(axis=1, dtype=np.int64), missing=lacking.sum(axis=1, dtype=np.int64),
        first_ms=days.from_ms + first.astype(np.int64) * days.frame.length_s * 1000,
    )  # fmt: skip


class GapSum:
    """Adds days up: what is owed and missing at the sites that count on each, and since when."""

    def __init__(self) -> None:
        self.owed = 0
        self.missing = 0
        self.since_ms: int | None = None
        self._by_site: dict[str, int] = {}

    def add(self, gaps: DayGaps, sites: Collection[str] | None) -> None:
        """Add a day; `sites`: those that count, None = all."""
        counted = np.array([sites is None or site in sites for site in gaps.sites], dtype=np.bool_)
        self.owed += int(gaps.owed[counted].sum())
        lacking = np.flatnonzero(counted & (gaps.missing > 0))
        if not len(lacking):
            return
        self.missing += int(gaps.missing[lacking].sum())
        first_ms = int(gaps.first_ms[lacking].min())
        self.since_ms = first_ms if self.since_ms is None else min(self.since_ms, first_ms)
        for at in lacking.tolist():
            site = gaps.sites[at]
            self._by_site[site] = self._by_site.get(site, 0) + int(gaps.missing[at])

    @property
    def sites(self) -> int:
        """How many sites lack something."""
        return len(self._by_site)

    def some(self) -> tuple[str, ...]:
        """Those that lack the most."""
        return tuple(sorted(self._by_site, key=lambda site: (-self._by_site[site], site))[:SOME])


def days_between(first: date, until: date) -> Iterable[date]:
    """The days from `first` until before `until`."""
    return (date.fromordinal(number) for number in range(first.toordinal(), until.toordinal()))
