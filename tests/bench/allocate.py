"""Allocate: how much energy goes unserved for not knowing what comes, and how long one allocation takes.

Seeded fleets serve traces scaled to the edge of what is feasible, step by step, by three policies: the core's
(time-to-go), shares in proportion to the state of charge, and equal shares. Beside them the least that anybody could
have left unserved who knew the whole trace: a linear program with the same constraints. `unserved_pct`: the largest
excess over that, in percent of the energy asked for, over all fleets (constant limits, horizon of one step); each of
the other cases adds one cause. With minima the bound leaves them aside, so that the excess is overstated.

Times: the core alone, at the edge of what the fleet can carry, with two batteries in every tenth home. The limit is
memory traffic: a solve goes over the columns about five times.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.app.daemon import keep_memory
from gateway.domain.control.allocation import Ask, allocate
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import Envelope, LimitParams
from gateway.domain.types import Now
from tests.bench.optimum import Case, largest_scale, unserved_wh
from tests.bench.rig import aim, percentile, pin, report
from tests.builders.fleets import NOW, fleet_of

Floats = NDArray[np.float64]
Policy = Callable[[float, Envelope, Snapshot], Floats]
"""A target in W shared within the envelope."""

DEVICES, STEPS, DT_S = 24, 60, 60.0
CAPACITY_PCT = 100.0
EXACT = LimitParams(site_margin_w=0, resume_pct=0)


# -- policies ---------------------------------------------------------------------------------------------------


def core(target_w: float, allowed: Envelope, snapshot: Snapshot) -> Floats:
    """Time-to-go, with a horizon of one step."""
    ask = Ask(target_w=target_w, mask=np.ones(snapshot.n, dtype=np.bool_), horizon_s=DT_S, seconds_to_end=3600)
    return allocate(ask, allowed, snapshot).setpoint_w.astype(np.float64)


def proportional(target_w: float, allowed: Envelope, _snapshot: Snapshot) -> Floats:
    """In proportion to the energy left, what a cap cuts off shared by the others."""
    return _shared(target_w, allowed.deliverable_wh, allowed.discharge_w)


def equal(target_w: float, allowed: Envelope, _snapshot: Snapshot) -> Floats:
    """The same for everybody that has any, what a cap cuts off shared by the others."""
    return _shared(target_w, (allowed.discharge_w > 0).astype(np.float64), allowed.discharge_w)


def _shared(target_w: float, weight: Floats, cap_w: Floats) -> Floats:
    given_w = np.zeros(len(weight))
    for _ in range(len(weight)):
        open_ = (given_w < cap_w - 1e-9) & (weight > 0)
        left_w = target_w - float(given_w.sum())
        if left_w < 1e-6 or not open_.any():
            break
        given_w[open_] += left_w * weight[open_] / weight[open_].sum()
        given_w = np.minimum(given_w, cap_w)
    return given_w


POLICIES: dict[str, Policy] = {"core": core, "proportional": proportional, "equal": equal}


# -- cases ------------------------------------------------------------------------------------------------------


def plain(rng: np.random.Generator) -> Case:
    """Batteries of many sizes; what is left in each lasts between 3 min and 2 h at full power."""
    power_w = rng.uniform(3_000, 11_500, DEVICES).round()
    return Case(
        power_w=power_w,
        energy_wh=power_w * np.exp(rng.uniform(np.log(0.05), np.log(2.0), DEVICES)),
        site=np.arange(DEVICES),
        site_w=np.full(DEVICES, np.inf),
    )


def capped(rng: np.random.Generator) -> Case:
    """Two batteries behind a meter that does not let out what both could give."""
    case, site = plain(rng), np.arange(DEVICES) // 2
    together_w = np.bincount(site, weights=case.power_w)
    return replace(case, site=site, site_w=(together_w * rng.uniform(0.4, 0.9, len(together_w))).round())


def ahead(rng: np.random.Generator) -> Case:
    """No more power than the energy left carries for two minutes."""
    return replace(plain(rng), lease_s=120.0)


def tapering(rng: np.random.Generator) -> Case:
    """The last tenth of the energy comes with less and less power."""
    case = plain(rng)
    return replace(case, taper_wh=case.energy_wh * 0.1)


def minima(rng: np.random.Generator) -> Case:
    """Units that give 500 W or nothing, in steps of 50 W."""
    return replace(plain(rng), least_w=500.0, step_w=50.0)


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "plain": plain, "site_caps": capped, "look_ahead": ahead, "taper": tapering, "minima": minima,
}  # fmt: skip


def trace_w(rng: np.random.Generator) -> Floats:
    """A shape of an hour: a few levels, a peak, some noise."""
    levels = np.repeat(rng.uniform(0.1, 1.0, 6), STEPS // 6)
    peak = int(rng.integers(0, STEPS - 6))
    levels[peak : peak + 6] *= rng.uniform(1.0, 2.5)
    return np.asarray(levels * rng.uniform(0.85, 1.15, STEPS), dtype=np.float64)


def left_wh(case: Case, target_w: Floats, policy: Policy) -> float:
    """Energy that goes unserved when the policy is asked step by step, through the gateway's own limits."""
    energy_wh, missing_wh = case.energy_wh.copy(), 0.0
    snapshot = fleet_of(
        case.n, site=case.site, load_w=0.0, pv_w=0.0, grid_w=0.0, owner_reserve_pct=0.0, command_latency_s=0.0,
        standby_w=0.0, lease_s=max(case.lease_s, 1.0), discharge_w_max=case.power_w, capacity_wh=case.energy_wh,
        site_export_w_max=case.site_w[case.site], setpoint_w_min=case.least_w, setpoint_step_w=case.step_w,
    )  # fmt: skip
    snapshot.live.discharge_w_max[:] = np.nan
    control, live = snapshot.control, snapshot.live
    for wanted_w in target_w.tolist():
        live.soc_pct[:] = live.soc_low_pct[:] = live.soc_high_pct[:] = energy_wh / case.energy_wh * CAPACITY_PCT
        if case.taper_wh is not None:
            part = case.taper_min + (1 - case.taper_min) * energy_wh / case.taper_wh
            live.discharge_w_max[:] = case.power_w * np.minimum(part, 1.0)
        allowed = envelope(snapshot, NOW, EXACT)
        whole_w = allowed.discharge_w if case.lease_s > 0 else allowed.sustain_discharge_w
        most_w = np.floor(np.minimum(whole_w, energy_wh * 3600 / DT_S))
        allowed = replace(allowed, discharge_w=most_w, deliverable_wh=energy_wh)
        given_w = np.minimum(policy(wanted_w, allowed, snapshot), most_w)
        energy_wh = np.maximum(energy_wh - given_w * DT_S / 3600, 0.0)
        control.before_w[:] = control.setpoint_w[:] = given_w
        live.battery_w[:] = given_w
        missing_wh += max(wanted_w - float(given_w.sum()), 0.0) * DT_S / 3600
    return missing_wh


def excess_pct(case: Case, rng: np.random.Generator, policies: dict[str, Policy]) -> dict[str, float]:
    """Unserved energy of each policy over the optimum, in percent of what was asked, at the edge of feasibility."""
    shape = trace_w(rng)
    target_w = np.floor(shape * largest_scale(case, shape, DT_S))
    least_wh, asked_wh = unserved_wh(case, target_w, DT_S), float(target_w.sum()) * DT_S / 3600
    return {name: 100 * (left_wh(case, target_w, p) - least_wh) / asked_wh for name, p in policies.items()}


# -- times ------------------------------------------------------------------------------------------------------


def solve_ms(n: int, rounds: int) -> list[float]:
    """How long one allocation takes, targets moving, charge and discharge in turn."""
    rng = np.random.default_rng(n)
    site = np.arange(n)
    site[1::10] = site[0::10][: len(site[1::10])]
    snapshot = fleet_of(n, site=site, soc_pct=rng.uniform(10, 100, n), feeder=site // 100)
    allowed = envelope(snapshot, Now(utc_ms=NOW.utc_ms, mono_ms=NOW.mono_ms), EXACT)
    most_w = float(np.floor(allowed.discharge_w).sum())
    mask = np.ones(n, dtype=np.bool_)
    took: list[float] = []
    for i in range(rounds + 2):
        target_w = most_w * (0.3 + 0.6 * (i % 7) / 7) * (1 if i % 2 else -0.3)
        ask = Ask(target_w=target_w, mask=mask, horizon_s=600, seconds_to_end=3600)
        began = time.perf_counter()
        found = allocate(ask, allowed, snapshot)
        took.append((time.perf_counter() - began) * 1000)
        assert found.unserved_w == 0, found
    return took[2:]


async def run(*, quick: bool, sizes: tuple[int, ...] = (1_000, 10_000, 100_000), fleets: int = 60) -> dict[str, Any]:
    pin()
    keep_memory()
    fleets, rounds = (3, 5) if quick else (fleets, 50)
    found: list[dict[str, Any]] = []
    worst: dict[str, dict[str, float]] = {}
    for cause, make in CASES.items():
        gaps: dict[str, list[float]] = {name: [] for name in POLICIES}
        # the simple policies know no minima
        policies: dict[str, Policy] = POLICIES if make is not minima else {"core": core}
        for seed in range(fleets):
            rng = np.random.default_rng(seed)
            for name, gap in excess_pct(make(rng), rng, policies).items():
                gaps[name].append(gap)
        gaps = {name: values for name, values in gaps.items() if values}
        worst[cause] = {name: max(values) for name, values in gaps.items()}
        shown = {f"{name}_{kind}_pct": round(value, 4) for name, values in gaps.items()
                 for kind, value in (("worst", max(values)), ("mean", float(np.mean(values))))}  # fmt: skip
        found.append({"n": DEVICES, "case": cause, "fleets": fleets, "steps": STEPS} | shown)
    took: list[float] = []
    for n in sizes:
        took = solve_ms(n, rounds)
        middle = percentile(took, 0.5)
        found.append(
            {
                "n": n,
                "case": "time",
                "rounds": rounds,
                "seconds": round(middle / 1000, 6),
                "us_per_item": round(middle / n * 1000, 4),
                "p99_ms": round(percentile(took, 0.99), 3),
            }
        )
    return report(
        "allocate",
        sizes=found,
        ratios={
            "unserved_pct": worst["plain"]["core"],
            "proportional_unserved_pct": worst["plain"]["proportional"],
            "equal_unserved_pct": worst["plain"]["equal"],
        },
        aims={
            "unserved_pct": aim(worst["plain"]["core"], most=0.1),
            "site_caps_unserved_pct": aim(worst["site_caps"]["core"], most=1.0),
            "solve_ms": aim(percentile(took, 0.5), most=10.0),
        },
    )
