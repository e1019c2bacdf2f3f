"""Home load and PV over the day: a function of the seed and the time alone."""

import numpy as np

from simulators.homes import Floats

DAY_S = 86_400.0
# relative household load at each full hour, midnight to midnight
_HOURS = np.arange(25) * 3_600.0
_NIGHT_TO_NOON = (0.6, 0.5, 0.45, 0.45, 0.5, 0.7, 1.1, 1.4, 1.2, 1.0, 0.9, 0.9)
_NOON_TO_NIGHT = (1.0, 0.95, 0.9, 0.95, 1.1, 1.5, 1.9, 2.0, 1.8, 1.5, 1.1, 0.8, 0.6)
_LOAD_SHAPE = np.array([*_NIGHT_TO_NOON, *_NOON_TO_NIGHT])
_SUNRISE_S = 6.0 * 3_600
_SUNSET_S = 20.0 * 3_600


class Curves:
    """Load and available PV of every site at any time.

    Load = daily shape, slow noise and two appliances that switch; PV = half sine between sunrise and sunset, clouded.
    """

    def __init__(self, *, load_base_w: Floats, pv_peak_w: Floats, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        sites = len(load_base_w)
        self._base_w = load_base_w
        self._peak_w = pv_peak_w
        self._noise_s = rng.uniform(40, 900, (3, sites))
        self._noise_phase = rng.uniform(0, 2 * np.pi, (3, sites))
        self._cycle_s = rng.uniform(900, 5_400, (2, sites))
        self._on_s = rng.uniform(60, 400, (2, sites))
        self._offset_s = rng.uniform(0, 5_400, (2, sites))
        self._appliance_w = rng.uniform(600, 2_200, (2, sites))

    def at(self, time_s: float) -> tuple[Floats, Floats]:
        """(load_w, pv_w available) per site at `time_s` seconds since some midnight; both at least 0."""
        of_day_s = time_s % DAY_S
        noise = np.sin(2 * np.pi * time_s / self._noise_s + self._noise_phase)
        load_w = self._base_w * float(np.interp(of_day_s, _HOURS, _LOAD_SHAPE)) * (1 + 0.15 * noise.sum(axis=0))
        running = ((time_s + self._offset_s) % self._cycle_s) < self._on_s
        load_w = load_w + (running * self._appliance_w).sum(axis=0)
        if not _SUNRISE_S < of_day_s < _SUNSET_S:
            return load_w, np.zeros_like(self._peak_w)
        height = np.sin(np.pi * (of_day_s - _SUNRISE_S) / (_SUNSET_S - _SUNRISE_S))
        cloud = np.clip(0.8 + 0.25 * noise[0] * noise[1] + 0.1 * noise[2], 0.15, 1.0)
        return load_w, self._peak_w * (0.85 * height) * cloud
