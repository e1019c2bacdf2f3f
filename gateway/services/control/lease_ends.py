"""Which events are over before a lease given now would be, and which devices another event has then."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from gateway.domain.events.arbitration import NOBODY, Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Target, Want
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.types import NEVER_MS, Bools, Ints, Now
from gateway.services.events.intake import Dispatcher

ASKED_EVERY_MS = 5_000
"""How old an answer may be to the question which event has a device next."""

ASKED_AT_ONCE = 4
"""For so many ends the question is asked in a tick. Until there is an answer nobody is taken to go on: a lease that
ends with its event is renewed by the next one."""


KEPT_MS = 30_000
"""An answer that is older is none: few of many ends are asked about in a tick."""

NO_END_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class _Next:
    """Who has which devices from an end on, as of `asked_mono_ms`: per kind of target that share a setpoint, one target
    of the kind, and by device until when (UTC) an event of the kind has it (0: none has)."""

    asked_mono_ms: int
    kinds: Sequence[tuple[Target, Ints]]


class _Ending:
    """Devices by the end of the event that has them: for each end, per kind of target (None: any, while an event is in
    preparation), which."""

    def __init__(self) -> None:
        self._at: dict[int, list[tuple[Target | None, Bools]]] = {}

    def add(self, end_ms: int, target: Target | None, mine: Bools) -> None:
        same = self._at.setdefault(end_ms, [])
        for number, (known, devices) in enumerate(same):
            if known is None if target is None else known is not None and known.shares_with(target):
                same[number] = known, devices | mine
                return
        same.append((target, mine))

    @property
    def ends_ms(self) -> Set[int]:
        return self._at.keys()

    def first(self) -> tuple[int, list[tuple[Target | None, Bools]]]:
        """Take the earliest end."""
        end_ms = min(self._at)
        return end_ms, self._at.pop(end_ms)


class LeaseEnds:
    """Looks ahead to the ends of running events."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._next: dict[int, _Next] = {}
        self._later_ms: set[int] = set()

    def observe(
        self, events: Sequence[ActiveEvent], claims: Claims, snapshot: Snapshot, now: Now
    ) -> tuple[list[tuple[Bools, int]], Bools]:
        """The devices that no event has any more after an end within the longest lease, and when that is (monotonic),
        however many events have them one after the other until then; and all devices that are not handed back within
        the lease. An event of the gateway itself has no end of its own."""
        horizon_ms = now.utc_ms + round(1000 * float(snapshot.nameplate.lease_s.max(initial=0.0)))
        going_on: Bools = np.zeros(snapshot.n, dtype=np.bool_)
        ending = _Ending()
        for event in events:
            if not _holds(event):
                continue
            if _until_ms(event) > horizon_ms:
                going_on |= claims.shares[event.index]
            else:
                ending.add(_until_ms(event), None if event.preparing else event.target, claims.shares[event.index])
        self._ask(ending.ends_ms | self._later_ms, now)
        self._later_ms = set()
        ends: list[tuple[Bools, int]] = []
        while ending.ends_ms:
            end_ms, groups = ending.first()
            for target, mine in groups:
                stays = self._go_on(end_ms, target, mine, horizon_ms, going_on, ending)
                ends.append((mine & ~stays, now.mono_ms + end_ms - now.utc_ms))
        return ends, going_on

    def _go_on(
        self, end_ms: int, target: Target | None, mine: Bools, horizon_ms: int, going_on: Bools, ending: _Ending
    ) -> Bools:
        """Which devices an event that shares their setpoint has after this end: noted by where they go on, beyond the
        horizon or to a later end."""
        stays: Bools = np.zeros(len(mine), dtype=np.bool_)
        for kind, until_ms in self._next[end_ms].kinds if end_ms in self._next else ():
            if target is not None and not kind.shares_with(target):
                continue
            n = min(len(until_ms), len(mine))
            slots = np.flatnonzero(mine[:n] & (until_ms[:n] > end_ms))
            stays[slots] = True
            far = until_ms[slots] > horizon_ms
            going_on[slots[far]] = True
            near = slots[~far]
            for later_ms in np.unique(until_ms[near]).tolist():
                goes_on: Bools = np.zeros(len(mine), dtype=np.bool_)
                goes_on[near[until_ms[near] == later_ms]] = True
                ending.add(later_ms, kind, goes_on)
                self._later_ms.add(later_ms)
        return stays

    def _ask(self, ends_ms: Set[int], now: Now) -> None:
        """Find out who has which devices after some of these ends: first of those that nobody asked about."""
        self._next = {
            end_ms: found
            for end_ms, found in self._next.items()
            if end_ms in ends_ms and now.mono_ms - found.asked_mono_ms < KEPT_MS
        }
        asked = dict.fromkeys(ends_ms, NEVER_MS) | {end_ms: found.asked_mono_ms for end_ms, found in self._next.items()}
        due = [(asked_ms, end_ms) for end_ms, asked_ms in asked.items() if now.mono_ms - asked_ms >= ASKED_EVERY_MS]
        for _, end_ms in sorted(due)[:ASKED_AT_ONCE]:
            then = Now(utc_ms=end_ms, mono_ms=now.mono_ms + end_ms - now.utc_ms)
            events = self._dispatcher.active(then, ahead=True)
            shares = self._dispatcher.claims(events, then, {}).shares
            self._next[end_ms] = _Next(now.mono_ms, _kinds([event for event in events if _holds(event)], shares))


def _kinds(events: Sequence[ActiveEvent], shares: Mapping[int, Bools]) -> list[tuple[Target, Ints]]:
    kinds: list[tuple[Target, Ints]] = []
    for event in events:
        mine = shares[event.index]
        until_ms = next((until for target, until in kinds if target.shares_with(event.target)), None)
        if until_ms is None:
            until_ms = np.zeros(len(mine), dtype=np.int64)
            kinds.append((event.target, until_ms))
        until_ms[mine] = np.maximum(until_ms[mine], _until_ms(event))
    return kinds


def _until_ms(event: ActiveEvent) -> int:
    """When an event (or its leg) is over; one of the gateway itself has no end of its own."""
    return NO_END_MS if event.index < NOBODY else event.running.until_ms


def _holds(event: ActiveEvent) -> bool:
    """Whether an event keeps its devices under control."""
    return event.actuates and event.target.want is not Want.SELF_CONSUMPTION
