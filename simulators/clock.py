"""The time a simulation runs on: the machine's, or one that is moved by hand."""

import asyncio
import time
from typing import Protocol


def loop_s() -> float:
    """Seconds on the clock of the loop that runs: what pauses on the wire are counted on."""
    return asyncio.get_running_loop().time()


class Clock(Protocol):
    """UTC epoch ms for what devices stamp, monotonic s for how far physics moves."""

    def utc_ms(self) -> int: ...

    def mono_s(self) -> float: ...


class RealClock:
    """The machine's clocks."""

    def utc_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def mono_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves when told to."""

    def __init__(self, *, utc_ms: int = 1_800_000_000_000) -> None:
        self._utc_ms = utc_ms
        self._mono_s = 1_000.0

    def utc_ms(self) -> int:
        return self._utc_ms

    def mono_s(self) -> float:
        return self._mono_s

    def advance(self, s: float) -> None:
        self._utc_ms += round(s * 1000)
        self._mono_s += s


class MovedClock(RealClock):
    """The machine's clocks, the wall clock `by_ms` ahead, and both ahead by what has `passed`."""

    def __init__(self, *, by_ms: int = 0) -> None:
        self.by_ms = by_ms
        self.away_ms = 0

    def utc_ms(self) -> int:
        return RealClock.utc_ms(self) + self.by_ms + self.away_ms

    def mono_s(self) -> float:
        return RealClock.mono_s(self) + self.away_ms / 1000

    def passed(self, ms: int) -> None:
        """So much time has passed in no time."""
        self.away_ms += ms
