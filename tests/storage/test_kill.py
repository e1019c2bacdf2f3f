"""A process that stores settlement telemetry is killed at random; what it acknowledged is there afterwards, once.

The child takes batches of devices without counters, "acknowledges" (appends to a file of its own, one write per
commit) what became durable, writes closes to the interval log, and checkpoints often. Per interval, distinct
acknowledged messages <= samples <= distinct sent, and the energy is exactly that of the samples.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.positions import START
from tests.builders.energy_batches import T0, at
from tests.depth import SEED
from tests.scenes.recorder_histories import restarted

DEVICES = 20
SPAN_S = 10
LENGTH_S = 60
FINAL_S = 10_000_000
CHILD = Path(__file__).with_name("kill_child.py")
CEILING_S = 60.0


async def life(directory: Path, rng: random.Random) -> None:
    """One child, killed some commits after it began to acknowledge."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), str(directory), stdout=asyncio.subprocess.PIPE
    )
    commits = rng.randrange(1, 60)
    try:
        async with asyncio.timeout(CEILING_S):
            for _ in range(commits):
                line = await (process.stdout or pytest.fail("no pipe")).readline()
                assert line, "the child ended by itself"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(CEILING_S):
            await process.communicate()


def lines(path: Path) -> list[list[int]]:
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
    return [json.loads(line) for line in whole]


async def judge(directory: Path) -> int:
    """Compare the log and what recovery still holds with the child's own records; returns how many were acked."""
    acked: dict[tuple[int, int], set[int]] = defaultdict(set)
    sent: dict[tuple[int, int], set[int]] = defaultdict(set)
    for path, into in ((directory / "acked", acked), (directory / "sent", sent)):
        for slot, first, last in lines(path):
            for seq in range(first, last + 1):
                into[slot, (seq * SPAN_S - 1) // LENGTH_S].add(seq)
    ids = [f"bat-{i}" for i in range(DEVICES)]
    newest: dict[tuple[int, int], tuple[int, int, float]] = {}
    async with IntervalLog(directory / "log", clock=ManualClock(utc_ms=T0)) as log:
        found = restarted(directory, ids, logged=log.position)
        await log.append(found.unlogged)
        cursor, rows = START, []
        while True:
            some, cursor = await log.read(cursor, 10_000)
            if not some:
                break
            rows += some
        assert (log.stats.conflicting, log.stats.repeated) == (0, 0)
    assert found.stats.mismatches == 0
    for row in rows:
        key = (ids.index(row.device), (row.start_ms - T0) // (LENGTH_S * 1000))
        assert row.revision == newest.get(key, (0,))[0] + 1
        newest[key] = (row.revision, row.samples, row.charge_wh or 0.0)
    closes = found.engine.close_due(at(FINAL_S))
    while len(closes):
        for slot, start, samples, wh in zip(
            closes.slots.tolist(),
            closes.start_ms.tolist(),
            closes.samples.tolist(),
            closes.charge_wh.tolist(),
            strict=True,
        ):
            newest[slot, (start - T0) // (LENGTH_S * 1000)] = (0, samples, wh)
        closes = found.engine.close_due(at(FINAL_S))
    assert newest.keys() <= sent.keys()
    for key, messages in sent.items():
        _, samples, wh = newest.get(key, (0, 0, 0.0))
        assert len(acked[key]) <= samples <= len(messages), key
        assert wh == float(samples)
    return sum(map(len, acked.values()))


async def rounds(directory: Path, n: int, seed: int) -> None:
    rng = random.Random(seed)
    acked = 0
    for _ in range(n):
        await life(directory, rng)
        now = await judge(directory)
        assert now >= acked
        acked = now
    assert acked > 0


@pytest.mark.fault("F37")
async def test_storage_killed_at_random_keeps_what_was_acknowledged_once(tmp_path: Path) -> None:
    await rounds(tmp_path, 4, seed=1)


@pytest.mark.deep
async def test_storage_killed_many_times_keeps_what_was_acknowledged_once(tmp_path: Path) -> None:
    await rounds(tmp_path, 60, seed=SEED + 2)
