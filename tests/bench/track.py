"""Track: how well a fleet does what it was asked, measured at the batteries.

5,000 simulated homes of many makes: load, PV, coarse SoC, taper near empty, export and inverter limits, an error of
gain and noise in what each battery does. 5 % hear no command (and say so to nobody), 2 % drop out for a while. An event
asks for a part of what the simulator knows the others can sustain; messages are JSON both ways, a tick comes every
second of simulated time. `mean_error_pct`: worst 5-minute mean of gross AC battery power against the target, from 90 s
after the start. What limits it: readings are a second old, batteries follow within two, and what an unresponsive home
does by itself is known one tick later.
"""

import time
from typing import Any

import numpy as np

from gateway.app.daemon import keep_memory
from gateway.domain.events.request import power
from gateway.services.settings import ControlSettings, MaintenanceSettings
from simulators.battery import Batteries
from simulators.faults import Fault, FaultKind
from simulators.homes import Bools, Floats, Homes, make_homes
from tests.bench.rig import aim, pin, report
from tests.scenes.street import Street

DEAF, DROPPING = 0.05, 0.02
GAIN_ERROR, NOISE_W = 0.02, 20.0
SHARE = 0.6
SETTLED_S, WINDOW_S = 90, 300
RAMP_S = 30.0


class Noisy(Batteries):
    """Batteries that do not do exactly as they are told."""

    def __init__(self, homes: Homes, *, time_s: float = 64_800.0, guard: bool = True) -> None:
        self._noise = np.random.default_rng(homes.seed + 1)
        self._gain = 1 + self._noise.normal(0, GAIN_ERROR, len(homes))
        super().__init__(homes, time_s=time_s, guard=guard)

    def _wanted_w(self, load_w: Floats, pv_w: Floats, discharge_w: Floats) -> Floats:
        wanted_w = super()._wanted_w(load_w, pv_w, discharge_w)
        noisy_w = wanted_w * self._gain + self._noise.normal(0, NOISE_W, len(wanted_w)) * (wanted_w != 0)
        result: Floats = noisy_w
        return result


def planted(street: Street, rng: np.random.Generator, event_s: int) -> Bools:
    """Who is unresponsive from the start, and who drops out some time for a while; returns those that count as
    capacity."""
    n = len(street.homes)
    order = rng.permutation(n)
    unresponsive, dropping = order[: round(n * DEAF)], order[round(n * DEAF) : round(n * (DEAF + DROPPING))]
    for index in unresponsive.tolist():
        street.inject(index, Fault(kind=FaultKind.DEAF, acks=False))
    for index in dropping.tolist():
        at_s = float(rng.uniform(0, event_s))
        street.inject(index, Fault(kind=FaultKind.OFFLINE, at_s=at_s, for_s=float(rng.uniform(20, 300))))
    counts = np.ones(n, dtype=np.bool_)
    counts[order[: round(n * (DEAF + DROPPING))]] = False
    return counts


async def event(homes: Homes, event_s: int) -> dict[str, Any]:
    """One event over the whole fleet; what was measured."""
    rng = np.random.default_rng(homes.seed)
    rated_w = float(homes.discharge_w_max.sum())
    settings = ControlSettings(
        fleet_w_per_s=rated_w * SHARE / RAMP_S, release_spread_s=30.0, upkeep=MaintenanceSettings(recovery_s=0)
    )
    street = Street(homes, settings=settings, physics=Noisy)
    counts = planted(street, rng, event_s)
    await street.go(3)
    batteries = street.devices.batteries
    able_w = batteries.available_discharge_w(batteries.reserve_pct + homes.soc_uncertainty_pct + 1, event_s + 120)
    target_w = float(np.floor(able_w[counts].sum() * SHARE))
    before = len(street.devices.commands_seen)
    await street.submit(s=event_s, target=power(target_w))
    total, lowest_able_w = [float(batteries.battery_w.sum())], np.inf
    for _ in range(event_s):
        await street.go(1)
        total.append(float(np.where(batteries.islanded, 0.0, batteries.battery_w).sum()))
        now_w = batteries.available_discharge_w(batteries.reserve_pct + homes.soc_uncertainty_pct)
        lowest_able_w = min(lowest_able_w, float(now_w[counts].sum()))
    seen = len(street.devices.commands_seen) - before
    power_w = np.array(total)
    windows = [power_w[i : i + WINDOW_S].mean() for i in range(SETTLED_S, event_s - WINDOW_S + 2, WINDOW_S)]
    errors_pct = [100 * (mean / target_w - 1) for mean in windows]
    steps_w = np.abs(np.diff(power_w))
    return {
        "target_w": target_w,
        "capacity_w": round(lowest_able_w),
        "capacity_sufficed": bool(lowest_able_w >= target_w),
        "mean_errors_pct": [round(float(error), 4) for error in errors_pct],
        "overshoot_pct": round(100 * float(power_w.max() / target_w - 1), 3),
        "largest_step_pct": round(100 * float(steps_w.max()) / target_w, 3),
        "largest_ramp_w_per_s": round(float(np.abs(power_w[10:] - power_w[:-10]).max() / 10)),
        "governor_w_per_s": round(settings.fleet_w_per_s),
        "start_to_90_s": int(np.argmax(power_w >= 0.9 * target_w)),
        "writes_per_device_hour": round(seen / len(homes) / event_s * 3600, 1),
        "writes_by_cause": {cause.name.lower(): count for cause, count in street.control.writes.writes.items()},
        "problems": street.problems[:5],
    }


async def run(*, quick: bool, devices: int = 5_000, event_s: int = 1_000) -> dict[str, Any]:
    pin()
    keep_memory()
    if quick:
        devices, event_s = min(devices, 500), min(event_s, 400)
    began = time.perf_counter()
    found = await event(make_homes(devices, seed=11), event_s)
    worst_pct = max(abs(error) for error in found["mean_errors_pct"])
    return report(
        "track",
        sizes=[{"n": devices, "event_s": event_s, "seconds": round(time.perf_counter() - began, 2)} | found],
        ratios={"mean_error_pct": worst_pct},
        aims={
            "mean_error_pct": aim(worst_pct, most=1.0),
            "capacity_sufficed": aim(float(found["capacity_sufficed"]), least=1.0),
            "problems": aim(float(len(found["problems"])), most=0.0),
        },
    )
