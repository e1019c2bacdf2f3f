"""The aggregator's interface against a scripted server: keys, meanings of errors, pages, bounds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from gateway.domain.errors import Retry, retry_of
from gateway.transports.leap import client as module
from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.client import (
    DISPATCH_PAGES,
    JOB_PAGES,
    REVENUE_PAGES,
    SEARCH_PAGES,
    LeapClient,
    Paging,
)
from gateway.transports.leap.errors import (
    LeapBusy,
    LeapMalformed,
    LeapNotFound,
    LeapRefused,
    LeapUnclear,
    PagesChanged,
)
from gateway.transports.web import NoAnswer

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEY = "key-0123456789abcdef"


@asynccontextmanager
async def peer(answer: Answer, *, timeout_s: float = 30) -> AsyncIterator[LeapClient]:
    """A client of a server that answers every request so."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    made = LeapClient(LeapAccount(environment="staging", key=SecretStr(KEY), url=url, timeout_s=timeout_s))
    try:
        yield made
    finally:
        await made.close()
        await runner.cleanup()


def says(status: int, text: str, **headers: str) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("status", "text", "error", "retry"),
    [
        (401, '{"title":"Unauthorized","status":401}', LeapRefused, Retry.AFTER_CHANGE),
        (403, '{"code":"FORBIDDEN","message":"no"}', LeapRefused, Retry.AFTER_CHANGE),
        (400, '{"title":"Meter id is not a UUID","details":{"meter_id":"abc"}}', LeapRefused, Retry.AFTER_CHANGE),
        (404, '{"error":"none"}', LeapNotFound, Retry.AFTER_CHANGE),
        (302, "", LeapRefused, Retry.AFTER_CHANGE),
        (429, "", LeapBusy, Retry.LATER),
        (500, '"An error happened whilst processing your request"', LeapUnclear, Retry.LATER),
        (503, '{"code":"SERVICE_UNAVAILABLE","message":"x"}', LeapUnclear, Retry.LATER),
        (200, "<html>", LeapMalformed, Retry.LATER),
        (200, "[1]", LeapMalformed, Retry.LATER),
        (200, '{"a": NaN}', LeapMalformed, Retry.LATER),
    ],
)
async def test_every_answer_has_its_meaning_for_the_next_attempt(
    status: int, text: str, error: type[Exception], retry: Retry
) -> None:
    async with peer(says(status, text, Location="http://127.0.0.1:1/")) as client:
        with pytest.raises(error) as caught:
            await client.document("GET", "/v1.1/things")
    assert retry_of(caught.value) is retry
    assert "GET /v1.1/things" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words", "details"),
    [
        ('{"title":"Bad","details":{"meter_id":"x"}}', "Bad; meter_id: x", {"meter_id": "x"}),
        (
            '{"title":"Bad","details":[{"message":"no city","json_index":3,"problem_field":"city"}]}',
            "Bad; city; no city",
            [{"message": "no city", "json_index": 3, "problem_field": "city"}],
        ),
        (
            '{"errors":[{"field":"city","description":"none"}]}',
            "city; none",
            [{"field": "city", "description": "none"}],
        ),
        (
            '{"code":"BAD_REQUEST","message":"why","error_code":"DISPATCH_INVALID_INPUT"}',
            "BAD_REQUEST; DISPATCH_INVALID_INPUT; why",
            None,
        ),
        ('"bare"', "bare", None),
    ],
)
async def test_the_words_of_every_error_envelope_are_told(text: str, words: str, details: object) -> None:
    async with peer(says(400, text)) as client:
        with pytest.raises(LeapRefused) as caught:
            await client.ask("POST", "/x", body={})
    assert str(caught.value) == f"POST /x: HTTP 400: {words}"
    assert caught.value.details == details


async def test_the_key_goes_as_a_bearer_token_and_is_never_repeated_in_an_error() -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response(status=403, text=f'{{"message":"{seen[0]} is unknown"}}')

    async with peer(answer) as client:
        with pytest.raises(LeapRefused, match="other environment") as caught:
            await client.ask("GET", "/v2/x")
    assert seen == [f"Bearer {KEY}"]
    assert KEY not in str(caught.value)


async def test_a_peer_that_asks_for_time_is_given_it() -> None:
    async with peer(says(429, "", **{"Retry-After": "7"})) as client:
        with pytest.raises(LeapBusy) as caught:
            await client.ask("GET", "/x")
    assert caught.value.after_s == 7


async def test_silence_ends_with_the_time_out_and_says_nothing_of_what_was_done() -> None:
    async def answer(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with peer(answer, timeout_s=1) as client:
        with pytest.raises(NoAnswer, match="timeout"):
            await client.ask("POST", "/x", body={"a": 1})


async def test_money_is_parsed_exactly_and_only_where_asked_for() -> None:
    async with peer(says(200, '{"revenue": 0.1, "more": 12345678901234567.89, "unknown": "kept"}')) as client:
        found = await client.document("GET", "/x", exact=True)
        assert found == {"revenue": Decimal("0.1"), "more": Decimal("12345678901234567.89"), "unknown": "kept"}
        assert isinstance((await client.document("GET", "/x"))["revenue"], float)


async def test_an_answer_without_a_body_is_none() -> None:
    async with peer(says(204, "")) as client:
        assert await client.ask("DELETE", "/v2/dispatch/meter/webhook") is None


async def test_an_answer_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLY_BYTES_MAX", 100)
    async with peer(says(200, f'{{"a": "{"x" * 100}"}}')) as client:
        with pytest.raises(LeapMalformed, match="larger than 100 bytes"):
            await client.ask("GET", "/x")


@pytest.mark.parametrize(
    ("paging", "name", "asked"),
    [
        (DISPATCH_PAGES, "next_page_token", [{}, {"page_token": "t1"}]),
        (SEARCH_PAGES, "next_page_token", [{"page_size": 500}, {"page_size": 500, "page_token": "t1"}]),
        (JOB_PAGES, "next_page_token", [{"page_size": "100"}, {"page_size": "100", "page_token": "t1"}]),
        (REVENUE_PAGES, "page_token", [{"page_size": 1000}, {"page_size": 1000, "page_token": "t1"}]),
        (REVENUE_PAGES, "next_page_token", [{"page_size": 1000}, {"page_size": 1000, "page_token": "t1"}]),
    ],
)
async def test_every_service_is_read_page_by_page(paging: Paging, name: str, asked: list[dict[str, object]]) -> None:
    seen: list[dict[str, object]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.query) if paging.place == "query" else await request.json())
        return web.json_response({"results": [len(seen)], name: "t1" if len(seen) == 1 else None})

    async with peer(answer) as client:
        pages = [page["results"] async for page in client.pages("POST", "/v2/search", paging=paging)]
    assert pages == [[1], [2]]
    assert seen == asked


async def test_a_list_that_leads_back_ends_with_an_error() -> None:
    async with peer(says(200, '{"results": [], "next_page_token": "same"}')) as client:
        with pytest.raises(PagesChanged, match="leads back"):
            _ = [page async for page in client.pages("POST", "/x", paging=DISPATCH_PAGES)]


async def test_a_place_that_is_gone_is_no_refusal_of_the_request() -> None:
    count = 0

    async def answer(_request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        if count == 2:
            return web.json_response({"code": "BAD_REQUEST", "message": "token"}, status=400)
        return web.json_response({"results": [], "next_page_token": "t"})

    async with peer(answer) as client:
        with pytest.raises(PagesChanged) as caught:
            _ = [page async for page in client.pages("POST", "/x", paging=DISPATCH_PAGES)]
    assert retry_of(caught.value) is Retry.LATER


async def test_a_large_answer_is_whole() -> None:
    items = list(range(50_000))
    async with peer(says(200, str({"a": items}).replace("'", '"'))) as client:
        assert (await client.document("POST", "/x", body={"ids": items}))["a"] == items


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"url": "http://api.leap.energy"}, "https is required, because requests carry the key"),
        ({"url": "http://10.0.0.1:8080"}, "https is required"),
        ({"url": "https://api.leap.energy"}, "this is the host of production, but environment is staging"),
        ({"url": "https://user@peer.example"}, "credentials do not belong here; use key"),
        ({"key": "two words"}, "key: empty, or holds"),
        ({"key": ""}, "key: empty, or holds"),
    ],
)
def test_an_account_that_would_leak_its_key_or_ask_the_other_environment_is_refused(
    settings: dict[str, str], fault: str
) -> None:
    with pytest.raises(ValidationError, match=fault):
        LeapAccount.model_validate({"environment": "staging", "key": KEY, **settings})


def test_the_address_follows_from_the_environment() -> None:
    assert LeapAccount(environment="staging", key=SecretStr(KEY)).base == "https://api.staging.leap.energy"
    assert LeapAccount(environment="production", key=SecretStr(KEY)).base == "https://api.leap.energy"
    assert LeapAccount(environment="staging", key=SecretStr(KEY), url="http://127.0.0.1:8").base == "http://127.0.0.1:8"
