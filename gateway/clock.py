"""The only place that reads a clock."""

import contextlib
import time
from pathlib import Path
from typing import Protocol

from gateway.domain.types import Now

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
utc_struct = time.gmtime
"""Epoch seconds as UTC, for log formatters."""


class Clock(Protocol):
    """Source of `Now`; injected everywhere so that tests can move it. `boot` identifies the run of the machine that
    monotonic time belongs to; "" = unknown, which equals no other."""

    boot: str

    def now(self) -> Now: ...

    def mono_ms(self) -> int: ...

    def cpu_ns(self) -> int:
        """Monotonic nanoseconds for measuring how long a piece of code took."""
        ...


class SystemClock:
    """The machine's clocks. Monotonic time is BOOTTIME where there is one: it goes on during a suspend."""

    def __init__(self) -> None:
        self._mono = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self.boot = ""
        with contextlib.suppress(OSError):
            self.boot = BOOT_ID.read_text(encoding="ascii").strip()

    def now(self) -> Now:
        return Now(utc_ms=time.time_ns() // 1_000_000, mono_ms=time.clock_gettime_ns(self._mono) // 1_000_000)

    def mono_ms(self) -> int:
        return time.clock_gettime_ns(self._mono) // 1_000_000

    def cpu_ns(self) -> int:
        return time.perf_counter_ns()


class SteadyClock:
    """Wall time that does not jump, for control. It follows its source's drift slowly, and defers a step (`step_ms`)
    until the step has lasted for a while and nothing runs that began on the time before it. So an event ends when it
    was to end. `wall` is its source: what was measured, and what is paid, goes by the time that everybody else has."""

    STEP_MS = 2_000
    CONFIRM_MS = 60_000
    SLEW_PPM = 1_000

    def __init__(self, source: Clock) -> None:
        self._source = source
        self.boot = source.boot
        now = source.now()
        self._offset_ms: float = now.utc_ms - now.mono_ms
        self._observed_ms = self._since_ms = now.mono_ms
        self.step_ms = 0
        self.steps = 0

    def now(self) -> Now:
        mono_ms = self._source.mono_ms()
        return Now(utc_ms=mono_ms + round(self._offset_ms), mono_ms=mono_ms)

    def mono_ms(self) -> int:
        return self._source.mono_ms()

    def cpu_ns(self) -> int:
        return self._source.cpu_ns()

    @property
    def wall(self) -> Clock:
        """The wall clock itself, for intervals, their log and their receivers. Its monotonic time is the same."""
        return self._source

    def observe(self, *, idle: bool) -> None:
        """Compare with the source; call it every few seconds. `idle`: a step may be applied."""
        now = self._source.now()
        off_ms = now.utc_ms - now.mono_ms - self._offset_ms
        most_ms = (now.mono_ms - self._observed_ms) * self.SLEW_PPM / 1e6
        self._observed_ms = now.mono_ms
        if abs(off_ms) < self.STEP_MS:
            self._offset_ms += min(max(off_ms, -most_ms), most_ms)
            self.step_ms = 0
        elif abs(off_ms - self.step_ms) >= self.STEP_MS:
            self.step_ms, self._since_ms = round(off_ms), now.mono_ms
            self.steps += 1
        elif idle and now.mono_ms - self._since_ms >= self.CONFIRM_MS:
            self._offset_ms += off_ms
            self.step_ms = 0


class ManualClock:
    """A clock that moves only by `advance`; for tests and replay."""

    def __init__(self, *, utc_ms: int = 1_800_000_000_000, mono_ms: int = 1_000_000, boot: str = "one") -> None:
        self.utc = utc_ms
        self.mono = mono_ms
        self.boot = boot

    def now(self) -> Now:
        return Now(utc_ms=self.utc, mono_ms=self.mono)

    def mono_ms(self) -> int:
        return self.mono

    def cpu_ns(self) -> int:
        return self.mono * 1_000_000

    def advance(self, *, s: float) -> None:
        self.utc += round(s * 1000)
        self.mono += round(s * 1000)
