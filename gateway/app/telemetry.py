"""The part of the graph that reads the interval log: sinks, look-ups, completeness, retention."""

import logging
import random
from dataclasses import dataclass
from functools import partial

from gateway.api.routes.leap import LeapUploads
from gateway.api.routes.telemetry import Telemetry
from gateway.app.parts import RunningParts
from gateway.clock import Clock
from gateway.config.settings import Settings, SinkSettings
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.observability.parts import Part
from gateway.ports.sinks import Auditable, Sink
from gateway.services.telemetry.completeness import Completeness
from gateway.services.telemetry.history import History
from gateway.services.telemetry.live_feed import LiveFeed
from gateway.services.uplink.delivery import SinkDelivery
from gateway.services.uplink.resend import Resend
from gateway.services.uplink.retention import Retention
from gateway.signals.platform import PlatformSignal
from gateway.sinks.http import HttpSink
from gateway.sinks.leap.settings import LeapCsvSinkSettings
from gateway.sinks.leap.sink import LeapCsvSink
from gateway.sinks.mqtt import MqttSink
from gateway.sinks.parquet import ParquetSink
from gateway.storage.disk_budget import log_budget_bytes
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.query import IntervalQueries

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The log and everything that reads it."""

    fleet: Fleet
    clock: Clock
    log: IntervalLog
    queries: IntervalQueries
    history: History
    resend: Resend
    deliveries: list[SinkDelivery]
    leap: LeapUploads

    @classmethod
    async def started(
        cls, settings: Settings, *, fleet: Fleet, clock: Clock, platform: PlatformSignal | None, parts: RunningParts
    ) -> "Upstream":
        """Open the log and what reads it."""
        interval_log = await parts.start(IntervalLog(settings.state_dir / "intervals", clock=clock))
        queries = await parts.start(IntervalQueries(interval_log.files_from, interval_log.check))
        resend = Resend(interval_log, queries, clock)
        deliveries: list[SinkDelivery] = []
        leap_sinks: list[tuple[LeapCsvSink, SinkDelivery]] = []
        for of in settings.sinks:
            sink = _sink(of, settings, clock=clock, platform=platform)
            if sink is None:
                continue
            if isinstance(sink, Part):
                await parts.start(sink)
            gather_s = of.gather_s if of.kind in ("leap_csv", "parquet") else 0.0
            delivery = SinkDelivery(
                sink, log_=interval_log, finder=resend, clock=clock, rng=random.Random(), rate=of.rows_per_s_max,
                gather_s=gather_s,
            )  # fmt: skip
            deliveries.append(await parts.start(delivery))
            if isinstance(sink, LeapCsvSink):
                leap_sinks.append((sink, delivery))
        leap = LeapUploads(log=interval_log, clock=clock, confirmed=settings.leap.confirmed, sinks=leap_sinks)
        await parts.start(leap)
        await parts.start(_retention(settings, interval_log, deliveries))
        if platform is not None and platform.settings.live_s:
            of_live = platform.settings
            await parts.start(
                LiveFeed(fleet, clock, platform.report, period_s=of_live.live_s, per_s=of_live.live_devices_per_s)
            )
        return cls(
            fleet=fleet, clock=clock, log=interval_log, queries=queries, history=History(queries, fleet),
            resend=resend, deliveries=deliveries, leap=leap,
        )  # fmt: skip

    def telemetry(self, engine: Engine) -> Telemetry:
        """What the REST routes ask."""
        auditable: dict[str, Auditable] = {sink.name: sink for sink, _ in self.leap.sinks if sink.can_be_asked}
        return Telemetry(
            completeness=Completeness(
                queries=self.queries, log_=self.log, sinks=[d.sink for d in self.deliveries], fleet=self.fleet,
                engine=engine, clock=self.clock,
            ),
            deliveries=self.deliveries, resend=self.resend, history=self.history, log=self.log, fleet=self.fleet,
            clock=self.clock,
            auditable=auditable,
            unconfirmed=self.leap.confirmed.unconfirmed if self.leap.sinks else (),
        )  # fmt: skip


def _sink(of: SinkSettings, settings: Settings, *, clock: Clock, platform: PlatformSignal | None) -> Sink | None:
    """The sink that these settings describe; None where the platform it needs is missing."""
    if of.kind == "http":
        return HttpSink(of)
    if of.kind == "leap_csv":
        return _leap(settings, of, clock)
    if of.kind == "parquet":
        return ParquetSink(of)
    return None if platform is None else MqttSink(of, connection=platform.connection, clock=clock)


def _leap(settings: Settings, sink: LeapCsvSinkSettings, clock: Clock) -> LeapCsvSink:
    """The sink of the aggregator. What it has not confirmed is said once, at the start."""
    confirmed = settings.leap.confirmed
    if confirmed.unconfirmed:
        log.warning(
            "the aggregator has not confirmed what uploads rest on",
            extra={"sink": sink.name, "unconfirmed": confirmed.unconfirmed},
        )
    made = LeapCsvSink(sink, clock=clock, directory=settings.state_dir / "leap" / sink.name, confirmed=confirmed)
    made.look()
    return made


def _retention(settings: Settings, interval_log: IntervalLog, deliveries: list[SinkDelivery]) -> Retention:
    """Retention that waits for every sink."""
    keep = settings.intervals
    most = None if keep.keep_gib is None else round(keep.keep_gib * (1 << 30))
    return Retention(
        interval_log, keep_days=keep.keep_days, readers=[delivery.sink.name for delivery in deliveries],
        budget=partial(log_budget_bytes, interval_log.directory, most),
    )  # fmt: skip
