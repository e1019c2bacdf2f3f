"""Simulated homes under a real control core, moved by hand: the firmware's JSON goes through the gateway's MQTT link,
its commands through the firmware, and the batteries are physics. What is judged is read from those alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mqtt5
import numpy as np
import orjson

from gateway.clock import ManualClock, SteadyClock
from gateway.domain.events.book import Answer, Outcome
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import OPEN_MS, EventKind, EventRequest, Target, TargetGroup
from gateway.domain.fleet.clock_skew import ClockTrust
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import ReserveChanged
from gateway.domain.readings import ReadingBatch
from gateway.domain.rules.program import GridProgram
from gateway.domain.types import DeviceId, EventId
from gateway.links.mqtt.messages import MqttLink, MqttLinkSettings
from gateway.profiles.compile import Codec
from gateway.profiles.loader import load_profile
from gateway.services.control.loop import ControlLoop
from gateway.services.control.queries import ControlQueries
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.events.intake import Dispatcher
from gateway.services.events.program_rules import ProgramRules
from gateway.services.runtime.clock_guard import ClockGuard
from gateway.services.runtime.fleet_clock import FleetClock
from gateway.services.settings import ControlSettings, MaintenanceSettings, ProgramSettings
from gateway.transports.mqtt.connection import OnMessages, OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings
from simulators.battery import Batteries, Mode
from simulators.commands import Result
from simulators.device import Devices
from simulators.faults import Fault, FaultKind
from simulators.homes import Bools, Floats, Homes
from simulators.messages import Outgoing
from tests.builders.fakes import MemoryJournal
from tests.builders.homes import START_MS

PROFILE = Path(__file__).parents[2] / "device_profiles" / "reference-mqtt.yaml"
SETTINGS = ControlSettings(
    fleet_w_per_s=20_000.0, release_spread_s=4.0, rest_after_s=10.0, maintenance=MaintenanceSettings(recovery_s=0)
)
STEP_S_MAX = 1.0
LEASE_S = 120
ACTIVE_W = 60.0
EXPORT_W = 100.0
REACTION_S = 14
"""What changes in a home is reported within a second and acted on within a tick, and the battery follows with a time
constant of up to 2 s. A tick that is late is acted on late."""
APART_MS = 5_000
FAR_S = 200
"""By then every lease (120 s) has run out, and every release has had its turn."""


@cache
def reference() -> Codec:
    return load_profile(PROFILE)


class Wire:
    """A connection to a broker; `up` is whether anything goes through, `failing` what becomes of messages to a topic
    instead of their delivery."""

    connected = True

    def __init__(
        self, settings: MqttSettings, *, clock: object, subscriptions: object, on_messages: OnMessages, name: str
    ) -> None:
        del settings, clock, subscriptions, name
        self.up = True
        self.failing: dict[str, PublishOutcome] = {}
        self.on_messages = on_messages
        self.deliver: Callable[[str, bytes], None] = lambda _topic, _payload: None

    async def publish(self, messages: Sequence[OutMessage], *, deadline_mono_ms: int) -> list[PublishOutcome]:
        del deadline_mono_ms
        if not self.up:
            return [PublishOutcome.NOT_SENT] * len(messages)
        outcomes = [self.failing.get(message.topic, PublishOutcome.ACKED) for message in messages]
        for message, outcome in zip(messages, outcomes, strict=True):
            if outcome is PublishOutcome.ACKED:
                self.deliver(message.topic, message.payload)
        return outcomes

    def hear(self, messages: Iterable[Outgoing]) -> None:
        """What devices send; without a connection it is gone."""
        packets = [mqtt5.PublishPacket(m.topic, m.payload) for m in messages]
        if packets and self.up:
            self.on_messages(1, packets, [])

    def acknowledge(self, generation: int, packet_ids: list[int]) -> None:
        """Nothing is sent anew here."""

    def pause_reading(self) -> None:
        """Nothing arrives while commands go out."""

    def resume_reading(self) -> None:
        """Here either."""


def registered(homes: Homes) -> list[Device]:
    """The homes as the gateway knows them."""

    def known(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return [
        Device(
            id=DeviceId(homes.ids[i]),
            profile="reference-mqtt",
            site=homes.sites[i],
            feeder=homes.feeders[i],
            tags=homes.tags[i],
            capacity_wh=float(homes.capacity_wh[i]),
            discharge_w_max=float(homes.discharge_w_max[i]),
            charge_w_max=float(homes.charge_w_max[i]),
            inverter_w_max=float(homes.inverter_w_max[i]) if np.isfinite(homes.inverter_w_max[i]) else None,
            reserve_pct=float(homes.reserve_pct[i]),
            export_allowed=bool(homes.export_allowed[i]),
            grid_charge_allowed=bool(homes.grid_charge_allowed[i]),
            site_import_w_max=known(float(homes.site_import_w_max[i])),
            site_export_w_max=known(float(homes.site_export_w_max[i])),
            fuse_protected=True,
        )
        for i in range(len(homes))
    ]


@dataclass
class Street:
    """`clock` is the gateway's machine, `now_ms` the devices' time, which nothing moves but `go`. `rules`: the
    grid programs that it knows. `asked`: from and until (UTC ms of the gateway) when each event that was accepted may
    be carried out; `out_since_ms` who opted out, and when; `problems` the invariants that were broken, in words;
    `edits` what the firmware of a home changes in its live messages; `dead_s` how late the batteries act."""

    homes: Homes
    settings: ControlSettings = SETTINGS
    programs: Mapping[str, ProgramSettings] = field(default_factory=dict)
    rules: Mapping[str, GridProgram] = field(default_factory=dict)
    physics: Callable[..., Batteries] = Batteries
    clock: ManualClock = field(default_factory=lambda: ManualClock(utc_ms=START_MS))
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    devices: Devices = field(init=False)
    now_ms: int = START_MS
    asked: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    out_since_ms: dict[int, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    lagging: bool = False
    edits: dict[int, Callable[[dict[str, Any]], None]] = field(default_factory=dict)
    publishing: bool = False
    dead_s: float = 0.0

    def __post_init__(self) -> None:
        self.devices = Devices(self.homes, self.physics(self.homes, guard=False), now_ms=self.now_ms)
        self._index = {topic: i for i, topic in enumerate(self.devices.topics.command)}
        n = len(self.homes)
        self._answers: list[Outgoing] = []
        self._seen = 0
        self._newest = np.zeros(n, dtype=np.int64)
        self._heard_ms = np.full(n, self.now_ms, dtype=np.int64)
        self._silent_s = np.full(n, 1e6)
        self._unresponsive_until_ms = np.zeros(n)
        self._since_s: dict[str, Floats] = {}
        self._unsure_outs: set[int] = set()
        self._may_ms = self.now_ms
        self.start()

    # -- the gateway -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process finds the journal and nothing else."""
        remembered = self.journal.load()
        codec = reference()
        self.fleet = Fleet()
        self.time = SteadyClock(self.clock)
        self.registry = DeviceRegistry(clock=self.time, fleet=self.fleet, journal=self.journal, codecs=self.installed())
        self.registry.load(self.known(), remembered.controlled, departures=remembered.departures)
        with patch("gateway.links.mqtt.messages.MqttConnection", Wire):
            self.link = MqttLink(
                MqttLinkSettings(broker=MqttSettings(url="mqtt://127.0.0.1:1", client_id="t")),
                codecs=[codec], fleet=self.fleet, clock=self.time,
            )  # fmt: skip
        self.wire: Wire = self.link.control  # type: ignore[assignment]
        self.wire.deliver = self._delivered
        self.dispatcher = Dispatcher(
            self.settings, fleet=self.fleet, journal=self.journal, clock=self.time, programs=self.programs,
            rules=ProgramRules(self.rules, settings=self.programs),
        )  # fmt: skip
        self.dispatcher.load(remembered)
        self.fleet_clock = FleetClock(self.time, self.link.skew)
        self.control = ControlLoop(
            self.settings, fleet=self.fleet, dispatcher=self.dispatcher, link=self.link,
            clock=self.time, epoch=remembered.epoch, fleet_clock=self.fleet_clock, publishing=self.publishing,
        )  # fmt: skip
        self.control.records.know(remembered.delivered)
        self.control.load(remembered)
        self.queries = ControlQueries(
            self.control, fleet=self.fleet, dispatcher=self.dispatcher, clock=self.time, tick_s=self.settings.tick_s
        )
        self.clock_guard = ClockGuard(
            self.time, idle=lambda: self.queries.idle() or self.fleet_clock.trust is ClockTrust.CONTRADICTED
        )
        self.link.emit = self._taken
        # what the broker keeps of each device's presence
        reachable = np.flatnonzero(self.devices.reachable).tolist()
        self.wire.hear(self.devices.status(i, self.now_ms, online=True) for i in reachable)

    def known(self) -> list[Device]:
        """The homes as the gateway's journal has them: with the reserves that their owners chose since."""
        kept = [change for change in self.journal.kept if isinstance(change, ReserveChanged)]
        chosen = {name: pct for change in kept for name, pct in zip(change.devices, change.reserve_pct, strict=True)}
        return [replace(one, reserve_pct=chosen.get(one.id, one.reserve_pct)) for one in registered(self.homes)]

    def installed(self) -> dict[str, Codec]:
        """The profiles that a new process finds."""
        return {"reference-mqtt": reference()}

    async def restart(self, *, away_s: float) -> None:
        """The gateway dies, and somebody starts it again."""
        self.wire.up = False
        for _ in range(round(away_s)):
            self._live(1.0)
            self._judge(1.0, 1.0)
        self._answers = []
        self.start()
        # of an opt-out that was never durable, as its owner was told, a new process may know nothing
        for index in [i for i in self._unsure_outs if self.dispatcher.exclusions.get(f"out-{i}") is None]:
            self.out_since_ms.pop(index, None)
            self._unsure_outs.discard(index)

    def _taken(self, batch: ReadingBatch) -> None:
        if batch.live is not None:
            self.fleet.observe_live(batch.live, self.time.now())
        if batch.unclear is not None:
            self.fleet.observe_unclear(batch.unclear)
        if batch.status is not None:
            self.fleet.observe_status(batch.status, self.time.now())
        if batch.acks is not None:
            self.control.observe_acks(batch.acks)

    def _delivered(self, topic: str, payload: bytes) -> None:
        answer = self.devices.take_command(self._index[topic], payload, self.now_ms)
        if answer is not None:
            self._answers.append(answer)

    # -- time ------------------------------------------------------------------------------------------------

    async def go(self, s: float, *, tick_s: float = 1.0) -> "Street":
        """Let `s` seconds pass, with a tick of the gateway every `tick_s`."""
        left_s = s
        while left_s > 0:
            gap_s = min(tick_s, left_s)
            left_s -= gap_s
            passed_s = 0.0
            while passed_s < gap_s:
                step_s = min(max(STEP_S_MAX, gap_s / 2), gap_s - passed_s)
                passed_s += step_s
                self._live(step_s)
                self._judge(step_s, gap_s)
            await self.tick()
            await self.control.pending.put_away()
        return self

    async def tick(self) -> None:
        """One tick of the gateway."""
        self.clock_guard.observe()
        await self.control.tick()
        self._judge_commands()

    def _live(self, s: float) -> None:
        self.now_ms += round(s * 1000)
        self.clock.advance(s=s)
        self.devices.step(self.now_ms, s)
        presence = [self.devices.status(i, self.now_ms, online=on) for i, on in self.devices.take_presence()]
        answers, self._answers = self._answers + self.devices.take_answers(), []
        heard = self.arriving(presence + answers + [self._edited(m) for m in self.devices.live(self.now_ms)])
        self.wire.hear(heard)
        spoke = {message.index for message in heard if message.topic == self.devices.topics.live[message.index]}
        if self.wire.up:
            self._heard_ms[list(spoke)] = self.now_ms

    def _edited(self, message: Outgoing) -> Outgoing:
        edit = self.edits.get(message.index)
        if edit is None:
            return message
        body = orjson.loads(message.payload)
        edit(body)
        return replace(message, payload=orjson.dumps(body))

    def arriving(self, messages: list[Outgoing]) -> list[Outgoing]:
        """What of the devices' messages comes to the broker, and how."""
        return messages

    def inject(self, index: int, fault: Fault) -> None:
        """Plant a fault; it begins with the next second."""
        self.lagging |= fault.kind is FaultKind.LAG
        if fault.kind is FaultKind.DEAF:
            self._unresponsive_until_ms[index] = self.now_ms + 1_000 * ((fault.at_s or 0.0) + fault.for_s)
        self.devices.inject(index, fault, self.now_ms)

    # -- what the platform and owners do ---------------------------------------------------------------------

    async def submit(
        self, name: str = "e", *, in_s: float = 0.0, s: float | None, target: Target, kept_s: float = 0.0, **other: Any
    ) -> Answer:
        """An event to everybody from `in_s` on for `s` seconds; None: until further notice. `kept_s`: how long before
        it the gateway may keep energy for it."""
        start_ms = self.time.now().utc_ms + round(in_s * 1000)
        end_ms = OPEN_MS if s is None else start_ms + round(s * 1000)
        asked: dict[str, Any] = {
            "id": EventId(name), "revision": 1, "kind": EventKind.REAL, "program": "test",
            "group": TargetGroup(all=True), "start_ms": start_ms, "end_ms": end_ms,
            "target": target, "priority": 100,
        }  # fmt: skip
        answer = await self.dispatcher.submit(EventRequest(**(asked | other)))
        if answer.outcome is Outcome.ACCEPTED:
            from_ms = start_ms - round(1000 * kept_s)
            self.asked.setdefault(answer.id, []).append((from_ms, end_ms))
        return answer

    async def cancel(self, name: str) -> None:
        if await self.dispatcher.cancel(name) is not None:
            self._until_now(name)

    async def stop_all(self, *, active: bool) -> None:
        await self.dispatcher.stop_all(active=active, by="test")
        for name in self.asked if active else ():
            self._until_now(name)

    def _until_now(self, name: str) -> None:
        now_ms = self.time.now().utc_ms
        self.asked[name] = [(a, min(b, now_ms)) for a, b in self.asked.get(name, [])]

    async def opt_out(self, index: int) -> None:
        """The owner of one home wants no part any more."""
        name = f"out-{index}"
        durable = await self.dispatcher.exclude(
            Exclusion(id=name, reason="opt_out", group=TargetGroup(ids=(DeviceId(self.homes.ids[index]),)),
                 from_ms=self.time.now().utc_ms, until_ms=None)
        )  # fmt: skip
        self.out_since_ms.setdefault(index, self.now_ms)
        (self._unsure_outs.discard if durable else self._unsure_outs.add)(index)

    async def opt_in(self, index: int) -> None:
        await self.dispatcher.lift(f"out-{index}")
        self.out_since_ms.pop(index, None)
        self._unsure_outs.discard(index)

    # -- judging ---------------------------------------------------------------------------------------------

    @property
    def remote(self) -> Bools:
        """Who is under control from outside."""
        remote: Bools = self.devices.batteries.mode == Mode.REMOTE
        return remote

    def _judge(self, s: float, gap_s: float) -> None:
        """Read the batteries, `s` seconds after they were read last; a tick comes every `gap_s`."""
        batteries, homes = self.devices.batteries, self.homes
        now_ms = self.time.now().utc_ms
        if any(a <= now_ms <= b for spans in self.asked.values() for a, b in spans):
            self._may_ms = self.now_ms
        silent = self.now_ms - self._heard_ms > 3_000 + 1_000 * s
        self._silent_s = np.where(silent, 0.0, np.minimum(self._silent_s + s, 1e6))
        ours = self.remote & ~batteries.islanded
        power_w, grid_w = batteries.battery_w, batteries.grid_w
        below = batteries.true_soc_pct < batteries.reserve_pct
        self._note("discharges below its reserve", ours & (power_w > ACTIVE_W) & below, s, gap_s)
        out_w = np.minimum(power_w, -grid_w)
        self._note("exports and may not", ours & ~homes.export_allowed & (out_w > EXPORT_W), s, gap_s)
        into_w = np.minimum(-power_w, grid_w)
        charged = ours & ~homes.grid_charge_allowed & ~batteries.blocked & (into_w > EXPORT_W)
        self._note("charges from the grid and may not", charged, s, gap_s)
        gone = np.zeros(len(homes), dtype=np.bool_)
        gone[[i for i, since_ms in self.out_since_ms.items() if since_ms < self.now_ms - s * 1000]] = True
        self._note("is under control though its owner opted out", gone & self.remote, s, gap_s)
        if self.now_ms - self._may_ms > FAR_S * 1000:
            self._note("is under control long after every event", self.remote, REACTION_S + LEASE_S + 1e6, gap_s)

    def _note(self, what: str, bad: Bools, s: float, gap_s: float) -> None:
        """A fault in a home must be over soon. Where it hears nothing, or believes no command since the two clocks are
        apart, it must be once the lease is; where nothing is heard of it, once its last reading is too old to renew the
        lease, and the lease is over."""
        since_s = self._since_s.setdefault(what, np.zeros(len(self.homes)))
        since_s[:] = np.where(bad, since_s + s, 0.0)
        silent = self._silent_s < LEASE_S
        unresponsive = silent | (self.now_ms < self._unresponsive_until_ms + 1_000 * LEASE_S)
        unresponsive |= abs(self.time.now().utc_ms - self.now_ms) > APART_MS
        most_s = REACTION_S + self.dead_s + 2 * gap_s + np.where(unresponsive, LEASE_S, 0)
        most_s = most_s + np.where(silent, self.settings.reading_age_s_max, 0)
        for index in np.flatnonzero(since_s > most_s).tolist():
            self.problems.append(f"{self.homes.ids[index]} {what}, for {since_s[index]:g} s")

    def _judge_commands(self) -> None:
        """What reached the devices since this was last asked."""
        new = list(islice(self.devices.commands_seen, self._seen, None))
        self._seen += len(new)
        for seen in new:
            rated_w = self.homes.discharge_w_max if seen.setpoint_w > 0 else self.homes.charge_w_max
            if abs(seen.setpoint_w) > rated_w[seen.index] or seen.lease_s > LEASE_S:
                self.problems.append(f"{seen.device} was told more than it may: {seen}")
            if seen.result is Result.APPLIED:
                if seen.cmd <= self._newest[seen.index]:
                    self.problems.append(f"{seen.device} applied an older command: {seen}")
                self._newest[seen.index] = seen.cmd
            if seen.result is Result.OLDER and not self.lagging:
                self.problems.append(f"{seen.device} was sent an older command: {seen}")
