"""Measures how late the event loop is, by a timer of its own."""

import asyncio

from gateway.clock import Clock
from gateway.observability.metrics import Histogram, histogram
from gateway.observability.parts import Importance, Part

LAG_PERIOD_S = 0.25

LOOP_LAG = histogram("gateway_loop_lag_seconds", "Lateness of a timer on the event loop.")


class LoopLag(Part):
    """Lateness of the event loop: the first sign of a blocking call."""

    service = "loop-lag"
    importance = Importance.SPARE

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.histogram = Histogram(LOOP_LAG)
        self.histograms = (self.histogram,)
        self.worst_s = 0.0

    async def run(self) -> None:
        while True:
            before = self._clock.cpu_ns()
            await asyncio.sleep(LAG_PERIOD_S)
            lag = max(0.0, (self._clock.cpu_ns() - before) / 1e9 - LAG_PERIOD_S)
            self.worst_s = max(self.worst_s, lag)
            self.histogram.observe(lag)
