"""Tells devices that left remote control because they restarted from those that their owners took back."""

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.types import NEVER_MS, Bools, Ints, Mode, Now

log = logging.getLogger(__name__)

EXCUSES_MAX = 2
"""How often in an event a restart excuses a device; after that leaving counts as its owner's choice."""

BOOT_TOLD_MS = 120_000
"""How long after it left a device may take to tell its new boot number."""

SLACK_MS = 12_000


class Restarted:
    """A birth between the newest reading under our command and the one without says so at once, a new boot number
    a little later. `excused` counts the devices that were dispatched again."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._ours_mono_ms: Ints = np.zeros(0, dtype=np.int64)
        self._seen_mono_ms: Ints = np.zeros(0, dtype=np.int64)
        self._before_ms = 0
        self._left: dict[int, tuple[int, int]] = {}
        self._excuses: dict[int, tuple[int, int]] = {}
        self.excused = 0

    def observe(self, snapshot: Snapshot, now: Now) -> None:
        """Note who is newly seen to obey; once a tick, before the questions below."""
        live, n = snapshot.live, snapshot.n
        grown = n - len(self._ours_mono_ms)
        if grown > 0:
            never = np.full(grown, NEVER_MS)
            self._ours_mono_ms = np.concatenate((self._ours_mono_ms, never))
            self._seen_mono_ms = np.concatenate((self._seen_mono_ms, never))
        obeys = (live.mode == int(Mode.REMOTE)) & (live.cmd == snapshot.control.cmd_applied) & (live.cmd > 0)
        obeys &= live.seen_mono_ms != self._seen_mono_ms
        # a reading may have come at any time since the tick before
        np.copyto(self._ours_mono_ms, self._before_ms, where=obeys)
        self._seen_mono_ms, self._before_ms = live.seen_mono_ms.copy(), now.mono_ms

    def among(self, left: Bools, event: NDArray[np.int32]) -> NDArray[np.intp]:
        """Of the devices that have `left` their `event`: those that have begun anew since they obeyed, or that have
        forgotten their command and do not say who has them."""
        live = self._fleet.live
        n = len(left)
        begun_ms = self._fleet.restarts.begun_mono_ms(n)
        forgot = (live.mode[:n] == int(Mode.UNKNOWN)) & (live.cmd[:n] == 0)
        begun = (begun_ms != NEVER_MS) & (begun_ms >= self._ours_mono_ms[:n])
        return self._excused({slot: int(event[slot]) for slot in np.flatnonzero(left & (begun | forgot)).tolist()})

    def taken_back(self, slots: NDArray[np.intp], event: NDArray[np.int32], now: Now) -> None:
        """Owners took these devices back from their `event`, as it seems."""
        self._left |= {slot: (one, now.mono_ms) for slot, one in zip(slots.tolist(), event.tolist(), strict=True)}

    def after_all(self, now: Now) -> NDArray[np.intp]:
        """Of the devices that their owners took back, those that tell a new boot number by now."""
        self._left = {slot: left for slot, left in self._left.items() if now.mono_ms - left[1] <= BOOT_TOLD_MS}
        booted_since = self._fleet.restarts.booted_since
        found = {slot: event for slot, (event, ms) in self._left.items() if booted_since(slot, ms - SLACK_MS)}
        excused = self._excused(found)
        for slot in excused.tolist():
            del self._left[slot]
        return excused

    def _excused(self, found: Mapping[int, int]) -> NDArray[np.intp]:
        excused = []
        for slot, event in found.items():
            known, times = self._excuses.get(slot, (event, 0))
            times = times + 1 if known == event else 1
            if times <= EXCUSES_MAX:
                self._excuses[slot] = (event, times)
                excused.append(slot)
        if excused:
            self.excused += len(excused)
            log.warning(
                "devices restarted in mid-event and are dispatched again",
                extra={"count": len(excused), "first": self._fleet.ids[excused[0]]},
            )
        return np.array(excused, dtype=np.intp)
