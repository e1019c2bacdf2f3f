"""The second judge: what homes would be paid by what their batteries truly did, and how far any honest count of the
received readings may be from it.

The bound of an hour, in Wh, is the sum of what each of these can hide:

- *resolution*: a step of the counter per direction; half a tenth of a Wh per told span and direction;
- *rounding*: half a Wh per direction, and half a mWh per quarter and direction;
- *sampling* by counters and spans: at both ends of the hour the energy of a span bends away from straight, by at most a
  quarter of its length times the range of power in it; by power: the length of each span times that range;
- *clock*: a home's time may be off by 2 s and the latency, so that the spans at the ends reach that much further;
- *coverage*: what moved while nothing was told, of homes without a counter.

That of a home's month is the hours' by their weights, times its rate, and half a cent for rounding.
"""

from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from simulators.homes import Ints
from simulators.season.days import TrueDay
from simulators.season.official import HOUR_MS, OfficialHour
from simulators.season.pay import RATES, HomeMonth, baseline_kw, home_month, weights
from simulators.season.received import Received
from simulators.season.street import Meter, SeasonStreet
from simulators.settlement import Exact, exact

CLOCK_MS = 2_000
ROUNDED_WH = 2 * (0.5 + 4 * 0.0005)
TOLD_WH = 0.05
HALF_CENT = exact("0.005")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """A home's month: USD, not rounded, and how far what is paid may be from it."""

    amount: Exact
    bound: Exact

    def holds(self, pay: Decimal) -> bool:
        return abs(exact(pay) - self.amount) <= self.bound


@dataclass(slots=True, kw_only=True, eq=False)
class ByEnergies:
    """Days come in their order; then `months`."""

    street: SeasonStreet
    net_wh: dict[tuple[int, OfficialHour], tuple[float, float]] = field(default_factory=dict)
    """What each gave in an hour, and the bound of it."""

    def day(self, true: TrueDay, received: Received) -> None:
        event = self.street.events[true.event]
        homes = np.flatnonzero(self.street.enrolled(event.day))
        power_w = _Powers(true)
        for hour in event.hours:
            start_ms = np.full(len(homes), hour.start_ms)
            net_wh = true.net_wh(homes, start_ms, start_ms + HOUR_MS)
            for home, wh in zip(homes.tolist(), net_wh.tolist(), strict=True):
                self.net_wh[home, hour] = wh, self._bound_wh(power_w, received, home, hour.start_ms)

    def months(self) -> dict[tuple[int, int], Bounded]:
        """By home and month."""
        out = {}
        hours = [hour for event in self.street.events for hour in event.hours]
        for number in sorted({hour.day.month for hour in hours}):
            part = weights([hour for hour in hours if hour.day.month == number])
            for home in np.flatnonzero(self.street.takes_part[:, number - 1]).tolist():
                found = self._month(home, number, list(part))
                if found is None:
                    continue
                off_kw = sum((Exact(self.net_wh[home, hour][1]) / 1000 * part[hour] for hour in part), Exact(0))
                out[home, number] = Bounded(amount=found.amount, bound=off_kw * RATES[number] + HALF_CENT)
        return out

    def _month(self, home: int, number: int, hours: list[OfficialHour]) -> HomeMonth | None:
        given = [(hour, Exact(self.net_wh[home, hour][0]) / 1000) for hour in hours]
        return home_month(given, baseline_kw=baseline_kw(self.street.nominal_w[home]), rate=RATES[number])

    def _bound_wh(self, power: "_Powers", received: Received, home: int, start_ms: int) -> float:
        sent_ms = received.sent_ms[home, received.heard[home]]
        clock_ms = CLOCK_MS + int(self.street.latency_ms[home])
        meter, end_ms = self.street.meter[home], start_ms + HOUR_MS
        if meter == Meter.POWER:
            return ROUNDED_WH + power.sampled_wh(home, received, start_ms - clock_ms, end_ms + clock_ms)
        bent_wh = sum(power.bent_wh(home, sent_ms, edge_ms, clock_ms) for edge_ms in (start_ms, end_ms))
        if meter == Meter.FINE:
            return ROUNDED_WH + bent_wh + 2 * float(self.street.homes.counter_step_wh[home])
        told = int(np.count_nonzero((sent_ms > start_ms - clock_ms) & (sent_ms < end_ms + clock_ms))) + 1
        return ROUNDED_WH + bent_wh + 2 * TOLD_WH * told


class _Powers:
    """True net power of each step of a day."""

    def __init__(self, true: TrueDay) -> None:
        self._at_ms = true.at_ms
        hours = np.diff(true.at_ms) / HOUR_MS
        self._net_w = np.diff(true.discharged_wh - true.charged_wh, axis=0) / hours[:, None]
        self._gross_wh = true.charged_wh + true.discharged_wh

    def range_w(self, home: int, from_ms: int, until_ms: int) -> float:
        """Of the steps that touch a span."""
        first = max(int(np.searchsorted(self._at_ms, from_ms, side="right")) - 1, 0)
        last = max(int(np.searchsorted(self._at_ms, until_ms, side="left")), first + 1)
        some_w = self._net_w[first:last, home]
        return float(some_w.max() - some_w.min())

    def moved_wh(self, home: int, from_ms: int, until_ms: int) -> float:
        """Charged and discharged."""
        begin_wh, end_wh = np.interp([from_ms, until_ms], self._at_ms, self._gross_wh[:, home])
        return float(end_wh - begin_wh)

    def bent_wh(self, home: int, sent_ms: Ints, edge_ms: int, clock_ms: int) -> float:
        """At an edge that may lie anywhere within the clock's error: how far the straight line between two readings may
        be from the truth there, and what flows in that error itself."""
        before = int(np.searchsorted(sent_ms, edge_ms - clock_ms, side="right")) - 1
        after = int(np.searchsorted(sent_ms, edge_ms + clock_ms, side="left"))
        if before < 0 or after >= len(sent_ms):
            return float("inf")
        from_ms, until_ms = int(sent_ms[before]), int(sent_ms[after])
        bent = self.range_w(home, from_ms, until_ms) * (until_ms - from_ms) / HOUR_MS / 4
        return bent + self.moved_wh(home, edge_ms - clock_ms, edge_ms + clock_ms) / 2

    def sampled_wh(self, home: int, received: Received, from_ms: int, until_ms: int) -> float:
        """Power that is told at the end of each span and stands for all of it; and what moved while none was told."""
        heard = received.heard[home]
        ends_ms = received.sent_ms[home, heard]
        begins_ms = ends_ms - received.span_ms[home, heard]
        some = (ends_ms > from_ms) & (begins_ms < until_ms)
        off_wh, known_wh = 0.0, 0.0
        for begin_ms, end_ms in zip(begins_ms[some].tolist(), ends_ms[some].tolist(), strict=True):
            off_wh += self.range_w(home, begin_ms, end_ms) * (end_ms - begin_ms) / HOUR_MS
            known_wh += self.moved_wh(home, max(begin_ms, from_ms), min(end_ms, until_ms))
        edges_wh = sum(
            self.moved_wh(home, at_ms, at_ms + until_ms - from_ms - HOUR_MS) for at_ms in (from_ms, from_ms + HOUR_MS)
        )
        return off_wh + max(self.moved_wh(home, from_ms, until_ms) - known_wh, 0.0) + edges_wh
