"""Recognises callers: by a token, of which only the hash is kept, by the name in a client certificate, or by a JWT.

Tokens are long and random (`gateway access new`), so a plain SHA-256 hides them. A token is compared with every known
hash in constant time: how long an answer takes says nothing about any of them.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.domain.access import SOMEBODY_HERE, Caller, DoorRefusal

BEARER = b"bearer "


class SignedStatements(Protocol):
    """Reads JWTs."""

    def caller(self, token: bytes) -> Caller | DoorRefusal:
        """Whom a valid one names, or why it names nobody."""
        ...


def hash_of(token: bytes) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Everybody who may ask. `tokens`: hashes with whose they are; `certificates`: by the common name of a client's
    certificate; `closed`: who may ask is configured and not known, so nobody may; `alone`: nobody is configured, so
    that only this machine is served."""

    tokens: Sequence[tuple[bytes, Caller]] = ()
    certificates: Mapping[str, Caller] = field(default_factory=dict)
    statements: SignedStatements | None = None
    closed: bool = False

    @property
    def alone(self) -> bool:
        return not self.closed and not self.tokens and not self.certificates and self.statements is None

    def who(self, authorization: bytes, certificate: str | None = None) -> Caller | DoorRefusal:
        """Who asks with such a header and such a certificate, or why that is nobody who is known."""
        if self.alone:
            return SOMEBODY_HERE
        if authorization[: len(BEARER)].lower() == BEARER:
            token = authorization[len(BEARER) :]
            presented = hash_of(token)
            found: Caller | DoorRefusal = DoorRefusal.UNKNOWN
            for known, caller in self.tokens:
                if hmac.compare_digest(presented, known):
                    found = caller
            if found is DoorRefusal.UNKNOWN and self.statements is not None:
                found = self.statements.caller(token)
            return found
        if authorization or certificate is None:
            return DoorRefusal.UNKNOWN if authorization else DoorRefusal.ANONYMOUS
        return self.certificates.get(certificate, DoorRefusal.UNKNOWN_CERTIFICATE)
