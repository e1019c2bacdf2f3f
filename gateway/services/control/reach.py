"""Keeps which devices cannot be told anything although they report, and logs when that begins and ends."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.commands import CommandBatch, CommandOp, Unreached, WriteOutcome, WriteReport
from gateway.domain.control.reach import Attempts, Reach, note_attempts, pauses_s, reach
from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.types import Bools, Now, Slots

log = logging.getLogger(__name__)

EVERY_MS = 60_000
"""A broker that is away takes all devices with it, a few more in each tick: one line a minute covers them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreachableDevice:
    """Why a device cannot be told anything, since when, and when it is tried next; monotonic ms."""

    cause: Unreached
    since_mono_ms: int
    retry_mono_ms: int


class ReachWatch:
    """What became of the commands to each device."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._attempts = Attempts()
        self._newly: set[int] = set()
        self._logged = False
        self._logged_mono_ms: int | None = None

    def observe(self, snapshot: Snapshot, now: Now) -> Reach:
        """Who can be told anything in this tick."""
        self._grow(snapshot.n)
        found = reach(self._attempts, snapshot, now)
        self._log(found, now)
        return found

    def note(self, batch: CommandBatch, report: WriteReport, now: Now, *, urgent: Bools) -> None:
        """Note what became of commands; `urgent`: those that hand back or narrow."""
        self._grow(self._fleet.n)
        # a product that has no such operation can be told everything else
        told = (batch.op != int(CommandOp.RESERVE)) | (report.delivery != int(WriteOutcome.REFUSED))
        kept = slice(None) if told.all() else told
        new = note_attempts(
            self._attempts, batch.slots[kept], batch.cmd[kept], report.delivery[kept], now, urgent=urgent[kept]
        )
        self._newly.update(new.tolist())

    def note_not_durable(self, slots: Slots, now: Now) -> None:
        """Note devices that were not told anything since the journal did not take their release plans."""
        self._grow(self._fleet.n)
        none = np.zeros(len(slots), dtype=np.int64)
        new = note_attempts(
            self._attempts, slots, none, none.astype(np.int8), now, urgent=none != 0, unsent=Unreached.NOT_DURABLE
        )
        self._newly.update(new.tolist())

    def _grow(self, n: int) -> None:
        if len(self._attempts.cause) < n:
            self._attempts.grow(n)

    def _log(self, found: Reach, now: Now) -> None:
        count = int(np.count_nonzero(found.cause))
        if not count:
            if self._logged:
                log.info("all devices can be told what they are to do again")
            self._logged = False
            self._newly.clear()
        elif self._newly and (self._logged_mono_ms is None or now.mono_ms - self._logged_mono_ms >= EVERY_MS):
            self._logged, self._logged_mono_ms = True, now.mono_ms
            first = min(self._newly)
            log.warning(
                "devices that report cannot be told what they are to do; others make up for them",
                extra={
                    "count": count, "new": len(self._newly), "first": self._fleet.ids[first],
                    "reason": Unreached(int(self._attempts.cause[first])).name.lower(),
                },
            )  # fmt: skip
            self._newly.clear()

    def unreachable(self, n: int) -> Bools:
        """Which of the first `n` devices cannot be told anything."""
        found: Bools = np.zeros(n, dtype=np.bool_)
        known = self._attempts.cause[:n]
        found[: len(known)] = known != Unreached.NONE
        return found

    def of(self, slot: int) -> UnreachableDevice | None:
        """Why a device cannot be told anything; None where it can."""
        kept = self._attempts
        if slot >= len(kept.cause) or not kept.cause[slot]:
            return None
        return UnreachableDevice(
            cause=Unreached(int(kept.cause[slot])),
            since_mono_ms=int(kept.since_mono_ms[slot]),
            retry_mono_ms=int(kept.tried_mono_ms[slot]) + round(1000 * float(pauses_s(kept, np.array([slot]))[0])),
        )

    def counts(self) -> Iterable[tuple[Unreached, int]]:
        """Devices that cannot be told anything, by cause."""
        found: NDArray[np.intp] = np.bincount(self._attempts.cause, minlength=len(Unreached))
        return [(cause, int(found[cause])) for cause in Unreached if cause is not Unreached.NONE]
