"""Cases reach a ticket system signed, and only an answer that says so is a receipt."""

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from gateway.domain.programs.cases import opened
from gateway.domain.programs.underperformers import LikelyCause
from gateway.ports.sinks import Accept, Keep, Stop
from gateway.sinks.tickets import TicketSettings, TicketWebhook

SECRET = "0123456789abcdef"
NOW_MS = 1_764_000_000_000
CASE = opened("home-1", LikelyCause.UNIT_OFF, by="ann", now_ms=NOW_MS)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def webhook(answer: Answer) -> AsyncIterator[TicketWebhook]:
    """The webhook of a server on this machine that answers so."""
    app = web.Application()
    app.router.add_post("/hook", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        async with TicketWebhook(TicketSettings(url=url, secret=SecretStr(SECRET))) as tickets:
            yield tickets
    finally:
        await runner.cleanup()


async def test_a_case_is_sent_as_json_with_its_key_and_a_signature_over_time_and_body() -> None:
    seen: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.read()))
        return web.Response(status=202)

    async with webhook(answer) as tickets:
        assert await tickets.send(CASE, NOW_MS) == Accept()
    ((headers, body),) = seen
    signed = hmac.new(SECRET.encode(), headers["X-Gateway-Timestamp"].encode() + b"." + body, sha256).hexdigest()
    assert headers["X-Gateway-Timestamp"] == str(NOW_MS // 1000)
    assert headers["X-Gateway-Signature"] == f"sha256={signed}"
    assert headers["Idempotency-Key"] == "case-0-1"
    told = json.loads(body)
    assert (told["home"], told["cause"], told["state"], told["opened_by"]) == ("home-1", "unit-off", "open", "ann")


@pytest.mark.parametrize(
    ("status", "kind"), [(200, Accept), (401, Stop), (403, Stop), (404, Keep), (429, Keep), (500, Keep), (302, Keep)]
)
async def test_only_a_good_answer_is_a_receipt(status: int, kind: type) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:1/"} if status == 302 else {})

    async with webhook(answer) as tickets:
        assert isinstance(await tickets.send(CASE, NOW_MS), kind)


async def test_a_receiver_that_is_not_there_is_tried_again() -> None:
    async with TicketWebhook(TicketSettings(url="http://127.0.0.1:1/hook", secret=SecretStr(SECRET))) as tickets:
        assert isinstance(await tickets.send(CASE, NOW_MS), Keep)


@pytest.mark.parametrize(
    ("url", "secret", "fault"),
    [
        ("http://tickets.example/hook", SECRET, "https is required"),
        ("https://ann:x@tickets.example/hook", SECRET, "credentials do not belong here"),
        ("https://tickets.example/hook", "short", "shorter than 16 characters"),
    ],
)
def test_plain_http_beyond_this_machine_and_short_secrets_are_refused(url: str, secret: str, fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        TicketSettings(url=url, secret=SecretStr(secret))
    TicketSettings(url="https://tickets.example/hook", secret=SecretStr(SECRET))
