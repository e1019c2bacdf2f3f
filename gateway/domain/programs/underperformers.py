"""Homes that do not give what they are asked: trend, likely cause, evidence in numbers, and what it cost.

A cause is named after three events that agree. What is said of one event alone is in `response`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np

from gateway.domain.programs.home_events import HomeEvents
from gateway.domain.programs.response import LATE_S, Answers, HomeAnswer, answers, quantile
from gateway.domain.types import Bools, Floats, Ints

AGREE = 3
"""Judged events, the newest, that must agree."""
LOOK_BACK = 8
"""Judged events in which a trend and a home that comes and goes are looked for."""
LOW_MEAN, LOW_EACH = 0.88, 0.93
SHORT_MEAN, SHORT_EACH = 0.1, 0.05
LATE_EACH_S = 120.0
UNIT_TOLERANCE = 0.05
"""How near the level of a home comes to that of the batteries that are left when one is off."""
LITTLE, MUCH = 0.35, 0.5
COUNTED, COUNTED_MIN = 0.6, 0.1
"""A meter that counts less than this part of what left the battery counts some of it backwards; looked at where so much
of the capacity did."""
STEP_BACK = 0.08
"""A home was better before an update by this part of what was wanted at least."""
FALLING = 0.08
NEVER, RARELY = 0.1, 0.6


class LikelyCause(StrEnum):
    """What is likely the matter with a home."""

    DEAD_COMMS = "dead-comms"
    POWER_DERATE = "power-derate"
    CAPACITY_FADE = "capacity-fade"
    LATE = "late"
    BATTERY_REVERSED = "battery-reversed"
    METER_REVERSED = "meter-reversed"
    UNIT_OFF = "unit-off"
    DOES_NOTHING = "does-nothing"
    INTERMITTENT = "intermittent"
    SINCE_UPDATE = "since-update"


class Trend(StrEnum):
    """How a home answers, over its last events. `UNKNOWN`: too few of them."""

    UNKNOWN = "unknown"
    NORMALLY = "normally-responds"
    RARELY = "rarely-responds"
    NEVER = "never-responds"
    DEGRADING_POWER = "degrading-power"
    DEGRADING_CAPACITY = "degrading-capacity"
    LATE = "late"
    REVERSED = "reversed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Underperformer:
    """A home that is named. `events`: judged in the last ones that were looked at; `affected`: positions of the events
    that went wrong, from `since` on; `lost_wh`: wanted there and not measured as given; `unmeasured_wh`: the part of it
    asked while nothing was measured. `level`, `energy`, `short`: parts of what was wanted, `late_s`: seconds, means of
    the events that agree (None = not measured); `acknowledged`, `coverage`: shares of those."""

    home: str
    cause: LikelyCause
    trend: Trend
    since: int
    affected: tuple[int, ...]
    events: int
    lost_wh: int
    unmeasured_wh: int
    level: float | None
    energy: float | None
    short: float | None
    late_s: float | None
    acknowledged: float
    coverage: float


def underperformers(seen: HomeEvents, said: Answers | None = None) -> list[Underperformer]:
    """The homes that are named after the newest event, the most costly first. `said`: how they answered, where that is
    known already."""
    if not seen.delivered_wh.size:
        return []
    said = answers(seen) if said is None else said
    causes, agree = likely_causes(seen, said)
    trends = trends_of(said)
    lost = lost_by_event(said)
    found = [
        _underperformer(seen, said, lost[row], agree[row], row=row, cause=cause, trend=trends[row])
        for row, cause in enumerate(causes)
        if cause is not None
    ]
    return sorted(found, key=lambda one: (-one.lost_wh, one.home))


def money_lost(lost_wh: Sequence[int], price_per_kwh: Sequence[Fraction | None]) -> tuple[Fraction, bool]:
    """What events lost by their prices, and whether that is all: an event without a price adds nothing and is owed."""
    priced = [(wh, price) for wh, price in zip(lost_wh, price_per_kwh, strict=True) if price is not None]
    total = sum((wh * price / 1000 for wh, price in priced), Fraction(0))
    return total, len(priced) == len(lost_wh)


def lost_by_event(said: Answers) -> Ints:
    """Wh of each home and event that were wanted and not measured as given; 0 where nothing is held against it."""
    given = np.where(np.isfinite(said.given_wh), said.given_wh, 0.0)
    short = np.maximum(said.wanted_wh - given, 0.0) * (said.answer > int(HomeAnswer.GOOD))
    found: Ints = np.rint(short).astype(np.int64)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The newest events of each home that agree or do not (H, `AGREE`), and which homes have so many."""

    events: Ints
    answer: Floats
    enough: Bools

    def count(self, *kinds: HomeAnswer) -> Ints:
        found: Ints = np.isin(self.answer, kinds).sum(axis=1)
        return found


def _window(said: Answers, used: Bools) -> _Window:
    events, enough = _newest(used, AGREE)
    return _Window(events=events, answer=_at(said.answer.astype(np.float64), events), enough=enough)


def likely_causes(seen: HomeEvents, said: Answers) -> tuple[list[LikelyCause | None], Ints]:
    """The cause of each home, None where none is named, and the events that agree (H, `AGREE`)."""
    every = _window(said, said.judged)
    # a silent event says nothing of power, nor does one that asked for no more than the home can give
    heard = _window(said, said.judged & (said.answer != int(HomeAnswer.DARK)) & ~_within_power(said))
    acknowledged = (_at(seen.acknowledged, every.events) > 0.5).sum(axis=1) * 2 > AGREE
    level, energy, short, late = (
        _at(each, heard.events) for each in (said.level, said.energy, said.short, said.late_s)
    )
    reversed_, nothing, holes = (
        heard.count(HomeAnswer.REVERSED),
        heard.count(HomeAnswer.NOTHING),
        heard.count(HomeAnswer.HOLES),
    )
    steady = heard.enough & (reversed_ + nothing + holes == 0)
    with np.errstate(invalid="ignore"):
        is_late = steady & (np.median(late, axis=1) >= LATE_S) & (late >= LATE_EACH_S).all(axis=1)
        is_low = steady & (level.mean(axis=1) < LOW_MEAN) & (level < LOW_EACH).all(axis=1)
        is_short = steady & (short.mean(axis=1) >= SHORT_MEAN) & (short >= SHORT_EACH).all(axis=1)
        silent = nothing * 2 > AGREE
        silent &= (energy < LITTLE).all(axis=1)
    dark = every.count(HomeAnswer.DARK) * 2 > AGREE
    one_off = _level_of_one(seen, level.mean(axis=1))
    holds = (
        (LikelyCause.DEAD_COMMS, every.enough & dark & (every.count(HomeAnswer.DARK, HomeAnswer.NOTHING) == AGREE)),
        (
            LikelyCause.METER_REVERSED,
            heard.enough & (reversed_ > 0) & (reversed_ + nothing == AGREE) & _meter_reversed(seen, said),
        ),
        (LikelyCause.BATTERY_REVERSED, heard.enough & (reversed_ > 0) & (reversed_ + nothing == AGREE)),
        (LikelyCause.DOES_NOTHING, heard.enough & silent & acknowledged),
        (LikelyCause.DEAD_COMMS, heard.enough & silent),
        (
            LikelyCause.INTERMITTENT,
            heard.enough & (holes > 0) & ((heard.count(HomeAnswer.GOOD) == 0) | (holes * 2 > AGREE)),
        ),
        (LikelyCause.INTERMITTENT, every.enough & _comes_and_goes(said)),
        (LikelyCause.SINCE_UPDATE, _since_update(seen, said) & (is_low | is_short | is_late)),
        (LikelyCause.LATE, is_late),
        (LikelyCause.METER_REVERSED, is_low & _counts_less(seen, said, heard.events)),
        (LikelyCause.UNIT_OFF, is_low & one_off),
        (LikelyCause.POWER_DERATE, is_low),
        (LikelyCause.CAPACITY_FADE, is_short),
    )
    causes: list[LikelyCause | None] = [None] * len(seen.homes)
    agree = heard.events.copy()
    for cause, homes in holds:
        for row in np.flatnonzero(homes):
            if causes[row] is None:
                causes[row] = cause
                agree[row] = every.events[row] if cause is LikelyCause.DEAD_COMMS else heard.events[row]
    return causes, agree


def _within_power(said: Answers) -> Bools:
    """Events that went well and asked for no more power than a home had where it had too little."""
    low = said.answer == int(HomeAnswer.LOW)
    most_w = quantile(said.level * said.asked_w, low, 0.5)
    with np.errstate(invalid="ignore"):
        found: Bools = (said.answer == int(HomeAnswer.GOOD)) & (said.asked_w <= most_w[:, None] * 1.05)
    return found


def trends_of(said: Answers) -> list[Trend]:
    """How each home answers, over its last events."""
    newest, enough = _newest(said.judged, LOOK_BACK, least=AGREE)
    answer = _at(said.answer.astype(np.float64), newest, fill=0.0)
    judged = (answer != int(HomeAnswer.UNJUDGED)).sum(axis=1)
    silent = np.isin(answer, (HomeAnswer.DARK, HomeAnswer.NOTHING)).sum(axis=1)
    responds = 1 - silent / np.maximum(judged, 1)
    late = (answer == int(HomeAnswer.LATE)).sum(axis=1) * 2 > judged
    reversed_ = (answer == int(HomeAnswer.REVERSED)).sum(axis=1) * 2 > judged
    power = _falls(_at(said.level, newest))
    capacity = _falls(1 - _at(said.short, newest))
    found = []
    for row in range(len(answer)):
        trend = Trend.NORMALLY
        if not enough[row]:
            trend = Trend.UNKNOWN
        elif reversed_[row]:
            trend = Trend.REVERSED
        elif responds[row] <= NEVER:
            trend = Trend.NEVER
        elif responds[row] < RARELY:
            trend = Trend.RARELY
        elif late[row]:
            trend = Trend.LATE
        elif power[row]:
            trend = Trend.DEGRADING_POWER
        elif capacity[row]:
            trend = Trend.DEGRADING_CAPACITY
        found.append(trend)
    return found


def _underperformer(
    seen: HomeEvents, said: Answers, lost_wh: Ints, agree: Ints, *, row: int, cause: LikelyCause, trend: Trend
) -> Underperformer:
    judged = np.flatnonzero(said.judged[row])
    agree = agree[agree >= 0]
    wrong = said.answer[row] > int(HomeAnswer.GOOD)
    # the run of bad events that reaches the newest; one that comes and goes has good ones in between
    since = int(judged[wrong[judged]][-1])
    for at in judged[::-1]:
        if wrong[at]:
            since = int(at)
        elif at <= agree[0] and cause is not LikelyCause.INTERMITTENT:
            break
    affected = tuple(int(at) for at in judged if at >= since and wrong[at])
    lost = lost_wh[list(affected)]
    unseen = ~np.isfinite(said.given_wh[row, list(affected)])

    def mean(values: Floats) -> float | None:
        some = values[row, agree]
        return round(float(some[np.isfinite(some)].mean()), 3) if np.isfinite(some).any() else None

    return Underperformer(
        home=seen.homes[row], cause=cause, trend=trend, since=since, affected=affected, events=len(judged[-LOOK_BACK:]),
        lost_wh=int(lost.sum()), unmeasured_wh=int(lost[unseen].sum()), level=mean(said.level),
        energy=mean(said.energy), short=mean(said.short), late_s=mean(said.late_s),
        acknowledged=round(float(np.nan_to_num(seen.acknowledged[row, agree]).mean()), 3),
        coverage=round(float(seen.coverage[row, agree].mean()), 3),
    )  # fmt: skip


def _comes_and_goes(said: Answers) -> Bools:
    """Homes that gave nothing in two of their last events at least, and much between two such. An event in which a home
    is not heard counts where there are three."""
    newest, _ = _newest(said.judged, LOOK_BACK, least=AGREE)
    answer = _at(said.answer.astype(np.float64), newest, fill=0.0)
    fails = np.isin(answer, (HomeAnswer.DARK, HomeAnswer.NOTHING))
    often = ((answer == int(HomeAnswer.NOTHING)).sum(axis=1) >= 2) | (fails.sum(axis=1) >= AGREE)
    works = np.isin(answer, (HomeAnswer.GOOD, HomeAnswer.LOW, HomeAnswer.SHORT, HomeAnswer.LATE, HomeAnswer.HOLES))
    works &= _at(said.energy, newest, fill=0.0) >= MUCH
    before = np.cumsum(fails, axis=1) > 0
    after = np.cumsum(fails[:, ::-1], axis=1)[:, ::-1] > 0
    return np.asarray(often & fails[:, -AGREE:].any(axis=1) & (works & before & after).any(axis=1))


def _since_update(seen: HomeEvents, said: Answers) -> Bools:
    """Homes whose first events since their newest update are worse than those before it, by a step."""
    homes, events = said.answer.shape
    updated = np.zeros((homes, events), dtype=np.bool_)
    updated[:, 1:] = np.diff(seen.firmware, axis=1) != 0
    at = np.where(updated.any(axis=1), events - 1 - np.argmax(updated[:, ::-1], axis=1), -1)
    there = np.arange(events)
    usable = said.judged & np.isfinite(said.energy)
    old, new = usable & (there < at[:, None]), usable & (there >= at[:, None])
    new &= np.cumsum(new, axis=1) <= AGREE
    before, after = (_mean_of(said.energy, used) for used in (old, new))
    with np.errstate(invalid="ignore"):
        found: Bools = (at >= 0) & (old.sum(axis=1) >= 2) & (before - after >= STEP_BACK)
    return found


def _level_of_one(seen: HomeEvents, level: Floats) -> Bools:
    """Homes whose level is that of their batteries without one of them; where these are not known, half of it."""
    every = np.nansum(seen.unit_w, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.where(every > 0, 1 - seen.unit_w / every, np.nan)
        left[every[:, 0] <= 0, 0] = 0.5
    near: Bools = (left > 0) & (np.abs(level[:, None] - left) <= UNIT_TOLERANCE)
    return np.asarray(near.any(axis=1))


def _meter_reversed(seen: HomeEvents, said: Answers) -> Bools:
    """Of homes that seem to charge: those whose battery was emptied meanwhile, or that would have charged more than
    their batteries have room for."""
    backwards = said.answer == int(HomeAnswer.REVERSED)
    change = np.where(backwards, seen.soc_end_pct - seen.soc_pct, np.nan)
    taken = np.where(backwards, -said.given_wh, np.nan)
    room = (100 - seen.soc_pct) / 100 * seen.capacity_wh[:, None]
    with np.errstate(invalid="ignore"):
        emptied = (change < -1).sum(axis=1)
        filled = (change > 1).sum(axis=1)
        too_much = (taken > 1.15 * room + 0.05 * seen.capacity_wh[:, None]).sum(axis=1)
    found: Bools = np.where(emptied + filled > 0, emptied > filled, too_much * 2 > backwards.sum(axis=1))
    return found


def _counts_less(seen: HomeEvents, said: Answers, events: Ints) -> Bools:
    """Homes whose batteries are emptied by much more than their meters count: a part of them counts backwards."""
    emptied_wh = (seen.soc_pct - seen.soc_end_pct) / 100 * seen.capacity_wh[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(emptied_wh > COUNTED_MIN * seen.capacity_wh[:, None], said.given_wh / emptied_wh, np.nan)
    part = _at(share, events)
    return np.asarray(_mean_of(part, np.isfinite(part)) < COUNTED)


def _falls(values: Floats) -> Bools:
    """Whether values fall from event to event, by the median of their slopes."""
    width = values.shape[1]
    one, other = np.triu_indices(width, k=1)
    slopes = (values[:, other] - values[:, one]) / (other - one)
    known = np.isfinite(slopes)
    ordered = np.sort(np.where(known, slopes, np.inf), axis=1)
    middle = np.take_along_axis(ordered, (np.maximum(known.sum(axis=1) - 1, 0) // 2)[:, None], axis=1)[:, 0]
    enough = np.isfinite(values).sum(axis=1) >= 5
    last = values[:, -AGREE:]
    with np.errstate(invalid="ignore"):
        low = np.isfinite(last).any(axis=1) & (_mean_of(last, np.isfinite(last)) < LOW_EACH)
        found: Bools = enough & low & (middle * (width - 1) < -FALLING)
    return found


def _newest(judged: Bools, count: int, *, least: int | None = None) -> tuple[Ints, Bools]:
    """Positions of the newest `count` judged events of each home, oldest first (-1 = there is none), and whether there
    are `least` (all)."""
    behind = np.cumsum(judged[:, ::-1], axis=1)[:, ::-1]
    found = np.full((len(judged), count), -1, dtype=np.int64)
    rows, events = np.nonzero(judged & (behind <= count))
    found[rows, count - behind[rows, events]] = events
    return found, behind[:, 0] >= (count if least is None else least) if judged.shape[1] else np.zeros(
        len(judged), bool
    )


def _at(values: Floats, events: Ints, fill: float = np.nan) -> Floats:
    found: Floats = np.where(events >= 0, np.take_along_axis(values, np.maximum(events, 0), axis=1), fill)
    return found


def _mean_of(values: Floats, used: Bools) -> Floats:
    count = used.sum(axis=1)
    total: Floats = np.where(used, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
