"""What is written, against rules worked out anew in plain numbers: any devices, any events, a tick, a paired check.

Every setpoint lies within the ratings, what the BMS reports, the reserve by a state of charge that is young enough, and
what the home may exchange with the grid. The small count runs with every test; `make test-deep` makes 100,000.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.commands import CommandOp
from gateway.domain.control.compliance import Conduct, ResponseParams, responsive, update_conduct
from gateway.domain.control.leases import rest
from gateway.domain.control.planning import Plan, PlanParams, plan
from gateway.domain.control.progress import TrackingParams
from gateway.domain.events.request import Target, Want, power
from gateway.domain.fleet.columns import Authority
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import LimitParams
from gateway.domain.types import Grid, Mode
from tests.builders.fleets import NOW, fleet_of
from tests.depth import deep
from tests.domain.control.test_tracking import Scene

AGE_S_MAX = 120
MARGIN_W = 1.0


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value that may be unknown, one time in four."""
    return st.sampled_from([True, True, True, False]).flatmap(lambda known: strategy if known else st.just(np.nan))


POWER_W = st.integers(-6_000, 6_000)
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "over_reserve_pct": maybe(st.one_of(st.floats(-3, 5), st.floats(-100, 100))),
    "soc_uncertainty_pct": st.floats(0, 5),
    "owner_reserve_pct": st.floats(0, 100),
    "reserve_pct": maybe(st.floats(0, 100)),
    "capacity_wh": st.floats(500, 30_000),
    "battery_w": maybe(POWER_W),
    "pv_w": maybe(st.integers(0, 8_000)),
    "load_w": maybe(st.integers(0, 8_000)),
    "grid_w": maybe(st.integers(-8_000, 8_000)),
    "temp_c": maybe(st.integers(-20, 65)),
    "faults": st.sampled_from([0, 0, 0, 4]),
    "grid": st.sampled_from([Grid.ON, Grid.ON, Grid.ON, Grid.ISLAND]),
    "mode": st.sampled_from([Mode.REMOTE, Mode.SELF_CONSUMPTION, Mode.UNKNOWN]),
    "online": st.sampled_from([1, 1, 1, 0]),
    "site": st.integers(-1, 1),
    "export_allowed": st.booleans(),
    "grid_charge_allowed": st.booleans(),
    "fuse_protected": st.booleans(),
    "site_export_w_max": maybe(st.sampled_from([0.0, 3_000.0, np.inf])),
    "site_import_w_max": maybe(st.sampled_from([4_000.0, np.inf])),
    "setpoint_w": POWER_W,
    "authority": st.sampled_from(
        [Authority.DEVICE, Authority.CONTROLLED, Authority.CONTROLLED, Authority.RELEASING, Authority.OWNER]
    ),
    "age_s": st.sampled_from([0, 1, 30, 119, 121, 4_000]),
    "bms_out_w": st.one_of(st.integers(-100, 300), st.integers(0, 6_000)),
    "bms_in_w": st.one_of(st.integers(-100, 300), st.integers(0, 6_000)),
    "lease_left_s": st.integers(-10, 100),
    "setpoint_w_min": st.sampled_from([0, 0, 300]),
    "feeder": st.integers(-1, 0),
}
USUAL: dict[str, Any] = {
    "over_reserve_pct": 50.0, "soc_uncertainty_pct": 2.0, "owner_reserve_pct": 20.0, "reserve_pct": np.nan,
    "capacity_wh": 10_000.0, "battery_w": 0, "pv_w": 0, "load_w": 500, "grid_w": 500, "temp_c": 20, "faults": 0,
    "grid": Grid.ON, "mode": Mode.REMOTE, "online": 1, "site": -1, "export_allowed": True,
    "grid_charge_allowed": True, "fuse_protected": True, "site_export_w_max": np.inf, "site_import_w_max": np.inf,
    "setpoint_w": 0, "authority": Authority.CONTROLLED,
    "age_s": 0, "bms_out_w": np.nan, "bms_in_w": np.nan, "lease_left_s": 80,
    "setpoint_w_min": 0, "feeder": -1,
}  # fmt: skip
"""A healthy home; some columns of each are something else."""


@st.composite
def device(draw: st.DrawFn) -> dict[str, Any]:
    """A home that is unusual in a few ways."""
    odd = draw(st.sets(st.sampled_from(sorted(COLUMNS)), max_size=7))
    row = USUAL | {name: draw(COLUMNS[name]) for name in sorted(odd)}
    reserve_pct = np.fmax(row["owner_reserve_pct"], row["reserve_pct"])
    row["soc_pct"] = float(np.clip(reserve_pct + row.pop("over_reserve_pct"), 0, 100))
    return row


DEVICES = st.lists(device(), min_size=1, max_size=4)
EVENTS = st.lists(
    st.one_of(
        st.sampled_from([12_000, 3_000, -12_000, 1]).map(power),
        st.integers(-12_000, 12_000).map(power),
        st.just(power(None)),
        POWER_W.map(lambda w: Target(want=Want.DEVICE_POWER, power_w=w)),
        POWER_W.map(lambda w: Target(want=Want.FOLLOW_LOAD, power_w=w)),
        st.floats(1, 100).map(lambda pct: Target(want=Want.CHARGE_TO, soc_pct=pct)),
        st.sampled_from([Target(want=Want.IDLE), Target(want=Want.BACKUP), Target(want=Want.SELF_CONSUMPTION)]),
    ),
    min_size=0,
    max_size=3,
)


def written(scene: Scene) -> Plan:
    """What one tick writes."""
    snapshot = scene.snapshot
    seen_mono_ms = snapshot.live.seen_mono_ms.copy()
    found = scene.tick()
    snapshot.live.seen_mono_ms[:] = seen_mono_ms  # a tick of the scene lets everybody report
    conduct = Conduct(snapshot.n)
    update_conduct(conduct, snapshot, NOW)
    conduct.commanded_s[:] = 0  # commanded long ago
    follows = responsive(conduct, snapshot, NOW, ResponseParams())
    resting = rest(
        snapshot, NOW, idle=found.idle, by_itself=found.by_itself, guaranteed=np.ones(snapshot.n, dtype=np.bool_),
        after_s=60,
    )  # fmt: skip
    return plan(
        snapshot, envelope(snapshot, NOW, LimitParams()), NOW, PlanParams(), wanted_w=found.wanted_w,
        members=found.taking & ~resting.free, release=~found.taking, unresponsive=~follows, blocked=resting.blocked,
    )  # fmt: skip


def past(row: dict[str, Any], setpoint_w: int) -> str:
    """What a setpoint breaks, in words; nothing if it is right."""
    soc_pct, bms_w = row["soc_pct"], row["bms_out_w"] if setpoint_w > 0 else row["bms_in_w"]
    checks = {
        "reading too old": row["age_s"] <= AGE_S_MAX,
        "offline": row["online"] == 1,
        "islanded": row["grid"] != Grid.ISLAND,
        "left by its owner": row["authority"] != Authority.OWNER,
        "past the rating": abs(setpoint_w) <= 5_000,
        "past the BMS": math.isnan(bms_w) or abs(setpoint_w) <= max(bms_w, 0),
        "faulty": row["faults"] == 0 or setpoint_w == 0,
        "SoC unknown": not math.isnan(soc_pct) or setpoint_w == 0,
    }
    if setpoint_w > 0:
        reserve_pct = np.nanmax([row["owner_reserve_pct"], row["reserve_pct"]])
        checks["at or below the reserve"] = soc_pct - row["soc_uncertainty_pct"] > reserve_pct
    if setpoint_w < 0:
        checks["full"] = soc_pct < 100
        checks["freezing"] = math.isnan(row["temp_c"]) or row["temp_c"] >= 0
    return next((name for name, right in checks.items() if not right), "")


def home_past(rows: list[dict[str, Any]], setpoints_w: list[int]) -> str:
    """What the setpoints of one home break at its meter together. Only those that go one way count."""
    net_w = [row["load_w"] - row["pv_w"] for row in rows if row["age_s"] <= AGE_S_MAX]
    net_w = [w for w in net_w if not math.isnan(w)]
    out_w = sum(w for w in setpoints_w if w > 0)
    into_w = -sum(w for w in setpoints_w if w < 0)

    def least(name: str, allowed: str) -> float:
        return float(min(np.nan_to_num(row[name], nan=0.0, posinf=np.inf) if row[allowed] else 0.0 for row in rows))

    export_w = least("site_export_w_max", "export_allowed")
    import_w = least("site_import_w_max", "grid_charge_allowed")
    if not all(row["fuse_protected"] for row in rows):
        import_w = 0.0
    if net_w and out_w and out_w > max(min(net_w) + export_w, 0) + MARGIN_W:
        return f"{out_w} W out of a home that may give {min(net_w) + export_w} W"
    if net_w and into_w and into_w > max(import_w - max(net_w), 0) + MARGIN_W:
        return f"{into_w} W into a home that may take {import_w - max(net_w)} W"
    return ""


@pytest.mark.fault("F24")
@settings(max_examples=deep(100_000, else_=300))
@given(DEVICES, EVENTS)
def test_written_setpoint_lies_within_every_limit_whatever_is_read_and_asked(
    rows: list[dict[str, Any]], targets: list[Target]
) -> None:
    given_ = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    age_ms = 1_000 * given_.pop("age_s")
    bms_out_w, bms_in_w = given_.pop("bms_out_w"), given_.pop("bms_in_w")
    left_ms = 1_000 * given_.pop("lease_left_s")
    snapshot = fleet_of(
        len(rows), **given_, before_w=given_["setpoint_w"], seen_mono_ms=NOW.mono_ms - age_ms,
        lease_end_mono_ms=NOW.mono_ms + left_ms,
    )  # fmt: skip
    snapshot.live.discharge_w_max[:] = bms_out_w
    snapshot.live.charge_w_max[:] = bms_in_w
    scene = Scene(snapshot=snapshot, params=TrackingParams(fleet_w_per_s=1e9, horizon_s=600))
    scene.params = replace(scene.params, feeder_w=np.array([7_000.0]))
    for target in targets:
        scene.ask(target)
    todo = written(scene)
    assert len(set(todo.slots.tolist())) == len(todo)
    commands = dict(zip(todo.slots.tolist(), zip(todo.op.tolist(), todo.setpoint_w.tolist(), strict=True), strict=True))
    for slot, (op, setpoint_w) in commands.items():
        if op in (CommandOp.SETPOINT, CommandOp.HOLD):
            assert past(rows[slot], setpoint_w) == "", f"{setpoint_w} {rows[slot]}"
            assert (op == CommandOp.HOLD) == (setpoint_w == 0)
    for site in {row["site"] for row in rows if row["site"] >= 0}:
        inside = [slot for slot, row in enumerate(rows) if row["site"] == site]
        setpoints_w = [commands[slot][1] if slot in commands else 0 for slot in inside]
        assert home_past([rows[slot] for slot in inside], setpoints_w) == ""
