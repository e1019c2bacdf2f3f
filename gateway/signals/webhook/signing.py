"""Whether a message comes from its peer: by a signature over its body, or by a bearer."""

import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256

from gateway.signals.webhook.language import BODY, TIMESTAMP, HmacAuth, SignedTime, TimeFormat
from gateway.signals.webhook.loader import WebhookPeer
from gateway.signals.webhook.times import rfc3339

_BEARER = re.compile(r"bearer +([^ ]+) *", re.IGNORECASE)
_WHOLE = re.compile(r"[0-9]{1,16}")
HEADER_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A message that its peer sent. `message_id`: what a repetition of it has too, None = it cannot be told from
    another message of the same content; `issued_ms`: when it was signed (UTC), None = it does not say."""

    message_id: str | None
    issued_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unproven:
    """A message that anybody may have sent, and why."""

    why: str


def proof(peer: WebhookPeer, headers: Mapping[str, Sequence[str]], body: bytes) -> Proven | Unproven:
    """Whether a message with these headers (names in small letters) comes from `peer`. Secrets are compared in constant
    time, and with each that is valid."""
    auth = peer.document.auth
    if isinstance(auth, HmacAuth):
        return _signed(auth, peer.secrets, headers, body)
    shown = _only(headers, "authorization")
    found = None if shown is None else _BEARER.fullmatch(shown)
    if found is None:
        return Unproven(why="a bearer token is required")
    fits = [hmac.compare_digest(found[1].encode("utf-8", "surrogateescape"), secret) for secret in peer.secrets]
    return Proven(message_id=None, issued_ms=None) if any(fits) else Unproven(why="the bearer token is wrong")


def _signed(
    auth: HmacAuth, secrets: Sequence[bytes], headers: Mapping[str, Sequence[str]], body: bytes
) -> Proven | Unproven:
    shown = _only(headers, auth.header)
    if shown is None or not shown.startswith(auth.prefix):
        return Unproven(why=f"{auth.header}: a signature is required")
    given = _decoded(shown.removeprefix(auth.prefix).strip(), auth.encoding)
    if given is None:
        return Unproven(why=f"{auth.header}: no signature of SHA-256 in {auth.encoding}")
    time, issued_ms = "", None
    if auth.timestamp is not None:
        time = _only(headers, auth.timestamp.header) or ""
        issued_ms = _issued_ms(auth.timestamp, time)
        if issued_ms is None:
            return Unproven(why=f"{auth.timestamp.header}: a time in {auth.timestamp.time.value} is required")
    before, _, after = auth.signed.partition(BODY)
    words = [part.replace(TIMESTAMP, time).encode("utf-8", "surrogateescape") for part in (before, after)]
    signed = body.join(words)
    fits = [hmac.compare_digest(hmac.new(secret, signed, sha256).digest(), given) for secret in secrets]
    if not any(fits):
        return Unproven(why=f"{auth.header}: the signature is wrong")
    # of what is signed alone: everything else may be changed by whoever repeats the message
    message_id = blake2b(signed, digest_size=16).hexdigest() if issued_ms is not None else None
    return Proven(message_id=message_id, issued_ms=issued_ms)


def _only(headers: Mapping[str, Sequence[str]], name: str) -> str | None:
    """The value of a header that stands there once."""
    values = headers.get(name.lower(), ())
    return values[0] if len(values) == 1 and len(values[0]) <= HEADER_MAX else None


def _decoded(text: str, encoding: str) -> bytes | None:
    try:
        found = bytes.fromhex(text) if encoding == "hex" else base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return found if len(found) == sha256().digest_size else None


def _issued_ms(signed: SignedTime, text: str) -> int | None:
    if signed.time is not TimeFormat.RFC3339:
        scale = 1000 if signed.time is TimeFormat.EPOCH_S else 1
        return int(text) * scale if _WHOLE.fullmatch(text) else None
    moment = rfc3339(text)
    return None if moment is None else round(moment.timestamp() * 1000)
