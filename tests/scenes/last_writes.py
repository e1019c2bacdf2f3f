"""An HTTP receiver that keeps for each device and start whatever arrived last, and is ill at times."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from simulators.ledger import IntervalRow, read_row

ILL = ("refuses", "busy", "empty", "foreign", "closes", "loses", "garbles")
"""400 to everything; 503; 200 without a body; 200 about another batch; the connection closed before anything is
taken; everything taken and no answer; everything taken and an answer about another batch."""
GZIP = b"\x1f\x8b"
TAKES = ("well", "loses", "garbles")


@dataclass(slots=True)
class LastWrites:
    """`rows` by device and start (UTC ms); `taken` all (device, start, revision) that ever arrived; `alive`: the
    process whose requests are answered."""

    rows: dict[tuple[str, int], IntervalRow] = field(default_factory=dict)
    taken: set[tuple[str, int, int]] = field(default_factory=set)
    how: str = "well"
    alive: int = 0
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What becomes of a batch."""
        if int(request.match_info["process"]) != self.alive or self.how == "closes":
            return self._gone(request)
        raw = await request.read()
        body: dict[str, Any] = orjson.loads(gzip.decompress(raw) if raw[:2] == GZIP else raw)
        if self.how in TAKES:
            for given in body["intervals"]:
                row = read_row(given)
                assert isinstance(row, IntervalRow), row
                self.rows[row.device, row.start_ms] = row
                self.taken.add((row.device, row.start_ms, row.revision))
        if self.how == "loses":
            return self._gone(request)
        if self.how == "refuses":
            return web.Response(status=400)
        if self.how == "busy":
            return web.Response(status=503)
        if self.how == "empty":
            return web.Response()
        batch = body["batch"] if self.how == "well" else "another"
        return web.json_response({"batch": batch, "accepted": len(body["intervals"]), "rejected": []})

    @staticmethod
    def _gone(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


@asynccontextmanager
async def last_writes() -> AsyncIterator[LastWrites]:
    """A receiver that listens on loopback."""
    receiver = LastWrites()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/{process}/intervals", receiver.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield receiver
    finally:
        await runner.cleanup()
