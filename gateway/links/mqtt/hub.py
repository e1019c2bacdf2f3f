"""One broker connection that devices share: who is behind it, and which topic is whose."""

import asyncio
from dataclasses import dataclass, field

from gateway.links.mqtt.cache import DeviceCache
from gateway.links.mqtt.retained import RetainedMessages
from gateway.profiles.language.transport import MqttKeepalive
from gateway.transports.mqtt.connection import MqttConnection

HubKey = tuple[str, str, str, str]
"""Address and account of a broker, a digest of the secret, and the profile."""

DeviceKey = tuple[str, tuple[tuple[str, str], ...]]
"""A device and the levels of its topics."""


@dataclass(slots=True, eq=False)
class Hub:
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
