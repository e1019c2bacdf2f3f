"""Links batteries with values on MQTT topics, on brokers of their own or on ours: reads kept values, publishes writes.

The devices of one broker, account and profile share a connection. `run` keeps the connections, and the one task that
publishes the keepalives that make devices go on publishing.
"""

import asyncio
import hashlib
import heapq
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import mqtt5

from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, LinkDown, PeerRefused
from gateway.links.json_values import json_body, text_of
from gateway.links.mqtt.brokers import broker_of
from gateway.links.mqtt.cache import DeviceCache, PointMessageStats, filter_of, levels_of, points_of, topic_of
from gateway.links.mqtt.retained import FLEET_BOUNDS, HOME_BOUNDS, RetainedMessages
from gateway.ports.links import PointTarget
from gateway.profiles.compiled.points import Marker, Read, Unreadable, Unwritable
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.language.points import Point, WriteTo
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.language.transport import MqttKeepalive, MqttSection
from gateway.transports.mqtt.connection import MqttConnection, OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings

__all__ = ["MqttPointLinks", "PointMessageStats"]

log = logging.getLogger(__name__)

OPEN_S_MAX = 5.0
FIRST_VALUES_S_MAX = 5.0
WRITE_S_MAX = 5.0
KEEPALIVE_S_MAX = 1.0
TICK_S = 0.5
LINGER_MS = 5_000
EXPIRY_S = 30

HubKey = tuple[str, str, str, str]
DeviceKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True, eq=False)
class _Hub:
    """One connection and the devices behind it."""

    connection: MqttConnection
    keepalive: MqttKeepalive | None
    retained: RetainedMessages
    task: asyncio.Task[None] | None = None
    greeted: int = 0
    gone: bool = False
    devices: dict[DeviceKey, DeviceCache] = field(default_factory=dict)
    routes: dict[str, list[DeviceCache]] = field(default_factory=dict)
    crowded: bool = False

    def add(self, key: DeviceKey, device: DeviceCache) -> None:
        self.devices[key] = device
        self.retained.claim(device.topics)
        for topic in device.topics:
            self.routes.setdefault(topic, []).append(device)
            payload = self.retained.payload(topic)
            if payload is not None:
                device.ingest(topic, payload, retained=True, now_ms=0)

    def remove(self, key: DeviceKey) -> None:
        device = self.devices.pop(key)
        for topic in device.topics:
            self.routes[topic].remove(device)
            if not self.routes[topic]:
                del self.routes[topic]
                self.retained.release([topic])


class MqttPointLinks:
    """The `PointLinks` of every product with values on topics. `fleet_broker` None = we have no broker."""

    def __init__(self, clock: Clock, fleet_broker: MqttSettings | None) -> None:
        self.stats = PointMessageStats()
        self._clock = clock
        self._fleet_broker = fleet_broker
        self._hubs: dict[HubKey, _Hub] = {}
        self._idle: dict[tuple[HubKey, DeviceKey], DeviceCache] = {}
        self._due: list[tuple[int, int, _Hub, DeviceCache]] = []
        self._number = 0
        self._group: asyncio.TaskGroup | None = None
        self._running = asyncio.Event()
        self._wake = asyncio.Event()

    def link(self, target: PointTarget) -> "MqttPointLink":
        """A link to one device. Raises InvalidInput when its connection does not fit the profile."""
        document = target.document
        if document.mqtt is None:
            raise InvalidInput([f"{target.device}: {document.profile} has no values on topics"])
        settings = broker_of(target, document.mqtt, self._fleet_broker)
        levels = levels_of(document, target.device, dict(target.connection.parameters))
        return MqttPointLink(self, target, document.mqtt, settings, levels, clock=self._clock)

    @property
    def connections(self) -> int:
        """Number of broker connections kept."""
        return len(self._hubs)

    async def run(self) -> None:
        """Keep the connections and publish keepalives, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._running.set()
                await self._keep()
        finally:
            self._group = None
            self._running.clear()
            self._drop_all()

    async def close(self) -> None:
        self._drop_all()

    def _drop_all(self) -> None:
        for hub in self._hubs.values():
            self._drop(hub)
        self._hubs.clear()
        self._idle.clear()
        self._due.clear()

    @staticmethod
    def _drop(hub: _Hub) -> None:
        hub.gone = True
        if hub.task is not None:
            hub.task.cancel()

    # -- connections and devices -----------------------------------------------------------------------------

    async def join(
        self, hub_key: HubKey, device_key: DeviceKey, document: ProfileDocument, settings: MqttSettings
    ) -> tuple[_Hub, DeviceCache]:
        """Join a shared connection. Raises LinkDown while `run` does not run."""
        with suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S_MAX):
                await self._running.wait()
        if self._group is None:
            raise LinkDown("MQTT connections are not running")
        hub = self._hubs.get(hub_key)
        if hub is None:
            hub = self._hubs[hub_key] = self._connect(self._group, document, settings)
        device = hub.devices.get(device_key)
        if device is None:
            trusted = document.mqtt is not None and document.mqtt.broker == "device"
            device = DeviceCache(points_of(document), dict(device_key[1]), trust_retained=trusted)
            hub.add(device_key, device)
            if hub.greeted == hub.connection.generation and hub.connection.connected:
                self._schedule(hub, device, self._clock.mono_ms())
        device.users += 1
        self._idle.pop((hub_key, device_key), None)
        self.observe()
        return hub, device

    def observe(self) -> None:
        """Wake the keepalive task: a connection or a device may be new."""
        self._wake.set()

    def leave(self, hub_key: HubKey, device_key: DeviceKey, device: DeviceCache) -> None:
        """Leave a shared connection. The device stays for a moment: a session opens a variant right after the base."""
        device.users -= 1
        device.left_ms = self._clock.mono_ms()
        if device.users == 0:
            self._idle[hub_key, device_key] = device

    def _connect(self, group: asyncio.TaskGroup, document: ProfileDocument, settings: MqttSettings) -> _Hub:
        filters = dict.fromkeys(filter_of(point.topic or "") for point in points_of(document))
        section = document.mqtt
        own = section is not None and section.broker == "device"

        def on_messages(generation: int, packets: list[mqtt5.PublishPacket], packet_ids: list[int]) -> None:
            hub.retained.begin(generation)
            self._ingest(hub, packets)
            hub.connection.acknowledge(generation, packet_ids)

        connection = MqttConnection(
            settings,
            clock=self._clock,
            subscriptions=[mqtt5.TopicFilter(each, max_qos=mqtt5.QoS.AT_MOST_ONCE) for each in filters],
            on_messages=on_messages,
        )
        hub = _Hub(
            connection=connection,
            keepalive=section.keepalive if section else None,
            retained=RetainedMessages(filters, HOME_BOUNDS if own else FLEET_BOUNDS),
        )
        hub.task = group.create_task(connection.run(), name=f"mqtt-points-{settings.host}")
        return hub

    def _ingest(self, hub: _Hub, packets: Sequence[mqtt5.PublishPacket]) -> None:
        now_ms, stats, retained = self._clock.mono_ms(), self.stats, hub.retained
        dropped = retained.dropped
        for packet in packets:
            stats.messages += 1
            stats.retained += packet.retain
            payload = bytes(packet.payload or b"")
            # The broker sends it once per connection: a device that joins later needs it too.
            retained.ingest(packet.topic, payload, retained=packet.retain)
            devices = hub.routes.get(packet.topic)
            if devices is None:
                stats.unknown_topics += 1
                continue
            for device in devices:
                if not device.ingest(packet.topic, payload, retained=packet.retain, now_ms=now_ms):
                    stats.malformed += 1
                    # the device would not publish a value that changes rarely again by itself
                    device.greeted = False
        stats.retained_dropped += retained.dropped - dropped
        self._crowded(hub)

    def _crowded(self, hub: _Hub) -> None:
        """Log the devices of a broker that retains more than is kept, once until it no longer does."""
        crowded = hub.retained.dropped > 0
        if crowded and not hub.crowded:
            devices = sorted(device for device, _ in hub.devices)
            log.warning(
                "a broker retains more than is kept",
                extra={"device": devices[0] if devices else "", "count": len(devices), "kept": len(hub.retained)},
            )
        hub.crowded = crowded

    # -- the keepalive task ----------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            self._greet_new()
            self._reap()
            await self._publish_due()
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()

    def _greet_new(self) -> None:
        """Ask the devices of new connections for everything again."""
        now_ms = self._clock.mono_ms()
        for hub in self._hubs.values():
            connection = hub.connection
            if not connection.connected or connection.generation == hub.greeted:
                continue
            again = hub.greeted != 0
            hub.greeted = connection.generation
            for device in hub.devices.values():
                if again and hub.keepalive is not None:
                    device.forget()
                device.greeted = False
                self._schedule(hub, device, now_ms)

    def _schedule(self, hub: _Hub, device: DeviceCache, due_ms: int) -> None:
        if hub.keepalive is None:
            return
        device.due_ms = due_ms
        self._number += 1
        heapq.heappush(self._due, (due_ms, self._number, hub, device))

    def _reap(self) -> None:
        """Remove devices that no link uses any more, and connections without devices."""
        now_ms = self._clock.mono_ms()
        for (hub_key, device_key), device in list(self._idle.items()):
            if now_ms - device.left_ms < LINGER_MS:
                continue
            del self._idle[hub_key, device_key]
            hub = self._hubs.get(hub_key)
            if hub is None or hub.devices.get(device_key) is not device:
                continue
            device.due_ms = None
            hub.remove(device_key)
            if not hub.devices:
                self._drop(self._hubs.pop(hub_key))

    async def _publish_due(self) -> None:
        now_ms = self._clock.mono_ms()
        due: dict[_Hub, list[DeviceCache]] = {}
        while self._due and self._due[0][0] <= now_ms:
            due_ms, _, hub, device = heapq.heappop(self._due)
            if device.due_ms == due_ms and not hub.gone:
                due.setdefault(hub, []).append(device)
        if due:
            # Side by side: a broker that accepts nothing must not keep the others waiting.
            async with asyncio.TaskGroup() as group:
                for hub, devices in due.items():
                    group.create_task(self._publish_keepalives(hub, devices), name="mqtt-keepalives")

    async def _publish_keepalives(self, hub: _Hub, devices: Sequence[DeviceCache]) -> None:
        keepalive = hub.keepalive
        if keepalive is None:
            return
        now_ms = self._clock.mono_ms()
        in_full = [device.due_in_full(now_ms) for device in devices]
        messages = [
            OutMessage(
                topic_of(keepalive.topic, device.levels),
                (keepalive.first if full else keepalive.payload).encode(),
                qos=0,
            )
            for device, full in zip(devices, in_full, strict=True)
        ]
        outcomes = await hub.connection.publish(messages, deadline_mono_ms=now_ms + round(1000 * KEEPALIVE_S_MAX))
        for device, full, outcome in zip(devices, in_full, outcomes, strict=True):
            if outcome is PublishOutcome.UNKNOWN:
                self.stats.keepalives += 1
                device.greeted = True
                if full:
                    device.asked_in_full(now_ms)
                self._schedule(hub, device, now_ms + round(1000 * keepalive.every_s))
            else:
                self.stats.keepalives_missed += 1
                self._schedule(hub, device, now_ms + round(1000 * KEEPALIVE_S_MAX))


class MqttPointLink:
    """One device; see `ports.PointLink`."""

    def __init__(
        self,
        links: MqttPointLinks,
        target: PointTarget,
        section: MqttSection,
        settings: MqttSettings,
        levels: dict[str, str],
        *,
        clock: Clock,
    ) -> None:
        self._links = links
        self._stats = links.stats
        self._clock = clock
        self._target = target
        self._section = section
        self._settings = settings
        self._levels = levels
        digest = hashlib.sha256(target.secret.encode()).hexdigest()
        self._hub_key = (settings.url, settings.username or "", digest, target.document.profile)
        self._device_key = (str(target.device), tuple(sorted(levels.items())))
        self._hub: _Hub | None = None
        self._device: DeviceCache | None = None
        watchdog = target.document.watchdog
        self._expiry_s = max(1, int(watchdog.lease_s / 2)) if watchdog is not None else EXPIRY_S

    @property
    def heard_mono_ms(self) -> int | None:
        """Monotonic time of the device's newest message; None = never."""
        return self._device.heard_ms if self._device is not None else None

    @property
    def notice(self) -> str | None:
        """Said while the broker retains more than is kept: a value that is published rarely may be missing."""
        hub = self._hub
        if hub is None or not hub.crowded:
            return None
        return f"the broker retains more than the gateway keeps: {hub.retained.dropped} messages dropped"

    @property
    def connected(self) -> bool:
        """Whether the broker is connected."""
        return self._hub is not None and not self._hub.gone and self._hub.connection.connected

    async def open(self) -> None:
        if self._hub is None:
            self._hub, self._device = await self._links.join(
                self._hub_key, self._device_key, self._target.document, self._settings
            )
        connection = self._hub.connection
        try:
            async with asyncio.timeout(OPEN_S_MAX):
                await connection.wait_connected()
        except TimeoutError as error:
            if connection.stats.lost["refused"]:
                raise PeerRefused(f"{self._settings.url}: the broker refuses us") from error
            raise LinkDown(f"{self._settings.url}: not connected") from error
        self._links.observe()

    async def close(self) -> None:
        if self._device is not None:
            self._links.leave(self._hub_key, self._device_key, self._device)
        self._hub = self._device = None

    async def read(self, points: Sequence[str]) -> dict[str, Read]:
        """The device's newest values. Raises LinkDown if it was not heard within the profile's `quiet_s`."""
        _, device = self._up()
        wanted = {name: self._target.points[name] for name in points}
        if not device.waited and not device.complete(list(wanted.values())):
            await self._first_values(device, list(wanted.values()))
            self._up()
        heard_ms = device.heard_ms
        if heard_ms is None or self._clock.mono_ms() - heard_ms > 1000 * self._section.quiet_s:
            self._stats.silent += 1
            raise LinkDown(f"not heard for more than {self._section.quiet_s:g} s")
        out: dict[str, Read] = {}
        for name, point in wanted.items():
            raw = Marker.MISSING if self._quiet(device, point) else device.raw(point)
            said = raw.last if isinstance(raw, Unreadable) else raw
            self._stats.no_scalar += said is Marker.GARBLED
            if said is Marker.EMPTY and point.empty == "gone":
                raise LinkDown(f"{name}: the device reports that it has gone")
            out[name] = raw
        return out

    def _quiet(self, device: DeviceCache, point: Point) -> bool:
        """Whether a point has no value of now: it is on no topic, or on one that has fallen silent. A device with a
        keepalive says what has not changed only when it is asked for everything."""
        if point.topic is None:
            return True
        since_ms = self._clock.mono_ms() - round(1000 * self._section.quiet_s)
        return self._section.keepalive is None and device.quiet(point, since_ms)

    @staticmethod
    async def _first_values(device: DeviceCache, points: Sequence[Point]) -> None:
        """Wait until the device has published `points`; a wait in vain is not repeated."""
        try:
            async with asyncio.timeout(FIRST_VALUES_S_MAX):
                while not device.complete(points):
                    await device.changed()
        except TimeoutError:
            device.waited = True

    async def write(self, request: Request) -> None:
        """Publish the request; several members become one JSON object."""
        hub, _ = self._up()
        writes = [(self._write_to(write.point), write.raw) for write in request.writes]
        if len({to.topic for to, _ in writes}) != 1:
            raise Unwritable("the members of one request go to one place")
        body = json_body(writes)
        expiry_s = self._expiry_s
        if request.expires_s is not None:
            expiry_s = max(1, min(expiry_s, int(request.expires_s)))
        message = OutMessage(
            topic_of(writes[0][0].topic or "", self._levels),
            body if body is not None else text_of(writes[0][1]).encode(),
            qos=max(to.qos for to, _ in writes),
            message_expiry_s=expiry_s,
        )
        deadline_ms = self._clock.mono_ms() + round(1000 * WRITE_S_MAX)
        (outcome,) = await hub.connection.publish([message], deadline_mono_ms=deadline_ms)
        self._stats.writes += 1
        self._judge(outcome, message)

    def _judge(self, outcome: PublishOutcome, message: OutMessage) -> None:
        if outcome is PublishOutcome.ACKED or (outcome is PublishOutcome.UNKNOWN and message.qos == 0):
            return
        if outcome is PublishOutcome.NO_SUBSCRIBER:
            # A product's own broker may handle writes itself, without a subscriber.
            if self._section.broker == "device":
                return
            self._stats.no_subscriber += 1
            raise LinkDown(f"{message.topic}: no subscriber")
        if outcome is PublishOutcome.REFUSED:
            raise PeerRefused(f"{message.topic}: the broker refused it")
        raise LinkDown(f"{message.topic}: {outcome.value}")

    def _up(self) -> tuple[_Hub, DeviceCache]:
        hub, device = self._hub, self._device
        if hub is None or device is None or not self.connected:
            raise LinkDown(f"{self._settings.url}: not connected")
        return hub, device

    def _write_to(self, name: str) -> WriteTo:
        to = self._target.points[name].write
        if to is None or to.topic is None:
            raise Unwritable(f"{name}: is not written over MQTT")
        return to
