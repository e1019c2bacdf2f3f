"""A session kept on a socket: connects, reconnects with full jitter, watches for half-open peers, bounds every read.

Nothing here retries a message: what was in flight on a lost connection is reported UNKNOWN and the caller decides.
"""

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import mqtt5

from gateway.clock import Clock
from gateway.domain.errors import GatewayError, LinkDown, PeerRefused
from gateway.transports.mqtt.session import PINGREQ, Batch, BrokerViolation, OutMessage, PublishOutcome, Session, State
from gateway.transports.mqtt.settings import MqttSettings

__all__ = ["Connection", "ConnectionStats", "OutMessage", "PublishOutcome"]

log = logging.getLogger(__name__)

CHUNK = 256
LINGER_S = 1.0
PUBACK_BYTES = 4
SMALL_RECEIVE_MAX = 1_000
REFUSED_RETRY_FACTOR = 8
OUTCOME_COUNT = dict.fromkeys(PublishOutcome, 0)
LOST_REASONS = ("closed", "refused", "violation", "oversized", "keepalive", "unreachable", "taken_over")

OnMessages = Callable[[int, list[mqtt5.PublishPacket], list[int]], None]
"""Generation, messages of one read, packet ids of those that want an acknowledgement (in order)."""
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


@dataclass(slots=True)
class ConnectionStats:
    """Counts over all connections; `lost` by reason, `published` by outcome."""

    connects: int = 0
    rx_bytes: int = 0
    rx_messages: int = 0
    tx_messages: int = 0
    acks_sent: int = 0
    acks_stale: int = 0
    broker_receive_max: int = 0
    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LOST_REASONS, 0))
    published: dict[PublishOutcome, int] = field(default_factory=lambda: dict(OUTCOME_COUNT))


class Connection:
    """One client id at one broker. `generation` is the number of the newest attempt to connect; `on_messages` gets it
    with every read's messages, and an acknowledgement must bring it back."""

    def __init__(
        self,
        settings: MqttSettings,
        *,
        clock: Clock,
        subscriptions: Sequence[mqtt5.TopicFilter],
        on_messages: OnMessages,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.stats = ConnectionStats()
        self.generation = 0
        self._clock = clock
        self._subscriptions = list(subscriptions)
        self._on_messages = on_messages
        self._rng = rng or random.Random()
        self._wire: _Wire | None = None
        self._up = asyncio.Event()
        self._holds = 0

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    async def wait_connected(self) -> None:
        await self._up.wait()

    async def run(self) -> None:
        """Keep the connection until cancelled; then say goodbye."""
        failures = 0
        while True:
            try:
                await self._serve()
            except GatewayError as error:
                was_up = self._up.is_set()
                self._down()
                failures = 0 if was_up else failures + 1
                slow = REFUSED_RETRY_FACTOR if isinstance(error, PeerRefused) else 1
                if failures <= 1:
                    log.warning("MQTT connection lost", extra={"client": self.settings.client_id, "why": str(error)})
                ceiling = min(
                    self.settings.reconnect_cap_s, self.settings.reconnect_base_s * slow * 2.0 ** min(failures, 16)
                )
                await asyncio.sleep(self._rng.uniform(0, ceiling))
            except asyncio.CancelledError:
                self._goodbye()
                raise

    async def _serve(self) -> None:
        """One connection from socket to loss; always ends by raising."""
        # Every attempt has its own number: one may fail after it has handed over messages.
        self.generation += 1
        wire = _Wire(self, self._clock)
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                await self._open(wire)
        except ssl.SSLCertVerificationError as error:
            self._count("refused")
            raise PeerRefused(f"{self.settings.url}: {error.verify_message}") from error
        except (OSError, TimeoutError) as error:
            self._count("unreachable")
            raise LinkDown(f"{self.settings.url}: {error or 'timed out'}") from error
        finally:
            if wire.session.state is not State.CONNECTED:
                wire.abort()
        self.stats.connects += 1
        self._agreed(wire.session)
        if self._holds:
            wire.hold(True)
        self._up.set()
        log.info(
            "MQTT connection up",
            extra={"client": self.settings.client_id, "resumed": wire.session.limits.session_present},
        )
        await wire.lost
        raise LinkDown("the connection ended")

    async def _open(self, wire: "_Wire") -> None:
        s = self.settings
        loop = asyncio.get_running_loop()
        context = tls_context(s) if s.tls else None
        await loop.create_connection(lambda: wire, s.host, s.port, ssl=context)
        await wire.opened
        session = wire.session
        if self._subscriptions:
            wire.send([session.subscribe(self._subscriptions)])
            await wire.subscribed
            refused = [code for code in (session.suback.reason_codes if session.suback else []) if int(code) >= 128]
            if refused:
                self._count("refused")
                raise PeerRefused(f"subscription refused: {refused[0].name.lower()}")

    def _agreed(self, session: Session) -> None:
        limit = session.limits.server_receive_max
        self.stats.broker_receive_max = limit
        if limit < SMALL_RECEIVE_MAX:
            log.warning(
                "the broker's receive maximum is small and will slow commands",
                extra={"client": self.settings.client_id, "receive_max": limit},
            )

    def _down(self) -> None:
        self._up.clear()
        if self._wire is not None:
            self._wire.abort()
            self._wire = None

    def _goodbye(self) -> None:
        wire, self._wire = self._wire, None
        self._up.clear()
        if wire is not None:
            wire.goodbye()

    def _count(self, reason: str) -> None:
        self.stats.lost[reason] += 1

    # -- the caller's side -----------------------------------------------------------------------------------

    def acknowledge(self, generation: int, packet_ids: Sequence[int]) -> int:
        """Acknowledge messages of connection `generation`; of an older one it is without effect.

        Returns how many PUBACKs left: fewer if earlier messages are still to be acknowledged, more if they now are.
        """
        wire = self._wire
        if not packet_ids:
            return 0
        if wire is None or generation != wire.generation or wire.session.state is not State.CONNECTED:
            self.stats.acks_stale += len(packet_ids)
            return 0
        acks = wire.session.acknowledge(packet_ids)
        wire.send([acks])
        self.stats.acks_sent += len(acks) // PUBACK_BYTES
        return len(acks) // PUBACK_BYTES

    def pause_reading(self) -> None:
        """Stop reading from the socket until `resume_reading`; the two nest."""
        self._holds += 1
        if self._wire is not None:
            self._wire.hold(True)

    def resume_reading(self) -> None:
        self._holds -= 1
        if self._wire is not None and not self._holds:
            self._wire.hold(False)

    async def publish(self, messages: Sequence[OutMessage], *, deadline_mono_ms: int) -> list[PublishOutcome]:
        """Publish pipelined within the window; returns one outcome per message, at the latest at the deadline.

        QoS 0 messages that were written stay UNKNOWN: nobody acknowledges them.
        """
        finished = asyncio.Event()
        batch = Batch(len(messages), finished.set)
        wire = self._wire
        if wire is not None and messages:
            try:
                async with asyncio.timeout(max(0, deadline_mono_ms - self._clock.mono_ms()) / 1000):
                    batch.open += 1
                    await self._pour(wire, messages, batch)
                    batch.open -= 1
                    if batch.open > 0:
                        await finished.wait()
            except TimeoutError:
                pass
        for outcome in batch.outcomes:
            self.stats.published[outcome] += 1
        return list(batch.outcomes)

    async def _pour(self, wire: "_Wire", messages: Sequence[OutMessage], batch: Batch) -> None:
        """Write chunk by chunk, giving the loop a turn in between and waiting where window or socket are full."""
        sent = 0
        while sent < len(messages) and wire.session.state is State.CONNECTED:
            room = min(wire.session.room, CHUNK, len(messages) - sent)
            if room <= 0 or wire.full:
                await wire.wait_room()
                continue
            wire.send(wire.session.publish(messages, sent, room, batch))
            sent += room
            self.stats.tx_messages += room
            await asyncio.sleep(0)


class _Wire(asyncio.BufferedProtocol):
    """The socket side of one connection."""

    def __init__(self, owner: Connection, clock: Clock) -> None:
        self._owner = owner
        self._clock = clock
        settings = owner.settings
        self.generation = owner.generation
        self.session = Session(settings)
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
        self._held = False
        self._resting = False
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
        self._watch()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._end : self._end + self._owner.settings.read_buffer_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        self._last_rx = self._clock.mono_ms()
        self._owner.stats.rx_bytes += nbytes
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
            self._owner.stats.rx_messages += len(messages)
            self._owner._on_messages(self.generation, messages, packet_ids)
        self._wake()
        self._rest(nbytes)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            closing = self.session.closing
            taken = closing is not None and closing.reason_code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
            self._owner._count("taken_over" if taken else "closed")
            why = f"the broker said {closing.reason_code.name.lower()}" if closing is not None else str(exc or "closed")
            self._end_with(PeerRefused(why) if taken else LinkDown(why))
        self._finish()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._wake()

    # -- reading ---------------------------------------------------------------------------------------------

    def _progress(self) -> None:
        session = self.session
        if session.connack is not None and not self.opened.done():
            code = session.connack.reason_code
            if code == mqtt5.ConnAckReasonCode.SUCCESS:
                # The first messages may come in this very read, before the opener runs again.
                self._owner._wire = self
                self.opened.set_result(None)
            else:
                self._owner._count("refused")
                kind = PeerRefused if int(code) in _REFUSALS else LinkDown
                self._end_with(kind(f"connection refused: {code.name.lower()}"))
        if session.suback is not None and not self.subscribed.done():
            self.subscribed.set_result(None)
        if session.closing is not None:
            self._close()

    def _rest(self, nbytes: int) -> None:
        """Give the loop its turn: one ready socket may otherwise be read many times in a row."""
        if not self._turn_bytes:
            self._loop.call_soon(self._new_turn)
        self._turn_bytes += nbytes
        if self._turn_bytes >= self._owner.settings.read_budget_bytes and not self._resting and not self._held:
            self._resting = True
            self._set_reading()

    def _new_turn(self) -> None:
        self._turn_bytes = 0
        if self._resting:
            self._resting = False
            self._set_reading()

    def hold(self, on: bool) -> None:
        self._held = on
        self._last_rx = self._clock.mono_ms()
        self._set_reading()

    def _set_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._held or self._resting:
            transport.pause_reading()
        else:
            transport.resume_reading()

    # -- writing ---------------------------------------------------------------------------------------------

    def send(self, parts: Sequence[bytes]) -> None:
        if self._transport is not None and any(parts):
            self._last_tx = self._clock.mono_ms()
            self._transport.write(b"".join(parts))

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
        if self.session.state is not State.CONNECTED or (not self.full and self.session.room > 0):
            waiters, self._waiters = self._waiters, deque()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # -- watching --------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Every quarter keepalive: ping when idle for half of one, give up when nothing came for 1.25 of one."""
        keepalive = self.session.limits.keepalive_s or self._owner.settings.keepalive_s
        now, span = self._clock.mono_ms(), keepalive * 1000
        if self._held:
            self._last_rx = now
        if now - self._last_rx >= 1.25 * span:
            self._owner._count("keepalive")
            self._end_with(LinkDown("nothing received for 1.25 keepalives"))
            self.abort()
            return
        if self.session.state is State.CONNECTED and now - min(self._last_rx, self._last_tx) >= span // 2:
            self.send([PINGREQ])
        self._timer = self._loop.call_later(keepalive / 4, self._watch)

    # -- ending ----------------------------------------------------------------------------------------------

    def _violated(self, error: BrokerViolation) -> None:
        self._owner._count("oversized" if error.code == mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE else "violation")
        self._end_with(error)
        self._part(error.code)

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
        self._part(mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION)

    def _part(self, reason: mqtt5.DisconnectReasonCode) -> None:
        """Tell the broker why and close."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self.send([self.session.disconnect(reason)])
            self._close()
        self._finish()

    def _close(self) -> None:
        """Close when all is written; a broker that does not read is not waited for."""
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
    """Mark a future's exception as looked at: not every loss has somebody waiting."""
    if not future.cancelled():
        future.exception()


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """Verified TLS 1.2 or later, with a client certificate where one is set."""
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert_file is not None:
            context.load_cert_chain(str(settings.cert_file), str(settings.key_file))
    except (OSError, ssl.SSLError) as error:
        raise PeerRefused(f"TLS files cannot be used: {error}") from error
    return context
