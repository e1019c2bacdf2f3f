"""Devices that leave their place: handed back there first, then registered at the next one, or removed."""

import asyncio
import logging
from collections.abc import Iterator

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.observability.metrics import Sample, gauge
from gateway.observability.parts import Part
from gateway.services.devices.registry import DeviceRegistry

log = logging.getLogger(__name__)

PERIOD_S = 1.0
LONG_MS = 60_000
NAMED = 5

DEPARTING = gauge("gateway_departing_devices", "Devices that wait to be handed back before they leave their place.")


class Departures(Part):
    """Registers, or removes, what is free by now, every second."""

    service = "departures"
    component = "devices"

    def __init__(self, registry: DeviceRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._failing = False

    async def run(self) -> None:
        while True:
            try:
                gone = await self._registry.depart()
                self._failing = False
            except StorageError as error:
                if not self._failing:
                    log.warning("devices wait to leave their places: the journal fails", extra={"error": str(error)})
                self._failing = True
            else:
                if gone:
                    log.info("devices left their places", extra={"count": len(gone), "first": gone[0]})
            await asyncio.sleep(PERIOD_S)

    def samples(self) -> Iterator[Sample]:
        yield DEPARTING.sample(len(self._registry.departures))

    def warnings(self) -> list[str]:
        """Devices that have waited for more than a minute, and for what."""
        now_ms = self._clock.now().utc_ms
        late = [name for name, known in self._registry.departures.items() if now_ms - known.since_ms > LONG_MS]
        if not late:
            return []
        named = ", ".join(f"{name} ({self._registry.waits_for(name)})" for name in late[:NAMED])
        more = f" and {len(late) - NAMED} more" if len(late) > NAMED else ""
        return [f"devices: {len(late)} wait to leave their places: {named}{more}"]
