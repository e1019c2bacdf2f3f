"""The list of everything that runs, in the order of start: tasks, metrics, readiness and the stop are made of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from gateway.observability.metrics import Metrics, registry
from gateway.observability.parts import Part
from gateway.services.runtime.supervisor import Supervisor

P = TypeVar("P", bound=Part)


class RunningParts:
    """The parts. Each closes when `stack` does, before those that started earlier, whatever others do then."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._parts: list[Part] = []

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts)

    async def start(self, part: P) -> P:
        """Open a part, and add it to the list."""
        await self._stack.enter_async_context(part)
        self._parts.append(part)
        return part

    def metrics(self) -> Metrics:
        """The metrics of the parts that are there by now."""
        return registry(
            [part.samples for part in self._parts],
            [histogram for part in self._parts for histogram in part.histograms],
        )

    @asynccontextmanager
    async def running(self, supervisor: Supervisor) -> AsyncIterator[None]:
        """Keep every part running that is a service, for as long as the block runs."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(supervisor.keep(part.service, part.run, part.importance), name=part.service)
                for part in self._parts
                if part.service
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
