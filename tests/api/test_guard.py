"""Who gets in at REST's doors: no page of somebody else's steers the fleet, and no header breaks the guard."""

import asyncio
import json

import pytest

from tests.api.test_app import DOCUMENT, HEADER, TOKEN, Rig, body_of, rig

STOP = "/v1/dispatch/stop-all"
STOPPING = json.dumps({"active": True, "by": "somebody"}).encode()
ROWS = f"{HEADER}n,p,s,1,1,1,0\n".encode()
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
# What a page may send to another site without asking that first: a "simple" request, or one without a type.
SIMPLE = ("text/plain", "text/plain; charset=utf-8", "application/x-www-form-urlencoded", "multipart/form-data", None)
CHANGES = [
    (method, path.replace("{id}", "x").replace("{name}", "x"))
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if method.upper() in CHANGING and not operation.get("x-own-secret")
]
PROVEN = {
    path
    for path, methods in DOCUMENT["paths"].items()
    for operation in methods.values()
    if operation.get("x-own-secret")
}


async def raw(r: Rig, *lines: bytes, body: bytes = b"") -> tuple[int, dict[str, object]]:
    """Status and JSON of a request whose bytes no client would send."""
    reader, writer = await asyncio.open_connection(r.client.host, r.client.port)
    ending = (b"Content-Length: %d" % len(body), b"Connection: close", b"", body)
    writer.write(b"\r\n".join((*lines, *ending)))
    await writer.drain()
    text = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, answer = text.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(answer)


# -- a page of somebody else's -------------------------------------------------------------------------------


def test_changes_are_all_that_the_document_names() -> None:
    assert ("post", STOP) in CHANGES
    assert len(CHANGES) >= 8


def test_whoever_sends_to_a_signal_proves_it_with_a_secret_that_no_page_knows() -> None:
    assert {
        "/v1/signals/leap/group", "/v1/signals/leap/meter", "/v1/signals/leap/platform", "/v1/signals/webhook/{name}",
    } == PROVEN  # fmt: skip


@pytest.mark.parametrize("kind", SIMPLE)
async def test_stop_all_of_a_kind_that_any_page_may_send_is_refused(kind: str | None) -> None:
    async with rig() as r:
        lines = [b"POST /v1/dispatch/stop-all HTTP/1.1", b"Host: 127.0.0.1:8080"]
        lines += [b"Content-Type: " + kind.encode()] if kind else []
        status, body = await raw(r, *lines, body=STOPPING)
        assert (status, body) == (415, {"error": "send application/json", "problems": []})
        assert r.world.dispatcher.stopped is False


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_stop_all_as_json_stops(kind: str) -> None:
    async with rig() as r:
        await r.ask("POST", STOP, data=STOPPING, headers={"Content-Type": kind})
        assert r.world.dispatcher.stopped is True


@pytest.mark.parametrize("kind", [k for k in SIMPLE if k])
@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_change_with_a_body_of_another_kind_is_refused(method: str, path: str, kind: str) -> None:
    async with rig() as r:
        body = await r.ask(method.upper(), path, data=b"{}", headers={"Content-Type": kind}, status=415)
        assert str(body["error"]).startswith("send ")


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p in CHANGES if m == "post"])
async def test_change_without_a_body_says_its_kind_all_the_same(method: str, path: str) -> None:
    async with rig() as r:
        line = f"{method.upper()} {path} HTTP/1.1".encode()
        assert (await raw(r, line, b"Host: localhost"))[0] == 415


async def test_delete_without_a_body_needs_no_kind() -> None:
    async with rig() as r:
        await r.ask("POST", "/v1/dispatch-events", json=body_of(r))
        assert (await raw(r, b"DELETE /v1/dispatch-events/e HTTP/1.1", b"Host: localhost"))[0] == 200


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
async def test_import_takes_tables_and_lines_only(kind: str) -> None:
    async with rig() as r:
        body = await r.ask("POST", "/v1/devices", data=ROWS, headers={"Content-Type": kind}, status=415)
        assert body["error"] == "send text/csv or application/x-ndjson"
        report = await r.ask("POST", "/v1/devices", data=ROWS, headers={"Content-Type": "text/csv"})
        assert report["enrolled"] == 1


ORIGINS = [
    "https://evil.example", "null", "http://localhost", "http://localhost:8081", "http://127.0.0.1:8080", "",
    "http://localhost:8080.evil.example", "file://", "localhost:8080", "http://user@localhost:8080", "ws://localhost:8080",
    "http://localhost:8080/", "http://localhost:8080, https://evil.example",
]  # fmt: skip


@pytest.mark.parametrize("origin", ORIGINS)
async def test_change_from_a_page_of_another_origin_is_refused(origin: str) -> None:
    async with rig() as r:
        headers = {"Host": "localhost:8080", "Origin": origin}
        body = await r.ask("POST", STOP, json={"active": True}, headers=headers, status=403)
        assert body == {"error": "pages of other origins change nothing here", "problems": []}
        await r.ask("POST", "/v1/devices", data=ROWS, headers=headers | {"Content-Type": "text/csv"}, status=403)
        for path in ("/v1/exclusions/x", "/v1/holds/x"):
            await r.ask("DELETE", path, headers=headers, status=403)
        assert r.world.dispatcher.stopped is False
        assert (await r.ask("GET", "/v1/devices", headers=headers))["total"] == 3


async def test_change_from_a_page_of_another_origin_is_refused_with_the_token_too() -> None:
    async with rig(token=TOKEN) as r:
        headers = {"Authorization": f"Bearer {TOKEN}", "Origin": "https://evil.example"}
        await r.ask("POST", STOP, json={"active": True}, headers=headers, status=403)


async def test_change_with_two_origins_is_refused() -> None:
    async with rig() as r:
        lines = (b"POST /v1/dispatch/stop-all HTTP/1.1", b"Host: localhost", b"Content-Type: application/json")
        own, other = b"Origin: http://localhost", b"Origin: https://evil.example"
        assert (await raw(r, *lines, own, other, body=STOPPING))[0] == 403
        assert (await raw(r, *lines, own, body=STOPPING))[0] == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [("localhost:8080", "http://localhost:8080"), ("localhost:8080", "HTTP://LocalHost:8080"),
     ("localhost", "https://localhost"), ("[::1]:8080", "http://[::1]:8080")],
)  # fmt: skip
async def test_change_from_a_page_of_our_own_is_taken(host: str, origin: str) -> None:
    async with rig() as r:
        await r.ask("POST", STOP, json={"active": True}, headers={"Host": host, "Origin": origin})
        assert r.world.dispatcher.stopped is True


async def test_unknown_route_or_method_is_named_before_the_kind_of_its_body() -> None:
    async with rig() as r:
        for method, path, status in (("POST", "/v2/devices", 404), ("PUT", "/v1/devices", 405)):
            async with r.client.request(method, path, data=b"{}", headers={"Content-Type": "text/plain"}) as reply:
                assert reply.status == status
                assert set(await reply.json()) == {"error", "problems"}


# -- headers that no client sends ----------------------------------------------------------------------------

HOSTILE = (b"\xff\xfe", b"Bearer \xff\xfe", "Bearer é".encode("latin-1"), b"Bearer \xed\xa0\x80", b"\xc3")


@pytest.mark.parametrize("given", HOSTILE)
async def test_authorization_that_is_not_utf8_is_no_token(given: bytes) -> None:
    async with rig(token=TOKEN) as r:
        found = await raw(r, b"GET /v1/devices HTTP/1.1", b"Host: x", b"Authorization: " + given)
        assert found == (401, {"error": "a bearer token is required", "problems": []})


async def test_token_that_is_not_ascii_opens_to_itself_only() -> None:
    token = "grüße-0123456789"
    async with rig(token=token) as r:
        line = b"GET /v1/devices HTTP/1.1"
        assert (await raw(r, line, b"Host: x", b"Authorization: Bearer " + token.encode()))[0] == 200
        assert (await raw(r, line, b"Host: x", b"Authorization: Bearer " + token.encode("latin-1")))[0] == 401


@pytest.mark.parametrize("given", HOSTILE)
@pytest.mark.parametrize("name", [b"Host", b"Origin", b"Content-Type"])
async def test_header_that_is_not_utf8_is_refused_and_breaks_nothing(name: bytes, given: bytes) -> None:
    async with rig() as r:
        headers = {b"Host": b"localhost", b"Content-Type": b"application/json"} | {name: given}
        lines = [key + b": " + value for key, value in headers.items()]
        status, _ = await raw(r, b"POST /v1/dispatch/stop-all HTTP/1.1", *lines, body=STOPPING)
        assert status in (400, 403, 415)
        assert r.world.dispatcher.stopped is False
