"""Imports enrollments, customers and consents, and keeps what the fleet asks of them.

A table is read and compared with what is known beside the loop; then its facts are made durable in one transaction and
added to the book. What takes somebody out of dispatch counts before it is durable.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from gateway.clock import Clock
from gateway.domain.errors import InvalidInput
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.due_data import DueData
from gateway.domain.programs.enrollment import EnrollmentBook
from gateway.domain.programs.facts import (
    Consent,
    Enrollment,
    Fact,
    Holding,
    MeterDevice,
    OwnerPreference,
    Payee,
    Withdrawal,
)
from gateway.domain.programs.terms import ProgramTerms
from gateway.observability.parts import Part
from gateway.ports.programs import FactQuestion, FactStore, PersonalStore, StoredFact
from gateway.services.devices.row_faults import BadRow, RowFault, bounded
from gateway.services.devices.table_rows import TableForm
from gateway.services.programs import statements
from gateway.services.programs.deadlines import Due, deadlines, of_programs
from gateway.services.programs.fact_trail import FactTrail
from gateway.services.programs.rows import ConsentRow, CustomerRow, EnrollmentRow, TableRow, read_table
from gateway.services.programs.statements import KnownFacts, TableFacts

log = logging.getLogger(__name__)

R = TypeVar("R", bound=TableRow)

PAGE = 5_000
SLICE = 200
DAY_MS = 86_400_000
UTC = "UTC"
SOME_NAMES = 5
NO_TERMS: Mapping[str, ProgramTerms] = MappingProxyType({})
NO_PROGRAMS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """What a table did. `changed` rows said something new; `personal` of the customers among them have personal
    data; `unknown_programs`: names in good rows that nobody knows as programs."""

    rows: int
    changed: int
    unchanged: int
    personal: int
    unknown_programs: Sequence[str]
    bad: Sequence[BadRow]


class Enrollments(Part):
    """The facts of all programs. `book`: what the fleet asks; `program_of`: our program for the peer's id of it;
    `personal` None: there is no personal data; `trail` tells the audit trail what was committed; `terms`: those of
    every program that is known; `also_due`: what else is due until an instant (UTC ms);
    `due_data`: what is missing for data deadlines."""

    component = "programs"

    def __init__(
        self,
        store: FactStore,
        personal: PersonalStore | None,
        trail: FactTrail,
        *,
        clock: Clock,
        program_of: Mapping[str, str] = NO_PROGRAMS,
        terms: Mapping[str, ProgramTerms] = NO_TERMS,
        also_due: Callable[[int], Sequence[Due]] = lambda _until_ms: (),
        due_data: Callable[[], Sequence[DueData]] = tuple,
    ) -> None:
        self.book = EnrollmentBook()
        self.store = store
        self.personal = personal
        self._trail = trail
        self._clock = clock
        self._program_of = program_of
        self._terms = terms
        self._also_due = also_due
        self._due_data = due_data
        self._exclusivity = {name: one.exclusive for name, one in terms.items()}
        self._one_at_a_time = asyncio.Lock()

    async def import_enrollments(self, text: str, *, form: TableForm, by: str, door: AuditDoor) -> TableReport:
        """Import a table of enrollments. Raises InvalidInput, StorageError; then nothing has changed."""
        now_ms = self._clock.now().utc_ms

        def state(rows: Sequence[tuple[int, EnrollmentRow]], known: KnownFacts) -> TableFacts:
            return statements.enrollments(
                rows, known, now_ms=now_ms, program_of=self._program_of, exclusivity=self._exclusivity
            )

        kinds = (Enrollment, OwnerPreference, MeterDevice)
        return await self._import(text, EnrollmentRow, kinds, state, form=form, by=by, door=door)

    async def import_customers(self, text: str, *, form: TableForm, by: str, door: AuditDoor) -> TableReport:
        """Import a table of customers. Raises InvalidInput, StorageError."""
        erased = frozenset(await self._erased())

        def state(rows: Sequence[tuple[int, CustomerRow]], known: KnownFacts) -> TableFacts:
            return statements.customers(
                rows, known, erased=erased, personal=self.personal is not None and self.personal.can_keep
            )

        return await self._import(text, CustomerRow, (Holding, Payee), state, form=form, by=by, door=door)

    async def import_consents(self, text: str, *, form: TableForm, by: str, door: AuditDoor) -> TableReport:
        """Import a table of consents and withdrawals. Raises InvalidInput, StorageError."""
        return await self._import(
            text, ConsentRow, (Consent, Withdrawal), statements.consents, form=form, by=by, door=door
        )

    async def erase(self, ref: str, *, by: str, door: AuditDoor) -> bool | None:
        """Note that a customer's personal data is erased, and erase it for good; enrollments, consents and whatever
        else stands under the reference stay. Returns whether there was any, None if there is no such customer. Raises
        StorageError; then it is tried again at a start, if it is noted."""
        async with self._one_at_a_time:
            noted = await self.store.note_erased(ref, by=by, door=door)
            had = self.personal is not None and await self.personal.erase(ref)
            await self._trail.tell()
            if not noted and not had:
                return None
        log.warning("personal data of a customer was erased", extra={"customer": ref, "by": by})
        return had

    async def erase_noted(self) -> int:
        """Erase what is noted as erased and was not, since the process ended in between; returns of how many customers.
        Raises StorageError."""
        if self.personal is None:
            return 0
        left = sorted(await self.personal.known(await self._erased()))
        for ref in left:
            await self.personal.erase(ref)
        return len(left)

    async def deadlines(self, days: int) -> list[Due]:
        """What is due within so many days: of facts, and of the programs that facts name. Raises StorageError."""
        facts = await self.every((Enrollment, Consent, Withdrawal))
        now_ms = self._clock.now().utc_ms
        until_ms = now_ms + days * DAY_MS
        counted = self._due_data()  # also of a program in which nobody is enrolled yet
        programs = {*self.book.programs(), *(one.program for one in counted)}
        named = {name: self._terms[name] for name in sorted(programs) if name in self._terms}
        own = await asyncio.to_thread(of_programs, named, now_ms, until_ms, counted)
        found = await asyncio.to_thread(deadlines, facts, now_ms, until_ms, self._zone_of)
        return sorted(
            [*found, *own, *self._also_due(until_ms)], key=lambda due: (due.at_ms, due.program, due.what, due.period)
        )

    def due_data(self, program: str) -> list[DueData]:
        """What is missing for a program's data deadlines that have not passed, the next one first."""
        found = (one for one in self._due_data() if one.program == program)
        return sorted(found, key=lambda one: one.due_ms)

    def _zone_of(self, program: str) -> str:
        return self._terms[program].zone if program in self._terms else UTC

    def unknown_programs(self, names: Iterable[str]) -> list[str]:
        """Those of these names that nobody knows as programs, sorted."""
        return sorted(name for name in set(names) if name not in self._terms)

    def warnings(self) -> list[str]:
        names = self.unknown_programs(self.book.programs())
        if not names:
            return []
        some = ", ".join(names[:SOME_NAMES]) + (f" and {len(names) - SOME_NAMES} more" if names[SOME_NAMES:] else "")
        return [f"enrollments or consents name programs that neither configuration nor programs_dir knows: {some}"]

    async def every(self, kinds: tuple[type[Fact], ...]) -> list[Fact]:
        """All facts of these kinds. Raises StorageError."""
        return [one.fact for one in await self.stored(kinds)]

    async def stored(self, kinds: tuple[type[Fact], ...]) -> list[StoredFact]:
        """The same, each with who noted it and when. Raises StorageError."""
        found: list[StoredFact] = []
        after = 0
        while True:
            page = await self.store.facts(FactQuestion(kinds=kinds, after=after), PAGE)
            found += page
            if len(page) < PAGE:
                return found
            after = page[-1].id

    async def _erased(self) -> list[str]:
        found: list[str] = []
        after = ""
        while page := await self.store.customers(after, PAGE):
            found += [one.ref for one in page if one.erased_ms is not None]
            after = page[-1].ref
        return found

    async def _import(
        self,
        text: str,
        kind: type[R],
        kinds: tuple[type[Fact], ...],
        state: Callable[[Sequence[tuple[int, R]], KnownFacts], TableFacts],
        *,
        form: TableForm,
        by: str,
        door: AuditDoor,
    ) -> TableReport:
        if not text.strip():
            raise InvalidInput(["the table is empty"])
        good, bad = await asyncio.to_thread(read_table, text, kind, form=form)
        async with self._one_at_a_time:
            known_already = await self.every(kinds)
            known = await asyncio.to_thread(KnownFacts, known_already, self.store.revision)
            found = await asyncio.to_thread(state, good, known)
            await self._take(found, by=by, door=door)
        bad |= found.bad
        report = TableReport(
            rows=len(good) + len(bad) - len(found.bad),
            changed=len(good) - len(found.bad) - found.unchanged,
            unchanged=found.unchanged,
            personal=len(found.people),
            unknown_programs=self.unknown_programs(found.programs),
            bad=await asyncio.to_thread(_told, bad),
        )
        log.info(
            "a table was imported",
            extra={"table": kind.__name__, "rows": report.rows, "changed": report.changed, "bad": len(report.bad),
                   "by": by},
        )  # fmt: skip
        return report

    async def _take(self, found: TableFacts, *, by: str, door: AuditDoor) -> None:
        await self._add(found.taking_out)
        if found.facts or found.customers:
            await self.store.commit(
                found.facts, by=by, door=door, customers=list(found.customers), people=list(found.people)
            )
            await self._trail.tell()
        if found.people and self.personal is not None:
            await self.personal.keep(found.people)
        await self._add(found.facts)

    async def _add(self, facts: Sequence[Fact]) -> None:
        for count, fact in enumerate(facts):
            if count % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            self.book.add(fact)


def _told(bad: Mapping[int, list[RowFault]]) -> list[BadRow]:
    return [BadRow(line=line, faults=bounded(faults)) for line, faults in sorted(bad.items())]
