"""The part of the graph that reads the interval log: sinks, look-ups, completeness, retention."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from gateway.api.routes.leap import LeapUploads
from gateway.api.routes.telemetry import Telemetry
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.domain.errors import StorageError
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.observability.metrics import Sample
from gateway.ports.sinks import Auditable, Sink
from gateway.services.telemetry.completeness import Completeness
from gateway.services.telemetry.history import History
from gateway.services.telemetry.live_feed import LiveFeed
from gateway.services.uplink.delivery import SinkDelivery
from gateway.services.uplink.metrics import delivery_samples
from gateway.services.uplink.resend import Resend
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

RETAIN_PERIOD_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The log and everything that reads it."""

    settings: Settings
    fleet: Fleet
    clock: Clock
    log: IntervalLog
    queries: IntervalQueries
    history: History
    resend: Resend
    deliveries: list[SinkDelivery]
    leap_sinks: list[tuple[LeapCsvSink, SinkDelivery]]
    auditable: dict[str, Auditable]
    live: "_Live | None"

    @classmethod
    async def opened(
        cls, settings: Settings, *, fleet: Fleet, clock: Clock, platform: PlatformSignal | None, stack: AsyncExitStack
    ) -> "Upstream":
        """Open the log."""
        interval_log = await stack.enter_async_context(IntervalLog(settings.state_dir / "intervals", clock=clock))
        queries = await stack.enter_async_context(IntervalQueries(interval_log.files_from, interval_log.check))
        resend = Resend(interval_log, queries, clock)
        deliveries: list[SinkDelivery] = []
        leap_sinks: list[tuple[LeapCsvSink, SinkDelivery]] = []
        auditable: dict[str, Auditable] = {}
        for sink_settings in settings.sinks:
            sink: Sink
            gather_s, leap = 0.0, None
            if sink_settings.kind == "http":
                sink = http = HttpSink(sink_settings)
                stack.push_async_callback(http.close)
            elif sink_settings.kind == "leap_csv":
                sink = leap = _leap(settings, sink_settings, clock)
                gather_s = sink_settings.gather_s
                stack.push_async_callback(leap.close)
                if leap.can_be_asked:
                    auditable[leap.name] = leap
            elif sink_settings.kind == "parquet":
                sink, gather_s = ParquetSink(sink_settings), sink_settings.gather_s
            elif platform is not None:
                sink = MqttSink(sink_settings, connection=platform.connection, clock=clock)
            else:
                continue
            deliveries.append(
                SinkDelivery(
                    sink, log_=interval_log, finder=resend, clock=clock, rng=random.Random(),
                    rate=sink_settings.rows_per_s_max, gather_s=gather_s,
                )
            )  # fmt: skip
            if leap is not None:
                leap_sinks.append((leap, deliveries[-1]))
        return cls(
            settings=settings, fleet=fleet, clock=clock, log=interval_log, queries=queries,
            history=History(queries, fleet), resend=resend, deliveries=deliveries, leap_sinks=leap_sinks,
            auditable=auditable, live=_live(fleet, clock, platform),
        )  # fmt: skip

    def telemetry(self, engine: Engine) -> Telemetry:
        """What the REST routes ask."""
        return Telemetry(
            completeness=Completeness(
                queries=self.queries, log_=self.log, sinks=[d.sink for d in self.deliveries], fleet=self.fleet,
                engine=engine, clock=self.clock,
            ),
            deliveries=self.deliveries, resend=self.resend, history=self.history, log=self.log, fleet=self.fleet,
            clock=self.clock,
            auditable=self.auditable,
            unconfirmed=self.settings.leap.confirmed.unconfirmed if self.leap_sinks else (),
        )  # fmt: skip

    def leap(self) -> LeapUploads:
        """What the routes of the aggregator ask."""
        return LeapUploads(
            log=self.log, clock=self.clock, confirmed=self.settings.leap.confirmed, sinks=self.leap_sinks
        )

    def services(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Services that run as long as the gateway does, by name."""
        found = {f"delivery-{d.sink.name}": d.run for d in self.deliveries} | {"retention": self.retain}
        return found if self.live is None else found | {"live": self.live.run}

    async def retain(self) -> None:
        """Keep the log within its days and its disk budget."""
        keep = self.settings.intervals
        most = None if keep.keep_gib is None else round(keep.keep_gib * (1 << 30))
        budget, failing = partial(log_budget_bytes, self.log.directory, most), False
        while True:
            try:
                await self.log.retain(keep.keep_days, [d.sink.name for d in self.deliveries], budget)
                failing = False
            except StorageError as error:
                if not failing:
                    log.warning("retention failed and will be tried again", extra={"error": str(error)})
                failing = True
            await asyncio.sleep(RETAIN_PERIOD_S)

    def samples(self) -> Iterable[Sample]:
        """Metrics of the log and the sinks."""
        yield from self.log.stats.samples()
        yield from delivery_samples(self.deliveries, self.clock)
        if self.live is not None:
            yield from self.live.feed.samples()
        if self.leap_sinks:
            yield from self.settings.leap.confirmed.samples()
        for sink, _ in self.leap_sinks:
            yield from sink.samples()

    def warnings(self) -> list[str]:
        """What was lost for want of room, and sinks that do not accept: the log keeps what they lack."""
        return self.log.stats.warnings() + [
            f"sink {d.sink.name}: {d.stats.failing}" + (" (stopped: somebody must act)" if d.stats.stopped else "")
            for d in self.deliveries
            if d.stats.failing
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Live:
    """The feed of newest readings to the platform."""

    feed: LiveFeed
    platform: PlatformSignal

    async def run(self) -> None:
        await self.feed.run(self.platform.report)


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


def _live(fleet: Fleet, clock: Clock, platform: PlatformSignal | None) -> _Live | None:
    if platform is None or not platform.settings.live_s:
        return None
    feed = LiveFeed(fleet, clock, period_s=platform.settings.live_s, per_s=platform.settings.live_devices_per_s)
    return _Live(feed=feed, platform=platform)
