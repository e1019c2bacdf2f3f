"""Publishes interval records to the platform's broker: a QoS 1 message each on `gateway/v1/platform/intervals`."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from gateway.clock import Clock
from gateway.domain.types import DeviceId
from gateway.ports.sinks import Accept, IntervalBatch, Keep, SinkResult
from gateway.schemas.interval_rows import RowsPerS, row_of
from gateway.transports.mqtt.connection import MqttConnection, OutMessage, PublishOutcome

INTERVAL_TOPIC = "gateway/v1/platform/intervals"
BATCH_ROWS = 1_000


class MqttSinkSettings(BaseModel):
    """Interval records over the platform's connection."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mqtt"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$", examples=["sink"])]
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30
    rows_per_s_max: RowsPerS = 10_000


class MqttSink:
    """One receiver behind the platform's broker. Accepted = every record acknowledged by the broker."""

    def __init__(self, settings: MqttSinkSettings, *, connection: MqttConnection, clock: Clock) -> None:
        self.name = settings.name
        self.batch_rows = BATCH_ROWS
        self._settings = settings
        self._connection = connection
        self._clock = clock

    def wants(self, _device: DeviceId, _length_s: int) -> bool:
        return True

    def pick(self, devices: Sequence[DeviceId], _lengths_s: Sequence[int]) -> list[bool]:
        return [True] * len(devices)

    async def send(self, batch: IntervalBatch) -> SinkResult:
        if not self._connection.connected:
            return Keep(reason="not_connected")
        payloads = await asyncio.to_thread(_payloads, batch)
        messages = [
            OutMessage(topic=INTERVAL_TOPIC, payload=payload, qos=1, retain=False, message_expiry_s=None)
            for payload in payloads
        ]
        deadline = self._clock.mono_ms() + round(self._settings.timeout_s * 1000)
        outcomes = set(await self._connection.publish(messages, deadline_mono_ms=deadline))
        if outcomes == {PublishOutcome.ACKED}:
            return Accept()
        # A broker without a subscriber has dropped the record: the platform does not have it.
        worst = next(o for o in PublishOutcome if o in outcomes and o is not PublishOutcome.ACKED)
        # One record that it refuses keeps no others back: the batch is tried in halves.
        return Keep(reason=worst.name.lower(), whole=worst is PublishOutcome.REFUSED)

    async def settled(self, _batch: IntervalBatch) -> None:
        """Nothing is remembered between batches."""


def _payloads(batch: IntervalBatch) -> list[bytes]:
    return [orjson.dumps(row_of(record)) for record in batch.rows]
