"""What an answer of the aggregator means for the next attempt, by the taxonomy of errors.

The aggregator knows no idempotency: a create that is repeated creates twice. So an error says whether the request may
have taken effect: after `LeapUnclear` (and `NoAnswer`) look first, after any other error nothing was done.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.domain.errors import LinkDown, PeerBusy, PeerRefused, ProtocolViolation
from gateway.transports.web import WORDS_MAX, WebAnswer, words

BUSY = (408, 425, 429)


class LeapRefused(PeerRefused):
    """The aggregator refuses the request: the key (401), the environment or a permission (403), or its content. Nothing
    was done, and the same request is refused again. `details`: what its error names, as it came."""

    def __init__(self, message: str, *, status: int, details: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


class LeapNotFound(LeapRefused):
    """What was asked for does not exist (404)."""


class LeapBusy(PeerBusy):
    """The aggregator asks for less at once; nothing was done."""


class LeapUnclear(LinkDown):
    """The aggregator failed (5xx). Whether the request took effect is not known."""

    def __init__(self, message: str, *, status: int, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.after_s = after_s


class LeapMalformed(ProtocolViolation):
    """The answer is not what is documented, or too large. Whether the request took effect is not known."""


class PagesChanged(ProtocolViolation):
    """The place in a list is no longer known to the aggregator, or the list does not end: read it anew."""


def check(reply: WebAnswer, *, what: str) -> None:
    """Raise what an answer other than 2xx means. `what`: method and path, for the message."""
    if reply.fine:
        return
    said, details = told(reply.body)
    message = f"{what}: HTTP {reply.status}{f': {said}' if said else ''}"
    if reply.status in BUSY:
        raise LeapBusy(message, after_s=reply.after_s)
    if reply.status >= 500:
        raise LeapUnclear(message, status=reply.status, after_s=reply.after_s)
    if reply.status == 404:
        raise LeapNotFound(message, status=404, details=details)
    if reply.status == 401:
        message += " (the key is not known)"
    if reply.status == 403:
        message += " (the key is of the other environment, or lacks the permission)"
    # a redirect would carry the key along: it is not followed
    raise LeapRefused(message, status=reply.status, details=details)


def told(body: bytes) -> tuple[str, object]:
    """What an error says, in words that are short enough for a log, and its details as they came. Each service has its
    own envelope, and a 500 may be a bare string."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return words(body), None
    if isinstance(answer, str):
        return _line([answer]), None
    if not isinstance(answer, Mapping):
        return words(body), None
    said = [answer.get(name) for name in ("title", "code", "error_code", "message", "error")]
    details = answer.get("details", answer.get("errors"))
    return _line([*said, *_texts(details)]), details


def _texts(details: object) -> list[object]:
    """The texts of an error's details, whatever their shape: an object, a list of objects with a message each."""
    if isinstance(details, Mapping):
        return [f"{name}: {value}" for name, value in details.items() if isinstance(value, str | int | float)]
    if not isinstance(details, list):
        return []
    items: list[Mapping[str, Any]] = [item for item in details if isinstance(item, Mapping)]
    names = ("problem_field", "field", "message", "description")
    return [item.get(name) for item in items[:5] for name in names]


def _line(said: list[object]) -> str:
    texts = [text for text in said if isinstance(text, str) and text]
    return words("; ".join(dict.fromkeys(texts)).encode("utf-8", errors="replace"))[:WORDS_MAX]
