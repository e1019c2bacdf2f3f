"""How the gateway's last runs ended, and whether the next one may do no more than hand devices back."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.domain.types import Now

ENDS_MAX = 3
WITHIN_MS = 600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """One run that did not stop as it was asked to: when that happened, or was noticed, in which run of the machine
    (`boot`, "" = unknown), and why, as far as is known."""

    utc_ms: int
    mono_ms: int
    boot: str
    why: str


def recent(ends: Iterable[RunEnd], now: Now, boot: str) -> tuple[RunEnd, ...]:
    """The newest `ENDS_MAX` ends of the last ten minutes, oldest first. After a reboot the wall clock tells their age;
    where it was moved by more than that meanwhile they no longer count."""

    def age_ms(end: RunEnd) -> int:
        return now.mono_ms - end.mono_ms if boot and end.boot == boot else now.utc_ms - end.utc_ms

    return tuple(end for end in ends if abs(age_ms(end)) <= WITHIN_MS)[-ENDS_MAX:]


def only_releases(ends: Iterable[RunEnd], now: Now, boot: str) -> bool:
    """Whether a run that starts now may only release devices."""
    return len(recent(ends, now, boot)) >= ENDS_MAX
