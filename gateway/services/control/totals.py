"""Sums over running events, by program."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.domain.control.progress import Progress
from gateway.domain.events.attribution import Credit
from gateway.domain.events.lifecycle import BookEntry, EventState


@dataclass(slots=True)
class EventTotals:
    """Power of a program's running events, W. `attributed_w`: what its events are credited with; `shared_w`: what
    serves them and is credited to others."""

    target_w: float = 0.0
    commanded_w: float = 0.0
    delivered_w: float = 0.0
    assumed_w: float = 0.0
    unserved_w: float = 0.0
    attributed_w: float = 0.0
    shared_w: float = 0.0


def totals(
    entries: Iterable[BookEntry],
    progress: Callable[[BookEntry], Progress | None],
    credit: Callable[[BookEntry], Credit | None],
) -> dict[str, EventTotals]:
    sums: dict[str, EventTotals] = {}
    for entry in entries:
        found = progress(entry)
        if found is not None and entry.state is EventState.ACTIVE:
            total = sums.setdefault(entry.request.program, EventTotals())
            total.target_w += found.target_w
            total.commanded_w += found.commanded_w
            total.delivered_w += found.delivered_w
            total.assumed_w += found.assumed_w
            total.unserved_w += found.unserved_w
            own = credit(entry)
            if own is not None:
                total.attributed_w += own.own_w
                total.shared_w += own.shared_w
    return sums
