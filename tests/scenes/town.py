"""A street where more goes wrong, and what the gateway promises all the same, judged from outside: from the batteries,
from the commands that reached them, and from what the platform, operators and owners are told."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import orjson

from gateway.domain.control.ramp import DT_S_MAX
from gateway.domain.errors import StorageError
from gateway.domain.events.book import Answer, Outcome, Refusal
from gateway.domain.events.lifecycle import OVER, BookEntry, EventState
from gateway.domain.events.request import OPEN_MS, Target, TargetGroup
from gateway.domain.fleet.device import Device
from gateway.domain.types import DeviceId
from gateway.profiles.compile import Codec
from gateway.services.settings import ProgramSettings
from gateway.transports.mqtt.session import PublishOutcome
from simulators.battery import Mode
from simulators.commands import Op, Result
from simulators.faults import Fault, FaultKind
from simulators.homes import Bools
from simulators.messages import Outgoing
from tests.builders.fakes import message_product
from tests.scenes.ramp import RampLeft
from tests.scenes.street import LEASE_S, Street, registered
from tests.scenes.troubled_journal import Killed, TroubledJournal

CAPPED = "capped"
CEILING_W = 4_000.0
PROGRAMS = {CAPPED: ProgramSettings(ceiling_mw=CEILING_W / 1e6)}
LATE_S = 36.0
"""By so much the end of a lease may come after the turn of its device: a command that was put off, and a tick."""
READ_MS = 65_000
"""A reading that is older is no measurement of the present, whatever the product."""
SHORT_S = 60.0
"""For so long an event may give less than it is said to, beside the ramp: settling, and what has gone silent."""
FINAL = frozenset({"completed", "failed", "opted_out", "cancelled", "superseded"})


@cache
def other_product() -> Codec:
    return message_product("other")


@dataclass(slots=True, kw_only=True)
class Wish:
    """What a source asked for last and was accepted. `end_ms`: `OPEN_MS` = until further notice; `called_off`: by its
    source, an operator or a stop; `held`: an operator cancelled it and has not lifted that; `unsure`: a stop came at
    its edge, or could not be made durable."""

    revision: int
    target: Target
    start_ms: int
    end_ms: int
    called_off: bool = False
    held: bool = False
    unsure: bool = False


@dataclass
class Town(Street):
    """`blind`: no live reading arrives, everything else does. `says` is what homes say besides, `odd` what is
    not so: in one reading, and in those until then (the devices' time).
    `missing`: homes whose profile is not installed. `reading`: whether the platform takes reports."""

    programs: Mapping[str, ProgramSettings] = field(default_factory=lambda: PROGRAMS)
    journal: TroubledJournal = field(default_factory=TroubledJournal)
    publishing: bool = True
    blind: bool = False
    says: dict[int, dict[str, Any]] = field(default_factory=dict)
    odd: dict[int, tuple[dict[str, Any], int]] = field(default_factory=dict)
    told_out_ms: dict[int, int] = field(default_factory=dict)
    barred_ms: dict[int, int] = field(default_factory=dict)
    failing: dict[int, PublishOutcome] = field(default_factory=dict)
    missing: frozenset[int] = frozenset()
    reading: bool = True
    stepped: bool = False
    stopped_ms: int | None = None
    wishes: dict[tuple[str, str], Wish] = field(default_factory=dict)
    maintained: bool = False

    def __post_init__(self) -> None:
        n = len(self.homes)
        self._end_ms = np.zeros(n, dtype=np.int64)
        self._readings: list[deque[tuple[int, float]]] = [deque() for _ in range(n)]
        self._uncapped_ms = 0
        self._left: set[int] = set()
        self._groups: dict[str, Bools] = {}
        self._open: dict[str, tuple[Bools, str]] = {}
        self._ran: set[str] = set()
        self._published: dict[str, str] = {}
        self._short_s: dict[str, float] = {}
        self._ramp = RampLeft(self.settings.fleet_w_per_s)
        self._over_s = 0.0
        self._ticked_ms = self.now_ms
        super().__post_init__()

    @property
    def spread_s(self) -> float:
        """Releases take so long: as configured, and no faster than the fleet may ramp, whatever all of it carries."""
        rated_w = float(np.maximum(self.homes.discharge_w_max, self.homes.charge_w_max).sum())
        return max(self.settings.release_spread_s, rated_w / self.settings.fleet_w_per_s)

    # -- the gateway -----------------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        self.wire.failing = {self.devices.topics.command[i]: outcome for i, outcome in self.failing.items()}

    def known(self) -> list[Device]:
        return [
            replace(device, profile="gone") if i in self.missing else device for i, device in enumerate(super().known())
        ]

    def installed(self) -> dict[str, Codec]:
        return super().installed() | {"other": other_product()}

    async def restart(self, *, away_s: float) -> None:
        left = self.remote.copy()
        self.barred_ms.clear()
        self.journal.kill = None
        self._ran.clear()
        self._published.clear()
        self._short_s.clear()
        self._ramp = RampLeft(self.settings.fleet_w_per_s)
        await super().restart(away_s=away_s)
        # who is still to be handed back gets another turn
        self.stopped_ms = self.now_ms if self.dispatcher.stopped else None
        told = " ".join(self.queries.reasons())
        for i in self.missing:
            if left[i] and self.homes.ids[i] not in told:
                self.problems.append(
                    f"{self.homes.ids[i]} was left under control, its profile is gone, and none says so"
                )

    async def tick(self) -> None:
        self.journal.ticking = True
        try:
            await super().tick()
        except Killed:
            self.journal.ticking = False
            await self.restart(away_s=0)
            return
        self.journal.ticking = False
        with suppress(StorageError):
            await self._depart()
        s, self._ticked_ms = (self.now_ms - self._ticked_ms) / 1000, self.now_ms
        if self.reading:
            while (report := self.control.records.changed(32)) is not None:
                self._published |= {f"{row['id']}": row["status"] for row in report.rows}
        self._judge_told(s)

    def fail(self, index: int, outcome: PublishOutcome | None) -> None:
        """Commands to a home meet `outcome` and do not arrive; None: they do again."""
        self.failing.pop(index, None)
        if outcome is not None:
            self.failing[index] = outcome
        self.wire.failing = {self.devices.topics.command[i]: other for i, other in self.failing.items()}

    def arriving(self, messages: list[Outgoing]) -> list[Outgoing]:
        # whoever is locked is not even narrowed, and nobody knows what is not installed: their leases run out
        apart = [*self.failing, *self.barred_ms, *self.missing]
        self._unresponsive_until_ms[apart] = np.maximum(self._unresponsive_until_ms[apart], self.now_ms)
        out: list[Outgoing] = []
        for message in messages:
            if message.topic != self.devices.topics.live[message.index]:
                out.append(message)
            elif not self.blind:
                out.append(self._said(message))
        return out

    def _said(self, message: Outgoing) -> Outgoing:
        """A live message with what else its home says, noted as a measurement where it gets through."""
        besides = self.says.get(message.index, {})
        try:
            body = orjson.loads(message.payload)
        except orjson.JSONDecodeError:
            # with a number that is none, or cut off: whoever reads the first finds the rest
            whole = besides and message.payload.endswith(b"}")
            return (
                replace(message, payload=message.payload[:-1] + b"," + orjson.dumps(besides)[1:]) if whole else message
            )
        if besides and self.wire.up:
            self.barred_ms.setdefault(message.index, self.now_ms)
        if self.wire.up and isinstance(body, dict) and isinstance(body.get("battery_w"), int | float):
            self._readings[message.index].append((int(body.get("t") or self.now_ms), float(body["battery_w"])))
        odd, until_ms = self.odd.get(message.index, ({}, 0))
        if self.now_ms >= until_ms:
            self.odd.pop(message.index, None)
        besides = besides | odd
        return replace(message, payload=orjson.dumps(body | besides)) if besides else message

    # -- what the platform, operators and owners do ----------------------------------------------------------

    async def ask(
        self, source: str, name: str, target: Target, *, revision: int, in_s: float = 0.0, s: float | None,
        homes: Sequence[int] = (), program: str = "test", cancelled: bool = False,
    ) -> Answer:  # fmt: skip
        """A source's event, to everybody or to some homes; without `s` until further notice."""
        group = TargetGroup(ids=tuple(DeviceId(self.homes.ids[i]) for i in homes), all=not homes)
        answer = await self.submit(
            name, in_s=in_s, s=s, target=target, revision=revision, source=source, group=group, program=program,
            cancelled=cancelled,
        )  # fmt: skip
        key, now_ms = (source, name), self.time.now().utc_ms
        known = self.wishes.get(key)
        held = known is not None and known.held
        if answer.outcome in (Outcome.DUPLICATE, Outcome.SUPERSEDED) or answer.reason == Refusal.CONFLICT.value:
            self.problems.append(f"{name} of {source} is taken for another event: {answer}")
        if answer.outcome is not Outcome.ACCEPTED:
            return answer
        if held and not cancelled:
            self.problems.append(f"{name} of {source} was cancelled by an operator and is accepted all the same")
        start_ms, end_ms = self.asked[answer.id][-1]
        self.wishes[key] = Wish(
            revision=revision, target=target, start_ms=start_ms, end_ms=end_ms, called_off=cancelled, held=held
        )
        if cancelled:
            self._until_now(answer.id)
            self._no_longer_open(answer.id)
            self.asked[answer.id].pop()
            return answer
        mine = np.ones(len(self.homes), dtype=np.bool_)
        if homes:
            mine[:] = False
            mine[list(homes)] = True
        self._groups[answer.id] = mine
        # what an earlier revision left open ends with this one
        self._no_longer_open(answer.id)
        self.asked[answer.id] = [(a, min(b, now_ms)) for a, b in self.asked[answer.id][:-1]] + [(start_ms, end_ms)]
        if end_ms >= OPEN_MS:
            self._open[answer.id] = (mine, program)
        else:
            self._until(mine, program, end_ms)
        return answer

    def _until(self, mine: Bools, program: str, end_ms: int) -> None:
        """An event with this end may have these homes until then."""
        self._end_ms[mine] = np.maximum(self._end_ms[mine], end_ms)
        if program != CAPPED:
            self._uncapped_ms = max(self._uncapped_ms, end_ms)

    def _no_longer_open(self, name: str) -> None:
        """An event until further notice has ended. Leases of it were given without that end, and who cannot be told has
        the rest of one."""
        found = self._open.pop(name, None)
        if found is not None:
            self._until(*found, self.time.now().utc_ms + 1_000 * LEASE_S)

    async def cancel(self, name: str) -> None:
        await super().cancel(name)
        self._no_longer_open(name)

    def expect_all(self, *, until_ms: int) -> None:
        """Everybody may be under control until then."""
        self._end_ms = np.maximum(self._end_ms, until_ms)
        self._uncapped_ms = max(self._uncapped_ms, until_ms)

    def say(self, index: int, said: dict[str, Any]) -> None:
        """What a home says besides from now on. An opt-out takes it out of everything at once; a lock, and what nobody
        can understand, keep it from new setpoints."""
        self.says[index] = said
        self.told_out_ms.pop(index, None)
        self.barred_ms.pop(index, None)
        if said.get("opt_out") is True:
            self.told_out_ms[index] = self.now_ms

    def inject(self, index: int, fault: Fault) -> None:
        if fault.kind is FaultKind.OWNER_MODE:
            self._left.add(index)
        super().inject(index, fault)

    async def call_off(self, source: str, name: str) -> None:
        """An operator cancels an event, until that is lifted."""
        for entry in self.dispatcher.find(name):
            if entry.request.source == source and entry.state is not EventState.REJECTED:
                await self.cancel(entry.request.id)
                wish = self.wishes[source, name]
                wish.called_off = wish.held = True

    async def lift(self, source: str, name: str) -> None:
        for entry in self.dispatcher.find(name):
            if entry.request.source == source:
                await self.dispatcher.lift_cancel(entry.request.id)
                if (source, name) in self.wishes:
                    self.wishes[source, name].held = False

    async def stop(self, *, active: bool) -> None:
        """Everything is stopped, or allowed again."""
        now_ms = self.time.now().utc_ms
        if active:
            self.stopped_ms = self.now_ms if self.stopped_ms is None else self.stopped_ms
            for wish in self.wishes.values():
                wish.unsure |= wish.end_ms >= now_ms
        await self.stop_all(active=active)
        if not active:
            self.stopped_ms = None

    async def move(self, index: int) -> None:
        """An import says that a home has another product now, which was a mistake: it is told as soon as the home has
        it."""
        device = next(device for device in self.known() if device.id == self.homes.ids[index])
        if index not in self.missing:
            await self.registry.register([replace(device, profile="other")])
            await self._depart()

    async def _depart(self) -> None:
        """Whoever is free gets the product that an import said, and its own again."""
        await self.registry.depart()
        for index, device in enumerate(registered(self.homes)):
            if self.registry.devices[device.id].profile != "other":
                continue
            # one that says it is released and is not has its lease
            lies = self.now_ms < self._unresponsive_until_ms[index]
            if self.devices.batteries.mode[index] == Mode.REMOTE and not (lies or self.lagging):
                self.problems.append(f"{device.id} was moved while it was under control")
            await self.registry.register([device])

    # -- judging ---------------------------------------------------------------------------------------------

    def _judge(self, s: float, gap_s: float) -> None:
        super()._judge(s, gap_s)
        if self.maintained and self.stopped_ms is None:
            self._may_ms = self.now_ms
        stopped = self.stopped_ms is not None and self.stopped_ms < self.now_ms - 1_000 * (s + self.spread_s)
        self._note("is under control though everything was stopped", self.remote & stopped, s, gap_s)
        out = np.zeros(len(self.homes), dtype=np.bool_)
        out[[i for i, since_ms in self.told_out_ms.items() if since_ms < self.now_ms - s * 1000]] = True
        self._note("is under control though it says that its owner opted out", self.remote & out, s, gap_s)
        if not self.stepped and not self.maintained:
            late = self.time.now().utc_ms > self._end_ms + round(1000 * (self.spread_s + LATE_S + 2 * gap_s))
            for mine, _ in self._open.values():
                late &= ~mine
            for i in np.flatnonzero(late & self.remote).tolist():
                self.problems.append(f"{self.homes.ids[i]} is under control long after its last event")
        self._judge_ceiling(s, gap_s)

    def _judge_commands(self) -> None:
        before = self._seen
        super()._judge_commands()
        for seen in islice(self.devices.commands_seen, before, None):
            since_ms = self.barred_ms.get(seen.index)
            steers = seen.op in (Op.SETPOINT, Op.HOLD, Op.BLOCK) and seen.result is Result.APPLIED
            if since_ms is not None and since_ms < seen.t_ms and steers and not self.lagging:
                self.problems.append(f"{seen.device} is steered and said what bars it: {self.says.get(seen.index)}")

    def _judge_ceiling(self, s: float, gap_s: float) -> None:
        """Events of a program with a ceiling keep it, whatever they ask for. What others of the group take by
        themselves is made up for: it is the power of all together that is bounded. Who cannot be told anything has its
        lease."""
        batteries = self.devices.batteries
        capped = all(program == CAPPED for _, program in self._open.values())
        since_ms = self._uncapped_ms + 1_000 * (self.spread_s + LATE_S + LEASE_S)
        alone = capped and self.wire.up and not self.maintained and self.time.now().utc_ms > since_ms
        moving = self.remote & ~batteries.blocked & ~batteries.islanded
        moving[[*self.missing, *self.failing]] = False
        moved_w = float(np.abs(batteries.battery_w[moving]).sum())
        moved_w = min(moved_w, abs(float(batteries.battery_w[~batteries.islanded].sum())))
        self._over_s = self._over_s + s if alone and not self.stepped and moved_w > 1.1 * CEILING_W else 0.0
        if self._over_s > SHORT_S + 2 * gap_s:
            self.problems.append(f"{moved_w:g} W are moved for a program that may move {CEILING_W:g} W")

    def _judge_told(self, s: float) -> None:
        """What is told of events, and whether those that were accepted are still there."""
        for name in self.control.quarantine.quarantined:
            self.problems.append(f"{name} is in quarantine and does what it is told")
        for (source, name), wish in self.wishes.items():
            self._judge_wish(source, name, wish)
        running: list[BookEntry] = []
        goals_w: dict[str, tuple[float, float]] = {}
        for entry in self.dispatcher.entries():
            told = self.queries.progress(entry)
            if entry.state is EventState.ACTIVE and told is not None:
                name = entry.request.id
                self._ran.add(name)
                running.append(entry)
                goals_w[name] = (told.target_w - told.unserved_w, self._given_w(name))
        self._ramp.observe(goals_w, s)
        for entry in running:
            others = [other for other in running if other is not entry]
            self._judge_delivery(entry, others, s)
        self._short_s = {e.request.id: self._short_s.get(e.request.id, 0.0) for e in running}

    def _judge_wish(self, source: str, name: str, wish: Wish) -> None:
        if self.time.now().utc_ms >= wish.end_ms:
            return
        found = [e for e in self.dispatcher.find(name) if e.request.source == source and e.index >= 0]
        if len(found) != 1 or found[0].request.revision != wish.revision or found[0].request.target != wish.target:
            self.problems.append(f"{name} of {source} is not there as it was accepted")
        elif not wish.unsure and (found[0].state is EventState.CANCELLED) != wish.called_off:
            self.problems.append(f"{name} of {source} is {found[0].state.value}")

    def _judge_delivery(self, entry: BookEntry, others: Sequence[BookEntry], s: float) -> None:
        """Delivered is what was read; and what is missing is said, or given by others."""
        told = self.queries.progress(entry)
        mine = self._groups.get(entry.request.id)
        if told is None or mine is None:
            return
        most_w = least_w = 100.0
        for i in np.flatnonzero(mine).tolist():
            readings = self._readings[i]
            while readings and readings[0][0] < self.now_ms - READ_MS:
                readings.popleft()
            read_w = [w for _, w in readings]
            most_w += max(0.0, *read_w, 0.0)
            least_w += max(0.0, *(-w for w in read_w), 0.0)
        if not -least_w <= told.delivered_w <= most_w:
            read = f"{-least_w:g} to {most_w:g} W were read"
            self.problems.append(f"{entry.request.id} is told to deliver {told.delivered_w:g} W, and {read}")
        target_w = told.target_w
        shared = any((self._groups.get(other.request.id, mine) & mine).any() for other in others)
        if entry.request.target_w is None or shared or self.stopped_ms is not None:
            self._short_s.pop(entry.request.id, None)
            return
        # whoever took a home back has left the event with it: what it does by itself is no part of it
        given_w = [self._given_w(entry.request.id, without) for without in ((), self._left)]
        true_w = max(given_w, key=lambda w: w * float(np.sign(target_w)))
        missing_w = abs(target_w) - max(true_w * float(np.sign(target_w)), 0.0) - abs(told.unserved_w)
        slack_w = max(800.0, 0.15 * abs(target_w))
        name = entry.request.id
        if missing_w <= slack_w:
            self._short_s.pop(name, None)
        elif self._ramp.left_w == 0:
            self._short_s[name] = self._short_s.get(name, 0.0) + min(s, DT_S_MAX)
        if self._short_s.get(name, 0.0) > SHORT_S:
            self.problems.append(
                f"{name} gives {true_w:g} of {target_w:g} W and {told.unserved_w:g} W are said to miss"
            )

    def _given_w(self, name: str, without: Collection[int] = ()) -> float:
        """What the homes of an event give, but these. Whose product is not installed is in no group."""
        batteries = self.devices.batteries
        mine = self._groups.get(name, np.ones(len(self.homes), dtype=np.bool_)) & ~batteries.islanded
        mine[[*self.missing, *without]] = False
        return float(batteries.battery_w[mine].sum())

    def keep(self) -> None:
        """Raises AssertionError where a promise was broken."""
        assert not self.problems, "\n".join(dict.fromkeys(self.problems))

    def judge_records(self) -> None:
        """Every event that ran and is over has its final record: durable, and told to the platform."""
        for name in self._ran:
            entry = self.dispatcher.entry(name)
            if entry is not None and entry.state not in OVER:
                continue
            kept = self.journal.delivered(entry.request.id) if entry is not None else []
            if entry is not None and not kept:
                self.problems.append(f"{name} is over and the journal has no record of it")
            told = any(row.rpartition("/")[0] == name for row in self._published)
            if kept and len(kept[-1].devices) and not told:
                self.problems.append(f"{name} is over and nothing was ever told of it")
        for row, status in self._published.items():
            if status not in FINAL:
                self.problems.append(f"{row} is over and was last told as {status}")
