"""One device with values on MQTT topics: reads what it has published last, publishes what is written to it."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Protocol

from gateway.clock import Clock
from gateway.domain.errors import LinkDown, PeerRefused
from gateway.links.json_values import json_body, text_of
from gateway.links.mqtt.cache import DeviceCache, PointMessageStats, topic_of
from gateway.links.mqtt.hub import DeviceKey, Hub, HubKey
from gateway.ports.links import NO_MODELS, PointTarget
from gateway.profiles.compiled.points import Marker, Read, Unreadable, Unwritable
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.language.points import Point, WriteTo
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.language.transport import MqttSection
from gateway.transports.mqtt.connection import OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings

OPEN_S_MAX = 5.0
FIRST_VALUES_S_MAX = 5.0
WRITE_S_MAX = 5.0
EXPIRY_S = 30


class SharedConnections(Protocol):
    """The connections that the devices of a broker share."""

    stats: PointMessageStats

    async def join(
        self,
        hub_key: HubKey,
        device_key: DeviceKey,
        document: ProfileDocument,
        settings: MqttSettings,
        *,
        wait_s: float,
    ) -> tuple[Hub, DeviceCache]:
        """Join a shared connection. Raises LinkDown if nothing keeps them within `wait_s`."""
        ...

    def leave(self, hub_key: HubKey, device_key: DeviceKey, device: DeviceCache) -> None:
        """Leave it."""
        ...

    def observe(self) -> None:
        """Look after what may be new."""
        ...


class MqttPointLink:
    """One device; see `ports.PointLink`."""

    models = NO_MODELS

    def __init__(
        self,
        links: SharedConnections,
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
        self._hub: Hub | None = None
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
                self._hub_key, self._device_key, self._target.document, self._settings, wait_s=OPEN_S_MAX
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

    def _up(self) -> tuple[Hub, DeviceCache]:
        hub, device = self._hub, self._device
        if hub is None or device is None or not self.connected:
            raise LinkDown(f"{self._settings.url}: not connected")
        return hub, device

    def _write_to(self, name: str) -> WriteTo:
        to = self._target.points[name].write
        if to is None or to.topic is None:
            raise Unwritable(f"{name}: is not written over MQTT")
        return to
