"""Tells a ticket system of cases by webhook: each as JSON with a signature, by https.

Headers: `Idempotency-Key: case-<number>-<revision>`, `X-Gateway-Timestamp` (UTC seconds), and `X-Gateway-Signature:
sha256=<hex>`, the HMAC-SHA256 with the configured secret over `<timestamp>.<body>`. Any 2xx answer is a receipt. 401
and 403 wait for a person; all others are tried again (Retry-After honoured).
"""

import hmac
from hashlib import sha256
from typing import Annotated, Self

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.domain.programs.cases import HomeCase
from gateway.observability.parts import Part
from gateway.ports.sinks import Accept, Keep, Stop
from gateway.schemas.cases import case_body
from gateway.sinks.web import ask, body_of
from gateway.transports.web import check_url, open_session

REPLY_BYTES_MAX = 1 << 16
SECRET_MIN = 16


class TicketSettings(BaseModel):
    """Where cases go. `secret` signs them; https unless the receiver is on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(pattern=r"^https?://", examples=["https://tickets.example/hooks/batteries"])]
    secret: Annotated[SecretStr, Field(examples=["env:TICKET_SECRET"])]
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        check_url(self.url, secret=True, key="secret")
        if len(self.secret.get_secret_value()) < SECRET_MIN:
            raise ValueError(f"secret: shorter than {SECRET_MIN} characters")
        return self


class TicketWebhook(Part):
    """One ticket system. Implements `gateway.ports.TicketSystem`. Use it inside a running loop."""

    component = "programs"

    def __init__(self, settings: TicketSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def send(self, case: HomeCase, now_ms: int) -> Accept | Keep | Stop:
        if self._session is None:
            self._session = open_session(self._settings.timeout_s)
        body = case_body(case, now_ms).model_dump_json().encode()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": f"case-{case.number}-{case.revision}",
            **signature(self._settings.secret.get_secret_value(), body, now_ms),
        }
        reply = await ask(
            self._session, "POST", self._settings.url, headers=headers, data=body, most_bytes=REPLY_BYTES_MAX
        )
        answer = reply if isinstance(reply, Keep) else body_of(reply, sent=False)
        return Accept() if isinstance(answer, bytes) else answer

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def signature(secret: str, body: bytes, now_ms: int) -> dict[str, str]:
    """The headers that prove a body."""
    stamp = str(now_ms // 1000)
    signed = hmac.new(secret.encode(), stamp.encode() + b"." + body, sha256).hexdigest()
    return {"X-Gateway-Timestamp": stamp, "X-Gateway-Signature": f"sha256={signed}"}
