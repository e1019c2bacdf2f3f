"""Stores settlement telemetry until it is killed; run by `test_kill`. Prints a line per durable commit."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.clock import ManualClock
from gateway.services.telemetry.recorder import Recorder
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.interval_log.log import IntervalLog
from tests.builders.energy_batches import T0, at, batch, row
from tests.scenes.recorder_histories import RULES as USUAL
from tests.scenes.recorder_histories import restarted

DEVICES = 20
# the devices here run at paces of their own, which is not what a wrong clock looks like
RULES = replace(USUAL, skew_ms=USUAL.past_ms)
SPAN_S = 10


def rows_from(first: list[int], rng: np.random.Generator) -> list[dict[str, float]]:
    """A few messages per device from `first` on, repeats of earlier ones among them."""
    out = []
    for slot, seq in enumerate(first):
        for s in range(max(1, seq - int(rng.integers(0, 3))), seq + int(rng.integers(0, 4))):
            out.append(row(slot=slot, seq=s, t=s * SPAN_S, span=SPAN_S, charge_wh=1.0, discharge_wh=0.0))
    return out


async def main(directory: Path) -> None:
    ids = [f"bat-{i}" for i in range(DEVICES)]
    acked_file = os.open(directory / "acked", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sent_file = os.open(directory / "sent", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    clock = ManualClock(utc_ms=T0)
    async with IntervalLog(directory / "log", clock=clock) as log:
        found = restarted(directory, ids, logged=log.position)
        recorder = Recorder(found.engine, ids=ids, clock=clock, unlogged=found.unlogged)
        waiting: list[tuple[int, list[dict[str, float]]]] = []

        def durable(record: int) -> None:
            note = []
            while waiting and waiting[0][0] <= record:
                note += [[r["slot"], r["seq"], r["seq"]] for r in waiting.pop(0)[1]]
            os.write(acked_file, b"".join(json.dumps(n).encode() + b"\n" for n in note))
            print("durable", flush=True)

        spool = recorder.open_spool(
            directory / "spool",
            first_record=found.next_record,
            corrupt=found.corrupt,
            segment_bytes=30_000,
        )
        rng = np.random.default_rng(os.getpid())
        checkpoints = Checkpoints(directory / "checkpoints")
        # The devices go on where recovery says they are: messages not acknowledged are sent again.
        first = [int(high) + 1 for high in found.engine.columns()["seen.high"].tolist()]
        async with spool:
            recorder.begin(RULES, at(max(first) * SPAN_S))
            for index in range(100_000):
                rows = rows_from(first, rng)
                newest = max(*first, *(int(r["seq"]) for r in rows))
                os.write(
                    sent_file, b"".join(json.dumps([r["slot"], r["seq"], r["seq"]]).encode() + b"\n" for r in rows)
                )
                if rows:
                    waiting.append((recorder.ingest(batch(rows), at(newest * SPAN_S)).record, rows))
                    for r in rows:
                        first[int(r["slot"])] = max(first[int(r["slot"])], int(r["seq"]) + 1)
                recorder.close_due(at(newest * SPAN_S))
                await spool.wait_durable(spool.last_record)
                durable(spool.durable_record)
                ready = recorder.unlogged()
                if ready and index % 3 == 0:
                    await log.append(ready)
                    recorder.logged(ready[-1].record)
                if index % 7 == 6:
                    await recorder.checkpoint(checkpoints, at(newest * SPAN_S), {})


asyncio.run(main(Path(sys.argv[1])))
