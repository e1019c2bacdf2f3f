"""The first judge: what homes are paid by what was received, worked out from the sheet and the published rules alone.

A quarter hour's energy of a home whose counter is fine is what the counter moved, straight between two readings; else
it is the told energy of the spans, or power by time, straight within a span. A clock that is off by more than 2 s is
corrected by the delay of the first message that came at once. Energies are taken to the mWh and are whole Wh, of which
the rest goes to the next quarter of the hour, so that an hour is rounded once, half up.
"""

from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from simulators.homes import Floats, Ints
from simulators.season.official import OfficialHour
from simulators.season.pay import RATES, baseline_kw, home_month
from simulators.season.received import Received
from simulators.season.street import Meter, SeasonStreet
from simulators.settlement import Exact

QUARTER_MS = 900_000
QUARTERS = 96
CORRECTED_MS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quarters:
    """A local day of every home (n x 96): whole Wh, -1 = not known."""

    start_ms: int
    charge_wh: Ints
    discharge_wh: Ints

    def net_wh(self, home: int, start_ms: int) -> int | None:
        """Of an hour; None if no quarter of it is known."""
        first = (start_ms - self.start_ms) // QUARTER_MS
        charge_wh, discharge_wh = (part[home, first : first + 4] for part in (self.charge_wh, self.discharge_wh))
        known = (charge_wh >= 0) & (discharge_wh >= 0)
        return int((discharge_wh - charge_wh)[known].sum()) if known.any() else None


@dataclass(slots=True, kw_only=True, eq=False)
class ByReadings:
    """Days come in their order; then `months`."""

    street: SeasonStreet
    delay_ms: Ints = field(init=False)
    net_wh: dict[tuple[int, OfficialHour], int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.delay_ms = np.full(len(self.street), np.iinfo(np.int64).min)

    def day(self, received: Received) -> Quarters:
        """The quarters of a day; what homes gave in the hours of its event is kept."""
        event = self.street.events[received.event]
        at_ms = received.device_ms + self._correction_ms(received)[:, None]
        edges_ms = event.midnight_ms + QUARTER_MS * np.arange(QUARTERS + 1)
        charge_wh, discharge_wh = (np.full((len(self.street), QUARTERS), np.nan) for _ in range(2))
        for home in range(len(self.street)):
            heard = received.heard[home]
            times_ms = at_ms[home, heard]
            if self.street.meter[home] == Meter.FINE:
                charge_wh[home] = counted(times_ms, received.charge_wh[home, heard], edges_ms)
                discharge_wh[home] = counted(times_ms, received.discharge_wh[home, heard], edges_ms)
                continue
            span_ms = received.span_ms[home, heard]
            told = received.span_charge_wh[home, heard], received.span_discharge_wh[home, heard]
            if self.street.meter[home] == Meter.POWER:
                wh = received.power_w[home, heard] * span_ms / 3_600_000
                told = np.maximum(-wh, 0.0), np.maximum(wh, 0.0)
            charge_wh[home] = integrated(times_ms, span_ms, told[0], edges_ms)
            discharge_wh[home] = integrated(times_ms, span_ms, told[1], edges_ms)
        found = Quarters(start_ms=event.midnight_ms, charge_wh=whole(charge_wh), discharge_wh=whole(discharge_wh))
        for hour in event.hours:
            for home in np.flatnonzero(self.street.enrolled(event.day)).tolist():
                self.net_wh[home, hour] = found.net_wh(home, hour.start_ms)
        return found

    def months(self) -> dict[tuple[int, int], Decimal]:
        """Pay by home and month."""
        out = {}
        hours = [hour for event in self.street.events for hour in event.hours]
        for number in sorted({hour.day.month for hour in hours}):
            of_month = [hour for hour in hours if hour.day.month == number]
            for home in np.flatnonzero(self.street.takes_part[:, number - 1]).tolist():
                given = [(hour, self._net_kw(home, hour)) for hour in of_month]
                base_kw = baseline_kw(self.street.nominal_w[home])
                found = home_month(given, baseline_kw=base_kw, rate=RATES[number])
                if found is not None:
                    out[home, number] = found.pay
        return out

    def _net_kw(self, home: int, hour: OfficialHour) -> Exact | None:
        wh = self.net_wh.get((home, hour))
        return None if wh is None else Exact(wh, 1000)

    def _correction_ms(self, received: Received) -> Ints:
        """What is added to each home's times."""
        delay_ms = received.heard_ms - received.device_ms
        # what came at once has the least delay
        least_ms = np.where(received.heard, delay_ms, np.iinfo(np.int64).max).min(axis=1)
        new = (self.delay_ms == np.iinfo(np.int64).min) & received.heard.any(axis=1)
        self.delay_ms[new] = least_ms[new]
        known_ms = np.where(self.delay_ms == np.iinfo(np.int64).min, 0, self.delay_ms)
        return np.where(np.abs(known_ms) > CORRECTED_MS, known_ms, 0)


def counted(at_ms: Ints, counter_wh: Floats, edges_ms: Ints) -> Floats:
    """Energy between each two edges by a counter; NaN where it was not read before and after."""
    if not len(at_ms):
        return np.full(len(edges_ms) - 1, np.nan)
    within = (edges_ms >= at_ms[0]) & (edges_ms <= at_ms[-1])
    return np.diff(np.where(within, np.interp(edges_ms, at_ms, counter_wh), np.nan))


def integrated(at_ms: Ints, span_ms: Ints, wh: Floats, edges_ms: Ints) -> Floats:
    """Energy between each two edges by spans that end at `at_ms`; NaN where none of the time is covered."""
    begin_ms = at_ms - span_ms
    out, covered_ms = np.zeros(len(edges_ms) - 1), np.zeros(len(edges_ms) - 1)
    first = np.searchsorted(edges_ms, begin_ms, side="right") - 1
    last = np.searchsorted(edges_ms, at_ms, side="left") - 1
    for shift in range(int((last - first).max(initial=-1)) + 1):
        k = first + shift
        some = (k <= last) & (k >= 0) & (k < len(out))
        k = k[some]
        part_ms = np.minimum(at_ms[some], edges_ms[k + 1]) - np.maximum(begin_ms[some], edges_ms[k])
        np.add.at(out, k, wh[some] * part_ms / span_ms[some])
        np.add.at(covered_ms, k, part_ms)
    return np.where(covered_ms > 0, out, np.nan)


def whole(wh: Floats) -> Ints:
    """Whole Wh of quarters, the first of which begins an hour; -1 = not known."""
    mwh = np.round(np.nan_to_num(wh) * 1000).astype(np.int64)
    hours = mwh.reshape(*mwh.shape[:-1], -1, 4).cumsum(axis=-1)
    rounded = np.diff((hours + 500) // 1000, axis=-1, prepend=0)
    return np.where(np.isnan(wh), -1, rounded.reshape(mwh.shape))
