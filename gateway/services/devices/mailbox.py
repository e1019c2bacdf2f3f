"""The command that waits for a session: one at a time, the newest."""

import asyncio
from dataclasses import dataclass

from gateway.domain.commands import WriteOutcome
from gateway.services.devices.device_control import Command
from gateway.services.devices.session_state import SessionStats


@dataclass(frozen=True, slots=True)
class Mail:
    """A command, and where its outcome is waited for."""

    command: Command
    done: asyncio.Future[WriteOutcome]

    def answer(self, outcome: WriteOutcome) -> None:
        """Say what became of it, if somebody still waits."""
        if not self.done.done():
            self.done.set_result(outcome)


def not_sent() -> asyncio.Future[WriteOutcome]:
    """The outcome of a command that nobody takes."""
    done: asyncio.Future[WriteOutcome] = asyncio.get_running_loop().create_future()
    done.set_result(WriteOutcome.NOT_SENT)
    return done


class Mailbox:
    """Holds one command until it is taken; a newer one replaces it."""

    def __init__(self, stats: SessionStats) -> None:
        self._stats = stats
        self._waiting: Mail | None = None
        self._news = asyncio.Event()

    def put(self, command: Command) -> asyncio.Future[WriteOutcome]:
        """Leave a command; the future gets its outcome."""
        if self._waiting is not None:
            self._stats.superseded += 1
            self.drop()
        self._waiting = Mail(command, asyncio.get_running_loop().create_future())
        self._news.set()
        return self._waiting.done

    def drop(self) -> None:
        """Throw away what waits: it was not sent."""
        if self._waiting is not None:
            self._waiting.answer(WriteOutcome.NOT_SENT)
            self._waiting = None
            self._news.clear()

    async def take(self, within_s: float | None) -> Mail | None:
        """The command that waits or comes within a time (None = any); None where none does."""
        if not await self._came(within_s):
            return None
        mail, self._waiting = self._waiting, None
        self._news.clear()
        return mail

    async def superseded(self, wait_s: float) -> bool:
        """Whether a newer command than the one taken came within `wait_s`: a release does not wait behind a
        setpoint."""
        came = await self._came(wait_s)
        self._stats.superseded += came
        return came

    async def _came(self, within_s: float | None) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True
