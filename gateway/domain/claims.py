"""Who gets which device: events by rank, what can share a battery, and who is credited with what it delivered.

The first event of a device says which way it goes. Later ones that go the same way share it; the others lose it for as
long as that lasts and have it back afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.dispatch import ActiveEvent
from gateway.domain.events import Compensation, Target, Way
from gateway.domain.model import Bools, Floats, Slots

NOBODY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """`holder`: index of the event that has each device, `NOBODY` for none; `shares`: the devices each event has part
    in (by its index, a mask); `lost`: indices of events that are left without any."""

    holder: NDArray[np.int32]
    shares: Mapping[int, Bools]
    lost: frozenset[int]


def claim(
    events: Sequence[ActiveEvent], groups: Sequence[Slots], n: int, without: Mapping[int, Slots] | None = None
) -> Claims:
    """Give every device to the events that may have it. `events` in the order of their rank, `groups` the slots each
    addresses, `without` slots an event must leave alone (its index; owners who opted out of it). Dry runs have the
    devices they address and take none."""
    holder = np.full(n, NOBODY, dtype=np.int32)
    course = np.zeros(n, dtype=np.int32)
    targets: list[Target] = []
    shares: dict[int, Bools] = {}
    lost: set[int] = set()
    for event, slots in zip(events, groups, strict=True):
        mine = np.zeros(n, dtype=np.bool_)
        mine[slots] = True
        barred = (without or {}).get(event.index)
        if barred is not None:
            mine[barred] = False
        if event.actuates:
            number = _numbered(targets, event.target)
            asked = bool(mine.any())
            mine &= (course == 0) | (course == number)
            course[mine] = number
            holder[mine & (holder == NOBODY)] = event.index
            if asked and not mine.any():
                lost.add(event.index)
        shares[event.index] = mine
    return Claims(holder=holder, shares=shares, lost=frozenset(lost))


def _numbered(targets: list[Target], target: Target) -> int:
    """Number (from 1) of the first target that can share a battery with `target`; a new one where there is none."""
    for number, known in enumerate(targets, start=1):
        if known.shares_with(target):
            return number
    targets.append(target)
    return len(targets)


def pays_export(events: Sequence[ActiveEvent], claims: Claims) -> Bools:
    """Devices of which some program pays for what leaves the home, or that serve none: there compensation narrows
    nothing."""
    paid: Bools = claims.holder == NOBODY
    for event in events:
        if event.actuates and event.request.compensation is not Compensation.SITE_LOAD:
            paid |= claims.shares[event.index]
    return paid


def program_reserve_pct(events: Sequence[ActiveEvent], claims: Claims, n: int) -> Floats:
    """The largest reserve of the programs each device serves."""
    reserve_pct = np.zeros(n)
    for event in events:
        if event.actuates and event.request.reserve_pct > 0:
            mine = claims.shares[event.index]
            reserve_pct[mine] = np.maximum(reserve_pct[mine], event.request.reserve_pct)
    return reserve_pct


def attributed_w(
    events: Sequence[ActiveEvent], claims: Claims, measured_w: Floats, load_w: Floats, wanted_w: Mapping[int, float]
) -> dict[int, float]:
    """Power each event is credited with (W, + = discharge): every watt to one event at most, in the order of rank.

    `measured_w` per device, `load_w` what its home draws without it (NaN = unknown: nothing of it is credited to a
    program that pays up to the site's load), `wanted_w` what an event asks for now (none = all there is). A nomination
    bounds what its program is credited with.
    """
    left_w = measured_w.astype(np.float64)
    left_w[np.isnan(left_w)] = 0.0
    found: dict[int, float] = {}
    for event in events:
        if not event.actuates or event.preparing:
            continue
        mine = claims.shares[event.index]
        sign = -1.0 if event.target.way is Way.INTO else 1.0
        part_w = np.where(mine, np.maximum(sign * left_w, 0.0), 0.0)
        if event.request.compensation is Compensation.SITE_LOAD:
            part_w = np.minimum(part_w, np.maximum(np.nan_to_num(load_w), 0.0))
        total_w = float(part_w.sum())
        most_w = abs(wanted_w.get(event.index, total_w))
        if event.request.compensation is Compensation.NOMINATION and event.request.nomination_w is not None:
            most_w = min(most_w, event.request.nomination_w)
        if total_w > most_w:
            part_w *= most_w / total_w
            total_w = most_w
        left_w = left_w - sign * part_w
        found[event.index] = sign * total_w
    return found
