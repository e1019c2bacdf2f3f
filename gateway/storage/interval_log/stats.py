"""The counts of the interval log, and the metrics made of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.observability.metrics import Sample, counter, gauge

RECORDS = counter("gateway_interval_records", "Interval records stored.")
COMMITS = counter("gateway_interval_commits", "Commits of the interval log.")
FAILURES = counter("gateway_interval_log_errors", "Reads and writes of the interval log that failed.")
REPEATED = counter("gateway_interval_repeated", "Records stored before, with the same content.")
CONFLICTS = counter("gateway_interval_conflicts", "Records made twice with different content.")
NAMELESS = counter("gateway_interval_nameless", "Records of devices that are not known any more.")
CORRUPT_FILES = counter("gateway_interval_corrupt_files", "Damaged log files that were set aside.")
CORRUPT_RECORDS = counter("gateway_interval_corrupt_records", "Damaged records that were left out.")
DROPPED_FILES = counter("gateway_interval_dropped_files", "Log files dropped by retention.")
DROPPED_UNSENT = counter("gateway_interval_dropped_unsent", "Records dropped before every sink had them.")
BYTES = gauge("gateway_interval_log_bytes", "Bytes of the interval log.")
BYTES_MAX = gauge("gateway_interval_log_bytes_max", "Bytes that it may take.")
HELD_FILES = gauge("gateway_interval_held_files", "Old log files that a sink still needs.")


@dataclass(slots=True)
class LogStats:
    """Counters. `repeated`: rows that were there already; `conflicting`: there already with different content (the
    first one stays); `nameless`: rows whose device is no longer known. `kept_files`: files past retention that stay
    because a reader has not read them; `dropped_unsent`: rows dropped to meet the disk budget before every reader had
    them. `bytes`: what the log takes; `bytes_max`: what it may take."""

    rows: int = 0
    commits: int = 0
    failures: int = 0
    repeated: int = 0
    conflicting: int = 0
    nameless: int = 0
    corrupt_files: int = 0
    corrupt_rows: int = 0
    dropped_files: int = 0
    dropped_unsent: int = 0
    kept_files: int = 0
    bytes: int = 0
    bytes_max: int = 0
    failing: str | None = None

    def samples(self) -> Iterator[Sample]:
        yield RECORDS.sample(self.rows)
        yield COMMITS.sample(self.commits)
        yield FAILURES.sample(self.failures)
        yield REPEATED.sample(self.repeated)
        yield CONFLICTS.sample(self.conflicting)
        yield NAMELESS.sample(self.nameless)
        yield CORRUPT_FILES.sample(self.corrupt_files)
        yield CORRUPT_RECORDS.sample(self.corrupt_rows)
        yield DROPPED_FILES.sample(self.dropped_files)
        yield DROPPED_UNSENT.sample(self.dropped_unsent)
        yield BYTES.sample(self.bytes)
        yield BYTES_MAX.sample(self.bytes_max)
        yield HELD_FILES.sample(self.kept_files)

    def warnings(self) -> list[str]:
        """Why the interval log needs somebody's attention."""
        if not self.dropped_unsent:
            return []
        return [f"interval log: {self.dropped_unsent} records were dropped unsent because the disk was full"]
