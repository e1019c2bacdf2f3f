"""The answer to the platform's event: repeated until the broker has it, in order, as it was decided; the event is
acknowledged after that, so that neither a lost connection nor a kill loses it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mqtt5
import orjson
import pytest

from gateway.clock import SystemClock
from gateway.domain.errors import StorageError
from gateway.domain.events.book import Answer, Outcome
from gateway.domain.events.request import EventRequest
from gateway.domain.events.scope import own_id
from gateway.ports.replay import ReplayWindow
from gateway.signals.platform import ANSWER_TOPIC, DISPATCH_TOPIC, PlatformSettings, PlatformSignal
from gateway.storage.replay import ReplayStore
from gateway.transports.mqtt.connection import OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings
from tests.scenes.brokers import mosquitto_process
from tests.scenes.mqtt_peers import Inbox, make_connection, make_settings, running, send
from tests.scenes.street import Wire
from tests.scenes.waiting import service, turns, until
from tests.scenes.world import World, homes_of
from tests.virtual.clock import loop_clock

LOST = (PublishOutcome.NOT_SENT, PublishOutcome.UNKNOWN)


class Connection(Wire):
    """A connection that nothing but a test uses."""

    since_mono_ms = 0

    async def run(self) -> None:
        await asyncio.Event().wait()


class Platform:
    """A platform and its broker around a gateway. `outcomes` become of the next answers, then all arrive; `log` is what
    left the gateway, in order: answers that the broker has, and acknowledged packets."""

    def __init__(self, world: World | None = None, refused: ReplayWindow | None = None) -> None:
        self.refused = refused
        self.world = world or World(homes_of(2))
        self.outcomes: list[PublishOutcome] = []
        self.tries = 0
        self.log: list[tuple[str, Any]] = []
        self.start()

    def start(self) -> None:
        """A new process, and a connection of it."""
        broker = MqttSettings(url="mqtt://127.0.0.1:1", client_id="platform", reconnect_base_s=60)
        with patch("gateway.signals.platform.MqttConnection", Connection):
            self.signal = PlatformSignal(
                PlatformSettings(broker=broker), clock=loop_clock(), submit=self._submit, refused=self.refused
            )
        self.connection: Connection = self.signal.connection  # type: ignore[assignment]
        self.connection.publish = self._publish  # type: ignore[method-assign]
        self.connection.acknowledge = self._acknowledge  # type: ignore[method-assign, assignment]
        self.disk_fails = 0

    async def _submit(self, request: EventRequest) -> Answer:
        if self.disk_fails:
            self.disk_fails -= 1
            raise StorageError("disk full")
        return await self.world.dispatcher.submit(request)

    async def _publish(self, messages: Sequence[OutMessage], *, deadline_mono_ms: int) -> list[PublishOutcome]:
        (message,) = messages
        self.tries += 1
        outcome = self.outcomes.pop(0) if self.outcomes else PublishOutcome.ACKED
        if outcome in (PublishOutcome.ACKED, PublishOutcome.UNKNOWN):
            body = orjson.loads(message.payload)
            self.log.append(("answer", (body.get("id"), body.get("revision"), body["outcome"])))
        return [outcome]

    def _acknowledge(self, generation: int, packet_ids: Sequence[int]) -> int:
        self.log += [("ack", (generation, packet_id)) for packet_id in packet_ids]
        return len(packet_ids)

    def send(self, *packets: tuple[int, dict[str, Any]], generation: int = 1, again: bool = False) -> None:
        """The broker passes messages on, with these packet ids; `again`: it has done so before."""
        self.connection.on_messages(
            generation,
            [
                mqtt5.PublishPacket(
                    "gateway/v1/platform/dispatch", orjson.dumps(body), qos=mqtt5.QoS.AT_LEAST_ONCE,
                    packet_id=packet_id, duplicate=again,
                )
                for packet_id, body in packets
            ],
            [packet_id for packet_id, _ in packets],
        )  # fmt: skip

    def answers(self) -> list[Any]:
        return [what for kind, what in self.log if kind == "answer"]

    def acks(self) -> list[Any]:
        return [what for kind, what in self.log if kind == "ack"]


def event(name: str = "e", revision: int = 1, **other: object) -> dict[str, Any]:
    return {
        "id": name, "revision": revision, "program": "test", "group": {"all": True}, "target_w": 1000.0,
        "start": "2027-01-15T09:00:00Z", "end": "2027-01-15T10:00:00Z",
    } | other  # fmt: skip


@pytest.mark.parametrize("outcome", LOST)
async def test_answer_is_repeated_until_the_broker_has_it_and_the_event_acknowledged_then(
    outcome: PublishOutcome,
) -> None:
    platform = Platform()
    platform.outcomes = [outcome] * 5
    async with service(platform.signal.run):
        platform.send((7, event()))
        await until(lambda: bool(platform.acks()))
    assert platform.tries == 6
    assert set(platform.answers()) == {("e", 1, "accepted")}
    assert platform.log[-2:] == [("answer", ("e", 1, "accepted")), ("ack", (1, 7))]
    assert platform.acks() == [(1, 7)]


async def test_answers_keep_the_order_of_the_decisions_and_no_decision_waits_for_an_answer() -> None:
    platform = Platform()
    platform.outcomes = [PublishOutcome.NOT_SENT] * 3
    async with service(platform.signal.run):
        platform.send((1, event()), (2, event(revision=2, target_w=500.0)), (3, event(revision=1)), (4, event("f")))
        await until(lambda: bool(platform.world.dispatcher.find("f")))
        assert platform.answers() == []
        await until(lambda: len(platform.acks()) == 4)
    assert platform.answers() == [
        ("e", 1, "accepted"),
        ("e", 2, "accepted"),
        ("e", 1, "superseded"),
        ("f", 1, "accepted"),
    ]
    assert platform.acks() == [(1, 1), (1, 2), (1, 3), (1, 4)]


async def test_answer_that_the_broker_refuses_is_counted_and_holds_back_no_other() -> None:
    platform = Platform()
    platform.outcomes = [PublishOutcome.REFUSED]
    async with service(platform.signal.run):
        platform.send((1, event()), (2, event("f")))
        await until(lambda: len(platform.acks()) == 2)
    assert platform.answers() == [("f", 1, "accepted")]
    found = {sample.name: sample.value for sample in platform.signal.samples()}
    assert found["gateway_platform_answers_refused"] == 1
    assert found["gateway_platform_answers_waiting"] == 0


async def test_event_that_comes_again_after_a_reconnect_is_answered_as_it_was_decided() -> None:
    platform = Platform()
    platform.outcomes = [PublishOutcome.NOT_SENT] * 3
    async with service(platform.signal.run):
        platform.send((1, event()), (2, event("bad", target_w=1e12)))
        await until(lambda: platform.tries == 2)
        platform.send((1, event()), (2, event("bad", target_w=1e12)), generation=2, again=True)
        await until(lambda: len(platform.acks()) == 2)
        assert platform.answers() == [("e", 1, "accepted"), ("bad", 1, "rejected")], "once each"
        assert platform.acks() == [(2, 1), (2, 2)]
        # the acknowledgements were lost
        platform.send((1, event()), (2, event("bad", target_w=1e12)), generation=3, again=True)
        await until(lambda: len(platform.acks()) == 4)
        assert platform.answers()[2:] == [("e", 1, "accepted"), ("bad", 1, "rejected")]
        # the platform's own repetition is one
        platform.send((3, event()), generation=3)
        await until(lambda: len(platform.acks()) == 5)
        assert platform.answers()[-1] == ("e", 1, "duplicate")


@pytest.mark.parametrize("start", ["2027-01-15T09:00:00Z", "now"])
async def test_kill_between_the_decision_and_its_answer_loses_no_answer_and_decides_nothing_twice(start: str) -> None:
    platform = Platform()
    body = event(start=start) if start != "now" else event(start=start, duration_s=900, sent="2027-01-15T08:00:00Z")
    if start == "now":
        del body["end"]
    platform.outcomes = [PublishOutcome.NOT_SENT] * 1_000
    async with service(platform.signal.run):
        platform.send((1, body))
        await until(lambda: platform.tries > 2)
    assert platform.log == []
    (decided,) = platform.world.dispatcher.find("e")
    platform.world.restart(away_s=30)
    platform.start()
    platform.outcomes = []
    async with service(platform.signal.run):
        platform.send((1, body), again=True)
        await until(lambda: bool(platform.acks()))
    assert platform.log == [("answer", ("e", 1, "accepted")), ("ack", (1, 1))]
    (found,) = platform.world.dispatcher.find("e")
    assert (own_id(found.request.id), found.request.start_ms) == ("e", decided.request.start_ms)


async def test_refusal_that_comes_again_after_a_kill_is_told_as_it_was_and_the_platforms_own_repetition_asks_anew(
    tmp_path: Path,
) -> None:
    """Nor does what was refused and told so become an event because the gateway was killed."""
    async with ReplayStore(tmp_path) as store:
        platform = Platform(refused=store.window("platform"))
        await platform.world.dispatcher.stop_all(active=True, by="somebody")
        async with service(platform.signal.run):
            platform.send((1, event()))
            await until(lambda: platform.answers() == [("e", 1, "rejected")])
        platform.world.restart(away_s=30)
        await platform.world.dispatcher.stop_all(active=False, by="somebody")
        platform.start()
        async with service(platform.signal.run):
            platform.send((1, event()), again=True)
            await until(lambda: len(platform.answers()) == 2)
            assert platform.answers()[1] == ("e", 1, "rejected")
            platform.send((2, event()), generation=2)
            await until(lambda: len(platform.answers()) == 3)
            assert platform.answers()[2] == ("e", 1, "accepted")
        # and that holds after the next kill
        platform.world.restart(away_s=30)
        platform.start()
        async with service(platform.signal.run):
            platform.send((2, event()), generation=2, again=True)
            await until(lambda: len(platform.answers()) == 4)
        assert platform.answers()[3] == ("e", 1, "accepted")


async def test_refusal_that_cannot_be_noted_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "replay.sqlite").mkdir()
    async with ReplayStore(tmp_path) as store:
        platform = Platform(refused=store.window("platform"))
        async with service(platform.signal.run):
            platform.send((1, event("bad", target_w=1e12)))
            await until(lambda: bool(platform.acks()))
        assert platform.answers() == [("bad", 1, "rejected")]


async def test_event_whose_decision_is_not_durable_is_neither_answered_nor_acknowledged() -> None:
    platform = Platform()
    platform.disk_fails = 3
    async with service(platform.signal.run):
        platform.send((1, event()))
        await turns()
        assert platform.log == []
        await until(lambda: bool(platform.acks()))
    assert platform.log == [("answer", ("e", 1, "accepted")), ("ack", (1, 1))]


@pytest.mark.real_time
async def test_answer_that_a_stopped_gateway_owes_is_given_by_the_next_through_a_real_broker(tmp_path: Path) -> None:
    decided: list[Outcome] = []

    async def submit(request: EventRequest) -> Answer:
        decided.append(Outcome.DUPLICATE if decided else Outcome.ACCEPTED)
        return Answer(id=request.id, revision=request.revision, outcome=decided[-1])

    async def away(messages: Sequence[OutMessage], *, deadline_mono_ms: int) -> list[PublishOutcome]:
        return [PublishOutcome.NOT_SENT] * len(messages)

    def gateway(url: str) -> PlatformSignal:
        settings = PlatformSettings(broker=make_settings(url, "gateway"))
        return PlatformSignal(settings, clock=SystemClock(), submit=submit)

    inbox = Inbox()
    async with (
        mosquitto_process(tmp_path) as broker,
        running(make_connection(make_settings(broker.url, "platform"), ANSWER_TOPIC, inbox=inbox)) as platform,
    ):
        first = gateway(broker.url)
        first.connection.publish = away  # type: ignore[method-assign]
        async with service(first.run):
            await first.connection.wait_connected()
            await send(platform, DISPATCH_TOPIC, orjson.dumps(event()))
            await until(lambda: bool(decided))
        second = gateway(broker.url)
        async with service(second.run):
            answers = [orjson.loads(payload) for payload in await inbox.has(1)]
            await until(lambda: second.connection.stats.acks_sent == 1)
    assert [(answer["id"], answer["outcome"]) for answer in answers] == [("e", "accepted")]
    assert decided == [Outcome.ACCEPTED, Outcome.DUPLICATE]
