"""What the tests of HTTP faces share: a plain client that keeps its headers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from simulators.faces.plant import Connection


class Web:
    """A client of one face; answers are (status, JSON or text). `headers` go with every request."""

    def __init__(self, session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> None:
        self._session = session
        self._url = url
        self.headers = headers
        self.answer_headers: dict[str, str] = {}

    async def get(self, path: str) -> tuple[int, Any]:
        return await self._send("GET", path, None)

    async def put(self, path: str, body: object) -> tuple[int, Any]:
        return await self._send("PUT", path, body)

    async def post(self, path: str, body: object = None) -> tuple[int, Any]:
        return await self._send("POST", path, body)

    async def _send(self, method: str, path: str, body: object) -> tuple[int, Any]:
        url = f"{self._url}{path}"
        # a self-signed certificate is what these products have
        async with self._session.request(method, url, json=body, headers=self.headers, ssl=False) as response:
            text = await response.text()
            self.answer_headers = dict(response.headers)
            try:
                return response.status, orjson.loads(text)
            except orjson.JSONDecodeError:
                return response.status, text


@asynccontextmanager
async def web_of(
    connection: Connection, *, headers: dict[str, str] | None = None, timeout_s: float = 5.0
) -> AsyncIterator[Web]:
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Web(session, connection.url, dict(headers or {}))
