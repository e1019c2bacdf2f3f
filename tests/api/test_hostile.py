"""What no client sends: paths, queries, headers and bodies that are no text. Every route refuses them in words."""

import asyncio
import json
import logging
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from gateway.api.app import QuietPeers, server_log
from tests.api.routes.test_telemetry import street
from tests.api.test_app import DOCUMENT
from tests.builders.fakes import ScriptedSink

ROUTES = [
    (method.upper(), path, [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"])
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
# percent-encoded as text in an address, and as the bytes themselves
SEGMENTS = [b"%ff", b"%ED%A0%80", b"%00", b"%C3", b"\xff\xfe", b"\xed\xa0\x80", b"%2e%2e", b"%0d%0a", b"a" * 4_000]
VALUES = [*SEGMENTS, b"", b"%D9%A3", b"1e400", b"-1", b"9" * 400, b"NaN", b"0001-01-01", b"0001-01-01T00:00:00Z",
          b"9999-12-31T23:59:59.999999Z", b"9999-12-31T23:59:59-23:59", b"0001-01-01T00:00:00%2B23:59", b"1969-12-31",
          b"1970-01-01", b"9999-12-31", b"true"]  # fmt: skip
BODIES = [b"", b"\xff\xfe", b'"\\ud800"', b'{"id": "\\ud800", "by": "\\udfff", "reason": "\\ud800"}', b"{" * 50_000,
          b"[" * 50_000, b"\xef\xbb\xbf{}", b'{"a": 1e999}', b"\x00", b"9" * 5_000, b'{"\\u0000": 1}',
          b'{"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59Z", "devices": ["\\ud800"]}',
          b'{"active": true, "by": "\\ud800"}', b"\xed\xa0\x80"]  # fmt: skip
HEADERS = [b"Cookie: \xff\xfe", b"X-Forwarded-For: \xff", b"Content-Encoding: gzip", b"Content-Encoding: \xff",
           b"If-None-Match: \xed\xa0\x80", b"Accept: \xff", b"Expect: \xff", b"Range: \xff",
           b"Content-Type: \xff"]  # fmt: skip


async def status_of(port: int, lines: list[bytes], body: bytes = b"") -> int:
    """Status of the answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ending = (b"Content-Length: %d" % len(body), b"Connection: close", b"", body)
    writer.write(b"\r\n".join((*lines, *ending)))
    await writer.drain()
    text = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(text.split(maxsplit=2)[1])


def requests(method: str, path: str, names: list[str]) -> list[tuple[bytes, bytes, list[bytes]]]:
    """Target, body and more headers of every request for a route."""
    plain = path.replace("{id}", "x").replace("{name}", "x").encode()
    found: list[tuple[bytes, bytes, list[bytes]]] = []
    if "{" in path:
        front, back = (part.encode() for part in path.replace("{name}", "{id}").split("{id}"))
        found += [(front + segment + back, b"", []) for segment in SEGMENTS]
    for name in [*names, "x", "%ff"]:
        found += [(plain + b"?" + name.encode() + b"=" + value, b"", []) for value in VALUES]
    found += [(plain + b"?" + b"&".join(b"%s=%s" % (n.encode(), v) for n in names), b"", []) for v in VALUES]
    if method in ("POST", "PUT", "PATCH"):
        found += [(plain, body, []) for body in BODIES]
    found += [(plain, b"{}", [header]) for header in HEADERS]
    return found


@pytest.mark.parametrize(("method", "path", "names"), ROUTES)
async def test_route_given_what_is_no_text_answers_in_words(
    method: str, path: str, names: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind = b"text/csv" if (method, path) == ("POST", "/v1/devices") else b"application/json"
    failed: list[tuple[bytes, bytes, list[bytes], int]] = []
    async with street(tmp_path, ScriptedSink("x")) as s:
        port = s.rig.client.port
        assert port is not None
        for target, body, headers in requests(method, path, names):
            lines = [b"%s %s HTTP/1.1" % (method.encode(), target), b"Host: 127.0.0.1:1", b"Content-Type: " + kind]
            status = await status_of(port, [*lines, *headers], body)
            if status >= 500 and not (status == 503 and path == "/readyz"):
                failed.append((target[:60], body[:60], headers, status))
    assert failed == []
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_server_log_keeps_what_is_no_fault_of_the_peer(caplog: pytest.LogCaptureFixture) -> None:
    peers = QuietPeers()
    log = server_log(peers)
    for error in (BadHttpMessage("no HTTP"), KeyError("a bug")):
        log.error("Error handling request", exc_info=(type(error), error, None))
    log.error("without an exception")
    assert [record.message for record in caplog.records] == ["Error handling request", "without an exception"]
    assert peers.dropped == 1
    assert [sample.value for sample in peers.samples()] == [1]


def test_requests_reach_every_part_of_a_route() -> None:
    assert len(ROUTES) >= 25
    assert any(names for _, _, names in ROUTES)
    assert quote("é") == "%C3%A9"
    assert json.loads('"\\ud800"') == "\ud800"
