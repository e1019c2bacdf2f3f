"""Retention of the interval log: which files go, because of their age or because the disk budget is used up."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time

from gateway.files import sync_directory
from gateway.storage.interval_log.files import size
from gateway.storage.interval_log.folder import LogFolder
from gateway.storage.interval_log.positions import Position, Positions
from gateway.storage.interval_log.stats import LogStats

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
DiskBudget = Callable[[int], int]
"""How many bytes the log may take, given how many it takes now. Raises OSError."""


def retain(
    folder: LogFolder,
    stats: LogStats,
    oldest: date,
    positions: Positions,
    readers: Sequence[str],
    disk_budget: DiskBudget | None,
) -> int:
    """Drop files of days before `oldest` that every reader has read, then as many more as `disk_budget` requires: first
    damaged files that were set aside, then files that every reader has read, oldest first, and only then files that
    some reader has not read. Returns how many log files; the newest stays."""
    places = [positions.load(name) for name in readers]
    dropped = 0
    stats.kept_files = 0
    for file in folder.files[:-1]:
        if file.day >= oldest:
            break
        if any(folder.backlog_in(file, position) for position in places):
            stats.kept_files += 1
            continue
        folder.drop(file)
        dropped += 1
    bytes_max = None if disk_budget is None else disk_budget(folder.bytes())
    if bytes_max is not None:
        dropped += _meet_budget(folder, stats, places, bytes_max)
    if dropped:
        sync_directory(folder.directory)
        stats.dropped_files += dropped
        first = folder.files[0].day if folder.files else oldest
        positions.forget_before(round(datetime.combine(first, time(), UTC).timestamp() * 1000) - 3 * DAY_MS)
        if folder.files:
            positions.forget_files(folder.files[0].sequence)
    stats.bytes = folder.bytes()
    stats.bytes_max = bytes_max or 0
    return dropped


def _meet_budget(folder: LogFolder, stats: LogStats, positions: Sequence[Position], bytes_max: int) -> int:
    excess = folder.bytes() - bytes_max
    for path in folder.aside():
        if excess <= 0:
            return 0
        excess -= path.stat().st_size
        path.unlink()
    unsent = {file: max((folder.backlog_in(file, s) for s in positions), default=0) for file in folder.files[:-1]}
    dropped = 0
    for file in sorted(unsent, key=lambda file: (unsent[file] > 0, file.sequence)):
        if excess <= 0:
            break
        excess -= size(file.path)
        if unsent[file]:
            stats.dropped_unsent += unsent[file]
            log.error(
                "interval records were dropped before every receiver had them: the disk budget is used up",
                extra={"file": file.path.name, "rows": unsent[file], "bytes_max": bytes_max},
            )
        folder.drop(file)
        dropped += 1
    return dropped
