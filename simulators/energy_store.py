"""The energy messages a device keeps until the broker has acknowledged them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Place(Enum):
    """Where a kept message is: with the device, waiting on a connection, sent and unacknowledged, or gone."""

    KEPT = "kept"
    WAITING = "waiting"
    SENT = "sent"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class AckedEnergy:
    """An energy message the broker has acknowledged: from here on it must reach its interval."""

    index: int
    boot: int
    seq: int
    t_ms: int
    span_ms: int
    charge_wh: float
    discharge_wh: float


@dataclass(slots=True, kw_only=True, eq=False)
class EnergyMessage:
    """One energy message; `payload` never changes, however often it is sent.

    `charge_wh` and `discharge_wh`: the counters where the product has them, else the energy of the span.
    """

    index: int
    boot: int
    seq: int
    t_ms: int
    span_ms: int
    charge_wh: float
    discharge_wh: float
    payload: bytes
    place: Place = Place.KEPT
    times_sent: int = 0

    def acked(self) -> AckedEnergy:
        return AckedEnergy(
            index=self.index,
            boot=self.boot,
            seq=self.seq,
            t_ms=self.t_ms,
            span_ms=self.span_ms,
            charge_wh=self.charge_wh,
            discharge_wh=self.discharge_wh,
        )


class EnergyStore:
    """Unacknowledged messages of one device, oldest first, at most `size_max`; the oldest gives way."""

    __slots__ = ("_kept", "_size_max", "dropped")

    def __init__(self, size_max: int) -> None:
        self._kept: deque[EnergyMessage] = deque()
        self._size_max = size_max
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[EnergyMessage]:
        return iter(self._kept)

    def add(self, message: EnergyMessage) -> None:
        while len(self._kept) >= self._size_max:
            self._kept.popleft().place = Place.GONE
            self.dropped += 1
        self._kept.append(message)

    def remove(self, message: EnergyMessage) -> bool:
        """Forget an acknowledged message; False when it had given way already."""
        if message.place is Place.GONE:
            return False
        message.place = Place.GONE
        self._kept.remove(message)
        return True
