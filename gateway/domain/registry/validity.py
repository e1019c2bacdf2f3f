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
