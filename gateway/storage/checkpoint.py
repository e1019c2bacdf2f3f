"""Checkpoints: the state of the interval engine (and columns that callers add) in one file, as of one spool record.

`<spool record number, 16 digits>.checkpoint`: 8 bytes `BFGCKP01`, u32 length of the header, u32 crc32 of all that
follows, the header as JSON (`CheckpointHeader`), then each column contiguous, in the header's order, little endian.
The file is written under another name and renamed, so it is there whole or not at all; the one before is kept in case
the newest is damaged.
"""

import asyncio
import logging
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.files import replacing
from gateway.storage.spool.spool import CORRUPT_SUFFIX

log = logging.getLogger(__name__)

MAGIC = b"BFGCKP01"
SUFFIX = ".checkpoint"
KEPT = 2
COPY_BYTES = 2 << 20
ENGINE_PREFIX = "engine/"
_HEAD = struct.Struct("<8sII")

Columns = Mapping[str, NDArray[Any]]


class CheckpointHeader(msgspec.Struct, frozen=True, kw_only=True):
    """`record`: the last spool record contained; `session` and `ids`: the slot numbering; `utc_ms`: the time of the
    copy; `columns` (name, dtype, length) follow the header in the file."""

    record: int
    session: int
    utc_ms: int
    rules: IntervalRules
    ids: list[str]
    columns: list[tuple[str, str, int]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Header and columns; names with the prefix `engine/` are the interval engine's."""

    header: CheckpointHeader
    columns: Columns

    def engine(self) -> Engine:
        """The engine as it was."""
        engine = Engine(self.header.rules)
        mine = {k.removeprefix(ENGINE_PREFIX): v for k, v in self.columns.items() if k.startswith(ENGINE_PREFIX)}
        engine.load(mine)
        return engine


async def capture(
    engine: Engine, *, record: int, session: int, utc_ms: int, ids: Sequence[str], extra: Columns
) -> Checkpoint:
    """Copy the state as of spool record `record`, a part at a time: the caller keeps the engine still meanwhile.
    `extra` are columns of the caller that nobody changes any more."""
    columns: dict[str, NDArray[Any]] = {}
    copied = 0
    for name, column in engine.columns().items():
        columns[ENGINE_PREFIX + name] = column.copy()
        copied += column.nbytes
        if copied >= COPY_BYTES:
            copied = 0
            await asyncio.sleep(0)
    columns.update(extra)
    header = CheckpointHeader(
        record=record,
        session=session,
        utc_ms=utc_ms,
        rules=engine.rules,
        ids=list(ids),
    )
    return Checkpoint(header=header, columns=columns)


@dataclass(slots=True)
class CheckpointStats:
    """Counters; `failing`: the error of the last write, None if it succeeded."""

    written: int = 0
    failures: int = 0
    corrupt: int = 0
    bytes: int = 0
    failing: str | None = None


@dataclass(slots=True)
class Checkpoints:
    """The checkpoint files of a directory."""

    directory: Path
    stats: CheckpointStats = field(default_factory=CheckpointStats)
    oldest_record: int = 0
    """The last spool record in the oldest kept checkpoint; 0 until two checkpoints are known to exist."""

    async def save(self, checkpoint: Checkpoint) -> None:
        """Write it durably, then remove all but the newest two. Raises StorageError; then the earlier ones stay."""
        try:
            await asyncio.to_thread(self.write, checkpoint)
        except OSError as error:
            self.stats.failures += 1
            self.stats.failing = error.strerror or "unknown"
            raise StorageError(f"the checkpoint could not be written: {error.strerror}") from error
        self.stats.failing = None

    def write(self, checkpoint: Checkpoint) -> None:
        """The blocking part of `save`. Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = encode(checkpoint)
        path = self.directory / f"{checkpoint.header.record:016d}{SUFFIX}"
        with replacing(path) as file:
            file.writelines(data)
        paths = self._paths()
        for old in paths[:-KEPT]:
            old.unlink(missing_ok=True)
        if len(paths) >= KEPT:
            self.oldest_record = int(paths[-KEPT].stem)
        self.stats.written += 1
        self.stats.bytes = sum(map(len, data))

    def load(self) -> Checkpoint | None:
        """The newest intact checkpoint, None if there is none. Sets damaged ones aside."""
        for path in reversed(self._paths()):
            try:
                found = decode(path.read_bytes())
                if len(paths := self._paths()) >= KEPT:
                    self.oldest_record = int(paths[-KEPT].stem)
                return found
            except CorruptState as error:
                self.stats.corrupt += 1
                log.error("a checkpoint is damaged", extra={"file": path.name, "error": str(error)})
                path.replace(path.with_suffix(CORRUPT_SUFFIX))
        return None

    def _paths(self) -> list[Path]:
        return sorted(p for p in self.directory.glob(f"*{SUFFIX}") if p.stem.isdigit())


def encode(checkpoint: Checkpoint) -> list[bytes]:
    """The file's content, as buffers to write in order."""
    columns = {name: np.ascontiguousarray(c, dtype=c.dtype.newbyteorder("<")) for name, c in checkpoint.columns.items()}
    spec = [(name, column.dtype.str, len(column)) for name, column in columns.items()]
    header = msgspec.json.encode(msgspec.structs.replace(checkpoint.header, columns=spec))
    body = [header, *(column.tobytes() for column in columns.values())]
    crc = 0
    for data in body:
        crc = zlib.crc32(data, crc)
    return [_HEAD.pack(MAGIC, len(header), crc), *body]


def decode(data: bytes) -> Checkpoint:
    """The inverse of `encode`. Raises CorruptState."""
    if len(data) < _HEAD.size:
        raise CorruptState("too short")
    magic, length, crc = _HEAD.unpack_from(data)
    if magic != MAGIC or zlib.crc32(memoryview(data)[_HEAD.size :]) != crc:
        raise CorruptState("checksum")
    try:
        header = msgspec.json.decode(data[_HEAD.size : _HEAD.size + length], type=CheckpointHeader)
        at = _HEAD.size + length
        columns: dict[str, NDArray[Any]] = {}
        for name, dtype, n in header.columns:
            column = np.frombuffer(data, dtype=dtype, count=n, offset=at)
            at += column.nbytes
            columns[name] = column.astype(column.dtype.newbyteorder("="))
    except (ValueError, TypeError, msgspec.MsgspecError) as wrong:
        raise CorruptState(str(wrong)) from wrong
    return Checkpoint(header=header, columns=columns)
