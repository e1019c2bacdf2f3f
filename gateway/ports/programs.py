"""The ports of programs: where facts about enrollments and customers are committed and read, and where personal data
lies apart from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.facts import Fact
from gateway.domain.programs.sign_ups import HeardWord


@dataclass(frozen=True, slots=True, kw_only=True)
class FactQuestion:
    """Which facts: of these kinds, and of a program, subject or customer where it is named. `after`: the `id` of the
    last one that is known already."""

    kinds: tuple[type[Fact], ...]
    program: str | None = None
    subject: str | None = None
    customer: str | None = None
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFact:
    """A fact as stored: when (UTC ms), by whom and through which door it came. `id` never changes."""

    id: int
    fact: Fact
    noted_ms: int
    by: str
    door: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FactChange:
    """What a commit changed at a `place` of it: a fact, or (kinds `customer`, `personal`, `erased`) a customer by
    reference; None = there was nothing, or what there is, is told to nobody."""

    place: int
    kind: str
    key: Any
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FactBatch:
    """A commit that changed something, as the audit trail tells it."""

    id: str
    noted_ms: int
    by: str
    door: AuditDoor
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerReference:
    """A customer: known since, and (None: not) erased at. UTC ms."""

    ref: str
    since_ms: int
    erased_ms: int | None = None


class FactStore(Protocol):
    """Durable memory of facts."""

    def revision(self) -> int:
        """The revision of a fact that is stated now: larger than all before."""
        ...

    async def commit(
        self,
        facts: Sequence[Fact],
        *,
        by: str,
        door: AuditDoor,
        customers: Sequence[str] = (),
        people: Sequence[str] = (),
    ) -> None:
        """Make facts, and references of customers, durable in one transaction, and with them what the audit trail is
        to say; a fact that is older than what is stored under its key is left out. `people`: whose personal data is
        about to be kept. Raises StorageError; then none of them is."""
        ...

    async def untold(self, limit: int) -> list[FactBatch]:
        """The oldest commits that the audit trail may not have. Raises StorageError."""
        ...

    async def told(self, batch: str) -> None:
        """The audit trail has this commit, and all before it. Raises StorageError."""
        ...

    async def changes(self, batch: str, after: int, limit: int) -> list[FactChange]:
        """What a commit changed, from a place on. Raises StorageError."""
        ...

    async def digest(self, batch: str) -> str | None:
        """The hash of what is stored of a commit now, which the audit trail has too; None = there is none. Raises
        StorageError."""
        ...

    async def facts(self, question: FactQuestion, limit: int) -> list[StoredFact]:
        """Facts by their ids. Raises StorageError."""
        ...

    async def customers(self, after: str, limit: int, *, only: str | None = None) -> list[CustomerReference]:
        """Customers by reference, those behind `after`; `only`: this one. Raises StorageError."""
        ...

    async def note_erased(self, ref: str, *, by: str, door: AuditDoor) -> bool:
        """Note that a customer's personal data is to be erased, and by whom; returns whether there is such a customer.
        Raises StorageError."""
        ...


class SignUpStore(Protocol):
    """Durable memory of what was heard of sign-ups."""

    async def note(self, heard: HeardWord) -> bool:
        """Keep a word that was heard, durably; returns whether it is new. Raises InvalidInput where a reference has too
        many, StorageError."""
        ...

    async def of(self, references: Sequence[str]) -> list[HeardWord]:
        """Everything that was heard of these. Raises StorageError."""
        ...

    async def references(self, after: str, limit: int) -> list[str]:
        """References of which something was heard, in order, those behind `after`. Raises StorageError."""
        ...


class PersonalStore(Protocol):
    """Who customers are. What it holds leaves it through `reveal` alone."""

    @property
    def can_keep(self) -> bool:
        """Whether there is a key to encrypt with."""
        ...

    async def keep(self, people: Mapping[str, Mapping[str, str]]) -> None:
        """Keep the personal data of customers, by reference. Raises StorageError."""
        ...

    async def erase(self, ref: str) -> bool:
        """Erase a customer's personal data for good; returns whether there was any. Raises StorageError."""
        ...

    async def known(self, refs: Sequence[str]) -> set[str]:
        """Of which of these customers there is personal data. Raises StorageError."""
        ...

    async def reveal(self, ref: str) -> Mapping[str, str] | None:
        """The personal data of a customer, None if there is none: for the peer that demands it, and for nobody else.
        Raises StorageError, CorruptState."""
        ...


LoadFact = Callable[[Fact], object]
