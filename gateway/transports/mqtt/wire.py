"""The socket side of one connection: bounds reads, detects half-open peers, pauses writes when the socket is full."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import mqtt5

from gateway.clock import Clock
from gateway.domain.errors import GatewayError, LinkDown, PeerRefused
from gateway.observability.metrics import Sample, counter, gauge, words
from gateway.transports.mqtt.session import PINGREQ, BrokerViolation, MqttSession, MqttState, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings

LINGER_S = 1.0
UNSENT_BYTES_MAX = 1 << 20
LOST_REASONS = ("closed", "refused", "violation", "oversized", "keepalive", "unreachable", "taken_over")

NAME = "the gateway's connections"
CONNECTED = gauge("gateway_mqtt_connected", "1 while connected.", connection=NAME)
RECEIVE_MAXIMUM = gauge("gateway_mqtt_receive_maximum", "The broker's.", connection=NAME)
CONNECTS = counter("gateway_mqtt_connects", "Connections made.", connection=NAME)
RECEIVED = counter("gateway_mqtt_received_bytes", "Bytes received.", connection=NAME)
RECEIVED_MESSAGES = counter("gateway_mqtt_received_messages", "Messages received.", connection=NAME)
SENT_MESSAGES = counter("gateway_mqtt_sent_messages", "Messages sent.", connection=NAME)
ACKNOWLEDGEMENTS = counter("gateway_mqtt_acknowledgements", "Messages acknowledged to the broker.", connection=NAME)
OVERRUNS = counter("gateway_mqtt_overruns", "Times the broker sent more than it may.", connection=NAME)
STALE_ACKS = counter(
    "gateway_mqtt_stale_acknowledgements", "Acknowledgements of an old connection, dropped.", connection=NAME
)
LOSSES = counter("gateway_mqtt_losses", "Connections lost or refused.", connection=NAME, reason=LOST_REASONS)
PUBLISHED = counter(
    "gateway_mqtt_published", "Messages published, by outcome.", connection=NAME, outcome=words(PublishOutcome)
)

_REFUSALS = frozenset(
    {
        int(mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD),
        int(mqtt5.ConnAckReasonCode.NOT_AUTHORIZED),
        int(mqtt5.ConnAckReasonCode.BANNED),
        int(mqtt5.ConnAckReasonCode.BAD_AUTHENTICATION_METHOD),
        int(mqtt5.ConnAckReasonCode.CLIENT_ID_NOT_VALID),
        int(mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION),
    }
)


class CutOff(LinkDown):
    """The broker's side ended the connection and did not say why."""


class TakenOver(PeerRefused):
    """Another client took the session over, the broker says."""


OnMessages = Callable[[int, list[mqtt5.PublishPacket], list[int]], None]
"""Generation, messages of one read, packet ids of those that need an acknowledgement (in order)."""


@dataclass(slots=True)
class ConnectionStats:
    """Counts over all connections; `lost` by reason, `published` by outcome; `overruns`: how often reading stopped
    because the broker had sent more than our receive maximum."""

    connects: int = 0
    rx_bytes: int = 0
    rx_messages: int = 0
    tx_messages: int = 0
    acks_sent: int = 0
    acks_stale: int = 0
    broker_receive_max: int = 0
    overruns: int = 0
    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LOST_REASONS, 0))
    published: dict[PublishOutcome, int] = field(default_factory=lambda: dict.fromkeys(PublishOutcome, 0))

    def samples(self, connection: str, *, connected: bool) -> Iterator[Sample]:
        yield CONNECTED.sample(1.0 if connected else 0.0, connection=connection)
        yield RECEIVE_MAXIMUM.sample(self.broker_receive_max, connection=connection)
        yield CONNECTS.sample(self.connects, connection=connection)
        yield RECEIVED.sample(self.rx_bytes, connection=connection)
        yield RECEIVED_MESSAGES.sample(self.rx_messages, connection=connection)
        yield SENT_MESSAGES.sample(self.tx_messages, connection=connection)
        yield ACKNOWLEDGEMENTS.sample(self.acks_sent, connection=connection)
        yield OVERRUNS.sample(self.overruns, connection=connection)
        yield STALE_ACKS.sample(self.acks_stale, connection=connection)
        yield from LOSSES.each(self.lost, connection=connection)
        yield from PUBLISHED.each(self.published, connection=connection)


class MqttWire(asyncio.BufferedProtocol):
    """One connection, from socket to loss. The futures `opened` and `subscribed` complete, or raise like `lost` the
    error that ended the connection.

    It calls `on_accepted` on the broker's CONNACK, before the first `on_messages`.
    """

    def __init__(
        self,
        settings: MqttSettings,
        stats: ConnectionStats,
        *,
        clock: Clock,
        generation: int,
        on_accepted: "Callable[[MqttWire], None]",
        on_messages: OnMessages,
    ) -> None:
        self.generation = generation
        self._settings = settings
        self._stats = stats
        self._clock = clock
        self._on_accepted = on_accepted
        self._on_messages = on_messages
        self.session = MqttSession(settings)
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.opened: asyncio.Future[None] = loop.create_future()
        self.subscribed: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        for future in (self.opened, self.subscribed, self.lost):
            future.add_done_callback(_seen)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(settings.max_packet_bytes + settings.read_buffer_bytes)
        self._view = memoryview(self._buffer)
        self._end = 0
        self._turn_bytes = 0
        self._paused = False
        self._resting = False
        self._overrun = False
        self._choked = False
        self.full = False
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._last_rx = self._last_tx = clock.mono_ms()
        self._timer: asyncio.TimerHandle | None = None

    # -- asyncio protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        self._transport = cast("asyncio.Transport", transport)
        self._last_rx = self._clock.mono_ms()
        self.send([self.session.connect()])
        self._check_keepalive()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._end : self._end + self._settings.read_buffer_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        self._last_rx = self._clock.mono_ms()
        self._stats.rx_bytes += nbytes
        try:
            used, messages, packet_ids = self.session.receive(self._view[: self._end])
        except BrokerViolation as error:
            self._violated(error)
            return
        rest = self._end - used
        if used and rest:
            self._buffer[:rest] = self._buffer[used : self._end]
        self._end = rest
        self._progress()
        if messages:
            self._stats.rx_messages += len(messages)
            self._on_messages(self.generation, messages, packet_ids)
            if self.session.overrun and not self._overrun:
                self._overrun = True
                self._stats.overruns += 1
                self._set_reading()
        self._wake()
        self._rest(nbytes)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            closing = self.session.closing
            taken_over = closing is not None and closing.reason_code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
            self._stats.lost["taken_over" if taken_over else "closed"] += 1
            if closing is None:
                self._end_with(CutOff(str(exc or "closed")))
            else:
                text = f"the broker said {closing.reason_code.name.lower()}"
                self._end_with(TakenOver(text) if taken_over else LinkDown(text))
        self._finish()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self._choked:
            self._choked = False
            self._last_rx = self._clock.mono_ms()
            self._set_reading()
        self._wake()

    # -- reading ---------------------------------------------------------------------------------------------

    def _progress(self) -> None:
        session = self.session
        if session.connack is not None and not self.opened.done():
            code = session.connack.reason_code
            if code == mqtt5.ConnAckReasonCode.SUCCESS:
                self._on_accepted(self)
                self.opened.set_result(None)
            else:
                self._stats.lost["refused"] += 1
                kind = PeerRefused if int(code) in _REFUSALS else LinkDown
                self._end_with(kind(f"connection refused: {code.name.lower()}"))
        if session.suback is not None and not self.subscribed.done():
            self.subscribed.set_result(None)
        if session.closing is not None:
            self._close()

    def _rest(self, nbytes: int) -> None:
        """Give the loop a turn: it may otherwise read one ready socket many times in a row."""
        if not self._turn_bytes:
            self._loop.call_soon(self._new_turn)
        self._turn_bytes += nbytes
        if self._turn_bytes >= self._settings.read_budget_bytes and not self._resting and not self._paused:
            self._resting = True
            self._set_reading()

    def _new_turn(self) -> None:
        self._turn_bytes = 0
        if self._resting:
            self._resting = False
            self._set_reading()

    def pause(self, on: bool) -> None:
        self._paused = on
        self._last_rx = self._clock.mono_ms()
        self._set_reading()

    def relieve(self) -> None:
        """Resume reading after an overrun, once enough is acknowledged."""
        if self._overrun and not self.session.overrun:
            self._overrun = False
            self._last_rx = self._clock.mono_ms()
            self._set_reading()

    def _set_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._paused or self._resting or self._overrun or self._choked:
            transport.pause_reading()
        else:
            transport.resume_reading()

    # -- writing ---------------------------------------------------------------------------------------------

    def send(self, packets: Sequence[bytes]) -> None:
        if self._transport is not None and any(packets):
            self._last_tx = self._clock.mono_ms()
            self._transport.write(b"".join(packets))
            # A broker that sends and does not read must not fill the memory with acknowledgements. One that goes on so
            # is given up like one that is silent.
            if not self._choked and self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
                self._choked = True
                self._set_reading()

    async def wait_room(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter.cancelled() and waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        if not self._waiters:
            return
        if self.session.state is not MqttState.CONNECTED or (not self.full and self.session.room > 0):
            waiters, self._waiters = self._waiters, deque()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # -- keepalive -------------------------------------------------------------------------------------------

    def _check_keepalive(self) -> None:
        """Every quarter keepalive: ping when idle for half of one, abort when nothing came for 1.25 of one."""
        keepalive = self.session.limits.keepalive_s or self._settings.keepalive_s
        now, span = self._clock.mono_ms(), keepalive * 1000
        if self._paused or self._overrun:
            self._last_rx = now
        if now - self._last_rx >= 1.25 * span:
            self._stats.lost["keepalive"] += 1
            self._end_with(LinkDown("nothing received for 1.25 keepalives"))
            self.abort()
            return
        if self.session.state is MqttState.CONNECTED and now - min(self._last_rx, self._last_tx) >= span // 2:
            self.send([PINGREQ])
        self._timer = self._loop.call_later(keepalive / 4, self._check_keepalive)

    # -- ending ----------------------------------------------------------------------------------------------

    def _violated(self, error: BrokerViolation) -> None:
        self._stats.lost["oversized" if error.code == mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE else "violation"] += 1
        self._end_with(error)
        self._disconnect(error.code)

    def _end_with(self, error: GatewayError) -> None:
        for future in (self.opened, self.subscribed, self.lost):
            if not future.done():
                future.set_exception(error)

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.session.lost()
        self._wake()

    def goodbye(self) -> None:
        self._end_with(LinkDown("closed here"))
        self._disconnect(mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION)

    def _disconnect(self, reason: mqtt5.DisconnectReasonCode) -> None:
        """Send DISCONNECT with the reason and close."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self.send([self.session.disconnect(reason)])
            self._close()
        self._finish()

    def _close(self) -> None:
        """Close when all is written; do not wait for a broker that does not read."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.close()
            self._loop.call_later(LINGER_S, transport.abort)

    def abort(self) -> None:
        self._end_with(LinkDown("given up"))
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.abort()
        self._finish()


def _seen(future: "asyncio.Future[None]") -> None:
    """Mark a future's exception as retrieved: perhaps nobody waits for this loss."""
    if not future.cancelled():
        future.exception()
