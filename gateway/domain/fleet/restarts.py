"""When devices began anew, as they say themselves: a birth (their presence, said again) or a new boot number."""

import numpy as np

from gateway.domain.types import NEVER_MS, Ints, Now, Slots

UNKNOWN_BOOT = -1


class Restarts:
    """By slot. `born_mono_ms`: when a device last said that it is there, `booted_mono_ms` when its messages last had a
    larger boot number than before; `count` such happenings."""

    def __init__(self) -> None:
        self._born_mono_ms: Ints = np.full(0, NEVER_MS)
        self._booted_mono_ms: Ints = np.full(0, NEVER_MS)
        self._boot: Ints = np.full(0, UNKNOWN_BOOT)
        self.count = 0

    def _grow(self, slots: Slots) -> None:
        missing = int(slots.max(initial=-1)) + 1 - len(self._boot)
        if missing > 0:
            missing += len(self._boot)
            never = np.full(missing, NEVER_MS)
            self._born_mono_ms = np.concatenate((self._born_mono_ms, never))
            self._booted_mono_ms = np.concatenate((self._booted_mono_ms, never))
            self._boot = np.concatenate((self._boot, np.full(missing, UNKNOWN_BOOT)))

    def observe_births(self, slots: Slots, now: Now) -> None:
        self._grow(slots)
        self._born_mono_ms[slots] = now.mono_ms

    def observe_boots(self, slots: Slots, boot: Ints, now: Now) -> None:
        """Boot numbers of messages, in their order; what comes late from an earlier boot says nothing."""
        self._grow(slots)
        later = boot > self._boot[slots]
        if not later.any():
            return
        slots, boot = slots[later], boot[later]
        known = slots[self._boot[slots] != UNKNOWN_BOOT]
        self._booted_mono_ms[known] = now.mono_ms
        self.count += len(np.unique(known))
        np.maximum.at(self._boot, slots, boot)

    def _of(self, column: Ints, n: int) -> Ints:
        found = np.full(n, NEVER_MS)
        found[: min(n, len(column))] = column[:n]
        return found

    def begun_mono_ms(self, n: int) -> Ints:
        """When each of the first `n` devices last began anew, by either sign."""
        return np.maximum(self._of(self._born_mono_ms, n), self._of(self._booted_mono_ms, n))

    def booted_since(self, slot: int, mono_ms: int) -> bool:
        """Whether a device has booted at or after a time, by its boot number."""
        return slot < len(self._boot) and int(self._booted_mono_ms[slot]) >= mono_ms

    def age_s(self, slot: int, now: Now) -> float | None:
        """Seconds since a device began anew; None = not since the gateway runs."""
        at_ms = int(self.begun_mono_ms(slot + 1)[slot])
        return None if at_ms == NEVER_MS else (now.mono_ms - at_ms) / 1000

    def clear(self, slot: int) -> None:
        """Forget a device: another one has its place."""
        if slot < len(self._boot):
            self._born_mono_ms[slot] = self._booted_mono_ms[slot] = NEVER_MS
            self._boot[slot] = UNKNOWN_BOOT
