"""What a fleet will give in its next event: kW for some hours, with a band that holds 80 % of outcomes.

Each home gives a part of what its rating and its energy allow; which part, its past events say, the newest most. A home
that was silent lately may be gone for good. What moves all homes alike (heat, and what nobody knows) is read from how
far earlier forecasts of the same kind were off; the band is as wide as they were wrong. The lower edge of the band is
what may be nominated.

Arrays: H homes, E past events, oldest first. W, Wh and hours; NaN = unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.domain.errors import InvalidInput
from gateway.domain.types import Bools, Floats

MEMORY = 0.9
"""Weight of an event over that of the next one."""
PRIOR_EVENTS = 2.0
"""Events that the mean of all homes counts for in the part that one home gives."""
PRIOR_PART = 0.75
"""The part of rating and energy that homes give before any event was seen."""
SILENT_PART = 0.05
GONE_EACH = 0.006
"""How often a home that answered drops out for good between two events."""
MISS_PRIOR = (1.0, 20.0)
"""Missed events, and events, that each home begins with."""
SLOPE_PRIOR = 0.01
"""Part of the power that a degree takes, as far as is believed before events say so (standard deviation)."""
WARM_C = 25.0
"""Temperature from which heat takes energy and power, the hotter the more so."""
FITS = 3
COMMON_MEMORY = 0.2
"""Part of what the last forecast was off by that is expected again."""
SPREAD_PRIOR, SPREAD_EVENTS = 0.05, 3.0
"""Standard deviation of a forecast before any was made, and the events that it counts for."""
ALONE = 0.35
"""By how much one home of which no event is known may be off, as a part of what it is able to."""
NO_TEMPERATURE = 1.25
"""How much wider the band is without a temperature where temperature was known in the past."""
BAND = 1.2816
"""Standard deviations on both sides that hold 80 % of outcomes."""
USUAL_H = 2.0
BACKTESTS_MIN = 2
HOURS = (1.0, 2.0, 3.0, 4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEvents:
    """What homes gave. `rating_w`, `usable_wh` (H): by registration, above the owner's reserve. `asked` (H, E): it was
    asked. `delivered_wh` (H, E): measured; NaN where it was asked = it was silent. `hours`, `temperature_c` (E)."""

    rating_w: Floats
    usable_wh: Floats
    asked: Bools
    delivered_wh: Floats
    hours: Floats
    temperature_c: Floats

    def __post_init__(self) -> None:
        """Raises InvalidInput where an array has another shape."""
        homes, events = len(self.rating_w), len(self.hours)
        wanted = {
            "usable_wh": (homes,), "asked": (homes, events), "delivered_wh": (homes, events),
            "temperature_c": (events,),
        }  # fmt: skip
        faults = [
            f"{name}: the shape is {shape}, not {getattr(self, name).shape}"
            for name, shape in wanted.items()
            if getattr(self, name).shape != shape
        ]
        if faults:
            raise InvalidInput(faults)

    def until(self, events: int) -> "PastEvents":
        """The first `events` of them."""
        return PastEvents(
            rating_w=self.rating_w, usable_wh=self.usable_wh, asked=self.asked[:, :events],
            delivered_wh=self.delivered_wh[:, :events], hours=self.hours[:events],
            temperature_c=self.temperature_c[:events],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ComingEvent:
    """Who may take part: `enrolled`, without those who are excluded (H); `reached`: heard lately (H). `temperature_c`
    NaN = not known."""

    enrolled: Bools
    reached: Bools
    temperature_c: float = np.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerForecast:
    """Mean power over `hours`, and the band that holds 80 % of outcomes, kW. `homes`: who is counted on, `events`: what
    it rests on."""

    hours: float
    kw: float
    low_kw: float
    high_kw: float
    homes: int
    events: int

    @property
    def nomination_kw(self) -> float:
        """What may be nominated."""
        return self.low_kw


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What moves all homes alike: `factor` of the coming event, and by how much that may be wrong (of 1)."""

    factor: float
    spread: float


def forecast(past: PastEvents, coming: ComingEvent, hours: Sequence[float] = HOURS) -> list[PowerForecast]:
    """What the coming event will give over each of some lengths."""
    slope = heat_slope(past)
    parts = home_parts(past, coming.reached, slope)
    common = _common(past, slope, coming.temperature_c)
    found = []
    for length in hours:
        able_w = able(past, length)
        kw = float((parts * able_w)[coming.enrolled].sum()) / 1000 * common.factor
        # homes of which few events are known are each on their own: many of them average out
        alone = float(np.sqrt(((able_w * _doubt(past)) ** 2)[coming.enrolled].sum())) / 1000
        spread_kw = float(np.hypot(kw * common.spread, alone))
        most_kw = float(able_w[coming.enrolled].sum()) / 1000
        low_kw, high_kw = max(0.0, kw - BAND * spread_kw), min(most_kw, kw + BAND * spread_kw)
        counted = int(coming.enrolled.sum())
        found.append(
            PowerForecast(hours=length, kw=kw, low_kw=low_kw, high_kw=high_kw, homes=counted, events=len(past.hours))
        )
    return found


def forecast_period(past: PastEvents, coming: ComingEvent, lengths: Sequence[float] = ()) -> PowerForecast:
    """What an event of a nomination period will give: over `lengths`, or as long as past events were, each as often; an
    event of a length that is not known counts as `USUAL_H`. The lower edge of its band may be nominated."""
    wanted = list(lengths) or [float(each) for each in past.hours] or [USUAL_H]
    kinds = sorted(set(wanted))
    shares = np.array([wanted.count(each) for each in kinds]) / len(wanted)
    found = forecast(past, coming, kinds)

    def mean(name: str) -> float:
        return float(shares @ np.array([getattr(one, name) for one in found]))

    return PowerForecast(
        hours=mean("hours"), kw=mean("kw"), low_kw=mean("low_kw"), high_kw=mean("high_kw"), homes=found[0].homes,
        events=found[0].events,
    )  # fmt: skip


def able(past: PastEvents, hours: float) -> Floats:
    """The mean power of each home over so many hours by rating and energy, W."""
    found: Floats = np.minimum(past.rating_w, past.usable_wh / hours)
    return found


def _able_wh(past: PastEvents) -> Floats:
    """What each home was able to give in each event, Wh."""
    found: Floats = np.minimum(past.rating_w[:, None] * past.hours, past.usable_wh[:, None])
    return found


def _heat(temperature_c: Floats) -> Floats:
    """How much heat there is: the square of the degrees above what is warm, in tens; none where it is not known."""
    found: Floats = np.nan_to_num(np.maximum(temperature_c - WARM_C, 0.0) ** 2 / 10)
    return found


def heat_slope(past: PastEvents) -> float:
    """What heat takes of the power of all (log, never above 0), as far as events say so: one that is far off what the
    others say counts little, for something else befell it."""
    able_wh = np.where(past.asked, _able_wh(past), 0.0).sum(axis=0)
    given_wh = np.where(past.asked, np.nan_to_num(past.delivered_wh), 0.0).sum(axis=0)
    known = (given_wh > 0) & (able_wh > 0) & np.isfinite(past.temperature_c)
    if known.sum() < BACKTESTS_MIN:
        return 0.0
    off, heat = np.log(given_wh[known] / able_wh[known]), _heat(past.temperature_c[known])
    weight, slope = np.ones(len(off)), 0.0
    for _ in range(FITS):
        off_, heat_ = off - np.average(off, weights=weight), heat - np.average(heat, weights=weight)
        slope = float((weight * heat_) @ off_) / (float((weight * heat_) @ heat_) + (SPREAD_PRIOR / SLOPE_PRIOR) ** 2)
        weight = 1 / (1 + ((off_ - slope * heat_) / SPREAD_PRIOR) ** 2)
    return min(0.0, slope)


def home_parts(past: PastEvents, reached: Bools, slope: float) -> Floats:
    """The part of what it is able to that each home will give without heat, which takes `slope` by degree (log). A home
    that is not reached counts like one that missed one more event."""
    events = len(past.hours)
    cool = np.exp(-slope * _heat(past.temperature_c))
    given = np.where(past.asked, np.nan_to_num(past.delivered_wh) / np.maximum(_able_wh(past), 1.0), np.nan) * cool
    weight = MEMORY ** np.arange(events - 1, -1, -1)
    answers = past.asked & (given > SILENT_PART)
    heard_weight = np.where(answers, weight, 0.0)
    total = float((heard_weight.sum(axis=1)).sum())
    usual = float(np.where(answers, given * weight, 0.0).sum()) / total if total > 0 else PRIOR_PART
    part = (np.where(answers, given * weight, 0.0).sum(axis=1) + PRIOR_EVENTS * usual) / (
        heard_weight.sum(axis=1) + PRIOR_EVENTS
    )
    missed = past.asked & ~answers
    silent = _silent_lately(past.asked, answers) + ~reached
    # misses of the run that lasts say nothing of how reliable a home was until then
    misses = MISS_PRIOR[0] + np.maximum(missed.sum(axis=1) - silent + ~reached, 0)
    miss = misses / (MISS_PRIOR[1] + past.asked.sum(axis=1))
    gone = np.minimum(1.0, silent * GONE_EACH)
    gone = gone / (gone + (1 - gone) * miss**silent)
    gone = np.where(silent > 0, gone, 0.0)
    return np.asarray(part * (1 - miss) * (1 - gone))


def _silent_lately(asked: Bools, answers: Bools) -> Floats:
    """Events in a row, up to the newest, in which each home was asked and silent."""
    later = np.cumsum(answers[:, ::-1], axis=1)[:, ::-1]
    found: Floats = (asked & (later == 0)).sum(axis=1).astype(np.float64)
    return found


def _doubt(past: PastEvents) -> Floats:
    """By how much each home may be off on its own, as a part of what it is able to."""
    return np.asarray(ALONE / np.sqrt(1.0 + past.asked.sum(axis=1) / PRIOR_EVENTS))


def _backtested(past: PastEvents, slope: float) -> Floats:
    """By how much (log) the forecast of each past event, made of those before it, was off; NaN = none was made."""
    found = np.full(len(past.hours), np.nan)
    everybody = np.ones(len(past.rating_w), dtype=np.bool_)
    heat, able_wh = _heat(past.temperature_c), _able_wh(past)
    for event in range(1, len(past.hours)):
        asked = past.asked[:, event]
        parts = home_parts(past.until(event), everybody, slope)
        expected_wh = float((parts * able_wh[:, event])[asked].sum()) * float(np.exp(slope * heat[event]))
        given_wh = float(np.nansum(past.delivered_wh[asked, event]))
        if expected_wh > 0 and given_wh > 0:
            found[event] = np.log(given_wh / expected_wh)
    return found


def _common(past: PastEvents, slope: float, temperature_c: float) -> _Common:
    """The factor of the coming event by its temperature and by how far the last forecasts were off."""
    off = _backtested(past, slope)
    off = off[np.isfinite(off)]
    if len(off) < BACKTESTS_MIN:
        return _Common(factor=1.0, spread=2 * SPREAD_PRIOR)
    error = off[1:] - COMMON_MEMORY * off[:-1]
    spread = float(np.sqrt(((error**2).sum() + SPREAD_EVENTS * SPREAD_PRIOR**2) / (len(error) + SPREAD_EVENTS)))
    expected = COMMON_MEMORY * float(np.clip(off[-1], -2 * SPREAD_PRIOR, 2 * SPREAD_PRIOR))
    heat = _heat(past.temperature_c)
    if np.isfinite(temperature_c):
        expected += slope * float(_heat(np.array(temperature_c)))
    elif np.isfinite(past.temperature_c).any():
        expected += slope * float(np.median(heat))
        spread = NO_TEMPERATURE * float(np.hypot(spread, slope * float(np.std(heat))))
    return _Common(factor=float(np.exp(expected)), spread=spread)
