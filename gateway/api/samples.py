"""Prometheus samples for parts that keep counters but do not export them: links, connections, sinks, supervisor."""

from collections.abc import Iterable, Mapping
from dataclasses import fields

from gateway.clock import Clock
from gateway.links.mqtt.messages import MqttLink
from gateway.observability.metrics import Sample
from gateway.services.runtime.supervisor import Supervisor
from gateway.services.uplink.delivery import SinkDelivery
from gateway.sinks.leap.sink import LeapCsvSink
from gateway.storage.interval_log.log import LogStats
from gateway.transports.mqtt.connection import MqttConnection

LEVELS = frozenset({"connections"})


def link_samples(link: MqttLink) -> Iterable[Sample]:
    stats = link.stats
    for kind, count in stats.messages.items():
        yield Sample(
            name="gateway_messages", help="Messages decoded.", value=count, kind="counter", labels=(("kind", kind),)
        )
    for reason, count in stats.rejects.items():
        yield Sample(
            name="gateway_decode_rejects",
            help="Messages refused.",
            value=count,
            kind="counter",
            labels=(("reason", reason),),
        )
    for name, text, value in (
        ("gateway_unenrolled_messages", "Messages of devices that are not enrolled.", stats.unregistered),
        ("gateway_live_stale", "Live readings of unknown age.", stats.stale_live),
        ("gateway_implausible_points", "Points made unknown.", link.implausible),
    ):
        yield Sample(name=name, help=text, value=value, kind="counter")
    yield Sample(
        name="gateway_device_clocks_off", help="Devices whose clock is off by 5 s or more.",
        value=len(link.clocks.off()),
    )  # fmt: skip
    for cause, count in link.clocks.counts().items():
        yield Sample(
            name="gateway_unheeded_devices",
            help="Devices whose newest live message does not count, since nobody knows how old it is.",
            value=count,
            labels=(("cause", cause),),
        )
    yield Sample(
        name="gateway_unenrolled_devices", help="Devices seen that are not enrolled.",
        value=len(link.unregistered.devices()),
    )  # fmt: skip


def transport_samples(transports: Mapping[str, object]) -> Iterable[Sample]:
    """Counts of the links of polled devices, by transport: every number of their stats, and tables by their key."""
    for transport, stats in transports.items():
        for field in fields(stats):  # type: ignore[arg-type]
            value = getattr(stats, field.name)
            rows = value.items() if isinstance(value, dict) else [("", value)]
            for key, count in rows:
                yield Sample(
                    name=f"gateway_{transport}_{field.name}", help=f"{field.name} of the {transport} link.",
                    value=count, kind="gauge" if field.name in LEVELS else "counter",
                    labels=(("reason", str(key)),) if key != "" else (),
                )  # fmt: skip


def connection_samples(connections: Mapping[str, MqttConnection]) -> Iterable[Sample]:
    for name, connection in connections.items():
        stats, label = connection.stats, (("connection", name),)
        up = 1.0 if connection.connected else 0.0
        yield Sample(name="gateway_mqtt_connected", help="1 while connected.", value=up, labels=label)
        yield Sample(
            name="gateway_mqtt_receive_maximum", help="The broker's.", value=stats.broker_receive_max, labels=label
        )
        for metric, text, value in (
            ("gateway_mqtt_connects", "Connections made.", stats.connects),
            ("gateway_mqtt_received_bytes", "Bytes received.", stats.rx_bytes),
            ("gateway_mqtt_received_messages", "Messages received.", stats.rx_messages),
            ("gateway_mqtt_sent_messages", "Messages sent.", stats.tx_messages),
            ("gateway_mqtt_acknowledgements", "Messages acknowledged to the broker.", stats.acks_sent),
            ("gateway_mqtt_overruns", "Times the broker sent more than it may.", stats.overruns),
            (
                "gateway_mqtt_stale_acknowledgements",
                "Acknowledgements of an old connection, dropped.",
                stats.acks_stale,
            ),
        ):
            yield Sample(name=metric, help=text, value=value, kind="counter", labels=label)
        for reason, count in stats.lost.items():
            yield Sample(
                name="gateway_mqtt_losses", help="Connections lost or refused.", value=count, kind="counter",
                labels=(*label, ("reason", reason)),
            )  # fmt: skip
        for outcome, count in stats.published.items():
            yield Sample(
                name="gateway_mqtt_published", help="Messages published, by outcome.", value=count, kind="counter",
                labels=(*label, ("outcome", outcome.value)),
            )  # fmt: skip


def log_samples(stats: LogStats) -> Iterable[Sample]:
    for metric, text, value in (
        ("gateway_interval_records", "Interval records stored.", stats.rows),
        ("gateway_interval_commits", "Commits of the interval log.", stats.commits),
        ("gateway_interval_log_errors", "Reads and writes of the interval log that failed.", stats.failures),
        ("gateway_interval_repeated", "Records stored before, with the same content.", stats.repeated),
        ("gateway_interval_conflicts", "Records made twice with different content.", stats.conflicting),
        ("gateway_interval_nameless", "Records of devices that are not known any more.", stats.nameless),
        ("gateway_interval_corrupt_files", "Damaged log files that were set aside.", stats.corrupt_files),
        ("gateway_interval_corrupt_records", "Damaged records that were left out.", stats.corrupt_rows),
        ("gateway_interval_dropped_files", "Log files dropped by retention.", stats.dropped_files),
        ("gateway_interval_dropped_unsent", "Records dropped before every sink had them.", stats.dropped_unsent),
    ):
        yield Sample(name=metric, help=text, value=value, kind="counter")
    for metric, text, level in (
        ("gateway_interval_log_bytes", "Bytes of the interval log.", float(stats.bytes)),
        ("gateway_interval_log_bytes_max", "Bytes that it may take.", float(stats.bytes_max)),
        ("gateway_interval_held_files", "Old log files that a sink still needs.", float(stats.kept_files)),
    ):
        yield Sample(name=metric, help=text, value=level)


def log_reasons(stats: LogStats) -> list[str]:
    """Why the interval log needs somebody's attention."""
    if not stats.dropped_unsent:
        return []
    return [f"interval log: {stats.dropped_unsent} records were dropped unsent because the disk was full"]


def delivery_samples(deliveries: Iterable[SinkDelivery], clock: Clock) -> Iterable[Sample]:
    now_ms = clock.now().utc_ms
    for delivery in deliveries:
        stats, label = delivery.stats, (("sink", delivery.sink.name),)
        for metric, text, value in (
            ("gateway_sink_accepted", "Interval records accepted.", stats.accepted),
            ("gateway_sink_rejected", "Interval records refused for good.", stats.rejected),
            ("gateway_sink_retries", "Batches kept for later.", stats.kept),
            ("gateway_sink_resent", "Interval records sent once more on request.", stats.resent),
        ):
            yield Sample(name=metric, help=text, value=value, kind="counter", labels=label)
        for reason, count in stats.refused.items():
            yield Sample(
                name="gateway_sink_refused", help="Interval records refused, by reason.", value=count, kind="counter",
                labels=(*label, ("reason", reason)),
            )  # fmt: skip
        yield Sample(
            name="gateway_sink_stopped", help="1 while a person must act before the sink goes on.",
            value=1.0 if stats.stopped else 0.0, labels=label,
        )  # fmt: skip
        age_s = 0.0 if stats.oldest_ms is None else max(0.0, (now_ms - stats.oldest_ms) / 1000)
        yield Sample(
            name="gateway_sink_backlog_records", help="Records not accepted yet.", value=stats.backlog, labels=label
        )
        yield Sample(
            name="gateway_sink_oldest_seconds", help="Age of the oldest record not accepted.", value=age_s, labels=label
        )


def leap_samples(sinks: Iterable[LeapCsvSink], unconfirmed: int) -> Iterable[Sample]:
    """Rows for the aggregator by outcome, whether its newest file of meters is in force, what it has to confirm."""
    yield Sample(
        name="gateway_leap_unconfirmed", help="Points that the aggregator has not confirmed.", value=float(unconfirmed)
    )
    for sink in sinks:
        stats, label = sink.stats, (("sink", sink.name),)
        failing = 0.0 if sink.meters_failing is None else 1.0
        for metric, text, value, kind in (
            ("gateway_leap_meters", "Devices that have a meter.", sink.meters_known, "gauge"),
            ("gateway_leap_meters_failing", "1 while the newest file of meters is not in force.", failing, "gauge"),
            ("gateway_leap_other_length", "Meters without quarters of an hour.", stats.other_length, "gauge"),
            ("gateway_leap_waiting", "Rows that wait.", sum(stats.waiting.values()), "gauge"),
            ("gateway_leap_uploads", "Files uploaded.", stats.uploads, "counter"),
            ("gateway_leap_failed_jobs", "Upload jobs that failed.", stats.jobs_failed, "counter"),
            ("gateway_leap_superseded", "Rows that a newer revision replaced first.", stats.superseded, "counter"),
            ("gateway_leap_missing_unread", "Missing intervals told unreadably.", stats.missing_unread, "counter"),
        ):
            yield Sample(name=metric, help=text, value=value, kind=kind, labels=label)
        for reason, count in stats.refused.items():
            yield Sample(
                name="gateway_leap_refused", help="Rows withheld or refused, by reason.", value=count, kind="counter",
                labels=(*label, ("reason", reason)),
            )  # fmt: skip


def supervisor_samples(supervisor: Supervisor) -> Iterable[Sample]:
    for name, health in supervisor.health.items():
        yield Sample(
            name="gateway_service_restarts", help="Services that failed and were started again.",
            value=health.restarts, kind="counter", labels=(("service", name),),
        )  # fmt: skip
