"""The control loop: one tick a second, setpoints out. Holds state and awaits; the domain decides.

A tick updates who has which device, asks `claims` which event may have it, `limits` what it may do and `tracking` what
it should do; then it plans the writes, makes the release plan durable, writes, and records the outcome. Nothing else
writes to a device.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.domain.commands import CommandResult
from gateway.domain.control.authority import barred
from gateway.domain.control.availability import Availability, availability
from gateway.domain.control.contact import Contact
from gateway.domain.control.leases import rest
from gateway.domain.control.marks import Marks, standing
from gateway.domain.control.own_mode import OwnModes, wanted_ways
from gateway.domain.control.planning import Plan, PlanParams, plan
from gateway.domain.control.progress import Progress, Tracked, Tracking, TrackingParams
from gateway.domain.control.ramp import in_turn
from gateway.domain.control.reach import Reach
from gateway.domain.control.tracking import track
from gateway.domain.events.arbitration import NOBODY, Claims
from gateway.domain.events.attribution import Credit, credit, pays_export, program_reserve_pct, serves, takes_backup
from gateway.domain.events.delivery_records import Sight
from gateway.domain.events.lifecycle import ActiveEvent, BookEntry
from gateway.domain.fleet.clock_skew import ClockTrust
from gateway.domain.fleet.columns import Authority, ExclusionReason
from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.fleet.measured import Power, keep_parts, power_of
from gateway.domain.journal.changes import Change
from gateway.domain.journal.stored import JournalState
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.resume import note_stops
from gateway.domain.limits.types import Envelope, LimitParams
from gateway.domain.readings import AckBatch
from gateway.domain.types import Bools, EventId, Ints, Now, Slots, Unclear
from gateway.observability.metrics import Histogram, histogram
from gateway.ports.links import CommandTarget
from gateway.services.control.authority import DeviceAuthority
from gateway.services.control.command_writer import CommandWriter, Marked
from gateway.services.control.feeders import FeederCeilings
from gateway.services.control.lease_ends import LeaseEnds
from gateway.services.control.maintenance import NAMES, Maintenance
from gateway.services.control.quarantine import QuarantineWatch
from gateway.services.control.reach import ReachWatch
from gateway.services.control.release_only import ReleaseOnly
from gateway.services.control.stranded import Stranded
from gateway.services.control.totals import EventTotals, totals
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


@dataclass(slots=True)
class ControlStats:
    """Counts of the loop."""

    ticks: int = 0
    late_ticks: int = 0
    outside: int = 0
    results: dict[CommandResult, int] = field(default_factory=lambda: dict.fromkeys(CommandResult, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a tick has found out and decided before it writes. `follows`: the devices that obey; `reach`: those that can
    be told anything; `power`: what each device does; `left`: the devices whose owners opted out, by event;
    `guaranteed`: those that keep the owner's reserve by themselves; `excluding`: `ExclusionReason` bits that are asked
    for."""

    now: Now
    events: Sequence[ActiveEvent]
    claims: Claims
    snapshot: Snapshot
    allowed: Envelope
    follows: Bools
    reach: Reach
    power: Power
    left: Mapping[int, Slots]
    tracked: Tracked
    guaranteed: Bools
    excluding: NDArray[np.uint8]


class ControlLoop:
    """The one writer of setpoints. `fleet_clock`: what the fleet says of our time (None: it tells none);
    `publishing`: a reader asks the delivery records for what has changed; `release_only`: ticks only hand devices
    back."""

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
        self._authority = DeviceAuthority(settings, fleet=fleet)
        self._release_only: ReleaseOnly | None = None
        if release_only:
            self._release_only = ReleaseOnly(
                fleet=fleet, authority=self._authority, writer=self._writer, pending=self.pending
            )
        self._lease_ends = LeaseEnds(dispatcher)
        self.maintenance = Maintenance(
            settings.maintenance, fleet=fleet, recharge_w=settings.feeders.recharge_kw * 1000
        )
        self._trackings: Mapping[int, Tracking] = {}
        self._progress: Mapping[int, Progress] = {}
        self._credits: Mapping[int, Credit] = {}
        self._releasing_all = False
        self._releasing_untimed = False
        self._last_tick_ms: int | None = None
        self._seen_mono_ms: Ints = np.zeros(0, dtype=np.int64)
        self._feeders = FeederCeilings(settings.feeders, fleet)
        self.quarantine = QuarantineWatch(fleet)
        self.stranded = Stranded(fleet)
        self._unclear = UnclearWatch(fleet)
        self.records = DeliveryRecords(fleet, publishing=publishing)
        self._contact = Contact()
        self._own_modes = OwnModes()
        self.unmeasured = Unmeasured(fleet)
        self.envelope: Envelope | None = None
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
            remembered.controlled, now, newest_cmd=self._writer.newest_cmd, taken_back=self._dispatcher.taken_back(now)
        )

    async def trust(self, name: str, *, by: str = "operator", reason: str = "") -> bool:
        """Lift the quarantine of a device or product, or its freeze, durably; returns whether there was one. Raises
        StorageError."""
        return await self.quarantine.trust(name, by=by, reason=reason, pending=self.pending)

    def observe_acks(self, batch: AckBatch) -> None:
        """Record devices' answers to their newest commands; answers to older ones are only counted."""
        control = self._fleet.control
        newest = batch.cmd == control.cmd_sent[batch.slots]
        slots = batch.slots[newest]
        control.result[slots] = batch.result[newest]
        refused = slots[batch.result[newest] == CommandResult.REFUSED]
        control.refused[refused] = np.sign(control.setpoint_w[refused])
        control.refused_mono_ms[refused] = self._clock.mono_ms()
        # an id that was never given out proves nothing, however large
        applied = (batch.result == CommandResult.APPLIED) & (batch.cmd <= self._writer.newest_cmd)
        slots = batch.slots[applied]
        np.maximum.at(control.cmd_applied, slots, batch.cmd[applied])
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
        dt_s = self._settings.tick_s if self._last_tick_ms is None else (now.mono_ms - self._last_tick_ms) / 1000
        self._last_tick_ms = now.mono_ms
        self.stats.ticks += 1
        if self._release_only is not None:
            await self._release_only.tick(now, everything=self._halted())
            return
        changes = self._authority.update(now)
        self._dispatcher.clock_trust = self._fleet_clock.observe(now)
        events = self._events(now)
        claims = self._dispatcher.claims(events, now, self.maintenance.members)
        snapshot = self._fleet.snapshot()
        excluding = self._exclude(events, claims, snapshot, now)
        left = self._authority.left(claims.holder)
        if left:
            changes += self._dispatcher.take_back(left, self._names(), now)
        excused = self._authority.excused()
        if excused:
            changes += self._dispatcher.excuse(excused)
        self._authority.return_left(self._dispatcher.held_back(now), snapshot)
        self._unclear.observe(snapshot, now)
        allowed = self.envelope = envelope(snapshot, now, self._limits)
        note_stops(snapshot, allowed, now, self._limits)
        follows = self.quarantine.follows(snapshot, now)
        changes += self.command_ids.observe(snapshot, now)
        changes += self.quarantine.observe(snapshot, allowed, follows, now)
        power = power_of(snapshot, now, self._seen_mono_ms)
        self._seen_mono_ms = snapshot.live.seen_mono_ms.copy()
        reach = self.reach.observe(snapshot, now)
        keep_parts(snapshot, power.heard_s > 0)
        steered = replace(allowed, controllable=np.zeros_like(follows)) if self._releasing_all else allowed
        lost = self._contact.observe(power, claims.holder != NOBODY, now)
        guaranteed = ~self._authority.unguaranteed(snapshot.n)
        ways = wanted_ways(events, claims, snapshot.n)
        by_own_mode = self._own_modes.observe(ways, snapshot, allowed, power, guaranteed, now)
        tracked = track(
            events, claims, self._trackings, snapshot, steered, follows, power, now, dt_s, self._params(),
            reach=reach, lost=lost, by_own_mode=by_own_mode,
        )  # fmt: skip
        self._trackings, self._progress = tracked.tracking, tracked.progress
        seen = _Seen(
            now=now, events=events, claims=claims, snapshot=snapshot, allowed=allowed, follows=follows, reach=reach,
            power=power, left=self._left(events, snapshot, now), tracked=tracked, guaranteed=guaranteed,
            excluding=excluding,
        )  # fmt: skip
        low, todo = self._plan(seen)
        changes += self._account(seen)
        names = self._names()
        self.unmeasured.observe(events, claims, power, self._contact, names)
        # numbered and marked before the first await: whatever is decided meanwhile is newer
        self.pending.owe(changes)
        marked = self._writer.mark(todo, np.flatnonzero(low).astype(np.int32), claims.holder, now, names=names)
        await self._write(marked, seen)

    async def _write(self, marked: Marked, seen: _Seen) -> None:
        """Write what a tick has decided, and record what may have arrived."""
        marks, control = marked.commands, self._fleet.control
        self._fleet.writing = np.zeros(seen.snapshot.n, dtype=np.bool_)
        self._fleet.writing[marked.reserves.slots] = self._fleet.writing[marks.batch.slots] = True
        try:
            await self._writer.carry_out(marked, lambda marks: self._barred(seen, marks))
        finally:
            self._fleet.writing = np.zeros(0, dtype=np.bool_)
            sent = marks.batch.some(standing(control, marks))
            self.records.written(sent.slots, sent.setpoint_w, sent.cmd, seen.now)

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
            feeder_w=self._feeders.most_w(),
            maintenance_feeder_w=self.maintenance.feeder_w(),
        )

    def _excluding(self, n: int, now: Now) -> NDArray[np.uint8]:
        """`ExclusionReason` bits that are asked for, of the first `n` devices: by choice, by the devices themselves, by
        quarantine, by an import."""
        bits = self._dispatcher.exclusions.bits(self._fleet, now)[:n]
        bits |= (self._fleet.live.opt_out[:n] != 0) * np.uint8(ExclusionReason.OPTED_OUT)
        bits |= self.quarantine.exclusions()[:n]
        bits[[slot for slot in self._fleet.moving if slot < n]] |= np.uint8(ExclusionReason.MOVING)
        return bits

    def _exclude(
        self, events: Sequence[ActiveEvent], claims: Claims, snapshot: Snapshot, now: Now
    ) -> NDArray[np.uint8]:
        """Set each device's exclusions, and what its programs ask of limits; returns the exclusions asked for."""
        control = snapshot.control
        asked = self._excluding(snapshot.n, now)
        chosen = asked & np.uint8(ExclusionReason.OPTED_OUT | ExclusionReason.STORM)
        # one home is excluded at once; a whole group excluded together must be no step of the fleet either
        stopping = (
            (chosen & ~control.exclusions != 0)
            & (control.authority == int(Authority.CONTROLLED))
            & (control.setpoint_w != 0)
        )
        if stopping.any():
            at_once = in_turn(stopping, control.setpoint_w.astype(np.float64), self._settings.step_w)
            chosen &= np.where(stopping & ~at_once, control.exclusions, chosen)
        control.exclusions[:] = (asked & ~np.uint8(ExclusionReason.OPTED_OUT | ExclusionReason.STORM)) | chosen
        control.pays_export[:] = pays_export(events, claims)
        control.takes_backup[:] = takes_backup(events, claims, snapshot.n)
        control.program_reserve_pct[:] = program_reserve_pct(events, claims, snapshot.n)
        return asked

    def _barred(self, seen: _Seen, marks: Marks) -> Bools:
        """Commands that may not go out any more, by what came since they were decided."""
        now, n = self._clock.now(), seen.snapshot.n
        excluded: Bools = (self._excluding(n, now) & ~seen.excluding) != 0
        for index, slots in self._dispatcher.opted_out(seen.events, now).items():
            excluded[slots] |= seen.claims.shares[index][slots]
        return barred(self._fleet.snapshot(), marks, excluded)

    def _plan(self, seen: _Seen) -> tuple[Bools, Plan]:
        """Decide whose reserve to raise first, and what to write."""
        now, snapshot, tracked = seen.now, seen.snapshot, seen.tracked
        opted_out = (snapshot.control.exclusions & np.uint8(ExclusionReason.OPTED_OUT)) != 0
        # an owner's report that was not understood may have been an opt-out
        opted_out |= (snapshot.live.unclear & Unclear.OPT_OUT) != 0
        taking = tracked.taking & ~opted_out & (not self._releasing_all)
        resting = rest(
            snapshot, now, idle=tracked.idle, by_itself=tracked.by_itself, guaranteed=seen.guaranteed,
            after_s=self._settings.rest_after_s,
        )  # fmt: skip
        taking &= ~resting.free
        stopped = taking & (snapshot.control.authority == int(Authority.DEVICE)) & (tracked.wanted_w == 0)
        # who is not told anything in this tick does not stop anything either, and takes no turn of the others
        stopped &= ~seen.reach.waiting
        taking &= ~stopped | in_turn(stopped, np.nan_to_num(snapshot.live.battery_w), self._settings.step_w)
        # a device that must not be written gets no reserve either
        low = self._authority.reserves_due(taking & seen.allowed.controllable)
        taking &= ~low
        low &= ~seen.reach.waiting
        taking &= ~self._authority.unattended(snapshot, now)
        if self._releasing_untimed:
            taking &= snapshot.nameplate.timed
        # an owner's opt-out is not spread over time, whether from everything or from one event
        for slots in seen.left.values():
            opted_out[slots] = True
        # nor, while everything is handed back, is an unconfirmed command: the release overtakes it
        opted_out |= self._halted() & (snapshot.control.cmd_applied < snapshot.control.cmd_sent)
        release = self._authority.turns(snapshot, taking | self._kept(snapshot, opted_out, now), now, opted_out)
        # a device that must be narrowed gets no other setpoint then: it is handed back now
        release |= self._halted() & seen.allowed.must_narrow & ~taking
        ends, going_on = self._lease_ends.observe(seen.events, seen.claims, snapshot, now)
        todo = plan(
            snapshot, seen.allowed, now, PlanParams(), wanted_w=tracked.wanted_w, members=taking, release=release,
            unresponsive=~seen.follows, blocked=resting.blocked, reach=seen.reach,
            until_ms=self._authority.until_ms(ends, going_on, snapshot),
        )  # fmt: skip
        self.stats.outside += todo.outside
        return low, todo

    def _kept(self, snapshot: Snapshot, opted_out: Bools, now: Now) -> Bools:
        """Devices that keep the rest of their lease, since by our clock nobody knows whether their event is over."""
        if self._fleet_clock.trust is ClockTrust.SURE or self._halted():
            return np.zeros(snapshot.n, dtype=np.bool_)
        controlled = snapshot.control.authority == int(Authority.CONTROLLED)
        kept: Bools = controlled & ~opted_out & ~self._authority.unattended(snapshot, now)
        return kept

    def _account(self, seen: _Seen) -> list[Change]:
        """Credit what events deliver and update their delivery records; returns what the journal should remember."""
        now, snapshot, claims = seen.now, seen.snapshot, seen.claims
        live = snapshot.live
        edges, changes = self._dispatcher.advance(now, claims.lost)
        running = [event for event in seen.events if event.index >= 0]
        self._dispatcher.forget(event.index for event in running)
        if running:
            wanted_w = {event.index: self._progress[event.index].target_w for event in running}
            net_w = np.subtract(live.load_w, live.pv_w, dtype=np.float64)
            measured_w = np.where(seen.power.measured, live.battery_w, np.nan)
            self._credits = credit(running, claims, measured_w, net_w, wanted_w)
            sight = Sight(
                snapshot=snapshot, allowed=seen.allowed, power=seen.power, asked_w=seen.tracked.asked_w,
                wanted_w=seen.tracked.wanted_w, unresponsive=self.quarantine.silent, unreached=seen.reach.cause,
                serves=serves(running, claims),
                by_own_mode=seen.tracked.by_own_mode,
            )  # fmt: skip
            groups = {event.index: self._dispatcher.members(event.index, event.request) for event in running}
            self.records.observe(running, claims, groups, seen.left, sight, now)
        else:
            self._credits = {}
        self.maintenance.observe(edges, self._dispatcher, snapshot, seen.power, now)
        return changes + list(self.records.over(self._dispatcher.by_index(), now))

    def _left(self, events: Sequence[ActiveEvent], snapshot: Snapshot, now: Now) -> dict[int, Slots]:
        """Devices whose owners opted out, by event."""
        everywhere = np.flatnonzero(snapshot.control.exclusions & np.uint8(ExclusionReason.OPTED_OUT)).astype(np.int32)
        found = dict.fromkeys((event.index for event in events), everywhere)
        for index, own in self._dispatcher.opted_out(events, now).items():
            found[index] = np.union1d(everywhere, own).astype(np.int32)
        return {index: slots for index, slots in found.items() if len(slots)}

    def _names(self) -> dict[int, EventId]:
        return {index: entry.request.id for index, entry in self._dispatcher.by_index().items()} | dict(NAMES)

    async def shut_down(self, *, release: bool) -> None:
        """Call before the links close. With `release` every device is handed back, ramped, within a bound; without it
        leases run on, and only devices that would not revert by themselves are released."""
        self._releasing_all = release
        control, plate, n = self._fleet.control, self._fleet.nameplate, self._fleet.n
        if not release:
            if not (~plate.timed[:n] & (control.authority[:n] == Authority.CONTROLLED)).any():
                return
            self._releasing_untimed = True
        bound_s = self._authority.spread_s(np.arange(n)) + RELEASE_SLACK_S
        deadline_ms = self._clock.mono_ms() + round(bound_s * 1000)
        while self._clock.mono_ms() < deadline_ms:
            waiting = np.isin(control.authority[:n], (int(Authority.CONTROLLED), int(Authority.RELEASING)))
            if not (waiting if release else waiting & ~plate.timed[:n]).any():
                return
            await asyncio.sleep(0.2)
        log.warning("not every device confirmed its release", extra={"count": int(waiting.sum())})

    # -- queries ---------------------------------------------------------------------------------------------

    def reasons_of(self, slot: int) -> int:
        """Why a device may not discharge more, as `Reason` bits of the newest tick."""
        allowed = self.envelope
        return int(allowed.reasons_discharge[slot]) if allowed and slot < len(allowed.reasons_discharge) else 0

    def reasons(self) -> list[str]:
        """Why control is not in order."""
        out = [f"journal: {self.pending.failing}"] if self.pending.failing else []
        last = self._last_tick_ms
        if last is None or self._clock.mono_ms() - last > 5_000 * self._settings.tick_s:
            out.append("control: no tick lately")
        if self._dispatcher.stopped:
            out.append("dispatch is stopped by an operator")
        return (
            out
            + self.command_ids.reasons()
            + self.quarantine.reasons()
            + self.stranded.reasons()
            + self.unmeasured.reasons()
        )

    def idle(self) -> bool:
        """Whether no program's event runs and no device is under control."""
        authority = self._fleet.control.authority[: self._fleet.n]
        return (
            not any(index >= 0 for index in self._progress)
            and not np.isin(authority, (int(Authority.CONTROLLED), int(Authority.RELEASING))).any()
        )

    def progress(self, entry: BookEntry) -> Progress | None:
        """How an event is doing; None while it does not run."""
        return self._progress.get(entry.index) if entry.index >= 0 else None

    def credit(self, entry: BookEntry) -> Credit | None:
        """What an event is credited with now, and what others are of the power that serves it."""
        return self._credits.get(entry.index)

    def unguaranteed(self) -> int:
        """Devices whose own reserve is below their owner's: only a lease of the gateway keeps the owner's."""
        return int(self._authority.unguaranteed(self._fleet.n).sum())

    def availability(self) -> Iterator[Availability]:
        """What each group can sustain from now on, as of the tick before the first is asked for."""
        allowed = self.envelope
        if allowed is None:
            return
        able = allowed.controllable & ~self.reach.unreachable(len(allowed.controllable))
        yield from availability(self._groups(len(allowed.discharge_w)), allowed, self._fleet.nameplate, able)

    def _groups(self, n: int) -> Iterator[tuple[str, Slots]]:
        """The groups of the first `n` devices, each found when its turn comes."""
        yield "all", np.arange(n, dtype=np.int32)
        for tag in sorted(self._fleet.tags):
            members = self._fleet.tags[tag]
            slots = np.sort(np.fromiter(members, np.int32, len(members)))
            yield f"tag:{tag}", slots[slots < n]

    def totals(self) -> dict[str, EventTotals]:
        """Sums over the running events, by program."""
        return totals(self._dispatcher.entries(), self.progress, self.credit)
