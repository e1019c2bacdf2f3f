"""Nominations, purely: what became of a suggestion, and how a power is shared over meters.

A suggestion is ours, its decision the aggregator's. The power to suggest comes from whoever forecasts it; what is
suggested of it is never more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum

KW_MAX = 10_000
STEP_KW = Decimal("0.01")


class NominationState(StrEnum):
    """What the aggregator made of a suggestion. `SENT`: it has it, and has not decided; `CHANGED`: it took another
    power; `GONE`: deleted, or replaced by a later one; `UNKNOWN`: a word that we do not know."""

    SENT = "sent"
    ACCEPTED = "accepted"
    CHANGED = "changed"
    REJECTED = "rejected"
    GONE = "gone"
    UNKNOWN = "unknown"


WORDS = {
    "RECEIVED": NominationState.SENT,
    "APPROVED": NominationState.ACCEPTED,
    "MODIFIED": NominationState.CHANGED,
    "DENIED": NominationState.REJECTED,
    "DELETED": NominationState.GONE,
    "INVALIDATED": NominationState.GONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A suggestion as the aggregator has it; days are those of its text, `until` excluded (None: no end). `kw`: what it
    has now, None = it does not say; `word`: its own."""

    id: str
    meter: str
    program: str
    since: str
    until: str | None
    kw: float | None
    word: str
    made: str = ""

    @property
    def state(self) -> NominationState:
        """What became of it."""
        return WORDS.get(self.word, NominationState.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nomination:
    """A nomination that holds, or will: `source` says whose it is."""

    meter: str
    program: str
    since: str
    until: str | None
    kw: float | None
    source: str


def judged(suggestion: Suggestion, sent_kw: float | None) -> NominationState:
    """What became of a suggestion of which we sent `sent_kw` (None: it was not sent from here): with another power it
    was changed, whatever word stands beside it."""
    state = suggestion.state
    other = sent_kw is not None and suggestion.kw is not None and suggestion.kw != sent_kw
    open_or_taken = state in (NominationState.SENT, NominationState.ACCEPTED)
    return NominationState.CHANGED if other and open_or_taken else state


def shared_kw(kw: float, weights: Mapping[str, float]) -> dict[str, float]:
    """A power in kW over meters in proportion to their weights, rounded down to what the aggregator takes: never more
    than `kw` together. Meters that would get nothing are left out."""
    total = sum(weights.values())
    if total <= 0 or kw <= 0:
        return {}
    whole = Decimal(repr(kw))
    parts = {
        meter: (whole * Decimal(repr(weight)) / Decimal(repr(total))).quantize(STEP_KW, rounding=ROUND_DOWN)
        for meter, weight in weights.items()
    }
    return {meter: float(part) for meter, part in parts.items() if part > 0}
