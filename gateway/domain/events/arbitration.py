"""Who gets which device: events by rank, what can share a battery, and who is credited with what it delivered.

The first event of a device says which way it goes. Later ones that go the same way share it; the others lose it for as
long as that lasts and have it back afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Target
from gateway.domain.types import Bools, Slots

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
    way = np.zeros(n, dtype=np.int32)
    targets: list[Target] = []
    shares: dict[int, Bools] = {}
    lost: set[int] = set()
    for event, slots in zip(events, groups, strict=True):
        mine = np.zeros(n, dtype=np.bool_)
        mine[slots] = True
        excluded = (without or {}).get(event.index)
        if excluded is not None:
            mine[excluded] = False
        if event.actuates:
            number = _numbered(targets, event.target)
            asked = bool(mine.any())
            mine &= (way == 0) | (way == number)
            way[mine] = number
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
