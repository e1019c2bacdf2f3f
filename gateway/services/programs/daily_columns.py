"""The job that writes the days of sites: each when its lateness limit has passed, and again when its records change."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.day_builder import DayBuilder, SiteStay, stays_within
from gateway.domain.programs.site_day import DayFrame, SiteDays
from gateway.domain.rules.calendar import HOUR_MS, local_day
from gateway.services.programs.frames import ProgramFrames
from gateway.services.programs.work import JobState
from gateway.storage.interval_log.beside import IntervalLogBeside
from gateway.storage.interval_log.merge import IntervalSelection
from gateway.storage.interval_log.positions import Cursor
from gateway.storage.journal.placed import placements_beside
from gateway.storage.programs.daily import DailyColumns
from gateway.storage.programs.facts_beside import programs_enrolled

log = logging.getLogger(__name__)

DEVICES = 5_000
"""Of which days are made at once: bounds the memory that takes."""
NEW_ROWS = 200_000
READER = "columns"


@dataclass(slots=True)
class _Begun:
    """A day that is being written: the sites that are left."""

    frame: DayFrame
    day: date
    left: list[list[SiteStay]] = field(default_factory=list)


class StoredDays:
    """Makes days of what a state directory holds now; of a day that is not over too."""

    def __init__(self, state_dir: Path) -> None:
        self._journal = state_dir / "journal.sqlite"
        self.log = IntervalLogBeside(state_dir / "intervals")

    def stays(self, from_ms: int, until_ms: int) -> list[SiteStay]:
        """Who was at which site within a stretch of time. Raises StorageError, CorruptState."""
        return stays_within(placements_beside(self._journal, from_ms, until_ms), from_ms, until_ms)

    def built(self, frame: DayFrame, day: date, stays: Sequence[SiteStay]) -> SiteDays:
        """The day of the sites of these stays. Raises StorageError, InvalidInput."""
        from_ms, until_ms = frame.span(day)
        devices = tuple(sorted({stay.device for stay in stays}))
        builder = DayBuilder(frame, day, stays)
        for page in self.log.pages(IntervalSelection(from_ms=from_ms, to_ms=until_ms, devices=devices)):
            builder.add(page)
        return builder.result()


class DailyColumnsJob:
    """`programs`: names that have days, beside those of which there is an enrollment; `keep_days`: for how long."""

    name = "columns"

    def __init__(
        self, state_dir: Path, *, frames: ProgramFrames, programs: Sequence[str], keep_days: int,
        stored: Callable[[Path], StoredDays] = StoredDays,
    ) -> None:  # fmt: skip
        self._state_dir = state_dir
        self._stored = stored(state_dir)
        self._frames = frames
        self._programs = programs
        self._keep = timedelta(days=keep_days)
        self._begun: _Begun | None = None

    def step(self, now_ms: int) -> JobState:
        with DailyColumns(self._state_dir, write=True) as store:
            if self._revise(store, now_ms):
                return JobState(more=True, backlog=1)
            due, problems = self._due(store, now_ms)
            if not due:
                self._begun = None
                pruned = store.prune(_utc_day(now_ms) - self._keep)
                return JobState(more=pruned > 0, problems=problems)
            self._write(store, *due[0], now_ms)
            return JobState(more=True, backlog=len(due), problems=problems)

    def _due(self, store: DailyColumns, now_ms: int) -> tuple[list[tuple[DayFrame, date]], tuple[str, ...]]:
        """The days whose lateness limit has passed and that are not written, the oldest first."""
        due: set[tuple[date, DayFrame]] = set()
        problems: list[str] = []
        written: dict[DayFrame, set[date]] = {}
        for program in sorted({*self._programs, *programs_enrolled(self._state_dir)}):
            try:
                for day in self._days(program, now_ms):
                    frame = self._frames.frame(program, day)
                    known = written.setdefault(frame, set(store.written(frame)))
                    if day not in known:
                        frame.span(day)
                        due.add((day, frame))
            except InvalidInput as error:
                problems += [f"program {program}: {problem}" for problem in error.problems]
        return [(frame, day) for day, frame in sorted(due)], tuple(problems)

    def _days(self, program: str, now_ms: int) -> Iterator[date]:
        zone, first = self._frames.zone(program), self._first_day(now_ms)
        day, today = first, local_day(zone, now_ms)
        while day is not None and day < today and self._frames.limit_ms(program, day) <= now_ms:
            yield day
            day += timedelta(days=1)

    def _first_day(self, now_ms: int) -> date | None:
        """The first day that the log can have whole: of a log that has lost a file yet the day after its first one."""
        files = self._stored.log.files()
        if not files:
            return None
        lost = files[0].sequence > 1
        return max(files[0].day + timedelta(days=1 if lost else -1), _utc_day(now_ms) - self._keep)

    def _write(self, store: DailyColumns, frame: DayFrame, day: date, now_ms: int) -> None:
        """Write some sites of a day, and note it once there are no more."""
        begun = self._begun
        if begun is None or (begun.frame, begun.day) != (frame, day):
            begun = self._begun = _Begun(frame=frame, day=day, left=_parts(self._stored.stays(*frame.span(day))))
        if begun.left:
            store.put(self._stored.built(frame, day, begun.left[-1]), now_ms)
            begun.left.pop()
        if not begun.left:
            store.note_written(frame, day, now_ms)
            self._begun = None

    def _revise(self, store: DailyColumns, now_ms: int) -> bool:
        """Make those written days anew of which the log has new records; returns whether there were any records."""
        at = store.progress(READER)
        if at is None:
            # what is written from now on is read whole
            end = self._stored.log.end()
            store.note_progress(READER, end.file, end.row)
            return False
        first = self._first_day(now_ms)
        written = {frame: {day for day in store.written(frame) if first and day >= first} for frame in store.frames()}
        before_ms = max((frame.span(max(days))[1] for frame, days in written.items() if days), default=0)
        found = self._stored.log.new_rows(Cursor(*at), before_ms, NEW_ROWS)
        if found.until == Cursor(*at):
            return False
        if found.touched:
            self._rewrite(store, written, found.touched, now_ms)
        store.note_progress(READER, found.until.file, found.until.row)
        return True

    def _rewrite(
        self, store: DailyColumns, written: dict[DayFrame, set[date]], touched: Sequence[tuple[str, int]], now_ms: int
    ) -> None:
        hours = [(device, start_ms // HOUR_MS * HOUR_MS) for device, start_ms in touched]
        for frame, days in written.items():
            dirty: defaultdict[date, set[str]] = defaultdict(set)
            for device, hour_ms in hours:
                for day in {local_day(frame.zone, hour_ms), local_day(frame.zone, hour_ms + HOUR_MS - 1)} & days:
                    dirty[day].add(device)
            for day, devices in sorted(dirty.items()):
                stays = self._stored.stays(*frame.span(day))
                sites = {stay.site for stay in stays if stay.device in devices}
                for some in _parts([stay for stay in stays if stay.site in sites]):
                    count = store.put(self._stored.built(frame, day, some), now_ms)
                    if count:
                        log.info("days of sites were revised", extra={"day": str(day), "count": count})


def _parts(stays: Sequence[SiteStay]) -> list[list[SiteStay]]:
    """The stays, whole sites together, in parts of so many."""
    parts: list[list[SiteStay]] = []
    for _, some in groupby(stays, key=lambda stay: stay.site):
        at_site = list(some)
        if not parts or len(parts[-1]) + len(at_site) > DEVICES:
            parts.append([])
        parts[-1] += at_site
    return parts


def _utc_day(ms: int) -> date:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).date()
