"""Dispatch events: what is asked, what was decided, what is active."""

from dataclasses import dataclass
from enum import Enum

from gateway.domain.model import EventId


class Outcome(Enum):
    """What became of a request."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The decision on one request."""

    id: EventId
    revision: int
    outcome: Outcome
    reason: str | None = None
