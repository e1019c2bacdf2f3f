"""Takes the messages of webhook peers: proves, keeps, reads, submits, answers.

A message is durable before its events are decided, and its events are durable before it is answered. What a kill left
in between is carried out at the next start, before anything newer of its peer. A message that is repeated is answered
as the first time and has no effect; one that was signed too long ago is refused.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
            window, message_id = peer.window, proven.message_id
            if window is None or message_id is None:
                taken, answer = await self._take(peer, body, now.utc_ms)
                return self._told(peer, taken, answer)
            found = await window.seen(name, message_id, proven.issued_ms, now)
            if found is Admission.AGAIN:
                return self._told(peer, Taken.AGAIN, _stored(await window.answer(name, message_id)))
            if found is not Admission.FIRST:
                early = found is Admission.TOO_EARLY
                return self._refused(
                    peer, Taken.UNTIMELY, "signed ahead of our clock" if early else "signed too long ago"
                )
            taken, answer = await self._take(peer, body, now.utc_ms)
            if taken is Taken.DONE:
                # what was refused may be sent again once its file, or the gateway, is right
                told = orjson.dumps({"status": answer.status, "events": answer.events})
                await window.admit(name, message_id, proven.issued_ms, now, answer=told)
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
                    taken, _ = await self._settle(peer, message.id, message.payload, message.received_ms)
                    peer.counts[taken] += 1
                self._waiting -= 1
            self._recovered = True
            if left:
                log.warning("messages of webhooks from before the start were carried out", extra={"count": len(left)})

    async def _take(self, peer: _Peer, body: bytes, received_ms: int) -> tuple[Taken, WebhookAnswer]:
        kept = await self._inbox.keep(peer.known.name, received_ms, body)
        return await self._settle(peer, kept, body, received_ms)

    async def _settle(self, peer: _Peer, kept: int, body: bytes, received_ms: int) -> tuple[Taken, WebhookAnswer]:
        """Carry out a message. One that fails as nobody foresaw is refused, stays to be looked at, and
        holds back no other one, neither now nor after a restart."""
        try:
            return await self._carry_out(peer, kept, body, received_ms)
        except StorageError:
            raise
        except Exception as error:
            log.exception("a webhook could not be carried out", extra={"peer": peer.known.name, "kept": kept})
            problems = (f"(body): could not be carried out: {type(error).__name__}",)
            await self._inbox.finish(kept, Taken.REFUSED, problems)
            return Taken.REFUSED, WebhookAnswer(status=STATUS[Taken.REFUSED], problems=problems)

    async def _carry_out(
        self, peer: _Peer, kept: int, body: bytes, received_ms: int
    ) -> tuple[Taken, WebhookAnswer]:  # fmt: skip
        """Decide every event of a message, each by itself."""
        try:
            events = await self._read(peer.known, body, received_ms)
        except InvalidInput as error:
            problems = tuple(error.problems)
            await self._inbox.finish(kept, Taken.REFUSED, problems)
            return Taken.REFUSED, WebhookAnswer(status=STATUS[Taken.REFUSED], problems=problems)
        told: list[dict[str, Any]] = []
        for event in events:
            told.append(await self._decide(peer.known.name, event, received_ms))
            await asyncio.sleep(0)
        bad = [problem for event in events if isinstance(event, BadEvent) for problem in event.problems]
        rejected = [one for one in told if one["outcome"] == Outcome.REJECTED.value]
        taken = Taken.REFUSED if bad else Taken.DONE
        status = STATUS[taken] if bad or not rejected else REJECTED_STATUS
        if any(one["reason"] in LATER for one in rejected):
            taken, status = Taken.LATER, STATUS[Taken.LATER]
        reasons = [f"{one['id']}: {one['reason']}" for one in rejected if one["reason"] != MALFORMED]
        await self._inbox.finish(kept, taken, [*bad, *reasons])
        return taken, WebhookAnswer(status=status, events=tuple(told), problems=tuple(bad))

    async def _read(self, peer: WebhookPeer, body: bytes, received_ms: int) -> list[WebhookEvent | BadEvent]:
        if len(body) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(read_events, peer.document, body, received_ms)
        return read_events(peer.document, body, received_ms)

    async def _decide(self, source: str, event: WebhookEvent | BadEvent, received_ms: int) -> dict[str, Any]:
        if isinstance(event, BadEvent):
            return {
                "id": event.id or "", "revision": 0, "outcome": Outcome.REJECTED.value, "reason": MALFORMED,
                "warnings": [],
            }  # fmt: skip
        known = await self._newest(event.id, source)
        request = revised(event, known, source, received_ms)
        if request is None:
            return {
                "id": event.id, "revision": 0 if known is None else known.revision,
                "outcome": Outcome.SUPERSEDED.value, "reason": "cancelled", "warnings": [],
            }  # fmt: skip
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


def _window(peer: WebhookPeer, window_of: Callable[[HmacAuth], ReplayWindow]) -> ReplayWindow | None:
    auth = peer.document.auth
    return window_of(auth) if isinstance(auth, HmacAuth) and auth.timestamp is not None else None


def _stored(answer: bytes | None) -> WebhookAnswer:
    """An answer as it was given the first time; without events where it was too long to keep."""
    if answer is None:
        return WebhookAnswer(status=STATUS[Taken.AGAIN])
    found = orjson.loads(answer)
    return WebhookAnswer(status=found["status"], events=tuple(found["events"]))
