"""Assigns devices to events by rank.

The highest-ranked event of a device decides its direction. Lower-ranked events in the same direction share the device;
others lose it for as long as that lasts and get it back afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Target
from gateway.domain.table import run
from gateway.domain.types import Bools, Slots

NOBODY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """`holder`: index of the first event of each device, `NOBODY` for none; `shares`: the devices of each event (by its
    index, a mask); `lost`: indices of events that are left without any."""

    holder: NDArray[np.int32]
    shares: Mapping[int, Bools]
    lost: frozenset[int]


def claim(
    events: Sequence[ActiveEvent], groups: Sequence[Slots], n: int, without: Mapping[int, Slots] | None = None
) -> Claims:
    """Assign every device to its events. `events` in the order of their rank, `groups` the slots that each addresses,
    `without` slots that an event must leave alone (by its index; owners who opted out of it). Dry runs get the devices
    they address and take none from others."""
    holder = np.full(n, NOBODY, dtype=np.int32)
    way = np.zeros(n, dtype=np.int32)
    targets: list[Target] = []
    shares: dict[int, Bools] = {}
    lost: set[int] = set()
    for event, slots in zip(events, groups, strict=True):
        mine = np.zeros(n, dtype=np.bool_)
        mine[run(slots)] = True
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
