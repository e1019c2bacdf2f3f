"""Whether the gateway is ready: what every part says of itself, by severity.

A reason (severity `critical`) keeps the gateway from commanding, hearing or storing: it is not ready. A warning says
that a part is missing while the rest goes on: it is ready, and somebody should look.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gateway.api.models import Readiness
from gateway.observability.metrics import Sample, gauge
from gateway.services.runtime.supervisor import Health
from gateway.transports.mqtt.connection import MqttConnection

log = logging.getLogger(__name__)

EVERY_S = 1.0
NAMED = 5
SPARE_SERVICES = frozenset({"retention", "live", "repair", "reports", "loop-lag", "device-session", "readiness"})
"""Services without which the gateway still commands, hears and stores; so are those that deliver to a sink."""

READY = gauge("gateway_ready", "Whether the gateway is ready (1) or not (0).")
REASONS = gauge(
    "gateway_readiness_reasons",
    "Reasons for not being ready (critical), and warnings, by component.",
    component="parts of the gateway",
    severity=("critical", "warning"),
)

Said = Callable[[], list[str]]


def nothing() -> list[str]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    name: str
    reasons: Said
    warnings: Said


class ReadinessWatch:
    """Asks the parts and logs when the answer changes. `stopping`: the gateway is on its way out."""

    def __init__(self) -> None:
        self.stopping = False
        self._parts = [_Part(name="gateway", reasons=self._stopping, warnings=nothing)]
        self._ready: bool | None = None

    def add(self, name: str, *, reasons: Said = nothing, warnings: Said = nothing) -> None:
        """Ask a part too. `name` is the label `component` of its metrics."""
        self._parts.append(_Part(name=name, reasons=reasons, warnings=warnings))

    def now(self) -> Readiness:
        """The state now."""
        reasons = [text for part in self._parts for text in part.reasons()]
        warnings = [text for part in self._parts for text in part.warnings()]
        return Readiness(ready=not reasons, reasons=reasons, warnings=warnings)

    def _stopping(self) -> list[str]:
        return ["the gateway is stopping"] if self.stopping else []

    async def run(self) -> None:
        """Observe every second, until cancelled."""
        while True:
            self.observe()
            await asyncio.sleep(EVERY_S)

    def observe(self) -> None:
        """Log a change."""
        state = self.now()
        if state.ready == self._ready:
            return
        first, self._ready = self._ready is None, state.ready
        if not state.ready:
            log.warning(
                "gateway is not ready", extra={"reasons": state.reasons[:NAMED], "count": len(state.reasons)}
            )  # fmt: skip
        elif not first:
            log.warning("gateway is ready again")

    def samples(self) -> Iterable[Sample]:
        """Metrics: whether it is ready, and reasons and warnings by component."""
        counts = [(part.name, len(part.reasons()), len(part.warnings())) for part in self._parts]
        yield READY.sample(int(not any(reasons for _, reasons, _ in counts)))
        for name, reasons, warnings in counts:
            yield from REASONS.each({"critical": reasons, "warning": warnings}, component=name)


def broken_connections(connections: Mapping[str, MqttConnection]) -> Said:
    """What is not connected."""
    return lambda: [f"MQTT {name}: not connected" for name, c in connections.items() if not c.connected]


def broken_services(health: Mapping[str, Health], *, spare: bool) -> Said:
    """Services that are not running now: essential ones, or those that can be spared."""

    def said() -> list[str]:
        return [f"service {name}: {h.failing}" for name, h in health.items() if h.failing and _spare(name) is spare]

    return said


def _spare(service: str) -> bool:
    return service in SPARE_SERVICES or service.startswith("delivery-")
