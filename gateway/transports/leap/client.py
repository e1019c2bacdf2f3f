"""Asks the aggregator: bearer key, JSON both ways, errors by their meaning, lists page by page.

Answers come back as they are: unknown fields stay, enums are open. The caller reads leniently what it needs and never
guesses a missing value. An answer whose fields are money is parsed with exact decimals (`exact`).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import aiohttp
import orjson

from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.errors import LeapMalformed, LeapNotFound, LeapRefused, PagesChanged, check
from gateway.transports.web import WebAnswer, ask, open_session

Document = dict[str, Any]

REPLY_BYTES_MAX = 32 << 20
OFF_LOOP_BYTES = 64 << 10
"""A body of more bytes is parsed and written beside the loop."""
PAGES_MAX = 4_000
"""A list that goes on for longer does not end: 2,000,000 entries at 500 a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """How a service pages: where the request's token and size stand, the names of the next token in its answer, and the
    size to ask for (None = the service has one size of its own)."""

    place: Literal["body", "query"]
    size: int | None
    next_names: tuple[str, ...] = ("next_page_token",)


DISPATCH_PAGES = Paging(place="body", size=None)
SEARCH_PAGES = Paging(place="body", size=500)
"""Meters, enrollments, nominations, missing intervals."""
JOB_PAGES = Paging(place="query", size=100)
"""Meter jobs and provisional assets."""
UPLOAD_PAGES = Paging(place="query", size=500)
REVENUE_PAGES = Paging(place="body", size=1_000, next_names=("next_page_token", "page_token"))
"""Revenue and unresponsive meters: the schema has one name, the description the other."""


class LeapClient:
    """The account's interface. Create it inside a running loop; end it with `close`."""

    def __init__(self, account: LeapAccount) -> None:
        self._account = account
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        exact: bool = False,
    ) -> Any:
        """The parsed answer, None if it has no body. Raises LeapRefused, LeapNotFound, LeapBusy, LeapUnclear,
        LeapMalformed and NoAnswer."""
        if self._session is None:
            self._session = open_session(self._account.timeout_s)
        headers = {"Authorization": f"Bearer {self._account.key.get_secret_value()}", "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = await asyncio.to_thread(orjson.dumps, body) if _many(body) else orjson.dumps(body)
        reply = await ask(
            self._session,
            method,
            self._account.base + path,
            headers=headers,
            data=data,
            params=params,
            most_bytes=REPLY_BYTES_MAX,
        )
        what = f"{method} {path}"
        check(reply, what=what)
        if len(reply.body) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(_parsed, reply, what, exact)
        return _parsed(reply, what, exact)

    async def document(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        exact: bool = False,
    ) -> Document:
        """The answer, which is an object. Raises as `ask` does."""
        found = await self.ask(method, path, body=body, params=params, exact=exact)
        if not isinstance(found, dict):
            raise LeapMalformed(f"{method} {path}: the answer is no JSON object")
        return found

    async def pages(
        self,
        method: str,
        path: str,
        *,
        paging: Paging,
        body: Mapping[str, object] | None = None,
        params: Mapping[str, str] | None = None,
        exact: bool = False,
    ) -> AsyncIterator[Document]:
        """The pages of a list, each a whole answer. Raises as `ask` does, and PagesChanged: then what was read so far
        is no whole list."""
        asked, query = dict(body or {}), dict(params or {})
        where: dict[str, Any] = asked if paging.place == "body" else query
        if paging.size is not None:
            where["page_size"] = paging.size if paging.place == "body" else str(paging.size)
        seen: set[str] = set()
        for number in range(PAGES_MAX):
            try:
                page = await self.document(
                    method, path, body=asked if paging.place == "body" else None, params=query, exact=exact
                )
            except LeapRefused as error:
                gone = error.status == 400 or isinstance(error, LeapNotFound)
                if not number or not gone:
                    raise
                raise PagesChanged(f"page {number + 1} of the list is refused: {error}") from error
            yield page
            token = _next(page, paging.next_names)
            if token is None:
                return
            if token in seen:
                raise PagesChanged(f"{method} {path}: page {number + 1} leads back to an earlier page")
            seen.add(token)
            where["page_token"] = token
        raise PagesChanged(f"{method} {path}: the list does not end after {PAGES_MAX} pages")


def _next(page: Document, names: tuple[str, ...]) -> str | None:
    """The token of the next page; null, absent or empty = this is the last."""
    tokens = (page.get(name) for name in names)
    return next((token for token in tokens if isinstance(token, str) and token), None)


def _many(body: object) -> bool:
    """Whether a body may take long to write."""
    lists = body.values() if isinstance(body, dict) else [body]
    return any(isinstance(found, list) and len(found) > 200 for found in lists)


def _parsed(reply: WebAnswer, what: str, exact: bool) -> Any:
    """The document. A number too large for a float, or one that is none, is no JSON."""
    if not reply.whole:
        raise LeapMalformed(f"{what}: the answer is larger than {REPLY_BYTES_MAX} bytes")
    if not reply.body.strip():
        return None
    try:
        if exact:
            return json.loads(reply.body, parse_float=Decimal, parse_constant=_no_number)
        return orjson.loads(reply.body)
    except (ValueError, RecursionError) as error:
        raise LeapMalformed(f"{what}: the answer is no JSON: {error}") from error


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
