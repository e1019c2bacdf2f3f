"""The platform's connection: bounded, never left paused, and no event is answered before it is durable."""

import logging

import mqtt5
import orjson
import pytest

from gateway.clock import Clock, ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.events.book import Answer, Outcome
from gateway.domain.events.request import EventRequest
from gateway.signals.platform import PENDING_MAX, PlatformSettings, PlatformSignal
from gateway.transports.mqtt.settings import MqttSettings
from tests.scenes.waiting import service, until

EVENT = {
    "id": "e", "revision": 1, "program": "p", "group": {"all": True}, "target_w": 1000.0,
    "start": "2030-06-01T17:00:00Z", "end": "2030-06-01T18:00:00Z",
}  # fmt: skip


def packets(count: int) -> list[mqtt5.PublishPacket]:
    return [
        mqtt5.PublishPacket("gateway/v1/platform/dispatch", orjson.dumps(EVENT | {"revision": i})) for i in range(count)
    ]


def signal(clock: Clock | None = None) -> PlatformSignal:
    broker = MqttSettings(url="mqtt://127.0.0.1:1", client_id="platform", reconnect_base_s=60)
    return PlatformSignal(PlatformSettings(broker=broker), clock=clock or ManualClock())


async def test_platform_flood_pauses_reading_once_and_resumes_when_worked_off() -> None:
    platform, seen = signal(), 0

    async def submit(request: EventRequest) -> Answer:
        nonlocal seen
        seen += 1
        return Answer(id=request.id, revision=request.revision, outcome=Outcome.ACCEPTED)

    holds: list[int] = []
    platform.connection.pause_reading = lambda: holds.append(1)  # type: ignore[method-assign]
    platform.connection.resume_reading = lambda: holds.append(-1)  # type: ignore[method-assign]
    platform._receive(1, packets(PENDING_MAX + 1), [])
    platform._receive(1, packets(100), [])
    assert holds == [1]
    async with service(lambda: platform.run(submit)):
        await until(lambda: seen == PENDING_MAX + 101)
    assert holds == [1, -1]


async def test_platform_event_is_tried_until_it_is_durable() -> None:
    platform, tries = signal(), 0

    async def submit(request: EventRequest) -> Answer:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise StorageError("disk full")
        return Answer(id=request.id, revision=request.revision, outcome=Outcome.ACCEPTED)

    platform._receive(1, packets(1), [])
    async with service(lambda: platform.run(submit)):
        await until(lambda: tries == 3)


async def test_platform_garbage_is_counted_and_the_next_event_is_taken() -> None:
    platform, seen = signal(), 0

    async def submit(request: EventRequest) -> Answer:
        nonlocal seen
        seen += 1
        return Answer(id=request.id, revision=request.revision, outcome=Outcome.ACCEPTED)

    garbage = [
        mqtt5.PublishPacket("gateway/v1/platform/dispatch", raw) for raw in (b"", b"{", b"[]", b"\xff", b"1e999")
    ]
    platform._receive(1, [*garbage, *packets(1)], [])
    async with service(lambda: platform.run(submit)):
        await until(lambda: seen == 1)
    assert platform.rejected == len(garbage)


async def test_platform_malformed_messages_are_one_line_and_a_sum_once_they_are_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    platform = signal(clock)

    async def submit(request: EventRequest) -> Answer:
        return Answer(id=request.id, revision=request.revision, outcome=Outcome.ACCEPTED)

    bad = [mqtt5.PublishPacket("gateway/v1/platform/dispatch", b'{"id": %d}' % i) for i in range(300)]
    async with service(lambda: platform.run(submit)):
        platform._receive(1, bad, [])
        await until(lambda: platform.rejected == 300)
        clock.advance(s=61)
        platform._receive(1, packets(2), [])
        await until(lambda: any("no more" in record.message for record in caplog.records))
    told = [(r.message, r.__dict__.get("count")) for r in caplog.records if r.name == "gateway.signals.platform"]
    assert told == [
        ("refused malformed dispatch messages", 1), ("no more malformed dispatch messages", 300),
    ]  # fmt: skip
