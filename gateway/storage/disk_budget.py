"""Computes how much of the disk storage may take: the free bytes, less what the machine needs to keep running."""

import shutil
from pathlib import Path

from gateway.storage.spool.spool import segments

KEPT_FREE_PART = 0.05
KEPT_FREE_BYTES = 512 << 20
SPOOL_PART = 0.25
SPOOL_MAX_BYTES = 8 << 30
SPOOL_MIN_BYTES = 256 << 20
RAW_PART = 0.05
RAW_MAX_BYTES = 2 << 30
RAW_MIN_BYTES = 64 << 20


def log_budget_bytes(directory: Path, most: int | None, used: int) -> int:
    """Bytes the interval log may take, `used` of them taken already. Raises OSError."""
    usage = shutil.disk_usage(directory)
    kept = min(max(KEPT_FREE_PART * usage.total, KEPT_FREE_BYTES), usage.total / 2)
    budget = max(used + usage.free - int(kept), 0)
    return budget if most is None else min(budget, most)


def spool_budget_bytes(directory: Path) -> int:
    """Bytes the spool may take, given the disk at start. Raises OSError."""
    used = sum(path.stat().st_size for path in segments(directory))
    free = shutil.disk_usage(directory.parent).free
    return max(min(SPOOL_MAX_BYTES, int(SPOOL_PART * (free + used))), SPOOL_MIN_BYTES)


def raw_budget_bytes(directory: Path) -> int:
    """Bytes that raw messages may take, given the disk at start. Raises OSError."""
    return max(min(RAW_MAX_BYTES, int(RAW_PART * shutil.disk_usage(directory).free)), RAW_MIN_BYTES)
