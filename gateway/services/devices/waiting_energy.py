"""Energy samples of polled devices that wait until telemetry is read again, in the order they were made."""

import math
from collections.abc import Iterable

from gateway.domain.types import Now
from gateway.services.devices.energy_integrator import EnergySample

WAITING_MAX = 50_000
"""Samples that wait; in a larger fleet `PER_DEVICE` of each device. Beyond that, samples of one device that follow
each other become one: the energy stays, its place within their span does not."""

PER_DEVICE = 4

Timed = tuple[int, EnergySample, Now]
MEANS = ("battery_w", "grid_w", "pv_w", "load_w")


class WaitingEnergy:
    """Samples by slot, each with the time of its end. `lost` counts those that found no room and were not joined."""

    def __init__(self, most: int = WAITING_MAX) -> None:
        self._most = most
        self._rows: list[Timed] = []
        self._room = most
        self.lost = 0

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, slot: int, sample: EnergySample, now: Now) -> None:
        """Add the newest sample of a device."""
        self._rows.append((slot, sample, now))
        if len(self._rows) > self._room:
            self._shrink()

    def take(self) -> list[Timed]:
        """All samples, in order; none wait then."""
        rows, self._rows, self._room = self._rows, [], self._most
        return rows

    def _shrink(self) -> None:
        """Join what follows each other in pairs; where gaps prevent that, drop the oldest. A quarter of the room is
        free then, so that a sample costs little."""
        self._rows = list(_in_pairs(self._rows))
        self._room = max(self._most, PER_DEVICE * len({slot for slot, _, _ in self._rows}))
        surplus = max(len(self._rows) - 3 * self._room // 4, 0)
        del self._rows[:surplus]
        self.lost += surplus


def _in_pairs(rows: Iterable[Timed]) -> Iterable[Timed]:
    """Rows, each second one of a device joined with the one before where they touch."""
    joined: list[Timed | None] = []
    odd: dict[int, int] = {}
    for row in rows:
        slot, sample, now = row
        at = odd.pop(slot, None)
        before = joined[at] if at is not None else None
        if at is not None and before is not None and now.mono_ms - sample.span_ms == before[2].mono_ms:
            joined[at] = None
            row = (slot, join(before[1], sample), now)
        else:
            odd[slot] = len(joined)
        joined.append(row)
    return (row for row in joined if row is not None)


def join(first: EnergySample, then: EnergySample) -> EnergySample:
    """One sample of two that touch: energies (Wh) add up, powers (W) are means over time, counters the newest."""
    return EnergySample(
        span_ms=first.span_ms + then.span_ms,
        charge_counter_wh=then.charge_counter_wh,
        discharge_counter_wh=then.discharge_counter_wh,
        charge_wh=first.charge_wh + then.charge_wh,
        discharge_wh=first.discharge_wh + then.discharge_wh,
        soc_pct=then.soc_pct,
        **{name: _mean(getattr(first, name), first.span_ms, getattr(then, name), then.span_ms) for name in MEANS},
    )


def _mean(first_w: float, first_ms: int, then_w: float, then_ms: int) -> float:
    """Mean power; a part where it is unknown does not count."""
    known = [(w, ms) for w, ms in ((first_w, first_ms), (then_w, then_ms)) if not math.isnan(w)]
    ms_sum = sum(ms for _, ms in known)
    return sum(w * ms for w, ms in known) / ms_sum if ms_sum else math.nan
