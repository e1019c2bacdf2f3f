"""The port of messages that are kept as they came, until they are carried out and for some time after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMessage:
    """A message as it came. `id` grows in the order of receipt; `outcome` "" = it is not carried out yet; `problems`:
    why not, or not all of it."""

    id: int
    source: str
    received_ms: int
    payload: bytes
    outcome: str = ""
    problems: tuple[str, ...] = ()


class Inbox(Protocol):
    """Durable memory of messages. Every method raises StorageError; then nothing has changed."""

    async def keep(self, source: str, received_ms: int, payload: bytes) -> int:
        """Store a message before anything else is done with it; returns its id."""
        ...

    async def finish(self, message: int, outcome: str, problems: Sequence[str] = ()) -> None:
        """Note what became of a message, and forget old ones."""
        ...

    async def waiting(self) -> list[KeptMessage]:
        """The messages that are not carried out yet, in their order."""
        ...

    async def newest(self, source: str, limit: int) -> list[KeptMessage]:
        """The newest messages of a source, newest first."""
        ...
