"""How much of the disk storage may take: what is free, less what the machine needs to go on."""

import shutil
from pathlib import Path

from gateway.storage.spool.spool import segments

KEPT_FREE_PART = 0.05
KEPT_FREE_BYTES = 512 << 20
SPOOL_PART = 0.25
SPOOL_MAX_BYTES = 8 << 30
SPOOL_MIN_BYTES = 256 << 20


def log_budget_bytes(directory: Path, most: int | None, held: int) -> int:
    """What the interval log may take, of which it takes `held` now. Raises OSError."""
    usage = shutil.disk_usage(directory)
    kept = min(max(KEPT_FREE_PART * usage.total, KEPT_FREE_BYTES), usage.total / 2)
    room = max(held + usage.free - int(kept), 0)
    return room if most is None else min(room, most)


def spool_budget_bytes(directory: Path) -> int:
    """What the spool may take, as the disk is at start. Raises OSError."""
    held = sum(path.stat().st_size for path in segments(directory))
    free = shutil.disk_usage(directory.parent).free
    return max(min(SPOOL_MAX_BYTES, int(SPOOL_PART * (free + held))), SPOOL_MIN_BYTES)
