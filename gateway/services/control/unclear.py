"""Logs devices whose reports about their safety are not understood, and the members concerned."""

import logging

import numpy as np

from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.types import Flags, Now, unclear_names

log = logging.getLogger(__name__)

EVERY_MS = 60_000
"""A device may be unclear in one second and clear in the next: one line a minute covers all of them."""


class UnclearWatch:
    """Remembers who was unclear in the last tick, and logs who has become unclear since the last line."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._before: Flags = np.zeros(0, dtype=np.int16)
        self._new: dict[int, int] = {}
        self._logged_mono_ms: int | None = None

    def observe(self, snapshot: Snapshot, now: Now) -> None:
        """Compare with the last tick."""
        unclear = snapshot.live.unclear
        if unclear.any() or self._before.any():
            before = np.zeros(snapshot.n, dtype=np.int16)
            before[: len(self._before)] = self._before
            more = unclear & ~before
            for slot in np.flatnonzero(more).tolist():
                self._new[slot] = self._new.get(slot, 0) | int(more[slot])
            self._before = unclear.copy()
        if self._new and (self._logged_mono_ms is None or now.mono_ms - self._logged_mono_ms >= EVERY_MS):
            self._logged_mono_ms = now.mono_ms
            members = unclear_names(int(np.bitwise_or.reduce(list(self._new.values()))))
            first = self._fleet.ids[next(iter(self._new))]
            log.warning(
                "devices are not controlled: a report about their safety is not understood",
                extra={"count": len(self._new), "first": first, "members": members},
            )
            self._new.clear()
