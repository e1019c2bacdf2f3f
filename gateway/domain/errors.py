"""Error taxonomy: what failed, whether trying again can help, and how long to wait before that."""

from collections.abc import Sequence
from enum import Enum
from typing import ClassVar

REFUSED_FACTOR = 8
REFUSED_CAP_S = 60.0


class Retry(Enum):
    """Whether the same attempt may succeed later: by itself, after somebody has changed something, or never (a bug, or
    input that stays as wrong as it is)."""

    LATER = "later"
    AFTER_CHANGE = "after_change"
    NEVER = "never"


class GatewayError(Exception):
    """Root of every error the gateway raises on purpose. `retry` decides whether what failed is tried again; `after_s`:
    not before, the peer asks (0 = no time given)."""

    retry: ClassVar[Retry] = Retry.NEVER
    after_s: float = 0.0


class LinkDown(GatewayError):
    """The peer cannot be reached or the connection was lost; waiting helps."""

    retry = Retry.LATER


class PeerRefused(GatewayError):
    """The peer answered and said no: credentials, permissions, protocol version; an operator must act."""

    retry = Retry.AFTER_CHANGE


class PeerBusy(GatewayError):
    """The peer asks to try again later; nothing was done."""

    retry = Retry.LATER

    def __init__(self, message: str, *, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class SecretUnreadable(GatewayError):
    """The secret behind a reference cannot be read now; it is read again."""

    retry = Retry.LATER


class NotThisProduct(GatewayError):
    """What answers is not the product it was registered as: it is read at most, never written."""

    retry = Retry.AFTER_CHANGE


class ProtocolViolation(GatewayError):
    """The peer broke its protocol; the connection is dropped and made anew."""

    retry = Retry.LATER


class StorageError(GatewayError):
    """A durable write failed (disk full, I/O error); what was not written is not claimed to be stored."""

    retry = Retry.LATER


class CorruptState(GatewayError):
    """The content of a file on disk is not valid; the file is set aside, never guessed at."""


class NewerState(GatewayError):
    """A file on disk was written by a newer version of the gateway; it is refused and left as it is."""

    retry = Retry.AFTER_CHANGE


class InvalidInput(GatewayError):
    """Input from outside is not acceptable. `problems` names what and where, all at once."""

    retry = Retry.AFTER_CHANGE

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class InvariantBroken(GatewayError):
    """A condition the code relies on does not hold: a bug."""


def invariant(condition: bool, why: str) -> None:
    """Raise `InvariantBroken` unless `condition` holds."""
    if not condition:
        raise InvariantBroken(why)


def retry_of(error: BaseException) -> Retry:
    """Whether what failed may succeed later; of several errors at once, the one that is least likely to. An exception
    that is no GatewayError is a bug."""
    if isinstance(error, BaseExceptionGroup):
        found = {retry_of(one) for one in error.exceptions}
        return next(retry for retry in (Retry.NEVER, Retry.AFTER_CHANGE, Retry.LATER) if retry in found)
    return error.retry if isinstance(error, GatewayError) else Retry.NEVER


def pause_ceiling_s(retry: Retry, failures: int, *, base_s: float, cap_s: float) -> float:
    """The longest pause before the next attempt, after `failures` in a row. A peer that refuses is asked less often:
    somebody must act first, and accounts may be locked."""
    if retry is Retry.AFTER_CHANGE:
        base_s *= REFUSED_FACTOR
        cap_s = max(cap_s, min(cap_s * REFUSED_FACTOR, REFUSED_CAP_S))
    return float(min(cap_s, base_s * 2.0 ** min(failures, 16)))


def refuse(faults: Sequence[str]) -> None:
    """Raise ValueError with all faults, a line each, if there are any: what a model's own checks found, at once. A line
    begins with the key that it means: `key: what is wrong`."""
    if faults:
        raise ValueError("\n".join(faults))
