"""The ports of the outbox: where its rows lie, and the peer that they are for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.domain.programs.outbox import Content, OutboxRow, WriteKind, WriteState


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What the peer said of a row: its state now, where it works on it (`job`), and why not (`detail`, without personal
    data)."""

    state: WriteState
    job: str = ""
    detail: str = ""


class OutboxStore(Protocol):
    """Durable memory of rows. Every method raises StorageError; then nothing has changed."""

    async def add(self, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
        """Store new rows; returns them with their numbers."""
        ...

    async def rows(
        self, *, kind: WriteKind | None = None, unfinished: bool = False, after: int = 0, limit: int
    ) -> list[OutboxRow]:
        """Rows by number: of a kind, and those that are open alone."""
        ...

    async def put(self, rows: Sequence[OutboxRow]) -> None:
        """Store what became of rows, in one transaction."""
        ...


class OutboxPeer(Protocol):
    """Whom rows are written to. Its errors are those of `gateway.domain.errors`, each with whether trying again can
    help."""

    def faults(self, kind: WriteKind, subject: str, after: Content, now_ms: int) -> list[str]:
        """What is wrong with a change that is proposed, without a value that may be personal."""
        ...

    async def read(self, kind: WriteKind, rows: Sequence[OutboxRow]) -> Mapping[int, Content | None]:
        """What the peer has of each row, by number and in the members of its `after`; None = nothing."""
        ...

    async def write(self, kind: WriteKind, rows: Sequence[OutboxRow]) -> Mapping[int, Written]:
        """Send rows; returns what the peer said of each. Whatever it raises, rows may have arrived."""
        ...

    async def look(self, rows: Sequence[OutboxRow]) -> Mapping[int, Written]:
        """What became of rows that the peer works on."""
        ...
