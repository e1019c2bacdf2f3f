"""Devices that send without being registered: which, and when they were last heard."""

import logging
from collections import OrderedDict
from collections.abc import Container, Iterator

from gateway.observability.metrics import Sample, gauge

log = logging.getLogger(__name__)

UNREGISTERED_MAX = 1_000
SLACK = 256

UNENROLLED = gauge("gateway_unenrolled_devices", "Devices seen that are not enrolled.")


class Unregistered:
    """The newest of them, at most `UNREGISTERED_MAX`. `registered`: who no longer is one of them."""

    def __init__(self, registered: Container[str]) -> None:
        self._registered = registered
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._told = 0

    def observe(self, device: str, utc_ms: int) -> None:
        """A message of a device that is not registered. Logs the first, and each time their number has doubled."""
        new = device not in self._seen
        self._seen[device] = utc_ms
        self._seen.move_to_end(device)
        if not new:
            return
        # a flood of invented ids must not cost a look through all of them each time
        if len(self._seen) > UNREGISTERED_MAX + SLACK:
            self._forget()
        if len(self._seen) >= max(1, 2 * self._told):
            self._told = len(self._seen)
            log.warning(
                "telemetry of devices that are not registered", extra={"device": device, "count": self._told}
            )  # fmt: skip

    def devices(self) -> dict[str, int]:
        """When each was last heard, in UTC ms; without those that were registered since."""
        self._forget()
        return dict(self._seen)

    def samples(self) -> Iterator[Sample]:
        yield UNENROLLED.sample(len(self.devices()))

    def _forget(self) -> None:
        for name in [name for name in self._seen if name in self._registered]:
            del self._seen[name]
        while len(self._seen) > UNREGISTERED_MAX:
            self._seen.popitem(last=False)
        self._told = min(self._told, len(self._seen))
