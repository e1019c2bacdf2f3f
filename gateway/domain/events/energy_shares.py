"""Which energy is whose, where several events of an evening want the same batteries: higher rank comes first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gateway.domain.events.lifecycle import OVER, BookEntry, EventState
from gateway.domain.events.program_rules import occurrences
from gateway.domain.events.request import EventKind, EventRequest, Target, Want, Way
from gateway.domain.rules.calendar import Span
from gateway.domain.types import Floats, Slots

MS_PER_H = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyAsk:
    """The next occurrence of an event, or what is left of the one that runs, as a claim on the energy of `members`.
    `wh`: what it asks for; None = as much as there is. `yields`: its program leaves the rest to others."""

    entry: BookEntry
    span: Span
    wh: float | None
    members: Slots
    yields: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyLeft:
    """`left_wh`: what the batteries of an event hold above their reserves now, less what events of higher rank ask for
    of it."""

    ask: EnergyAsk
    left_wh: float


def rank(entry: BookEntry, *, yields: bool) -> tuple[bool, int, bool, int, str]:
    """Sort key of claims on energy: as events rank that run at one time."""
    request = entry.request
    return yields, request.priority, request.voluntary, -entry.decided_ms, request.id


def next_span(entry: BookEntry, from_ms: int, until_ms: int) -> Span | None:
    """When an event takes energy next, from `from_ms` on; None = not before `until_ms`, or never."""
    request = entry.request
    if entry.state in OVER or entry.state is EventState.REJECTED or request.kind is EventKind.DRY_RUN:
        return None
    if not any(_gives(target) for target in request.targets):
        return None
    found = next(occurrences(request, from_ms), None)
    return None if found is None or found[0] >= until_ms else (max(found[0], from_ms), min(found[1], until_ms))


def asked_wh(request: EventRequest, span: Span, devices: int) -> float | None:
    """What an event asks of `devices` in a span of its occurrence; None = as much as there is, or nobody can say."""
    legs = [(leg.after_ms, leg.until_ms, leg.target) for leg in request.legs] or [
        (0, request.length_ms, request.target)
    ]
    began_ms = request.occurrence_ms(span[0])
    total_wh = 0.0
    for after_ms, until_ms, target in legs:
        lasts_ms = min((began_ms or span[0]) + until_ms, span[1]) - max((began_ms or span[0]) + after_ms, span[0])
        if lasts_ms <= 0 or not _gives(target):
            continue
        if target.want not in (Want.POWER, Want.DEVICE_POWER) or target.power_w is None:
            return None
        each = devices if target.want is Want.DEVICE_POWER else 1
        total_wh += target.power_w * each * lasts_ms / MS_PER_H
    return total_wh


def energy_left(asks: Iterable[EnergyAsk], deliverable_wh: Floats) -> Iterator[EnergyLeft]:
    """What is left for each event; `asks` by rank. Energy that PV adds until then is not counted; an event takes from
    all of its batteries alike, in proportion to what they hold."""
    left_wh = deliverable_wh.copy()
    for ask in asks:
        held_wh = left_wh[ask.members]
        total_wh = float(held_wh.sum())
        yield EnergyLeft(ask=ask, left_wh=total_wh)
        taken_wh = total_wh if ask.wh is None else min(ask.wh, total_wh)
        if taken_wh > 0:
            left_wh[ask.members] = np.maximum(held_wh * (1 - taken_wh / total_wh), 0.0)


def _gives(target: Target) -> bool:
    return target.way is Way.OUT or target.want is Want.FOLLOW_LOAD
