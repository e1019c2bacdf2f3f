"""The part of the graph that takes events in, carries them out and reports on them."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.api.views.dispatch import CauseOf, DispatchView
from gateway.app.parts import RunningParts
from gateway.clock import SteadyClock
from gateway.config.settings import Settings
from gateway.domain.errors import StorageError
from gateway.domain.fleet.clock_skew import ClockSkew, ClockTrust
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.stored import JournalState
from gateway.domain.rules.program import GridProgram
from gateway.domain.types import Now
from gateway.ports.journal import EventStore, Journal
from gateway.ports.links import CommandTarget
from gateway.ports.replay import ReplayWindow
from gateway.services.control.loop import ControlLoop
from gateway.services.control.metrics import ControlMetrics
from gateway.services.control.quarantine import Untrusted
from gateway.services.control.queries import ControlQueries
from gateway.services.events.intake import Dispatcher
from gateway.services.events.participation import Participation
from gateway.services.events.program_rules import ProgramRules
from gateway.services.events.reports import Reports
from gateway.services.runtime.clock_guard import ClockGuard
from gateway.services.runtime.fleet_clock import FleetClock
from gateway.signals.platform import PlatformSignal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlParts:
    """Intake, control loop, what is asked of them, and the platform (None where none is configured)."""

    clock: SteadyClock
    dispatcher: Dispatcher
    control: ControlLoop
    view: DispatchView
    platform: PlatformSignal | None


async def control_parts(
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
    parts: RunningParts,
    programs: Mapping[str, GridProgram] = MappingProxyType({}),
    release_only: bool = False,
    participation: Participation | None = None,
    refused: ReplayWindow | None = None,
) -> ControlParts:
    """Start control with what the journal remembers of events; devices are loaded once their readings are. `programs`:
    those whose rules are known; `refused`: what was answered to messages of the platform that were refused."""
    dispatcher = Dispatcher(
        settings.control, fleet=fleet, journal=journal, clock=clock, programs=settings.programs,
        sources=settings.sources,
        rules=ProgramRules(programs, settings=settings.programs, store=store),
        release_only=release_only, participation=participation,
    )  # fmt: skip
    dispatcher.load(remembered)
    try:
        await dispatcher.rules.recall(clock.now())
    except StorageError as error:
        # tried again with the next event of such a program
        log.warning("what programs dispatched before could not be read", extra={"error": str(error)})
    fleet_clock = FleetClock(clock, skew)
    control = ControlLoop(
        settings.control, fleet=fleet, dispatcher=dispatcher, link=link, clock=clock,
        epoch=remembered.epoch, fleet_clock=fleet_clock, publishing=settings.platform is not None,
        release_only=release_only,
    )  # fmt: skip
    control.records.know(remembered.delivered)
    queries = ControlQueries(control, fleet=fleet, dispatcher=dispatcher, clock=clock, tick_s=settings.control.tick_s)
    view = DispatchView(
        fleet=fleet, dispatcher=dispatcher, queries=queries, store=store, clock=clock, cause_of=cause_of,
        misidentified=misidentified,
    )  # fmt: skip
    platform = None
    if settings.platform is not None:
        platform = PlatformSignal(settings.platform, clock=clock, submit=dispatcher.submit, refused=refused)
    for part in (
        control,
        queries,
        ControlMetrics(queries, dispatcher),
        ClockGuard(clock, idle=lambda: queries.idle() or fleet_clock.trust is ClockTrust.CONTRADICTED),
        fleet_clock,
        dispatcher,
        *(() if platform is None else (platform.connection, platform)),
        Reports(
            control.records, view, None if platform is None else platform.report, store=store,
            availability_s=settings.control.availability_s,
        ),
    ):  # fmt: skip
        await parts.start(part)
    return ControlParts(clock=clock, dispatcher=dispatcher, control=control, view=view, platform=platform)
