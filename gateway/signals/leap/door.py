"""Lets the aggregator's webhooks in: a shared header, perhaps its addresses, and a body that is on disk before it is
answered. Nothing of a body is looked at here."""

import asyncio
import hmac
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from enum import StrEnum

from gateway.clock import Clock
from gateway.observability.metrics import Sample, counter, words
from gateway.signals.leap.inbox import BODY_BYTES_MAX, BodyInbox
from gateway.signals.leap.settings import LeapSignalSettings

log = logging.getLogger(__name__)

RECEIVING_MAX = 8
RECEIVE_S = 60.0
WRITE_BYTES = 256 << 10
"""A body is written in pieces of this size."""


class LeapAdmission(StrEnum):
    """What became of a webhook at the door."""

    KEPT = "kept"
    STRANGER = "stranger"
    WRONG_ADDRESS = "wrong_address"
    TOO_LARGE = "too_large"
    BROKEN_OFF = "broken_off"
    BUSY = "busy"
    DISK = "disk"


RECEIVED = counter("gateway_leap_webhooks", "Dispatch webhooks of the aggregator.", outcome=words(LeapAdmission))


class LeapDoor:
    """The door of both webhooks. `came`: called when a body waits to be read. `counts`: by outcome."""

    def __init__(
        self, settings: LeapSignalSettings, inbox: BodyInbox, *, clock: Clock, came: Callable[[], None]
    ) -> None:
        self.header = settings.header
        self.counts = dict.fromkeys(LeapAdmission, 0)
        self._secret = settings.secret.get_secret_value().encode()
        self._networks = settings.addresses
        self._inbox = inbox
        self._clock = clock
        self._came = came
        self._receiving = 0

    def refusal(self, shown: Sequence[str], address: str) -> LeapAdmission | None:
        """Why a request is not let in, before its body is read; None = it is. `shown`: the values of the header."""
        value = shown[0].encode("utf-8", "surrogateescape") if len(shown) == 1 else b""
        if not hmac.compare_digest(value, self._secret):
            return self._counted(LeapAdmission.STRANGER)
        if self._networks and not self._from(address):
            return self._counted(LeapAdmission.WRONG_ADDRESS)
        if self._receiving >= RECEIVING_MAX or self._inbox.full:
            return self._counted(LeapAdmission.BUSY)
        return None

    def _from(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None) or found
        return any(mapped in network for network in self._networks)

    async def receive(self, level: str, pieces: AsyncIterator[bytes], announced: int | None) -> LeapAdmission:
        """Stream a body to disk, as it comes. `announced`: how long it says it is."""
        if announced is not None and announced > BODY_BYTES_MAX:
            return self._counted(LeapAdmission.TOO_LARGE)
        self._receiving += 1
        try:
            return self._counted(await self._stored(level, pieces, announced))
        except OSError as error:
            log.error("a dispatch webhook could not be stored", extra={"error": str(error)})
            return self._counted(LeapAdmission.DISK)
        finally:
            self._receiving -= 1

    async def _stored(self, level: str, pieces: AsyncIterator[bytes], announced: int | None) -> LeapAdmission:
        at_ms = self._inbox.stamp(self._clock.now().utc_ms)
        body = await asyncio.to_thread(self._inbox.begin, level, at_ms)
        keeping, size, waits = False, 0, bytearray()
        try:
            async with asyncio.timeout(RECEIVE_S):
                async for piece in pieces:
                    size += len(piece)
                    if size > BODY_BYTES_MAX:
                        return LeapAdmission.TOO_LARGE
                    waits += piece
                    if len(waits) >= WRITE_BYTES:
                        await asyncio.to_thread(body.write, bytes(waits))
                        waits.clear()
            if announced is not None and size != announced:
                return LeapAdmission.BROKEN_OFF
            await asyncio.to_thread(body.write, bytes(waits))
            keeping = True
            # not stopped half way
            await asyncio.shield(asyncio.to_thread(body.keep))
        except (TimeoutError, ConnectionError):
            return LeapAdmission.BROKEN_OFF
        finally:
            if not keeping:
                body.drop()
        self._inbox.came(size)
        self._came()
        return LeapAdmission.KEPT

    def _counted(self, entry: LeapAdmission) -> LeapAdmission:
        self.counts[entry] += 1
        return entry

    def samples(self) -> Iterable[Sample]:
        yield from RECEIVED.each(self.counts)
