"""Release-only: the tick of a gateway that has broken down several times in a row. It hands devices back, and no more.

Devices without a timer are released, spread over time; timed leases run out. No event is arbitrated, no limit computed,
nothing tracked, judged or maintained: what broke must not be in the way of a release.
"""

import numpy as np

from gateway.domain.control.authority import HandBackParams, turns
from gateway.domain.control.planning import PlanParams, releases
from gateway.domain.events.arbitration import NOBODY
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import NEVER_MS, Ints, Now, Slots
from gateway.services.control.authority import DeviceAuthority
from gateway.services.control.command_writer import CommandWriter
from gateway.services.runtime.pending_changes import PendingChanges

AGAIN_MS = 5_000
"""A release that was not sent is tried again after this time."""


class ReleaseOnly:
    """Releases what would not revert by itself, and, once dispatch is stopped (`everything`), all devices."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        authority: DeviceAuthority,
        writer: CommandWriter,
        pending: PendingChanges,
        hand_back: HandBackParams,
    ) -> None:
        self._fleet = fleet
        self._authority = authority
        self._writer = writer
        self._pending = pending
        self._hand_back = hand_back
        self._tried_ms: Ints = np.zeros(0, dtype=np.int64)

    async def tick(self, now: Now, *, everything: bool) -> None:
        """One round: who is free by now, whose turn it is, write."""
        self._pending.owe(self._authority.end(now))
        snapshot = self._fleet.snapshot()
        n = snapshot.n
        if len(self._tried_ms) < n:
            fresh = np.full(n - len(self._tried_ms), NEVER_MS, dtype=np.int64)
            self._tried_ms = np.concatenate([self._tried_ms, fresh])
        nobody = np.zeros(n, dtype=np.bool_)
        kept = nobody if everything else snapshot.nameplate.timed
        turn = turns(snapshot, kept, now, nobody, None, self._hand_back)
        self._fleet.columns().control.release_mono_ms[:] = turn.release_mono_ms
        due = turn.release & (now.mono_ms - self._tried_ms[:n] >= AGAIN_MS)
        todo = releases(snapshot, now, PlanParams(), due)
        self._tried_ms[todo.slots] = now.mono_ms
        none: Slots = np.zeros(0, dtype=np.int32)
        marked = self._writer.mark(todo, none, np.full(n, NOBODY, dtype=np.int32), now, names={})
        self._fleet.writing = np.zeros(n, dtype=np.bool_)
        self._fleet.writing[todo.slots] = True
        try:
            await self._writer.carry_out(marked, lambda marks: np.zeros_like(marks.taken))
        finally:
            self._fleet.writing = np.zeros(0, dtype=np.bool_)
