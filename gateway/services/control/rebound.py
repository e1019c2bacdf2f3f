"""Rebound: what a fleet takes back after an event."""

from dataclasses import dataclass

from gateway.domain.types import EventId, Slots

REBOUNDS_MAX = 100


@dataclass(slots=True)
class Rebound:
    """What an event's devices take back after it, until `until_ms`: power (+ = charging), its peak, W, energy, Wh."""

    event: EventId
    slots: Slots
    until_ms: int
    power_w: float = 0.0
    peak_w: float = 0.0
    energy_wh: float = 0.0
