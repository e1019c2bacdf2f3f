"""How often today each point that wears a device's memory was written."""

from collections.abc import Mapping

from gateway.clock import Clock
from gateway.profiles.compiled.points import Unwritable
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.language.points import Point

DAY_MS = 86_400_000


class WriteBudget:
    """Counts writes of points with a daily budget; days are UTC."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, tuple[int, int]] = {}

    @property
    def today(self) -> dict[str, int]:
        """Writes of each such point on the day of its last one."""
        return {name: count for name, (_, count) in self._counts.items()}

    def spend(self, request: Request, points: Mapping[str, Point]) -> None:
        """Count the writes of a request. Raises Unwritable when a day's budget is used up."""
        today = self._clock.now().utc_ms // DAY_MS
        for write in request.writes:
            most = points[write.point].writes_per_day_max
            if most is None:
                continue
            day, count = self._counts.get(write.point, (today, 0))
            count = count if day == today else 0
            if count >= most:
                raise Unwritable(f"{write.point}: {most} writes a day are used up")
            self._counts[write.point] = (today, count + 1)
