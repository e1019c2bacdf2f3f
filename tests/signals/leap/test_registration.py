"""Where the aggregator posts: looked at, never taken from another by mistake, and no secret told."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from gateway.domain.errors import InvalidInput
from gateway.signals.leap.registration import LeapRegistration, Registered
from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.client import LeapClient
from tests.signals.leap.rig import SECRET, settings

URL = "https://gateway.example"
OURS = f"{URL}/v1/signals/leap/meter"
OTHER = "https://production.example/v1/signals/leap/meter"


@dataclass(slots=True)
class Peer:
    """The registrations, as the contract has them. `status`: what it answers instead."""

    webhook: dict[str, Any] | None = None
    puts: list[dict[str, Any]] = field(default_factory=list)
    status: int | None = None

    async def get(self, _request: web.Request) -> web.Response:
        if self.status is not None:
            return web.json_response({"code": "SERVICE_UNAVAILABLE", "message": "x"}, status=self.status)
        if self.webhook is None:
            return web.json_response({"code": "NOT_FOUND", "message": "none"}, status=404)
        return web.json_response(self.webhook)

    async def put(self, request: web.Request) -> web.Response:
        self.webhook = await request.json()
        self.puts.append(self.webhook or {})
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


async def test_where_nothing_is_registered_this_gateway_is() -> None:
    peer = Peer()
    async with registration(peer) as found:
        assert (await found.register("meter", replace=None, by="x")).state is Registered.OURS
        assert (await found.register("meter", replace=None, by="x")).state is Registered.OURS
    assert peer.puts == [{"url": OURS, "headers": [{"name": "x-leap-secret", "value": SECRET}]}]


@pytest.mark.parametrize("replace", [None, OURS, "https://third.example/x"])
async def test_another_address_is_not_replaced_unless_it_is_named(replace: str | None) -> None:
    peer = Peer(hook(OTHER))
    async with registration(peer) as found:
        with pytest.raises(InvalidInput, match="production"):
            await found.register("meter", replace=replace, by="x")
        assert peer.puts == []
        assert (await found.register("meter", replace=OTHER, by="x")).state is Registered.OURS


async def test_the_same_address_with_another_header_is_written_without_a_word_more() -> None:
    peer = Peer(hook(OURS, "old-secret-0123456789"))
    async with registration(peer) as found:
        assert (await found.register("meter", replace=None, by="x")).state is Registered.OURS


@pytest.mark.parametrize(("level", "other"), [("group", {}), ("meter", {"url": None})])
async def test_what_is_not_configured_is_not_registered(level: Any, other: dict[str, Any]) -> None:
    peer = Peer()
    async with registration(peer, **other) as found:
        with pytest.raises(InvalidInput):
            await found.register(level, replace=None, by="x")
    assert peer.puts == []
