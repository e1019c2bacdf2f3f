"""The job that counts what is missing for each program's data deadline, of the days of sites as they are stored."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.day_builder import SiteStay
from gateway.domain.programs.due_data import CHANNELS, NO_GAPS, DayGaps, DueData, GapSum, day_gaps, days_between
from gateway.domain.programs.enrollment import EnrollmentBook
from gateway.domain.programs.facts import Enrollment, EnrollmentStatus
from gateway.domain.programs.site_day import DayFrame, SiteChannel
from gateway.domain.programs.terms import DATA_DUE, TermsDue
from gateway.domain.rules.calendar import DAY_MS, local_day
from gateway.domain.types import DeviceId
from gateway.services.programs.daily_columns import StoredDays
from gateway.services.programs.frames import ProgramFrames
from gateway.services.programs.work import JobState
from gateway.storage.programs.daily import DailyColumns
from gateway.storage.programs.due_file import CountedDue, write_due
from gateway.storage.programs.facts import NAME as FACTS
from gateway.storage.programs.facts_beside import facts_beside, programs_enrolled

AHEAD_MS = 400 * DAY_MS
DAYS = 16
"""Days that are read in one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _DayKey:
    """A day as a program counts it."""

    frame: DayFrame
    day: date
    channels: tuple[SiteChannel, ...]
    coverage_min_pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A deadline, and the days that it is about and that are over."""

    program: str
    due: TermsDue
    keys: tuple[_DayKey, ...]
    waiting: int


class CompletenessJob:
    """`programs`: names of those that count, beside those with enrollments. Where a program has enrollments its active
    ones count on each day, else every site."""

    name = "completeness"

    def __init__(self, state_dir: Path, *, frames: ProgramFrames, programs: Sequence[str]) -> None:
        self._state_dir = state_dir
        self._frames = frames
        self._programs = programs
        self._stored = StoredDays(state_dir)
        self._gaps: dict[_DayKey, DayGaps] = {}
        self._token = 0
        self._counted: object = None

    def step(self, now_ms: int) -> JobState:
        with DailyColumns(self._state_dir) as store:
            self._forget_changed(store)
            wanted, problems = self._wanted(store, now_ms)
            keys = {key for one in wanted for key in one.keys}
            self._gaps = {key: gaps for key, gaps in self._gaps.items() if key in keys}
            left = sorted(keys - self._gaps.keys(), key=lambda key: (key.day, key.frame))
            for key in left[:DAYS]:
                self._gaps[key] = _gaps(store, key)
        if len(left) > DAYS:
            return JobState(more=True, backlog=len(left) - DAYS, problems=problems)
        state = (self._token, wanted, _stamp(self._state_dir / FACTS))
        if state != self._counted:
            due = self._count(wanted)
            write_due(self._state_dir, CountedDue(at_ms=now_ms, due=tuple(due)))
            self._counted = state
        return JobState(problems=problems)

    def _forget_changed(self, store: DailyColumns) -> None:
        token, days = store.changed_days(self._token)
        self._token = token
        self._gaps = {key: gaps for key, gaps in self._gaps.items() if (key.frame, key.day) not in days}

    def _wanted(self, store: DailyColumns, now_ms: int) -> tuple[list[_Wanted], tuple[str, ...]]:
        found: list[_Wanted] = []
        problems: list[str] = []
        for program in sorted({*self._programs, *programs_enrolled(self._state_dir)}):
            terms = self._frames.terms.get(program)
            if terms is None:
                continue
            try:
                for due in terms.due(now_ms, now_ms + AHEAD_MS):
                    if due.what == DATA_DUE and due.from_ms < now_ms:
                        found.append(self._days_of(store, program, due, now_ms))
            except InvalidInput as error:
                problems += [f"program {program}: {problem}" for problem in error.problems]
        return found, tuple(problems)

    def _days_of(self, store: DailyColumns, program: str, due: TermsDue, now_ms: int) -> _Wanted:
        zone = self._frames.zone(program)
        first, until = local_day(zone, due.from_ms), local_day(zone, min(due.until_ms, now_ms))
        keys: list[_DayKey] = []
        waiting = 0
        written: dict[DayFrame, set[date]] = {}
        for day in days_between(first, until):
            frame, version = self._frames.frame(program, day), self._frames.version(program, day)
            channels = CHANNELS.get(version.point)
            if channels is None:
                continue
            if day in written.setdefault(frame, set(store.written(frame))):
                keys.append(
                    _DayKey(frame=frame, day=day, channels=channels, coverage_min_pct=version.coverage_min_pct)
                )  # fmt: skip
            elif self._frames.limit_ms(program, day) > now_ms:
                waiting += 1
        return _Wanted(program=program, due=due, keys=tuple(keys), waiting=waiting)

    def _count(self, wanted: Sequence[_Wanted]) -> list[DueData]:
        book, enrolled = EnrollmentBook(), set()
        for fact in facts_beside(self._state_dir):
            book.add(fact)
            if isinstance(fact, Enrollment):
                enrolled.add(fact.program)
        found = []
        for one in wanted:
            total = GapSum()
            stays = self._stored.stays(one.due.from_ms, one.due.until_ms) if one.program in enrolled else []
            for key in one.keys:
                sites = _active_sites(book, one.program, stays, key) if one.program in enrolled else None
                total.add(self._gaps[key], sites)
            found.append(
                DueData(
                    program=one.program, period=one.due.period, from_ms=one.due.from_ms, until_ms=one.due.until_ms,
                    due_ms=one.due.at_ms, owed=total.owed, missing=total.missing, sites=total.sites, some=total.some(),
                    since_ms=total.since_ms, waiting=one.waiting,
                )
            )  # fmt: skip
        return found


def _gaps(store: DailyColumns, key: _DayKey) -> DayGaps:
    for days in store.days(key.frame, [key.day]):
        return day_gaps(days, key.channels, key.coverage_min_pct)
    return NO_GAPS


def _active_sites(book: EnrollmentBook, program: str, stays: Sequence[SiteStay], key: _DayKey) -> set[str]:
    """The sites at which a battery is that is active in the middle of a day."""
    from_ms, until_ms = key.frame.span(key.day)
    there = [stay for stay in stays if stay.from_ms < until_ms and stay.until_ms > from_ms]
    numbers = book.numbers([DeviceId(stay.device) for stay in there])
    status = book.membership(program, (from_ms + until_ms) // 2).take(numbers).status
    active = (status == EnrollmentStatus.ACTIVE).tolist()
    return {stay.site for stay, is_active in zip(there, active, strict=True) if is_active}


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes whenever a database is written to."""
    found = []
    for name in (path, path.with_name(f"{path.name}-wal")):
        try:
            told = os.stat(name)
        except OSError:
            continue
        found += [told.st_mtime_ns, told.st_size]
    return tuple(found)
