"""The port of signals: sources of dispatch events from the grid."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.domain.events.book import Answer
from gateway.domain.events.request import EventRequest

Submit = Callable[[EventRequest], Awaitable[Answer]]


class Signal(Protocol):
    """A source of dispatch events; it is made with a `Submit`."""

    async def run(self) -> None:
        """Serve until cancelled; submit each message once and answer it after the decision is durable."""
        ...
