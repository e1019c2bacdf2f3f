"""The only place that reads a clock."""

import time
from typing import Protocol

from gateway.domain.model import Now

utc_struct = time.gmtime
"""Epoch seconds as UTC, for log formatters."""


class Clock(Protocol):
    """Source of `Now`; injected everywhere so that tests can move it."""

    def now(self) -> Now: ...

    def mono_ms(self) -> int: ...

    def cpu_ns(self) -> int:
        """Monotonic nanoseconds for measuring how long a piece of code took."""
        ...


class SystemClock:
    """The machine's clocks. Monotonic time is BOOTTIME where there is one: it goes on over a suspend."""

    def __init__(self) -> None:
        self._mono = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> Now:
        return Now(utc_ms=time.time_ns() // 1_000_000, mono_ms=time.clock_gettime_ns(self._mono) // 1_000_000)

    def mono_ms(self) -> int:
        return time.clock_gettime_ns(self._mono) // 1_000_000

    def cpu_ns(self) -> int:
        return time.perf_counter_ns()


class ManualClock:
    """A clock that moves when told to; for tests and replay."""

    def __init__(self, *, utc_ms: int = 1_800_000_000_000, mono_ms: int = 1_000_000) -> None:
        self.utc = utc_ms
        self.mono = mono_ms

    def now(self) -> Now:
        return Now(utc_ms=self.utc, mono_ms=self.mono)

    def mono_ms(self) -> int:
        return self.mono

    def cpu_ns(self) -> int:
        return self.mono * 1_000_000

    def advance(self, *, s: float) -> None:
        self.utc += round(s * 1000)
        self.mono += round(s * 1000)
