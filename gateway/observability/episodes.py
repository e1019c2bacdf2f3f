"""Turns a stream of happenings into few log lines: the first of each, and their number once they are over."""

QUIET_MS = 60_000
REASONS_MAX = 64
OTHER = "other"
LINES_MAX = 20


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


class FewLines:
    """Lets `most` lines of a kind through in each span of time, and counts the others: what happens to one device is a
    line, what happens to a thousand at once is a number. Kinds are from a bounded set."""

    def __init__(self, *, most: int = LINES_MAX, span_ms: int = QUIET_MS) -> None:
        self._most = most
        self._span_ms = span_ms
        self._begin_ms: int | None = None
        self._spent: dict[str, int] = {}
        self._held: dict[str, int] = {}

    def allow(self, kind: str, now_ms: int) -> bool:
        """Whether a line may go through now."""
        if self._begin_ms is None or now_ms - self._begin_ms >= self._span_ms:
            self._begin_ms = now_ms
            self._spent.clear()
        spent = self._spent[kind] = self._spent.get(kind, 0) + 1
        if spent > self._most:
            self._held[kind] = self._held.get(kind, 0) + 1
        return spent <= self._most

    def held(self, now_ms: int) -> dict[str, int]:
        """How many did not, by kind, once their span is over."""
        if not self._held or self._begin_ms is None or now_ms - self._begin_ms < self._span_ms:
            return {}
        held, self._held = self._held, {}
        return held
