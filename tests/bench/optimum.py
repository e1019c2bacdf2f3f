"""The least energy that has to go unserved, known only to somebody who knows the whole trace beforehand: a linear
program over all devices and steps (HiGHS, by scipy). Units: W, Wh, s."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import block_diag, csr_array, eye_array, hstack, kron, vstack

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fleet and its constraints. `site` groups devices under `site_w`, a cap on what a home gives (inf = none).
    `lease_s`: no more power than the energy left carries for so long (0 = any). `taper_wh`: below it the power that a
    battery gives falls with its energy, down to `taper_min` of the rating. `least_w`, `step_w` of setpoints."""

    power_w: Floats
    energy_wh: Floats
    site: Ints
    site_w: Floats
    lease_s: float = 0.0
    taper_wh: Floats | None = None
    taper_min: float = 0.2
    least_w: float = 0.0
    step_w: float = 1.0

    @property
    def n(self) -> int:
        return len(self.power_w)


def unserved_wh(case: Case, target_w: Floats, dt_s: float) -> float:
    """The optimum of the program: minimal unserved energy of a trace (minima and steps left aside: a bound)."""
    found = _solve(case, dt_s, target_w=target_w)
    return float(found.fun) * dt_s / 3600


def largest_scale(case: Case, shape: Floats, dt_s: float) -> float:
    """The largest multiple of `shape` (W) that can be served whole."""
    return -float(_solve(case, dt_s, shape=shape).fun)


def _solve(case: Case, dt_s: float, *, target_w: Floats | None = None, shape: Floats | None = None) -> Any:
    """Columns: power of every device in every step (device by device), then unserved power per step, or the scale."""
    wanted = target_w if target_w is not None else shape
    if wanted is None:
        raise ValueError("a target or a shape")
    steps = len(wanted)
    served = kron(np.ones((1, case.n)), eye_array(steps), format="csr")
    earlier = np.tril(np.ones((steps, steps))) * dt_s / 3600
    rows, bounds = [], []

    def most(block: Any, bound: Floats) -> None:
        rows.append(block)
        bounds.append(bound)

    most(kron(eye_array(case.n), earlier), np.repeat(case.energy_wh, steps))
    before = earlier - np.eye(steps) * dt_s / 3600
    if case.lease_s > 0:
        ahead = before + np.eye(steps) * case.lease_s / 3600
        most(kron(eye_array(case.n), ahead), np.repeat(case.energy_wh, steps))
    if case.taper_wh is not None:
        slope = (1 - case.taper_min) * case.power_w / case.taper_wh  # W per Wh
        tapered = [np.eye(steps) + before * slope[i] for i in range(case.n)]
        most(
            block_diag([csr_array(m) for m in tapered], format="csr"),
            np.repeat(case.taper_min * case.power_w + slope * case.energy_wh, steps),
        )
    capped = np.flatnonzero(np.isfinite(case.site_w))
    if len(capped):
        member = (case.site[None, :] == capped[:, None]).astype(np.float64)
        most(kron(member, eye_array(steps)), np.repeat(case.site_w[capped], steps))
    inside = vstack(rows, format="csr")
    power_bounds = [(0.0, float(w)) for w in np.repeat(case.power_w, steps)]
    options = {"A_ub": None, "b_ub": np.concatenate(bounds), "method": "highs"}
    if target_w is not None:
        cost = np.concatenate((np.zeros(case.n * steps), np.ones(steps)))
        options["A_ub"] = _widened(inside, steps)
        equal, goal, extra = hstack((served, eye_array(steps)), format="csr"), target_w, [(0.0, None)] * steps
    else:
        cost = np.concatenate((np.zeros(case.n * steps), [-1.0]))
        options["A_ub"] = _widened(inside, 1)
        equal, goal, extra = hstack((served, csr_array(-wanted[:, None])), format="csr"), np.zeros(steps), [(0.0, None)]
    found = linprog(cost, A_eq=equal, b_eq=goal, bounds=power_bounds + extra, **options)
    if not found.success:
        raise RuntimeError(found.message)
    return found


def _widened(rows: Any, columns: int) -> Any:
    """More columns, which these rows do not touch."""
    return hstack((rows, csr_array((rows.shape[0], columns))), format="csr")
