"""Orders the requests on a Modbus connection and paces them; defines its counters."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.domain.errors import GatewayError
from gateway.links.modbus.pdu import WRITES, ExceptionReply, Words
from gateway.observability.metrics import Sample, counter, gauge
from gateway.profiles.language.transport import ModbusSection

IDLE_SHARE = 0.5
CODES = frozenset((*range(1, 12), 0x80))
OTHER_CODE = 0

REQUESTS = counter("gateway_modbus_requests", "Requests sent.")
POINTS = counter("gateway_modbus_points", "Points asked for.")
MISSING = counter("gateway_modbus_missing", "Points that a device does not have.")
TIMEOUTS = counter("gateway_modbus_timeouts", "Requests without an answer in time.")
EXCEPTIONS = counter(
    "gateway_modbus_exceptions",
    "Requests answered with an exception, by its code (0 = one that no standard names).",
    reason=tuple(str(code) for code in (OTHER_CODE, *sorted(CODES))),
)
BUSY = counter("gateway_modbus_busy", "Requests that a device asked to repeat later.")
CONNECTS = counter("gateway_modbus_connects", "Connections made.")
RECONNECTS = counter("gateway_modbus_reconnects", "Connections made again.")
CONNECT_FAILURES = counter("gateway_modbus_connect_failures", "Connections that could not be made.")
CONNECTIONS = gauge("gateway_modbus_connections", "Connections open now.")
LOST = counter("gateway_modbus_lost", "Connections lost.")
LATE_REPLIES = counter("gateway_modbus_late_replies", "Answers that came after their time, dropped.")
REPLY_ERRORS = counter("gateway_modbus_reply_errors", "Answers that are none to the request.")
KEEPALIVES = counter("gateway_modbus_keepalives", "Reads repeated so that a product does not close the connection.")
REFUSED_FULL = counter("gateway_modbus_refused_full", "Requests refused since too many waited.")


@dataclass(slots=True)
class ModbusStats:
    """Counts over all connections; `connections` are open now, `exceptions` by code (0 = one no standard names)."""

    requests: int = 0
    points: int = 0
    missing: int = 0
    timeouts: int = 0
    exceptions: dict[int, int] = field(default_factory=dict)
    busy: int = 0
    connects: int = 0
    reconnects: int = 0
    connect_failures: int = 0
    connections: int = 0
    lost: int = 0
    late_replies: int = 0
    reply_errors: int = 0
    keepalives: int = 0
    refused_full: int = 0

    def exception(self, code: int) -> None:
        known = code if code in CODES else OTHER_CODE
        self.exceptions[known] = self.exceptions.get(known, 0) + 1

    def samples(self) -> Iterator[Sample]:
        yield REQUESTS.sample(self.requests)
        yield POINTS.sample(self.points)
        yield MISSING.sample(self.missing)
        yield TIMEOUTS.sample(self.timeouts)
        yield from EXCEPTIONS.each(self.exceptions)
        yield BUSY.sample(self.busy)
        yield CONNECTS.sample(self.connects)
        yield RECONNECTS.sample(self.reconnects)
        yield CONNECT_FAILURES.sample(self.connect_failures)
        yield CONNECTIONS.sample(self.connections)
        yield LOST.sample(self.lost)
        yield LATE_REPLIES.sample(self.late_replies)
        yield REPLY_ERRORS.sample(self.reply_errors)
        yield KEEPALIVES.sample(self.keepalives)
        yield REFUSED_FULL.sample(self.refused_full)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """The timing a connection keeps; of several products behind one address the strictest applies."""

    rest_s: float
    spacing_ms: int
    timeouts_to_reconnect: int
    errors_to_reconnect: int
    idle_ms: float | None
    loose_writes: bool = False

    @classmethod
    def of(cls, section: ModbusSection) -> "Pacing":
        return cls(
            rest_s=section.rest_s,
            spacing_ms=round(1000 * section.spacing_s),
            timeouts_to_reconnect=section.timeouts_to_reconnect,
            errors_to_reconnect=section.reconnect_after_reply_errors,
            idle_ms=None if section.idle_s_max is None else 1000 * IDLE_SHARE * section.idle_s_max,
            loose_writes=section.write_answer == "malformed",
        )

    def stricter(self, other: "Pacing") -> "Pacing":
        idles = [idle for idle in (self.idle_ms, other.idle_ms) if idle is not None]
        return Pacing(
            rest_s=max(self.rest_s, other.rest_s),
            spacing_ms=max(self.spacing_ms, other.spacing_ms),
            timeouts_to_reconnect=min(self.timeouts_to_reconnect, other.timeouts_to_reconnect),
            errors_to_reconnect=min(self.errors_to_reconnect, other.errors_to_reconnect),
            idle_ms=min(idles, default=None),
            loose_writes=self.loose_writes and other.loose_writes,
        )


class Exchange:
    """One request and the answer awaited for it."""

    __slots__ = ("deadline_ms", "done", "pdu", "timeout_ms", "transaction", "unit")

    def __init__(self, unit: int, pdu: bytes, timeout_ms: int, done: "asyncio.Future[Words | ExceptionReply]") -> None:
        self.unit = unit
        self.pdu = pdu
        self.timeout_ms = timeout_ms
        self.done = done
        self.transaction = 0
        self.deadline_ms = 0

    def fail(self, error: GatewayError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Turns:
    """Waiting requests: writes before reads, and the units of either in turn."""

    __slots__ = ("_reads", "_writes", "waiting")

    def __init__(self) -> None:
        self._writes: dict[int, deque[Exchange]] = {}
        self._reads: dict[int, deque[Exchange]] = {}
        self.waiting = 0

    def add(self, exchange: Exchange) -> None:
        units = self._writes if exchange.pdu[0] in WRITES else self._reads
        units.setdefault(exchange.unit, deque()).append(exchange)
        self.waiting += 1

    def next(self) -> Exchange | None:
        """The next request that somebody still waits for."""
        for units in (self._writes, self._reads):
            while units:
                unit = next(iter(units))
                queue = units.pop(unit)
                exchange = queue.popleft()
                if queue:
                    units[unit] = queue
                self.waiting -= 1
                if not exchange.done.done():
                    return exchange
        return None
