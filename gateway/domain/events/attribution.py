"""Credits events with delivered power, and derives reserves and permissions from claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.events.arbitration import NOBODY, Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Compensation, Way
from gateway.domain.types import Bools, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """Power of an event, W (+ = discharge): `own_w` is credited to it. `shared_w` serves it too, since its devices give
    it, and is credited to other events that share them."""

    own_w: float
    shared_w: float


def pays_export(events: Sequence[ActiveEvent], claims: Claims) -> Bools:
    """Devices for which some program pays exports, or that serve no event: there compensation narrows nothing."""
    paid: Bools = claims.holder == NOBODY
    for event in events:
        if event.actuates and event.request.compensation is not Compensation.SITE_LOAD:
            paid |= claims.shares[event.index]
    return paid


def serves(events: Sequence[ActiveEvent], claims: Claims) -> NDArray[np.int16]:
    """How many events share each device."""
    count = np.zeros(len(claims.holder), dtype=np.int16)
    for event in events:
        if event.actuates and not event.preparing:
            count += claims.shares[event.index]
    return count


def takes_backup(events: Sequence[ActiveEvent], claims: Claims, n: int) -> Bools:
    """Devices that some event may take from their maker's backup or storm mode."""
    taken: Bools = np.zeros(n, dtype=np.bool_)
    for event in events:
        if event.actuates and event.request.takes_backup:
            taken |= claims.shares[event.index]
    return taken


def program_reserve_pct(events: Sequence[ActiveEvent], claims: Claims, n: int) -> Floats:
    """The largest reserve among the programs that each device serves, percent."""
    reserve_pct = np.zeros(n)
    for event in events:
        if event.actuates and event.request.reserve_pct > 0:
            mine = claims.shares[event.index]
            reserve_pct[mine] = np.maximum(reserve_pct[mine], event.request.reserve_pct)
    return reserve_pct


def credit(
    events: Sequence[ActiveEvent], claims: Claims, measured_w: Floats, load_w: Floats, wanted_w: Mapping[int, float]
) -> dict[int, Credit]:
    """Power each event is credited with: every watt to one event at most, in the order of rank.

    `measured_w` per device, `load_w` what its home draws without it (NaN = unknown: a program that pays up to the
    site's load is credited with nothing), `wanted_w` what an event asks for now (missing = everything). A
    nomination bounds what its program is credited with.
    """
    left_w = measured_w.astype(np.float64)
    left_w[np.isnan(left_w)] = 0.0
    found: dict[int, float] = {}
    shared: dict[int, float] = {}
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
    others_w = measured_w - left_w
    others_w[np.isnan(others_w)] = 0.0
    for event in events:
        if event.index in found:
            sign = -1.0 if event.target.way is Way.INTO else 1.0
            own_w = sign * found[event.index]
            credited_w = float(np.maximum(sign * others_w, 0.0)[claims.shares[event.index]].sum())
            lacks_w = abs(wanted_w.get(event.index, credited_w)) - own_w
            shared[event.index] = sign * max(min(credited_w - own_w, lacks_w), 0.0)
    return {index: Credit(own_w=own_w, shared_w=shared[index]) for index, own_w in found.items()}
