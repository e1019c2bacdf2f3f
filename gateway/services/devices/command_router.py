"""Many links as one: each device's commands go to the link that serves its profile."""

import asyncio
from collections.abc import Sequence

import numpy as np

from gateway.domain.commands import CommandBatch, WriteOutcome, WriteReport
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.readings import AckToken
from gateway.ports.links import DeviceLink, Emit


class CommandRouter:
    """A `DeviceLink` over several. The first link serves every profile that no other names."""

    def __init__(self, fleet: Fleet, main: DeviceLink, others: Sequence[tuple[frozenset[int], DeviceLink]]) -> None:
        self._fleet = fleet
        self._main = main
        self._others = others

    async def run(self, emit: Emit) -> None:
        """Do nothing: each link runs as a service of its own."""

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        """Split a batch by link, write the parts concurrently, and merge the reports in the batch's order."""
        profile = self._fleet.nameplate.profile[batch.slots]
        rest = np.ones(len(batch), dtype=np.bool_)
        parts: list[tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], DeviceLink]] = []
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

    def acknowledge(self, token: AckToken) -> None:
        """Do nothing: tokens go back to the link they came from."""

    def pause_telemetry(self, on: bool) -> None:
        self._main.pause_telemetry(on)
        for _, link in self._others:
            link.pause_telemetry(on)

    def start_over(self) -> None:
        self._main.start_over()
        for _, link in self._others:
            link.start_over()


def _rows(batch: CommandBatch, mine: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> CommandBatch:
    return CommandBatch(**{name: getattr(batch, name)[mine] for name in CommandBatch.__dataclass_fields__})
