"""The Parquet sink, read back by pyarrow's own datasets: every row once, whatever was repeated, killed or refused."""

import asyncio
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
import yaml

from gateway.clock import ManualClock
from gateway.config.loader import load_settings
from gateway.domain.errors import InvalidInput
from gateway.domain.intervals.columns import columns_of_objects
from gateway.domain.intervals.record import EnergySource, IntervalRecord, Quality
from gateway.ports.sinks import Accept, Keep, SinkResult
from gateway.schemas.interval_rows import row_of
from gateway.services.uplink.delivery import SinkDelivery, batch_id
from gateway.sinks.arrow import arrow_schema
from gateway.sinks.parquet import ParquetSink, ParquetSinkSettings
from tests.builders.interval_logs import T0, MemoryReader, batch, record
from tests.config.test_settings import PLAIN
from tests.scenes.waiting import service, until

ROOT = Path(__file__).parents[2]
CEILING_S = 60.0
DAY_ROWS = 192
"""So many of the records of `record` begin on the first day."""

KILL_CHILD = """
import asyncio, os, sys, time
from pathlib import Path
from gateway import files
from gateway.sinks.parquet import ParquetSink, ParquetSinkSettings
from tests.builders.interval_logs import batch, record

def stuck(fd):
    print("half way", flush=True)
    time.sleep(600)

left = int(sys.argv[2])
real = os.fsync
def fsync(fd):
    global left
    left -= 1
    (stuck if left < 0 else real)(fd)
files.os.fsync = fsync
settings = ParquetSinkSettings(kind="parquet", name="p", directory=Path(sys.argv[1]))
asyncio.run(ParquetSink(settings).send(batch([record(i) for i in range(150, 250)])))
"""


def sink(directory: Path, **more: Any) -> ParquetSink:
    return ParquetSink(ParquetSinkSettings(kind="parquet", name="p", directory=directory, **more))


def sent(into: ParquetSink, rows: Sequence[IntervalRecord]) -> SinkResult:
    return asyncio.run(into.send(batch(rows, batch_id(columns_of_objects(rows)))))


def read(directory: Path) -> list[IntervalRecord]:
    """All rows of the directory as records, by start and revision; the partition must be the day they begin on."""
    dates = pyarrow.dataset.partitioning(pa.schema([("date", pa.date32())]), flavor="hive")
    table = pyarrow.dataset.dataset(directory, format="parquet", partitioning=dates).to_table()
    assert table.schema.remove(table.schema.get_field_index("date")) == arrow_schema()
    found = []
    for row in table.to_pylist():
        start = row.pop("start")
        assert row.pop("date") == start.date()
        source = EnergySource[row.pop("source").upper()]
        told = row.pop("quality")
        quality = sum((Quality[name.upper()] for name in told.split("|") if name), Quality(0))
        row |= {"source": source, "quality": quality}
        found.append(IntervalRecord(start_ms=round(start.timestamp() * 1000), **row))
    return sorted(found, key=lambda r: (r.start_ms, r.revision))


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_parquet_sink_what_is_sent_once_more_takes_nothings_place(tmp_path: Path) -> None:
    rows, into = [record(i) for i in range(10)], sink(tmp_path)
    assert sent(into, rows) == Accept()
    again = batch(rows[:2], batch_id(columns_of_objects(rows[:2])), again=True)
    assert asyncio.run(into.send(again)) == Accept()
    assert read(tmp_path) == sorted([*rows, *rows[:2]], key=lambda r: r.start_ms)
    assert len(files(tmp_path)) == 2


def make(into: ParquetSink, log: MemoryReader, *, gather_s: float = 0.0) -> SinkDelivery:
    return SinkDelivery(into, log_=log, finder=log, clock=ManualClock(), rng=random.Random(1), gather_s=gather_s)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_parquet_sink_rows_come_back_by_day_as_they_were(tmp_path: Path) -> None:
    rows = [record(i, charge_wh=None if i % 7 == 0 else i / 3) for i in range(400)]
    rows[3] = replace(rows[3], quality=Quality.GAP | Quality.LATE, soc_start_pct=12.5, grid_w_mean=-3.0)
    assert sent(sink(tmp_path / "a" / "b"), rows) == Accept()
    assert read(tmp_path / "a" / "b") == rows
    names = files(tmp_path / "a" / "b")
    assert [name.split("/")[0] for name in names] == ["date=2027-01-15", "date=2027-01-16"]
    first = pyarrow.parquet.ParquetFile(tmp_path / "a" / "b" / names[0])
    assert first.metadata.num_rows == DAY_ROWS
    assert first.metadata.row_group(0).column(0).compression == "ZSTD"


def test_parquet_columns_are_those_of_rows_with_types() -> None:
    schema = arrow_schema()
    assert schema.names == list(row_of(record(1)))
    types = {name: str(schema.field(name).type) for name in schema.names}
    assert types | {
        "device": "string", "start": "timestamp[ms, tz=UTC]", "length_s": "int32", "revision": "int32",
        "samples": "int64", "source": "string", "coverage_pct": "double", "charge_wh": "double",
    } == types  # fmt: skip


def test_parquet_sink_repeated_batch_replaces_itself(tmp_path: Path) -> None:
    rows = [record(i) for i in range(150, 250)]
    into = sink(tmp_path)
    for _ in range(3):
        assert sent(into, rows) == Accept()
    assert read(tmp_path) == rows
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("again", [(0, 60), (0, 250), (0, 150)])
def test_parquet_sink_batch_repeated_after_a_crash_with_other_rows_leaves_each_once(
    tmp_path: Path, again: tuple[int, int]
) -> None:
    """The cursor did not move: what comes again begins with the same row; the log has grown, or batches are smaller."""
    rows = [record(i) for i in range(100, 400)]
    assert sent(sink(tmp_path), rows[:150]) == Accept()
    first, last = again
    assert sent(sink(tmp_path), rows[first:last]) == Accept()
    assert read(tmp_path) == rows[first:last]
    assert sent(sink(tmp_path), rows[last:]) == Accept()
    assert read(tmp_path) == rows


def test_parquet_sink_late_revision_is_a_row_of_its_own(tmp_path: Path) -> None:
    rows = [record(1), record(2), record(3)]
    late = replace(record(2, revision=2), charge_wh=9.0, source=EnergySource.COUNTER)
    into = sink(tmp_path)
    assert sent(into, rows) == Accept()
    assert sent(into, [late]) == Accept()
    assert read(tmp_path) == [rows[0], rows[1], late, rows[2]]


@pytest.mark.parametrize("syncs", range(6))
def test_parquet_sink_killed_half_way_leaves_no_half_file_and_the_next_send_completes(
    tmp_path: Path, syncs: int
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILL_CHILD, str(tmp_path), str(syncs)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half way\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait(CEILING_S) == -signal.SIGKILL
    rows = [record(i) for i in range(150, 250)]
    first_day = [row for row in rows if row.start_ms < T0 + DAY_ROWS * 300_000]
    assert (read(tmp_path) if list(tmp_path.rglob("*.parquet")) else []) in ([], first_day, rows)
    assert sent(sink(tmp_path), rows) == Accept()
    assert read(tmp_path) == rows
    assert [name for name in files(tmp_path) if "/." in name] == []


async def test_parquet_sink_full_disk_keeps_and_goes_on_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.services.uplink.delivery.RETRY_BASE_S", 0.001)
    monkeypatch.setattr("gateway.services.uplink.delivery.RETRY_CAP_S", 0.01)
    log = MemoryReader([record(i) for i in range(150, 250)])
    delivery = make(sink(tmp_path), log)
    with files_up_to(200):
        async with service(delivery.run):
            await until(lambda: delivery.stats.kept >= 2)
            assert (delivery.stats.failing, log.saved) == ("file_too_large", [])
            assert [name for name in files(tmp_path) if name.endswith(".parquet")] == []
            log.rows += [record(i) for i in range(250, 300)]
    async with service(delivery.run):
        await until(log.idle.is_set)
    assert delivery.stats.failing is None
    assert read(tmp_path) == log.rows


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (28, "disk_full"),
        (122, "disk_full"),
        (30, "read_only"),
        (13, "not_permitted"),
        (5, "disk_error"),
        (None, "disk_error"),
    ],
)
async def test_parquet_sink_error_of_the_disk_keeps_with_a_bounded_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, reason: str
) -> None:
    rows = [record(i) for i in range(150, 250)]
    syncs = 0

    def fsync(_fd: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs == 5:  # the second day's file
            raise OSError(number, "x") if number else OSError("x")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.files.os.fsync", fsync)
        day_batch = batch(rows)
        assert await sink(tmp_path).send(day_batch) == Keep(reason=reason)
    assert [name for name in files(tmp_path) if "/." in name] == []
    assert await sink(tmp_path).send(day_batch) == Accept()
    assert read(tmp_path) == rows


def test_parquet_sink_directory_that_is_none_keeps(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert sent(sink(tmp_path / "file"), [record(1)]) == Keep(reason="no_directory")


async def test_delivery_gathers_for_a_sink_that_wants_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(s: float) -> None:
        waits.append(s)
        if s == 300:
            log.rows.append(record(6))
        await real(0)

    log = MemoryReader([record(i) for i in range(5)])
    delivery = make(sink(tmp_path, batch_rows=2), log, gather_s=300)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with service(delivery.run):
        await until(log.idle.is_set)
        log.rows.append(record(5))
        delivery.news.set()
        await until(lambda: log.saved[-1] == 7)
    assert [s for s in waits if s >= 1] == [300]
    assert log.saved == [2, 4, 5, 7]
    assert read(tmp_path) == log.rows


def config(directory: Path, *sinks: dict[str, Any]) -> Path:
    path = directory / "gateway.yaml"
    path.write_text(yaml.safe_dump(PLAIN | {"sinks": list(sinks)}), encoding="utf-8")
    return path


def test_config_parquet_directory_is_the_files_own_and_one_sinks_only(tmp_path: Path) -> None:
    one = {"kind": "parquet", "name": "p", "directory": "rows", "gather_s": "1min"}
    (found,) = load_settings(config(tmp_path, one)).sinks
    assert found == ParquetSinkSettings(kind="parquet", name="p", directory=tmp_path / "rows", gather_s=60)
    with pytest.raises(InvalidInput, match=r"sinks\.1\.directory: another sink writes to it"):
        load_settings(config(tmp_path, one, one | {"name": "q"}))


def test_gateway_without_pyarrow_runs_but_not_with_this_sink(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pyarrow'] = None; from gateway.cli import main; main()"
    one = {"kind": "parquet", "name": "p", "directory": "rows"}

    def validated(*sinks: dict[str, Any]) -> tuple[int, str]:
        args = [sys.executable, "-c", code, "validate", "--config", str(config(tmp_path, *sinks))]
        done = subprocess.run(
            args, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
        return done.returncode, (done.stdout + done.stderr).strip()

    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "reference-mqtt.yaml").write_bytes(
        (ROOT / "device_profiles" / "reference-mqtt.yaml").read_bytes()
    )
    assert validated() == (0, f"{tmp_path}/gateway.yaml: valid")
    why = "Parquet needs pyarrow: pip install 'battery-fleet-gateway[parquet]'"
    assert validated(one) == (2, f"{tmp_path}/gateway.yaml:8: sinks.0: {why}")
