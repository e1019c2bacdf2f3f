"""Who may ask for what: callers, the scopes they have, and how often they may ask."""

import math
from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a caller may do. None contains another: whoever pays need not be whoever administers. `READ` shows
    everything but personal data (`PII`) and money (`MONEY`); `PAY` releases payments; `ADMIN` acts on receivers."""

    READ = "read"
    DISPATCH = "dispatch"
    DEVICES = "devices"
    PROGRAMS = "programs"
    MONEY = "money"
    PAY = "pay"
    PII = "pii"
    ADMIN = "admin"


EVERY_SCOPE = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who was recognised. `name` "": somebody on this machine, where no callers are configured, or the holder
    of the one token. `requests_per_min` None: as often as it likes."""

    name: str
    scopes: frozenset[Scope]
    requests_per_min: int | None = None


class DoorRefusal(StrEnum):
    """Why somebody was not let in; a bounded set, fit for labels."""

    ANONYMOUS = "anonymous"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    UNKNOWN_CERTIFICATE = "unknown_certificate"
    SCOPE = "scope"
    TOO_OFTEN = "too_often"
    NOT_LOOPBACK = "not_loopback"
    OTHER_ORIGIN = "other_origin"
    MEDIA_TYPE = "media_type"
    NOT_TLS = "not_tls"
    NO_HELLO = "no_hello"
    FAILED_HELLO = "failed_hello"
    TOO_MANY_CONNECTIONS = "too_many_connections"


NOBODYS_NAMES = frozenset({"mqtt", "rest", "leap", "gateway", "device", "offline", "owner", "operator"})
"""By which the trail and events say what no caller did: no caller has one."""

SOMEBODY_HERE = Caller(name="", scopes=EVERY_SCOPE)


@dataclass(slots=True)
class TokenBucket:
    """So many times a minute, all of them at once if need be; then they come back one by one (a token bucket)."""

    per_min: int
    left: float
    at_ms: int

    @classmethod
    def full(cls, per_min: int, now_mono_ms: int) -> "TokenBucket":
        """Nothing is used yet."""
        return cls(per_min=per_min, left=float(per_min), at_ms=now_mono_ms)

    def take(self, now_mono_ms: int) -> int:
        """Use one; 0, or the seconds after which there is one again."""
        self.left = min(self.left + (now_mono_ms - self.at_ms) * self.per_min / 60_000, float(self.per_min))
        self.at_ms = now_mono_ms
        if self.left >= 1:
            self.left -= 1
            return 0
        return max(1, math.ceil((1 - self.left) * 60 / self.per_min))
