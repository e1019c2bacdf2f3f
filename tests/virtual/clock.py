"""The gateway's clock on a loop's time."""

import asyncio

from gateway.clock import Clock, SystemClock
from gateway.domain.types import Now
from tests.virtual.loop import VirtualLoop

START_UTC_MS = 1_800_000_000_000


class VirtualClock:
    """Both clocks run with the loop, from a fixed date."""

    boot = "virtual"

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._begin_us = self._us()

    def _us(self) -> int:
        return round(self._loop.time() * 1e6)

    def mono_ms(self) -> int:
        return self._us() // 1000

    def now(self) -> Now:
        mono_ms = self.mono_ms()
        return Now(utc_ms=START_UTC_MS + mono_ms - self._begin_us // 1000, mono_ms=mono_ms)

    def cpu_ns(self) -> int:
        return self._us() * 1000


def loop_clock() -> Clock:
    """The clock that belongs to the loop that runs: virtual, or the machine's."""
    loop = asyncio.get_running_loop()
    return VirtualClock(loop) if isinstance(loop, VirtualLoop) else SystemClock()
