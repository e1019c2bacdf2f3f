"""Enrollments over real files, and tables in a few words."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.fernet import Fernet

from gateway.clock import ManualClock
from gateway.domain.programs.enrollment import LeftOut
from gateway.domain.programs.terms import ProgramTerms
from gateway.domain.types import DeviceId
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.fact_trail import FactTrail
from gateway.storage.programs.facts import SqliteFacts
from gateway.storage.programs.personal import SqlitePersonal
from tests.builders.fakes import MemoryJournal

KEY = Fernet.generate_key().decode()
BASE = {
    "device": "home-1",
    "program": "dsgs",
    "delivery_period": "DSGS_MAY_JUL",
    "delivery_period_start_date_time": "2026-05-01T07:00:00Z",
    "delivery_period_end_date_time": "2026-08-01T07:00:00Z",
    "enrollment_status": "ACTIVE",
}
DOCUMENT = "ab" * 32
CONSENT = {
    "customer": "c-1",
    "program": "dsgs",
    "document_sha256": DOCUMENT,
    "given": "2026-04-01T00:00:00Z",
    "by": "x",
}
MAY_1, JUNE_1, JULY_1, AUG_1 = 1_777_618_800_000, 1_780_297_200_000, 1_782_889_200_000, 1_785_567_600_000
"""At 00:00 in California, UTC ms."""


@asynccontextmanager
async def opened(
    directory: Path,
    *,
    utc_ms: int = JUNE_1,
    personal: bool = True,
    terms: Mapping[str, ProgramTerms] | None = None,
    trail: MemoryJournal | None = None,
    program_of: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Enrollments, ManualClock]]:
    clock = ManualClock(utc_ms=utc_ms)
    store = SqliteFacts(directory, clock=clock)
    journal = trail or MemoryJournal()
    people = SqlitePersonal(directory, keys=[KEY]) if personal else None
    if people is not None:
        people.open()
    told = FactTrail(store, journal, journal)
    service = Enrollments(store, people, told, clock=clock, terms=terms or {}, program_of=program_of or {})
    store.load(service.book.add)
    try:
        yield service, clock
    finally:
        store.close()
        if people is not None:
            people.close()


def table(*rows: Mapping[str, str]) -> str:
    """A CSV of these rows; absent is blank."""
    columns = list({name: None for row in rows for name in row})
    lines: Iterable[str] = (",".join(row.get(name, "") for name in columns) for row in rows)
    return "\n".join([",".join(columns), *lines]) + "\n"


def left_out(service: Enrollments, at_ms: int, device: str = "home-1", program: str = "dsgs") -> LeftOut:
    of = service.book.membership(program, at_ms).take(service.book.numbers([DeviceId(device)]))
    return LeftOut(int(of.left_out[0]))
