"""Turns a stream of refusals into few log lines: the first of each reason, and their sum once they are over."""

QUIET_MS = 60_000
REASONS_MAX = 64
OTHER = "other"


class Episode:
    """Counts by reason since refusals began. They are over after `quiet_ms` without one."""

    def __init__(self, quiet_ms: int = QUIET_MS) -> None:
        self._quiet_ms = quiet_ms
        self._counts: dict[str, int] = {}
        self._last_ms = 0

    def add(self, reason: str, count: int, now_ms: int) -> bool:
        """Count refusals; returns whether their reason is new, which is worth a line."""
        self._last_ms = now_ms
        known = reason if reason in self._counts or len(self._counts) < REASONS_MAX else OTHER
        new = known not in self._counts
        self._counts[known] = self._counts.get(known, 0) + count
        return new

    def over(self, now_ms: int) -> dict[str, int]:
        """The counts of an episode that is over, once; empty while there is none."""
        if not self._counts or now_ms - self._last_ms < self._quiet_ms:
            return {}
        counts, self._counts = self._counts, {}
        return counts
