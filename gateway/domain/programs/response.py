"""How a home answered one event: its level, when it began and ended, and one word for it.

What weather does to all homes alike, an owner's reserve and a battery that was not full are no fault of a home: a step
counts only while its energy could have lasted, and its power is compared with that of homes in the same weather.
"""

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gateway.domain.programs.home_events import HomeEvents
from gateway.domain.types import Bools, Floats, Ints, Small

DAYS_MIN = 14.0
"""Days of enrollment in which nothing counts against a home."""
WANT_W_MIN = 200.0
KNOWN_MIN = 0.6
"""Share of the steps that must be measured."""
DARK_MAX = 0.7
"""Share of an event, and of its commands, below which a home is not reached."""
NOTHING_MAX, PEAK_MAX = 0.27, 0.6
"""A home that gives less than this in all, and never more than that, does nothing."""
REVERSED_MAX = -0.04
ON = 0.5
"""Part of its level at which a home counts as on."""
HOLES_MIN = 0.2
LATE_S = 200.0
SHORT_MIN = 0.08
"""Share of the energy that could have lasted which is missing at the end."""
LEVEL_MIN = 0.9
FAIR_STEPS_MIN = 4
LASTING = 0.97
"""Part of the energy that is expected which must be given before a home may end."""
ROUNDED = 1.02
PEERS_MIN = 5
PEERS_SHARE = 0.75
"""Homes in one weather are measured by the power that a quarter of them exceeds."""
TEMPERATURE_STEP_C = 3.0
HOT_C, HOT_PART = 40.0, 0.97
"""From this temperature on, and where homes in one weather give less than that part, a battery may protect itself."""
HOT_LEVEL_MIN = 0.5
"""No heat leaves a sound home less than this."""
COUNTER_STEPS_WH = (1_000, 500, 100, 50, 10, 5, 1)
COUNTER_PARTS = 3
"""Steps of a counter that power is looked at over, at least."""
SOC_DOUBT = 0.005
"""A SoC in whole percent is wrong by this part of the capacity at most."""
DOUBT_MAX = 0.05
"""Part of the wanted energy that counter and SoC may be wrong by where a level is judged."""


class HomeAnswer(IntEnum):
    """How a home answered. `UNJUDGED`: not asked, opted out, too new, too little energy, not measured enough, or so hot
    that its power says nothing."""

    UNJUDGED = 0
    GOOD = 1
    LOW = 2
    SHORT = 3
    LATE = 4
    HOLES = 5
    NOTHING = 6
    REVERSED = 7
    DARK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Arrays homes x events. `answer`: an `HomeAnswer`. `level`: power while on, `energy`: all of it, both as a part of
    what was wanted and of what homes in the same weather gave; `late_s` and `early_s`: seconds missing at both ends,
    `short`: the latter as a share; `holes`: share of steps without power between; `wanted_wh`: what could have been
    given, `given_wh` what of it was measured (NaN: nothing was); `asked_w`: the mean command; `weather`: the part of it
    that homes in its weather gave."""

    answer: Small
    level: Floats
    energy: Floats
    late_s: Floats
    early_s: Floats
    short: Floats
    holes: Floats
    wanted_wh: Floats
    given_wh: Floats
    asked_w: Floats
    weather: Floats

    @property
    def judged(self) -> Bools:
        """Which events count."""
        found: Bools = self.answer != int(HomeAnswer.UNJUDGED)
        return found

    def until(self, events: int) -> "Answers":
        """The first `events` of them."""
        return Answers(**{each.name: getattr(self, each.name)[:, :events] for each in fields(self)})


def answers(seen: HomeEvents) -> Answers:
    """How every home answered every event."""
    step_h = seen.step_s / 3600
    wanted_wh = seen.commanded_w * step_h
    fair = _lasting(seen, wanted_wh)
    known = np.isfinite(seen.delivered_wh) & fair
    fair_n, known_n = fair.sum(axis=2), known.sum(axis=2)
    counter_wh = _counter_step(seen.delivered_wh)
    part = _parts(seen.delivered_wh, wanted_wh, known, counter_wh)

    level, on = _level(part, known)
    asked = ~seen.opted_out & (seen.enrolled_days > DAYS_MIN) & (fair_n >= np.minimum(FAIR_STEPS_MIN, seen.steps))
    asked &= fair_n * 2 > seen.steps
    measured = asked & (known_n >= KNOWN_MIN * fair_n)
    asked_w = _sum(seen.commanded_w, fair) / np.maximum(fair_n, 1)
    weather = _weather(seen, level, asked_w, measured)
    hot = (weather < HOT_PART) | (_temperature(seen) >= HOT_C)
    level = level / weather
    given_wh, known_wh, fair_wh = (
        _sum(values, used) for values, used in ((seen.delivered_wh, known), (wanted_wh, known), (wanted_wh, fair))
    )
    energy = np.where(known_n > 0, given_wh / np.maximum(known_wh, 1e-9), np.nan) / weather
    late_s, early_s, holes = _ends(part / weather[..., None], on, known, level, seen.step_s)
    short = early_s / np.maximum(fair_n * seen.step_s, 1)
    peak = quantile(part, known, 0.95)
    doubt_wh = counter_wh[:, None] + SOC_DOUBT * np.nan_to_num(seen.capacity_wh)[:, None]

    answer = np.full(level.shape, int(HomeAnswer.GOOD), dtype=np.int8)
    ends_early, begins_late = (short >= SHORT_MIN) & (early_s >= seen.step_s / 2), late_s >= LATE_S
    for kind, holds in (
        (HomeAnswer.LOW, level < LEVEL_MIN),
        (HomeAnswer.UNJUDGED, hot & ~(level < HOT_LEVEL_MIN)),
        (HomeAnswer.SHORT, ends_early),
        (HomeAnswer.LATE, begins_late),
        (HomeAnswer.HOLES, (holes >= HOLES_MIN) | (ends_early & begins_late)),
        (HomeAnswer.UNJUDGED, doubt_wh > DOUBT_MAX * fair_wh),
        (
            HomeAnswer.NOTHING,
            (energy < NOTHING_MAX) & (peak < PEAK_MAX) & (counter_wh[:, None] < NOTHING_MAX * fair_wh),
        ),
        (HomeAnswer.REVERSED, (energy < REVERSED_MAX) & (given_wh < -2 * counter_wh[:, None])),
    ):
        answer[holds] = kind
    answer[~measured] = HomeAnswer.UNJUDGED
    answer[asked & (seen.coverage < DARK_MAX) & ~(seen.acknowledged > DARK_MAX)] = HomeAnswer.DARK
    return Answers(
        answer=answer, level=level, energy=energy, late_s=late_s, early_s=early_s, short=short, holes=holes,
        wanted_wh=np.where(asked, fair_wh * weather, 0.0), given_wh=np.where(known_n > 0, given_wh, np.nan),
        asked_w=asked_w, weather=weather,
    )  # fmt: skip


def _lasting(seen: HomeEvents, wanted_wh: Floats) -> Bools:
    """Steps in which power was asked, as long as the energy that was expected lasts."""
    width = seen.delivered_wh.shape[2]
    asked = (seen.commanded_w >= WANT_W_MIN) & (np.arange(width) < seen.steps[:, None])
    last_wh = seen.expected_w * seen.steps * seen.step_s / 3600 * LASTING
    used_wh = np.cumsum(np.where(asked, wanted_wh, 0.0), axis=2)
    # a command of the mean that is expected lasts to the end
    found: Bools = asked & (
        (used_wh <= last_wh[..., None]) | (seen.commanded_w <= seen.expected_w[..., None] * ROUNDED)
    )
    return found


def _counter_step(delivered_wh: Floats) -> Floats:
    """The step of each home's counter in Wh, as far as it is a usual one; 0 = finer."""
    found = np.zeros(len(delivered_wh))
    known = np.isfinite(delivered_wh)
    values = np.where(known, delivered_wh, 0.0)
    for step in reversed(COUNTER_STEPS_WH):
        whole = np.abs(values - np.rint(values / step) * step) < 0.01
        found[whole.all(axis=(1, 2)) & (values != 0).any(axis=(1, 2))] = step
    return found


def _parts(delivered_wh: Floats, wanted_wh: Floats, known: Bools, counter_wh: Floats) -> Floats:
    """What was given in each step as a part of what was wanted; of a home whose counter is coarse for its power, the
    mean of as many steps as show it. NaN = unknown."""
    width = known.shape[2]
    mean_wh = _sum(wanted_wh, known) / np.maximum(known.sum(axis=2), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        needed = np.ceil(COUNTER_PARTS * counter_wh[:, None] / mean_wh)
    needed = np.clip(np.nan_to_num(needed, nan=1.0, posinf=width), 1, max(width, 1)).astype(np.int64)
    given, wanted = np.where(known, delivered_wh, 0.0), np.where(known, wanted_wh, 0.0)
    found = np.full(known.shape, np.nan)
    for steps in np.unique(needed):
        rows = needed == steps
        begins = np.arange(0, width, steps)
        sums = [
            np.repeat(np.add.reduceat(values[rows], begins, axis=1), steps, axis=1)[:, :width]
            for values in (given, wanted)
        ]
        with np.errstate(invalid="ignore", divide="ignore"):
            found[rows] = sums[0] / sums[1]
    return np.where(known, found, np.nan)


def _level(part: Floats, known: Bools) -> tuple[Floats, Bools]:
    """Mean of the steps at power (without the first and the last of them, which are cut by both ends), and which those
    are. NaN where no step has power."""
    high = quantile(part, known, 0.7)
    high = np.where(high >= NOTHING_MAX, high, quantile(part, known, 0.9))
    on = known & (part >= ON * np.maximum(high, 0.1)[..., None])
    inner = on.copy()
    inner[..., 1:] &= on[..., :-1]
    inner[..., :-1] &= on[..., 1:]
    inner[..., 0] = inner[..., -1] = False
    used = np.where((inner.sum(axis=2) >= 3)[..., None], inner, on)
    return _mean(part, used, used.sum(axis=2)), on


def _weather(seen: HomeEvents, level: Floats, asked_w: Floats, measured: Bools) -> Floats:
    """The part of what was asked that weather leaves: homes in one weather are cut at one part of their rating, which
    those that are asked as much show, or the most that are asked. 1 where too few are seen."""
    degrees = np.nan_to_num(np.floor(_temperature(seen) / TEMPERATURE_STEP_C), nan=-1.0)
    # even numbers are neighbourhoods, odd ones temperatures
    place = np.where(seen.neighbourhood[:, None] >= 0, seen.neighbourhood[:, None] * 2, degrees * 2 + 1)
    rating_w = np.nansum(seen.unit_w, axis=1)[:, None]
    share = np.where(rating_w > 0, asked_w / np.maximum(rating_w, 1), 1.0)
    found = np.ones(level.shape)
    usable = measured & np.isfinite(level)
    for event in range(level.shape[1]):
        for group in np.unique(place[usable[:, event], event]):
            members = np.flatnonzero(place[:, event] == group)
            peers = members[usable[members, event]]
            if len(peers) >= PEERS_MIN:
                found[members, event] = _cut(share[members, event], share[peers, event], level[peers, event])
    return np.maximum(found, 0.2)


def _temperature(seen: HomeEvents) -> Floats:
    """The temperature of each battery, or that of the middle one of its neighbourhood; NaN = neither is known."""
    found = seen.temperature_c.copy()
    for place in np.unique(seen.neighbourhood[seen.neighbourhood >= 0]):
        members = np.flatnonzero(seen.neighbourhood == place)
        known = np.isfinite(found[members])
        middle = quantile(found[members].T, known.T, 0.5)
        found[members] = np.where(known, found[members], middle)
    return found


def _cut(share: Floats, peer_share: Floats, peer_level: Floats) -> Floats:
    """The part of what it was asked that each home in one weather could give."""
    order = np.argsort(-peer_share, kind="stable")
    peer_share, peer_level = peer_share[order], peer_level[order]
    least = np.minimum(0.95 * share, peer_share[PEERS_MIN - 1])
    as_much = peer_share >= least[:, None]
    given = quantile(np.broadcast_to(peer_share * peer_level, as_much.shape), as_much, PEERS_SHARE)
    level = quantile(np.broadcast_to(peer_level, as_much.shape), as_much, PEERS_SHARE)
    return np.where(level < 0.97, np.minimum(1.0, given / np.maximum(share, 1e-9)), 1.0)


def _ends(part: Floats, on: Bools, known: Bools, level: Floats, step_s: int) -> tuple[Floats, Floats, Floats]:
    """Seconds missing before the first step with power and after the last, and the share without it between."""
    there = np.arange(part.shape[2])
    any_on = on.any(axis=2)
    first = np.where(any_on, np.argmax(on, axis=2), 0)
    last = np.where(any_on, part.shape[2] - 1 - np.argmax(on[..., ::-1], axis=2), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        missing = np.where(known, np.clip(1 - part / level[..., None], 0.0, 1.0), 0.0)
    late = np.where(there <= first[..., None], missing, 0.0).sum(axis=2) * step_s
    early = np.where(there >= last[..., None], missing, 0.0).sum(axis=2) * step_s
    between = known & (there > first[..., None]) & (there < last[..., None])
    holes = (between & ~on).sum(axis=2) / np.maximum(between.sum(axis=2), 1)
    return np.where(any_on, late, np.nan), np.where(any_on, early, np.nan), holes


def quantile(values: Floats, known: Bools, share: float) -> Floats:
    """The value that `share` of the known ones along the last axis do not exceed; NaN where none is known."""
    ordered = np.sort(np.where(known, values, np.inf), axis=-1)
    at: NDArray[np.int64] = np.floor(share * np.maximum(known.sum(axis=-1) - 1, 0)).astype(np.int64)
    found: Floats = np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0]
    return np.where(np.isfinite(found), found, np.nan)


def _sum(values: Floats, used: Bools) -> Floats:
    found: Floats = np.where(used, values, 0.0).sum(axis=-1)
    return found


def _mean(values: Floats, used: Bools, count: Ints) -> Floats:
    return np.where(count > 0, _sum(values, used) / np.maximum(count, 1), np.nan)
