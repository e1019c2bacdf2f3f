"""What a program pays for, from what was delivered in each interval: the formulas that program files name.

Power in kW, energy in kWh, + = given to the home or the grid; all of it exact. What is missing counts as nothing given,
never as if it had not been asked for; a weight that is missing makes a range instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from gateway.domain.programs.baseline import mean
from gateway.domain.rules.performance import Cited

ZERO = Fraction(0)
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedHour:
    """What an hour gave, and its weight: known where both ends are the same, else somewhere between."""

    kw: Fraction
    least: Fraction
    most: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRange:
    """A figure that is known where both ends are the same, else somewhere between."""

    low: Fraction
    high: Fraction

    @property
    def known(self) -> bool:
        return self.low == self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class EventEnergy:
    """What an event of some length gave; None = nothing was measured."""

    kwh: Fraction | None
    hours: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class BidBands:
    """Shares of a bid: what is above `most` is not paid; down to `full` each kW is, down to `part` each is paid
    `part_rate` of the price; what is missing to `part` is charged. A boundary is of the upper band."""

    most: Fraction
    full: Fraction
    part: Fraction
    part_rate: Fraction


def weighted_mean(hours: Sequence[WeightedHour]) -> FigureRange | None:
    """The mean of hours by their weights, as a range where weights are; None without a weight above 0.

    A mean of this kind is largest where the hours above it have the most weight and the others the least.
    """
    certain = [hour for hour in hours if hour.least == hour.most]
    open_ones = sorted((hour for hour in hours if hour.least != hour.most), key=lambda hour: hour.kw, reverse=True)
    found: list[Fraction] = []
    for n in range(len(open_ones) + 1):
        for heavy, light in ((open_ones[:n], open_ones[n:]), (open_ones[n:], open_ones[:n])):
            weighted = [(hour.kw, hour.most) for hour in (*certain, *heavy)]
            weighted += [(hour.kw, hour.least) for hour in light]
            every = sum((weight for _, weight in weighted), ZERO)
            if every > 0:
                found.append(sum((kw * weight for kw, weight in weighted), ZERO) / every)
            elif any(weight for _, weight in weighted):
                return None
    return FigureRange(low=min(found), high=max(found)) if found else None


def mean_event_power(events: Sequence[EventEnergy], missed_kw: Fraction) -> Fraction | None:
    """The mean over events of their energy by the hour; one that nothing was given in counts `missed_kw`. None without
    events."""
    if not events:
        return None
    return mean([event.kwh / event.hours if event.kwh else missed_kw for event in events])


def best_two_hours(hours: Sequence[tuple[int, Fraction]]) -> Fraction | None:
    """The best mean of two dispatched hours in a row (start in UTC ms, kW); None without two."""
    pairs = pairwise(sorted(hours))
    found = [(kw + after_kw) / 2 for (at, kw), (after, after_kw) in pairs if after - at == HOUR_MS]
    return max(found, default=None)


def bid_payment(bid_kw: Fraction, delivered_kw: Fraction, price: Fraction, bands: BidBands) -> Fraction:
    """What a bid is paid for what was delivered of it; below 0 = it is charged. Raises ValueError without a bid."""
    if bid_kw <= 0:
        raise ValueError("a bid is above 0")
    share = delivered_kw / bid_kw
    if share >= bands.full:
        return min(delivered_kw, bands.most * bid_kw) * price
    if share >= bands.part:
        return delivered_kw * bands.part_rate * price
    return (delivered_kw - bands.part * bid_kw) * price


def bands_of(cited: Cited) -> BidBands:
    """The bands that a program states. Raises InvalidInput where a number is missing."""
    return BidBands(
        most=cited.number("band-most"),
        full=cited.number("band-full"),
        part=cited.number("band-part"),
        part_rate=cited.number("band-part-rate"),
    )
