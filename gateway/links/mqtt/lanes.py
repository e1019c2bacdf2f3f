"""Lanes: which messages of which product come on which topics, and what was read of one lane together."""

from dataclasses import dataclass
from typing import Any

from gateway.domain.types import Unclear
from gateway.profiles.compiled.messages import Decoder, Route

TELEMETRY_KINDS = ("energy",)


@dataclass(slots=True)
class Lane:
    """One message kind of one product: where it comes from and how it is read."""

    kind: str
    profile: int
    route: Route
    decoder: Decoder


class Rows:
    """Messages of one lane within one read. `unclear`: which safety members of a row were not understood, by its
    number; `unread`: the slots of unreadable messages, each with the number of rows before it."""

    __slots__ = ("lane", "live", "rows", "slots", "unclear", "unread")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.slots: list[int] = []
        self.rows: list[Any] = []
        self.live: list[bool] = []
        self.unclear: dict[int, Unclear] = {}
        self.unread: list[tuple[int, int]] = []
