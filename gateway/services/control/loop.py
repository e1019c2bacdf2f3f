"""The control loop: one tick a second, setpoints out. Holds state and awaits; the domain decides.

A tick hands values on: it observes the devices, arbitrates which event may have each, limits what each may do, tracks
what each should do, and decides what to write. Then it applies that to the columns, makes the release plan durable and
writes. Nothing else writes to a device.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from gateway.clock import Clock
from gateway.domain.commands import CommandResult
from gateway.domain.control.authority import HandBackParams, spread_s
from gateway.domain.control.contact import Contact
from gateway.domain.control.decision import Decision, DecisionParams, Ends, Halt, decide
from gateway.domain.control.kept import held
from gateway.domain.control.marks import note_answers, standing
from gateway.domain.control.observed import Observed, observe
from gateway.domain.control.own_mode import OwnModes, wanted_ways
from gateway.domain.control.progress import Progress, Tracked, Tracking, TrackingParams
from gateway.domain.control.tracking import track
from gateway.domain.events.arbitration import NOBODY
from gateway.domain.events.attribution import Credit
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.fleet.clock_skew import ClockTrust
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.fleet.measured import keep_parts
from gateway.domain.journal.stored import JournalState
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.resume import note_stops
from gateway.domain.limits.types import Envelope, LimitParams
from gateway.domain.readings import AckBatch
from gateway.domain.types import Ints, Now
from gateway.observability.metrics import Histogram, histogram
from gateway.observability.parts import Importance, Part
from gateway.ports.links import CommandTarget
from gateway.services.control.arbitration import Arbiter, Arbitrated
from gateway.services.control.authority import DeviceAuthority
from gateway.services.control.command_writer import CommandWriter, Marked
from gateway.services.control.crediting import Crediting
from gateway.services.control.feeders import FeederCeilings
from gateway.services.control.lease_ends import LeaseEnds
from gateway.services.control.maintenance import Maintenance
from gateway.services.control.quarantine import QuarantineWatch
from gateway.services.control.reach import ReachWatch
from gateway.services.control.release_only import ReleaseOnly
from gateway.services.control.stranded import Stranded
from gateway.services.control.unclear import UnclearWatch
from gateway.services.control.unmeasured import Unmeasured
from gateway.services.events.delivery_records import DeliveryRecords
from gateway.services.events.intake import Dispatcher
from gateway.services.runtime.fleet_clock import FleetClock
from gateway.services.settings import ControlSettings

log = logging.getLogger(__name__)

RELEASE_SLACK_S = 15.0
TICK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

TICK_SECONDS = histogram("gateway_tick_seconds", "Duration of a control tick.", TICK_BUCKETS_S)
TICK_LATENESS = histogram("gateway_tick_lateness_seconds", "Lateness of a control tick.", TICK_BUCKETS_S)


def _nobody_listens() -> None:
    """The tick is over, and nobody wants to know."""


@dataclass(slots=True)
class ControlStats:
    """Counts of the loop."""

    ticks: int = 0
    late_ticks: int = 0
    outside: int = 0
    results: dict[CommandResult, int] = field(default_factory=lambda: dict.fromkeys(CommandResult, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestTick:
    """What the newest tick found out: the envelope (None: there was no tick yet), and by event index how each that runs
    is doing and what it is credited with."""

    envelope: Envelope | None = None
    progress: Mapping[int, Progress] = field(default_factory=dict)
    credits: Mapping[int, Credit] = field(default_factory=dict)


class ControlLoop(Part):
    """The one writer of setpoints. `fleet_clock`: what the fleet says of our time (None: it tells none);
    `publishing`: a reader asks the delivery records for what has changed; `release_only`: ticks only hand devices
    back. `on_tick` is called after each tick that came to its end."""

    service = "control"
    component = "control"
    importance = Importance.VITAL

    def __init__(
        self,
        settings: ControlSettings,
        *,
        fleet: Fleet,
        dispatcher: Dispatcher,
        link: CommandTarget,
        clock: Clock,
        epoch: int,
        fleet_clock: FleetClock | None = None,
        publishing: bool = False,
        release_only: bool = False,
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._dispatcher = dispatcher
        self.pending = dispatcher.pending
        self._clock = clock
        self._fleet_clock = FleetClock(clock) if fleet_clock is None else fleet_clock
        self.reach = ReachWatch(fleet)
        self._writer = CommandWriter(
            settings, fleet=fleet, pending=dispatcher.pending, link=link, clock=clock, epoch=epoch, reach=self.reach,
            halted=self._halted,
        )  # fmt: skip
        self._limits = LimitParams(reading_age_s_max=settings.reading_age_s_max, site_margin_w=settings.site_margin_w)
        self._decisions = DecisionParams(
            rest_after_s=settings.rest_after_s,
            hand_back=HandBackParams(
                spread_s=settings.release_spread_s, fleet_w_per_s=settings.fleet_w_per_s, step_w=settings.step_w
            ),
        )
        self._authority = DeviceAuthority(settings, fleet=fleet)
        self._release_only: ReleaseOnly | None = None
        if release_only:
            self._release_only = ReleaseOnly(
                fleet=fleet,
                authority=self._authority,
                writer=self._writer,
                pending=self.pending,
                hand_back=self._decisions.hand_back,
            )
        self._lease_ends = LeaseEnds(dispatcher)
        self.maintenance = Maintenance(
            settings.maintenance, fleet=fleet, recharge_w=settings.feeders.recharge_kw * 1000
        )
        self._feeders = FeederCeilings(settings.feeders, fleet)
        self.quarantine = QuarantineWatch(fleet)
        self.stranded = Stranded(fleet)
        self._unclear = UnclearWatch(fleet)
        self.records = DeliveryRecords(fleet, publishing=publishing)
        self._arbiter = Arbiter(
            fleet=fleet, dispatcher=dispatcher, authority=self._authority, quarantine=self.quarantine,
            step_w=settings.step_w,
        )  # fmt: skip
        self._crediting = Crediting(
            dispatcher=dispatcher, records=self.records, maintenance=self.maintenance, quarantine=self.quarantine
        )
        self.unmeasured = Unmeasured(fleet)
        self._contact = Contact()
        self._own_modes = OwnModes()
        self._trackings: Mapping[int, Tracking] = {}
        self._on_top: Ints | None = None
        self._hand_back_ms: Ints | None = None
        self._seen_mono_ms: Ints = np.zeros(0, dtype=np.int64)
        self._releasing_all = self._releasing_untimed = False
        self.newest = NewestTick()
        self.last_tick_ms: int | None = None
        self.on_tick: Callable[[], None] = _nobody_listens
        self.stats = ControlStats()
        self.writes, self.command_ids = self._writer.stats, self._writer.ids
        self.authority_stats, self.restarted = self._authority.stats, self._authority.restarted
        self.tick_seconds = Histogram(TICK_SECONDS)
        self.tick_lateness = Histogram(TICK_LATENESS)
        self.histograms = (self.tick_seconds, self.tick_lateness)

    def load(self, remembered: JournalState) -> None:
        """Load release plans and quarantines. Devices that were under control stay so until their lease (at most the
        product's whole one) has run out; their setpoint is read from what they do."""
        self.quarantine.load(remembered.quarantined, remembered.quarantined_since_ms)
        self.stranded.load(remembered)
        now = self._clock.now()
        self._authority.adopt(
            remembered.controlled,
            now,
            newest_cmd=self._writer.newest_cmd,
            taken_back=self._dispatcher.taken_back.lasting(now),
        )

    async def trust(self, name: str, *, by: str = "operator", reason: str = "") -> bool:
        """Lift the quarantine of a device or product, or its freeze, durably; returns whether there was one. Raises
        StorageError."""
        return await self.quarantine.trust(name, by=by, reason=reason, pending=self.pending)

    def observe_acks(self, batch: AckBatch) -> None:
        """Record devices' answers to their newest commands; answers to older ones are only counted."""
        note_answers(self._fleet.control, batch, self._clock.mono_ms(), newest_cmd=self._writer.newest_cmd)
        for result in CommandResult:
            self.stats.results[result] += int(np.count_nonzero(batch.result == result))

    # -- the loop --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tick until cancelled; missed ticks are not caught up."""
        await self._warm_up()
        tick_ms = round(self._settings.tick_s * 1000)
        due_ms = self._clock.mono_ms()
        while True:
            late_s = max(0, self._clock.mono_ms() - due_ms) / 1000
            self.tick_lateness.observe(late_s)
            self.stats.late_ticks += late_s > self._settings.tick_s
            began = self._clock.cpu_ns()
            await self.tick()
            self.tick_seconds.observe((self._clock.cpu_ns() - began) / 1e9)
            self.on_tick()
            now_ms = self._clock.mono_ms()
            due_ms = max(due_ms + tick_ms, now_ms)
            await asyncio.sleep((due_ms - now_ms) / 1000)

    async def _warm_up(self) -> None:
        """After a restart in mid-event: wait briefly for readings, so that the ramp starts from measured power."""
        deadline_ms = self._clock.mono_ms() + round(self._settings.warm_up_s * 1000)
        while self._clock.mono_ms() < deadline_ms and not self._authority.heard():
            await asyncio.sleep(0.1)

    async def tick(self) -> None:
        """One round of control; see the module's first lines. Nothing else runs until the first await."""
        now = self._clock.now()
        dt_s = self._settings.tick_s if self.last_tick_ms is None else (now.mono_ms - self.last_tick_ms) / 1000
        self.last_tick_ms = now.mono_ms
        self.stats.ticks += 1
        if self._release_only is not None:
            await self._release_only.tick(now, everything=self._halted())
            return
        self._dispatcher.clock_trust = self._fleet_clock.observe(now)
        self._dispatcher.observe(now)
        changes = self._authority.update(now)
        snapshot, control = self._fleet.snapshot(), self._fleet.columns().control
        observed = self._observe(snapshot, now)
        arbitrated = self._arbiter.arbitrate(self._events(now), self.maintenance.members, now)
        allowed = envelope(snapshot, now, self._limits)
        changes += arbitrated.changes
        changes += self.command_ids.observe(snapshot, now)
        changes += self.quarantine.observe(snapshot, allowed, observed.follows, now)
        tracked = self._track(observed, arbitrated, allowed, dt_s)
        decision = self._decide(observed, arbitrated, allowed, tracked)
        changes += self._crediting.observe(observed, arbitrated, allowed, tracked)
        self.newest = NewestTick(envelope=allowed, progress=tracked.progress, credits=self._crediting.credits)
        names = self._arbiter.names()
        self.unmeasured.observe(arbitrated.events, arbitrated.claims, observed.power, self._contact, names)
        self.stats.outside += decision.plan.outside
        note_stops(control, snapshot, allowed, now, self._limits)
        keep_parts(control, snapshot, observed.power.heard_s > 0)
        if decision.release_mono_ms is not snapshot.control.release_mono_ms:
            control.release_mono_ms[:] = decision.release_mono_ms
        # numbered and marked before the first await: whatever is decided meanwhile is newer
        self.pending.owe(changes)
        marked = self._writer.mark(decision.plan, decision.low, arbitrated.claims.holder, now, names=names)
        await self._write(marked, arbitrated, now)

    def _observe(self, snapshot: Snapshot, now: Now) -> Observed:
        """Look at what devices do, say and can be told."""
        self._unclear.observe(snapshot, now)
        follows, reach = self.quarantine.follows(snapshot, now), self.reach.observe(snapshot, now)
        observed = observe(snapshot, now, self._seen_mono_ms, follows=follows, reach=reach)
        self._seen_mono_ms = snapshot.live.seen_mono_ms.copy()
        return observed

    def _track(self, observed: Observed, arbitrated: Arbitrated, allowed: Envelope, dt_s: float) -> Tracked:
        """Turn targets into the setpoint wanted of every device."""
        events, claims, snapshot = arbitrated.events, arbitrated.claims, observed.snapshot
        steered = allowed
        if self._releasing_all:
            steered = replace(allowed, controllable=np.zeros_like(allowed.controllable))
        lost = self._contact.observe(observed.power, claims.holder != NOBODY, observed.now)
        own = self._own_modes.observe(
            wanted_ways(events, claims, snapshot.n), snapshot, allowed, observed.power, observed.guaranteed,
            observed.now,
        )  # fmt: skip
        tracked = track(
            events, claims, self._trackings, snapshot, steered, observed.follows, observed.power, observed.now, dt_s,
            self._params(), reach=observed.reach, lost=lost, by_own_mode=own, on_top=self._on_top,
        )  # fmt: skip
        self._trackings, self._on_top = tracked.tracking, tracked.on_top
        return held(tracked, events, claims)

    def _decide(self, observed: Observed, arbitrated: Arbitrated, allowed: Envelope, tracked: Tracked) -> Decision:
        """Decide whose reserve to raise first, and what to write."""
        ends, going_on = self._lease_ends.observe(arbitrated.events, arbitrated.claims, observed.snapshot, observed.now)
        decision = decide(
            observed, allowed, tracked, arbitrated.left,
            Ends(ends=ends, going_on=going_on, before_ms=self._hand_back_ms),
            Halt(
                halted=self._halted(), everything=self._releasing_all, untimed=self._releasing_untimed,
                sure=self._fleet_clock.trust is ClockTrust.SURE,
            ),
            self._decisions,
        )  # fmt: skip
        self._hand_back_ms = decision.hand_back_ms
        return decision

    async def _write(self, marked: Marked, arbitrated: Arbitrated, now: Now) -> None:
        """Write what was decided and is marked, and record what may have arrived."""
        fleet, marks = self._fleet, marked.commands
        fleet.writing = np.zeros(len(arbitrated.asked), dtype=np.bool_)
        fleet.writing[marked.reserves.slots] = fleet.writing[marks.batch.slots] = True
        try:
            await self._writer.carry_out(
                marked, lambda marks: self._arbiter.barred(arbitrated, marks, self._clock.now())
            )
        finally:
            fleet.writing = np.zeros(0, dtype=np.bool_)
            sent = marks.batch.some(standing(fleet.control, marks))
            self.records.written(sent.slots, sent.setpoint_w, sent.cmd, now)

    # -- what the stages are given -------------------------------------------------------------------------------

    def _events(self, now: Now) -> list[ActiveEvent]:
        """What is carried out now. While everything is handed back before a stop, events are only measured."""
        running = self._dispatcher.active(now)
        if self._halted() or self._fleet_clock.trust is ClockTrust.CONTRADICTED:
            return running
        return [*running, *self.maintenance.events(now)]

    def _halted(self) -> bool:
        """Whether devices are only handed back: no device is given power any more."""
        return self._releasing_all or self._dispatcher.stopped

    def _params(self) -> TrackingParams:
        settings = self._settings
        return TrackingParams(
            fleet_w_per_s=settings.fleet_w_per_s,
            horizon_s=settings.horizon_s,
            target_w_max=settings.ceiling_mw * 1e6,
            program_w=self._dispatcher.program_w,
            source_w=self._dispatcher.source_w,
            feeder_w=self._feeders.most_w(),
            maintenance_feeder_w=self.maintenance.feeder_w(),
        )

    async def shut_down(self, *, release: bool) -> None:
        """Call before the links close. With `release` every device is handed back, ramped, within a bound; without it
        leases run on, and only devices that would not revert by themselves are released."""
        self._releasing_all = release
        control, plate, n = self._fleet.control, self._fleet.nameplate, self._fleet.n
        if not release:
            if not (~plate.timed[:n] & (control.authority[:n] == Authority.CONTROLLED)).any():
                return
            self._releasing_untimed = True
        bound_s = spread_s(control, np.arange(n), self._decisions.hand_back) + RELEASE_SLACK_S
        deadline_ms = self._clock.mono_ms() + round(bound_s * 1000)
        while self._clock.mono_ms() < deadline_ms:
            waiting = np.isin(control.authority[:n], (int(Authority.CONTROLLED), int(Authority.RELEASING)))
            if not (waiting if release else waiting & ~plate.timed[:n]).any():
                return
            await asyncio.sleep(0.2)
        log.warning("not every device confirmed its release", extra={"count": int(waiting.sum())})
