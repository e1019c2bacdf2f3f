"""Decides whether an identified message is new: each counts once, however often and however late somebody repeats it.

A source signs or numbers its messages and says when it issued each. The window remembers ids; where it forgets some, it
remembers when the newest of those was issued (the floor) and takes nothing that is as old. So neither a clock that is
set nor a flood of messages opens it: what is forgotten is too old.
"""

from dataclasses import dataclass
from enum import Enum

NO_FLOOR_MS = -1
"""Nothing was forgotten yet."""


class Admission(Enum):
    """What a message is. Only what comes `FIRST` takes effect."""

    FIRST = "first"
    AGAIN = "again"
    TOO_OLD = "too_old"
    TOO_EARLY = "too_early"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayBounds:
    """A message is taken that was issued at most `age_ms_max` ago and at most `ahead_ms_max` ahead of our clock. Ids of
    a source are kept for `kept_ms`, so that late repetitions are known as such, and at most `ids_max` of them."""

    age_ms_max: int = 300_000
    ahead_ms_max: int = 60_000
    kept_ms: int = 86_400_000
    ids_max: int = 10_000


def admission(
    *, known: bool, issued_ms: int | None, floor_ms: int, now_ms: int, bounds: ReplayBounds
) -> Admission:  # fmt: skip
    """What a message is at `now_ms` (UTC). `known`: its id is in the window; `issued_ms` None: it does not say when it
    was issued, and only its id counts; `floor_ms`: when the newest was issued of those that were forgotten."""
    if known:
        return Admission.AGAIN
    if issued_ms is None:
        return Admission.FIRST
    if issued_ms > now_ms + bounds.ahead_ms_max:
        return Admission.TOO_EARLY
    if issued_ms <= floor_ms or issued_ms < now_ms - bounds.age_ms_max:
        return Admission.TOO_OLD
    return Admission.FIRST
