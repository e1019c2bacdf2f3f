"""Day-matching baselines: the mean of like days before, adjusted by what the event's day was like.

`X in Y` takes of the last Y like days the X with the most energy in the event's hours; of two days that have the same,
the one that is given first. The adjustment is the ratio of the event's day to those days in a window, within two caps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from simulators.settlement import Exact


@dataclass(frozen=True, slots=True, kw_only=True)
class LikeDay:
    """A day before the event: mean load in the event's hours and in the adjustment window, kW."""

    event_kw: Exact
    window_kw: Exact


def chosen(days: Sequence[LikeDay], of: int, take: int) -> list[LikeDay]:
    """The `take` highest of the last `of` days."""
    ranked = sorted(enumerate(days[:of]), key=lambda one: (-one[1].event_kw, one[0]))
    return [day for _, day in ranked[:take]]


def baseline_kw(days: Sequence[LikeDay], of: int, take: int, window_kw: Exact, least: Exact, most: Exact) -> Exact:
    """The adjusted baseline. `window_kw`: the event's day in the window; `least` and `most` bound the ratio."""
    some = chosen(days, of, take)
    mean = sum((day.event_kw for day in some), Exact(0)) / len(some)
    before = sum((day.window_kw for day in some), Exact(0)) / len(some)
    ratio = window_kw / before if before != 0 else Exact(1)
    return mean * min(max(ratio, least), most)


def response_kw(base_kw: Exact, site_kw: Exact, *, exports_counted: bool) -> Exact:
    """Baseline less what the site drew (kW, + = import); exports are nothing where they do not count."""
    return base_kw - (site_kw if exports_counted else max(site_kw, Exact(0)))


def generator_kw(battery_kw: Exact, load_kw: Exact, typical_kw: Exact) -> Exact:
    """Metered generator output: what the battery gave to the home's own load, less what it typically gives."""
    return min(battery_kw, load_kw) - typical_kw
