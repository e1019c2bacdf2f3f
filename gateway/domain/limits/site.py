"""Headroom at the meter of each home for the batteries behind it: permissions, limits, load, and each one's share."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from gateway.domain.table import Singles
from gateway.domain.types import Bools, Floats, Small

SHARE_ROUNDS = 8
"""A home has few batteries; each round serves at least one of them in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterColumns:
    """Per device, W: limits at the meter (`export_w`, `import_w`: 0 = not allowed, inf = unlimited), its home's load
    less PV now and at its smallest and largest of late, its own power and the meter's (NaN = unknown or stale), the
    power it could use either way and the energy (Wh) behind it, whether it goes on with that power whatever it is
    given (`fixed`: it will not be written), and how much more the fullest phase takes either way (inf = no limit)."""

    export_w: Floats
    import_w: Floats
    net_w: Floats
    low_w: Floats
    high_w: Floats
    battery_w: Floats
    grid_w: Floats
    out_w: Floats
    into_w: Floats
    out_wh: Floats
    into_wh: Floats
    fixed: Bools
    phase_out_w: Floats
    phase_into_w: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteHeadroom:
    """Per device: W it may discharge and charge as far as the meter is concerned (inf = no limit), and where that is
    0 W because a limit stands and the load is not known."""

    out_w: Floats
    into_w: Floats
    unknown_out: Bools
    unknown_into: Bools


class Homes:
    """Devices grouped by site. A device without a site is a home of its own."""

    def __init__(self, site: NDArray[np.int32]) -> None:
        index = site.astype(np.int64)
        alone = index < 0
        if alone.any():
            index[alone] = index.max(initial=0) + 1 + np.arange(int(alone.sum()))
        self.index = index
        self.count = int(index.max(initial=0)) + 1

    def total(self, values: Floats) -> Floats:
        """Sum over the home, per device."""
        sums = np.bincount(self.index, weights=values, minlength=self.count).astype(np.float64, copy=False)
        return sums[self.index]

    def least(self, values: Floats) -> Floats:
        """Smallest known value of the home, per device; NaN where none is known."""
        found = np.full(self.count, np.nan)
        np.fmin.at(found, self.index, values)
        result: Floats = found[self.index]
        return result


def permitted_w(limit_w: Floats, allowed: Bools) -> Floats:
    """The limit at the meter: 0 where not allowed or not known, inf where unlimited."""
    most_w = np.take(np.array([0.0, np.inf]), allowed.view(np.uint8))
    permitted: Floats = np.fmax(np.minimum(limit_w, most_w), 0)
    return permitted


def headroom_alone(columns: MeterColumns, margin_w: float) -> SiteHeadroom:
    """Headroom as if every device were the only battery of its home."""
    net_w = columns.net_w
    if np.isnan(net_w).any():
        net_w = np.where(np.isnan(net_w), columns.battery_w + columns.grid_w, net_w)
    low_w, high_w = _worst(net_w, columns.low_w, np.fmin), _worst(net_w, columns.high_w, np.fmax)
    out_w, unknown_out = _left_w(columns.export_w, low_w, margin_w)
    into_w, unknown_into = _left_w(columns.import_w, -high_w, margin_w)
    out_w = _phase_w(out_w, columns.battery_w, columns.phase_out_w, unknown_out)
    into_w = _phase_w(into_w, -columns.battery_w, columns.phase_into_w, unknown_into)
    return SiteHeadroom(out_w=out_w, into_w=into_w, unknown_out=unknown_out, unknown_into=unknown_into)


def headroom_shared(columns: MeterColumns, homes: Homes, margin_w: float) -> SiteHeadroom:
    """Headroom of devices that share a home: the strictest limit and the worst load that any of them reports. Devices
    that will not be written come first; the others share the rest in proportion to their energy, so that they last
    equally long. A home's shares never add up to more than its headroom."""
    low_w, high_w = _worst(columns.net_w, columns.low_w, np.fmin), _worst(columns.net_w, columns.high_w, np.fmax)
    least_w, most_w = homes.least(low_w), -homes.least(-high_w)
    unknown = np.isnan(least_w)
    if unknown.any():
        meter_w = homes.total(columns.battery_w) + columns.grid_w
        least_w = np.where(unknown, homes.least(meter_w), least_w)
        most_w = np.where(unknown, -homes.least(-meter_w), most_w)
    # A battery that gets no share may still run by itself: its maker's own mode knows no SoC uncertainty.
    least_w = least_w - homes.total(_running_w(columns.battery_w, columns.out_w))
    most_w = most_w + homes.total(_running_w(-columns.battery_w, columns.into_w))
    out_w, unknown_out = _left_w(homes.least(columns.export_w), least_w, margin_w)
    into_w, unknown_into = _left_w(homes.least(columns.import_w), -most_w, margin_w)
    together_w = homes.total(columns.battery_w)
    out_w = _phase_w(out_w, together_w, homes.least(columns.phase_out_w), unknown_out)
    into_w = _phase_w(into_w, -together_w, homes.least(columns.phase_into_w), unknown_into)
    return SiteHeadroom(
        out_w=_share_w(homes, out_w, columns.out_w, columns.out_wh, columns.fixed),
        into_w=_share_w(homes, into_w, columns.into_w, columns.into_wh, columns.fixed),
        unknown_out=unknown_out,
        unknown_into=unknown_into,
    )


def _worst(now_w: Floats, of_late_w: Floats, worse: np.ufunc) -> Floats:
    """The worst of present and recent values; unknown without a present one."""
    worst_w: Floats = worse(now_w, of_late_w)
    unknown = np.isnan(now_w)
    if unknown.any():
        worst_w[unknown] = np.nan
    return worst_w


def phase_headroom(
    limit_w: Singles, phases: Small, worst_w: Singles, best_w: Singles, swing_w: Floats, margin_w: float
) -> tuple[Floats, Floats]:
    """How much more the fullest phase takes (discharge, charge); inf without a limit, NaN with one and no reading.

    `worst_w` is the phase that imports most, `best_w` the one that exports most, `swing_w` how far the home's load is
    from its worst of late, which may come back on that very phase. A battery on one phase may be on the fullest.
    """
    none = np.isnan(limit_w)
    left_w = limit_w - margin_w
    into_w: Floats = ((left_w - worst_w).astype(np.float64) - swing_w) * phases
    out_w: Floats = ((left_w + best_w).astype(np.float64) - swing_w) * phases
    if not none.any():
        return out_w, into_w
    return np.where(none, np.inf, out_w), np.where(none, np.inf, into_w)


def crowded(site: NDArray[np.int32]) -> NDArray[np.intp]:
    """Rows whose home has more than one battery."""
    known = site[site >= 0] if len(site) and site.min() < 0 else site
    sizes = np.bincount(known)
    if int(sizes.max(initial=0)) <= 1:
        return np.empty(0, dtype=np.intp)
    # a device without a site (-1) finds the last entry
    return np.flatnonzero(np.append(sizes > 1, False)[site])


def taken(columns: MeterColumns, rows: NDArray[np.intp]) -> MeterColumns:
    """Some rows of columns."""
    return MeterColumns(**{f.name: np.take(getattr(columns, f.name), rows) for f in fields(MeterColumns)})


def _left_w(limit_w: Floats, net_w: Floats, margin_w: float) -> tuple[Floats, Bools]:
    headroom_w = np.fmax(limit_w + net_w - margin_w, 0)
    unknown = np.isnan(net_w)
    if unknown.any():
        unlimited = np.isinf(limit_w)
        headroom_w[unlimited] = np.inf
        unknown &= ~unlimited
    return headroom_w, unknown


def _phase_w(headroom_w: Floats, power_w: Floats, more_w: Floats, unknown: Bools) -> Floats:
    """Headroom narrowed to present power plus what the phases still take; sets `unknown` where a limit per phase
    applies and no phase is known."""
    limited = ~np.isinf(more_w)
    if not limited.any():
        return headroom_w
    left_w = np.maximum(power_w + more_w, 0)
    not_writable = limited & np.isnan(left_w)
    left_w[not_writable] = 0.0
    unknown |= not_writable
    narrowed_w: Floats = np.fmin(headroom_w, left_w)
    return narrowed_w


def _running_w(power_w: Floats, want_w: Floats) -> Floats:
    """Measured power of batteries that are given none."""
    return np.where(want_w > 0, 0.0, np.fmax(power_w, 0.0))


def _share_w(homes: Homes, headroom_w: Floats, want_w: Floats, energy_wh: Floats, fixed: Bools) -> Floats:
    """Split the headroom of each home; unchanged where it covers what all devices could use."""
    tight = np.isfinite(headroom_w) & (homes.total(want_w) > headroom_w)
    if not tight.any():
        return headroom_w
    whole_w, headroom_w = headroom_w, np.where(tight, headroom_w, 0.0)
    first = fixed | (energy_wh <= 0)
    share_w = want_w * first
    fixed_w = homes.total(share_w)
    share_w = share_w * np.minimum(headroom_w / np.maximum(fixed_w, 1e-9), 1.0)
    open_w = np.where(first, 0.0, want_w)
    left_w = np.maximum(headroom_w - fixed_w, 0.0)
    for _ in range(SHARE_ROUNDS):
        weight = energy_wh * (open_w > 0)
        total = homes.total(weight)
        more_w = np.minimum(left_w * weight / np.maximum(total, 1e-9), open_w)
        share_w = share_w + more_w
        open_w = open_w - more_w
        open_w[open_w < 1e-6] = 0.0
        left_w = np.maximum(left_w - homes.total(more_w), 0.0)
        if not (tight & (left_w > 1.0) & (open_w > 0)).any():
            break
    return np.where(tight, share_w, whole_w)
