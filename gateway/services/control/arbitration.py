"""Gathers what arbitration needs, applies what it says: which event has which device, and who is excluded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.control.authority import barred
from gateway.domain.control.conditions import conditions
from gateway.domain.control.marks import Marks
from gateway.domain.events.arbitration import Claims
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import Change
from gateway.domain.types import Bools, EventId, Now, Slots
from gateway.services.control.authority import DeviceAuthority
from gateway.services.control.maintenance import NAMES
from gateway.services.control.quarantine import QuarantineWatch
from gateway.services.events.intake import Dispatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Arbitrated:
    """Which event has which devices. `left`: the devices whose owners opted out, by event, and `apart` those that take
    no part in its program; `asked`: `ExclusionReason` bits that are asked for, in force or not yet; `changes`: what the
    journal should remember."""

    events: Sequence[ActiveEvent]
    claims: Claims
    left: Mapping[int, Slots]
    apart: Mapping[int, Slots]
    asked: NDArray[np.uint8]
    changes: Sequence[Change]

    def out_of(self, event: int) -> Slots:
        """The devices that an event (by its index) leaves alone, whatever the reason."""
        nobody = np.zeros(0, dtype=np.int32)
        return np.concatenate([self.left.get(event, nobody), self.apart.get(event, nobody)])


class Arbiter:
    """Gives devices to events. `step_w`: the most power that exclusions take away in a tick."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        dispatcher: Dispatcher,
        authority: DeviceAuthority,
        quarantine: QuarantineWatch,
        step_w: float,
    ) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._authority = authority
        self._quarantine = quarantine
        self._step_w = step_w

    def arbitrate(self, events: Sequence[ActiveEvent], own: Mapping[int, Slots], now: Now) -> Arbitrated:
        """Give devices to `events`, and set what else holds for each. `own`: the devices of maintenance."""
        dispatcher, snapshot = self._dispatcher, self._fleet.snapshot()
        dispatcher.excluding.observe_events(events, now)
        claims = dispatcher.claims(events, now, own)
        asked = self._asked(snapshot.n, now)
        raised_pct = dispatcher.exclusions.raised_reserve_pct(self._fleet, now)[: snapshot.n]
        held = conditions(events, claims, snapshot, asked, raised_pct, self._step_w)
        held.apply(self._fleet.columns().control)
        changes: list[Change] = []
        left = self._authority.left(claims.holder)
        if left:
            changes += dispatcher.taken_back.add(left, self.names(), now)
        excused = self._authority.excused()
        if excused:
            changes += dispatcher.taken_back.excuse(excused)
        self._authority.return_left(dispatcher.taken_back.held(now))
        return Arbitrated(
            events=events, claims=claims, left=self._left(events, now), apart=dispatcher.left_out(events, now),
            asked=asked, changes=changes,
        )  # fmt: skip

    def barred(self, arbitrated: Arbitrated, marks: Marks, now: Now) -> Bools:
        """Commands, by row, that may not go out any more, by what came since they were decided."""
        excluded: Bools = (self._asked(len(arbitrated.asked), now) & ~arbitrated.asked) != 0
        for of in (self._dispatcher.opted_out, self._dispatcher.left_out):
            for index, slots in of(arbitrated.events, now).items():
                excluded[slots] |= arbitrated.claims.shares[index][slots]
        return barred(self._fleet.snapshot(), marks, excluded)

    def names(self) -> dict[int, EventId]:
        """The ids of events by index, those of maintenance too."""
        return {index: entry.request.id for index, entry in self._dispatcher.by_index().items()} | dict(NAMES)

    def _asked(self, n: int, now: Now) -> NDArray[np.uint8]:
        """`ExclusionReason` bits that are asked for, of the first `n` devices: by choice, by the devices themselves, by
        quarantine, by an import."""
        bits = self._dispatcher.exclusions.bits(self._fleet, now)[:n]
        bits |= (self._fleet.live.opt_out[:n] != 0) * np.uint8(ExclusionReason.OPTED_OUT)
        bits |= self._quarantine.exclusions()[:n]
        bits[[slot for slot in self._fleet.moving if slot < n]] |= np.uint8(ExclusionReason.MOVING)
        bits[[slot for slot in self._fleet.departing if slot < n]] |= np.uint8(ExclusionReason.DEPARTING)
        return bits

    def _left(self, events: Sequence[ActiveEvent], now: Now) -> dict[int, Slots]:
        """Devices whose owners opted out, by event."""
        exclusions = self._fleet.snapshot().control.exclusions
        everywhere = np.flatnonzero(exclusions & np.uint8(ExclusionReason.OPTED_OUT)).astype(np.int32)
        found = dict.fromkeys((event.index for event in events), everywhere)
        for index, own in self._dispatcher.opted_out(events, now).items():
            found[index] = np.union1d(everywhere, own).astype(np.int32)
        return {index: slots for index, slots in found.items() if len(slots)}
