"""The counts of a delivery to a sink, and the metrics made of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.domain.types import Now
from gateway.observability.metrics import Sample, counter, gauge

SINK = "sinks of the configuration"

ACCEPTED = counter("gateway_sink_accepted", "Interval records accepted.", sink=SINK)
REJECTED = counter("gateway_sink_rejected", "Interval records refused for good.", sink=SINK)
RETRIES = counter("gateway_sink_retries", "Batches kept for later.", sink=SINK)
RESENT = counter("gateway_sink_resent", "Interval records sent once more on request.", sink=SINK)
SUPERSEDED = counter(
    "gateway_sink_superseded", "Interval records of a backlog not sent, because there is a newer revision.", sink=SINK
)
REFUSED = counter(
    "gateway_sink_refused", "Interval records refused, by reason.", sink=SINK, reason="reasons of the sink's kind"
)
STOPPED = gauge("gateway_sink_stopped", "1 while a person must act before the sink goes on.", sink=SINK)
FAILING = gauge("gateway_sink_failing", "1 while the receiver does not accept what it is sent.", sink=SINK)
BACKLOG = gauge("gateway_sink_backlog_records", "Records not accepted yet.", sink=SINK)
OLDEST = gauge("gateway_sink_oldest_seconds", "Age of the oldest record not accepted.", sink=SINK)


@dataclass(slots=True)
class SinkStats:
    """Counts of one sink. `failing`: why it has not taken the last batch; `stopped`: a person must act before it goes
    on; `detail`: what the receiver said then. `oldest_ms`: start of the oldest record it does not have, None = none
    waiting; `refused` by reason."""

    accepted: int = 0
    rejected: int = 0
    kept: int = 0
    resent: int = 0
    superseded: int = 0
    failing: str | None = None
    stopped: bool = False
    detail: str = ""
    backlog: int = 0
    oldest_ms: int | None = None
    refused: dict[str, int] = field(default_factory=dict)

    def samples(self, sink: str, now: Now) -> Iterator[Sample]:
        """What it has accepted and refused, and what waits for it."""
        yield ACCEPTED.sample(self.accepted, sink=sink)
        yield REJECTED.sample(self.rejected, sink=sink)
        yield RETRIES.sample(self.kept, sink=sink)
        yield RESENT.sample(self.resent, sink=sink)
        yield SUPERSEDED.sample(self.superseded, sink=sink)
        yield from REFUSED.each(self.refused, sink=sink)
        yield STOPPED.sample(1.0 if self.stopped else 0.0, sink=sink)
        yield FAILING.sample(0.0 if self.failing is None else 1.0, sink=sink)
        yield BACKLOG.sample(self.backlog, sink=sink)
        yield OLDEST.sample(
            0.0 if self.oldest_ms is None else max(0.0, (now.utc_ms - self.oldest_ms) / 1000), sink=sink
        )
