"""How a meter participates by its local dates: each day has one preference, the last one given (section 4.2)."""

from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum


class Preference(StrEnum):
    """What the partner wants of a meter."""

    PARTICIPATE = "PARTICIPATE"
    IDLE = "IDLE"
    DISENROLL = "DISENROLL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Days of one preference, first included, end excluded; no end = for good."""

    preference: Preference
    first: date
    end: date | None = None
    reason: str | None = None

    def before(self, day: date) -> "Period | None":
        """The part before a day."""
        if self.first >= day:
            return None
        return self if self.end is not None and self.end <= day else replace(self, end=day)

    def since(self, day: date | None) -> "Period | None":
        """The part from a day on; none without a day."""
        if day is None or (self.end is not None and self.end <= day):
            return None
        return self if self.first >= day else replace(self, first=day)


class Periods:
    """The preferences of one meter in order, without a gap."""

    def __init__(self, first: date) -> None:
        self.all = [Period(preference=Preference.PARTICIPATE, first=first)]

    def put(self, new: Period) -> None:
        """Override what lies in the new period."""
        parts = [part for old in self.all for part in (old.before(new.first), old.since(new.end)) if part is not None]
        self.all = sorted([*parts, new], key=lambda one: one.first)

    def remove(self, first: date, end: date) -> bool:
        """Participate again in an idle period, if there is exactly this one."""
        for old in self.all:
            if (old.preference, old.first, old.end) == (Preference.IDLE, first, end):
                self.put(Period(preference=Preference.PARTICIPATE, first=first, end=end))
                return True
        return False

    def idle(self) -> list[Period]:
        """The idle ones."""
        return [one for one in self.all if one.preference is Preference.IDLE]
