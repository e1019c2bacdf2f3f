"""Which events are over before a lease given now would be, and which devices another event has then."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from gateway.domain.events.arbitration import NOBODY, Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Target, Want
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.types import NEVER_MS, Bools, Now
from gateway.services.events.intake import Dispatcher

ASKED_EVERY_MS = 5_000
"""How old an answer may be to the question which event has a device next."""

ASKED_AT_ONCE = 4
"""For so many ends the question is asked in a tick. Until there is an answer nobody is taken to go on: a lease that
ends with its event is renewed by the next one."""


@dataclass(frozen=True, slots=True)
class _Next:
    """Who has which devices from an end on, as of `asked_mono_ms`: per kind of target that share a setpoint, one target
    of the kind and the devices of its events."""

    asked_mono_ms: int
    kinds: Sequence[tuple[Target, Bools]]


class LeaseEnds:
    """Looks ahead to the ends of running events."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._next: dict[int, _Next] = {}

    def observe(
        self, events: Sequence[ActiveEvent], claims: Claims, snapshot: Snapshot, now: Now
    ) -> tuple[list[tuple[Bools, int]], Bools]:
        """The devices of each event (or leg) that is over within the longest lease, and when (monotonic); and all
        devices that are not handed back then. An event of the gateway itself has no end of its own."""
        horizon_ms = now.utc_ms + round(1000 * float(snapshot.nameplate.lease_s.max(initial=0.0)))
        ending: list[ActiveEvent] = []
        going_on: Bools = np.zeros(snapshot.n, dtype=np.bool_)
        for event in events:
            if not _holds(event):
                continue
            if event.index < NOBODY or event.running.until_ms > horizon_ms:
                going_on |= claims.shares[event.index]
            else:
                ending.append(event)
        self._ask({event.running.until_ms for event in ending}, now)
        ends: list[tuple[Bools, int]] = []
        for event in ending:
            mine, end_ms = claims.shares[event.index], event.running.until_ms
            ends.append((mine, now.mono_ms + end_ms - now.utc_ms))
            for target, devices in self._next[end_ms].kinds if end_ms in self._next else ():
                if event.preparing or target.shares_with(event.target):
                    going_on[: len(devices)] |= mine[: len(devices)] & devices[: snapshot.n]
        return ends, going_on

    def _ask(self, ends_ms: Set[int], now: Now) -> None:
        """Find out who has which devices after some of these ends: first of those that nobody asked about."""
        self._next = {end_ms: found for end_ms, found in self._next.items() if end_ms in ends_ms}
        asked = dict.fromkeys(ends_ms, NEVER_MS) | {end_ms: found.asked_mono_ms for end_ms, found in self._next.items()}
        due = [(asked_ms, end_ms) for end_ms, asked_ms in asked.items() if now.mono_ms - asked_ms >= ASKED_EVERY_MS]
        for _, end_ms in sorted(due)[:ASKED_AT_ONCE]:
            then = Now(utc_ms=end_ms, mono_ms=now.mono_ms + end_ms - now.utc_ms)
            events = self._dispatcher.active(then)
            shares = self._dispatcher.claims(events, then, {}).shares
            self._next[end_ms] = _Next(now.mono_ms, _kinds([event for event in events if _holds(event)], shares))


def _kinds(events: Sequence[ActiveEvent], shares: Mapping[int, Bools]) -> list[tuple[Target, Bools]]:
    kinds: list[tuple[Target, Bools]] = []
    for event in events:
        known = next((devices for target, devices in kinds if target.shares_with(event.target)), None)
        if known is None:
            kinds.append((event.target, shares[event.index].copy()))
        else:
            known |= shares[event.index]
    return kinds


def _holds(event: ActiveEvent) -> bool:
    """Whether an event keeps its devices under control."""
    return event.actuates and event.target.want is not Want.SELF_CONSUMPTION
