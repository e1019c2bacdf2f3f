"""The part of the graph that takes events in, carries them out and reports on them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gateway.api.views.dispatch import CauseOf, DispatchView
from gateway.clock import SteadyClock
from gateway.config.settings import Settings
from gateway.domain.fleet.clock_skew import ClockSkew, ClockTrust
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.stored import JournalState
from gateway.domain.types import Now
from gateway.observability.metrics import Sample
from gateway.ports.journal import EventStore, Journal
from gateway.ports.links import CommandTarget
from gateway.services.control.loop import ControlLoop
from gateway.services.control.metrics import control_samples, dispatch_samples
from gateway.services.control.quarantine import Untrusted
from gateway.services.control.queries import ControlQueries
from gateway.services.events.intake import Dispatcher
from gateway.services.events.reports import Reports
from gateway.services.runtime.clock_guard import ClockGuard
from gateway.services.runtime.fleet_clock import FleetClock
from gateway.signals.platform import PlatformSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlParts:
    """Intake, control loop, clock guard and reports."""

    clock: SteadyClock
    clock_guard: ClockGuard
    fleet_clock: FleetClock
    dispatcher: Dispatcher
    control: ControlLoop
    queries: ControlQueries
    reports: Reports
    view: DispatchView

    def samples(self) -> Iterator[Sample]:
        yield from control_samples(self.queries)
        yield from dispatch_samples(self.dispatcher, self.queries)
        yield from self.reports.samples()
        yield from self.clock_guard.samples()
        yield from self.fleet_clock.samples()

    def reasons(self) -> list[str]:
        """Why control is not ready."""
        return self.queries.reasons() + self.clock_guard.reasons() + self.fleet_clock.reasons()

    def warnings(self) -> list[str]:
        """What control leaves alone, does not hear or measures seldom, what is in force and not durable yet, and which
        events nobody has ended."""
        return self.queries.warnings() + self.dispatcher.warnings()

    async def report(self, platform: PlatformSignal) -> None:
        """Send the platform changed delivery records, and event and availability reports, for as long as it runs."""
        await self.reports.run(
            platform.report,
            records=self.view.delivery_reports,
            events=self.view.event_reports,
            availability=self.view.availability_report,
        )


def control_parts(
    settings: Settings,
    remembered: JournalState,
    *,
    fleet: Fleet,
    journal: Journal,
    store: EventStore,
    link: CommandTarget,
    clock: SteadyClock,
    cause_of: CauseOf,
    skew: Callable[[Now], ClockSkew],
    misidentified: Callable[[], Iterable[Untrusted]],
    release_only: bool = False,
) -> ControlParts:
    dispatcher = Dispatcher(
        settings.control, fleet=fleet, journal=journal, clock=clock, programs=settings.programs,
        release_only=release_only,
    )  # fmt: skip
    dispatcher.load(remembered)
    fleet_clock = FleetClock(clock, skew)
    control = ControlLoop(
        settings.control, fleet=fleet, dispatcher=dispatcher, link=link, clock=clock,
        epoch=remembered.epoch, fleet_clock=fleet_clock, publishing=settings.platform is not None,
        release_only=release_only,
    )  # fmt: skip
    control.records.know(remembered.delivered)
    queries = ControlQueries(control, fleet=fleet, dispatcher=dispatcher, clock=clock, tick_s=settings.control.tick_s)
    reports = Reports(control.records, availability_s=settings.control.availability_s)
    view = DispatchView(
        fleet=fleet,
        dispatcher=dispatcher,
        queries=queries,
        store=store,
        clock=clock,
        cause_of=cause_of,
        misidentified=misidentified,
    )
    clock_guard = ClockGuard(clock, idle=lambda: queries.idle() or fleet_clock.trust is ClockTrust.CONTRADICTED)
    return ControlParts(
        clock=clock,
        clock_guard=clock_guard,
        fleet_clock=fleet_clock,
        dispatcher=dispatcher,
        control=control,
        queries=queries,
        reports=reports,
        view=view,
    )
