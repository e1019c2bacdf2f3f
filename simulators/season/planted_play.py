"""What the events of a planted street do, in steps of 5 minutes, and what is heard of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulators.homes import Bools, Floats, Ints
from simulators.season.causes import STRENGTHS, Cause, Planted, Spare
from simulators.season.planted_homes import STEP_S, Facts

EFFICIENCY = 0.96
START_S_MAX = 60.0
WANDER = 0.01
SILENT = 0.005
NO_GRID_METER = 0.2
OPT_OUT = 0.5
GAPS = (0.2, 0.5)
TEETHING = 0.5
"""What a new home gives in its first event, of what it is told."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """See the table above."""

    start_ms: Ints
    hours: Ints
    rating_w: Floats
    capacity_wh: Floats
    unit_w: Floats
    area: Ints
    expected_w: Floats
    commanded_w: Floats
    measured_wh: Floats
    grid_wh: Floats
    soc_start_pct: Floats
    soc_end_pct: Floats
    reserve_pct: Floats
    coverage: Floats
    acknowledged: Floats
    opted_out: Bools
    temperature_c: Floats
    firmware: Ints
    days_enrolled: Ints


@dataclass(slots=True, kw_only=True, eq=False)
class _Play:
    """What really happens (n x e x k but where said otherwise), to be changed by causes. `gives`: part of the command
    that the battery follows, negative = it charges; `counts`: part of the truth that its meter counts; `holds` (n x e):
    part of the registered capacity; `limit` (n x e): most it gives, part of the rating."""

    gives: Floats
    heard: Bools
    counts: Floats
    holds: Floats
    limit: Floats
    acknowledged: Floats


def seen_of(rng: np.random.Generator, facts: Facts, planted: Sequence[Planted], spared: Mapping[int, Spare]) -> Seen:
    """Play all events and measure them."""
    n, e, k = facts.shape
    enrolled = facts.days_enrolled >= 0
    soc_start_pct = np.round(facts.soc_pct)
    registered_wh = np.maximum(soc_start_pct - facts.reserve_pct, 0) / 100 * facts.capacity_wh[:, None] * EFFICIENCY
    expected_w = np.minimum(facts.rating_w[:, None], registered_wh / facts.hours[None, :]) * enrolled
    opted_out, stays = _opt_outs(rng, facts, [home for home, why in spared.items() if why is Spare.OPT_OUTS])
    commanded_w = np.where(facts.within, expected_w[:, :, None] * stays, np.nan)
    play = _sound(rng, facts, spared)
    for one in planted:
        _CAUSES[one.cause](rng, play, one, STRENGTHS[one.cause][one.strength])
    true_wh = _energies(rng, facts, play, commanded_w)
    measured_wh = np.where(play.heard & facts.within, _counted(true_wh * play.counts, facts.counter_wh), np.nan)
    load_wh = rng.uniform(300, 2_500, (n, e, 1)) * rng.uniform(0.8, 1.2, (n, e, k)) * STEP_S / 3600
    metered = (rng.random(n) >= NO_GRID_METER)[:, None, None] & play.heard & facts.within
    moved_pct = 100 * np.nansum(true_wh, axis=2) / (facts.capacity_wh[:, None] * play.holds * EFFICIENCY)
    last = np.take_along_axis(play.heard, (facts.within.sum(axis=1) - 1)[None, :, None].repeat(n, 0), axis=2)[:, :, 0]
    told = enrolled & (np.nansum(commanded_w, axis=2) > 0)
    return Seen(
        start_ms=np.array([event.start_ms for event in facts.events], dtype=np.int64),
        hours=facts.hours,
        rating_w=facts.rating_w,
        capacity_wh=facts.capacity_wh,
        unit_w=facts.unit_w,
        area=facts.area,
        expected_w=expected_w,
        commanded_w=commanded_w,
        measured_wh=measured_wh,
        grid_wh=np.where(metered, np.round(load_wh - true_wh), np.nan),
        soc_start_pct=np.where(play.heard[:, :, 0], soc_start_pct, np.nan),
        soc_end_pct=np.where(last, np.round(np.clip(facts.soc_pct - moved_pct, 0, 100)), np.nan),
        reserve_pct=facts.reserve_pct,
        coverage=(play.heard & facts.within).sum(axis=2) / facts.within.sum(axis=1),
        acknowledged=np.where(told, play.acknowledged, np.nan),
        opted_out=opted_out,
        temperature_c=facts.temperature_c,
        firmware=facts.firmware,
        days_enrolled=facts.days_enrolled,
    )


def _opt_outs(rng: np.random.Generator, facts: Facts, homes: Sequence[int]) -> tuple[Bools, Bools]:
    """Who leaves which event (n x e), and the steps in which each still takes part."""
    n, e, k = facts.shape
    leaves = np.zeros((n, e), dtype=np.bool_)
    leaves[homes] = rng.random((len(homes), e)) < OPT_OUT
    leaves |= rng.random((n, e)) < 0.002
    until = np.where(leaves, np.where(rng.random((n, e)) < 0.5, 0, rng.integers(k, size=(n, e))), k)
    return leaves, np.arange(k)[None, None, :] < until[:, :, None]


def _sound(rng: np.random.Generator, facts: Facts, spared: Mapping[int, Spare]) -> _Play:
    """Everybody well, but for what spoils a home now and then and is no cause."""
    n, e, k = facts.shape
    gives = rng.normal(1.0, WANDER, (n, e, k)).clip(0.95, 1.02)
    gives[:, :, 0] *= 1 - rng.uniform(0, START_S_MAX / STEP_S, (n, e))
    silent = rng.random((n, e)) < SILENT
    heard = np.broadcast_to(~silent[:, :, None], (n, e, k)).copy()
    for home, why in spared.items():
        if why is Spare.GAPS:
            heard[home] &= rng.random((e, k)) >= rng.uniform(*GAPS, (e, 1))
        elif why is Spare.NEW:
            first = int(np.argmax(facts.days_enrolled[home] >= 0))
            gives[home, first] *= TEETHING
    return _Play(
        gives=gives,
        heard=heard,
        counts=np.ones((n, 1, 1)) * np.ones((n, e, 1)),
        holds=np.ones((n, e)),
        limit=facts.hot_limit.copy(),
        acknowledged=np.where(silent, 0.0, rng.choice([1.0, 0.98], size=(n, e), p=[0.9, 0.1])),
    )


def _energies(rng: np.random.Generator, facts: Facts, play: _Play, commanded_w: Floats) -> Floats:
    """What each battery truly gave per step, Wh: within heat, its reserve, and full."""
    n, e, k = facts.shape
    usable_wh = facts.capacity_wh[:, None] * play.holds
    out_wh = np.maximum(facts.soc_pct - facts.reserve_pct, 0) / 100 * usable_wh * EFFICIENCY
    in_wh = (100 - facts.soc_pct) / 100 * usable_wh / EFFICIENCY
    most_w = facts.rating_w[:, None] * play.limit
    true_wh = np.full((n, e, k), np.nan)
    for step in range(k):
        wanted_w = np.nan_to_num(commanded_w[:, :, step]) * play.gives[:, :, step]
        wh = np.clip(np.clip(wanted_w, -most_w, most_w) * STEP_S / 3600, -in_wh, out_wh)
        out_wh, in_wh = out_wh - wh, in_wh + wh
        true_wh[:, :, step] = np.where(facts.within[:, step], wh, np.nan)
    return true_wh


def _counted(wh: Floats, step_wh: Floats) -> Floats:
    """By a counter of whole steps that stands somewhere within one at the start."""
    step = step_wh[:, None, None]
    total = np.nancumsum(wh, axis=2) + step / 2
    return np.diff(np.floor(total / step) * step, axis=2, prepend=np.zeros((*wh.shape[:2], 1)))


# -- causes: each changes what happens to one home from an event on ------------------------------------------------


def _dead_comms(rng: np.random.Generator, play: _Play, one: Planted, part: float) -> None:
    e, k = play.heard.shape[1] - one.since, play.heard.shape[2]
    dead = np.arange(k)[None, :] >= np.round(k * (1 - part * rng.uniform(0.9, 1.0, (e, 1))))
    play.heard[one.home, one.since :] &= ~dead
    play.gives[one.home, one.since :][dead] = 0.0
    play.acknowledged[one.home, one.since :] = 1 - dead.mean(axis=1)


def _derated(rng: np.random.Generator, play: _Play, one: Planted, part: float) -> None:
    play.limit[one.home, one.since :] *= 1 - part


def _faded(rng: np.random.Generator, play: _Play, one: Planted, part: float) -> None:
    play.holds[one.home, one.since :] = 1 - part


def _late(rng: np.random.Generator, play: _Play, one: Planted, minutes: float) -> None:
    e, k = play.gives.shape[1] - one.since, play.gives.shape[2]
    steps = minutes * 60 / STEP_S * rng.uniform(0.95, 1.1, (e, 1))
    play.gives[one.home, one.since :] *= np.clip(np.arange(1, k + 1)[None, :] - steps, 0.0, 1.0)


def _sign(rng: np.random.Generator, play: _Play, one: Planted, part: float) -> None:
    play.gives[one.home, one.since :] *= -part


def _meter(rng: np.random.Generator, play: _Play, one: Planted, phases: float) -> None:
    play.counts[one.home, one.since :] = 1 - 2 * phases / 3


def _scaled(rng: np.random.Generator, play: _Play, one: Planted, part: float) -> None:
    play.gives[one.home, one.since :] *= 1 - part


def _nothing(rng: np.random.Generator, play: _Play, one: Planted, part: float) -> None:
    e, k = play.gives.shape[1] - one.since, play.gives.shape[2]
    play.gives[one.home, one.since :] = part * rng.uniform(0.5, 1.5, (e, 1)) * rng.uniform(0.8, 1.2, (e, k))


def _intermittent(rng: np.random.Generator, play: _Play, one: Planted, part: float) -> None:
    """Blocks of 5 to 20 minutes, at rest or not."""
    e, k = play.gives.shape[1] - one.since, play.gives.shape[2]
    for event in range(e):
        rests = np.repeat(rng.random(k) < part, rng.integers(1, 5, size=k))[:k]
        play.gives[one.home, one.since + event][rests] = 0.0


_CAUSES = {
    Cause.DEAD_COMMS: _dead_comms,
    Cause.POWER_DERATE: _derated,
    Cause.CAPACITY_FADE: _faded,
    Cause.LATE: _late,
    Cause.SIGN_REVERSED: _sign,
    Cause.METER_REVERSED: _meter,
    Cause.UNIT_OFF: _scaled,
    Cause.DOES_NOTHING: _nothing,
    Cause.INTERMITTENT: _intermittent,
    Cause.WORSE_SINCE_UPDATE: _scaled,
}
