"""Load and PV of homes over a season: the height of the sun by date and hour, clear, broken and dark days, and the
daily load shape. A function of the seed and the time alone."""

from datetime import date

import numpy as np

from simulators.curves import DAY_S, Curves
from simulators.homes import Floats

LATITUDE_DEG = 37.0
NOON_S = 13.0 * 3_600
"""Local clock time of the highest sun, daylight saving time in force."""
TILT_DEG = 20.0
"""Of the panels, to the south."""
YIELD = 0.9

CLEAR, BROKEN, DARK = 0, 1, 2
OFTEN = np.array([[0.88, 0.09, 0.03], [0.70, 0.22, 0.08], [0.60, 0.25, 0.15]])
"""Probability of the sky of a day, by that of the day before: of the long run, five days in six are clear."""
PASSES = ((0.92, 1.0), (0.5, 0.85), (0.1, 0.35))
"""What each sky lets through, from and to."""


class SeasonCurves(Curves):
    """`time_s` counts from the local midnight that begins `first`; no clock changes until `days` later. One sky over
    all homes, and clouds of their own over each."""

    def __init__(self, *, load_base_w: Floats, pv_peak_w: Floats, seed: int, first: date, days: int) -> None:
        super().__init__(load_base_w=load_base_w, pv_peak_w=pv_peak_w, seed=seed)
        rng = np.random.default_rng([seed, 5])
        sky, self.passes = CLEAR, np.empty(days)
        for day in range(days):
            sky = int(rng.choice(3, p=OFTEN[sky]))
            self.passes[day] = rng.uniform(*PASSES[sky])
        self._habit = rng.uniform(0.75, 1.25, (days, len(load_base_w)))
        self._day_of_year = first.timetuple().tm_yday

    def at(self, time_s: float) -> tuple[Floats, Floats]:
        load_w, _ = super().at(time_s)
        day = int(time_s // DAY_S)
        noise = np.sin(2 * np.pi * time_s / self._noise_s + self._noise_phase)
        cloud = np.clip(1.0 - (1.0 - self.passes[day]) * (1 + 0.5 * noise[0] * noise[1]) - 0.03 * noise[2] ** 2, 0, 1)
        return load_w * self._habit[day], self._peak_w * (YIELD * self._height(day, time_s % DAY_S)) * cloud

    def _height(self, day: int, of_day_s: float) -> float:
        """Part of full sun that falls on the panels."""
        declination = -np.radians(23.44) * np.cos(2 * np.pi * (self._day_of_year + day + 10) / 365)
        hour = 2 * np.pi * (of_day_s - NOON_S) / DAY_S
        up = np.sin(np.radians(LATITUDE_DEG)) * np.sin(declination) + np.cos(np.radians(LATITUDE_DEG)) * np.cos(
            declination
        ) * np.cos(hour)
        if up <= 0:
            return 0.0
        flatter = np.radians(LATITUDE_DEG - TILT_DEG)
        return float(
            max(np.sin(flatter) * np.sin(declination) + np.cos(flatter) * np.cos(declination) * np.cos(hour), 0.0)
        )
