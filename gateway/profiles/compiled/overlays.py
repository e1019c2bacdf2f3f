"""Which overlays of a product may hold at once, and what they make together."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from gateway.profiles.language.points import Match, version_of
from gateway.profiles.language.product import Overlay


def together(overlays: Sequence[Overlay]) -> Overlay:
    """Several overlays as one, in order: where two give the same name or section, the later one counts."""
    cells: dict[str, Any] = {}
    for overlay in overlays:
        for name in type(overlay).model_fields:
            value = getattr(overlay, name)
            if isinstance(value, dict):
                cells[name] = cells.get(name, {}) | value
            elif value not in (None, ""):
                cells[name] = value
    named = "+".join(overlay.name for overlay in overlays)
    when = tuple(chain.from_iterable(overlay.when for overlay in overlays))
    return Overlay.model_construct(**(cells | {"name": named, "when": when}))


def combinations(overlays: Sequence[Overlay]) -> list[tuple[int, ...]]:
    """Every set of overlays that may hold at once, by their numbers: all but those whose tests exclude each other."""
    found: list[tuple[int, ...]] = [()]
    for i, overlay in enumerate(overlays):
        found += [(*known, i) for known in found if not any(_exclude(overlays[k], overlay) for k in known)]
    return found[1:]


def _exclude(one: Overlay, other: Overlay) -> bool:
    return any(a.point == b.point and _differ(a, b) for a in one.when for b in other.when)


def _differ(a: Match, b: Match) -> bool:
    """Whether no value meets both: different texts or whole numbers, texts that begin differently, or versions of
    ranges apart."""
    if a.equals and b.equals:
        plain = all(isinstance(value, str | int) for value in (*a.equals, *b.equals))
        return plain and not set(a.equals) & set(b.equals)
    for later, earlier in ((a, b), (b, a)):
        if later.from_version is not None and earlier.before_version is not None:
            return (version_of(earlier.before_version) or ()) <= (version_of(later.from_version) or ())
    if a.begins and b.begins:
        return not any(x.startswith(y) or y.startswith(x) for x in a.begins for y in b.begins)
    texts, starts = (a.equals, b.begins) if a.equals else (b.equals, a.begins)
    return bool(texts and starts) and not any(isinstance(text, str) and text.startswith(starts) for text in texts)
