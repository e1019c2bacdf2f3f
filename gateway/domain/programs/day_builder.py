"""Makes the days of sites out of interval records and of who was at which site when.

A site's energy is the sum of its devices': known where each of them is. What its grid reading says is that of its first
device (by id) that has one, each record by its own sign. Records are taken to the mWh and summed exactly; what is left
of a Wh goes to the next interval within the same hour (UTC), so that an hour's energy is rounded once, half up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from gateway.domain.intervals.columns import IntervalColumns
from gateway.domain.programs.site_day import (
    BATTERY,
    GRID,
    RUN,
    DayFrame,
    DeviceBasis,
    Energies,
    SiteChannel,
    SiteDays,
    SiteQuality,
    write_basis,
)
from gateway.domain.registry.placement import Placement
from gateway.domain.types import Bools, Floats, Ints

HOUR_S = 3600
MWH = 1000
GRID_PART, GRID_W = 0.1, 50.0
"""Two readings of one grid differ by more than this: a part of the larger one, and watts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStay:
    """A device at a site, from until (UTC ms)."""

    site: str
    device: str
    from_ms: int
    until_ms: int


def stays_within(placements: Iterable[Placement], from_ms: int, until_ms: int) -> list[SiteStay]:
    """Who was at which site within a stretch of time, cut to it, by site, device and time. Where a home's meter or
    territory alone changed the device stayed."""
    cut = sorted(
        (one.site, one.device, max(from_ms, one.valid.from_ms or from_ms),
         until_ms if one.valid.until_ms is None else min(until_ms, one.valid.until_ms))
        for one in placements
    )  # fmt: skip
    found: list[SiteStay] = []
    for site, device, begin, end in cut:
        if begin >= end:
            continue
        last = found[-1] if found else None
        if last is not None and (last.site, last.device, last.until_ms) == (site, device, begin):
            found[-1] = SiteStay(site=site, device=device, from_ms=last.from_ms, until_ms=end)
        else:
            found.append(SiteStay(site=site, device=device, from_ms=begin, until_ms=end))
    return found


class DayBuilder:
    """Takes the records of one local day in any number of pages, the newest revision of each; `stays` are sorted as
    `stays_within` does."""

    def __init__(self, frame: DayFrame, day: date, stays: Sequence[SiteStay]) -> None:
        self._frame, self._day = frame, day
        self._from_ms, self._until_ms = frame.span(day)
        self._n = (self._until_ms - self._from_ms) // (frame.length_s * 1000)
        self._stays = stays
        self._devices = sorted({stay.device for stay in stays})
        number = {device: at for at, device in enumerate(self._devices)}
        self._number = number
        size = (len(stays), self._n)
        # which stay a record is of: the last one of its device that has begun
        of, begins = np.array([number[s.device] for s in stays], dtype=np.int64), self._at(s.from_ms for s in stays)
        self._ends = self._at(stay.until_ms for stay in stays)
        self._begins = begins
        self._order = np.lexsort((begins, of))
        self._of = of
        self._keys = self._key(of[self._order], begins[self._order])
        self._mwh = np.zeros((len(SiteChannel), *size), dtype=np.int64)
        self._known_s = np.zeros((len(SiteChannel), *size), dtype=np.int32)
        self._covered = np.zeros(size)
        self._quality = np.zeros(size, dtype=np.int16)
        self._rest: list[np.ndarray] = []

    def add(self, page: IntervalColumns) -> None:
        """Take records; those of other days and of devices that were nowhere then are left out."""
        records = page.records
        number = np.array([self._number.get(device, -1) for device in page.devices], dtype=np.int64)[records.slots]
        inside = (number >= 0) & (records.start_ms >= self._from_ms) & (records.start_ms < self._until_ms)
        records, number = records.rows(inside), number[inside]
        start = records.start_ms - self._from_ms
        found = np.searchsorted(self._keys, self._key(number, start), side="right") - 1
        at = self._order[np.maximum(found, 0)] if len(self._order) else found
        length_ms = records.length_s * 1000
        whole = found >= 0
        whole[whole] = (
            (self._of[at[whole]] == number[whole]) & (start[whole] + length_ms[whole] <= self._ends[at[whole]])
        )  # fmt: skip
        records, at, start = records.rows(whole), at[whole], start[whole]
        frame_s = self._frame.length_s
        fits = (frame_s % records.length_s == 0) & (records.length_s <= frame_s)
        self._mark_coarse(at[~fits], start[~fits], records.length_s[~fits])
        records, at, start = records.rows(fits), at[fits], start[fits]
        place = start // (frame_s * 1000)
        grid_wh = records.grid_w_mean * records.length_s / HOUR_S
        for channel, wh in (
            (SiteChannel.IMPORT, np.maximum(grid_wh, 0.0)), (SiteChannel.EXPORT, np.maximum(-grid_wh, 0.0)),
            (SiteChannel.CHARGE, records.charge_wh), (SiteChannel.DISCHARGE, records.discharge_wh),
        ):  # fmt: skip
            known = ~np.isnan(wh)
            np.add.at(self._mwh[channel], (at[known], place[known]), _mwh(wh[known]))
            np.add.at(self._known_s[channel], (at[known], place[known]), records.length_s[known].astype(np.int32))
        np.add.at(self._covered, (at, place), records.coverage_pct * records.length_s)
        np.bitwise_or.at(self._quality, (at, place), records.quality)
        rest = np.zeros(len(at), dtype=[("stay", "<i8"), ("start_s", "<i8"), ("length_s", "<i8"), ("revision", "<i8")])
        rest["stay"], rest["start_s"], rest["length_s"] = at, start // 1000, records.length_s
        rest["revision"] = records.revision
        self._rest.append(rest)

    def result(self) -> SiteDays:
        """The days of all sites at which somebody was."""
        names = [stay.site for stay in self._stays]
        sites = sorted(set(names))
        numbers = {site: at for at, site in enumerate(sites)}
        site_of = np.array([numbers[name] for name in names], dtype=np.int64)
        shape = (len(sites), self._n)
        heads = np.searchsorted(site_of, np.arange(len(sites)))
        whole, part = self._presence()
        expected = _summed(whole.astype(np.int64), heads)
        moved = _summed((part & ~whole).astype(np.int64), heads) > 0
        known = np.zeros((len(SiteChannel), *shape), dtype=np.bool_)
        mwh = np.zeros((len(SiteChannel), *shape), dtype=np.int64)
        measured = whole & (self._known_s == self._frame.length_s)
        for channel in BATTERY:
            mwh[channel] = _summed(self._mwh[channel], heads)
            lacking = _summed((whole & ~measured[channel]).astype(np.int64), heads)
            known[channel] = (expected > 0) & (lacking == 0) & ~moved
        quality = np.bitwise_or.reduceat(self._quality, heads, axis=0)
        quality |= np.where(moved, SiteQuality.MOVED, 0).astype(np.int16)
        quality |= np.where((expected == 0) & ~moved, SiteQuality.ABSENT, 0).astype(np.int16)
        quality |= np.where(self._grid(mwh, known, measured, site_of), SiteQuality.GRID_DISAGREES, 0).astype(np.int16)
        covered = _summed(np.where(whole, self._covered, 0.0), heads)
        coverage = np.floor(covered / (np.maximum(expected, 1) * self._frame.length_s) + 1e-9).astype(np.uint8)
        return SiteDays(
            frame=self._frame, day=self._day, sites=tuple(sites), energy_wh=self._whole_wh(mwh, known), known=known,
            coverage_pct=np.minimum(coverage, 100), quality=quality, bases=self._bases(site_of, len(sites)),
            versions=(0,) * len(sites),
        )  # fmt: skip

    def _grid(self, mwh: Ints, known: Bools, measured: Bools, site_of: Ints) -> Bools:
        """Take each site's grid from its first device that reads it; returns where another one reads it otherwise."""
        differs = np.zeros(known.shape[1:], dtype=np.bool_)
        first = np.searchsorted(site_of, site_of)  # stays are sorted by site
        rank = np.arange(len(site_of)) - first
        for n in range(int(rank.max(initial=-1)) + 1):
            at = np.flatnonzero(rank == n)
            site = site_of[at]
            has = measured[SiteChannel.IMPORT][at] & measured[SiteChannel.EXPORT][at]
            before = known[SiteChannel.IMPORT][site]
            net = self._mwh[SiteChannel.IMPORT][at] - self._mwh[SiteChannel.EXPORT][at]
            other = mwh[SiteChannel.IMPORT][site] - mwh[SiteChannel.EXPORT][site]
            slack = GRID_PART * np.maximum(abs(net), abs(other)) + GRID_W * MWH * self._frame.length_s / HOUR_S
            differs[site] |= has & before & (abs(net - other) > slack)
            take = has & ~before
            for channel in GRID:
                mwh[channel][site] = np.where(take, self._mwh[channel][at], mwh[channel][site])
                known[channel][site] |= take
        return differs

    def _whole_wh(self, mwh: Ints, known: Bools) -> Energies:
        """Whole Wh: within an hour the rest of an interval goes to the next one that is known."""
        start_s = self._from_ms // 1000 + np.arange(self._n) * self._frame.length_s
        hour = start_s // HOUR_S
        heads = np.flatnonzero(np.append(True, hour[1:] != hour[:-1]))
        cumulated = np.where(known, mwh, 0).cumsum(axis=2)
        before = np.repeat(
            np.concatenate((np.zeros((*mwh.shape[:2], 1), dtype=np.int64), cumulated[:, :, heads[1:] - 1]), axis=2),
            np.diff(np.append(heads, self._n)), axis=2,
        )  # fmt: skip
        rounded = (cumulated - before + MWH // 2) // MWH
        wh = np.diff(rounded, axis=2, prepend=0)
        wh[:, :, heads] = rounded[:, :, heads]
        return np.where(known, wh, 0).astype(np.int32)

    def _presence(self) -> tuple[Bools, Bools]:
        """By stay and interval, whether the device was there all of the time, and some of it."""
        start = np.arange(self._n) * self._frame.length_s * 1000
        end = start + self._frame.length_s * 1000
        whole: Bools = (self._begins[:, None] <= start) & (self._ends[:, None] >= end)
        part: Bools = (self._begins[:, None] < end) & (self._ends[:, None] > start)
        return whole, part

    def _bases(self, site_of: Ints, count: int) -> tuple[bytes, ...]:
        by_site: list[dict[str, list[np.ndarray]]] = [{} for _ in range(count)]
        for at, stay in enumerate(self._stays):
            by_site[site_of[at]].setdefault(stay.device, [])
        for at, runs in self._runs():
            by_site[site_of[at]][self._stays[at].device].append(runs)
        none = np.zeros(0, dtype=RUN)
        return tuple(
            write_basis(
                [DeviceBasis(device=name, runs=np.concatenate([none, *runs])) for name, runs in devices.items()]
            )
            for devices in by_site
        )

    def _runs(self) -> Iterable[tuple[int, np.ndarray]]:
        """The runs of records of each stay that has some."""
        if not self._rest:
            return
        rest = np.concatenate(self._rest)
        rest = rest[np.lexsort((rest["start_s"], rest["stay"]))]
        if not len(rest):
            return
        goes_on = (
            (rest["stay"][1:] == rest["stay"][:-1]) & (rest["length_s"][1:] == rest["length_s"][:-1])
            & (rest["revision"][1:] == rest["revision"][:-1])
            & (rest["start_s"][1:] == rest["start_s"][:-1] + rest["length_s"][:-1])
        )  # fmt: skip
        heads = np.flatnonzero(np.append(True, ~goes_on))
        runs = np.zeros(len(heads), dtype=RUN)
        for name in ("start_s", "length_s", "revision"):
            runs[name] = rest[name][heads]
        runs["count"] = np.diff(np.append(heads, len(rest)))
        stay = rest["stay"][heads]
        edges = np.flatnonzero(np.append(True, stay[1:] != stay[:-1]))
        yield from zip(stay[edges].tolist(), np.split(runs, edges[1:]), strict=True)

    def _mark_coarse(self, at: Ints, start: Ints, length_s: Ints) -> None:
        first = start // (self._frame.length_s * 1000)
        last = np.minimum((start + length_s * 1000 - 1) // (self._frame.length_s * 1000), self._n - 1)
        for step in range(int((last - first).max(initial=-1)) + 1):
            here = first + step <= last
            np.bitwise_or.at(self._quality, (at[here], first[here] + step), np.int16(SiteQuality.COARSE))

    def _at(self, times_ms: Iterable[int]) -> Ints:
        return np.array(list(times_ms), dtype=np.int64) - self._from_ms

    def _key(self, number: Ints, at: Ints) -> Ints:
        return number * (self._until_ms - self._from_ms + 1) + at


def _mwh(wh: Floats) -> Ints:
    found: Ints = np.rint(wh * MWH).astype(np.int64)
    return found


def _summed(values: np.ndarray, heads: Ints) -> np.ndarray:
    """The sums of rows by site, each from its head on."""
    return np.add.reduceat(values, heads, axis=0)
