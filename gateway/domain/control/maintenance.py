"""Which batteries that no event has are charged: up to their reserve after an event, and full where that is overdue."""

from collections.abc import Iterable

import numpy as np

from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import Power
from gateway.domain.types import Bools, Now, Slots

HEARD_MS = 300_000


def recovering(snapshot: Snapshot, rebounding: Iterable[Slots], charged: Slots) -> Slots:
    """Devices of recently ended events (`rebounding`) that are below their reserve; those `charged` already until they
    are clear of it."""
    plate, live = snapshot.nameplate, snapshot.live
    after = np.zeros(snapshot.n, dtype=np.bool_)
    for slots in rebounding:
        after[slots] = True
    was = np.zeros(snapshot.n, dtype=np.bool_)
    was[charged] = True
    reserve_pct = np.fmax(plate.owner_reserve_pct, live.reserve_pct)
    below = live.soc_pct < reserve_pct + plate.soc_uncertainty_pct * was
    return np.flatnonzero(after & below & _may_charge(snapshot)).astype(np.int32)


def filling(snapshot: Snapshot, now: Now, cycles: float) -> Slots:
    """Devices that were not full for more than `cycles`. Where no full charge was seen, cycles count from the first
    reading: a fleet that is new would be charged all at once."""
    live = snapshot.live
    overdue = np.fmax(live.since_full_wh, live.unfilled_wh) >= 2 * cycles * snapshot.nameplate.capacity_wh
    heard = now.mono_ms - live.seen_mono_ms <= HEARD_MS
    return np.flatnonzero(overdue & heard & _may_charge(snapshot)).astype(np.int32)


def inside(hours: tuple[int, int], now: Now) -> bool:
    """Whether it is within these hours (UTC, from and to; over midnight where they are the other way round)."""
    hour, (first, last) = now.utc_ms // 3_600_000 % 24, hours
    return first <= hour < last if first <= last else hour >= first or hour < last


def charging_w(power: Power, slots: Slots) -> float:
    """What these devices charge together, W; unmeasured power is not counted."""
    return float((np.maximum(-power.each_w[slots], 0.0) * power.measured[slots]).sum())


def _may_charge(snapshot: Snapshot) -> Bools:
    plate = snapshot.nameplate
    may: Bools = plate.registered & plate.steerable & plate.grid_charge_allowed & plate.fuse_protected
    may &= snapshot.control.exclusions == 0
    return may
