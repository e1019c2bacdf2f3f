"""What the members of an event do before it begins: they keep their energy and charge, as the event itself and the
rules of its program want it. The longer keeping holds, and whatever one of the two forbids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain.events.request import EventRequest, Running, Target, Want, Way
from gateway.domain.rules.calendar import Span
from gateway.domain.rules.preparation import KeepFrom
from gateway.domain.rules.program import GridProgram, ProgramVersion
from gateway.domain.rules.values import Evident, Rule

IDLE = Target(want=Want.IDLE)

FILL = Target(want=Want.BACKUP)
"""The target of members while they are charged before an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """From `from_ms` until the event begins at `start_ms` (UTC), members keep their energy. During `charges` they are
    charged from the grid where that is permitted at their home too; `from_pv`: they may charge from PV. `version`: the
    rules of the event's program that say some of that, None = the event alone does."""

    from_ms: int
    start_ms: int
    charges: Sequence[Span] = ()
    from_pv: bool = True
    version: ProgramVersion | None = None

    def running(self, utc_ms: int) -> Running | None:
        """The target of members; None = energy is not kept yet."""
        if not self.from_ms <= utc_ms < self.start_ms:
            return None
        charges = any(from_ms <= utc_ms < until_ms for from_ms, until_ms in self.charges)
        return Running(
            target=FILL if charges else IDLE,
            since_ms=self.from_ms,
            until_ms=self.start_ms,
            sustained_until_ms=self.start_ms,
        )


def stated(keeping: Keeping) -> Iterator[tuple[str, Evident[Any] | Rule[Any], str]]:
    """Each rule of the program that what is kept rests on: its name, its value, and what it says in words."""
    if keeping.version is None:
        return
    rules = keeping.version.preparation
    if rules.keep_s is not None:
        yield (
            "keep_h",
            rules.keep_s,
            f"energy is kept {_how_long(rules.keep_s.value)} an event; meanwhile a home buys what its "
            "battery would have given it",
        )
    if rules.charge_from_pv is not None:
        may = "may" if rules.charge_from_pv.value else "do not"
        yield "charge_from_pv", rules.charge_from_pv, f"batteries {may} charge from PV meanwhile"
    if rules.charge_from_grid is not None:
        are = "are" if rules.charge_from_grid.value else "are not"
        yield "charge_from_grid", rules.charge_from_grid, f"batteries {are} charged from the grid meanwhile"
    permitted = keeping.version.grid_charge
    if permitted is not None:
        is_ = "is" if permitted.value else "is not"
        yield "grid_charge", permitted, f"charging from the grid {is_} permitted"
    if rules.adjustment is not None:
        window = rules.adjustment.value
        words = f"from {window.from_s / 3600:g} h to {window.until_s / 3600:g} h before an event"
        yield "adjustment_window", rules.adjustment, f"nothing is charged from the grid {words}"


def _how_long(keep_s: float | KeepFrom) -> str:
    return "from the notice of" if isinstance(keep_s, KeepFrom) else f"for {keep_s / 3600:g} h before"


def kept_next(request: EventRequest, program: GridProgram | None, utc_ms: int) -> Keeping | None:
    """What is kept at `utc_ms` for the occurrence that is next; None = nothing yet."""
    next_ms, longest_s = request.next_ms(utc_ms), max(request.prepare_s, 0.0 if program is None else program.kept_s_max)
    if next_ms is None or utc_ms < next_ms - longest_s * 1000:
        return None
    found = keeping(request, program, next_ms)
    return found if found is not None and utc_ms >= found.from_ms else None


def keeping(request: EventRequest, program: GridProgram | None, start_ms: int) -> Keeping | None:
    """What is kept for the occurrence that begins at `start_ms`; None = nothing."""
    version = None if program is None or not _gives(request) else program.version_at(start_ms)
    own_ms = start_ms - round(request.prepare_s * 1000)
    if version is None:
        charges = ((own_ms, start_ms),) if request.precharge else ()
        return Keeping(from_ms=own_ms, start_ms=start_ms, charges=charges) if own_ms < start_ms else None
    rules = version.preparation
    keep_ms = version.kept_from_ms(start_ms)
    from_ms = min(own_ms, keep_ms)
    if from_ms >= start_ms:
        return None
    return Keeping(
        from_ms=from_ms,
        start_ms=start_ms,
        charges=_charges(request, version, own_ms, keep_ms, start_ms),
        from_pv=rules.charge_from_pv is None or rules.charge_from_pv.value,
        version=version,
    )


def _gives(request: EventRequest) -> bool:
    """Whether an event asks for energy that can be kept for it."""
    return any(target.way is Way.OUT or target.want is Want.FOLLOW_LOAD for target in request.targets)


def _charges(
    request: EventRequest, version: ProgramVersion, own_ms: int, keep_ms: int, start_ms: int
) -> tuple[Span, ...]:
    """When members are charged from the grid: while the event asks for that and nothing forbids it, and while the
    program wants and permits it; never in the adjustment window of the baseline."""
    wanted, permitted = version.preparation.charge_from_grid, version.grid_charge
    if (wanted is not None and not wanted.value) or (permitted is not None and not permitted.value):
        return ()
    from_ms = own_ms if request.precharge else start_ms
    if wanted is not None and permitted is not None:
        from_ms = min(from_ms, keep_ms)
    adjustment = version.preparation.adjustment
    first_ms, last_ms = (start_ms, start_ms) if adjustment is None else adjustment.value.span(start_ms)
    parts = (from_ms, min(first_ms, start_ms)), (max(from_ms, last_ms), start_ms)
    return tuple(part for part in parts if part[0] < part[1])
