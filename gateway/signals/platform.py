"""Receives dispatch from the central platform by MQTT, on the platform's own connection and on no other.

The platform publishes events (QoS 1) to `gateway/v1/platform/dispatch`. The signal answers each on
`gateway/v1/platform/dispatch/answers` once its decision is durable, until the broker has the answer, and acknowledges
it then: the broker keeps what is not answered and sends it again, marked as a repetition, which is answered as it was
decided, also after a kill: the journal knows what was accepted, the replay window what was refused. The gateway
publishes changed delivery records on
`.../dispatch/deliveries`, running events every few seconds on `.../dispatch/events`, what the fleet can sustain on
`gateway/v1/platform/availability`, and, where configured, the newest readings on `gateway/v1/platform/live`; all QoS 1,
never retained.

A message carries no time of its own: it may have waited at the broker while the gateway was away, or full. What comes
right after the connection is up, or right behind a message that waited, has an unknown age; what comes after a pause
was just sent. An event that says "now" is refused where its age is unknown, unless its body says when it was `sent`; a
retained message is refused.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Annotated, Any

import mqtt5
import orjson
from pydantic import BaseModel, ConfigDict, Field

from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.events.book import Outcome
from gateway.observability.episodes import Episode
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Part
from gateway.ports.replay import ReplayWindow
from gateway.ports.signals import Submit
from gateway.schemas.event import answer_body, parse_event
from gateway.transports.mqtt.connection import MqttConnection, OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import EXAMPLE_BROKER, MqttSettings

log = logging.getLogger(__name__)

ANSWERS_WAITING = gauge("gateway_platform_answers_waiting", "Decided dispatch messages whose answer the broker lacks.")
ANSWERS_REFUSED = counter("gateway_platform_answers_refused", "Answers that the broker refused.")
REJECTS = counter("gateway_platform_rejects", "Dispatch messages refused.", reason=("malformed", "retained"))

SOURCE = "mqtt"
DISPATCH_TOPIC = "gateway/v1/platform/dispatch"
ANSWER_TOPIC = "gateway/v1/platform/dispatch/answers"
REPORT_TOPICS = {
    "deliveries": "gateway/v1/platform/dispatch/deliveries",
    "events": "gateway/v1/platform/dispatch/events",
    "availability": "gateway/v1/platform/availability",
    "live": "gateway/v1/platform/live",
}
REPORT_EXPIRY_S = 86_400
LIVE_EXPIRY_S = 60
PENDING_MAX = 1_000
DECIDED_MAX = 10_000
"""Messages whose answer is remembered in case the broker sends them again."""

ANSWER_DEADLINE_MS = 10_000
RETRY_S = 1.0
QUIET_MS = 2_000
"""A pause this long shows that the broker has nothing more in store for us."""


class PlatformSettings(BaseModel):
    """The platform's broker; its connection also carries interval records where an MQTT sink is configured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    broker: Annotated[MqttSettings, Field(examples=[EXAMPLE_BROKER])]
    dispatch: bool = Field(default=True, description="accept dispatch events from this connection")
    live_s: float = Field(
        default=0.0, ge=0, le=3600, description="how often to publish each device's newest reading, 0 = never"
    )
    live_devices_per_s: float = Field(default=2_000.0, gt=0, le=100_000)


@dataclass(slots=True, kw_only=True)
class _Owed:
    """An answer, the message it answers, and whether the broker has it."""

    generation: int
    packet_id: int | None
    answer: bytes
    told: bool = False


class PlatformSignal(Part):
    """The `Signal` on the platform's connection. `rejects` counts malformed and retained events, by reason, and
    `answers_refused` answers that the broker refused."""

    service = "platform"

    def __init__(
        self, settings: PlatformSettings, *, clock: Clock, submit: Submit, refused: ReplayWindow | None = None
    ) -> None:  # fmt: skip
        self._clock = clock
        self._submit = submit
        self._refused = refused
        self.settings = settings
        self._pending: asyncio.Queue[tuple[int, mqtt5.PublishPacket, int | None]] = asyncio.Queue()
        self._owed: deque[_Owed] = deque()
        self._news = asyncio.Event()
        self._decided: OrderedDict[bytes, _Owed] = OrderedDict()
        self._paused = False
        self._generation, self._busy_mono_ms, self._caught_up = -1, 0, False
        self.rejects = {"malformed": 0, "retained": 0}
        self.answers_refused = 0
        self._refusals = Episode()
        filters = [mqtt5.TopicFilter(DISPATCH_TOPIC, max_qos=mqtt5.QoS.AT_LEAST_ONCE)] if settings.dispatch else []
        self.connection = MqttConnection(
            settings.broker.for_control(), clock=clock, subscriptions=filters, on_messages=self._receive,
            name="platform",
        )  # fmt: skip

    def _receive(self, generation: int, packets: list[mqtt5.PublishPacket], _packet_ids: list[int]) -> None:
        received_ms = self._clock.now().utc_ms if self._current(generation) else None
        for packet in packets:
            self._pending.put_nowait((generation, packet, received_ms))
        if self._pending.qsize() > PENDING_MAX and not self._paused:
            self._paused, self._caught_up = True, False
            self.connection.pause_reading()

    def _current(self, generation: int) -> bool:
        """Whether a message that comes now was sent just now."""
        now_ms = self._clock.mono_ms()
        if generation != self._generation:
            self._generation, self._caught_up = generation, False
            self._busy_mono_ms = self.connection.since_mono_ms
        if self._pending.empty() and not self._paused and now_ms - self._busy_mono_ms >= QUIET_MS:
            self._caught_up = True
        self._busy_mono_ms = now_ms
        return self._caught_up

    def _answered(self, began_ms: int) -> None:
        """A message was answered. While it took long, others may have begun to wait at the broker."""
        self._busy_mono_ms = self._clock.mono_ms()
        if self._busy_mono_ms - began_ms >= QUIET_MS:
            self._caught_up = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.connection.run(), name="mqtt-platform")
            group.create_task(self._serve(), name="platform-dispatch")
            group.create_task(self._tell(), name="platform-answers")

    async def _serve(self) -> None:
        """Decide message by message. None waits for the answer to another."""
        while True:
            generation, packet, received_ms = await self._pending.get()
            began_ms = self._clock.mono_ms()
            if self._paused and self._pending.qsize() <= PENDING_MAX:
                self._paused = False
                self.connection.resume_reading()
            # a repetition may have been decided and not acknowledged: it is no duplicate of the platform's
            name = blake2b(packet.payload, digest_size=16).digest()
            known = self._decided.get(name) if packet.duplicate else None
            if known is not None and not known.told and known.generation < generation:
                known.generation, known.packet_id = generation, packet.packet_id
                continue
            answer = known.answer if known else await self._decide(packet, name, received_ms)
            self._answered(began_ms)
            self._owe(name, _Owed(generation=generation, packet_id=packet.packet_id, answer=answer))

    async def _decide(self, packet: mqtt5.PublishPacket, name: bytes, received_ms: int | None) -> bytes:
        """The answer to a message; to one that was refused before a restart and comes again, the answer of then. A disk
        that fails keeps no refusal from being told."""
        if self._refused is None:
            return orjson.dumps(await self._answer(packet, received_ms))
        message = name.hex()
        try:
            told = await self._refused.answer(SOURCE, message)
            if told is not None and packet.duplicate:
                return told
            if told is not None:
                # the platform sends it anew: it asks anew
                await self._refused.forget(SOURCE, message)
        except StorageError as error:
            log.warning("earlier refusals cannot be read", extra={"error": str(error)})
        body = await self._answer(packet, received_ms)
        answer = orjson.dumps(body)
        if body["outcome"] == Outcome.REJECTED.value:
            try:
                await self._refused.admit(SOURCE, message, None, self._clock.now(), answer=answer)
            except StorageError as error:
                log.warning("a refusal is not durable", extra={"error": str(error)})
        return answer

    def _owe(self, name: bytes, owed: _Owed) -> None:
        self._owed.append(owed)
        self._news.set()
        self._decided[name] = owed
        if len(self._decided) > DECIDED_MAX:
            self._decided.popitem(last=False)

    async def _tell(self) -> None:
        """Publish answers in the order of the decisions, each until the broker has it; acknowledge what is answered.
        An answer that the broker refuses holds back no other."""
        while True:
            await self._news.wait()
            while self._owed:
                await self._publish(self._owed[0])
                owed = self._owed.popleft()
                owed.told = True
                if owed.packet_id is not None:
                    self.connection.acknowledge(owed.generation, [owed.packet_id])
            self._news.clear()

    async def _publish(self, owed: _Owed) -> None:
        message = OutMessage(topic=ANSWER_TOPIC, payload=owed.answer, qos=1, retain=False, message_expiry_s=3600)
        while True:
            deadline_ms = self._clock.mono_ms() + ANSWER_DEADLINE_MS
            (outcome,) = await self.connection.publish([message], deadline_mono_ms=deadline_ms)
            if outcome is PublishOutcome.REFUSED:
                self.answers_refused += 1
                if self.answers_refused == 1:
                    log.warning("the broker refuses answers to dispatch messages", extra={"topic": ANSWER_TOPIC})
            if outcome in (PublishOutcome.ACKED, PublishOutcome.NO_SUBSCRIBER, PublishOutcome.REFUSED):
                return
            await asyncio.sleep(RETRY_S)

    def samples(self) -> Iterable[Sample]:
        """Metrics of what was refused before it became an event, and of answers."""
        yield from REJECTS.each(self.rejects)
        yield ANSWERS_WAITING.sample(len(self._owed))
        yield ANSWERS_REFUSED.sample(self.answers_refused)

    async def report(self, kind: str, body: dict[str, Any]) -> bool:
        """Publish one report to the platform; returns whether the broker accepted it."""
        message = OutMessage(
            topic=REPORT_TOPICS[kind], payload=orjson.dumps(body), qos=1, retain=False,
            message_expiry_s=LIVE_EXPIRY_S if kind == "live" else REPORT_EXPIRY_S,
        )  # fmt: skip
        outcomes = await self.connection.publish([message], deadline_mono_ms=self._clock.mono_ms() + ANSWER_DEADLINE_MS)
        # Without a subscriber it has gone as far as it can.
        return outcomes[0] in (PublishOutcome.ACKED, PublishOutcome.NO_SUBSCRIBER)

    async def _answer(self, packet: mqtt5.PublishPacket, received_ms: int | None) -> dict[str, Any]:
        """Submit an event, again while its decision cannot be made durable: an unacknowledged message would block the
        acknowledgements of all later ones."""
        try:
            request = parse_event(packet.payload, source=SOURCE, received_ms=received_ms)
        except InvalidInput as error:
            self.rejects["malformed"] += 1
            if self._refusals.add("malformed", 1, self._clock.mono_ms()):
                log.warning("refused malformed dispatch messages", extra={"count": 1, "problems": error.problems[:5]})
            return {"outcome": "rejected", "reason": "malformed", "problems": error.problems}
        counts = self._refusals.over(self._clock.mono_ms())
        if counts:
            log.info("no more malformed dispatch messages", extra={"count": sum(counts.values())})
        if packet.retain:
            self.rejects["retained"] += 1
            log.warning("refused a retained dispatch message", extra={"event": request.id})
            return {"id": request.id, "revision": request.revision, "outcome": "rejected", "reason": "retained"}
        logged = False
        while True:
            try:
                answer = await self._submit(request)
                if packet.duplicate and answer.outcome is Outcome.DUPLICATE and answer.reason is None:
                    # accepted, and not acknowledged, by an earlier run
                    answer = replace(answer, outcome=Outcome.ACCEPTED)
                return answer_body(answer)
            except StorageError as error:
                if not logged:
                    log.warning("the decision of a dispatch event cannot be stored", extra={"error": str(error)})
                logged = True
                await asyncio.sleep(RETRY_S)
