"""Keeps a session on a socket: connects, reconnects with full jitter, resubscribes, publishes in batches.

The connection never retries a message: it reports messages in flight on a lost connection as UNKNOWN; the caller
decides.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Iterator, Sequence

import mqtt5

from gateway.clock import Clock
from gateway.domain.errors import GatewayError, LinkDown, PeerRefused, ProtocolViolation, Retry, pause_ceiling_s
from gateway.observability.episodes import Episode
from gateway.observability.metrics import Sample
from gateway.observability.parts import Part
from gateway.transports.mqtt.session import Batch, MqttSession, MqttState, OutMessage, PublishOutcome
from gateway.transports.mqtt.session_watch import CUTS, Lapse, Loss, SessionWatch
from gateway.transports.mqtt.settings import MqttSettings
from gateway.transports.mqtt.wire import ConnectionStats, CutOff, MqttWire, OnMessages, TakenOver

__all__ = ["ConnectionStats", "MqttConnection", "OnMessages", "OutMessage", "PublishOutcome"]

log = logging.getLogger(__name__)

CHUNK = 256
PUBACK_BYTES = 4
SMALL_RECEIVE_MAX = 1_000
QUIET_MS = 300_000
REASON_MAX = 100
CAUSES = {
    Lapse.MISSING: "the broker restarted and did not have it on disk, another client used this client id with a clean "
    "start, or somebody removed it",
    Lapse.EXPIRED: "the gateway was away for longer than session_expiry_s, or than the broker keeps sessions",
}
_LOSSES = {CutOff: Loss.CUT, TakenOver: Loss.TAKEN_OVER}


class MqttConnection(Part):
    """One client id at one broker. `generation` numbers the attempts to connect; `on_messages` gets the newest with
    every read's messages, and the caller passes it to `acknowledge`. `since_mono_ms`: when the newest
    connection was accepted. `name`: what metrics and readiness call it. `own_id`: no other process can have this
    client id.
    """

    component = "mqtt"

    def __init__(
        self,
        settings: MqttSettings,
        *,
        clock: Clock,
        subscriptions: Sequence[mqtt5.TopicFilter],
        on_messages: OnMessages,
        rng: random.Random | None = None,
        name: str = "",
        own_id: bool = False,
    ) -> None:
        self.name = name
        self.settings = settings
        self.stats = ConnectionStats()
        self.generation = 0
        self.since_mono_ms = 0
        self._clock = clock
        self._subscriptions = list(subscriptions)
        self._on_messages = on_messages
        self._rng = rng or random.Random()
        self._wire: MqttWire | None = None
        self._up = asyncio.Event()
        self._pauses = 0
        self._losses = Episode(QUIET_MS)
        self._lost_ms = clock.mono_ms()
        self._worth_a_line = True
        self._small: int | None = None
        self._kept_s: int | None = None
        self._own_id = own_id
        # Without subscriptions no message waits in the session.
        self.watch = SessionWatch(settings.session_expiry_s if subscriptions else 0)

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    def samples(self) -> Iterator[Sample]:
        yield from self.stats.samples(self.name, connected=self.connected)
        yield from self.watch.samples(self.name, self._clock.now())

    def reasons(self) -> list[str]:
        return [] if self.connected else [f"MQTT {self.name}: not connected"]

    def warnings(self) -> list[str]:
        """Signs that the session was lost, will be, or that another client uses the id."""
        none = self.connected and self._subscriptions and not self.watch.kept_s
        unkept = [f"MQTT {self.name}: the broker keeps nothing that is sent while the gateway is away"] if none else []
        return unkept + self.watch.warnings(self.name, self.settings.client_id, self._clock.now())

    async def wait_connected(self) -> None:
        await self._up.wait()

    async def run(self) -> None:
        """Keep the connection until cancelled; then disconnect."""
        failures = 0
        while True:
            try:
                await self._serve()
            except GatewayError as error:
                if error.retry is Retry.NEVER:
                    self._down()
                    raise
                was_up = self._up.is_set()
                contested = self._judge(error)
                self._down()
                failures = 0 if was_up else failures + 1
                self._log_loss(error, was_up=was_up)
                ceiling_s = retry_ceiling_s(self.settings, failures, error.retry)
                if contested:
                    # Each attempt cuts the other client off.
                    ceiling_s = retry_ceiling_s(self.settings, self.watch.cuts - CUTS, Retry.AFTER_CHANGE)
                await asyncio.sleep(self._rng.uniform(0, ceiling_s))
            except asyncio.CancelledError:
                self._goodbye()
                raise

    def _judge(self, error: GatewayError) -> bool:
        """Whether, with this loss, another client seems to use the client id."""
        now = self._clock.now()
        if self._wire is None:
            self.watch.failed()
        else:
            loss = _LOSSES.get(type(error), Loss.OTHER)
            if self.watch.lost(Loss.OTHER if self._own_id else loss, now):
                log.warning(
                    "another client seems to use this client id: the broker closes one connection after another",
                    extra={"client": self.settings.client_id, "broker": self.settings.url, "count": self.watch.cuts},
                )
        return self.watch.contested(now)

    async def _serve(self) -> None:
        """Serve one connection from socket to loss; always ends by raising."""
        # Every attempt has its own number: one may fail after its messages have gone to `on_messages`.
        self.generation += 1
        wire = MqttWire(
            self.settings,
            self.stats,
            clock=self._clock,
            generation=self.generation,
            on_accepted=self._accepted,
            on_messages=self._on_messages,
        )
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                await self._open(wire)
        except ssl.SSLCertVerificationError as error:
            self.stats.lost["refused"] += 1
            raise PeerRefused(f"{self.settings.url}: {error.verify_message}") from error
        except (OSError, TimeoutError) as error:
            self.stats.lost["unreachable"] += 1
            raise LinkDown(f"{self.settings.url}: {error or 'timed out'}") from error
        finally:
            if wire.session.state is not MqttState.CONNECTED:
                wire.abort()
        self.stats.connects += 1
        self.stats.broker_receive_max = wire.session.limits.server_receive_max
        if self._pauses:
            wire.pause(True)
        self._up.set()
        if self._worth_a_line:
            self._worth_a_line = False
            self._log_up(wire.session)
        await wire.lost
        raise LinkDown("the connection ended")

    def _log_loss(self, error: GatewayError, *, was_up: bool) -> None:
        """Log a loss, or an attempt in vain, unless the same was logged and nothing has lasted since."""
        now_ms, client = self._clock.mono_ms(), self.settings.client_id
        if was_up:
            self._lost_ms = now_ms
        counts = self._losses.over(now_ms)
        if sum(counts.values()) > len(counts):
            log.info(
                "MQTT connection had been lost repeatedly", extra={"client": client, "count": sum(counts.values())}
            )
        if self._losses.add(str(error)[:REASON_MAX], 1, now_ms):
            self._worth_a_line = True
            log.warning("MQTT connection lost", extra={"client": client, "error": str(error)})

    def _log_up(self, session: MqttSession) -> None:
        client, limit = self.settings.client_id, session.limits.server_receive_max
        down_s = (self._clock.mono_ms() - self._lost_ms) / 1000
        log.info(
            "MQTT connection up",
            extra={"client": client, "resumed": session.limits.session_present, "down_s": round(down_s, 1)},
        )
        if self.watch.kept_s < self.watch.expiry_s and self.watch.kept_s != self._kept_s:
            self._kept_s = self.watch.kept_s
            log.warning(
                "the broker keeps the session for a shorter time than asked for",
                extra={"client": client, "kept_s": self.watch.kept_s, "asked_s": self.watch.expiry_s},
            )
        if limit < SMALL_RECEIVE_MAX and limit != self._small:
            self._small = limit
            log.warning(
                "the broker's receive maximum is small and will slow commands",
                extra={"client": client, "receive_max": limit},
            )

    async def _open(self, wire: MqttWire) -> None:
        s = self.settings
        loop = asyncio.get_running_loop()
        context = tls_context(s) if s.tls else None
        await loop.create_connection(lambda: wire, s.host, s.port, ssl=context)
        await wire.opened
        session = wire.session
        if self._subscriptions:
            wire.send([session.subscribe(self._subscriptions)])
            await wire.subscribed
            self._check_granted(session.suback.reason_codes if session.suback else [])

    def _check_granted(self, codes: Sequence[mqtt5.SubAckReasonCode]) -> None:
        if len(codes) != len(self._subscriptions):
            self.stats.lost["violation"] += 1
            raise ProtocolViolation("SUBACK answers another number of filters than SUBSCRIBE named")
        for wanted, code in zip(self._subscriptions, codes, strict=True):
            # A lower QoS than requested would lose messages silently.
            if int(code) >= 128 or int(code) < min(int(wanted.max_qos), int(mqtt5.QoS.AT_LEAST_ONCE)):
                self.stats.lost["refused"] += 1
                raise PeerRefused(f"subscription refused: {wanted.pattern}: {code.name.lower()}")

    def _accepted(self, wire: MqttWire) -> None:
        # The first messages may come in the same read as CONNACK, before the opener runs again.
        self._wire = wire
        now, limits = self._clock.now(), wire.session.limits
        self.since_mono_ms = now.mono_ms
        lapse = self.watch.accepted(now, resumed=limits.session_present, granted_s=limits.session_expiry_s)
        if lapse is not None:
            log.warning(
                "the broker has lost the session; messages that waited in it are missing",
                extra={"client": self.settings.client_id, "reason": lapse.value, "causes": CAUSES[lapse]},
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

    # -- the caller's side -----------------------------------------------------------------------------------

    def acknowledge(self, generation: int, packet_ids: Sequence[int]) -> int:
        """Acknowledge messages of connection `generation`; no effect for an older one.

        Returns how many PUBACKs left: fewer if earlier messages are still to be acknowledged, more if they now are.
        """
        wire = self._wire
        if not packet_ids:
            return 0
        if wire is None or generation != wire.generation or wire.session.state is not MqttState.CONNECTED:
            self.stats.acks_stale += len(packet_ids)
            return 0
        acks = wire.session.acknowledge(packet_ids)
        wire.send([acks])
        wire.relieve()
        self.stats.acks_sent += len(acks) // PUBACK_BYTES
        return len(acks) // PUBACK_BYTES

    def drop(self) -> None:
        """Drop the connection and reconnect: the broker sends unacknowledged messages again."""
        if self._wire is not None:
            self.stats.lost["closed"] += 1
            self._wire.abort()

    def pause_reading(self) -> None:
        """Stop reading from the socket until `resume_reading`; the two nest."""
        self._pauses += 1
        if self._wire is not None:
            self._wire.pause(True)

    def resume_reading(self) -> None:
        self._pauses -= 1
        if self._wire is not None and not self._pauses:
            self._wire.pause(False)

    async def publish(self, messages: Sequence[OutMessage], *, deadline_mono_ms: int) -> list[PublishOutcome]:
        """Publish pipelined within the window; returns one outcome per message, at the deadline at the latest.

        Written QoS 0 messages stay UNKNOWN: nobody acknowledges them.
        """
        finished = asyncio.Event()
        batch = Batch(len(messages), finished.set)
        wire = self._wire
        left_ms = deadline_mono_ms - self._clock.mono_ms()
        if wire is not None and messages and left_ms > 0:
            try:
                async with asyncio.timeout(left_ms / 1000):
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

    async def _pour(self, wire: MqttWire, messages: Sequence[OutMessage], batch: Batch) -> None:
        """Write chunk by chunk, with a turn of the loop in between; wait while window or socket are full."""
        sent = 0
        while sent < len(messages) and wire.session.state is MqttState.CONNECTED:
            room = min(wire.session.room, CHUNK, len(messages) - sent)
            if room <= 0 or wire.full:
                await wire.wait_room()
                continue
            wire.send(wire.session.publish(messages, sent, room, batch))
            sent += room
            self.stats.tx_messages += room
            await asyncio.sleep(0)


def retry_ceiling_s(settings: MqttSettings, failures: int, retry: Retry) -> float:
    """The longest pause before the next attempt."""
    base_s, cap_s = settings.reconnect_base_s, settings.reconnect_cap_s
    return pause_ceiling_s(retry, failures, base_s=base_s, cap_s=cap_s)


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
