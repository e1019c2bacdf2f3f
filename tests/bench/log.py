"""Log: interval records appended, committed and read out again, against raw SQLite.

`raw_x`: rows per second appended by the interval log, in its own thread beside an idle loop, over those of the plain
way on the main thread: tuples made of the same columns, `executemany`, the same schema, pragmas and rows per commit,
on the same file system. `busy_x`: rows per second beside a loop that never rests over those beside an idle one; there
every statement has to win the interpreter back. What is read out becomes records on our side and stays tuples on the
raw one. `columns_raw_x`: rows per second read as columns, each record checked against its hash, over those of `select`
and `fetchall` of the same columns from the same files, turn by turn beside an idle loop; the limit is SQLite's copy of
a page's rows, about a third of the time, then the check of every name and the decoding. The limit of the others is
SQLite: its B-tree of identities and the WAL are the same on both sides; beside a saturated loop
it is the switch interval of the interpreter, once per statement, and the core that the loop takes.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gateway.clock import ManualClock
from gateway.domain.intervals.record import EnergySource
from gateway.domain.intervals.records import RECORD_COLUMNS, IntervalRecords, sealed
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.positions import START
from gateway.storage.interval_log.rows import COLUMNS, columns_of, create_sql
from gateway.storage.recovery import Unlogged
from tests.bench.rig import aim, report

BATCH_ROWS = 20_000
PAGE_ROWS = 10_000
T0_MS = 1_800_000_000_000
LENGTH_S = 300
# What one turn of the saturated loop does: less than any callback of ours.
TURN = range(200)


def closes_of(interval: int, rng: np.random.Generator) -> IntervalRecords:
    """One interval of every device, in the order of slots; some did not tell everything."""
    n = BATCH_ROWS
    columns = {name: rng.uniform(0, 100, n).astype(dtype) for name, dtype in RECORD_COLUMNS.items()}
    columns |= {
        "slots": np.arange(n, dtype=np.int32),
        "start_ms": np.full(n, T0_MS + interval * LENGTH_S * 1000, dtype=np.int64),
        "length_s": np.full(n, LENGTH_S, dtype=np.int64),
        "revision": np.ones(n, dtype=np.int32),
        "source": np.full(n, EnergySource.COUNTER, dtype=np.int8),
        "soc_end_pct": np.where(rng.random(n) < 0.1, np.nan, rng.uniform(0, 100, n).round()),
    }
    return sealed(IntervalRecords(**columns))


def batches_of(n: int) -> list[Unlogged]:
    rng = np.random.default_rng(1)
    ids = [f"home-{slot:06d}" for slot in range(BATCH_ROWS)]
    return [Unlogged(record=i + 1, records=closes_of(i, rng), ids=ids) for i in range(n // BATCH_ROWS)]


@asynccontextmanager
async def saturated(busy: bool) -> AsyncIterator[None]:
    """While the block runs, the loop always has something to do."""

    async def turns() -> None:
        while True:
            for _ in TURN:
                pass
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(turns(), name="turns") if busy else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()


def measured(n: int, append_s: float, read_s: float, directory: Path) -> dict[str, float]:
    size = sum(path.stat().st_size for path in directory.glob("0*.sqlite*"))
    return {"append_s": append_s, "read_s": read_s, "bytes_per_row": size / n}


async def ours(batches: Sequence[Unlogged], directory: Path, *, busy: bool) -> dict[str, float]:
    """A commit per batch, then everything read out in pages."""
    n = len(batches) * BATCH_ROWS
    async with IntervalLog(directory, clock=ManualClock(utc_ms=T0_MS)) as log, saturated(busy):
        began = time.perf_counter()
        for batch in batches:
            await log.append([batch])
        append_s = time.perf_counter() - began
        began, cursor, seen = time.perf_counter(), START, 0
        while True:
            rows, cursor = await log.read(cursor, PAGE_ROWS)
            if not rows:
                break
            seen += len(rows)
        read_s = time.perf_counter() - began
    assert (seen, log.stats.rows) == (n, n)
    return measured(n, append_s, read_s, directory)


def raw(batches: Sequence[Unlogged], directory: Path) -> dict[str, float]:
    """The same by the plain way."""
    n, names, places = len(batches) * BATCH_ROWS, ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
    select = f"select id, {names} from interval where id > ? order by id limit ?"  # noqa: S608
    insert = f"insert into interval ({names}) values ({places})"  # noqa: S608 own constants
    with closing(sqlite3.connect(directory / "00000001.sqlite", isolation_level=None)) as db:
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        db.executescript(create_sql(0))
        began = time.perf_counter()
        for batch in batches:
            columns = columns_of(batch.records, batch.ids)
            db.execute("begin immediate")
            db.executemany(insert, zip(*columns, strict=True))
            db.execute("update position set record = ?", (batch.record,))
            db.execute("commit")
        append_s = time.perf_counter() - began
        began, seen = time.perf_counter(), 0
        while rows := db.execute(select, (seen, PAGE_ROWS)).fetchall():
            seen = rows[-1][0]
        read_s = time.perf_counter() - began
    assert seen == n
    return measured(n, append_s, read_s, directory)


async def columns_against_raw(batches: Sequence[Unlogged], directory: Path, turns: int) -> list[dict[str, float]]:
    """Everything read out, as columns by us and as tuples the plain way."""
    n, names = len(batches) * BATCH_ROWS, ", ".join(("id", *COLUMNS))
    select = f"select {names} from interval where id > ? order by id limit ?"  # noqa: S608 own constants
    took: list[dict[str, float]] = []
    async with IntervalLog(directory, clock=ManualClock(utc_ms=T0_MS)) as log:
        for batch in batches:
            await log.append([batch])
        (path,) = log.files_from(T0_MS)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            for _ in range(turns):
                began, cursor, seen = time.perf_counter(), START, 0
                while len((page := await log.read_columns(cursor, PAGE_ROWS))[0]):
                    columns, _, cursor = page
                    seen += len(columns)
                columns_s = time.perf_counter() - began
                assert seen == n
                began, seen = time.perf_counter(), 0
                while rows := db.execute(select, (seen, PAGE_ROWS)).fetchall():
                    seen = rows[-1][0]
                took.append({"columns_s": columns_s, "tuples_s": time.perf_counter() - began})
                assert seen == n
    return took


def size(load: str, n: int, rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    middle = {name: median(found[name] for found in rounds) for name in rounds[0]}
    return {
        "n": n,
        "load": load,
        "rows_per_commit": BATCH_ROWS,
        "rounds": len(rounds),
        "seconds": round(middle["append_s"] + middle["read_s"], 4),
        "append_s": round(middle["append_s"], 4),
        "read_s": round(middle["read_s"], 4),
        "items_per_s": round(n / middle["append_s"]),
        "read_items_per_s": round(n / middle["read_s"]),
        "worst_append_s": round(max(found["append_s"] for found in rounds), 4),
        "bytes_per_row": round(middle["bytes_per_row"], 1),
    }


async def run(*, quick: bool, n: int = 200_000) -> dict[str, Any]:
    # Not pinned to one core: the log's thread beside the loop is what is measured.
    rounds = 1 if quick else 7
    batches = batches_of(n)
    found: dict[str, list[dict[str, float]]] = {"idle": [], "saturated": [], "raw": []}
    for _ in range(rounds):
        for load, into in found.items():
            with TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd()) as directory:
                if load == "raw":
                    into.append(raw(batches, Path(directory)))
                else:
                    into.append(await ours(batches, Path(directory), busy=load == "saturated"))
    with TemporaryDirectory(prefix="gateway-bench-", dir=Path.cwd()) as directory:
        turns = await columns_against_raw(batches, Path(directory), 2 * rounds)
    sizes = [size(load, n, into) for load, into in found.items()]
    idle, busy, plain = (entry["items_per_s"] for entry in sizes)
    columns_s, tuples_s = (median(turn[name] for turn in turns) for name in ("columns_s", "tuples_s"))
    sizes[0] |= {"columns_items_per_s": round(n / columns_s), "tuples_items_per_s": round(n / tuples_s)}
    columns_x = median(turn["tuples_s"] / turn["columns_s"] for turn in turns)
    ratios = {"raw_x": idle / plain, "busy_x": busy / idle, "columns_raw_x": columns_x}
    least = {"raw_x": 0.5, "busy_x": 0.5, "columns_raw_x": 1.8}
    aims = {name: aim(value, least=least[name]) for name, value in ratios.items()}
    return report("log", sizes=sizes, ratios=ratios, aims=aims)
