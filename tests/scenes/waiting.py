"""Waiting in tests: on conditions, with a generous ceiling."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

CEILING_S = 30.0


async def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Until `condition` holds, looked at on every turn of the loop and at least every 5 ms."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CEILING_S
    while not condition():
        assert loop.time() < deadline, f"not within {CEILING_S:g} s: {what}"
        await asyncio.sleep(0.005)


async def turns(count: int = 20) -> None:
    """Let everything run that is ready now."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def service(run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Keep a service running; its failure fails the test."""

    async def keep() -> None:
        await run()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(keep(), name="service")
        try:
            yield
        finally:
            task.cancel()
