"""The server's own clock, and times as the service writes them."""

from datetime import UTC, datetime

from simulators.clock import Clock


class ServerClock:
    """Another clock, off by `skew_ms` (+ = ahead)."""

    def __init__(self, clock: Clock, *, skew_ms: int = 0) -> None:
        self._clock = clock
        self.skew_ms = skew_ms

    def utc_ms(self) -> int:
        return self._clock.utc_ms() + self.skew_ms

    def mono_s(self) -> float:
        return self._clock.mono_s()


def time_text(utc_ms: int) -> str:
    """RFC 3339 with milliseconds and Z."""
    return datetime.fromtimestamp(utc_ms / 1000, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_ms(text: str) -> int:
    """Epoch ms of an RFC 3339 time."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
