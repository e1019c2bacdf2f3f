"""What every battery of a street truly does on the days of events: physics in steps of 10 s around the events and of a
minute else, and the exact energies that come of it.

From 5 hours before an event, whoever takes part and is connected keeps its energy and charges from PV; in the event it
gives the most that it can keep up to the end, by the SoC that it reports. Everybody else is in the mode of its maker.
Days without an event are left out: batteries go on where they were.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from simulators.battery import Batteries, Mode
from simulators.curves import DAY_S
from simulators.homes import Bools, Floats, Ints
from simulators.season.street import SeasonStreet
from simulators.weather import SeasonCurves

FINE_S, ROUGH_S = 10, 60
FINE_FROM_H, FINE_UNTIL_H = 13, 22
KEEP_MS = 5 * 3_600_000
AGAIN_S = 60
"""How often the power asked for is worked out anew."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrueDay:
    """A local day: `at_ms` (steps + 1), and what each battery has charged and discharged since its beginning, Wh
    (steps + 1 x n). Power is constant within a step."""

    event: int
    at_ms: Ints
    charged_wh: Floats
    discharged_wh: Floats

    def until(self, homes: Ints, at_ms: Ints) -> tuple[Floats, Floats]:
        """Charged and discharged energy of `homes` until `at_ms` (both of one shape)."""
        step = np.clip(np.searchsorted(self.at_ms, at_ms, side="right") - 1, 0, len(self.at_ms) - 2)
        part = (at_ms - self.at_ms[step]) / (self.at_ms[step + 1] - self.at_ms[step])
        part = np.clip(part, 0.0, 1.0)

        def of(total_wh: Floats) -> Floats:
            before_wh = total_wh[step, homes]
            return np.asarray(before_wh + (total_wh[step + 1, homes] - before_wh) * part)

        return of(self.charged_wh), of(self.discharged_wh)

    def net_wh(self, homes: Ints, from_ms: Ints, until_ms: Ints) -> Floats:
        """Discharged less charged."""
        begin, end = self.until(homes, from_ms), self.until(homes, until_ms)
        return np.asarray((end[1] - begin[1]) - (end[0] - begin[0]))

    def power_w(self, homes: Ints, at_ms: Ints) -> Floats:
        """Power at an instant, + = discharge."""
        step = np.clip(np.searchsorted(self.at_ms, at_ms, side="left") - 1, 0, len(self.at_ms) - 2)
        hours = (self.at_ms[step + 1] - self.at_ms[step]) / 3_600_000
        net_wh = self.discharged_wh - self.charged_wh
        return np.asarray((net_wh[step + 1, homes] - net_wh[step, homes]) / hours)


def true_days(street: SeasonStreet) -> Iterator[TrueDay]:
    """The days of the season's events, one after the other."""
    first = street.events[0].day - timedelta(days=1)
    curves = SeasonCurves(
        load_base_w=street.homes.load_base_w,
        pv_peak_w=street.homes.pv_peak_w,
        seed=street.seed,
        first=first,
        days=(street.events[-1].day - first).days + 2,
    )
    batteries = Batteries(street.homes, time_s=DAY_S, curves=curves)
    for number, event in enumerate(street.events):
        batteries.time_s = (event.day - first).days * DAY_S
        yield _day(street, batteries, number)


def _steps() -> list[int]:
    rough, fine = (
        [ROUGH_S] * (FINE_FROM_H * 3600 // ROUGH_S),
        [FINE_S] * ((FINE_UNTIL_H - FINE_FROM_H) * 3600 // FINE_S),
    )
    return [*rough, *fine, *[ROUGH_S] * ((24 - FINE_UNTIL_H) * 3600 // ROUGH_S)]


def _day(street: SeasonStreet, batteries: Batteries, number: int) -> TrueDay:
    event, steps = street.events[number], _steps()
    at_ms = event.midnight_ms + 1000 * np.concatenate([[0], np.cumsum(steps)]).astype(np.int64)
    charged_wh, discharged_wh = (np.empty((len(steps) + 1, len(street))) for _ in range(2))
    before = batteries.charged_wh.copy(), batteries.discharged_wh.copy()
    charged_wh[0] = discharged_wh[0] = 0.0
    asked = street.enrolled(event.day) & ~street.opts_out[:, number]
    for step, dt_s in enumerate(steps):
        _steer(street, batteries, number, asked, int(at_ms[step]))
        batteries.step(dt_s)
        charged_wh[step + 1] = batteries.charged_wh - before[0]
        discharged_wh[step + 1] = batteries.discharged_wh - before[1]
    return TrueDay(event=number, at_ms=at_ms, charged_wh=charged_wh, discharged_wh=discharged_wh)


def _steer(street: SeasonStreet, batteries: Batteries, number: int, asked: Bools, now_ms: int) -> None:
    event = street.events[number]
    if not event.start_ms - KEEP_MS <= now_ms < event.end_ms:
        batteries.mode[:] = Mode.SELF_CONSUMPTION
        batteries.blocked[:] = False
        return
    away_ms = street.away_ms[:, number]
    obeys = asked & ~((away_ms[:, 0] <= now_ms) & (now_ms < away_ms[:, 1]))
    batteries.mode[:] = np.where(obeys, Mode.REMOTE, Mode.SELF_CONSUMPTION)
    batteries.blocked[:] = now_ms < event.start_ms
    if now_ms < event.start_ms or (now_ms - event.start_ms) % (1000 * AGAIN_S):
        return
    homes = street.homes
    above_pct = np.maximum(batteries.reported_soc_pct() - batteries.reserve_pct, 0.0)
    left_wh = above_pct / 100 * homes.capacity_wh * homes.efficiency_discharge
    most_w = np.minimum(homes.discharge_w_max, left_wh * 3_600_000 / (event.end_ms - now_ms))
    inside_w = np.maximum(0.0, batteries.load_w - batteries.pv_w)
    batteries.setpoint_w[:] = np.where(homes.export_allowed, most_w, np.minimum(most_w, inside_w))
