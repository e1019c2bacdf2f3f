"""Messages of the peers that ship, as those peers would send them."""

import hashlib
import hmac
from pathlib import Path
from typing import Any

import orjson

from gateway.schemas.interval_rows import rfc3339
from gateway.signals.webhook.loader import WebhookPeer, load_webhooks

FOLDER = Path(__file__).parents[3] / "config" / "webhooks"
DOCUMENTS = {name: peer.document for name, peer in load_webhooks(FOLDER).items()}
AXLE_SECRET, VOLTUS_SECRET = b"secret-of-axle-0123", b"secret-of-voltus-0123"
AXLE = WebhookPeer(document=DOCUMENTS["axle"], secrets=(AXLE_SECRET,))
VOLTUS = WebhookPeer(document=DOCUMENTS["voltus"], secrets=(VOLTUS_SECRET,))


def axle_event(name: str = "e", *, at_ms: int, issued_ms: int, **other: Any) -> dict[str, Any]:
    """An event of an hour that exports 2 kW; Axle's sign: + = import."""
    return {
        "event_id": name, "issued_timestamp": rfc3339(issued_ms), "asset_id": "a1", "market_id": "m", "level_kw": -2.0,
        "from_time": rfc3339(at_ms), "to_time": rfc3339(at_ms + 3_600_000), **other,
    }  # fmt: skip


def signed(body: bytes, at_s: int, secret: bytes = AXLE_SECRET) -> dict[str, str]:
    """The headers of a message that is sent at a time."""
    signature = hmac.new(secret, f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Axle-Timestamp": str(at_s), "X-Axle-Signature": signature, "Content-Type": "application/json"}


def lowered(headers: dict[str, str]) -> dict[str, list[str]]:
    """Headers as the door is given them."""
    return {name.lower(): [value] for name, value in headers.items()}


def dispatch(name: str = "e", *, at_ms: int, revision: int = 0, **other: Any) -> dict[str, Any]:
    """A dispatch of an hour that sheds 3 kW at two sites."""
    return {
        "id": name, "modification_number": revision, "authorized": True, "test": False, "program": "demand-response",
        "start_time": rfc3339(at_ms), "end_time": rfc3339(at_ms + 3_600_000),
        "sites": [{"id": "s1", "commitment": 1.0}, {"id": "s2", "commitment": 2}], **other,
    }  # fmt: skip


def dispatches(*events: dict[str, Any]) -> bytes:
    return orjson.dumps({"dispatches": list(events)})


BEARER = {"Authorization": f"Bearer {VOLTUS_SECRET.decode()}", "Content-Type": "application/json"}
