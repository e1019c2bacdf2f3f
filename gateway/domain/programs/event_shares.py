"""Whose is what batteries gave in an event's intervals: the shares of programs, to the Wh, by home and by battery.

What a home gave is shared among the events that claim it (`rules.stacking`). What it charged is nobody's share, but
counts against each event that claims the home. A battery's part of a share follows from what it gave itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway.domain.programs.metered import EventIntervals, MeteredWh
from gateway.domain.rules.stacking import StackedClaim, stacked
from gateway.domain.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventShare:
    """What of homes' energy (homes x intervals, + = discharge, net of charging) is an event's within its own time.
    `sure`: False where that rests on a load that nobody knows."""

    net: MeteredWh
    sure: Bools


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedEnergy:
    """By the names of claims; `own_use_wh` is what is left: it and the shares that are above 0 sum to what was
    discharged."""

    shares: Mapping[str, EventShare]
    own_use_wh: Ints


def shared_energy(
    net: MeteredWh,
    load: MeteredWh,
    claims: Sequence[StackedClaim],
    intervals: EventIntervals,
    nominated_w: Mapping[str, float] | None = None,
) -> SharedEnergy:
    """Share what homes gave (`net`, + = discharge) among claims, whose times are instants (UTC ms) here. `load`: what
    each home would have drawn without its batteries. `nominated_w`: by claim what bounds all of its homes together;
    each has of that by what it gave."""
    bounds = nominated_w or {}
    found = {claim.name: np.zeros(net.wh.shape, dtype=np.int64) for claim in claims}
    sure = {claim.name: np.ones(net.wh.shape, dtype=np.bool_) for claim in claims}
    own_use_wh = np.zeros(net.wh.shape, dtype=np.int64)
    loads = load.floats
    for place, start_ms in enumerate(intervals.starts_ms.tolist()):
        net_wh = net.wh[:, place]
        here = [
            replace(
                one, from_ms=one.from_ms - start_ms, until_ms=one.until_ms - start_ms,
                nomination_w=_by_home(bounds[one.name], net_wh, one.homes) if one.name in bounds else one.nomination_w,
            )
            for one in claims
        ]  # fmt: skip
        whose = stacked(net_wh, loads[:, place], here, intervals.length_ms)
        own_use_wh[:, place] = whose.own_use_wh
        for claim in here:
            part_ms = max(min(claim.until_ms, intervals.length_ms) - max(claim.from_ms, 0), 0)
            charged = np.minimum(net_wh, 0) * claim.homes
            share = whose.shares[claim.name]
            found[claim.name][:, place] = share.wh - (-charged * part_ms // intervals.length_ms)
            sure[claim.name][:, place] = share.known
    return SharedEnergy(
        shares={
            name: EventShare(net=MeteredWh(wh=np.where(net.known, wh, 0), known=net.known), sure=sure[name])
            for name, wh in found.items()
        },
        own_use_wh=own_use_wh,
    )


def _by_home(nominated_w: float, net_wh: Ints, homes: Bools) -> Floats:
    """What of a nomination is each home's."""
    given = np.maximum(net_wh, 0) * homes
    found: Floats = nominated_w * given / max(int(given.sum()), 1)
    return found


def battery_parts(share: EventShare, batteries: MeteredWh, site_of: Ints, intervals: EventIntervals) -> MeteredWh:
    """What of the share of homes is each battery's (batteries x intervals; `site_of` is the home of each, -1: it is in
    none), of what it gave in whole intervals. The batteries of a home sum to its share: each has its own in the event's
    time, and what others have of it is taken from those that go the way of their home, in proportion."""
    homes = len(share.net.wh)
    at_home = (site_of >= 0)[:, np.newaxis]
    parts = np.where(at_home, intervals.in_part(batteries.wh), 0)
    over = MeteredWh(wh=parts, known=batteries.known).added(site_of, homes).wh - share.net.wh
    net = batteries.added(site_of, homes).wh
    for place in np.flatnonzero((over != 0).any(axis=0)).tolist():
        way = np.where(net[:, place] == 0, np.sign(over[:, place]), np.sign(net[:, place]))
        weights = np.where(over[:, place][np.maximum(site_of, 0)] * way[np.maximum(site_of, 0)] > 0,
                           parts[:, place], batteries.wh[:, place])  # fmt: skip
        parts[:, place] -= _spread(over[:, place], way, weights, site_of)
    return MeteredWh(wh=np.where(batteries.known, parts, 0), known=batteries.known & at_home)


def _spread(total: Ints, way: Ints, weights: Ints, site_of: Ints) -> Ints:
    """Whole parts of each home's `total` by weights: of those of the home's `way`; what is left after rounding goes to
    the largest remainders."""
    homes = np.where(site_of >= 0, site_of, 0)
    weight = np.maximum(weights * way[homes], 0) * (site_of >= 0)
    every = np.bincount(homes, weights=weight, minlength=len(total)).astype(np.int64)
    amount, of = np.abs(total)[homes], np.maximum(every[homes], 1)
    part, rest = np.divmod(amount * weight, of)
    left = np.abs(total) - np.bincount(homes, weights=part, minlength=len(total)).astype(np.int64)
    order = np.lexsort((np.arange(len(homes)), -rest, -(weight > 0).astype(np.int64), homes))
    first = np.searchsorted(homes[order], homes[order])
    part[order] += (np.arange(len(homes)) - first < left[homes[order]]) & (weight[order] > 0)
    spread: Ints = part * np.sign(total)[homes]
    return spread
