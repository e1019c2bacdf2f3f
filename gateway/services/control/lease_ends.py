"""Which events are over before a lease given now would be, and which devices another event has then."""

from collections.abc import Sequence

import numpy as np

from gateway.domain.events.arbitration import NOBODY, Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Want
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.types import Bools, Now
from gateway.services.events.intake import Dispatcher

ASKED_EVERY_MS = 5_000
"""How old an answer may be to the question which event has a device next."""


class LeaseEnds:
    """Looks ahead to the ends of running events."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._next: dict[int, tuple[int, Sequence[ActiveEvent], Claims]] = {}

    def observe(
        self, events: Sequence[ActiveEvent], claims: Claims, snapshot: Snapshot, now: Now
    ) -> tuple[list[tuple[Bools, int]], Bools]:
        """The devices of each event (or leg) that is over within the longest lease, and when (monotonic); and all
        devices that are not handed back then. An event of the gateway itself has no end of its own."""
        horizon_ms = now.utc_ms + round(1000 * float(snapshot.nameplate.lease_s.max(initial=0.0)))
        ends: list[tuple[Bools, int]] = []
        going_on: Bools = np.zeros(snapshot.n, dtype=np.bool_)
        over: set[int] = set()
        for event in events:
            if not _holds(event):
                continue
            mine, end_ms = claims.shares[event.index], event.running.until_ms
            if event.index < NOBODY or end_ms > horizon_ms:
                going_on |= mine
                continue
            over.add(end_ms)
            ends.append((mine, now.mono_ms + end_ms - now.utc_ms))
            going_on |= mine & self._taken_over(event, end_ms, snapshot.n, now)
        self._next = {end_ms: found for end_ms, found in self._next.items() if end_ms in over}
        return ends, going_on

    def _taken_over(self, event: ActiveEvent, end_ms: int, n: int, now: Now) -> Bools:
        """Devices that an event has from `end_ms` on which may go on with the setpoint of `event`."""
        known = self._next.get(end_ms)
        if known is None or now.mono_ms - known[0] >= ASKED_EVERY_MS:
            then = Now(utc_ms=end_ms, mono_ms=now.mono_ms + end_ms - now.utc_ms)
            events = self._dispatcher.active(then)
            known = self._next[end_ms] = (now.mono_ms, events, self._dispatcher.claims(events, then, {}))
        _, others, claims = known
        found: Bools = np.zeros(n, dtype=np.bool_)
        for other in others:
            if _holds(other) and (event.preparing or other.target.shares_with(event.target)):
                mine = claims.shares[other.index]
                found[: len(mine)] |= mine[:n]
        return found


def _holds(event: ActiveEvent) -> bool:
    """Whether an event keeps its devices under control."""
    return event.actuates and event.target.want is not Want.SELF_CONSUMPTION
