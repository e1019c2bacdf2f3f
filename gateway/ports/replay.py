"""The port of the replay window of one door: whether an identified message is new."""

from typing import Protocol

from gateway.domain.replay import Admission
from gateway.domain.types import Now


class ReplayWindow(Protocol):
    """Durable memory of the identified messages of one door. Every method raises StorageError; then nothing has
    changed.

    A door checks the signature, asks `seen`, makes the effect durable, calls `admit`, and answers: a kill in between
    makes the sender repeat the message, and the effect is made durable once more, so it must bear that (an upsert by
    id). A door whose effect cannot bear it calls `admit` first and may lose the message to a kill.
    """

    async def seen(self, source: str, message_id: str, issued_ms: int | None, now: Now) -> Admission:
        """What a message is, without noting it."""
        ...

    async def admit(
        self, source: str, message_id: str, issued_ms: int | None, now: Now, *, answer: bytes = b""
    ) -> Admission:
        """What a message is; the first time it is noted durably, with the `answer` that is about to be given."""
        ...

    async def answer(self, source: str, message_id: str) -> bytes | None:
        """How a message was answered the first time; None = it is not known."""
        ...

    async def forget(self, source: str, message_id: str) -> None:
        """Take a message as new when it comes next: whoever may repeat it asks anew."""
        ...
