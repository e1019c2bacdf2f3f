"""Bodies that are too large are refused as they come, with a length or without, before anything reads them."""

import gzip
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.api.exchange import BODY_BYTES_MAX
from tests.api.routes.test_telemetry import street
from tests.builders.fakes import ScriptedSink

PATHS = ("/v1/dispatch-events", "/v1/dispatch/stop-all", "/v1/exclusions", "/v1/holds", "/v1/sinks/x/resend")


async def pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 64 << 10):
        yield b" " * (64 << 10)


@pytest.mark.parametrize("path", PATHS)
async def test_body_too_large_is_refused_also_in_pieces_and_packed(path: str, tmp_path: Path) -> None:
    async with street(tmp_path, ScriptedSink("x")) as s:
        packed = gzip.compress(b" " * (8 << 20))
        kinds: list[tuple[object, dict[str, str]]] = [
            (io.BytesIO(b" " * (BODY_BYTES_MAX + 1)), {}), (pieces(BODY_BYTES_MAX + (1 << 20)), {}),
            (packed, {"Content-Encoding": "gzip"}),
        ]  # fmt: skip
        for data, headers in kinds:
            headers = {"Content-Type": "application/json"} | headers
            async with s.rig.client.request("POST", path, data=data, headers=headers) as reply:
                body = await reply.json()
                assert (reply.status, body["error"]) == (413, f"larger than {BODY_BYTES_MAX} bytes")
        assert s.rig.world.dispatcher.stopped is False


async def test_body_just_small_enough_is_read(tmp_path: Path) -> None:
    async with street(tmp_path) as s:
        body = b'{"active": true, "by": "me"}'
        padded = body + b" " * (BODY_BYTES_MAX - len(body))
        headers = {"Content-Type": "application/json"}
        async with s.rig.client.request(
            "POST", "/v1/dispatch/stop-all", data=io.BytesIO(padded), headers=headers
        ) as reply:
            assert reply.status == 200
        assert s.rig.world.dispatcher.stopped is True
