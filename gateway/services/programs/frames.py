"""Which programs there are days of, how each divides its days, and until when a day waits for late data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from gateway.domain.programs.site_day import DayFrame
from gateway.domain.programs.terms import DATA_DUE, ProgramTerms, TermsVersion
from gateway.domain.rules.calendar import local_ms, midnight_ms
from gateway.services.settings import ProgramSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFrames:
    """`terms` of each program; `settings` of those in the configuration; `length_s`: an interval where nobody says
    another; `late_s`: for so long after a day's end late data is waited for."""

    terms: Mapping[str, ProgramTerms]
    settings: Mapping[str, ProgramSettings] = field(default_factory=dict)
    length_s: int = 300
    late_s: float = 21_600.0

    def version(self, program: str, day: date) -> TermsVersion:
        """The terms of a program's local day."""
        terms = self._terms(program)
        return terms.on(midnight_ms(terms.zone, day))

    def zone(self, program: str) -> str:
        """Its time zone."""
        return self._terms(program).zone

    def frame(self, program: str, day: date) -> DayFrame:
        """How a program divides a local day: its file says the interval, else the configuration."""
        settings = self.settings.get(program, ProgramSettings())
        length_s = self.version(program, day).interval_s or settings.interval_length_s or self.length_s
        return DayFrame(zone=self.zone(program), length_s=length_s)

    def limit_ms(self, program: str, day: date) -> int:
        """When a day is written, complete or not (UTC ms): `late_s` after its end, or when its data is due where that
        is due day by day and earlier."""
        zone = self.zone(program)
        limit_ms = midnight_ms(zone, day + timedelta(days=1)) + round(self.late_s * 1000)
        due_ms = (
            local_ms(zone, day + timedelta(days=rule.days), rule.by_min)
            for rule in self.version(program, day).due if rule.what == DATA_DUE and rule.per == "day"
        )  # fmt: skip
        # data that is due before the day is over is not about whole days
        return min((limit_ms, *(ms for ms in due_ms if ms >= midnight_ms(zone, day + timedelta(days=1)))))

    def _terms(self, program: str) -> ProgramTerms:
        settings = self.settings.get(program, ProgramSettings())
        return self.terms.get(program, ProgramTerms(zone=settings.time_zone))
