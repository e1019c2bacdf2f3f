"""Which sessions the gateway has at its brokers, in the state directory, so that a start knows what it may expect.

`mqtt_sessions.json`: for each connection the broker, the client id, when the session was last known to be there, and
for how long the broker keeps it. The file is replaced whole; one that cannot be read is as none.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway.clock import Clock
from gateway.files import replacing
from gateway.observability.parts import Importance, Part
from gateway.transports.mqtt.connection import MqttConnection
from gateway.transports.mqtt.session_watch import UNKNOWN_MS

log = logging.getLogger(__name__)

NAME = "mqtt_sessions.json"
LOOK_S = 5.0
WRITE_MS = 60_000


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    connection: str
    broker: str
    client_id: str
    seen_utc_ms: int
    kept_s: int


class BrokerSessions(Part):
    """The sessions of `connections`. Without the file, or when it cannot be written, a start only knows less."""

    service = "broker-sessions"
    importance = Importance.SPARE

    def __init__(self, state_dir: Path, connections: Sequence[MqttConnection], clock: Clock) -> None:
        self._path = state_dir / NAME
        self._connections = connections
        self._clock = clock
        self._written: list[_Known] = []
        self._failed = False

    def load(self) -> None:
        """Tell each connection what session to expect; say which were left behind under another client id or at
        another broker."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=list[_Known])
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the sessions at the brokers are not known", extra={"error": str(error)})
            return
        by_id = {(c.settings.url, c.settings.client_id): c for c in self._connections}
        now_ms = self._clock.now().utc_ms
        for known in found:
            connection = by_id.get((known.broker, known.client_id))
            if connection is not None:
                connection.watch.seen_utc_ms, connection.watch.kept_s = known.seen_utc_ms, known.kept_s
            elif now_ms - known.seen_utc_ms < known.kept_s * 1000:
                log.warning(
                    "a session was left behind: messages collect in it at the broker until it expires",
                    extra={"broker": known.broker, "client": known.client_id, "kept_s": known.kept_s},
                )

    async def run(self) -> None:
        """Keep the file up to date, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            known = self._now()
            if self._due(known):
                await asyncio.to_thread(self._write, known)

    async def close(self) -> None:
        """Note when the sessions were last used."""
        await asyncio.to_thread(self._write, self._now())

    def _now(self) -> list[_Known]:
        now, out = self._clock.now(), []
        for connection in self._connections:
            watch, of = connection.watch, connection.settings
            watch.present(now)
            if watch.seen_utc_ms != UNKNOWN_MS:
                out.append(_Known(connection=connection.name, broker=of.url, client_id=of.client_id,
                                  seen_utc_ms=watch.seen_utc_ms, kept_s=watch.kept_s))  # fmt: skip
        return out

    def _due(self, known: list[_Known]) -> bool:
        before = {(k.broker, k.client_id): k for k in self._written}
        for one in known:
            old = before.get((one.broker, one.client_id))
            if old is None or old.kept_s != one.kept_s or one.seen_utc_ms - old.seen_utc_ms >= WRITE_MS:
                return True
        return False

    def _write(self, known: list[_Known]) -> None:
        if not known:
            return
        try:
            with replacing(self._path) as file:
                file.write(msgspec.json.encode(known))
        except OSError as error:
            if not self._failed:
                log.warning("the sessions at the brokers cannot be noted", extra={"error": str(error)})
            self._failed = True
            return
        self._written, self._failed = known, False
