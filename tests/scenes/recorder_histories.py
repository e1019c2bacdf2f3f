"""A recorder on a real directory, fed with random histories, for tests of storage."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.clock import ManualClock
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.records import NO_RECORDS, IntervalRecords
from gateway.domain.intervals.types import IntervalRules
from gateway.services.telemetry.recorder import Recorder
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.recovery import Recovered, Unlogged, recover
from tests.builders.energy_batches import EVER_MS, T0, at, random_batch

RULES = IntervalRules(length_s=60, counter_step_wh=10.0, close_slice=2)
CEILING_S = 30.0
DEVICES = 4

State = dict[str, bytes]


def state_of(engine: Engine) -> State:
    """The whole engine, to the bit."""
    out = {name: column.tobytes() for name, column in engine.columns().items()}
    out["rules"] = repr(engine.rules).encode()
    return out


def column(engine: Engine, name: str) -> NDArray[np.generic]:
    return engine.columns()[name]


def restarted(directory: Path, ids: Sequence[str], *, logged: int = 0, rules: IntervalRules = RULES) -> Recovered:
    """What a new process finds."""
    return recover(
        checkpoints=Checkpoints(directory / "checkpoints"),
        spool=directory / "spool",
        rules=rules,
        ids=ids,
        logged_record=logged,
    )


@asynccontextmanager
async def session(
    directory: Path,
    ids: list[str],
    *,
    rules: IntervalRules = RULES,
    segment_bytes: int = 1 << 20,
    max_bytes: int = 8 << 30,
    queue_bytes: int = 32 << 20,
    logged: int = 0,
) -> AsyncIterator[tuple[Recorder, Checkpoints]]:
    """One life of the process: recovery, then a recorder that runs."""
    found = restarted(directory, ids, logged=logged, rules=rules)
    recorder = Recorder(found.engine, ids=ids, clock=ManualClock(utc_ms=T0), unlogged=found.unlogged)
    spool = recorder.open_spool(
        directory / "spool",
        first_record=found.next_record,
        corrupt=found.corrupt,
        segment_bytes=segment_bytes,
        max_bytes=max_bytes,
        queue_bytes=queue_bytes,
    )
    async with spool:
        recorder.begin(rules, at(0))
        yield recorder, Checkpoints(directory / "checkpoints")


async def settle(recorder: Recorder) -> None:
    """Wait until everything appended is durable."""
    async with asyncio.timeout(CEILING_S):
        await recorder.spool.wait_durable(recorder.spool.last_record)


def step(
    recorder: Recorder, rng: np.random.Generator, ids: list[str], seconds: float, made: list[IntervalRecords]
) -> None:
    """One random step: a batch, the timer, other terms, a repair from what was `made`, or a device that is new."""
    what = rng.random()
    if what < 0.15 or not ids:
        ids.append(f"bat-{len(ids)}")
    if what < 0.75:
        rated = np.full(len(ids), 5000.0)
        batch = random_batch(rng, int(rng.integers(1, 20)), devices=len(ids), length_s=60, spread=5)
        made.append(recorder.ingest(batch, at(seconds), rated).taken.records)
    elif what < 0.8:
        recorder.agree(
            AgreedConfig(
                slots=np.array([rng.integers(len(ids))], dtype=np.int32), length_s=np.array([rng.choice((60, 300))]),
                counter_step_wh=np.array([rng.choice((1.0, 100.0))]), rated_w=np.array([5000.0]),
            ),
            at(seconds),
        )  # fmt: skip
    elif what < 0.9:
        slots, starts = recorder.engine.repairs_due(at(seconds), int(rng.integers(1, 20)), EVER_MS)
        wanted = set(zip(slots.tolist(), starts.tolist(), strict=True))
        bases = [c.rows(np.array([i])) for c in made for i in range(len(c)) if (c.slots[i], c.start_ms[i]) in wanted]
        recorder.repair(slots, starts, bases[-1] if bases else NO_RECORDS, at(seconds))
    else:
        recorder.close_due(at(seconds))


def content(found: Unlogged) -> tuple[int, list[str], bytes]:
    closes = found.records
    names = [found.ids[slot] for slot in closes.slots.tolist()]
    return found.record, names, b"".join(getattr(closes, c).tobytes() for c in ("start_ms", "revision", "charge_wh"))
