"""The two doors of the evening: the aggregator's control endpoints and the gateway's REST interface."""

import asyncio
import contextlib
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from simulators.clock import Clock

ASK_S = 60.0
EVERY_S = 0.5


class Door:
    """JSON over HTTP, as one that holds a token. Raises RuntimeError for an answer that is not 2xx."""

    def __init__(self, url: str, *, token: str = "") -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Door":
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=ASK_S))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, method: str, path: str, body: object = None, *, kind: str = "application/json") -> Any:
        """The answer's body."""
        if self._session is None:
            raise RuntimeError("the door is not open")
        data = None if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {} if data is None else {"Content-Type": kind}
        async with self._session.request(method, self.url + path, data=data and io.BytesIO(data), headers=headers) as r:
            text = await r.read()
            if not 200 <= r.status < 300:
                raise RuntimeError(f"{method} {path}: {r.status} {text.decode(errors='replace')[:500]}")
            return orjson.loads(text) if text and r.content_type == "application/json" else text

    async def table(self, path: str, rows: Sequence[Mapping[str, str]]) -> Any:
        """Post rows as a CSV file."""
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return await self.ask("POST", path, out.getvalue().encode(), kind="text/csv")

    async def until(self, path: str, condition: Callable[[Any], bool], what: str, *, within_s: float = ASK_S) -> Any:
        """Ask until the answer is right; TimeoutError in words otherwise."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            with contextlib.suppress(aiohttp.ClientError, RuntimeError):
                found = await self.ask("GET", path)
                if condition(found):
                    return found
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"not within {within_s:.0f} s: {what}")
            await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What the gateway says of its running events at one moment: `by_event` (delivered, credited), W. `asked_ms`,
    `t_ms`: when it was asked and when it had answered."""

    asked_ms: int
    t_ms: int
    by_event: Mapping[str, tuple[float, float]]


@dataclass(slots=True, kw_only=True)
class ShareAsker:
    """Asks for all events until cancelled; while the gateway is away there is no answer."""

    door: Door
    clock: Clock
    answers: list[Shares] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, RuntimeError):
                asked_ms = self.clock.utc_ms()
                found = await self.door.ask("GET", "/v1/dispatch-events")
                told = {
                    one["id"]: (float(one["delivered_w"] or 0), float(one["attributed_w"] or 0))
                    for one in found["events"]
                    if one["state"] == "active"
                }
                self.answers.append(Shares(asked_ms=asked_ms, t_ms=self.clock.utc_ms(), by_event=told))
            await asyncio.sleep(EVERY_S)
