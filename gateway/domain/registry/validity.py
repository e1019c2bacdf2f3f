"""From when until when something is so."""

from dataclasses import dataclass

from gateway.domain.errors import invariant


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """From `from_ms` on (UTC; None: since before anybody noted it) until just before `until_ms` (None: it is so)."""

    from_ms: int | None
    until_ms: int | None = None

    def __post_init__(self) -> None:
        if self.from_ms is not None and self.until_ms is not None:
            invariant(self.from_ms <= self.until_ms, "nothing ends before it begins")

    @property
    def open(self) -> bool:
        """Whether no end of it is known."""
        return self.until_ms is None

    def covers(self, at_ms: int) -> bool:
        """Whether it is so at that time."""
        began = self.from_ms is None or self.from_ms <= at_ms
        return began and (self.until_ms is None or at_ms < self.until_ms)

    def overlaps(self, other: "Validity") -> bool:
        """Whether both are so at some time."""
        return _before(self.from_ms, other.until_ms) and _before(other.from_ms, self.until_ms)


def _before(from_ms: int | None, until_ms: int | None) -> bool:
    return from_ms is None or until_ms is None or from_ms < until_ms
