"""Energy of homes and batteries in the intervals of an event and of days before it, as stored: the interval log for the
event's own day, which is not whole yet, and the days of sites for what a baseline is of."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from gateway.domain.programs.baseline import DayMatching, like_days, same_clock_ms
from gateway.domain.programs.day_builder import DayBuilder, SiteStay
from gateway.domain.programs.delivered import EnergyBefore, HomeEnergy
from gateway.domain.programs.metered import MeteredWh
from gateway.domain.programs.site_day import BATTERY, GRID, DayFrame, SiteChannel, SiteDays
from gateway.domain.rules.calendar import local_day
from gateway.domain.types import Bools, DeviceId, Floats, Ints
from gateway.storage.interval_log.beside import IntervalLogBeside
from gateway.storage.interval_log.merge import IntervalSelection
from gateway.storage.programs.daily import DailyColumns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowEnergy:
    """Rows x intervals: net of both channels of batteries (+ = discharge) and of the grid (+ = import), and how much of
    each interval is covered, %."""

    energy: HomeEnergy
    covered_pct: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineDays:
    """Which energy a baseline is of: like days by `matching` (None = of none) in the intervals of the event and in the
    adjustment window, which begin so on the event's own day (UTC ms). `left_out`: homes that have no part in a day;
    `of_batteries`, `of_grid`: what has to be known of a day."""

    starts_ms: Sequence[int]
    window_ms: Sequence[int]
    matching: DayMatching | None
    of_batteries: bool
    of_grid: bool
    left_out: Mapping[date, Container[str]] = field(default_factory=dict)
    holidays: Container[date] = frozenset()


class StoredEnergy:
    """What a state directory holds; blocks. Raises StorageError, CorruptState, InvalidInput."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._log = IntervalLogBeside(state_dir / "intervals")

    def measured(
        self, frame: DayFrame, starts_ms: Sequence[int], stays: Sequence[SiteStay], rows: Sequence[str]
    ) -> RowEnergy:
        """The intervals that begin at `starts_ms` (ascending, without a hole) of the `rows`: sites of `stays`, which
        are sorted by site, device and time."""
        found = _empty(len(rows), len(starts_ms))
        if not stays or not starts_ms:
            return found
        devices = tuple(DeviceId(device) for device in sorted({stay.device for stay in stays}))
        wanted = IntervalSelection(from_ms=starts_ms[0], to_ms=starts_ms[-1] + frame.length_s * 1000, devices=devices)
        days = sorted({local_day(frame.zone, at) for at in starts_ms})
        within = [(day, _cut(stays, *frame.span(day))) for day in days]
        builders = [DayBuilder(frame, day, some) for day, some in within if some]
        for page in self._log.pages(wanted):
            for builder in builders:
                builder.add(page)
        return _joined([found, *(_read(builder.result(), rows, starts_ms) for builder in builders)])

    def before(
        self, frame: DayFrame, asked: BaselineDays, stays: Sequence[SiteStay], rows: Sequence[str]
    ) -> EnergyBefore:
        """What a baseline of the `rows` is of; no more days are read than every row needs."""
        found: list[tuple[RowEnergy, RowEnergy, Bools]] = []
        if asked.matching is not None:
            found = list(self._like_days(frame, asked, asked.matching, rows))
        parts = (len(asked.starts_ms), len(asked.window_ms))
        usable = [day[2] for day in found]
        return EnergyBefore(
            event=_stacked([event.energy for event, _, _ in found], (len(rows), parts[0])),
            window=_stacked([window.energy for _, window, _ in found], (len(rows), parts[1])),
            today=self.measured(frame, asked.window_ms, stays, rows).energy,
            usable=np.stack(usable, axis=1) if usable else np.zeros((len(rows), 0), dtype=np.bool_),
        )

    def _like_days(
        self, frame: DayFrame, asked: BaselineDays, matching: DayMatching, rows: Sequence[str]
    ) -> Iterator[tuple[RowEnergy, RowEnergy, Bools]]:
        event_day = local_day(frame.zone, asked.starts_ms[0])
        enough = np.zeros(len(rows), dtype=np.int64)
        with DailyColumns(self._state_dir) as stored:
            for day in like_days(event_day, matching, left_out=(), holidays=asked.holidays):
                # an event past midnight goes on in the day after
                there = list(stored.days(frame, [day, day + timedelta(days=1)], sites=rows))
                back = (day - event_day).days
                event, window = (
                    _joined(
                        [
                            _empty(len(rows), len(at)),
                            *(_read(one, rows, _shifted(frame.zone, at, back)) for one in there),
                        ]
                    )
                    for at in (asked.starts_ms, asked.window_ms)
                )
                out = asked.left_out.get(day, frozenset())
                usable = np.array([row not in out for row in rows], dtype=np.bool_)
                yield event, window, usable
                enough += usable & _whole(event, asked) & (_whole(window, asked) | (matching.adjust_by is None))
                if (enough >= matching.days).all():
                    return


def _cut(stays: Sequence[SiteStay], from_ms: int, until_ms: int) -> list[SiteStay]:
    """What of stays is within a day."""
    cut = (replace(stay, from_ms=max(stay.from_ms, from_ms), until_ms=min(stay.until_ms, until_ms)) for stay in stays)
    return [stay for stay in cut if stay.from_ms < stay.until_ms]


def _shifted(zone: str, starts_ms: Sequence[int], days: int) -> list[int]:
    return [same_clock_ms(zone, at, days) for at in starts_ms]


def _whole(rows: RowEnergy, asked: BaselineDays) -> Bools:
    """Where all is known of what a baseline is of."""
    found = np.ones(len(rows.covered_pct), dtype=np.bool_)
    for metered, needed in ((rows.energy.batteries, asked.of_batteries), (rows.energy.grid, asked.of_grid)):
        if needed:
            found &= np.all(metered.known, axis=1)
    return found


def _read(days: SiteDays, rows: Sequence[str], starts_ms: Sequence[int]) -> RowEnergy:
    """What one day knows of these intervals."""
    number = {site: at for at, site in enumerate(days.sites)}
    row_of = np.array([number.get(row, -1) for row in rows], dtype=np.int64)
    places = (np.array(starts_ms, dtype=np.int64) - days.from_ms) // (days.frame.length_s * 1000)
    inside = (places >= 0) & (places < days.parts)
    there = (row_of >= 0)[:, np.newaxis] & inside
    at = np.ix_(np.maximum(row_of, 0), np.where(inside, places, 0))
    if not days.sites or not days.parts:
        return _empty(len(rows), len(starts_ms))

    def net(plus: SiteChannel, minus: SiteChannel) -> MeteredWh:
        known = days.known[plus][at] & days.known[minus][at] & there
        wh: Ints = days.energy_wh[plus][at].astype(np.int64) - days.energy_wh[minus][at]
        return MeteredWh(wh=np.where(known, wh, 0), known=known)

    charge, discharge = BATTERY
    imported, exported = GRID
    covered = np.where(there, days.coverage_pct[at].astype(np.float64), 0.0)
    return RowEnergy(
        energy=HomeEnergy(batteries=net(discharge, charge), grid=net(imported, exported)), covered_pct=covered
    )


def _empty(rows: int, intervals: int) -> RowEnergy:
    unknown = MeteredWh.unknown((rows, intervals))
    return RowEnergy(energy=HomeEnergy(batteries=unknown, grid=unknown), covered_pct=np.zeros((rows, intervals)))


def _joined(parts: Sequence[RowEnergy]) -> RowEnergy:
    """Each interval is of one part."""
    first, *others = parts
    for other in others:
        first = RowEnergy(
            energy=HomeEnergy(
                batteries=_either(first.energy.batteries, other.energy.batteries),
                grid=_either(first.energy.grid, other.energy.grid),
            ),
            covered_pct=first.covered_pct + other.covered_pct,
        )
    return first


def _either(one: MeteredWh, other: MeteredWh) -> MeteredWh:
    return MeteredWh(wh=one.wh + other.wh, known=one.known | other.known)


def _stacked(days: Sequence[HomeEnergy], shape: tuple[int, int]) -> HomeEnergy:
    """Rows x days x intervals."""
    rows, intervals = shape

    def stacked(parts: Sequence[MeteredWh]) -> MeteredWh:
        if not parts:
            return MeteredWh.unknown((rows, 0, intervals))
        return MeteredWh(
            wh=np.stack([part.wh for part in parts], axis=1), known=np.stack([part.known for part in parts], axis=1)
        )

    return HomeEnergy(batteries=stacked([day.batteries for day in days]), grid=stacked([day.grid for day in days]))
