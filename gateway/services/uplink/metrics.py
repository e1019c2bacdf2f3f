"""Metrics of the deliveries to sinks, made of their counts on request."""

from collections.abc import Iterable

from gateway.clock import Clock
from gateway.observability.metrics import Sample, counter, gauge
from gateway.services.uplink.delivery import SinkDelivery

SINK = "sinks of the configuration"

ACCEPTED = counter("gateway_sink_accepted", "Interval records accepted.", sink=SINK)
REJECTED = counter("gateway_sink_rejected", "Interval records refused for good.", sink=SINK)
RETRIES = counter("gateway_sink_retries", "Batches kept for later.", sink=SINK)
RESENT = counter("gateway_sink_resent", "Interval records sent once more on request.", sink=SINK)
REFUSED = counter(
    "gateway_sink_refused", "Interval records refused, by reason.", sink=SINK, reason="reasons of the sink's kind"
)
STOPPED = gauge("gateway_sink_stopped", "1 while a person must act before the sink goes on.", sink=SINK)
BACKLOG = gauge("gateway_sink_backlog_records", "Records not accepted yet.", sink=SINK)
OLDEST = gauge("gateway_sink_oldest_seconds", "Age of the oldest record not accepted.", sink=SINK)


def delivery_samples(deliveries: Iterable[SinkDelivery], clock: Clock) -> Iterable[Sample]:
    """What each sink has accepted and refused, and what waits for it."""
    now_ms = clock.now().utc_ms
    for delivery in deliveries:
        stats, sink = delivery.stats, delivery.sink.name
        age_s = 0.0 if stats.oldest_ms is None else max(0.0, (now_ms - stats.oldest_ms) / 1000)
        yield ACCEPTED.sample(stats.accepted, sink=sink)
        yield REJECTED.sample(stats.rejected, sink=sink)
        yield RETRIES.sample(stats.kept, sink=sink)
        yield RESENT.sample(stats.resent, sink=sink)
        yield from REFUSED.each(stats.refused, sink=sink)
        yield STOPPED.sample(1.0 if stats.stopped else 0.0, sink=sink)
        yield BACKLOG.sample(stats.backlog, sink=sink)
        yield OLDEST.sample(age_s, sink=sink)
