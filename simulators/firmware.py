"""Simulated devices on MQTT: connects them, moves them in real time, carries their messages.

Device connections: `devices_per_connection` share one; with 1 every device has its own, with a last will. On a shared
connection a device that drops out is reported offline on its behalf, as its last will would be.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from simulators.battery import Batteries
from simulators.clock import Clock
from simulators.device import Devices
from simulators.energy_store import AckedEnergy, EnergyMessage, Place
from simulators.faults import Fault, FaultRecord
from simulators.homes import Homes
from simulators.messages import Outgoing
from simulators.recorder import Recorder
from simulators.uplink import ConnectFailed, Endpoint, Uplink, Will

TICK_S = 0.1
STEP_S_MAX = 0.5
CATCH_UP_S_MAX = 30.0
CONNECT_S = 5.0
CONNECTING_MAX = 16
BACKOFF_S = (0.2, 3.0)
URGENT_MAX = 20_000


@dataclass(slots=True, kw_only=True)
class LineStats:
    """What the connections counted, summed over the fleet."""

    connects: int = 0
    connect_failures: int = 0
    losses: int = 0
    live_unsent: int = 0
    acks_dropped: int = 0
    refused_by_broker: int = 0
    foreign_topics: int = 0


class Line:
    """One connection and the devices that use it; reconnects for ever."""

    def __init__(self, fleet: "FirmwareFleet", *, number: int, indices: range) -> None:
        self._fleet = fleet
        self._devices = fleet.devices
        self._indices = indices
        self._single = len(indices) == 1 and fleet.devices_per_connection == 1
        self._client_id = f"sim-{fleet.name}-{number}"
        self._by_topic = {self._devices.topics.command[i]: i for i in indices}
        self._uplink: Uplink | None = None
        self._urgent: deque[Outgoing] = deque(maxlen=URGENT_MAX)
        self._waiting: deque[EnergyMessage] = deque()
        self._sent: dict[int, EnergyMessage | None] = {}
        self._inbox: list[tuple[int, bytes]] = []
        self._pumping = False
        self._may_connect = asyncio.Event()
        self._may_connect.set()
        self.up = asyncio.Event()

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        failures = 0
        try:
            while True:
                await self._may_connect.wait()
                try:
                    async with self._fleet.connecting:
                        uplink = await self._connect()
                except ConnectFailed:
                    self._fleet.lines.connect_failures += 1
                    failures += 1
                    ceiling_s = min(BACKOFF_S[1], BACKOFF_S[0] * 2 ** min(failures, 8))
                    await asyncio.sleep(random.uniform(0, ceiling_s))
                    continue
                failures = 0
                self._fleet.lines.connects += 1
                await uplink.lost.wait()
                self._fleet.lines.losses += 1
                self._forget()
        finally:
            if self._uplink is not None:
                self._uplink.close()

    def send_live(self, message: Outgoing) -> None:
        if self._uplink is None or self._uplink.publish(message.topic, message.payload, qos=0) is None:
            self._fleet.lines.live_unsent += 1

    def send_urgent(self, message: Outgoing) -> None:
        """Queue an acknowledgement or a status ahead of energy; dropped when there is no connection."""
        if self._uplink is None or len(self._urgent) == URGENT_MAX:
            self._fleet.lines.acks_dropped += 1
            return
        self._urgent.append(message)
        self._pump_soon()

    def offer(self, index: int) -> None:
        """Queue whatever energy messages the device has to send."""
        if self._uplink is None:
            return
        for message in self._devices.sendable(index):
            message.place = Place.WAITING
            self._waiting.append(message)
        self._pump_soon()

    def present(self, index: int, *, reachable: bool) -> None:
        """A device came back or dropped out."""
        if self._single:
            if reachable:
                self._may_connect.set()
            else:
                self._may_connect.clear()
                if self._uplink is not None:
                    self._uplink.abort()
            return
        self.send_urgent(self._devices.status(index, self._fleet.now_ms(), online=reachable))

    async def _connect(self) -> Uplink:
        will = None
        if self._single:
            device = self._indices.start
            will = Will(
                topic=self._devices.topics.status[device],
                payload=self._devices.status(device, self._fleet.now_ms(), online=False).payload,
            )
        uplink = Uplink(
            self._fleet.endpoint,
            client_id=self._client_id,
            on_message=self._arrived,
            on_puback=self._puback,
            will=will,
        )
        try:
            await uplink.connect(CONNECT_S)
            await uplink.subscribe(list(self._by_topic), CONNECT_S)
        except (ConnectFailed, asyncio.CancelledError):
            uplink.abort()
            raise
        self._uplink = uplink
        now_ms = self._fleet.now_ms()
        for index in self._indices:
            if self._devices.reachable[index] and not self._devices.elsewhere[index]:
                self._urgent.append(self._devices.status(index, now_ms, online=True))
        self._offer_all()
        self.up.set()
        return uplink

    def _offer_all(self) -> None:
        """Everything unacknowledged goes out again, oldest first over all devices of the connection."""
        kept = [message for index in self._indices for message in self._devices.sendable(index)]
        for message in sorted(kept, key=lambda message: message.t_ms):
            message.place = Place.WAITING
            self._waiting.append(message)
        self._pump_soon()

    def _forget(self) -> None:
        self._uplink = None
        self.up.clear()
        self._fleet.lines.acks_dropped += len(self._urgent) + sum(message is None for message in self._sent.values())
        self._urgent.clear()
        for message in (*self._waiting, *self._sent.values()):
            if message is not None and message.place is not Place.GONE:
                message.place = Place.KEPT
        self._waiting.clear()
        self._sent.clear()

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Send what fits into the broker's receive maximum."""
        self._pumping = False
        uplink = self._uplink
        if uplink is None:
            return
        while (self._urgent or self._waiting) and len(self._sent) < uplink.inflight_max:
            message = None if self._urgent else self._waiting.popleft()
            if message is None:
                out = self._urgent.popleft()
                mid = uplink.publish(out.topic, out.payload, qos=1, retain=out.retain)
            elif message.place is Place.GONE:
                continue
            elif not self._devices.reachable[message.index]:
                message.place = Place.KEPT
                continue
            else:
                message.times_sent += 1
                message.place = Place.SENT
                mid = uplink.publish(self._devices.topics.energy[message.index], message.payload, qos=1)
            if mid is None:
                if message is not None:
                    message.place = Place.KEPT
                return
            self._sent[mid] = message

    def _puback(self, mid: int, accepted: bool) -> None:
        message = self._sent.pop(mid, None)
        if not accepted:
            self._fleet.lines.refused_by_broker += 1
        if message is not None:
            if accepted:
                self._devices.energy_acked(message)
            elif message.place is not Place.GONE:
                message.place = Place.KEPT
        if self._urgent or self._waiting:
            self._pump_soon()

    def _arrived(self, topic: str, payload: bytes) -> None:
        index = self._by_topic.get(topic)
        if index is None:
            self._fleet.lines.foreign_topics += 1
            return
        if not self._inbox:
            asyncio.get_running_loop().call_soon(self._obey)
        self._inbox.append((index, payload))

    def _obey(self) -> None:
        inbox, self._inbox = self._inbox, []
        now_ms = self._fleet.now_ms()
        for index, payload in inbox:
            ack = self._devices.take_command(index, payload, now_ms)
            if ack is not None:
                self.send_urgent(ack)


class FirmwareFleet:
    """A fleet of simulated homes on a broker, in real time.

    `devices` holds firmware and batteries, `recorder` what truly happened; while it is `blind` no device sends live
    readings. `run` lasts until it is cancelled.
    """

    def __init__(
        self,
        homes: Homes,
        url: str,
        clock: Clock,
        *,
        live_s: float = 1.0,
        energy_s: float = 5.0,
        devices_per_connection: int = 50,
        guard: bool = False,
        day_s: float = 64_800.0,
        record_s: int = 1_200,
        name: str = "fleet",
    ) -> None:
        self.endpoint = Endpoint.parse(url)
        self.name = name
        self.devices_per_connection = devices_per_connection
        self.lines = LineStats()
        self.connecting = asyncio.Semaphore(CONNECTING_MAX)
        self._clock = clock
        now_ms = clock.utc_ms()
        self.devices = Devices(
            homes,
            Batteries(homes, time_s=day_s, guard=guard),
            now_ms=now_ms,
            live_s=live_s,
            energy_s=energy_s,
            first_boot=now_ms // 1000,
        )
        self.recorder = Recorder(self.devices, samples_max=record_s)
        self.on_tick: Callable[[int], None] | None = None
        self.before_step: Callable[[float], None] | None = None
        self.blind = False
        self._next_sample_ms = now_ms
        chunk = devices_per_connection
        self._lines = [
            Line(self, number=number, indices=range(start, min(start + chunk, len(homes))))
            for number, start in enumerate(range(0, len(homes), chunk))
        ]

    def now_ms(self) -> int:
        return self._clock.utc_ms()

    def inject(self, index: int, fault: Fault) -> None:
        """Plant a fault now or at `fault.at_s` after the start; ValueError when it makes no sense."""
        self.devices.inject(index, fault, self._clock.utc_ms())

    @property
    def faults(self) -> list[FaultRecord]:
        """Every fault that has begun, with its first visible effect."""
        return self.devices.faults.records

    @property
    def acked(self) -> deque[AckedEnergy]:
        """Every energy message the broker has acknowledged (the newest ones, bounded)."""
        return self.devices.acked

    async def wait_connected(self, timeout_s: float) -> None:
        """Until every connection has been up; TimeoutError otherwise."""
        async with asyncio.timeout(timeout_s):
            for line in self._lines:
                await line.up.wait()

    async def run(self) -> None:
        """Connect everything and live until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for number, line in enumerate(self._lines):
                tasks.create_task(line.run(), name=f"line {number}")
            tasks.create_task(self._tick(), name="physics")

    async def _tick(self) -> None:
        last_s = self._clock.mono_s()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = self._clock.mono_s()
            behind_s, last_s = min(now_s - last_s, CATCH_UP_S_MAX), now_s
            now_ms = self._clock.utc_ms()
            while behind_s > 1e-6:
                dt_s = min(behind_s, STEP_S_MAX)
                behind_s -= dt_s
                if self.before_step is not None:
                    self.before_step(dt_s)
                self.devices.step(now_ms - round(behind_s * 1000), dt_s)
            self._carry(now_ms)
            if now_ms >= self._next_sample_ms:
                self._next_sample_ms = now_ms - now_ms % 1000 + 1000
                self.recorder.sample(now_ms)
            if self.on_tick is not None:
                self.on_tick(now_ms)

    def _carry(self, now_ms: int) -> None:
        """Hand what the devices have to say to their connections."""
        devices, chunk = self.devices, self.devices_per_connection
        for index, reachable in devices.take_presence():
            self._lines[index // chunk].present(index, reachable=reachable)
        for message in devices.take_answers():
            line = self._lines[message.index // chunk]
            if message.qos:
                line.send_urgent(message)
            else:
                line.send_live(message)
        for message in () if self.blind else devices.live(now_ms):
            self._lines[message.index // chunk].send_live(message)
        devices.make_energy(now_ms)
        for index in devices.take_ready():
            self._lines[index // chunk].offer(index)
