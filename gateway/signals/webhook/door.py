"""Takes the messages of webhook peers: proves, keeps, reads, submits, answers.

A message is durable before its events are decided, and its events are durable before it is answered. What a kill or
a disk left in between is carried out before anything newer of its peer. A message that is repeated is answered as the
first time and has no effect, also where it was carried out without its peer; one that was put off and comes again
undoes nothing that came in between. One that was signed too long ago is refused.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from gateway.clock import Clock
from gateway.domain.access import TokenBucket
from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.events.book import Outcome, Refusal
from gateway.domain.events.request import EventRequest
from gateway.domain.replay import Admission
from gateway.observability.episodes import Episode
from gateway.observability.metrics import Sample, counter, gauge, words
from gateway.observability.parts import Part
from gateway.ports.inbox import Inbox, KeptMessage
from gateway.ports.replay import ReplayWindow
from gateway.ports.signals import Submit
from gateway.schemas.event import answer_body
from gateway.signals.webhook.language import HmacAuth
from gateway.signals.webhook.loader import WebhookPeer
from gateway.signals.webhook.mapping import BadEvent, WebhookEvent, read_events, revised
from gateway.signals.webhook.signing import Unproven, proof

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 128 << 10
OFF_LOOP_BYTES = 8 << 10
"""A larger body is read beside the loop."""
RETRY_S = 5.0
MALFORMED = "malformed"

Newest = Callable[[str, str], Awaitable[EventRequest | None]]
"""The newest accepted request of an event by its own id and its source. Raises StorageError."""

LATER = frozenset({Refusal.STOPPED, Refusal.RELEASE_ONLY, Refusal.CLOCK_CONTRADICTED, Refusal.TOO_OFTEN})
"""Refusals that pass: the peer is asked to send its message again."""


class Taken(StrEnum):
    """What became of a message."""

    DONE = "done"
    REFUSED = "refused"
    LATER = "later"
    AGAIN = "again"
    UNPROVEN = "unproven"
    UNTIMELY = "untimely"
    LIMITED = "limited"


MESSAGES = counter(
    "gateway_webhook_messages", "Messages of webhook peers, by what became of them.", peer="the configured peers",
    taken=words(Taken),
)  # fmt: skip
WAITING = gauge("gateway_webhook_waiting", "Messages of webhooks that are stored and not carried out yet.")

STATUS = {
    Taken.DONE: 200, Taken.AGAIN: 200, Taken.REFUSED: 400, Taken.LATER: 503, Taken.UNPROVEN: 401, Taken.UNTIMELY: 401,
    Taken.LIMITED: 429,
}  # fmt: skip
REJECTED_STATUS = 409
"""Of a message that was understood, where an event of it is refused and will be again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAnswer:
    """What a peer is told. `events`: the decision on each event; `problems`: why there is none."""

    status: int
    events: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    retry_after_s: int = 0


@dataclass(slots=True)
class _Peer:
    """A peer while the gateway runs."""

    known: WebhookPeer
    window: ReplayWindow | None
    allowance: TokenBucket
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    left: bool = False
    """A message of it may be kept and not carried out."""
    counts: dict[Taken, int] = field(default_factory=lambda: dict.fromkeys(Taken, 0))


class WebhookDoor(Part):
    """The door for every peer. `window_of`: the replay window of a peer that signs when it sent its messages."""

    service = "webhooks"

    def __init__(
        self, peers: Mapping[str, WebhookPeer], *, clock: Clock, submit: Submit, newest: Newest, inbox: Inbox,
        window_of: Callable[[HmacAuth], ReplayWindow],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._submit = submit
        self._newest = newest
        self._inbox = inbox
        now_ms = clock.mono_ms()
        self._peers = {
            name: _Peer(peer, _window(peer, window_of), TokenBucket.full(peer.document.requests_per_min, now_ms))
            for name, peer in peers.items()
        }
        self._recovering = asyncio.Lock()
        self._recovered = not peers
        self._waiting = 0
        self._refusals = Episode()

    @property
    def peers(self) -> Sequence[WebhookPeer]:
        """The peers that are known."""
        return [peer.known for peer in self._peers.values()]

    def counts(self, name: str) -> Mapping[Taken, int]:
        """What became of the messages of a peer since the start."""
        return self._peers[name].counts

    async def newest(self, name: str, limit: int) -> list[KeptMessage]:
        """The newest messages of a peer. Raises StorageError."""
        return await self._inbox.newest(name, limit)

    async def run(self) -> None:
        """Carry out what an earlier run left, until cancelled."""
        while not self._recovered:
            try:
                await self._recover()
            except StorageError as error:
                log.warning("stored messages of webhooks cannot be carried out", extra={"error": str(error)})
                await asyncio.sleep(RETRY_S)
        await asyncio.Event().wait()

    async def receive(
        self, name: str, headers: Mapping[str, Sequence[str]], body: bytes
    ) -> WebhookAnswer | None:  # fmt: skip
        """Take a message (header names in small letters); None = no peer has this name. Raises StorageError; then the
        peer sends it again."""
        peer = self._peers.get(name)
        if peer is None:
            return None
        now = self._clock.now()
        proven = proof(peer.known, headers, body)
        if isinstance(proven, Unproven):
            return self._refused(peer, Taken.UNPROVEN, proven.why)
        wait_s = peer.allowance.take(now.mono_ms)
        if wait_s:
            limit = f"more than {peer.allowance.per_min} messages a minute"
            return self._refused(peer, Taken.LIMITED, limit, after_s=wait_s)
        await self._recover()
        async with peer.lock:
            await self._finish_left(peer)
            window, message_id = peer.window, proven.message_id
            if window is not None and message_id is not None:
                found = await window.seen(name, message_id, proven.issued_ms, now)
                if found is Admission.AGAIN:
                    return self._told(peer, Taken.AGAIN, _stored(await window.answer(name, message_id)))
                if found is not Admission.FIRST:
                    early = found is Admission.TOO_EARLY
                    return self._refused(
                        peer, Taken.UNTIMELY, "signed ahead of our clock" if early else "signed too long ago"
                    )
            peer.left = True
            message = await self._inbox.keep(
                name, now.utc_ms, body, message_id=message_id, issued_ms=proven.issued_ms
            )  # fmt: skip
            taken, answer = await self._settle(peer, message)
            peer.left = False
            return self._told(peer, taken, answer)

    async def _recover(self) -> None:
        """Carry out what an earlier run left, once. Raises StorageError."""
        async with self._recovering:
            if self._recovered:
                return
            left = await self._inbox.waiting()
            self._waiting = len(left)
            for message in left:
                peer = self._peers.get(message.source)
                if peer is None:
                    await self._inbox.finish(message.id, Taken.REFUSED, ["(peer): is not configured any more"])
                else:
                    taken, _ = await self._settle(peer, message)
                    peer.counts[taken] += 1
                self._waiting -= 1
            self._recovered = True
            if left:
                log.warning("messages of webhooks from before the start were carried out", extra={"count": len(left)})

    async def _finish_left(self, peer: _Peer) -> None:
        """Carry out what is kept of a peer and was not, before it is asked anything newer. Raises StorageError."""
        if not peer.left:
            return
        for message in await self._inbox.waiting():
            if message.source == peer.known.name:
                taken, _ = await self._settle(peer, message)
                peer.counts[taken] += 1
        peer.left = False

    async def _settle(self, peer: _Peer, message: KeptMessage) -> tuple[Taken, WebhookAnswer]:
        """Carry out a message. One that fails as nobody foresaw is refused, stays to be looked at, and
        holds back no other one, neither now nor after a restart."""
        try:
            taken, answer, reasons = await self._carry_out(peer, message)
        except StorageError:
            raise
        except Exception as error:
            log.exception("a webhook could not be carried out", extra={"peer": message.source, "kept": message.id})
            reasons = (f"(body): could not be carried out: {type(error).__name__}",)
            taken, answer = Taken.REFUSED, WebhookAnswer(status=STATUS[Taken.REFUSED], problems=reasons)
        await self._admit(peer, message, taken, answer)
        await self._inbox.finish(message.id, taken, reasons)
        return taken, answer

    async def _admit(self, peer: _Peer, message: KeptMessage, taken: Taken, answer: WebhookAnswer) -> None:
        """Know a message again that was carried out, as of its receipt. What was refused may be sent again once its
        file, or the gateway, is right."""
        if peer.window is None or message.message_id is None or taken is not Taken.DONE:
            return
        received = replace(self._clock.now(), utc_ms=message.received_ms)
        told = orjson.dumps({"status": answer.status, "events": answer.events})
        await peer.window.admit(message.source, message.message_id, message.issued_ms, received, answer=told)

    async def _carry_out(
        self, peer: _Peer, message: KeptMessage
    ) -> tuple[Taken, WebhookAnswer, tuple[str, ...]]:  # fmt: skip
        """Decide every event of a message, each by itself; and tell what is noted of it."""
        try:
            events = await self._read(peer.known, message)
        except InvalidInput as error:
            problems = tuple(error.problems)
            return Taken.REFUSED, WebhookAnswer(status=STATUS[Taken.REFUSED], problems=problems), problems
        since = await self._since(peer, message)
        told: list[dict[str, Any]] = []
        for event in events:
            told.append(await self._decide(event, message, since))
            await asyncio.sleep(0)
        bad = [problem for event in events if isinstance(event, BadEvent) for problem in event.problems]
        rejected = [one for one in told if one["outcome"] == Outcome.REJECTED.value]
        taken = Taken.REFUSED if bad else Taken.DONE
        status = STATUS[taken] if bad or not rejected else REJECTED_STATUS
        if any(one["reason"] in LATER for one in rejected):
            taken, status = Taken.LATER, STATUS[Taken.LATER]
        reasons = [f"{one['id']}: {one['reason']}" for one in rejected if one["reason"] != MALFORMED]
        return taken, WebhookAnswer(status=status, events=tuple(told), problems=tuple(bad)), (*bad, *reasons)

    async def _read(self, peer: WebhookPeer, message: KeptMessage) -> list[WebhookEvent | BadEvent]:
        if len(message.payload) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(read_events, peer.document, message.payload, message.received_ms)
        return read_events(peer.document, message.payload, message.received_ms)

    async def _since(self, peer: _Peer, message: KeptMessage) -> list[WebhookEvent]:
        """What came between the first receipt of a message and this one, of a peer that does not order its changes."""
        if message.message_id is None or peer.known.document.event.order is not None:
            return []
        found: list[WebhookEvent] = []
        for later in await self._inbox.after(message.source, message.message_id):
            if later.message_id != message.message_id:
                with suppress(InvalidInput):
                    found += [one for one in await self._read(peer.known, later) if isinstance(one, WebhookEvent)]
        return found

    async def _decide(
        self, event: WebhookEvent | BadEvent, message: KeptMessage, since: Sequence[WebhookEvent]
    ) -> dict[str, Any]:  # fmt: skip
        if isinstance(event, BadEvent):
            return {
                "id": event.id or "", "revision": 0, "outcome": Outcome.REJECTED.value, "reason": MALFORMED,
                "warnings": [],
            }  # fmt: skip
        source, received_ms = message.source, message.received_ms
        known = await self._newest(event.id, source)
        request = revised(event, known, source, received_ms)
        if request is None:
            return _superseded(event.id, known, "cancelled")
        newer = (one for one in since if one.id == event.id and not event.cancelled)
        if known is not None and any(revised(one, known, source, received_ms) == known for one in newer):
            return _superseded(event.id, known, None)
        return answer_body(await self._submit(request))

    def _refused(self, peer: _Peer, taken: Taken, why: str, *, after_s: int = 0) -> WebhookAnswer:
        return self._told(peer, taken, WebhookAnswer(status=STATUS[taken], problems=(why,), retry_after_s=after_s))

    def _told(self, peer: _Peer, taken: Taken, answer: WebhookAnswer) -> WebhookAnswer:
        """Count, and log on the edge."""
        peer.counts[taken] += 1
        now_ms = self._clock.mono_ms()
        counts = self._refusals.over(now_ms)
        if counts:
            log.info("webhooks are not refused any more", extra={"counts": counts})
        if taken not in (Taken.DONE, Taken.AGAIN) and self._refusals.add(f"{peer.known.name}: {taken}", 1, now_ms):
            log.warning(
                "a webhook was refused",
                extra={"peer": peer.known.name, "as": taken.value, "problems": answer.problems[:5]},
            )
        return answer

    def samples(self) -> Iterable[Sample]:
        for name, peer in self._peers.items():
            yield from MESSAGES.each(peer.counts, peer=name)
        yield WAITING.sample(self._waiting)


def _superseded(name: str, known: EventRequest | None, reason: str | None) -> dict[str, Any]:
    return {
        "id": name, "revision": 0 if known is None else known.revision, "outcome": Outcome.SUPERSEDED.value,
        "reason": reason, "warnings": [],
    }  # fmt: skip


def _window(peer: WebhookPeer, window_of: Callable[[HmacAuth], ReplayWindow]) -> ReplayWindow | None:
    auth = peer.document.auth
    return window_of(auth) if isinstance(auth, HmacAuth) and auth.timestamp is not None else None


def _stored(answer: bytes | None) -> WebhookAnswer:
    """An answer as it was given the first time; without events where it was too long to keep."""
    if answer is None:
        return WebhookAnswer(status=STATUS[Taken.AGAIN])
    found = orjson.loads(answer)
    return WebhookAnswer(status=found["status"], events=tuple(found["events"]))
