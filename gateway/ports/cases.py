"""The ports of cases: where they lie, and the ticket system that is told of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.domain.programs.cases import HomeCase
from gateway.domain.programs.underperformers import LikelyCause
from gateway.ports.sinks import Accept, Keep, Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseQuestion:
    """Which cases: of a home, of a cause, open ones alone; those with a number above `after`."""

    home: str | None = None
    cause: LikelyCause | None = None
    open_alone: bool = False
    after: int = 0


class CaseStore(Protocol):
    """Durable memory of cases. Every method raises StorageError; then nothing has changed."""

    async def cases(self, question: CaseQuestion, limit: int) -> list[HomeCase]:
        """Cases by number."""
        ...

    async def of_homes(self, homes: Sequence[str]) -> list[HomeCase]:
        """Every case of these homes."""
        ...

    async def put(self, cases: Sequence[HomeCase]) -> list[HomeCase]:
        """Store cases in one transaction; returns them with their numbers. A home has one of each cause."""
        ...

    async def untold(self, now_ms: int, limit: int) -> list[HomeCase]:
        """Cases that are not snoozed and that the ticket system does not know as they are."""
        ...

    async def note_told(self, number: int, revision: int) -> None:
        """The ticket system has this revision of a case."""
        ...


class TicketSystem(Protocol):
    """Who is told of cases. Passive: one case, one answer; the caller retries."""

    async def send(self, case: HomeCase, now_ms: int) -> Accept | Keep | Stop:
        """Tell a case as it is; the same revision may come again."""
        ...
