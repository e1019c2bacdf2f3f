"""A varied population of homes: what their batteries can do, what their owners allow, how they are wired."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# (discharge and charge rating W, usable capacity Wh) of the products in the population
PRODUCTS = (
    (3_300.0, 5_000.0),
    (3_700.0, 6_500.0),
    (4_600.0, 9_600.0),
    (5_000.0, 10_000.0),
    (5_000.0, 13_500.0),
    (7_000.0, 15_400.0),
    (9_600.0, 20_500.0),
    (11_500.0, 13_500.0),
    (11_400.0, 27_000.0),
)
ZONES = ("zone-a", "zone-b", "zone-c")
HOMES_PER_FEEDER = 25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Homes:
    """Facts of a fleet, one entry per device; `load_base_w` and `pv_peak_w` one per site.

    Powers in W, energies in Wh. NaN = unknown, inf = unlimited (or, for `inverter_w_max`, AC coupled).
    Load, PV and grid power belong to a site; a site has one or two batteries.
    """

    ids: tuple[str, ...]
    sites: tuple[str, ...]
    feeders: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    site_index: Ints
    capacity_wh: Floats
    discharge_w_max: Floats
    charge_w_max: Floats
    inverter_w_max: Floats
    efficiency_charge: Floats
    efficiency_discharge: Floats
    standby_w: Floats
    reserve_pct: Floats
    export_allowed: Bools
    grid_charge_allowed: Bools
    site_import_w_max: Floats
    site_export_w_max: Floats
    soc_uncertainty_pct: Floats
    soc_step_pct: Floats
    counter_step_wh: Floats
    response_s: Floats
    slew_w_per_s: Floats
    ambient_c: Floats
    soc_start_pct: Floats
    load_base_w: Floats
    pv_peak_w: Floats
    seed: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def site_count(self) -> int:
        return len(self.load_base_w)


def _site_of_each_device(n: int, rng: np.random.Generator) -> Ints:
    """About one site in ten has two batteries."""
    sites: list[int] = []
    site = 0
    while len(sites) < n:
        sites.extend([site] * (2 if rng.random() < 0.1 and len(sites) + 2 <= n else 1))
        site += 1
    return np.array(sites, dtype=np.int64)


def _choice(rng: np.random.Generator, n: int, options: list[tuple[float, float]]) -> Floats:
    """Values drawn by weight: `options` are (value, probability)."""
    values = np.array([value for value, _ in options], dtype=np.float64)
    return values[rng.choice(len(options), size=n, p=[weight for _, weight in options])]


def _ids(prefix: str, numbers: Ints) -> tuple[str, ...]:
    return tuple(f"{prefix}-{number:05d}" for number in numbers.tolist())


def make_homes(n: int, seed: int = 1) -> Homes:
    """`n` devices drawn from `seed`: the same seed gives the same homes.

    60 % of sites with PV, 30 % not allowed to export, 60 % of devices allowed to charge from the grid, owner's reserve
    10 to 40 %. Two-battery sites are AC coupled; about a third of the other PV sites share the inverter with PV.
    """
    rng = np.random.default_rng(seed)
    site = _site_of_each_device(n, rng)
    sites = int(site[-1]) + 1 if n else 0
    product = np.array(PRODUCTS)[rng.integers(len(PRODUCTS), size=n)].reshape(n, 2)
    alone = np.bincount(site, minlength=sites)[site] == 1
    pv_peak_w = np.where(rng.random(sites) < 0.6, rng.uniform(3_000, 10_000, sites).round(-2), 0.0)
    coupled = alone & (pv_peak_w[site] > 0) & (rng.random(n) < 0.35)
    export = (rng.random(sites) >= 0.3)[site]
    export_w_max = _choice(rng, sites, [(math.inf, 0.7), (5_000.0, 0.15), (10_000.0, 0.15)])[site]
    closed_w_max = _choice(rng, sites, [(0.0, 0.5), (math.nan, 0.5)])[site]
    import_w_max = _choice(rng, sites, [(math.inf, 0.65), (11_000.0, 0.15), (17_000.0, 0.15), (math.nan, 0.05)])[site]
    zone = rng.integers(len(ZONES), size=sites)[site]
    return Homes(
        ids=_ids("sim", np.arange(n)),
        sites=_ids("site", site),
        feeders=_ids("feeder", site // HOMES_PER_FEEDER),
        tags=tuple((ZONES[z], "pv" if pv_peak_w[s] > 0 else "no-pv") for z, s in zip(zone, site, strict=True)),
        site_index=site,
        capacity_wh=product[:, 1].copy(),
        discharge_w_max=product[:, 0].copy(),
        charge_w_max=product[:, 0].copy(),
        inverter_w_max=np.where(coupled, product[:, 0] * rng.choice([1.0, 1.2], size=n), math.inf),
        efficiency_charge=rng.uniform(0.952, 0.975, n),
        efficiency_discharge=rng.uniform(0.952, 0.975, n),
        standby_w=rng.uniform(8, 28, n),
        reserve_pct=rng.choice(np.arange(10, 41, 5), size=n).astype(np.float64),
        export_allowed=export,
        grid_charge_allowed=rng.random(n) < 0.6,
        site_import_w_max=import_w_max,
        site_export_w_max=np.where(export, export_w_max, closed_w_max),
        soc_uncertainty_pct=np.full(n, 5.0),
        soc_step_pct=_choice(rng, n, [(0.1, 0.15), (1.0, 0.75), (5.0, 0.1)]),
        counter_step_wh=_choice(rng, n, [(1.0, 0.6), (10.0, 0.2), (math.nan, 0.2)]),
        response_s=rng.uniform(0.8, 2.0, n),
        slew_w_per_s=product[:, 0] * rng.uniform(0.4, 1.0, n),
        ambient_c=np.where(rng.random(n) < 0.03, -4.0, rng.uniform(10, 28, n)),
        soc_start_pct=rng.uniform(45, 95, n),
        load_base_w=rng.uniform(250, 900, sites),
        pv_peak_w=pv_peak_w,
        seed=seed,
    )


def well_stocked(homes: Homes, indices: Sequence[int]) -> Homes:
    """The same homes, but for some that have much to give and may: what an event asks first."""
    at = list(indices)
    values = {"capacity_wh": 27_000.0, "soc_start_pct": 90.0, "reserve_pct": 20.0, "export_allowed": True,
              "site_export_w_max": math.inf}  # fmt: skip
    changed = {name: getattr(homes, name).copy() for name in values}
    for name, value in values.items():
        changed[name][at] = value
    return replace(homes, **changed)


def _limit_text(value: float) -> str:
    if math.isnan(value):
        return ""
    return "unlimited" if math.isinf(value) else f"{value:.0f}"


def inventory_rows(homes: Homes) -> list[dict[str, str]]:
    """The fleet as rows of an inventory file; every value as the text of a CSV cell, empty = unknown."""
    return [
        {
            "id": homes.ids[i],
            "profile": "reference-mqtt",
            "site": homes.sites[i],
            "feeder": homes.feeders[i],
            "tags": ";".join(homes.tags[i]),
            "capacity_wh": f"{homes.capacity_wh[i]:.0f}",
            "discharge_w_max": f"{homes.discharge_w_max[i]:.0f}",
            "charge_w_max": f"{homes.charge_w_max[i]:.0f}",
            "inverter_w_max": f"{homes.inverter_w_max[i]:.0f}" if math.isfinite(homes.inverter_w_max[i]) else "",
            "reserve_pct": f"{homes.reserve_pct[i]:g}",
            "export_allowed": "true" if homes.export_allowed[i] else "false",
            "grid_charge_allowed": "true" if homes.grid_charge_allowed[i] else "false",
            "site_import_w_max": _limit_text(float(homes.site_import_w_max[i])),
            "site_export_w_max": _limit_text(float(homes.site_export_w_max[i])),
            "fuse_protected": "true",
        }
        for i in range(len(homes))
    ]
