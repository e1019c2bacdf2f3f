"""What a kill, a disk or a refusal leaves of a message is carried out once and undoes nothing newer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.events.book import Answer, Outcome, Refusal
from gateway.domain.events.request import EventRequest
from gateway.domain.replay import ReplayBounds
from gateway.signals.webhook.door import WebhookAnswer, WebhookDoor
from gateway.signals.webhook.loader import WebhookPeer, parse_webhook
from gateway.storage.replay import ReplayStore
from gateway.storage.webhook_inbox import WebhookInbox
from tests.signals.webhook.builders import AXLE_SECRET, FOLDER, axle_event, lowered, signed

HOUR_MS = 3_600_000
UNORDERED = WebhookPeer(
    document=parse_webhook(
        (FOLDER / "axle.yaml").read_text(encoding="utf-8").replace(
            "  order: {at: /issued_timestamp, as: rfc3339}\n", ""
        ),
        name="axle.yaml",
    ),
    secrets=(AXLE_SECRET,),
)  # fmt: skip


class Killed(BaseException):
    """Nothing runs on after it."""


class Gateway:
    """A door for a peer that signs when, and does not order its changes, over files and a small book that outlive it.
    `fails`: what the book raises or refuses, by the id of the event."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.book: dict[str, EventRequest] = {}
        self.fails: dict[str, BaseException | Refusal] = {}

    @contextmanager
    def door(self) -> Iterator[WebhookDoor]:
        inbox, replays = WebhookInbox(self.folder), ReplayStore(self.folder)
        bounds = ReplayBounds(age_ms_max=300_000, ahead_ms_max=300_000)
        try:
            yield WebhookDoor(
                {"axle": UNORDERED}, clock=self.clock, submit=self.submit, newest=self.newest, inbox=inbox,
                window_of=lambda _auth: replays.window("webhook", bounds),
            )  # fmt: skip
        finally:
            inbox.close()
            replays.close()

    async def newest(self, event_id: str, source: str) -> EventRequest | None:
        assert source == "axle"
        return self.book.get(event_id)

    async def submit(self, request: EventRequest) -> Answer:
        found = self.fails.get(request.id)
        if isinstance(found, BaseException):
            raise found
        known = self.book.get(request.id)
        outcome = Outcome.REJECTED if found else Outcome.DUPLICATE if known == request else Outcome.ACCEPTED
        if outcome is Outcome.ACCEPTED:
            self.book[request.id] = request
        now = self.clock.now()
        return Answer(id=request.id, revision=request.revision, outcome=outcome, reason=found, decided_ms=now.utc_ms)

    def message(self, name: str, kw: float) -> tuple[dict[str, list[str]], bytes]:
        now_ms = self.clock.now().utc_ms
        body = orjson.dumps(axle_event(name, at_ms=now_ms + HOUR_MS, issued_ms=now_ms, level_kw=kw))
        return lowered(signed(body, now_ms // 1000)), body

    def power_w(self, name: str) -> float | None:
        return self.book[name].target.power_w


async def post(door: WebhookDoor, message: tuple[dict[str, list[str]], bytes]) -> WebhookAnswer:
    answer = await door.receive("axle", *message)
    assert answer is not None
    return answer


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


async def test_message_that_a_kill_cut_off_is_carried_out_and_its_repetition_undoes_no_newer_one(
    gateway: Gateway,
) -> None:
    first, second = gateway.message("e", -2.0), gateway.message("e", -5.0)
    gateway.fails["e"] = Killed()
    with gateway.door() as door, pytest.raises(Killed):
        await post(door, first)
    gateway.fails.clear()
    with gateway.door() as door:
        assert (await post(door, second)).events[0]["outcome"] == "accepted"
        assert gateway.power_w("e") == 5_000.0
        again = await post(door, first)
        assert (again.status, again.events[0]["revision"]) == (200, 0), "as it was answered, had it been"
        assert gateway.power_w("e") == 5_000.0


async def test_message_whose_disk_failed_is_carried_out_before_the_next_one_and_undoes_no_newer_one(
    gateway: Gateway,
) -> None:
    first, second = gateway.message("e", -2.0), gateway.message("e", -5.0)
    gateway.fails["e"] = StorageError("the disk is full")
    with gateway.door() as door:
        with pytest.raises(StorageError):
            await post(door, first)
        gateway.fails.clear()
        await post(door, second)
        assert gateway.power_w("e") == 5_000.0
        await post(door, first)
        assert gateway.power_w("e") == 5_000.0
    with gateway.door() as door:
        await post(door, gateway.message("other", -1.0))
        assert gateway.power_w("e") == 5_000.0, "nothing of it was left for the next start"


async def test_message_that_failed_unforeseen_after_a_kill_holds_back_no_other(gateway: Gateway) -> None:
    gateway.fails["poison"] = Killed()
    poison = gateway.message("poison", -2.0)
    with gateway.door() as door, pytest.raises(Killed):
        await post(door, poison)
    gateway.fails["poison"] = OverflowError("nobody thought of it")
    with gateway.door() as door:
        assert (await post(door, gateway.message("fine", -1.0))).events[0]["outcome"] == "accepted"
        fine, refused = await door.newest("axle", 10)
        assert (fine.outcome, refused.outcome) == ("done", "refused")
        assert refused.problems == ("(body): could not be carried out: OverflowError",)
        gateway.fails.clear()
        # it had no effect, so it may be sent again
        assert (await post(door, poison)).events[0]["outcome"] == "accepted"


async def test_message_that_was_put_off_undoes_no_newer_one_when_it_comes_again(gateway: Gateway) -> None:
    first = gateway.message("e", -2.0)
    gateway.fails["e"] = Refusal.STOPPED
    with gateway.door() as door:
        assert (await post(door, first)).status == 503
        gateway.fails.clear()
        await post(door, gateway.message("e", -5.0))
    with gateway.door() as door:
        told = await post(door, first)
        assert (told.status, told.events[0]["outcome"]) == (200, "superseded")
        assert gateway.power_w("e") == 5_000.0
