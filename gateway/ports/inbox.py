"""The port of messages that are kept as they came, until they are carried out and for some time after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMessage:
    """A message as it came. `id` grows in the order of receipt; `outcome` "" = it is not carried out yet; `problems`:
    why not, or not all of it; `message_id`: what a repetition of it has too, and `issued_ms` when it was signed (UTC);
    None = it does not say."""

    id: int
    source: str
    received_ms: int
    payload: bytes
    outcome: str = ""
    problems: tuple[str, ...] = ()
    message_id: str | None = None
    issued_ms: int | None = None


class Inbox(Protocol):
    """Durable memory of messages. Every method raises StorageError; then nothing has changed."""

    async def keep(
        self, source: str, received_ms: int, payload: bytes, *, message_id: str | None = None,
        issued_ms: int | None = None,
    ) -> KeptMessage:  # fmt: skip
        """Store a message before anything else is done with it."""
        ...

    async def finish(self, message: int, outcome: str, problems: Sequence[str] = ()) -> None:
        """Note what became of a message, and forget old ones."""
        ...

    async def waiting(self) -> list[KeptMessage]:
        """The messages that are not carried out yet, in their order."""
        ...

    async def after(self, source: str, message_id: str) -> list[KeptMessage]:
        """The messages of a source that came after the first receipt of this one, newest first; none if it is new."""
        ...

    async def newest(self, source: str, limit: int) -> list[KeptMessage]:
        """The newest messages of a source, newest first."""
        ...
