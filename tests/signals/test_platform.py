"""The platform's connection: bounded, never left paused, and no event is answered before it is durable."""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import mqtt5
import orjson
import pytest

from gateway.clock import Clock, ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.events.book import Answer, Outcome
from gateway.domain.events.request import EventRequest
from gateway.ports.signals import Submit
from gateway.schemas.reports import PlatformAnswer
from gateway.signals import platform as platform_module
from gateway.signals.platform import PENDING_MAX, QUIET_MS, PlatformSettings, PlatformSignal
from gateway.transports.mqtt.connection import OutMessage, PublishOutcome
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


def signal(submit: Submit, clock: Clock | None = None) -> PlatformSignal:
    broker = MqttSettings(url="mqtt://127.0.0.1:1", client_id="platform", reconnect_base_s=60)
    return PlatformSignal(PlatformSettings(broker=broker), clock=clock or ManualClock(), submit=submit)


async def test_platform_flood_pauses_reading_once_and_resumes_when_worked_off() -> None:
    seen = 0

    async def submit(request: EventRequest) -> Answer:
        nonlocal seen
        seen += 1
        return Answer(id=request.id, revision=request.revision, outcome=Outcome.ACCEPTED)

    platform = signal(submit)
    holds: list[int] = []
    platform.connection.pause_reading = lambda: holds.append(1)  # type: ignore[method-assign]
    platform.connection.resume_reading = lambda: holds.append(-1)  # type: ignore[method-assign]
    platform._receive(1, packets(PENDING_MAX + 1), [])
    platform._receive(1, packets(100), [])
    assert holds == [1]
    async with service(platform.run):
        await until(lambda: seen == PENDING_MAX + 101)
    assert holds == [1, -1]


async def test_platform_event_is_tried_until_it_is_durable() -> None:
    tries = 0

    async def submit(request: EventRequest) -> Answer:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise StorageError("disk full")
        return Answer(id=request.id, revision=request.revision, outcome=Outcome.ACCEPTED)

    platform = signal(submit)
    platform._receive(1, packets(1), [])
    async with service(platform.run):
        await until(lambda: tries == 3)


# -- "now", and what the broker kept -----------------------------------------------------------------------------

NOW = {name: value for name, value in EVENT.items() if name != "end"} | {"start": "now", "duration_s": 900}


class Desk:
    """Takes what the platform sends; `taken` are the requests, `told` the answers, which are as documented."""

    def __init__(self) -> None:
        self.taken: list[EventRequest] = []
        self.told: list[dict[str, Any]] = []
        self.clock = ManualClock()
        self.platform = signal(self.submit, self.clock)
        self.platform.connection.publish = self._publish  # type: ignore[method-assign]
        self.platform.connection.since_mono_ms = self.clock.mono_ms()
        self.failures = 0

    async def _publish(self, messages: Sequence[OutMessage], *, deadline_mono_ms: int) -> list[PublishOutcome]:
        for message in messages:
            PlatformAnswer.model_validate_json(message.payload)
            self.told.append(orjson.loads(message.payload))
        return [PublishOutcome.ACKED]

    async def submit(self, request: EventRequest) -> Answer:
        if self.failures:
            self.failures -= 1
            self.clock.advance(s=60)
            raise StorageError("disk full")
        self.taken.append(request)
        return Answer(id=request.id, revision=request.revision, outcome=Outcome.ACCEPTED)

    async def comes(self, body: dict[str, Any], *, retain: bool = False, generation: int = 1) -> None:
        """A message comes and is answered."""
        count = len(self.told)
        packet = mqtt5.PublishPacket("gateway/v1/platform/dispatch", orjson.dumps(body), retain=retain)
        self.platform._receive(generation, [packet], [])
        await until(lambda: len(self.told) > count)

    def ages_ms(self) -> list[int | None]:
        """How old each request was when it was taken, as far as that is known."""
        return [None if r.sent_ms is None else self.clock.utc - r.sent_ms for r in self.taken]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    async with service(desk.platform.run):
        yield desk


async def test_platform_answer_says_why_a_message_was_refused(desk: Desk) -> None:
    await desk.comes({"id": "e"})
    assert (desk.told[-1]["outcome"], desk.told[-1]["reason"]) == ("rejected", "malformed")
    assert desk.told[-1]["problems"]
    await desk.comes(EVENT, retain=True)
    assert desk.told[-1] == {"id": "e", "revision": 1, "outcome": "rejected", "reason": "retained"}


@pytest.mark.fault("F16")
async def test_platform_message_that_may_have_waited_at_the_broker_has_an_unknown_age(desk: Desk) -> None:
    await desk.comes(NOW)
    desk.clock.advance(s=1)
    await desk.comes(NOW | {"revision": 2})
    assert desk.ages_ms() == [None, None], "a backlog comes right after the connection is up, one after the other"
    desk.clock.advance(s=QUIET_MS / 1000)
    await desk.comes(NOW | {"revision": 3})
    assert desk.ages_ms()[-1] == 0, "after a pause what comes was just sent"
    desk.clock.advance(s=1)
    await desk.comes(NOW | {"revision": 4})
    assert desk.ages_ms()[-1] == 0
    desk.platform.connection.since_mono_ms = desk.clock.mono_ms()
    await desk.comes(NOW | {"revision": 5}, generation=2)
    assert desk.ages_ms()[-1] is None, "connected anew"


async def test_platform_message_on_a_connection_that_was_quiet_is_new(desk: Desk) -> None:
    desk.clock.advance(s=QUIET_MS / 1000)
    await desk.comes(NOW)
    assert desk.ages_ms() == [0]


async def test_platform_message_says_itself_when_it_was_sent(desk: Desk) -> None:
    sent = datetime.fromtimestamp(desk.clock.utc / 1000 - 7_200, UTC).isoformat()
    await desk.comes(NOW | {"sent": sent})
    desk.clock.advance(s=60)
    await desk.comes(NOW | {"sent": sent, "revision": 2})
    assert desk.ages_ms() == [7_200_000 + 60_000] * 2


async def test_platform_message_that_waits_for_the_disk_grows_old_and_so_does_what_comes_behind_it(desk: Desk) -> None:
    desk.clock.advance(s=60)
    desk.failures = 3
    with virtual_retry(desk):
        await desk.comes(NOW)
    await desk.comes(NOW | {"revision": 2})
    assert desk.ages_ms() == [180_000, None]


@contextmanager
def virtual_retry(desk: Desk) -> Iterator[None]:
    """The signal tries again at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform_module, "RETRY_S", 0)
        yield


@pytest.mark.fault("F16")
async def test_platform_retained_event_is_refused_and_told_and_the_next_is_taken(desk: Desk) -> None:
    await desk.comes(EVENT, retain=True)
    assert (desk.taken, desk.told) == ([], [{"id": "e", "revision": 1, "outcome": "rejected", "reason": "retained"}])
    await desk.comes(EVENT)
    assert [request.id for request in desk.taken] == ["e"]


async def test_platform_garbage_is_counted_and_the_next_event_is_taken() -> None:
    seen = 0

    async def submit(request: EventRequest) -> Answer:
        nonlocal seen
        seen += 1
        return Answer(id=request.id, revision=request.revision, outcome=Outcome.ACCEPTED)

    platform = signal(submit)
    garbage = [
        mqtt5.PublishPacket("gateway/v1/platform/dispatch", raw) for raw in (b"", b"{", b"[]", b"\xff", b"1e999")
    ]
    platform._receive(1, [*garbage, *packets(1)], [])
    async with service(platform.run):
        await until(lambda: seen == 1)
    assert platform.rejects["malformed"] == len(garbage)


async def test_platform_malformed_messages_are_one_line_and_a_sum_once_they_are_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()

    async def submit(request: EventRequest) -> Answer:
        return Answer(id=request.id, revision=request.revision, outcome=Outcome.ACCEPTED)

    platform = signal(submit, clock)
    bad = [mqtt5.PublishPacket("gateway/v1/platform/dispatch", b'{"id": %d}' % i) for i in range(300)]
    async with service(platform.run):
        platform._receive(1, bad, [])
        await until(lambda: platform.rejects["malformed"] == 300)
        clock.advance(s=61)
        platform._receive(1, packets(2), [])
        await until(lambda: any("no more" in record.message for record in caplog.records))
    told = [(r.message, r.__dict__.get("count")) for r in caplog.records if r.name == "gateway.signals.platform"]
    assert told == [
        ("refused malformed dispatch messages", 1), ("no more malformed dispatch messages", 300),
    ]  # fmt: skip
