"""The interval record: energy of one device over one clock-aligned interval, and its quality."""

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from gateway.domain.types import DeviceId


class EnergySource(IntEnum):
    """Where an interval's energy comes from: `COUNTER` = both directions from lifetime counters, `INTEGRATED` = at
    least one from the energy or mean power of spans. One source per direction and device, never mixed."""

    NONE = 0
    COUNTER = 1
    INTEGRATED = 2


class Quality(IntFlag):
    """What a reader should know of an interval. `GAP`: samples do not cover it all. `CLOCK`: the device's clock is
    wrong, so that its times are corrected or those of receipt; or it may be wrong, and they are used as they are.
    `RESET`: a counter began anew; `JUMP`: it moved more than the battery can, or moved and came back with the next
    reading; that energy is left out. `SPREAD`: exact over a gap between samples, shared by time within it. `LATE`:
    revised with late data. `DISAGREES`: counter and mean power give different energies. `DRIFT`: integration was off
    its coarse counter that day and is scaled to it, or was off by too much to scale. `CUT`: closed early, because the
    rules changed."""

    GAP = 1
    CLOCK = 2
    RESET = 4
    JUMP = 8
    SPREAD = 16
    LATE = 32
    DISAGREES = 64
    DRIFT = 128
    CUT = 256


FINE = Quality(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRecord:
    """Energy of one device in one clock-aligned, half-open interval; identity is (device, start_ms, revision). SoC is
    that of the sample nearest to each edge; mean powers are over the time for which they are known. `hash` of all this
    when the interval closed, in hexadecimal; "" = written by a version without hashes."""

    device: DeviceId
    start_ms: int
    length_s: int
    revision: int
    charge_wh: float | None
    discharge_wh: float | None
    coverage_pct: float
    samples: int
    soc_start_pct: float | None = None
    soc_end_pct: float | None
    source: EnergySource
    battery_w_mean: float | None = None
    battery_w_min: float | None = None
    battery_w_max: float | None = None
    grid_w_mean: float | None = None
    pv_w_mean: float | None = None
    load_w_mean: float | None = None
    quality: Quality = FINE
    hash: str = field(default="", compare=False)
