"""A street in which some batteries underperform, for those who are to find them: who does is known here, from a seed.

`planted_street(seed)` gives a `Street`: `seen` is all that a finder may look at, `planted` says who underperforms and
why, `spared` who looks as if and must not be named. n homes, e events, k steps of 5 minutes from an event's start:

| array of `Seen` | shape | unit, sign |
|---|---|---|
| `start_ms` | e | UTC ms |
| `hours` | e | length of the event; the steps beyond its end are NaN everywhere |
| `rating_w`, `capacity_wh` | n | as registered; a home's units together |
| `unit_w` | n x 2 | rating of each unit; the second is NaN where there is one unit |
| `area` | n | number of the neighbourhood |
| `expected_w` | n x e | mean power that rating, registered capacity, SoC and reserve at the start allow over the event;
  0 = not enrolled |
| `commanded_w` | n x e x k | what it was told to give; 0 = nothing (not enrolled, opted out since) |
| `measured_wh` | n x e x k | what its own meter counted, discharge less charge; NaN = nothing was heard |
| `grid_wh` | n x e x k | at the home's connection, + = import; NaN = not heard, or no such meter |
| `soc_start_pct`, `soc_end_pct` | n x e | as reported, in steps of 1; NaN = not heard |
| `reserve_pct` | n x e | the owner's, at the start |
| `coverage` | n x e | 0 to 1, part of the event that was heard |
| `acknowledged` | n x e | 0 to 1, part of the commands that the device acknowledged; NaN = none was sent |
| `opted_out` | n x e | the owner left the event, before or in the middle of it |
| `temperature_c` | n x e | at the battery; NaN = not known |
| `firmware` | n x e | number of the version; it grows with an update |
| `days_enrolled` | n x e | since the home joined; negative = not yet |

A sound home begins up to a minute late, wanders by 1 %, is silent for one event in 200, and counts in steps of 1, 10 or
100 Wh. On a hot day all batteries of an area give less than they are told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from simulators.season.causes import STRENGTHS, Cause, Planted, Spare
from simulators.season.official import Event, events_of, official_hours
from simulators.season.planted_homes import facts_of
from simulators.season.planted_play import Seen, seen_of

EVENTS_AFTER = 5
"""So many events at least come after a cause has begun."""

EVENTS_BEFORE = 3
"""And so many before an update, so that there is something to be worse than."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Street:
    """What is seen, and what is so."""

    seed: int
    seen: Seen
    planted: tuple[Planted, ...]
    spared: dict[int, Spare]

    @property
    def sound_home_months(self) -> int:
        """Months in which homes without a cause were enrolled and had an event: what false names are counted over."""
        months = np.array([_month(start_ms) for start_ms in self.seen.start_ms.tolist()])
        sound = np.ones(len(self.seen.rating_w), dtype=np.bool_)
        sound[[one.home for one in self.planted]] = False
        enrolled = self.seen.days_enrolled[sound] >= 0
        return int(sum(enrolled[:, months == month].any(axis=1).sum() for month in np.unique(months)))


def _month(utc_ms: int) -> int:
    return datetime.fromtimestamp(utc_ms / 1000, UTC).month


def planted_street(
    seed: int, *, homes: int = 1_000, each: int = 3, spared: int = 20, events: Sequence[Event] | None = None
) -> Street:
    """`each` homes of every cause and strength and `spared` of every reason not to be named, among `homes`. The events
    are those of DSGS in 2025 where none are given. Raises ValueError if there are too few homes or events."""
    some = list(events if events is not None else events_of(official_hours()))
    faulty = each * sum(len(strengths) for strengths in STRENGTHS.values())
    if faulty + spared * len(Spare) > homes:
        raise ValueError(f"{homes} homes are too few for {faulty} that underperform and {spared * len(Spare)} spared")
    if len(some) <= EVENTS_BEFORE + EVENTS_AFTER:
        raise ValueError(f"more than {EVENTS_BEFORE + EVENTS_AFTER} events are needed, not {len(some)}")
    rng = np.random.default_rng([seed, 21])
    order = rng.permutation(homes)
    kinds = [(cause, strength) for cause in Cause for strength in range(3) for _ in range(each)]
    planted = tuple(
        Planted(home=int(order[i]), cause=cause, strength=strength, since=_begins(rng, cause, len(some)))
        for i, (cause, strength) in enumerate(kinds)
    )
    reasons = [reason for reason in Spare for _ in range(spared)]
    spares = {int(order[len(kinds) + i]): reason for i, reason in enumerate(reasons)}
    facts = facts_of(rng, homes, some, planted, spares)
    return Street(seed=seed, seen=seen_of(rng, facts, planted, spares), planted=planted, spared=spares)


def _begins(rng: np.random.Generator, cause: Cause, events: int) -> int:
    return int(rng.integers(EVENTS_BEFORE if cause is Cause.WORSE_SINCE_UPDATE else 0, events - EVENTS_AFTER))
