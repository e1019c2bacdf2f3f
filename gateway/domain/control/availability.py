"""What a group can sustain: power by duration, from now on, above every reserve and below every ceiling."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.domain.fleet.columns import Nameplate
from gateway.domain.limits.types import Envelope
from gateway.domain.types import Bools, Floats, Slots

HOURS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """A power-duration curve: W that `devices` of a group can keep up for each of `HOURS`, both ways as magnitudes."""

    group: str
    devices: int
    discharge_w: tuple[float, ...]
    charge_w: tuple[float, ...]


def availability(
    groups: Iterable[tuple[str, Slots]], allowed: Envelope, plate: Nameplate, able: Bools, hours: Sequence[int] = HOURS
) -> Iterator[Availability]:
    """The curve of each group, one by one. A device counts with its present envelope for as long as its energy lasts,
    standby subtracted. Devices that are not `able`, since they may not be written or cannot be told anything, count as
    0."""
    n = len(allowed.discharge_w)
    standby_w = plate.standby_w[:n].astype(np.float64)
    out_w = [_lasting_w(allowed.sustain_discharge_w, allowed.deliverable_wh, standby_w, h) for h in hours]
    into_w = [_lasting_w(allowed.sustain_charge_w, allowed.absorbable_wh, np.zeros(n), h) for h in hours]
    for name, slots in groups:
        counted = slots[able[slots]]
        yield Availability(
            group=name,
            devices=len(counted),
            discharge_w=tuple(round(float(power_w[counted].sum())) for power_w in out_w),
            charge_w=tuple(round(float(power_w[counted].sum())) for power_w in into_w),
        )


def _lasting_w(power_w: Floats, energy_wh: Floats, standby_w: Floats, hours: int) -> Floats:
    return np.minimum(power_w, np.maximum(energy_wh / hours - standby_w, 0.0))
