"""What a checkpoint copies: a table at a time, each whole."""

import asyncio

import numpy as np

from gateway.services.checkpointing import copied


async def test_copied_columns_of_a_table_are_of_one_moment_and_others_run_between_tables() -> None:
    live = {"live/soc": np.zeros(3), "live/seen": np.zeros(3)}
    control = {"control/w": np.zeros(3), "control/lease": np.zeros(3)}

    async def other() -> None:
        for column in (*live.values(), *control.values()):
            column += 1

    task = asyncio.create_task(other())
    found = await copied(live | control)
    await task
    assert [found[name][0] for name in ("live/soc", "live/seen", "control/w", "control/lease")] == [0, 0, 1, 1]
    live["live/soc"][:] = 9
    assert found["live/soc"].tolist() == [0, 0, 0]
