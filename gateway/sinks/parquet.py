"""Writes interval records to Parquet files in a directory, for analysis.

`<directory>/date=YYYY-MM-DD/<key>.parquet`: one file per batch and UTC day on which its intervals begin, partitioned as
Hive does. The key is that of the batch's first record and not of the whole batch: a batch sent again after a crash
begins with the same record but may have more rows, since the log has grown, and then replaces the file. So a record is
in one file, and "at least once" becomes once, as long as the cursor is not lost. Records that somebody wants sent again
go into a file of their own (`again-<id>.parquet`), so their rows exist twice. A late revision is a row of its own: of
rows with the same device and start the largest revision counts. The sink writes each file under a name that begins with
a dot, which readers ignore, syncs it and renames it.
"""

import asyncio
import errno
import hashlib
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.domain.intervals.columns import IntervalColumns
from gateway.domain.types import DeviceId
from gateway.files import replacing, sync_directory
from gateway.ports.sinks import Accept, IntervalBatch, Keep, SinkResult
from gateway.schemas.interval_rows import RowsPerS
from gateway.sinks.arrow import NEEDED, available, write_parquet

DAY_MS = 86_400_000
REASONS = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EFBIG: "file_too_large",
    errno.EROFS: "read_only",
    errno.EACCES: "not_permitted",
    errno.EPERM: "not_permitted",
    errno.ENOENT: "no_directory",
    errno.ENOTDIR: "no_directory",
    errno.EEXIST: "no_directory",
}
"""The reason for each error of the disk; any other is `disk_error`."""


class ParquetSinkSettings(BaseModel):
    """Where to write; a relative directory is relative to the configuration file. `batch_rows`: the most rows of a
    batch; `gather_s`: how long to wait for more after a batch that was not full."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["parquet"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$", examples=["sink"])]
    directory: Annotated[Path, Field(examples=["intervals"])]
    batch_rows: Annotated[int, Field(ge=1, le=50_000)] = 50_000
    gather_s: Annotated[float, Field(ge=0, le=3600)] = 300
    rows_per_s_max: RowsPerS = 100_000

    @model_validator(mode="after")
    def _can_write(self) -> "ParquetSinkSettings":
        if not available():
            raise ValueError(NEEDED)
        return self


class ParquetSink:
    """A directory of Parquet files. Accepted = every file of the batch is durable under its name."""

    def __init__(self, settings: ParquetSinkSettings) -> None:
        self.name = settings.name
        self.batch_rows = settings.batch_rows
        self._directory = settings.directory
        # a cancelled send may still be writing
        self._turn = threading.Lock()

    def wants(self, _device: DeviceId, _length_s: int) -> bool:
        return True

    def pick(self, devices: Sequence[DeviceId], _lengths_s: Sequence[int]) -> list[bool]:
        return [True] * len(devices)

    async def send(self, batch: IntervalBatch) -> SinkResult:
        try:
            await asyncio.to_thread(self._in_turn, batch)
        except OSError as error:
            return Keep(reason=REASONS.get(error.errno or 0, "disk_error"))
        return Accept()

    async def settled(self, _batch: IntervalBatch) -> None:
        """Nothing is remembered between batches: a file that comes again replaces itself."""

    def _in_turn(self, batch: IntervalBatch) -> None:
        with self._turn:
            self._write(batch.columns, f"again-{batch.id}" if batch.again else _key(batch.columns))

    def _write(self, columns: IntervalColumns, key: str) -> None:
        numbers = columns.records.start_ms // DAY_MS
        days = {
            datetime.fromtimestamp(number * DAY_MS / 1000, tz=UTC).date().isoformat(): columns.rows(numbers == number)
            for number in np.unique(numbers).tolist()
        }
        name = f"{key}.parquet"
        for day, some in days.items():
            path = self._directory / f"date={day}" / name
            for directory in (self._directory, path.parent):
                _make(directory)
            with replacing(path) as file:
                write_parquet(some, file)
        # a repetition shorter than the first: the configured batches have become smaller
        for path in self._directory.glob(f"date=*/{name}"):
            if path.parent.name.removeprefix("date=") not in days:
                path.unlink()
                sync_directory(path.parent)


def _make(directory: Path) -> None:
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(directory.parent)


def _key(columns: IntervalColumns) -> str:
    """A key of the first record, which no two records of the log share."""
    (first,) = columns.rows(slice(1)).objects()
    return hashlib.sha256(repr((first.device, first.start_ms, first.revision)).encode()).hexdigest()[:32]
