"""Homes that answer events, by hand: sound ones, and what each kind of fault makes of their power."""

import numpy as np
from numpy.typing import NDArray

from gateway.domain.programs.home_events import HomeEvents, home_events

STEPS = 24
WANTED_W = 4_000.0
STEP_WH = WANTED_W / 12


def street(homes: int = 12, events: int = 6, *, wander: float = 0.01, seed: int = 1) -> HomeEvents:
    """Homes that give two hours of 4 kW in each event, of 10 kWh, from 95 % down."""
    draw = np.random.default_rng(seed)
    shape = (homes, events)
    given = STEP_WH * (1 + wander * draw.standard_normal((*shape, STEPS)))
    given[..., 0] *= 0.8
    return home_events(
        tuple(f"home-{at}" for at in range(homes)),
        expected_w=np.full(shape, WANTED_W),
        commanded_w=np.full((*shape, STEPS), WANTED_W),
        delivered_wh=given,
        acknowledged=np.ones(shape),
        enrolled_days=np.full(shape, 100.0),
        soc_pct=np.full(shape, 95.0),
        temperature_c=np.full(shape, 25.0),
        firmware=np.full(shape, 1),
        capacity_wh=np.full(homes, 10_000.0),
        unit_w=np.tile([2_000.0, 2_000.0], (homes, 1)),
        neighbourhood=np.zeros(homes, dtype=np.int64),
    )


def given(
    seen: HomeEvents, home: int, factor: NDArray[np.float64] | float, *, since: int = 0, until: int | None = None
) -> None:
    """Multiply what a home gave, by one factor or by step, in its events from `since` on."""
    seen.delivered_wh[home, since:until] *= factor


def ends_at(part: float) -> NDArray[np.float64]:
    """Full power until a part of the event is over, and nothing after."""
    return np.clip(part * STEPS - np.arange(STEPS), 0.0, 1.0)


def begins_after(late_s: float) -> NDArray[np.float64]:
    """Nothing, and full power from so many seconds on."""
    return np.clip(np.arange(STEPS) + 1 - late_s / 300, 0.0, 1.0)


def quiet(seen: HomeEvents, home: int, *, events: slice = slice(None), acknowledged: float = np.nan) -> None:
    """Nothing is heard of a home."""
    seen.delivered_wh[home, events] = np.nan
    seen.coverage[home, events] = 0.0
    seen.acknowledged[home, events] = acknowledged
