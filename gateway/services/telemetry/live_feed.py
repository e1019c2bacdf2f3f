"""Publishes the newest reading of each device upstream at a bounded rate: for display, not for settlement.

Nothing is stored and nothing waits: a reading that could not be published in its turn is counted and dropped, a newer
one follows. The interval log and its sinks are not involved.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.clock import Clock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import NEVER_MS, Slots
from gateway.observability.metrics import Sample, counter
from gateway.observability.parts import Importance, Part
from gateway.services.events.reports import Publish

TOLD = counter("gateway_live_told", "Live readings told upstream.")
DROPPED = counter("gateway_live_dropped", "Live readings that nobody took in their turn.")

PART = 250
"""Devices in one message: with the longest names they fit a packet of 64 KiB."""

QUANTITIES = ("battery_w", "soc_pct", "grid_w", "pv_w", "load_w")


@dataclass(slots=True)
class LiveStats:
    """Readings published, and those dropped because the platform did not accept them."""

    published: int = 0
    dropped: int = 0


class LiveFeed(Part):
    """Publishes each device's new reading at most every `period_s`, all together at most `per_s` devices per second."""

    service = "live"
    importance = Importance.SPARE

    def __init__(self, fleet: Fleet, clock: Clock, publish: Publish, *, period_s: float, per_s: float) -> None:
        self.stats = LiveStats()
        self._fleet = fleet
        self._clock = clock
        self._publish = publish
        self._period_s = period_s
        self._pause_s = PART / per_s
        self._published_ms = np.zeros(0, dtype=np.int64)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await asyncio.sleep(self._period_s)
            new = self._new()
            for at in range(0, len(new), PART):
                slots = new[at : at + PART]
                if await self._publish("live", self._body(slots)):
                    self.stats.published += len(slots)
                else:
                    self.stats.dropped += len(slots)
                await asyncio.sleep(self._pause_s)

    def _new(self) -> Slots:
        """Devices that were heard since they were last published."""
        n, seen = self._fleet.n, self._fleet.live.seen_mono_ms
        if len(self._published_ms) < n:
            self._published_ms = np.concatenate((self._published_ms, np.full(n - len(self._published_ms), NEVER_MS)))
        return np.flatnonzero(seen[:n] > self._published_ms[:n]).astype(np.int32)

    def _body(self, slots: Slots) -> dict[str, Any]:
        live, now = self._fleet.live, self._clock.now()
        seen = live.seen_mono_ms[slots]
        self._published_ms[slots] = seen
        columns = {name: live.column(name)[slots].astype(np.float64).tolist() for name in QUANTITIES}
        online = [None if up < 0 else bool(up) for up in live.online[slots].tolist()]
        ages_s = ((now.mono_ms - seen) / 1000).tolist()
        rows = [
            {"device": device, "age_s": round(age_s, 1), "online": up}
            | {name: None if column[i] != column[i] else round(column[i], 1) for name, column in columns.items()}
            for i, (device, age_s, up) in enumerate(zip(self._fleet.names(slots), ages_s, online, strict=True))
        ]
        return {"t": now.utc_ms, "devices": rows}

    def samples(self) -> Iterable[Sample]:
        """Metrics of the stream."""
        yield TOLD.sample(self.stats.published)
        yield DROPPED.sample(self.stats.dropped)
