"""Arbitrates what holds for each device besides the event that has it: its exclusions, and what those and its programs
ask of limits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.control.ramp import in_turn
from gateway.domain.events.arbitration import Claims
from gateway.domain.events.attribution import pays_export, program_reserve_pct, takes_backup
from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.fleet.columns import Authority, ControlColumns, ExclusionReason
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.table import Singles
from gateway.domain.types import Bools, Floats

CHOSEN = np.uint8(
    ExclusionReason.OPTED_OUT | ExclusionReason.STORM | ExclusionReason.DEPARTING | ExclusionReason.EXCLUDED
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """By device: `ExclusionReason` bits in force, and what the programs that it serves ask; see `ControlColumns`."""

    exclusions: NDArray[np.uint8]
    pays_export: Bools
    takes_backup: Bools
    program_reserve_pct: Floats
    raised_reserve_pct: Singles

    def apply(self, control: ControlColumns) -> None:
        """Write them into columns of the same length."""
        control.exclusions[:] = self.exclusions
        control.pays_export[:] = self.pays_export
        control.takes_backup[:] = self.takes_backup
        control.program_reserve_pct[:] = self.program_reserve_pct
        control.raised_reserve_pct[:] = self.raised_reserve_pct


def conditions(
    events: Sequence[ActiveEvent],
    claims: Claims,
    snapshot: Snapshot,
    asked: NDArray[np.uint8],
    raised_reserve_pct: Singles,
    step_w: float,
) -> Conditions:
    """What holds from this tick on. `asked`: the exclusions asked for, of which owners' and operators' begin for at
    most `step_w` of power at once. `raised_reserve_pct`: the reserves that they ask for, which hold at once."""
    return Conditions(
        exclusions=_begun(snapshot, asked, step_w),
        pays_export=pays_export(events, claims),
        takes_backup=takes_backup(events, claims, snapshot.n),
        program_reserve_pct=program_reserve_pct(events, claims, snapshot.n),
        raised_reserve_pct=raised_reserve_pct,
    )


def _begun(snapshot: Snapshot, asked: NDArray[np.uint8], step_w: float) -> NDArray[np.uint8]:
    """The exclusions that begin or go on. One home is excluded at once; a whole group excluded together must be no step
    of the fleet either."""
    control, chosen = snapshot.control, asked & CHOSEN
    stopping = (
        (chosen & ~control.exclusions != 0)
        & (control.authority == int(Authority.CONTROLLED))
        & (control.setpoint_w != 0)
    )
    if stopping.any():
        at_once = in_turn(stopping, control.setpoint_w.astype(np.float64), step_w)
        chosen &= np.where(stopping & ~at_once, control.exclusions, chosen)
    begun: NDArray[np.uint8] = (asked & ~CHOSEN) | chosen
    return begun
