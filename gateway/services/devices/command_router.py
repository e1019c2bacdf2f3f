"""Many links as one: each device's commands go to the link that serves its profile."""

import asyncio
from collections.abc import Sequence

import numpy as np

from gateway.domain.commands import CommandBatch, WriteOutcome, WriteReport
from gateway.domain.fleet.fleet import Fleet
from gateway.ports.links import CommandTarget


class CommandRouter:
    """A `CommandTarget` over several. The first link serves every profile that no other names."""

    def __init__(
        self, fleet: Fleet, main: CommandTarget, others: Sequence[tuple[frozenset[int], CommandTarget]]
    ) -> None:
        self._fleet = fleet
        self._main = main
        self._others = others

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        """Split a batch by link, write the parts concurrently, and merge the reports in the batch's order."""
        profile = self._fleet.nameplate.profile[batch.slots]
        rest = np.ones(len(batch), dtype=np.bool_)
        parts: list[tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], CommandTarget]] = []
        for profiles, link in self._others:
            mine = np.isin(profile, list(profiles))
            if mine.any():
                parts.append((mine, link))
                rest &= ~mine
        if not parts:
            return await self._main.write(batch, deadline_mono_ms=deadline_mono_ms)
        if rest.any():
            parts.append((rest, self._main))
        reports = await asyncio.gather(
            *(link.write(_rows(batch, mine), deadline_mono_ms=deadline_mono_ms) for mine, link in parts)
        )
        delivery = np.full(len(batch), int(WriteOutcome.NOT_SENT), dtype=np.int8)
        for (mine, _), report in zip(parts, reports, strict=True):
            delivery[mine] = report.delivery
        return WriteReport(delivery=delivery)


def _rows(batch: CommandBatch, mine: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> CommandBatch:
    return CommandBatch(**{name: getattr(batch, name)[mine] for name in CommandBatch.__dataclass_fields__})
