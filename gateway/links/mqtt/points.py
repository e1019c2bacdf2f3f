"""Links batteries with values on MQTT topics, on brokers of their own or on ours: the connections that they share.

The devices of one broker, account and profile share a connection. `run` keeps the connections, and the one task that
publishes the keepalives that make devices go on publishing.
"""

import asyncio
import heapq
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress

import mqtt5

from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, LinkDown
from gateway.links.mqtt.brokers import broker_of
from gateway.links.mqtt.cache import DeviceCache, PointMessageStats, filter_of, levels_of, points_of, topic_of
from gateway.links.mqtt.hub import DeviceKey, Hub, HubKey
from gateway.links.mqtt.point_link import MqttPointLink
from gateway.links.mqtt.retained import FLEET_BOUNDS, HOME_BOUNDS, RetainedMessages
from gateway.observability.metrics import Sample
from gateway.observability.parts import Part
from gateway.ports.links import PointTarget
from gateway.profiles.language.product import ProfileDocument
from gateway.transports.mqtt.connection import MqttConnection, OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings

__all__ = ["MqttPointLinks", "PointMessageStats"]

log = logging.getLogger(__name__)

KEEPALIVE_S_MAX = 1.0
TICK_S = 0.5
LINGER_MS = 5_000


class MqttPointLinks(Part):
    """The `PointLinks` of every product with values on topics. `fleet_broker` None = we have no broker."""

    service = "link-topics"
    component = "devices"

    def __init__(self, clock: Clock, fleet_broker: MqttSettings | None) -> None:
        self.stats = PointMessageStats()
        self._clock = clock
        self._fleet_broker = fleet_broker
        self._hubs: dict[HubKey, Hub] = {}
        self._idle: dict[tuple[HubKey, DeviceKey], DeviceCache] = {}
        self._due: list[tuple[int, int, Hub, DeviceCache]] = []
        self._number = 0
        self._group: asyncio.TaskGroup | None = None
        self._running = asyncio.Event()
        self._wake = asyncio.Event()

    def link(self, target: PointTarget) -> MqttPointLink:
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

    def samples(self) -> Iterable[Sample]:
        return self.stats.samples()

    def _drop_all(self) -> None:
        for hub in self._hubs.values():
            self._drop(hub)
        self._hubs.clear()
        self._idle.clear()
        self._due.clear()

    @staticmethod
    def _drop(hub: Hub) -> None:
        hub.gone = True
        if hub.task is not None:
            hub.task.cancel()

    # -- connections and devices -----------------------------------------------------------------------------

    async def join(
        self,
        hub_key: HubKey,
        device_key: DeviceKey,
        document: ProfileDocument,
        settings: MqttSettings,
        *,
        wait_s: float,
    ) -> tuple[Hub, DeviceCache]:
        """Join a shared connection. Raises LinkDown if `run` does not run within `wait_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
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

    def _connect(self, group: asyncio.TaskGroup, document: ProfileDocument, settings: MqttSettings) -> Hub:
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
            own_id=own,
        )
        hub = Hub(
            connection=connection,
            keepalive=section.keepalive if section else None,
            retained=RetainedMessages(filters, HOME_BOUNDS if own else FLEET_BOUNDS),
        )
        hub.task = group.create_task(connection.run(), name=f"mqtt-points-{settings.host}")
        return hub

    def _ingest(self, hub: Hub, packets: Sequence[mqtt5.PublishPacket]) -> None:
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

    def _crowded(self, hub: Hub) -> None:
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

    def _schedule(self, hub: Hub, device: DeviceCache, due_ms: int) -> None:
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
        due: dict[Hub, list[DeviceCache]] = {}
        while self._due and self._due[0][0] <= now_ms:
            due_ms, _, hub, device = heapq.heappop(self._due)
            if device.due_ms == due_ms and not hub.gone:
                due.setdefault(hub, []).append(device)
        if due:
            # Side by side: a broker that accepts nothing must not keep the others waiting.
            async with asyncio.TaskGroup() as group:
                for hub, devices in due.items():
                    group.create_task(self._publish_keepalives(hub, devices), name="mqtt-keepalives")

    async def _publish_keepalives(self, hub: Hub, devices: Sequence[DeviceCache]) -> None:
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
