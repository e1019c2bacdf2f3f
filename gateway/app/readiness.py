"""Whether the gateway is ready: what every part says of itself, by severity.

A reason (severity `critical`) keeps the gateway from commanding, hearing or storing: it is not ready. A warning says
that a part is missing while the rest goes on: it is ready, and somebody should look.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping

from gateway.api.models import Readiness
from gateway.observability.metrics import Sample, gauge
from gateway.observability.parts import Importance, Part

log = logging.getLogger(__name__)

EVERY_S = 1.0
NAMED = 5

READY = gauge("gateway_ready", "Whether the gateway is ready (1) or not (0).")
REASONS = gauge(
    "gateway_readiness_reasons",
    "Reasons for not being ready (critical), and warnings, by component.",
    component="parts of the gateway",
    severity=("critical", "warning"),
)


class ReadinessWatch(Part):
    """Asks `parts`, itself among them, and logs when the answer changes. `stopping`: the gateway is on its way out."""

    service = "readiness"
    importance = Importance.SPARE

    def __init__(self, parts: Iterable[Part]) -> None:
        self.stopping = False
        self._parts = parts
        self._ready: bool | None = None
        self._was_ready = False

    def now(self) -> Readiness:
        """The state now."""
        said = self._said().values()
        reasons = [text for critical, _ in said for text in critical]
        warnings = [text for _, warning in said for text in warning]
        return Readiness(ready=not reasons, reasons=reasons, warnings=warnings)

    def _said(self) -> Mapping[str, tuple[list[str], list[str]]]:
        """Reasons and warnings by component."""
        said: dict[str, tuple[list[str], list[str]]] = {}
        for part in self._parts:
            reasons, warnings = said.setdefault(part.component, ([], []))
            reasons += part.reasons()
            warnings += part.warnings()
        return said

    def reasons(self) -> list[str]:
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
        again, self._was_ready = self._was_ready, self._was_ready or state.ready
        if not state.ready:
            log.warning(
                "gateway is not ready", extra={"reasons": state.reasons[:NAMED], "count": len(state.reasons)}
            )  # fmt: skip
        elif again:
            log.warning("gateway is ready again")
        elif not first:
            log.info("gateway is ready")

    def samples(self) -> Iterable[Sample]:
        """Metrics: whether it is ready, and reasons and warnings by component."""
        said = self._said()
        yield READY.sample(int(not any(reasons for reasons, _ in said.values())))
        for component, (reasons, warnings) in said.items():
            yield from REASONS.each({"critical": len(reasons), "warning": len(warnings)}, component=component)
