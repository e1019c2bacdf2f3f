"""What a program has its members do before a known event: how long they keep their energy, and what charges them."""

from dataclasses import dataclass
from enum import Enum

from gateway.domain.rules.calendar import Span
from gateway.domain.rules.values import Evident


class KeepFrom(Enum):
    """When energy begins to be kept, where that is no time before the event. `NOTICE`: when the program's rules have it
    become known."""

    NOTICE = "notice"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustmentWindow:
    """The time before an event by which its baseline is adjusted, s before the start: from the longer to the shorter
    one. What charges a battery then is taken off the baseline."""

    from_s: float
    until_s: float

    def span(self, start_ms: int) -> Span:
        """That of an event that begins at `start_ms` (UTC)."""
        return start_ms - round(self.from_s * 1000), start_ms - round(self.until_s * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationRules:
    """Energy is kept for `keep_s` before an event, or from its notice on. Meanwhile members may charge from PV and are
    charged from the grid, but never in the `adjustment` window of the baseline. None = the program does not say."""

    keep_s: Evident[float | KeepFrom] | None = None
    charge_from_pv: Evident[bool] | None = None
    charge_from_grid: Evident[bool] | None = None
    adjustment: Evident[AdjustmentWindow] | None = None


UNPREPARED = PreparationRules()
"""Those of a program that says nothing of it."""
