"""Links batteries whose firmware talks MQTT: routes topics to slots, decodes by profile, publishes commands.

Two sessions on the devices' broker: `control` (state, presence, answers, commands; never paused) and `telemetry`
(interval energy; QoS 1; the caller acknowledges it once durable and pauses it for back-pressure or during a dispatch).
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import mqtt5
import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from gateway.clock import Clock
from gateway.domain.commands import CommandBatch, WriteOutcome, WriteReport
from gateway.domain.fleet.clock_skew import AHEAD_MS_MAX, BEHIND_MS_MAX, ClockSkew
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.readings import (
    AckBatch,
    AckToken,
    EnergyBatch,
    LiveBatch,
    RawMessage,
    ReadingBatch,
    StatusBatch,
)
from gateway.domain.types import NEVER_MS, Now, Unclear, UnclearBatch
from gateway.links.mqtt.clocks import DeviceClocks, clock_cause
from gateway.links.mqtt.commands import OutCommands, encoders
from gateway.links.mqtt.lanes import TELEMETRY_KINDS, Lane, Rows
from gateway.links.mqtt.misregistered import Misregistered
from gateway.links.mqtt.raw_energy import RawEnergy
from gateway.links.mqtt.unregistered import Unregistered
from gateway.observability.metrics import Sample, counter
from gateway.observability.parts import Part
from gateway.ports.links import Emit
from gateway.profiles.compile import Codec
from gateway.profiles.compiled.messages import Columns, MessageRefused
from gateway.transports.mqtt.connection import MqttConnection, OnMessages, PublishOutcome
from gateway.transports.mqtt.settings import EXAMPLE_BROKER, MqttSettings

log = logging.getLogger(__name__)

REJECTS = ("malformed", "schema", "identity", "topic", "profile")
UNREADABLE = frozenset({"malformed", "schema"})
CONTROL_KINDS = ("live", "status", "ack")
SESSIONS = ("control", "telemetry")
PAUSE_TELEMETRY_FROM = 500
"""Commands of one fan-out."""

MESSAGES = counter("gateway_messages", "Messages decoded.", kind=(*CONTROL_KINDS, *TELEMETRY_KINDS))
DECODE_REJECTS = counter("gateway_decode_rejects", "Messages refused.", reason=REJECTS)
UNENROLLED = counter("gateway_unenrolled_messages", "Messages of devices that are not enrolled.")
LIVE_STALE = counter("gateway_live_stale", "Live readings of unknown age.")
IMPLAUSIBLE = counter("gateway_implausible_points", "Points made unknown.")

_OUTCOMES = {
    PublishOutcome.ACKED: WriteOutcome.ACCEPTED,
    PublishOutcome.NO_SUBSCRIBER: WriteOutcome.NO_SUBSCRIBER,
    PublishOutcome.REFUSED: WriteOutcome.REFUSED,
    PublishOutcome.UNKNOWN: WriteOutcome.UNKNOWN,
    PublishOutcome.NOT_SENT: WriteOutcome.NOT_SENT,
}


class MqttLinkSettings(BaseModel):
    """The broker the batteries talk to. `client_id` of the settings is a prefix: each session adds its own name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    broker: Annotated[MqttSettings, Field(examples=[EXAMPLE_BROKER])]

    def client_id(self, session: str) -> str:
        """The client id of one of the sessions."""
        return f"{self.broker.client_id}-{session}"


@dataclass(slots=True)
class LinkStats:
    """Counts of received messages; every rejected one has a reason."""

    messages: dict[str, int]
    rejects: dict[str, int]
    unregistered: int = 0
    stale_live: int = 0


class MqttLink(Part):
    """All MQTT products on one broker: `TelemetrySource`, `TelemetrySender` and `CommandTarget`."""

    service = "link-mqtt"
    component = "devices"

    def __init__(self, settings: MqttLinkSettings, *, codecs: Sequence[Codec], fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._codecs = {fleet.profiles.index(codec.name): codec for codec in codecs}
        self.stats = LinkStats(
            messages=dict.fromkeys((*CONTROL_KINDS, *TELEMETRY_KINDS), 0), rejects=dict.fromkeys(REJECTS, 0)
        )
        self.unregistered = Unregistered(fleet.slot_of)
        self._misregistered = Misregistered(fleet)
        self.clocks = DeviceClocks()
        self.emit: Emit = _nowhere
        self.raw = RawEnergy(fleet, self._lanes(TELEMETRY_KINDS))
        self.control = self._connection(settings, settings.broker.for_control(), "control", CONTROL_KINDS)
        self.telemetry = self._connection(settings, settings.broker, "telemetry", TELEMETRY_KINDS)

    def _connection(
        self, settings: MqttLinkSettings, broker: MqttSettings, name: str, kinds: Iterable[str]
    ) -> MqttConnection:
        lanes = self._lanes(kinds)
        filters = [
            mqtt5.TopicFilter(f, max_qos=mqtt5.QoS.AT_LEAST_ONCE) for f in dict.fromkeys(x.route.filter for x in lanes)
        ]
        return MqttConnection(
            broker.model_copy(update={"client_id": settings.client_id(name)}),
            clock=self._clock,
            subscriptions=filters,
            on_messages=self._receiver(lanes),
            name=name,
        )

    def _lanes(self, kinds: Iterable[str]) -> list[Lane]:
        return [
            Lane(kind=kind, profile=profile, route=codec.routes[kind], decoder=codec.decoders[kind])
            for profile, codec in self._codecs.items()
            for kind in kinds
            if kind in codec.routes
        ]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.control.run(), name="mqtt-control")
            group.create_task(self.telemetry.run(), name="mqtt-telemetry")

    @property
    def implausible(self) -> int:
        """Points made unknown because their values are impossible."""
        return sum(decoder.implausible for codec in self._codecs.values() for decoder in codec.decoders.values())

    def samples(self) -> Iterator[Sample]:
        yield from MESSAGES.each(self.stats.messages)
        yield from DECODE_REJECTS.each(self.stats.rejects)
        yield UNENROLLED.sample(self.stats.unregistered)
        yield LIVE_STALE.sample(self.stats.stale_live)
        yield IMPLAUSIBLE.sample(self.implausible)
        yield from self.clocks.samples()
        yield from self.unregistered.samples()

    def cause_of(self, device: str) -> str | None:
        """What is wrong with a device's clock, in words; None = nothing, or nothing known."""
        slot = self._fleet.slot_of.get(device)
        return None if slot is None else clock_cause(self.clocks.offset_s(slot), self.clocks.unheeded(slot))

    def skew(self, now: Now) -> ClockSkew:
        """How far the fleet's clocks are from ours; devices of other links tell no time."""
        plate, n = self._fleet.nameplate, self._fleet.n
        speakers = np.isin(plate.profile[:n], list(self._codecs))
        return self.clocks.skew(speakers, plate.registered[:n], now)

    def warnings(self) -> list[str]:
        """Devices that speak as another product than they are registered as, and those whose clock is off: beyond a
        minute ahead or two behind their readings count no more."""
        others = self._misregistered.warnings()
        timeless = self.clocks.counts()["no_time"]
        out = others + ([f"devices: live messages of {timeless} say no time and do not count"] if timeless else [])
        off = [slot for slot in self.clocks.off() if slot < self._fleet.n]
        if not off:
            return out
        cause = clock_cause(self.clocks.offset_s(off[0]))
        return [*out, f"devices: clocks of {len(off)} are off, first of {self._fleet.ids[off[0]]}, {cause}"]

    def acknowledge(self, token: AckToken) -> None:
        self.telemetry.acknowledge(token.generation, token.packet_ids)

    def pause_telemetry(self, on: bool) -> None:
        if on:
            self.telemetry.pause_reading()
        else:
            self.telemetry.resume_reading()

    def start_over(self) -> None:
        self.telemetry.drop()

    def _receiver(self, lanes: Sequence[Lane]) -> OnMessages:
        """A handler of one connection's reads. The lanes are few, so it tries them until a topic fits."""
        slot_of = self._fleet.slot_of.get
        shapes = [
            (x.route.prefix, x.route.suffix, len(x.route.prefix), -len(x.route.suffix) or None, x.decoder.fast)
            for x in lanes
        ]
        telemetry = all(lane.kind in TELEMETRY_KINDS for lane in lanes)

        def receive(generation: int, packets: list[mqtt5.PublishPacket], packet_ids: list[int]) -> None:
            batches = [Rows(lane) for lane in lanes]
            raw: list[RawMessage] | None = [] if telemetry else None
            behind = self.raw.behind if telemetry else ()
            # One flat tuple per lane: this loop is the hot path of all ingest.
            table = [
                (*shape, batch, batch.slots.append, batch.rows.append)
                for shape, batch in zip(shapes, batches, strict=True)
            ]
            for packet in packets:
                topic = packet.topic
                for prefix, suffix, start, end, decode, batch, add_slot, add_row in table:
                    if not (topic.startswith(prefix) and topic.endswith(suffix)):
                        continue
                    device = topic[start:end]
                    slot = slot_of(device)
                    if slot is None or (behind and topic in behind):
                        self._keep(packet, raw, batch.lane, known=slot is not None)
                        break
                    try:
                        row = decode(packet.payload)
                        if row.device != device:
                            raise MessageRefused("identity")
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        row = self._reread(packet, device, slot, batch, raw)
                        if row is None:
                            break
                    add_slot(slot)
                    add_row(row)
                    if not telemetry:
                        batch.live.append(not packet.retain)
                    break
                else:
                    self.stats.rejects["topic"] += 1
                    # a subscription of a product that is installed no more, which the broker still has
                    _as_it_came(packet, raw)
            token = AckToken(generation=generation, packet_ids=packet_ids)
            if raw is None:
                self._hand_over_control(batches, token)
            else:
                self._hand_over(batches, packets, raw, token)

        return receive

    def _hand_over(
        self, batches: Sequence[Rows], packets: Sequence[mqtt5.PublishPacket], raw: list[RawMessage], token: AckToken
    ) -> None:
        for batch in batches:
            if batch.rows:
                energy = self._energy(batch)
                if len(energy) < len(batch.rows):
                    kept = {(one.topic, one.payload) for one in raw}
                    others = ((packet.topic, bytes(packet.payload)) for packet in packets)
                    raw += self.raw.foreign(batch, [other for other in others if other not in kept])
                self.emit(ReadingBatch(energy=energy))
        self.emit(ReadingBatch(raw=raw, token=token))

    def _hand_over_control(self, batches: Sequence[Rows], token: AckToken) -> None:
        for batch in batches:
            if batch.rows or batch.unread:
                self._emit_control(batch)
        if token.packet_ids:
            self.control.acknowledge(token.generation, token.packet_ids)

    def _columns(
        self, batch: Rows
    ) -> tuple[np.ndarray[Any, np.dtype[np.int32]], Columns, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Columns of the rows whose device is registered as this product; counts the others as `profile`."""
        slots = np.array(batch.slots, dtype=np.int32)
        columns = batch.lane.decoder.to_columns(batch.rows)
        if batch.unclear:
            columns["unclear"] = np.zeros(len(slots), dtype=np.int16)
            columns["unclear"][list(batch.unclear)] = list(batch.unclear.values())
        live = np.array(batch.live, dtype=np.bool_)
        self.stats.messages[batch.lane.kind] += len(slots)
        own = self._fleet.nameplate.profile[slots] == batch.lane.profile
        self._misregistered.observe(slots, own, batch.lane.profile)
        if not own.all():
            self.stats.rejects["profile"] += int((~own).sum())
            # settlement messages are never retained: nothing is noted of them
            slots, live = slots[own], live[own] if len(live) else live
            columns = {name: column[own] for name, column in columns.items()}
        return slots, columns, live

    def _energy(self, batch: Rows) -> EnergyBatch:
        slots, columns, _ = self._columns(batch)
        return EnergyBatch(slots=slots, **columns)

    def _emit_control(self, batch: Rows) -> None:
        slots, columns, live = self._columns(batch)
        if batch.lane.kind == "live":
            now = self._clock.now()
            self.clocks.heed(slots[live], columns["device_t_ms"][live], now, self._fleet.ids)
            fresh = live & self._plausible(columns["device_t_ms"], now)
            self.stats.stale_live += int((~fresh).sum())
            readings = LiveBatch(slots=slots, fresh=fresh, **columns)
            doubts = self._doubts(batch, readings, live) if batch.unclear or batch.unread else None
            self.emit(ReadingBatch(live=readings, unclear=doubts))
        elif batch.lane.kind == "status":
            self.emit(ReadingBatch(status=StatusBatch(slots=slots, told_now=live, **columns)))
        else:
            self.emit(ReadingBatch(acks=AckBatch(slots=slots, **columns)))

    def _doubts(
        self, batch: Rows, readings: LiveBatch, live: np.ndarray[Any, np.dtype[np.bool_]]
    ) -> UnclearBatch | None:
        """Devices whose live message is unreadable, or unclear in a row of unknown age, unless a fresh row of the same
        device came after it."""
        profile = self._fleet.nameplate.profile
        number = np.flatnonzero(profile[np.array(batch.slots, dtype=np.int32)] == batch.lane.profile)
        found = [(at, slot, Unclear.MESSAGE) for at, slot in batch.unread if profile[slot] == batch.lane.profile]
        if readings.unclear is not None:
            aged = np.flatnonzero(live & ~readings.fresh & (readings.unclear != 0))
            found += [(int(number[i]) + 1, int(readings.slots[i]), Unclear(int(readings.unclear[i]))) for i in aged]
        doubts = [
            (slot, members)
            for at, slot, members in found
            if not (readings.fresh & (readings.slots == slot) & (number >= at)).any()
        ]
        if not doubts:
            return None
        slots, unclear = zip(*doubts, strict=True)
        return UnclearBatch(slots=np.array(slots, dtype=np.int32), unclear=np.array(unclear, dtype=np.int16))

    @staticmethod
    def _plausible(t_ms: np.ndarray[Any, np.dtype[np.int64]], now: Now) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """A reading without a plausible device time has unknown age: it may have waited in a queue."""
        age = now.utc_ms - np.where(t_ms == NEVER_MS, now.utc_ms + 2 * AHEAD_MS_MAX, t_ms)
        result: np.ndarray[Any, np.dtype[np.bool_]] = (age <= BEHIND_MS_MAX) & (age >= -AHEAD_MS_MAX)
        return result

    def _keep(self, packet: mqtt5.PublishPacket, raw: list[RawMessage] | None, lane: Lane, *, known: bool) -> None:
        """Keep a settlement message of a device that is not registered, or of which earlier ones wait; what else such
        devices say is only counted."""
        device = lane.route.device(packet.topic)
        if device is None:
            self.stats.rejects["topic"] += 1
            return
        if not known:
            self.stats.unregistered += 1
            self.unregistered.observe(device, self._clock.now().utc_ms)
        _as_it_came(packet, raw)

    def _reread(
        self, packet: mqtt5.PublishPacket, device: str, slot: int, batch: Rows, raw: list[RawMessage] | None
    ) -> Any:
        """Decode point by point what the fast decoder refused; None if this refuses it too (and counts it, and keeps a
        settlement message). A retained message says nothing of now."""
        lane = batch.lane
        try:
            row, unclear = lane.decoder.reread(packet.payload, device)
        except MessageRefused as refused:
            self._reject(refused.reason, lane)
            _as_it_came(packet, raw, refused.reason)
            if lane.kind == "live" and refused.reason in UNREADABLE and not packet.retain:
                batch.unread.append((len(batch.rows), slot))
            return None
        if unclear:
            batch.unclear[len(batch.rows)] = unclear
        return row

    def _reject(self, reason: str, lane: Lane) -> None:
        self.stats.rejects[reason] += 1
        if self.stats.rejects[reason] == 1:
            log.warning("refused a device's message", extra={"reason": reason, "kind": lane.kind})

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        """Publish the commands; a product without the operation gives REFUSED. Telemetry waits during a large
        fan-out, so that the commands do not queue behind it."""
        written = np.full(len(batch), int(WriteOutcome.NOT_SENT), dtype=np.int8)
        products = encoders(self._fleet, self._codecs, batch)
        written[products < 0] = int(WriteOutcome.REFUSED)
        now_ms = self._clock.now().utc_ms
        index = np.flatnonzero((products >= 0) & (batch.valid_until_ms > now_ms))
        messages = OutCommands(
            self._fleet, self._codecs, batch, index, now_ms, self.clocks.ahead_ms(batch.slots[index])
        )
        large = len(messages) >= PAUSE_TELEMETRY_FROM
        if large:
            self.pause_telemetry(True)
        try:
            outcomes = await self.control.publish(messages, deadline_mono_ms=deadline_mono_ms)
        finally:
            if large:
                self.pause_telemetry(False)
        if outcomes.count(PublishOutcome.ACKED) == len(outcomes):
            written[index] = int(WriteOutcome.ACCEPTED)
        else:
            written[index] = [_OUTCOMES[outcome] for outcome in outcomes]
        return WriteReport(delivery=written)


def _as_it_came(packet: mqtt5.PublishPacket, raw: list[RawMessage] | None, problem: str = "") -> None:
    if raw is not None:
        raw.append(RawMessage(topic=packet.topic, payload=bytes(packet.payload), problem=problem))


def _nowhere(_batch: ReadingBatch) -> None:
    """Drops readings before `run`: no connection is open then."""
