"""Gives out command ids, which grow over restarts, and jumps ahead where the devices know later ones than ours."""

import logging
from collections.abc import Iterable

import numpy as np

from gateway.domain.commands import CommandResult
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.journal.changes import EPOCH_MAX, Change, EpochRaised
from gateway.domain.types import Now
from gateway.observability.metrics import Sample, counter, gauge

log = logging.getLogger(__name__)

EPOCH_BITS = 32

DEVICES_AHEAD = gauge("gateway_devices_ahead", "Devices under control that know later commands than ours.")
JUMPS = counter("gateway_command_id_jumps", "Times command ids jumped ahead of what devices know.")

MOST_SHARE = 0.5
"""Ids jump where more than this share of the devices under control, of those that have answered, calls ours older. One
device that always says so moves nothing."""

JUMP_EVERY_MS = 10_000
"""A jump is twice as far as the one before, and none follows before the answers to it are in."""


class CommandIds:
    """The upper part of an id is the journal's `epoch`."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self.newest = epoch << EPOCH_BITS
        self.older = self.answered = self.jumps = 0
        self._step = 1
        self._jumped_ms: int | None = None

    def take(self, n: int) -> int:
        """The first of `n` new ids."""
        first = self.newest + 1
        self.newest += n
        return first

    def observe(self, snapshot: Snapshot, now: Now) -> list[Change]:
        """Jump ahead if most devices call our newest commands older than what they know: a gateway whose state was lost
        begins below the ids it gave out before. Returns what the journal should remember."""
        control = snapshot.control
        answered = (control.authority == int(Authority.CONTROLLED)) & (control.result != int(CommandResult.NONE))
        self.answered = int(np.count_nonzero(answered))
        self.older = int(np.count_nonzero(answered & (control.result == int(CommandResult.OLDER))))
        if not self.behind:
            self._step = 1
            return []
        if self._jumped_ms is not None and now.mono_ms - self._jumped_ms < JUMP_EVERY_MS:
            return []
        epoch = min(self._epoch + self._step, EPOCH_MAX)
        if epoch == self._epoch:
            return []
        self._jumped_ms, self._epoch = now.mono_ms, epoch
        self._step *= 2
        self.jumps += 1
        self.newest = epoch << EPOCH_BITS
        log.error(
            "devices know later commands than ours, was a state directory lost? Command ids jump ahead",
            extra={"count": self.older, "of": self.answered, "epoch": epoch},
        )
        return [EpochRaised(epoch=epoch)]

    @property
    def behind(self) -> bool:
        """Whether most devices call our newest commands older."""
        return self.older > MOST_SHARE * self.answered

    def reasons(self) -> list[str]:
        """Why control is not ready."""
        if not self.behind:
            return []
        return [f"control: {self.older} of {self.answered} devices know later commands than ours and obey none"]

    def samples(self) -> Iterable[Sample]:
        yield DEVICES_AHEAD.sample(self.older)
        yield JUMPS.sample(self.jumps)
