"""What the gateway tells of an event while it runs, asked over HTTP once a second."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import aiohttp

EVERY_S = 1.0
ANSWER_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer, W: `delivered_w` is called measured, `assumed_w` is not. `asked_ms`, `t_ms`: when it was asked for
    and when it was there."""

    asked_ms: int
    t_ms: int
    delivered_w: float
    assumed_w: float


@dataclass(slots=True, kw_only=True)
class Asker:
    """Asks `url` for the event `event` until cancelled; while the gateway is away there is no answer."""

    url: str
    token: str
    event: str
    answers: list[Told] = field(default_factory=list)

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        headers = {"Authorization": f"Bearer {self.token}"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    await self._ask(session)
                await asyncio.sleep(EVERY_S)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        asked_ms = _now_ms()
        async with session.get(f"{self.url}/v1/dispatch-events/{self.event}", params={"limit": "1"}) as reply:
            body = await reply.json() if reply.status == 200 else {}
        if body.get("state") == "active" and body.get("delivered_w") is not None:
            self.answers.append(
                Told(
                    asked_ms=asked_ms, t_ms=_now_ms(), delivered_w=float(body["delivered_w"]),
                    assumed_w=float(body["assumed_w"] or 0.0),
                )
            )  # fmt: skip


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
