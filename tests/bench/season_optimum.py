"""The largest demonstrated capacity of a home over a season of events, known only to somebody who knows all weather,
loads and prices beforehand: a linear program with one switch per event (HiGHS, by scipy). Units: W, Wh, hours, $/MWh.

Before an event the optimum keeps all energy and takes all PV that its home leaves: to have more is never worse, so that
this needs no variables. From one event to the next the energy is then `min(left + gain, most)`. Within an event each
step has a discharge and a charge. Charging comes from PV alone, a battery that gives stays above the owner's floor to
the end of the event (one that is below it, for what it uses itself, gives nothing: that is the switch), and the home's
meter, inverter and rating bound the power. Tapers of the battery near full are left aside: the optimum is a bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    capacity_wh: float
    floor_wh: float
    efficiency_charge: float
    efficiency_discharge: float
    standby_w: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Steps of `step_h` each. `room_w`: the most that may be discharged in each, `surplus_w`: the PV that may be
    charged. `weight`: what 1 Wh of net discharge in each step is worth. Before the event the energy is at most
    `left + gain_wh`, `left` being that after the event before, and at most `most_wh`. `fresh`: not so, since it begins
    with `most_wh` whatever was before."""

    room_w: Floats
    surplus_w: Floats
    weight: Floats
    step_h: float
    gain_wh: float
    most_wh: float
    fresh: bool = False


def between(surplus_w: Floats, step_h: float, battery: Battery) -> tuple[float, float]:
    """`gain_wh` and `most_wh` of a time in which the battery keeps what it has and charges `surplus_w`."""
    gain_wh, most_wh = 0.0, battery.capacity_wh
    for taken_w in surplus_w.tolist():
        moved_wh = (taken_w * battery.efficiency_charge - battery.standby_w) * step_h
        gain_wh, most_wh = gain_wh + moved_wh, min(most_wh + moved_wh, battery.capacity_wh)
    return gain_wh, most_wh


def best_wh(battery: Battery, events: Sequence[Event], start_wh: float) -> list[Floats]:
    """Net discharge in Wh in each step of each event, of the largest total worth."""
    starts = np.cumsum([0, *(2 + 2 * len(event.room_w) for event in events)])
    columns = int(starts[-1])
    cost, high, switch = np.zeros(columns), np.full(columns, np.inf), np.zeros(columns)
    rows: list[tuple[dict[int, float], float]] = []
    before: tuple[dict[int, float], float] = ({}, start_wh)
    for start, event in zip(starts.tolist(), events, strict=False):
        # energy at the start, whether it gives, then discharge and charge by step
        steps, step_h, gives = len(event.room_w), event.step_h, start + 1
        out, into, end = start + 2, start + 2 + steps, start + 2 + 2 * steps
        high[start], high[gives], switch[gives] = max(event.most_wh, 0.0), 1.0, 1.0
        high[out:into], high[into:end] = event.room_w, event.surplus_w
        cost[out:into], cost[into:end] = -event.weight * step_h, event.weight * step_h
        if not event.fresh:
            rows.append(({start: 1.0} | {at: -part for at, part in before[0].items()}, before[1] + event.gain_wh))
        energy: dict[int, float] = {start: 1.0}
        lost_wh = 0.0
        for step in range(steps):
            energy = energy | {
                out + step: -step_h / battery.efficiency_discharge,
                into + step: step_h * battery.efficiency_charge,
            }
            lost_wh += battery.standby_w * step_h
            kept_wh = battery.floor_wh + lost_wh
            rows.append((energy, battery.capacity_wh + lost_wh))
            rows.append(({at: -part for at, part in energy.items()} | {gives: kept_wh}, 0.0))
            rows.append(({out + step: 1.0, gives: -float(event.room_w[step])}, 0.0))
        before = energy, -lost_wh
    entries = [(row, at, part) for row, (parts, _) in enumerate(rows) for at, part in parts.items()]
    where = (np.array([row for row, _, _ in entries]), np.array([at for _, at, _ in entries]))
    inside = csr_array((np.array([part for _, _, part in entries]), where), shape=(len(rows), columns))
    found = milp(
        cost, constraints=LinearConstraint(inside, ub=np.array([bound for _, bound in rows])),
        bounds=Bounds(0.0, high), integrality=switch,
    )  # fmt: skip
    if not found.success:
        raise RuntimeError(found.message)
    result = []
    for start, event in zip(starts.tolist(), events, strict=False):
        steps = len(event.room_w)
        out_w, into_w = found.x[start + 2 : start + 2 + steps], found.x[start + 2 + steps : start + 2 + 2 * steps]
        result.append((out_w - into_w) * event.step_h)
    return result


def capacity_kw(given_kw: Floats, prices: Floats, baseline_kw: float) -> float:
    """Demonstrated capacity of a month: weighted by the hourly price, at least 0. An hour without data counts 0."""
    return max(0.0, float((prices * (given_kw - baseline_kw)).sum() / prices.sum()))
