"""Watches the official hours of programs: a month of the season without one that counts by its 20th is said, for the
program's own test decides it."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway.clock import Clock
from gateway.domain.errors import GatewayError
from gateway.domain.programs.local_hours import Month
from gateway.domain.programs.official_hours import decided_by_ms, open_months
from gateway.domain.rules.program import GridProgram
from gateway.observability.metrics import Sample, gauge
from gateway.observability.parts import Importance, Part
from gateway.services.programs.deadlines import Due
from gateway.storage.programs.series import ProgramSeries, SeriesKey

log = logging.getLogger(__name__)

EVERY_S = 600.0
EVER_MS = 1 << 60
OFFICIAL_HOUR = "official hour that counts"

UNDECIDED = gauge(
    "gateway_program_undecided_months",
    "Months of the season under way that are past their 20th and have no official hour that counts, by program.",
    program="programs of programs_dir that somebody is enrolled in, or that the configuration names",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMonth:
    """A month without an official hour that counts in some areas (none of which a calendar is known: `areas` is empty),
    which is due by `due_ms` (UTC)."""

    program: str
    month: Month
    areas: tuple[str, ...]
    due_ms: int

    @property
    def name(self) -> str:
        year, number = self.month
        return f"{year}-{number:02d}"


class OfficialHourWatch(Part):
    """`concerned`: the programs that matter here."""

    service = "official-hours"
    component = "programs"
    importance = Importance.SPARE

    def __init__(
        self, state_dir: Path, *, programs: Mapping[str, GridProgram], concerned: Callable[[], Collection[str]],
        clock: Clock,
    ) -> None:  # fmt: skip
        self._series = ProgramSeries(state_dir)
        self._programs = programs
        self._concerned = concerned
        self._clock = clock
        self._open: tuple[OpenMonth, ...] = ()
        self._error = ""

    async def run(self) -> None:
        """Look every ten minutes, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Read what is official now."""
        names = [name for name in self._concerned() if name in self._programs]
        before = {(one.program, one.month) for one in self._overdue()}
        try:
            self._open = await asyncio.to_thread(self._read, names, self._clock.now().utc_ms)
            self._error = ""
        except GatewayError as error:
            self._error = str(error)
            return
        for one in self._overdue():
            if (one.program, one.month) not in before:
                log.warning(
                    "no official hour that counts by the 20th", extra={"program": one.program, "month": one.name}
                )

    def due(self, until_ms: int) -> list[Due]:
        """Official hours that are due until an instant, and those that are overdue, as of the newest look."""
        return [
            Due(
                at_ms=one.due_ms, local=self._local(one), what=OFFICIAL_HOUR, program=one.program, period=one.name,
                count=0, some=one.areas, lacking={},
            )
            for one in self._open if one.due_ms < until_ms
        ]  # fmt: skip

    def samples(self) -> Iterable[Sample]:
        months: dict[str, set[Month]] = {name: set() for name in self._concerned() if name in self._programs}
        for one in self._overdue():
            months.setdefault(one.program, set()).add(one.month)
        for name, some in months.items():
            yield UNDECIDED.sample(len(some), program=name)

    def warnings(self) -> list[str]:
        said = [f"official hours cannot be read: {self._error}"] if self._error else []
        for one in self._overdue():
            where = f" in {', '.join(one.areas)}" if one.areas else ""
            said.append(f"{one.program}: {one.name} is past its 20th and has no official hour that counts{where}")
        return said

    def _overdue(self) -> list[OpenMonth]:
        now_ms = self._clock.now().utc_ms
        return [one for one in self._open if one.due_ms <= now_ms]

    def _read(self, names: Collection[str], now_ms: int) -> tuple[OpenMonth, ...]:
        found: dict[tuple[str, Month], list[str]] = {}
        for name in names:
            program = self._programs[name]
            for area in self._series.areas(name, "hour") or [""]:
                official = self._series.hours(SeriesKey(program=name, area=area), 0, EVER_MS)
                for month in open_months(program, official, now_ms):
                    found.setdefault((name, month), []).append(area)
        return tuple(
            OpenMonth(
                program=name, month=month, areas=tuple(area for area in areas if area),
                due_ms=decided_by_ms(self._programs[name], month),
            )
            for (name, month), areas in sorted(found.items())
        )  # fmt: skip

    def _local(self, one: OpenMonth) -> datetime:
        zone = ZoneInfo(self._programs[one.program].zone)
        return datetime.fromtimestamp(one.due_ms / 1000, tz=UTC).astimezone(zone)
