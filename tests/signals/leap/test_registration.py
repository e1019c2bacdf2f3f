"""Where the aggregator posts: looked at, and no secret told."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from gateway.signals.leap.registration import LeapRegistration, Registered
from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.client import LeapClient
from tests.signals.leap.rig import SECRET, settings

URL = "https://gateway.example"
OURS = f"{URL}/v1/signals/leap/meter"
OTHER = "https://production.example/v1/signals/leap/meter"


@dataclass(slots=True)
class Peer:
    """The registrations, as the contract has them. `status`: what it answers instead; `lost`: how many answers to
    writes are lost, of writes that have their effect (`arrives`) or not."""

    webhook: dict[str, Any] | None = None
    puts: list[dict[str, Any]] = field(default_factory=list)
    status: int | None = None
    lost: int = 0
    arrives: bool = True

    async def get(self, _request: web.Request) -> web.Response:
        if self.status is not None:
            return web.json_response({"code": "SERVICE_UNAVAILABLE", "message": "x"}, status=self.status)
        if self.webhook is None:
            return web.json_response({"code": "NOT_FOUND", "message": "none"}, status=404)
        return web.json_response(self.webhook)

    async def put(self, request: web.Request) -> web.Response:
        if self.status is not None:
            return web.json_response({"code": "FORBIDDEN", "message": "x"}, status=self.status)
        asked = await request.json()
        self.puts.append(asked)
        cut, self.lost = self.lost > 0, self.lost - 1
        if not cut or self.arrives:
            self.webhook = asked
        if cut:
            return web.json_response({"code": "SERVICE_UNAVAILABLE", "message": "x"}, status=503)
        return web.json_response(self.webhook)


@asynccontextmanager
async def registration(peer: Peer, **other: Any) -> AsyncIterator[LeapRegistration]:
    app = web.Application()
    app.router.add_get("/v2/dispatch/meter/webhook", peer.get)
    app.router.add_put("/v2/dispatch/meter/webhook", peer.put)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = LeapClient(LeapAccount(environment="staging", key=SecretStr("key-of-the-account"), url=url))
    async with LeapRegistration(settings(**({"url": URL} | other)), client) as found:
        yield found
    await runner.cleanup()


def hook(url: str, value: str = SECRET, name: str = "X-Leap-Secret") -> dict[str, Any]:
    return {"url": url, "headers": [{"name": name, "value": value}]}


@pytest.mark.parametrize(
    ("webhook", "state", "warns"),
    [
        (None, Registered.NONE, True), (hook(OURS), Registered.OURS, False), (hook(OTHER), Registered.OTHER_URL, True),
        (hook(OURS, "old-secret-0123456789"), Registered.OTHER_HEADER, True),
        (hook(OURS, name="x-other"), Registered.OTHER_HEADER, True),
        ({"url": OURS}, Registered.OTHER_HEADER, True),
    ],
)  # fmt: skip
async def test_the_daemon_says_how_the_registration_stands_and_changes_nothing(
    webhook: dict[str, Any] | None, state: Registered, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    peer = Peer(webhook)
    async with registration(peer) as found:
        (one,) = await found.verify()
        assert one.state is state
        assert bool(found.warnings()) == warns
        assert {dict(s.labels)["state"]: s.value for s in found.samples()}[state.value] == 1
    assert peer.puts == []
    told = caplog.text + repr(one) + "".join(str(record.__dict__) for record in caplog.records)
    assert SECRET not in told
    assert "old-secret" not in told


async def test_an_aggregator_that_does_not_answer_is_no_change(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer(hook(OURS))
    async with registration(peer) as found:
        await found.verify()
        peer.status = 503
        (one,) = await found.verify()
        assert (one.state, found.warnings()) == (Registered.UNKNOWN, [])
        assert "503" in one.detail
