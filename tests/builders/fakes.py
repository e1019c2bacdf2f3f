"""Fakes that behave like the real thing: devices that follow setpoints, a journal in memory, scripted sinks."""

import asyncio
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import orjson

from gateway.clock import ManualClock
from gateway.domain.commands import CommandBatch, CommandOp, CommandResult, WriteOutcome, WriteReport
from gateway.domain.errors import StorageError
from gateway.domain.events.book import Outcome
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import OVER, EventState
from gateway.domain.events.scope import own_id
from gateway.domain.events.take_backs import TakeBack
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet, ProductFacts
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.journal.changes import (
    UNNUMBERED,
    CaseChanged,
    Change,
    ControlEnded,
    ControlTaken,
    DepartureAsked,
    DepartureOver,
    DeviceRegistered,
    DeviceRemoved,
    EpochRaised,
    EventDecided,
    EventDelivered,
    EventMoved,
    EventsArchived,
    EventWithdrawn,
    ExclusionLifted,
    ExclusionSet,
    FactsChanged,
    OutboxChanged,
    PriorRestored,
    PriorSaved,
    Quarantined,
    RawDiscarded,
    ReserveChanged,
    Setting,
    StopAll,
    TakeBackOver,
    TakenBack,
    Trusted,
    WithdrawalLifted,
)
from gateway.domain.journal.stored import (
    AuditChain,
    AuditEntry,
    AuditQuestion,
    DeliveredEvent,
    Departure,
    JournalState,
    StoredEvent,
    StoredOccurrence,
    StoredRecords,
)
from gateway.domain.readings import AckBatch, AckToken, LiveBatch, RawMessage
from gateway.domain.registry.connection import Connection
from gateway.domain.registry.placement import Placement
from gateway.domain.types import DeviceId, EventId, Floats, Grid, Mode
from gateway.ports.links import Emit
from gateway.ports.sinks import Accept, IntervalBatch, SinkResult
from gateway.profiles.compile import Codec, compile_profile
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.loader import load_profiles
from gateway.storage.interval_log.merge import Place
from gateway.storage.journal.audit_rows import KINDS, audit

FACTS = ProductFacts(
    lease_s=120, command_latency_s=5, timed=True, efficiency_discharge=0.95, efficiency_charge=0.95, standby_w=30,
    soc_uncertainty_pct=5,
)  # fmt: skip
PROFILES = Path(__file__).parents[2] / "device_profiles"


def product(document: ProfileDocument, *, facts: ProductFacts = FACTS) -> Codec:
    """A compiled profile with other facts than its own."""
    return replace(compile_profile(document), facts=facts)


def message_product(name: str = "p") -> Codec:
    """The reference product under another name: its devices come to us."""
    document = load_profiles(PROFILES)["reference-mqtt"].document
    return product(document.model_copy(update={"profile": name}))


def home(name: str, **other: object) -> Device:
    """A home that may do everything: 5 kW, 10 kWh, reserve 20 %."""
    known: dict[str, object] = {
        "id": DeviceId(name), "profile": "p", "site": f"site-{name}", "capacity_wh": 10_000.0,
        "discharge_w_max": 5_000.0, "charge_w_max": 5_000.0, "reserve_pct": 20.0, "export_allowed": True,
        "grid_charge_allowed": True, "site_import_w_max": math.inf, "site_export_w_max": math.inf,
        "fuse_protected": True,
    }  # fmt: skip
    return Device(**(known | other))  # type: ignore[arg-type]


@dataclass(eq=False)
class FakeLink:
    """A link that records: acknowledgements, holds, writes. It emits what the test says."""

    acknowledged: list[AckToken] = field(default_factory=list)
    holds: list[bool] = field(default_factory=list)
    batches: list[CommandBatch] = field(default_factory=list)
    starts: int = 0

    def __post_init__(self) -> None:
        self.emit: Emit = lambda _batch: None

    async def run(self) -> None:
        """Nothing comes by itself."""

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        self.batches.append(batch)
        return WriteReport(delivery=np.full(len(batch), WriteOutcome.ACCEPTED, dtype=np.int8))

    def acknowledge(self, token: AckToken) -> None:
        self.acknowledged.append(token)

    def pause_telemetry(self, on: bool) -> None:
        self.holds.append(on)

    def start_over(self) -> None:
        self.starts += 1


class Homes:
    """Devices behind a link that follow their setpoints at once, revert when a lease ends, and report when told to.

    `battery_w` is their power, `mode` who steers them; `unresponsive` devices hear no commands, `silent` ones say
    nothing, `islanded` ones have lost the grid, `inverted` ones do the opposite of what they are told, `refusing` ones
    say no, `unseen` ones answer commands and send no readings, `offline` ones have told so by their last will.
    Those in `untold` get no commands at all, and the link says so with this outcome.
    `blocked` are kept from discharging; their own mode does `own_w`; of a setpoint they do `part`.
    """

    def __init__(self, fleet: Fleet, clock: ManualClock, *, soc_pct: float = 60.0, load_w: float = 500.0) -> None:
        n = fleet.n
        self.fleet = fleet
        self.clock = clock
        self.soc_pct: Floats = np.full(n, soc_pct)
        self.reserve_pct: Floats = fleet.nameplate.owner_reserve_pct[:n].astype(np.float64)
        self.load_w: Floats = np.full(n, load_w)
        self.battery_w: Floats = np.zeros(n)
        self.mode = np.full(n, Mode.SELF_CONSUMPTION, dtype=np.int8)
        self.lease_end_ms = np.zeros(n, dtype=np.int64)
        self.cmd = np.zeros(n, dtype=np.int64)
        self.in_force = np.zeros(n, dtype=np.int64)
        self.faults = np.zeros(n, dtype=np.int64)
        self.unresponsive: set[int] = set()
        self.silent: set[int] = set()
        self.unseen: set[int] = set()
        self.islanded: set[int] = set()
        self.opted_out: set[int] = set()
        self.inverted: set[int] = set()
        self.refusing: set[int] = set()
        self.offline: set[int] = set()
        self.untold: dict[int, WriteOutcome] = {}
        self.blocked: set[int] = set()
        self.own_w: Floats = np.zeros(n)
        self.part: Floats = np.ones(n)
        self.writes: list[tuple[int, CommandOp, int, int, int]] = []
        self.on_acks: Callable[[AckBatch], None] | None = None
        self.answers: list[tuple[int, int, CommandResult]] = []

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        """Every device does as it is told; (slot, op, setpoint_w, lease_s, cmd) goes into `writes`."""
        assert len(set(batch.slots.tolist())) == len(batch)
        for i, slot in enumerate(batch.slots.tolist()):
            op, cmd = CommandOp(int(batch.op[i])), int(batch.cmd[i])
            self.writes.append((slot, op, int(batch.setpoint_w[i]), int(batch.lease_s[i]), cmd))
            if slot in self.unresponsive or slot in self.untold:
                continue
            result = self._obey(slot, op, cmd, batch, i)
            if slot not in self.silent:
                self.answers.append((slot, cmd, result))
        told = [self.untold.get(slot, WriteOutcome.ACCEPTED) for slot in batch.slots.tolist()]
        return WriteReport(delivery=np.array(told, dtype=np.int8))

    def _obey(self, slot: int, op: CommandOp, cmd: int, batch: CommandBatch, i: int) -> CommandResult:
        if cmd <= self.cmd[slot]:
            return CommandResult.OLDER
        if slot in self.islanded and op in (CommandOp.SETPOINT, CommandOp.HOLD, CommandOp.BLOCK):
            return CommandResult.REFUSED
        if slot in self.refusing and op is CommandOp.SETPOINT:
            return CommandResult.REFUSED
        self.cmd[slot] = cmd
        if op is CommandOp.RESERVE:
            self.reserve_pct[slot] = batch.reserve_pct[i]
        elif op is CommandOp.RELEASE:
            self.revert(slot)
        else:
            self.mode[slot] = Mode.REMOTE
            self.blocked.discard(slot)
            if op is CommandOp.BLOCK:
                self.blocked.add(slot)
            told_w = -batch.setpoint_w[i] if slot in self.inverted else batch.setpoint_w[i]
            self.battery_w[slot] = min(self.own_w[slot], 0.0) if slot in self.blocked else told_w * self.part[slot]
            self.lease_end_ms[slot] = self.clock.mono + int(batch.lease_s[i]) * 1000
            self.in_force[slot] = cmd
        return CommandResult.APPLIED

    def writes_to(self, slot: int) -> list[CommandOp]:
        """What was written to one device, or was to be."""
        return [op for at, op, *_ in self.writes if at == slot]

    def revert(self, slot: int) -> None:
        """Back to the maker's own mode: the lease is over, or the owner wants it so."""
        self.mode[slot] = Mode.SELF_CONSUMPTION
        self.blocked.discard(slot)
        self.battery_w[slot] = self.own_w[slot]
        self.lease_end_ms[slot] = 0
        self.in_force[slot] = 0

    def report(self, *, answers: bool = True) -> None:
        """Leases run out where it is time; everybody who is neither silent nor unseen says how
        they are."""
        for slot in np.flatnonzero((self.lease_end_ms > 0) & (self.lease_end_ms <= self.clock.mono)).tolist():
            self.revert(slot)
        quiet = self.silent | self.unseen
        loud = np.array([s for s in range(self.fleet.n) if s not in quiet], dtype=np.int32)
        k = len(loud)
        grid = np.array([Grid.ISLAND if s in self.islanded else Grid.ON for s in loud.tolist()], dtype=np.int8)
        batch = LiveBatch(
            slots=loud,
            fresh=np.ones(k, dtype=np.bool_),
            device_t_ms=np.full(k, self.clock.utc, dtype=np.int64),
            battery_w=self.battery_w[loud].copy(),
            soc_pct=self.soc_pct[loud].copy(),
            soc_step_pct=np.full(k, 1.0),
            temp_c=np.full(k, 20.0),
            discharge_w_max=np.full(k, 5_000.0),
            charge_w_max=np.full(k, 5_000.0),
            reserve_pct=self.reserve_pct[loud].copy(),
            pv_w=np.zeros(k),
            load_w=self.load_w[loud].copy(),
            grid_w=self.load_w[loud] - self.battery_w[loud],
            grid_l1_w=np.full(k, np.nan),
            grid_l2_w=np.full(k, np.nan),
            grid_l3_w=np.full(k, np.nan),
            mode=self.mode[loud].copy(),
            grid=grid,
            locked=np.zeros(k, dtype=np.int8),
            opt_out=np.array([s in self.opted_out for s in loud.tolist()], dtype=np.int8),
            faults=self.faults[loud].copy(),
            cmd=self.in_force[loud].copy(),
        )
        self.fleet.observe_live(batch, self.clock.now())
        self.fleet.live.online[list(self.offline)] = 0
        if answers:
            self.answer()
        else:
            self.answers = []

    def answer(self) -> None:
        """Everybody says what became of the commands heard so far."""
        said, self.answers = self.answers, []
        if said and self.on_acks is not None:
            slots, cmds, results = zip(*said, strict=True)
            self.on_acks(
                AckBatch(
                    slots=np.array(slots, dtype=np.int32),
                    cmd=np.array(cmds, dtype=np.int64),
                    result=np.array([int(r) for r in results], dtype=np.int8),
                )
            )


@dataclass(slots=True)
class _Memory:
    """What changes add up to."""

    devices: dict[DeviceId, Device] = field(default_factory=dict)
    chosen_pct: dict[DeviceId, float] = field(default_factory=dict)
    events: dict[str, EventDecided] = field(default_factory=dict)
    withdrawn: dict[EventId, str] = field(default_factory=dict)
    past: dict[str, StoredEvent] = field(default_factory=dict)
    states: dict[EventId, tuple[int, EventState]] = field(default_factory=dict)
    holds: dict[str, Exclusion] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    quarantined_since_ms: dict[str, int | None] = field(default_factory=dict)
    controlled: dict[DeviceId, EventId] = field(default_factory=dict)
    prior: dict[DeviceId, Mapping[str, Setting]] = field(default_factory=dict)
    taken_back: dict[tuple[DeviceId, EventId], TakeBack] = field(default_factory=dict)
    departures: dict[DeviceId, Departure] = field(default_factory=dict)
    removed: set[DeviceId] = field(default_factory=set)
    stopped: bool = False
    epoch: int = 0

    def take(self, change: Change) -> None:
        match change:
            case DeviceRegistered(device=device):
                self.devices[device.id] = replace(
                    device, reserve_pct=max(device.reserve_pct, self.chosen_pct.get(device.id, 0.0))
                )
            case EventDecided(request=request, answer=answer):
                known = self.events.get(request.id)
                newer = known is None or request.revision > known.request.revision or request.cancels(known.request)
                if answer.outcome is Outcome.ACCEPTED and newer:
                    self.events[request.id] = change
                    self.past.pop(request.id, None)
                    self.states.pop(request.id, None)
            case EventMoved(event=event, revision=revision, state=state):
                known = self.events.get(event)
                ended = self.states.get(event) == (revision, EventState.CANCELLED)
                if known is not None and known.request.revision == revision and not ended:
                    self.states[event] = (revision, state)
            case ControlTaken(devices=taken, event=event):
                self.controlled |= dict.fromkeys(taken, event)
            case ControlEnded(devices=ended):
                for name in ended:
                    self.controlled.pop(name, None)
            case ReserveChanged(devices=changed, reserve_pct=chosen):
                for name, reserve_pct in zip(changed, chosen, strict=True):
                    self.chosen_pct[name] = reserve_pct
                    if name in self.devices:
                        self.devices[name] = replace(self.devices[name], reserve_pct=reserve_pct)
            case DeviceRemoved() | DepartureAsked() | DepartureOver():
                self._take_departure(change)
            case _:
                self._take_other(change)

    def _take_departure(self, change: DeviceRemoved | DepartureAsked | DepartureOver) -> None:
        match change:
            case DeviceRemoved(device=name):
                self.devices.pop(name, None)
                self.chosen_pct.pop(name, None)
                self.removed.add(name)
            case DepartureAsked(device=name, wanted=wanted, by=by, door=door):
                self.departures[name] = Departure(device=name, wanted=wanted, since_ms=0, by=by, door=door)
            case DepartureOver(devices=devices):
                for name in devices:
                    self.departures.pop(name, None)

    def _take_other(self, change: Change) -> None:
        match change:
            case EpochRaised(epoch=epoch):
                self.epoch = max(self.epoch, epoch)
            case StopAll(active=active):
                self.stopped = active
            case PriorSaved(device=name, settings=settings):
                self.prior[name] = dict(settings)
            case PriorRestored(device=name):
                self.prior.pop(name, None)
            case ExclusionSet(exclusion=hold):
                self.holds[hold.id] = hold
            case ExclusionLifted(id=hold_id):
                self.holds.pop(hold_id, None)
            case TakenBack(event=event, devices=devices, at_ms=at_ms):
                for name in devices:
                    self.taken_back[name, event] = TakeBack(device=name, event=event, at_ms=at_ms)
            case TakeBackOver(event=event, devices=devices):
                for name in devices:
                    self.taken_back.pop((name, event), None)
            case Quarantined(names=named, reason=reason, since_ms=since_ms):
                self.quarantined |= dict.fromkeys(named, reason)
                self.quarantined_since_ms |= dict.fromkeys(named, since_ms)
            case Trusted(names=named):
                for text in named:
                    self.quarantined.pop(text, None)
                    self.quarantined_since_ms.pop(text, None)
            case _:
                self._take_past(change)

    def _take_past(self, change: Change) -> None:
        match change:
            case RawDiscarded() | FactsChanged() | OutboxChanged() | CaseChanged():
                pass
            case EventWithdrawn(event=event, by=by):
                self.withdrawn[event] = by
                if event in self.events:
                    self.states[event] = (self.events[event].request.revision, EventState.CANCELLED)
                if event in self.past:
                    self.past[event] = replace(self.past[event], state=EventState.CANCELLED, held_by=by)
            case WithdrawalLifted(event=event):
                self.withdrawn.pop(event, None)
                if event in self.past:
                    self.past[event] = replace(self.past[event], held_by=None)
            case EventsArchived(events=gone):
                for event in gone:
                    known = self.events.get(event)
                    if known is None:
                        continue
                    tombstone = EventState.CANCELLED if known.request.cancelled else EventState.SCHEDULED
                    _, state = self.states.get(event, (0, tombstone))
                    if state in OVER:
                        del self.events[event]
                        self.states.pop(event, None)
                        self.past[event] = StoredEvent(
                            request=known.request, decided_ms=known.answer.decided_ms, state=state,
                            held_by=self.withdrawn.get(event),
                        )  # fmt: skip
            case EventDelivered():
                pass
            case _:
                raise AssertionError(change)


LARGE = 200
"""Changes of a commit after which others have a turn."""


class NothingRaw:
    """Keeps no raw message, for who has none."""

    def observe(self, messages: Sequence[RawMessage]) -> None:
        assert not messages

    def coming(self) -> list[RawMessage]:
        return []

    async def keep(self, messages: Sequence[RawMessage]) -> None:
        assert not messages

    def forget(self, messages: Sequence[RawMessage]) -> None:
        assert not messages


class MemoryJournal:
    """A journal, and its store of events that are over, without a disk. `failing` makes every commit fail; `kept` are
    the changes in the order of their numbers."""

    def __init__(self) -> None:
        self.kept: list[Change] = []
        self.failing = False
        self.epoch = 0
        self._newest = 0

    def sequence(self) -> int:
        self._newest += 1
        return self._newest

    def load(self) -> JournalState:
        self.epoch += 1
        found = _Memory()
        for change in self.kept:
            found.take(change)
        self.epoch = max(self.epoch, found.epoch + 1)
        return JournalState(
            epoch=self.epoch,
            devices=tuple(found.devices.values()),
            events=tuple(found.events.values()),
            controlled=found.controlled,
            stopped=found.stopped,
            prior=found.prior,
            states=found.states,
            withdrawn=found.withdrawn,
            taken_back=tuple(found.taken_back[key] for key in sorted(found.taken_back)),
            exclusions=tuple(found.holds.values()),
            departures=tuple(found.departures.values()),
            removed=tuple(sorted(found.removed - found.devices.keys())),
            quarantined=found.quarantined,
            quarantined_since_ms={name: ms for name, ms in found.quarantined_since_ms.items() if ms is not None},
            delivered=frozenset((c.event, c.occurrence_ms) for c in self.kept if isinstance(c, EventDelivered)),
        )

    async def connections(self, _device: str) -> list[Connection]:
        """It keeps no history."""
        return []

    async def placements(self, _device: str) -> list[Placement]:
        """Of these neither."""
        return []

    def delivered(self, event: EventId) -> list[EventDelivered]:
        newest = {c.occurrence_ms: c for c in self.kept if isinstance(c, EventDelivered) and c.event == event}
        return [newest[occurrence_ms] for occurrence_ms in sorted(newest)]

    def _past(self) -> list[StoredEvent]:
        found = _Memory()
        for change in self.kept:
            if not isinstance(change, DeviceRegistered):
                found.take(change)
        return sorted(found.past.values(), key=lambda e: (-e.request.start_ms, e.request.id))

    async def known(self, event_id: str) -> list[StoredEvent]:
        return [one for one in self._past() if event_id in (one.request.id, own_id(one.request.id))]

    async def events(self, after: tuple[int, str] | None, limit: int) -> tuple[list[StoredEvent], bool]:
        def behind(one: StoredEvent) -> bool:
            return after is None or (-one.request.start_ms, one.request.id) > (-after[0], after[1])

        found = [one for one in self._past() if behind(one)]
        return found[:limit], len(found) > limit

    async def occurrences(self, event: EventId, before_ms: int | None, limit: int) -> list[StoredOccurrence]:
        return [
            StoredOccurrence(occurrence_ms=one.occurrence_ms, ended_ms=one.ended_ms, devices=len(one.devices))
            for one in self.delivered(event)
            if before_ms is None or one.occurrence_ms < before_ms
        ][-limit:]

    async def delivered_between(self, from_ms: int, until_ms: int, limit: int) -> list[DeliveredEvent]:
        newest = {(c.event, c.occurrence_ms): c for c in self.kept if isinstance(c, EventDelivered)}
        found = [
            DeliveredEvent(event=one.event, occurrence_ms=one.occurrence_ms, ended_ms=one.ended_ms)
            for one in newest.values()
            if one.ended_ms > from_ms and one.occurrence_ms < until_ms
        ]
        return sorted(found, key=lambda one: one.ended_ms)[-limit:]

    async def records_of(self, event: EventId, occurrence_ms: int, devices: Sequence[str]) -> StoredRecords:
        found = [one for one in self.delivered(event) if one.occurrence_ms == occurrence_ms]
        if not found:
            return StoredRecords(total=0, devices=(), columns={})
        rows = [row for row, name in enumerate(found[-1].devices) if name in set(devices)]
        columns = {name: values[rows] for name, values in found[-1].columns.items()}
        return StoredRecords(total=len(rows), devices=tuple(found[-1].devices[row] for row in rows), columns=columns)

    async def records(self, event: EventId, occurrence_ms: int | None, rows: slice) -> StoredRecords:
        found = [one for one in self.delivered(event) if occurrence_ms in (None, one.occurrence_ms)]
        if not found:
            return StoredRecords(total=0, devices=(), columns={})
        columns = {name: values[rows] for name, values in found[-1].columns.items()}
        return StoredRecords(total=len(found[-1].devices), devices=found[-1].devices[rows], columns=columns)

    async def commit(self, changes: Sequence[Change]) -> None:
        if self.failing:
            raise StorageError("no space left on device")
        for count, change in enumerate(changes):
            if count % LARGE == LARGE - 1:
                # the real one works in a thread
                await asyncio.sleep(0)
            numbered = replace(change, seq=self.sequence()) if change.seq == UNNUMBERED else change
            if not self.kept or self.kept[-1].seq < numbered.seq:
                self.kept.append(numbered)
                continue
            at = bisect_left(self.kept, numbered.seq, key=lambda kept: kept.seq)
            if at == len(self.kept) or self.kept[at].seq != numbered.seq:
                self.kept.insert(at, numbered)

    async def put_away(self, changes: Sequence[EventDelivered | EventsArchived]) -> None:
        await self.commit(changes)

    @property
    def kinds(self) -> Sequence[str]:
        return KINDS

    async def audit(self, question: AuditQuestion, limit: int) -> list[AuditEntry]:
        found = (
            AuditEntry(id=number, utc_ms=0, kind=kind, by=by, door=door, body=orjson.loads(orjson.dumps(body)))
            for number in range(len(self.kept), 0, -1)
            for kind, body, by, door in audit([self.kept[number - 1]])
            if question.kind in (None, kind) and (question.before is None or number < question.before)
        )
        # beside the loop, as the file's reader works
        return await asyncio.to_thread(lambda: list(islice(found, limit)))

    async def chain(self, head: str | None = None) -> AuditChain:
        """It chains nothing."""
        broken = None if head is None else (len(self.kept), "no such head")
        return AuditChain(
            rows=len(self.kept), unchained=len(self.kept), first=None, last=None, head=None, broken=broken
        )

    def of(self, kind: type[Change]) -> list[Change]:
        return [change for change in self.kept if isinstance(change, kind)]


@dataclass(slots=True)
class ScriptedSink:
    """A receiver that answers as scripted, then accepts; `got` are the batches in order, `settled_ids` those whose end
    is durable."""

    name: str = "scripted"
    script: list[SinkResult] = field(default_factory=list)
    got: list[IntervalBatch] = field(default_factory=list)
    on_batch: Callable[[], None] | None = None
    batch_rows: int = 1_000
    wanted: Callable[[DeviceId], bool] = lambda _device: True
    judge: Callable[[IntervalBatch], SinkResult] | None = None
    settled_ids: list[str] = field(default_factory=list)

    def wants(self, device: DeviceId, _length_s: int) -> bool:
        return self.wanted(device)

    def pick(self, devices: Sequence[DeviceId], _lengths_s: Sequence[int]) -> list[bool]:
        return [self.wanted(device) for device in devices]

    async def settled(self, batch: IntervalBatch) -> None:
        self.settled_ids.append(batch.id)

    async def send(self, batch: IntervalBatch) -> SinkResult:
        self.got.append(batch)
        result = self.script.pop(0) if self.script else self.judge(batch) if self.judge else Accept()
        if self.on_batch is not None:
            self.on_batch()
        return result

    @property
    def rows(self) -> list[IntervalRecord]:
        return [row for batch in self.got for row in batch.rows]


class NothingLogged:
    """A log that has no record of any interval."""

    async def find(self, places: Sequence[Place]) -> tuple[list[IntervalRecord], list[Place]]:
        return [], []


async def nothing_damaged() -> None:
    """Nobody looks into damage."""
