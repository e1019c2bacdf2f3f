"""The official hours of a program: the public calendar of DSGS option 3 in 2025, with the prices of its hours.

Rows of `date, hour_end, event_type, caiso_lmp_usd_per_mwh`; `hour_end` 20 is 19:00 to 20:00 local time.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

ZONE = "America/Los_Angeles"
DSGS_2025 = Path(__file__).parents[2] / "tests" / "programs" / "dsgs_2025_hours.csv"
HOUR_MS = 3_600_000
NOTICE_HOUR = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialHour:
    """One clock hour of an event; `price` in USD per MWh."""

    day: date
    hour_end: int
    event_type: str
    price: Decimal

    @property
    def start_ms(self) -> int:
        """When it begins, UTC ms."""
        return _utc_ms(self.day, self.hour_end - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Hours that touch. It is announced at 15:00 local time of the day before."""

    hours: tuple[OfficialHour, ...]

    @property
    def day(self) -> date:
        return self.hours[0].day

    @property
    def start_ms(self) -> int:
        return self.hours[0].start_ms

    @property
    def end_ms(self) -> int:
        return self.hours[-1].start_ms + HOUR_MS

    @property
    def notice_ms(self) -> int:
        return _utc_ms(self.day - timedelta(days=1), NOTICE_HOUR)

    @property
    def midnight_ms(self) -> int:
        """When its local day begins."""
        return _utc_ms(self.day, 0)


def _utc_ms(day: date, hour: int) -> int:
    local = datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(ZONE))
    return int(local.astimezone(UTC).timestamp()) * 1000


def official_hours(path: Path = DSGS_2025) -> list[OfficialHour]:
    """The hours of a table, in its order."""
    with path.open(newline="") as rows:
        return [
            OfficialHour(
                day=date.fromisoformat(row["date"]),
                hour_end=int(row["hour_end"]),
                event_type=row["event_type"],
                price=Decimal(row["caiso_lmp_usd_per_mwh"]),
            )
            for row in csv.DictReader(rows)
        ]


def events_of(hours: Sequence[OfficialHour]) -> list[Event]:
    """Hours that touch are one event."""
    runs: list[list[OfficialHour]] = []
    for hour in sorted(hours, key=lambda one: one.start_ms):
        if runs and runs[-1][-1].start_ms + HOUR_MS == hour.start_ms:
            runs[-1].append(hour)
        else:
            runs.append([hour])
    return [Event(hours=tuple(run)) for run in runs]
