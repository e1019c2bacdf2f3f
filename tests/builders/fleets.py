"""Fleets to judge: healthy devices under control unless a column says otherwise."""

import numpy as np
from numpy.typing import ArrayLike

from gateway.domain.fleet.columns import Authority, ControlColumns, LiveColumns, Nameplate
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.types import Grid, Mode, Now

NOW = Now(utc_ms=1_800_000_000_000, mono_ms=50_000_000)

_HEALTHY: dict[str, float] = {
    "registered": True,
    "discharge_w_max": 5000,
    "charge_w_max": 5000,
    "capacity_wh": 10_000,
    "efficiency_discharge": 1.0,
    "efficiency_charge": 1.0,
    "soc_uncertainty_pct": 0,
    "owner_reserve_pct": 20,
    "export_allowed": True,
    "grid_charge_allowed": True,
    "fuse_protected": True,
    "site_import_w_max": np.inf,
    "site_export_w_max": np.inf,
    "lease_s": 100,
    "command_latency_s": 5,
    "battery_w": 0,
    "soc_pct": 60,
    "soc_step_pct": 1,
    "temp_c": 20,
    "pv_w": 0,
    "load_w": 500,
    "grid_w": 500,
    "mode": Mode.REMOTE,
    "grid": Grid.ON,
    "online": 1,
    "cmd": 7,
    "seen_mono_ms": NOW.mono_ms,
    "authority": Authority.CONTROLLED,
    "cmd_sent": 7,
    "cmd_applied": 7,
    "sent_mono_ms": NOW.mono_ms - 20_000,
    "changed_mono_ms": NOW.mono_ms - 60_000,
    "lease_end_mono_ms": NOW.mono_ms + 80_000,
}


def fleet_of(n: int, /, **columns: ArrayLike) -> Snapshot:
    """`n` healthy devices in homes of their own; each keyword sets the column of that name (ratings, not what
    the BMS reports, where both have it)."""
    plate, live, control = Nameplate(n), LiveColumns(n), ControlColumns(n)
    values: dict[str, ArrayLike] = {**_HEALTHY, "site": np.arange(n), **columns}
    soc_pct = values["soc_pct"]
    values = {"soc_low_pct": soc_pct, "soc_high_pct": soc_pct, **values}
    for name, value in values.items():
        table = next(table for table in (plate, live, control) if name in table.SPEC)
        table.column(name)[:] = np.asarray(value)
    return Snapshot(n=n, nameplate=plate, live=live, control=control)


def permuted(snapshot: Snapshot, order: ArrayLike) -> Snapshot:
    """The same devices in another order."""
    rows = np.asarray(order)
    out = Snapshot(
        n=snapshot.n, nameplate=Nameplate(snapshot.n), live=LiveColumns(snapshot.n), control=ControlColumns(snapshot.n)
    )
    for old, new in (
        (snapshot.nameplate, out.nameplate),
        (snapshot.live, out.live),
        (snapshot.control, out.control),
    ):
        for name in old.SPEC:
            setattr(new, name, old.column(name)[rows])
    return out
