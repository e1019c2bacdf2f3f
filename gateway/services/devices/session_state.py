"""What a session is in, counts and says: its phase, its counters and whom it tells."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from gateway.domain.commands import CommandResult
from gateway.domain.types import Mode, Now
from gateway.profiles.compiled.variant import CanonicalReading
from gateway.profiles.language.product import ProfileDocument
from gateway.services.devices.energy_integrator import EnergySample

BACKOFF_CAP_S = 60.0
SHARED_BACKOFF_CAP_S = 5.0


def pause_cap_s(document: ProfileDocument) -> float:
    """The longest pause between attempts at a device. On our own broker, whose connection all its devices share, an
    attempt costs nothing, and control must not wait once the broker is back."""
    shared = document.mqtt is not None and document.mqtt.broker == "fleet"
    return SHARED_BACKOFF_CAP_S if shared else BACKOFF_CAP_S


def with_mode(reading: CanonicalReading, *, running: bool, taken_over: bool) -> CanonicalReading:
    """A product that does not report its mode is under our control while our command runs; one that somebody else
    writes to is not, whatever it reports."""
    if taken_over:
        return replace(reading, quantities=reading.quantities | {"mode": float(Mode.OTHER)})
    if "mode" not in reading.quantities and running:
        return replace(reading, quantities=reading.quantities | {"mode": float(Mode.REMOTE)})
    return reading


class SessionPhase(Enum):
    """State of a session. `QUARANTINED`: what answers is not what was registered, so nothing is written."""

    DOWN = "down"
    CONNECTING = "connecting"
    READY = "ready"
    QUARANTINED = "quarantined"


class Hearer:
    """Callbacks of a session: `live` a reading (with the command in force), `energy` a settlement sample, `answer` the
    result of a command, `online` whether the device can be reached, `trusted` whether it may be controlled, `unread`:
    it answered and the answer cannot be read."""

    __slots__ = ("answer", "energy", "live", "online", "trusted", "unread")

    def __init__(
        self,
        *,
        live: Callable[[int, CanonicalReading, Now, int], None],
        energy: Callable[[int, EnergySample, Now], None],
        answer: Callable[[int, int, CommandResult], None],
        online: Callable[[int, bool], None],
        trusted: Callable[[int, bool], None],
        unread: Callable[[int], None],
    ) -> None:
        self.live = live
        self.energy = energy
        self.answer = answer
        self.online = online
        self.trusted = trusted
        self.unread = unread


@dataclass(slots=True)
class SessionStats:
    """Counts over all devices of a service. `outdated`: readings and answers of sessions that no longer fit their
    device."""

    connects: int = 0
    polls: int = 0
    poll_failures: int = 0
    busy: int = 0
    quarantined: int = 0
    superseded: int = 0
    outdated: int = 0
    energy_gaps: int = 0
