"""Energy of one polled device between two samples."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySample:
    """Energy since the last sample: lifetime counters where the product has them, else integrated power (Wh)."""

    span_ms: int
    charge_counter_wh: float
    discharge_counter_wh: float
    charge_wh: float
    discharge_wh: float
    battery_w: float
    soc_pct: float
    grid_w: float
    pv_w: float
    load_w: float


class Mean:
    """The mean of a power (W); between an unknown and a known value it is unknown."""

    def __init__(self) -> None:
        self._before = math.nan
        self._ws = 0.0
        self._s = 0.0

    def add(self, s: float, power_w: float) -> None:
        """Add a value, `s` after the one before; 0 = it is the first."""
        mean_w = (self._before + power_w) / 2
        if s > 0 and not math.isnan(mean_w):
            self._ws += mean_w * s
            self._s += s
        self._before = power_w

    def collect(self) -> float:
        """Return the mean since the last call and start again, NaN = unknown."""
        mean_w = self._ws / self._s if self._s > 0 else math.nan
        self._ws = self._s = 0.0
        return mean_w


class EnergyIntegrator:
    """Energy of one device between two samples, from its power; more than `gap_ms` without a reading is a gap."""

    def __init__(self, gap_ms: float) -> None:
        self._gap_ms = gap_ms
        self._before: tuple[int, float] | None = None
        self._began_ms: int | None = None
        self.charge_wh = 0.0
        self.discharge_wh = 0.0
        self.gaps = 0
        self.site = {"grid_w": Mean(), "pv_w": Mean(), "load_w": Mean()}

    def add(self, mono_ms: int, battery_w: float, **site_w: float) -> None:
        """Add a reading; between two of them power is taken as a straight line."""
        if math.isnan(battery_w):
            return
        if self._before is not None and mono_ms - self._before[0] > self._gap_ms:
            self._before, self._began_ms = None, None
            self.charge_wh = self.discharge_wh = 0.0
            self.gaps += 1
            for mean in self.site.values():
                mean.collect()
        # after a gap the first value has no predecessor
        lasted_s = 0.0 if self._before is None else (mono_ms - self._before[0]) / 1000
        for name, mean in self.site.items():
            mean.add(lasted_s, site_w.get(name, math.nan))
        if self._before is None:
            self._began_ms = mono_ms
        else:
            hours = (mono_ms - self._before[0]) / 3_600_000
            for power_w in (self._before[1], battery_w):
                self.discharge_wh += max(power_w, 0.0) * hours / 2
                self.charge_wh += max(-power_w, 0.0) * hours / 2
        self._before = (mono_ms, battery_w)

    def collect(self) -> tuple[int, float, float]:
        """(span in ms, charged Wh, discharged Wh) since the last call; span 0 = nothing is known."""
        if self._before is None or self._began_ms is None:
            return 0, 0.0, 0.0
        out = (self._before[0] - self._began_ms, self.charge_wh, self.discharge_wh)
        self._began_ms, self.charge_wh, self.discharge_wh = self._before[0], 0.0, 0.0
        return out

    def sample(self, *, charge_counter_wh: float, discharge_counter_wh: float, soc_pct: float) -> EnergySample | None:
        """The sample since the last one, beside the newest counters and SoC; None = nothing is known."""
        span_ms, charge_wh, discharge_wh = self.collect()
        if span_ms <= 0:
            return None
        return EnergySample(
            span_ms=span_ms,
            charge_counter_wh=charge_counter_wh,
            discharge_counter_wh=discharge_counter_wh,
            charge_wh=charge_wh,
            discharge_wh=discharge_wh,
            battery_w=(discharge_wh - charge_wh) * 3_600_000 / span_ms,
            soc_pct=soc_pct,
            **{name: mean.collect() for name, mean in self.site.items()},
        )
