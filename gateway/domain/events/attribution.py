"""Credits events with delivered power, and derives reserves and permissions from claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.events.arbitration import NOBODY, Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Compensation, Way
from gateway.domain.limits.site import Homes
from gateway.domain.rules.stacking import PaidFor, Shareable, beside
from gateway.domain.types import Bools, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """Power of an event, W (+ = discharge): `own_w` is credited to it. `shared_w` serves it too, since its devices give
    it, and is credited to other events that share them. `unknown`: devices whose part nobody knows, since the load of
    their home is not known; what is paid for load or exports alone has nothing there."""

    own_w: float
    shared_w: float
    unknown: int = 0


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
    """Power each event is credited with: every watt to one event at most, in the order of rank, and of what its program
    pays for (`rules/stacking`).

    `measured_w` per device, `load_w` what it covers of what its home draws without batteries (`load_of_each`; NaN =
    unknown: a program that pays up to the site's load is credited with nothing), `wanted_w` what an event asks for now
    (missing = everything). A nomination bounds what its program is credited with.
    """
    counted = [event for event in events if event.actuates and not event.preparing]
    alike = all(paid_for(event) is PaidFor.BOTH and event.terms.beside_load is None for event in counted)
    out = Shareable(measured_w, None if alike else load_w)
    # what charges is nobody's load, and no export
    into = Shareable(-measured_w, None) if any(event.target.way is Way.INTO for event in counted) else None
    for_load = _paid_for_load(counted, claims)
    found: dict[int, float] = {}
    unknown: dict[int, int] = {}
    for event in counted:
        mine = claims.shares[event.index]
        charging = event.target.way is Way.INTO and into is not None
        pool = into if charging and into is not None else out
        parts = [(PaidFor.BOTH, mine)] if charging else beside(event.terms, paid_for(event), mine, for_load)
        unknown[event.index] = sum(pool.doubts(kind, homes) for kind, homes in parts)
        offered = [(kind, pool.offered(kind, homes)) for kind, homes in parts]
        total_w = sum(float(part_w.sum()) for _, part_w in offered)
        most_w = min(abs(wanted_w.get(event.index, total_w)), _nominated_w(event))
        for kind, part_w in offered:
            pool.take(kind, part_w if total_w <= most_w else part_w * (most_w / total_w))
        found[event.index] = (-1.0 if charging else 1.0) * min(total_w, most_w)
    others_w = out.taken if into is None else out.taken - into.taken
    shared: dict[int, float] = {}
    for event in counted:
        sign = -1.0 if event.target.way is Way.INTO else 1.0
        own_w = sign * found[event.index]
        credited_w = float(np.maximum(sign * others_w, 0.0)[claims.shares[event.index]].sum())
        lacks_w = abs(wanted_w.get(event.index, credited_w)) - own_w
        shared[event.index] = sign * max(min(credited_w - own_w, lacks_w), 0.0)
    return {
        index: Credit(own_w=own_w, shared_w=shared[index], unknown=unknown[index]) for index, own_w in found.items()
    }


def load_of_each(load_w: Floats, measured_w: Floats, homes: Homes) -> Floats:
    """What of the load of its home is each battery's to cover, W: of batteries of one home, whose meter they share, in
    proportion to what they give."""
    given_w = np.fmax(measured_w, 0.0)
    total_w = homes.total(given_w)
    part: Floats = np.divide(given_w, total_w, out=np.ones_like(given_w), where=total_w > 0)
    return load_w * part


def paid_for(event: ActiveEvent) -> PaidFor:
    """What an event's program pays for, where the event itself does not say less."""
    load = event.request.compensation is Compensation.SITE_LOAD
    return event.terms.within(PaidFor.LOAD if load else PaidFor.BOTH)


def _paid_for_load(events: Sequence[ActiveEvent], claims: Claims) -> Bools:
    """Devices of events that give and are paid for load alone."""
    found: Bools = np.zeros(len(claims.holder), dtype=np.bool_)
    if all(event.terms.beside_load is None for event in events):
        # nobody asks
        return found
    for event in events:
        if event.target.way is not Way.INTO and paid_for(event) is PaidFor.LOAD:
            found |= claims.shares[event.index]
    return found


def _nominated_w(event: ActiveEvent) -> float:
    """The most that a nomination lets an event be credited with, W."""
    bounds = event.request.compensation is Compensation.NOMINATION or event.terms.up_to_nomination
    nominated_w = event.request.nomination_w
    return nominated_w if bounds and nominated_w is not None else np.inf
