"""Webhooks on their way: when each is posted, how often again, and what was answered.

Nothing here waits: `run_due` posts what is due by the server's clock, so a test that moves the clock decides. A 2xx
within 10 s is taken; everything else is tried again. Two ladders are published (sections 2.2 and 5 of the contract):
every minute up to 50 times, and ten tries over about eight hours. Header names arrive in lower case, unsigned.
"""

import asyncio
import io
import random
from dataclasses import dataclass, field
from enum import StrEnum

import aiohttp

from simulators.aggregator.times import ServerClock

ANSWER_S = 10.0
AT_ONCE_MAX = 8
LOG_MAX = 100_000

MINUTES_LADDER = (60.0,) * 49
PLATFORM_LADDER = (60.0, 120.0, 240.0, 480.0, 960.0, 1740.0, 3600.0, 7200.0, 14400.0)


class State(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    TAKEN = "taken"
    GIVEN_UP = "given_up"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a message goes out: `delay_s` late, as `copies`, `lost` altogether, or with its first `answers_lost`
    answers unheard. `waits_s` are the pauses before each further try."""

    delay_s: float = 0.0
    copies: int = 1
    lost: bool = False
    answers_lost: int = 0
    waits_s: tuple[float, ...] = MINUTES_LADDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One post: when (epoch ms) and what came back; no status where nothing did."""

    at_ms: int
    status: int | None
    error: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Delivery:
    """One copy of one message."""

    url: str
    headers: dict[str, str]
    body: bytes
    manner: Manner
    due_ms: int
    state: State = State.WAITING
    tries: list[Try] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What a receiver answered to one post."""

    status: int | None = None
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: str | None = None
    error: str = ""


class Deliveries:
    """All messages, in the order in which they were sent off."""

    def __init__(self, clock: ServerClock) -> None:
        self.log: list[Delivery] = []
        self.answer_s = ANSWER_S
        self._clock = clock

    def send(self, url: str, headers: dict[str, str], body: bytes, manner: Manner) -> list[Delivery]:
        """Send a message off; it is posted once it is due."""
        due_ms = self._clock.utc_ms() + round(manner.delay_s * 1000)
        state = State.LOST if manner.lost else State.WAITING
        named = {name.lower(): value for name, value in headers.items()} | {"content-type": "application/json"}
        made = [
            Delivery(url=url, headers=named, body=body, manner=manner, due_ms=due_ms, state=state)
            for _ in range(manner.copies)
        ]
        self.log += made
        del self.log[:-LOG_MAX]
        return made

    def due(self) -> list[Delivery]:
        """What waits and is due, the longest due first."""
        now_ms = self._clock.utc_ms()
        waiting = (delivery for delivery in self.log if delivery.state is State.WAITING)
        return sorted((one for one in waiting if one.due_ms <= now_ms), key=lambda one: one.due_ms)

    def next_due_ms(self) -> int | None:
        """When the next post is due, epoch ms."""
        return min((one.due_ms for one in self.log if one.state is State.WAITING), default=None)

    async def run_due(self, *, shuffle: random.Random | None = None, together: bool = False) -> int:
        """Post what is due, in order, shuffled, or several at a time; the number of posts."""
        due = self.due()
        if shuffle is not None:
            shuffle.shuffle(due)
        width = AT_ONCE_MAX if together else 1
        async with aiohttp.ClientSession() as session:
            for first in range(0, len(due), width):
                await asyncio.gather(*(self._try(session, one) for one in due[first : first + width]))
        return len(due)

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Posted:
        """Post once, now, outside the log."""
        named = {name.lower(): value for name, value in headers.items()} | {"content-type": "application/json"}
        async with aiohttp.ClientSession() as session:
            return await self._post(session, url, named, body)

    async def _try(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        posted = await self._post(session, delivery.url, delivery.headers, delivery.body)
        now_ms = self._clock.utc_ms()
        delivery.tries.append(Try(at_ms=now_ms, status=posted.status, error=posted.error))
        heard = len(delivery.tries) > delivery.manner.answers_lost
        if heard and posted.status is not None and 200 <= posted.status < 300:
            delivery.state = State.TAKEN
        elif len(delivery.tries) > len(delivery.manner.waits_s):
            delivery.state = State.GIVEN_UP
        else:
            delivery.due_ms = now_ms + round(delivery.manner.waits_s[len(delivery.tries) - 1] * 1000)

    async def _post(self, session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes) -> Posted:
        timeout = aiohttp.ClientTimeout(total=self.answer_s)
        try:
            async with session.post(
                url, data=io.BytesIO(body), headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                text = (await response.read()).decode("utf-8", "replace")
                named: dict[str, list[str]] = {}
                for name, value in response.headers.items():
                    named.setdefault(name.lower(), []).append(value)
                return Posted(status=response.status, headers=named, body=text)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return Posted(error=f"{type(error).__name__}: {error}")
