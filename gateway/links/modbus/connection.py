"""Keeps one Modbus TCP connection, shared by the units behind it: turns, pacing, framing, time-outs.

Wire: transaction u16, protocol u16 = 0, length u16 (of what follows), unit u8, then the PDU; all big-endian.
One request is in flight per connection: many products answer the second of two requests with the first one's words.
A reply counts only for the transaction it carries, so that a late one never answers a later request.
Source: MODBUS Messaging on TCP/IP 1.0b.
"""

import asyncio
import random
import struct
from collections import deque

from gateway.clock import Clock
from gateway.domain.errors import LinkDown, PeerBusy, ProtocolViolation
from gateway.links.modbus.pdu import WRITES, ExceptionReply, Words, answer
from gateway.links.modbus.turns import Exchange, ModbusStats, Pacing, Turns

WAITING_MAX = 256
ABANDONED_MAX = 64
PDU_MAX = 253
FRAMES_MAX = 64
BROADCAST = 0
SWEEP_S = 0.05
IDLE_SWEEP_S = 0.5
CLOSE_S = 1.0
_HEADER = struct.Struct(">HHHB")


class TimeoutSweeper:
    """Checks time-outs and idle connections of all channels by one timer, which runs only while one may be due."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.in_flight: set[Channel] = set()
        self.idlers: set[Channel] = set()
        self._sweeping = False
        self._idle_sweeping = False

    def arm(self, channel: "Channel") -> None:
        self.in_flight.add(channel)
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def keep(self, channel: "Channel") -> None:
        self.idlers.add(channel)
        if not self._idle_sweeping:
            self._idle_sweeping = True
            asyncio.get_running_loop().call_later(IDLE_SWEEP_S, self._sweep_idle)

    def _sweep(self) -> None:
        now_ms = self.clock.mono_ms()
        for channel in [channel for channel in self.in_flight if channel.due(now_ms)]:
            channel.expire()
        self._sweeping = bool(self.in_flight)
        if self._sweeping:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep_idle(self) -> None:
        now_ms = self.clock.mono_ms()
        for channel in list(self.idlers):
            channel.keep_alive(now_ms)
        self._idle_sweeping = bool(self.idlers)
        if self._idle_sweeping:
            asyncio.get_running_loop().call_later(IDLE_SWEEP_S, self._sweep_idle)


class ModbusWire(asyncio.Protocol):
    """One TCP connection of a channel, from connect to loss: cuts the stream into frames."""

    __slots__ = ("_buffer", "_channel", "_discarding", "closed", "transport")

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        self._buffer = b""
        self._discarding = False
        self.transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        self._channel.on_lost(self, "the connection was lost" if exc is None else f"the connection was lost: {exc}")

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def send(self, exchange: Exchange) -> None:
        if self._discarding:
            # Bytes that came after the garbage belong to it.
            self._discarding, self._buffer = False, b""
        if self.transport is not None:
            head = _HEADER.pack(exchange.transaction, 0, len(exchange.pdu) + 1, exchange.unit)
            self.transport.write(head + exchange.pdu)

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        if self._buffer:
            data = self._buffer + data
        at = frames = 0
        while len(data) - at >= _HEADER.size:
            transaction, protocol, length, unit = _HEADER.unpack_from(data, at)
            # A peer that floods must not keep the loop from all others.
            if protocol != 0 or not 2 < length <= PDU_MAX + 1 or frames == FRAMES_MAX:
                self._discarding, self._buffer = True, b""
                self._channel.on_garbage(self)
                return
            end = at + length + 6
            if len(data) < end:
                break
            self._channel.on_reply(self, transaction, unit, data[at + 7 : end])
            at, frames = end, frames + 1
        self._buffer = data[at:]


class Channel:
    """The one connection to a host and port. `generation` counts connects: another device may answer after a reconnect,
    so the channel refuses users of an earlier generation until they have opened anew.
    """

    __slots__ = (
        "_abandoned", "_connecting", "_current", "_errors", "_kept", "_last", "_pacing", "_resting", "_stats",
        "_sweeper", "_timeouts", "_transaction", "_turns", "_used_ms", "_wire", "generation", "host", "port", "users",
    )  # fmt: skip

    def __init__(self, host: str, port: int, pacing: Pacing, *, sweeper: TimeoutSweeper, stats: ModbusStats) -> None:
        self.host = host
        self.port = port
        self.generation = 0
        self.users = 0
        self._pacing = pacing
        self._sweeper = sweeper
        self._stats = stats
        self._connecting = asyncio.Lock()
        self._wire: ModbusWire | None = None
        self._last: ModbusWire | None = None
        self._turns = Turns()
        self._current: Exchange | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._transaction = random.randrange(0xFFFF)
        self._abandoned: deque[int] = deque(maxlen=ABANDONED_MAX)
        self._timeouts = 0
        self._errors = 0
        self._used_ms = 0
        self._kept: tuple[int, bytes, int] | None = None

    @property
    def connected(self) -> bool:
        return self._wire is not None

    def join(self, pacing: Pacing) -> None:
        """One more product is behind this address."""
        self.users += 1
        self._pacing = self._pacing.stricter(pacing)

    async def connect(self, timeout_s: float) -> None:
        """Connect unless there is a connection; many may ask at once. Raises LinkDown."""
        async with self._connecting:
            if self._wire is not None:
                return
            if self._last is not None:
                # Products that serve one client need the old connection gone before they accept a new one.
                await asyncio.wait([self._last.closed], timeout=timeout_s)
            wire = ModbusWire(self)
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.get_running_loop().create_connection(lambda: wire, self.host, self.port)
                if self._pacing.rest_s:
                    await asyncio.sleep(self._pacing.rest_s)
            except (OSError, TimeoutError, UnicodeError) as error:
                self._stats.connect_failures += 1
                raise LinkDown(f"{self.host}:{self.port}: {error or 'no connection in time'}") from error
            except asyncio.CancelledError:
                wire.abort()
                raise
            if wire.closed.done():
                self._stats.connect_failures += 1
                raise LinkDown(f"{self.host}:{self.port}: the connection was closed at once")
            self._adopt(wire)

    def _adopt(self, wire: ModbusWire) -> None:
        self._stats.connects += 1
        self._stats.reconnects += self.generation > 0
        self._stats.connections += 1
        self.generation += 1
        self._wire = self._last = wire
        self._timeouts = self._errors = 0
        self._abandoned.clear()
        self._kept = None
        self._used_ms = self._sweeper.clock.mono_ms()
        if self._pacing.idle_ms is not None:
            self._sweeper.keep(self)

    async def leave(self) -> None:
        """Remove one user; the last one closes the connection."""
        self.users -= 1
        if self.users <= 0:
            await self.close()

    async def close(self) -> None:
        self._give_up("the connection was closed")
        if self._last is not None:
            await asyncio.wait([self._last.closed], timeout=CLOSE_S)

    def exchange(
        self, unit: int, pdu: bytes, *, timeout_ms: int, generation: int
    ) -> "asyncio.Future[Words | ExceptionReply]":
        """Send a request to `unit` when its turn comes. Raises LinkDown if the connection of `generation` is gone,
        PeerBusy if too many wait; the future fails with LinkDown or ProtocolViolation."""
        if self._wire is None or generation != self.generation:
            raise LinkDown(f"{self.host}:{self.port}: the connection was lost and has to be opened anew")
        if self._turns.waiting >= WAITING_MAX:
            self._stats.refused_full += 1
            raise PeerBusy(f"{self.host}:{self.port}: {WAITING_MAX} requests wait already")
        done: asyncio.Future[Words | ExceptionReply] = asyncio.get_running_loop().create_future()
        self._turns.add(Exchange(unit, pdu, timeout_ms, done))
        if self._current is None and self._resting is None:
            self._pump()
        return done

    def _pump(self, *, rested: bool = False) -> None:
        """Send the next request if it may be sent now, else when the pause is over."""
        spacing_ms = self._pacing.spacing_ms
        while self._wire is not None and self._current is None and self._resting is None and self._turns.waiting:
            if spacing_ms and not rested:
                # Milliseconds are cut off on both sides, hence one more.
                left_ms = self._used_ms + spacing_ms + 1 - self._sweeper.clock.mono_ms()
                if left_ms > 0:
                    self._resting = asyncio.get_running_loop().call_later(left_ms / 1000, self._rested)
                    return
            rested = False
            exchange = self._turns.next()
            if exchange is not None:
                self._send(self._wire, exchange)

    def _rested(self) -> None:
        self._resting = None
        self._pump(rested=True)

    def _send(self, wire: ModbusWire, exchange: Exchange) -> None:
        self._transaction = self._transaction % 0xFFFF + 1
        exchange.transaction = self._transaction
        self._stats.requests += 1
        wire.send(exchange)
        if exchange.unit == BROADCAST and exchange.pdu[0] in WRITES:
            self._abandoned.append(exchange.transaction)
            self._used()
            exchange.done.set_result(())
            return
        exchange.deadline_ms = self._sweeper.clock.mono_ms() + exchange.timeout_ms
        self._current = exchange
        self._sweeper.arm(self)

    def _used(self) -> None:
        if self._pacing.spacing_ms or self._pacing.idle_ms is not None:
            self._used_ms = self._sweeper.clock.mono_ms()

    def _landed(self) -> Exchange | None:
        """End the exchange in flight and return it."""
        exchange, self._current = self._current, None
        self._sweeper.in_flight.discard(self)
        self._used()
        return exchange

    def on_reply(self, wire: ModbusWire, transaction: int, unit: int, pdu: bytes) -> None:
        """Handle a whole frame."""
        if wire is not self._wire:
            return
        exchange = self._current
        if exchange is None or exchange.transaction != transaction:
            if transaction in self._abandoned:
                self._stats.late_replies += 1
            else:
                self._erred()
            return
        self._landed()
        try:
            if unit != exchange.unit:
                raise ProtocolViolation(f"unit {exchange.unit} was asked, unit {unit} answered")
            words = answer(exchange.pdu, pdu, loose_writes=self._pacing.loose_writes)
        except ProtocolViolation as error:
            self._abandoned.append(transaction)
            exchange.fail(error)
            self._erred()
        else:
            self._timeouts = self._errors = 0
            if self._pacing.idle_ms is not None and words:
                self._kept = (exchange.unit, exchange.pdu, exchange.timeout_ms)
            if not exchange.done.done():
                exchange.done.set_result(words)
        if self._turns.waiting:
            self._pump()

    def on_garbage(self, wire: ModbusWire) -> None:
        """Handle bytes that are no frame. The wire discards everything that arrives before the next request."""
        if wire is not self._wire:
            return
        exchange = self._landed()
        if exchange is not None:
            self._abandoned.append(exchange.transaction)
            exchange.fail(ProtocolViolation(f"{self.host}:{self.port}: the reply is no Modbus frame"))
        self._erred()
        self._pump()

    def on_lost(self, wire: ModbusWire, reason: str) -> None:
        if wire is self._wire:
            self._stats.lost += 1
            self._give_up(reason)

    def _erred(self) -> None:
        self._stats.reply_errors += 1
        self._errors += 1
        if self._errors >= self._pacing.errors_to_reconnect:
            self._give_up(f"the connection was given up after {self._errors} wrong replies")

    def due(self, now_ms: int) -> bool:
        return self._current is not None and now_ms >= self._current.deadline_ms

    def expire(self) -> None:
        """Fail the request in flight: it was not answered in time."""
        exchange = self._landed()
        if exchange is None:
            return
        self._stats.timeouts += 1
        self._timeouts += 1
        self._abandoned.append(exchange.transaction)
        waited_s = exchange.timeout_ms / 1000
        exchange.fail(LinkDown(f"{self.host}:{self.port} unit {exchange.unit}: no answer in {waited_s:g} s"))
        if self._timeouts >= self._pacing.timeouts_to_reconnect:
            self._give_up(f"the connection was given up after {self._timeouts} requests without an answer")
        self._pump()

    def keep_alive(self, now_ms: int) -> None:
        """Repeat the last good read if the connection has been idle for long."""
        idle_ms = self._pacing.idle_ms
        busy = self._current is not None or self._turns.waiting
        if idle_ms is None or busy or self._kept is None or now_ms - self._used_ms < idle_ms:
            return
        unit, pdu, timeout_ms = self._kept
        self._stats.keepalives += 1
        kept = self.exchange(unit, pdu, timeout_ms=timeout_ms, generation=self.generation)
        # Nobody waits for it: the counters show its outcome.
        kept.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _give_up(self, reason: str) -> None:
        """Drop the connection and fail every waiting exchange."""
        wire, self._wire = self._wire, None
        if wire is None:
            return
        wire.abort()
        self._stats.connections -= 1
        self._sweeper.idlers.discard(self)
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        # Others may wait while nothing is in flight: the last request has just been answered badly or not at all.
        current = self._landed()
        if current is not None:
            current.fail(LinkDown(f"{self.host}:{self.port}: {reason}"))
        while (waiting := self._turns.next()) is not None:
            waiting.fail(LinkDown(f"{self.host}:{self.port}: {reason}"))
