"""Keeps what the aggregator says of sign-ups, and tells how far each is."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.domain.errors import InvalidInput
from gateway.domain.programs.sign_ups import HeardWord, SignUp, sign_up, sign_up_actions
from gateway.observability.metrics import Sample, counter
from gateway.observability.parts import Part
from gateway.ports.programs import SignUpStore
from gateway.signals.leap_account.connect import ConnectEvent, LeapConnectSettings, link

log = logging.getLogger(__name__)

OUTCOMES = ("noted", "known", "other", "unreadable")

EVENTS = counter(
    "gateway_leap_platform_events",
    "Webhooks of the aggregator beside dispatch: of sign-ups noted or known already, of something else, not readable.",
    outcome=OUTCOMES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignUpSeen:
    """A sign-up, the link to it (None: none is configured, or the reference may stand in none), and what somebody has
    to do about it."""

    sign_up: SignUp
    link: str | None
    actions: tuple[str, ...]


class SignUps(Part):
    """All sign-ups. `settings` None: there is no link to them, and webhooks are noted all the same."""

    component = "programs"

    def __init__(self, store: SignUpStore, settings: LeapConnectSettings | None, *, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._counts = dict.fromkeys(OUTCOMES, 0)

    async def note(self, event: ConnectEvent) -> None:
        """Note what a webhook says, durably. Raises InvalidInput, StorageError."""
        now_ms = self._clock.now().utc_ms
        heard = HeardWord(reference=event.reference, utility=event.utility, word=event.word, first_ms=now_ms)
        new = await self._store.note(heard)
        self._counts["noted" if new else "known"] += 1

    def passed(self, outcome: str) -> None:
        """Count a webhook that is about something else (`other`), or that nobody can read (`unreadable`)."""
        self._counts[outcome] += 1

    async def of(self, reference: str) -> SignUpSeen:
        """The sign-up of a customer. Raises StorageError."""
        return self._seen(reference, await self._store.of([reference]))

    async def page(self, after: str, limit: int) -> list[SignUpSeen]:
        """Sign-ups of which something was heard, by reference. Raises StorageError."""
        references = await self._store.references(after, limit)
        heard: defaultdict[str, list[HeardWord]] = defaultdict(list)
        for one in await self._store.of(references):
            heard[one.reference].append(one)
        return [self._seen(reference, heard[reference]) for reference in references]

    def _seen(self, reference: str, heard: list[HeardWord]) -> SignUpSeen:
        found = sign_up(reference, heard)
        return SignUpSeen(
            sign_up=found, link=self._link(reference), actions=tuple(sign_up_actions(found, self._clock.now().utc_ms))
        )

    def _link(self, reference: str) -> str | None:
        if self._settings is None:
            return None
        try:
            return link(self._settings, reference)
        except InvalidInput:
            return None

    def samples(self) -> Iterable[Sample]:
        yield from EVENTS.each(self._counts)
