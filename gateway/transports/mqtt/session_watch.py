"""Judges, from what a client sees, what became of its session at the broker, and whether somebody else uses its id.

A broker says only whether it resumed a session. Where it kept none although one was there a moment ago, the messages in
it are gone. A broker cuts off the older of two clients with one id; not every broker says why. Two clients that both
reconnect cut each other off for ever: connections that are accepted, and soon closed by the broker, again and again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from gateway.domain.types import Now
from gateway.observability.metrics import Sample, counter, gauge, words

LASTING_MS = 120_000
"""A connection that lives this long is nobody else's."""
CUTS = 3
"""Short connections in a row that the broker closed without a reason."""
TOLD_MS = 3_600_000
UNKNOWN_MS = -1

NAME = "the gateway's connections"
CONTESTED = gauge("gateway_mqtt_client_id_contested", "1 while another client seems to use the id.", connection=NAME)


class Lapse(Enum):
    """Why a broker had no session: it should have had one, or the gateway was away for longer than it is kept."""

    MISSING = "missing"
    EXPIRED = "expired"


class Loss(Enum):
    """How a connection ended: another client took the session over, the broker's side closed without a word, or any
    other way."""

    TAKEN_OVER = "taken_over"
    CUT = "cut"
    OTHER = "other"


LAPSES = counter(
    "gateway_mqtt_session_lapses", "Sessions that the broker did not resume.", connection=NAME, reason=words(Lapse)
)


@dataclass(slots=True)
class SessionWatch:
    """One client id's session. `expiry_s`: how long the broker is asked to keep it without a connection (0 = not at
    all); `kept_s`: how long it does. `seen_utc_ms`: when it was last known to be there."""

    expiry_s: int
    kept_s: int = 0
    seen_utc_ms: int = UNKNOWN_MS
    lapses: dict[Lapse, int] = field(default_factory=lambda: dict.fromkeys(Lapse, 0))
    connected: bool = False
    since_mono_ms: int = 0
    cuts: int = 0
    lapsed_mono_ms: int | None = None

    def accepted(self, now: Now, *, resumed: bool, granted_s: int) -> Lapse | None:
        """The broker accepted a connection; what became of the session before, if that is bad. `granted_s`: how long
        the broker keeps the session from now on."""
        self.connected, self.since_mono_ms = True, now.mono_ms
        seen_ms, kept_s = self.seen_utc_ms, self.kept_s
        self.kept_s = min(self.expiry_s, granted_s)
        self.present(now)
        if resumed or seen_ms == UNKNOWN_MS or not kept_s:
            return None
        lapse = Lapse.MISSING if now.utc_ms - seen_ms < kept_s * 1000 else Lapse.EXPIRED
        self.lapses[lapse] += 1
        self.lapsed_mono_ms = now.mono_ms
        return lapse

    def present(self, now: Now) -> None:
        """The session is there as long as the connection is."""
        if self.connected and self.kept_s:
            self.seen_utc_ms = now.utc_ms

    def lost(self, loss: Loss, now: Now) -> bool:
        """An accepted connection ended; returns whether this is what makes it look like a second client."""
        before = self.contested(now)
        self.present(now)
        self.connected = False
        lasted = now.mono_ms - self.since_mono_ms >= LASTING_MS
        if loss is Loss.TAKEN_OVER:
            self.cuts = max(self.cuts + 1, CUTS)
        elif loss is Loss.CUT:
            self.cuts = 1 if lasted else self.cuts + 1
        else:
            self.cuts = 0
        return self.contested(now) and not before

    def failed(self) -> None:
        """An attempt to connect failed: the broker is away, and that explains what it closed."""
        self.cuts = 0

    def contested(self, now: Now) -> bool:
        """Whether somebody else seems to use the client id."""
        return self.cuts >= CUTS and not (self.connected and now.mono_ms - self.since_mono_ms >= LASTING_MS)

    def lapsed(self, now: Now) -> bool:
        """Whether a session was lost within the last hour."""
        return self.lapsed_mono_ms is not None and now.mono_ms - self.lapsed_mono_ms < TOLD_MS

    def warnings(self, connection: str, client_id: str, now: Now) -> list[str]:
        """What an operator should look at."""
        out = []
        if self.contested(now):
            out.append(f"MQTT {connection}: another client uses the client id {client_id}? The broker closed "
                       f"{self.cuts} connections in a row")  # fmt: skip
        if self.lapsed(now):
            out.append(f"MQTT {connection}: the broker had lost the session of {client_id}; messages that waited in it "
                       "are missing")  # fmt: skip
        return out

    def samples(self, connection: str, now: Now) -> Iterator[Sample]:
        yield CONTESTED.sample(int(self.contested(now)), connection=connection)
        yield from LAPSES.each({lapse.value: count for lapse, count in self.lapses.items()}, connection=connection)
