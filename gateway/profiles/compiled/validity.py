"""Makes values unknown that other points declare invalid: a product's plausible 0 while it does not know."""

from collections.abc import Iterable, Mapping

from gateway.profiles.compiled.points import DecodeCounts, Value, fall_back
from gateway.profiles.compiled.readings import holds
from gateway.profiles.language.points import Point


def drop_invalid(
    guarded: Mapping[str, Point], read: Iterable[str], values: dict[str, Value], counts: DecodeCounts
) -> None:
    """Make the invalid ones of the points just `read` unknown, or what their fallbacks say. All are judged before any
    is dropped, since they may judge each other."""
    found = [name for name in read if name in guarded and values.get(name) is not None]
    invalid = [name for name in found if not _valid(guarded[name], values)]
    for name in invalid:
        values[name] = None
    for name in invalid:
        if (fallback := guarded[name].fallback) is not None:
            fall_back(name, fallback, values)
    counts.sentinel += len(invalid)


def _valid(point: Point, values: Mapping[str, Value]) -> bool:
    """Whether a value means anything. What is not known speaks for nothing: it neither validates nor excuses."""
    confirmed = all(holds(match, values) for match in point.valid_when)
    excused = not point.invalid_when or any(holds(match, values) is False for match in point.invalid_when)
    return confirmed and excused
