"""Error taxonomy: what failed and whether trying again can help."""

from collections.abc import Sequence
from enum import Enum


class Retry(Enum):
    """Whether the same attempt may succeed later."""

    LATER = "later"
    AFTER_CHANGE = "after_change"
    NEVER = "never"


class GatewayError(Exception):
    """Root of every error the gateway raises on purpose; `retry` says whether waiting can help."""

    retry: Retry = Retry.NEVER


class LinkDown(GatewayError):
    """The peer cannot be reached or the connection was lost; waiting helps."""

    retry = Retry.LATER


class PeerRefused(GatewayError):
    """The peer answered and said no: credentials, permissions, protocol version; an operator must act."""

    retry = Retry.AFTER_CHANGE


class PeerBusy(GatewayError):
    """The peer asks to try again later (`after_s`, 0 = no time given); nothing was done."""

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

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class InvariantBroken(GatewayError):
    """A condition the code relies on does not hold: a bug."""


def invariant(condition: bool, why: str) -> None:
    """Raise `InvariantBroken` unless `condition` holds."""
    if not condition:
        raise InvariantBroken(why)


def refuse(faults: Sequence[str]) -> None:
    """Raise ValueError with all faults, a line each, if there are any: what a model's own checks found, at once. A line
    begins with the key that it means: `key: what is wrong`."""
    if faults:
        raise ValueError("\n".join(faults))
