"""One MQTT 5 connection on the running asyncio loop, with the acknowledgement of every publish visible.

Built on paho-mqtt, so that devices do not share the gateway's codec. A connection is used once: after it is lost, make
a new one. Plain TCP only; a thread connects, since a peer that is frozen may take as long as the time-out.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from paho.mqtt.client import (
    Client,
    ConnectFlags,
    DisconnectFlags,
    MQTTMessage,
    MQTTv5,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

TOPICS_PER_SUBSCRIBE = 100
MISC_S = 1.0
INFLIGHT_MAX = 100


class ConnectFailed(Exception):
    """The broker could not be reached or refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the broker is and who connects."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """From `mqtt://[user:password@]host[:port]`; ValueError for any other scheme."""
        parts = urlsplit(url)
        if parts.scheme != "mqtt" or not parts.hostname:
            raise ValueError(f"not an mqtt:// address: {url!r}")
        return cls(host=parts.hostname, port=parts.port or 1883, username=parts.username, password=parts.password)


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker says when the connection is lost: retained, QoS 1."""

    topic: str
    payload: bytes


class Uplink:
    """An MQTT connection; `on_message(topic, payload)` and `on_puback(mid, accepted)` run on the loop, in order."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        client_id: str,
        on_message: Callable[[str, bytes], None],
        on_puback: Callable[[int, bool], None],
        will: Will | None = None,
        keepalive_s: int = 20,
        session_expiry_s: int = 300,
    ) -> None:
        self._endpoint = endpoint
        self._on_message = on_message
        self._on_puback = on_puback
        self._keepalive_s = keepalive_s
        self._session_expiry_s = session_expiry_s
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5, reconnect_on_failure=False
        )
        if endpoint.username is not None:
            self._client.username_pw_set(endpoint.username, endpoint.password)
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)
        self._client.max_inflight_messages_set(INFLIGHT_MAX)
        self._hook()
        self._connack: asyncio.Future[ReasonCode] | None = None
        self._subscribed = asyncio.Event()
        self._subscribing: set[int] = set()
        self._misc: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self.lost = asyncio.Event()
        self.inflight_max = INFLIGHT_MAX

    async def connect(self, timeout_s: float) -> None:
        """Connect and wait for the broker's answer; ConnectFailed otherwise."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._connack = self._loop.create_future()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._session_expiry_s
        self._client.connect_timeout = timeout_s
        try:
            # a broker that is frozen lets a connect wait; the batteries' time goes on meanwhile
            await asyncio.to_thread(
                self._client.connect,
                self._endpoint.host,
                self._endpoint.port,
                keepalive=self._keepalive_s,
                clean_start=False,
                properties=properties,
            )
            async with asyncio.timeout(timeout_s):
                reason = await self._connack
        except (OSError, TimeoutError) as error:
            self._connack.cancel()
            self.abort()
            raise ConnectFailed(str(error) or "timed out") from error
        if reason.is_failure:
            self.abort()
            raise ConnectFailed(str(reason))
        self._tick()

    async def subscribe(self, topics: Sequence[str], timeout_s: float) -> None:
        """Subscribe at QoS 1 and wait for the broker's answers; ConnectFailed when they do not come."""
        self._subscribed.clear()
        for start in range(0, len(topics), TOPICS_PER_SUBSCRIBE):
            chunk = topics[start : start + TOPICS_PER_SUBSCRIBE]
            code, mid = self._client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in chunk])
            if code is not MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
                raise ConnectFailed("lost while subscribing")
            self._subscribing.add(mid)
        try:
            async with asyncio.timeout(timeout_s):
                await self._subscribed.wait()
        except TimeoutError as error:
            raise ConnectFailed("no answer to subscribe") from error

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int | None:
        """Send a message; its id for `on_puback`, or None when the connection is gone."""
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        return info.mid if info.rc is MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def abort(self) -> None:
        """Cut the connection without a word, so that the broker sends the last will."""
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._gone()
        else:
            self._gone()

    def close(self) -> None:
        """Say goodbye and leave."""
        self._client.disconnect()
        self._client.loop_misc()
        self.abort()

    def _hook(self) -> None:
        client = self._client
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_publish = self._published
        client.on_message = self._received
        client.on_subscribe = self._suback
        client.on_socket_open = self._open
        client.on_socket_close = self._close
        client.on_socket_register_write = self._want_write
        client.on_socket_unregister_write = self._no_write

    def _tick(self) -> None:
        if self.lost.is_set() or self._loop is None:
            return
        self._client.loop_misc()
        self._misc = self._loop.call_later(MISC_S, self._tick)

    def _gone(self) -> None:
        self.lost.set()
        if self._misc is not None:
            self._misc.cancel()
        if self._connack is not None and not self._connack.done():
            self._connack.set_exception(ConnectionResetError("closed by the broker"))

    def _connected(
        self, _client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.inflight_max = min(INFLIGHT_MAX, getattr(properties, "ReceiveMaximum", INFLIGHT_MAX))
        if self._connack is not None and not self._connack.done():
            self._connack.set_result(reason)

    def _disconnected(
        self, _client: Client, _data: object, _flags: DisconnectFlags, _reason: ReasonCode, _props: Properties | None
    ) -> None:
        self._gone()

    def _published(
        self, _client: Client, _data: object, mid: int, reason: ReasonCode, _props: Properties | None
    ) -> None:
        self._on_puback(mid, not reason.is_failure)

    def _received(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._on_message(message.topic, bytes(message.payload))

    def _suback(
        self, _client: Client, _data: object, mid: int, _reasons: list[ReasonCode], _props: Properties | None
    ) -> None:
        self._subscribing.discard(mid)
        if not self._subscribing:
            self._subscribed.set()

    def _on_loop(self, change: Callable[[asyncio.AbstractEventLoop], object], sock: "SocketLike") -> None:
        """Change what the loop watches; a thread that connects asks the loop to."""
        loop = self._loop
        if loop is None:
            return

        def changed() -> None:
            if sock.fileno() >= 0:
                change(loop)

        if threading.get_ident() == self._thread:
            changed()
        else:
            loop.call_soon_threadsafe(changed)

    def _open(self, client: Client, _data: object, sock: "SocketLike") -> None:
        self._on_loop(lambda loop: loop.add_reader(sock.fileno(), client.loop_read), sock)

    def _close(self, _client: Client, _data: object, sock: "SocketLike") -> None:
        if self._loop is not None and sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())

    def _want_write(self, client: Client, _data: object, sock: "SocketLike") -> None:
        self._on_loop(lambda loop: loop.add_writer(sock.fileno(), client.loop_write), sock)

    def _no_write(self, _client: Client, _data: object, sock: "SocketLike") -> None:
        self._on_loop(lambda loop: loop.remove_writer(sock.fileno()), sock)
