"""Takes live readings alone, where what was stored cannot be read: energy stays with those who sent it."""

from dataclasses import replace

from gateway.domain.readings import ReadingBatch
from gateway.observability.parts import Part
from gateway.ports.links import Emit, TelemetrySender, TelemetrySource
from gateway.services.telemetry.ingest import Ingest


class LiveOnly(Part):
    """The way in through `ingest`, which does not run. Energy is neither counted nor acknowledged, so that brokers and
    devices keep it."""

    component = "telemetry"

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def emitter(self, source: TelemetrySource, *, sender: TelemetrySender | None = None) -> Emit:
        """The callback of one source."""
        emit = self._ingest.emitter(source, sender=sender)

        def without_energy(batch: ReadingBatch) -> None:
            emit(replace(batch, energy=None, raw=(), token=None))

        return without_energy

    def reasons(self) -> list[str]:
        return ["telemetry: what was stored cannot be read; no energy is taken"]
