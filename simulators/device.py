"""What the firmware of every simulated device does with commands, leases, faults and messages; no I/O, no clock.

`now_ms` is the device's clock. The caller moves time with `step`, hands in what arrived and sends what comes out.
"""

from bisect import insort
from collections import deque
from dataclasses import dataclass

import numpy as np
import orjson

from simulators.battery import Batteries, Mode
from simulators.commands import Command, CommandSeen, Malformed, Op, Result, build_ack, read_command
from simulators.energy_store import AckedEnergy, EnergyMessage, EnergyStore, Place
from simulators.faults import Fault, FaultBook, FaultKind, FaultRecord
from simulators.homes import Bools, Homes, Ints
from simulators.messages import (
    Body,
    EnergyReadings,
    Outgoing,
    Reported,
    SpanMeter,
    Topics,
    energy_body,
    live_bodies,
    status_payload,
)
from simulators.spoil import spoil_energy, spoil_live

HELD_COMMANDS_MAX = 64
LATE_COMMANDS_MAX = 10_000
LATE_LIVE_MAX = 600
LOG_MAX = 500_000


@dataclass(slots=True, kw_only=True)
class DeviceStats:
    """What the firmware counted."""

    live: int = 0
    live_withheld: int = 0
    live_dropped: int = 0
    energy: int = 0
    energy_acked: int = 0
    pubacks_missed: int = 0
    commands: int = 0
    commands_malformed: int = 0
    commands_dropped: int = 0
    leases_run_out: int = 0
    log_dropped: int = 0


class Devices:
    """The firmware of a fleet; arrays by device index.

    `presence` and `ready` are for whoever sends: devices that came or went (index, reachable) and devices that may have
    energy messages to send, both since the last `take_presence` / `take_ready`. `elsewhere` marks homes whose
    product speaks another protocol: no message comes from them here.
    """

    def __init__(
        self,
        homes: Homes,
        batteries: Batteries,
        *,
        now_ms: int,
        live_s: float = 1.0,
        energy_s: float = 5.0,
        store_max: int = 1_000,
        first_boot: int = 1,
    ) -> None:
        n = len(homes)
        rng = np.random.default_rng([homes.seed, 4])
        self.homes = homes
        self.batteries = batteries
        self.topics = Topics(homes.ids)
        self.faults = FaultBook(homes.ids, start_ms=now_ms)
        self.stats = DeviceStats()
        self.commands_seen: deque[CommandSeen] = deque(maxlen=LOG_MAX)
        self.acked: deque[AckedEnergy] = deque(maxlen=LOG_MAX)
        self.stores = [EnergyStore(store_max) for _ in range(n)]
        self.elsewhere = np.zeros(n, dtype=np.bool_)
        self.own_mode = np.full(n, Mode.SELF_CONSUMPTION, dtype=np.int8)
        self.reachable = np.ones(n, dtype=np.bool_)
        self.boot: Ints = np.full(n, first_boot, dtype=np.int64)
        self.seq: Ints = np.zeros(n, dtype=np.int64)
        self.lease_end_ms: Ints = np.zeros(n, dtype=np.int64)
        self.last_cmd: Ints = np.zeros(n, dtype=np.int64)
        self.reported = Reported(fault_bits=np.zeros(n, dtype=np.int64), command_in_force=np.zeros(n, dtype=np.int64))
        self.live_s = live_s
        self._live_ms = round(live_s * 1000)
        self._energy_ms = round(energy_s * 1000)
        self._next_live_ms: Ints = now_ms + rng.integers(1, self._live_ms + 1, n)
        self._next_energy_ms: Ints = now_ms + rng.integers(1, self._energy_ms + 1, n)
        self._meter = SpanMeter(batteries, now_ms=now_ms)
        self._frozen_pct = np.full(n, np.nan)
        self._held: dict[int, deque[bytes]] = {}
        self._late: list[tuple[int, int, bytes]] = []
        self._late_live: dict[int, deque[bytes]] = {}
        self._presence: list[tuple[int, bool]] = []
        self._ready: list[int] = []
        self._answers: list[Outgoing] = []

    # time

    def inject(self, index: int, fault: Fault, now_ms: int) -> None:
        """Plant a fault; it begins at its time or at the next step."""
        self.faults.plan(index, fault, now_ms)

    def step(self, now_ms: int, dt_s: float) -> None:
        """Move firmware and batteries by `dt_s` to `now_ms`."""
        begun, ended = self.faults.advance(now_ms)
        for record in ended:
            self._end(record, now_ms)
        for record in begun:
            self._begin(record, now_ms)
        while self._late and self._late[0][0] <= now_ms:
            _, index, payload = self._late.pop(0)
            if self.reachable[index]:
                self._answer(self._obey(index, payload, now_ms))
            else:
                self._hold(index, payload)
        for index in np.flatnonzero((self.lease_end_ms > 0) & (self.lease_end_ms <= now_ms)).tolist():
            self.stats.leases_run_out += 1
            self._leave_remote(index)
        self.batteries.step(dt_s)
        self._meter.add(dt_s)

    def take_presence(self) -> list[tuple[int, bool]]:
        presence, self._presence = self._presence, []
        return presence

    def take_ready(self) -> list[int]:
        ready, self._ready = self._ready, []
        return ready

    def take_answers(self) -> list[Outgoing]:
        """Acknowledgements and kept messages that became due in a step."""
        answers, self._answers = self._answers, []
        return answers

    @property
    def steered(self) -> Bools:
        """Which homes are under outside control; those that speak another protocol say so by their command in force."""
        mine: Bools = self.batteries.mode == Mode.REMOTE
        return np.where(self.elsewhere, self.reported.command_in_force > 0, mine)

    # messages out

    def live(self, now_ms: int) -> list[Outgoing]:
        """The live messages that are due, with what running faults make of them."""
        due = self._due(self._next_live_ms, self._live_ms, now_ms)
        if not len(due):
            return []
        out: list[Outgoing] = []
        spoiled = not self.faults.quiet
        bodies = live_bodies(self.batteries, self.reported, due, now_ms)
        for index, body in zip(due.tolist(), bodies, strict=True):
            payload = self._live_payload(index, body, now_ms) if spoiled else orjson.dumps(body)
            if payload is not None:
                out.append(Outgoing(index=index, topic=self.topics.live[index], payload=payload, qos=0))
        self.stats.live += len(out)
        self.stats.live_withheld += len(bodies) - len(out)
        return out

    def make_energy(self, now_ms: int) -> None:
        """Write the energy messages that are due into the devices' stores; a booting device writes none."""
        due = self._due(self._next_energy_ms, self._energy_ms, now_ms)
        if not len(due):
            return
        readings = EnergyReadings.of(self.batteries)
        for index in due.tolist():
            if self.faults.active(index, FaultKind.REBOOT) is None:
                self._store_energy(index, readings, now_ms)

    def sendable(self, index: int) -> list[EnergyMessage]:
        """Kept messages of a device that may go out now, oldest first."""
        if not self.reachable[index] or self.faults.active(index, FaultKind.BACKLOG) is not None:
            return []
        return [message for message in self.stores[index] if message.place is Place.KEPT]

    def energy_acked(self, message: EnergyMessage) -> None:
        """The broker acknowledged a message; a device that is cut off does not hear it and keeps the message."""
        if not self.reachable[message.index]:
            self.stats.pubacks_missed += 1
            if message.place is not Place.GONE:
                message.place = Place.KEPT
            return
        self.stats.energy_acked += 1
        self.stores[message.index].remove(message)
        self.stats.log_dropped += len(self.acked) == LOG_MAX
        self.acked.append(message.acked())

    def status(self, index: int, now_ms: int, *, online: bool) -> Outgoing:
        payload = status_payload(self.homes.ids[index], online=online, now_ms=now_ms, live_s=self.live_s)
        return Outgoing(index=index, topic=self.topics.status[index], payload=payload, qos=1, retain=True)

    # messages in

    def take_command(self, index: int, payload: bytes, now_ms: int) -> Outgoing | None:
        """Obey, refuse or put off a command; its acknowledgement, or None where there is none (yet)."""
        if not self.reachable[index]:
            self._hold(index, payload)
            return None
        lag = self.faults.active(index, FaultKind.LAG)
        if lag is None:
            return self._obey(index, payload, now_ms)
        if len(self._late) >= LATE_COMMANDS_MAX:
            self.stats.commands_dropped += 1
            return None
        lag.note(now_ms, "command put off")
        insort(self._late, (now_ms + round(lag.fault.value * 1000), index, payload), key=lambda late: late[0])
        return None

    def _hold(self, index: int, payload: bytes) -> None:
        """Keep a command as a careless broker would: it reaches the device when the device is back, however late."""
        held = self._held.setdefault(index, deque(maxlen=HELD_COMMANDS_MAX))
        self.stats.commands_dropped += len(held) == HELD_COMMANDS_MAX
        held.append(payload)

    def _obey(self, index: int, payload: bytes, now_ms: int) -> Outgoing | None:
        self.stats.commands += 1
        command = read_command(payload)
        result: Result | None
        if isinstance(command, Malformed):
            self.stats.commands_malformed += 1
            result, reason = (Result.REFUSED if command.cmd else None), command.reason
        else:
            result, reason = self._judge(index, command, now_ms)
        deaf = self.faults.active(index, FaultKind.DEAF)
        if deaf is not None:
            deaf.note(now_ms, f"command {command.cmd} ignored")
            result, reason = (Result.APPLIED if deaf.fault.acks else None), "deaf"
        elif isinstance(command, Command) and result is Result.APPLIED:
            self._apply(index, command, now_ms)
        self._log(index, command, result, reason, now_ms)
        if result is None:
            return None
        said = "" if reason == "deaf" else reason
        ack = build_ack(device=self.homes.ids[index], cmd=command.cmd, result=result, reason=said, now_ms=now_ms)
        return Outgoing(index=index, topic=self.topics.ack[index], payload=ack, qos=1)

    def _judge(self, index: int, command: Command, now_ms: int) -> tuple[Result, str]:
        if command.device != self.homes.ids[index]:
            return Result.REFUSED, "id"
        if command.valid_until_ms < now_ms:
            return Result.EXPIRED, ""
        if command.cmd <= self.last_cmd[index]:
            return Result.OLDER, ""
        if command.op in {Op.SETPOINT, Op.HOLD, Op.BLOCK}:
            if self.batteries.islanded[index]:
                return Result.REFUSED, "island"
            if self.reported.fault_bits[index]:
                return Result.REFUSED, "fault"
        return Result.APPLIED, ""

    def _apply(self, index: int, command: Command, now_ms: int) -> None:
        self.last_cmd[index] = command.cmd
        match command.op:
            case Op.SETPOINT | Op.HOLD | Op.BLOCK:
                self.batteries.mode[index] = Mode.REMOTE
                self.batteries.blocked[index] = command.op is Op.BLOCK
                self.batteries.setpoint_w[index] = command.setpoint_w
                self.lease_end_ms[index] = now_ms + command.lease_s * 1000
                self.reported.command_in_force[index] = command.cmd
            case Op.RELEASE:
                self._leave_remote(index)
            case Op.RESERVE:
                self.batteries.reserve_pct[index] = command.reserve_pct

    def _log(self, index: int, command: Command | Malformed, result: Result | None, reason: str, now_ms: int) -> None:
        known = command if isinstance(command, Command) else None
        self.stats.log_dropped += len(self.commands_seen) == LOG_MAX
        self.commands_seen.append(
            CommandSeen(
                t_ms=now_ms,
                index=index,
                device=self.homes.ids[index],
                cmd=command.cmd,
                op=known.op if known else None,
                setpoint_w=known.setpoint_w if known else 0,
                lease_s=known.lease_s if known else 0,
                reserve_pct=known.reserve_pct if known else 0.0,
                valid_until_ms=known.valid_until_ms if known else 0,
                result=result,
                reason=reason,
            )
        )

    def _leave_remote(self, index: int) -> None:
        self.batteries.mode[index] = self.own_mode[index]
        self.batteries.setpoint_w[index] = 0.0
        self.batteries.blocked[index] = False
        self.lease_end_ms[index] = 0
        self.reported.command_in_force[index] = 0

    # faults

    def _begin(self, record: FaultRecord, now_ms: int) -> None:
        index = record.index
        match record.fault.kind:
            case FaultKind.OFFLINE:
                self._refresh(index)
            case FaultKind.REBOOT:
                self._leave_remote(index)
                self._refresh(index)
            case FaultKind.ISLAND:
                self._island(index, on=True)
            case FaultKind.FAULT_BITS:
                self.reported.fault_bits[index] = int(record.fault.value)
                self._leave_remote(index)
                self._refresh(index)
            case FaultKind.OWNER_RESERVE:
                self.batteries.reserve_pct[index] = record.fault.value
            case FaultKind.OWNER_MODE:
                self._leave_remote(index)
            case FaultKind.FROZEN_SOC:
                self._frozen_pct[index] = round(float(self.batteries.reported_soc_pct()[index]), 2)
            case _:
                pass  # seen where messages and commands pass

    def _end(self, record: FaultRecord, now_ms: int) -> None:
        index = record.index
        match record.fault.kind:
            case FaultKind.OFFLINE:
                self._refresh(index)
            case FaultKind.REBOOT:
                self.boot[index] += 1
                self.seq[index] = 0
                record.note(now_ms, "booted")
                self._refresh(index)
            case FaultKind.ISLAND:
                self._island(index, on=False)
            case FaultKind.FAULT_BITS:
                self.reported.fault_bits[index] = 0
                self._refresh(index)
            case FaultKind.BACKLOG:
                for payload in self._late_live.pop(index, ()):
                    record.note(now_ms, "old messages sent")
                    self._answer(Outgoing(index=index, topic=self.topics.live[index], payload=payload, qos=0))
                self._ready.append(index)
            case _:
                pass
        if self.reachable[index]:
            for payload in self._held.pop(index, ()):
                self._answer(self.take_command(index, payload, now_ms))

    def _refresh(self, index: int) -> None:
        """Derive reachability and output from the faults that run now."""
        rebooting = self.faults.active(index, FaultKind.REBOOT) is not None
        reachable = not rebooting and self.faults.active(index, FaultKind.OFFLINE) is None
        self.batteries.inhibited[index] = rebooting or self.reported.fault_bits[index] != 0
        if reachable != self.reachable[index]:
            self.reachable[index] = reachable
            self._presence.append((index, reachable))
            if reachable:
                self._ready.append(index)

    def _island(self, index: int, *, on: bool) -> None:
        for other in np.flatnonzero(self.homes.site_index == self.homes.site_index[index]).tolist():
            self.batteries.islanded[other] = on
            if on:
                self._leave_remote(other)

    def _live_payload(self, index: int, body: Body, now_ms: int) -> bytes | None:
        """The live message as the running faults leave it; None = not sent now."""
        payload = spoil_live(self.faults, index, body, frozen_pct=float(self._frozen_pct[index]), now_ms=now_ms)
        if payload is None or self.faults.active(index, FaultKind.BACKLOG) is None:
            return payload
        late = self._late_live.setdefault(index, deque(maxlen=LATE_LIVE_MAX))
        self.stats.live_dropped += len(late) == LATE_LIVE_MAX
        late.append(payload)
        return None

    def _store_energy(self, index: int, readings: EnergyReadings, now_ms: int) -> None:
        self.seq[index] += 1
        boot, seq = int(self.boot[index]), int(self.seq[index])
        span = self._meter.take(index, now_ms)
        body, charge_wh, discharge_wh = energy_body(
            self.batteries, readings, span, index=index, boot=boot, seq=seq, now_ms=now_ms
        )
        if not self.faults.quiet:
            spoil_energy(self.faults, index, body)
        message = EnergyMessage(
            index=index,
            boot=boot,
            seq=seq,
            t_ms=now_ms,
            span_ms=span.span_ms,
            charge_wh=charge_wh,
            discharge_wh=discharge_wh,
            payload=orjson.dumps(body),
        )
        self.stats.energy += 1
        self.stores[index].add(message)
        self._ready.append(index)

    def _due(self, next_ms: Ints, period_ms: int, now_ms: int) -> Ints:
        """Indices whose time has come; their next time keeps its phase."""
        due: Ints = np.flatnonzero((next_ms <= now_ms) & ~self.elsewhere).astype(np.int64)
        next_ms[due] += period_ms * (1 + (now_ms - next_ms[due]) // period_ms)
        return due

    def _answer(self, message: Outgoing | None) -> None:
        if message is not None:
            self._answers.append(message)
