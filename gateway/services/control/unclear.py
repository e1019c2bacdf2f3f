"""Tells who said something of its safety that nobody understood, and which member it was."""

import logging

import numpy as np

from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.types import Flags, Now, unclear_names

log = logging.getLogger(__name__)

EVERY_MS = 60_000
"""A device may be understood in one second and not in the next: a line a minute tells of all of them."""


class UnclearWatch:
    """Remembers who was unclear in the last tick, and logs who has become so since the last line."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._before: Flags = np.zeros(0, dtype=np.int16)
        self._new: dict[int, int] = {}
        self._told_mono_ms: int | None = None

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
        if self._new and (self._told_mono_ms is None or now.mono_ms - self._told_mono_ms >= EVERY_MS):
            self._told_mono_ms = now.mono_ms
            members = unclear_names(int(np.bitwise_or.reduce(list(self._new.values()))))
            first = self._fleet.ids[next(iter(self._new))]
            log.warning(
                "devices are not steered: they report something about their safety that is not understood",
                extra={"count": len(self._new), "first": first, "members": members},
            )
            self._new.clear()
