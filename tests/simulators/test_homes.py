"""The population has the mix it promises, and the inventory rows say the same."""

import math

import numpy as np

from simulators.homes import inventory_rows, make_homes


def test_homes_population_has_the_promised_mix() -> None:
    fleet = make_homes(2_000, seed=2)
    assert len(set(fleet.ids)) == len(fleet) == 2_000
    assert 0.55 < np.mean(fleet.pv_peak_w > 0) < 0.65
    assert 0.25 < np.mean(~fleet.export_allowed) < 0.35
    assert 0.55 < np.mean(fleet.grid_charge_allowed) < 0.65
    assert (fleet.reserve_pct.min(), fleet.reserve_pct.max()) == (10, 40)
    assert fleet.discharge_w_max.min() == 3_300
    assert fleet.discharge_w_max.max() == 11_500
    assert (fleet.capacity_wh.min(), fleet.capacity_wh.max()) == (5_000, 27_000)
    per_site = np.bincount(fleet.site_index)
    assert set(per_site.tolist()) == {1, 2}


def test_homes_same_seed_are_the_same() -> None:
    assert inventory_rows(make_homes(50, 9)) == inventory_rows(make_homes(50, 9))
    assert inventory_rows(make_homes(50, 9)) != inventory_rows(make_homes(50, 8))


def test_inventory_rows_tell_unknown_from_unlimited() -> None:
    fleet = make_homes(300, seed=4)
    rows = inventory_rows(fleet)
    assert {row["profile"] for row in rows} == {"reference-mqtt"}
    for i, row in enumerate(rows):
        for name in ("site_import_w_max", "site_export_w_max"):
            value = float(getattr(fleet, name)[i])
            told = row[name]
            assert told == ("" if math.isnan(value) else "unlimited" if math.isinf(value) else f"{value:.0f}")
        assert (row["inverter_w_max"] == "") == math.isinf(fleet.inverter_w_max[i])
        assert row["export_allowed"] in {"true", "false"}
    assert {"", "unlimited"} <= {row["site_export_w_max"] for row in rows}
