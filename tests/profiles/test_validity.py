"""A plausible 0 of a product that does not know is unknown in every reading, never 0; a true 0 stays one."""

import math
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.types import Mode
from gateway.profiles.compiled.points import Raw, Values
from gateway.profiles.compiled.variant import ProductVariant
from gateway.profiles.language.points import Point
from gateway.profiles.loader import load_profiles

ROOT = Path(__file__).parents[2]
VARIANTS: dict[str, ProductVariant] = {
    f"{name}/{variant.variant}".rstrip("/"): variant
    for name, codec in load_profiles(ROOT / "device_profiles").items()
    if codec.product is not None
    for variant in codec.product.variants
}
HUAWEI = {
    "meter_status": 1, "grid_power": 0, "inverter_ac": 2_000, "storage_status": 2, "soc": 550, "battery_power": 0,
    "battery_temp": 210, "charge_max": 5_000, "discharge_max": 5_000,
}  # fmt: skip
VICTRON = {
    "battery_power": -700, "soc": 55, "load_l1": 400, "load_l2": 0, "load_l3": 0, "grid_l1": 0, "grid_l2": 0,
    "grid_l3": 0, "ess_mode": 1, "setpoint_raw": 0,
}  # fmt: skip
SUNGROW = {"soc": 550, "battery_voltage": 2_560, "battery_power": 0, "battery_temp": 0}
MAGNITUDE = {"power_flow": 0b1101, "battery_magnitude": 700, "soc": 550, "battery_voltage": 2_560}
GOODWE = {
    "battery_mode": 1, "battery_power": 0, "battery2_power": 0, "soc": 55, "battery_temp": 210, "meter_status": 1,
    "meter_power": 0,
}  # fmt: skip
FOXESS = {"battery_power": 0, "soc": 55, "battery_temp": 210}
SIGENERGY = {"grid_sensor": 1, "grid_power": 0, "plant_power": 300, "soc": 550, "battery_power": 0}
BATTERY = ("battery_w", "soc_pct")


def words(point: Point, number: int) -> Raw:
    """The words of a raw number, as the product's registers hold it."""
    data = number.to_bytes(2 * point.register_count, "big", signed=number < 0)
    return tuple(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))


def read(name: str, raws: dict[str, int]) -> dict[str, float]:
    """The canonical reading of raw numbers by point."""
    variant, values = VARIANTS[name], Values()
    little = variant.document.modbus is not None and variant.document.modbus.word_order == "little"
    found = {point: words(variant.points[point], number) for point, number in raws.items()}
    variant.decode({point: raw[::-1] if little else raw for point, raw in found.items()}, values)  # type: ignore[index]
    return variant.canonical(values).quantities


@pytest.mark.parametrize(
    ("name", "good", "said", "unknown"),
    [
        ("huawei-luna2000", HUAWEI, {"meter_status": 0}, ("grid_w", "load_w")),
        ("huawei-luna2000", HUAWEI, {"storage_status": 0, "soc": 0, "battery_temp": 0},
         (*BATTERY, "temp_c", "charge_w_max", "discharge_w_max")),
        ("victron-gx-modbus", VICTRON, {"battery_power": 0, "soc": 0}, BATTERY),
        ("victron-gx-modbus", VICTRON, {"load_l1": 0}, ("grid_w", "load_w")),
        ("sungrow-sh", SUNGROW, {"soc": 0, "battery_voltage": 0}, (*BATTERY, "temp_c")),
        ("sungrow-sh/magnitude-power", MAGNITUDE, {"power_flow": 0}, ("battery_w",)),
        ("goodwe-et", GOODWE, {"battery_mode": 0, "soc": 0, "battery_temp": 0}, (*BATTERY, "temp_c")),
        ("goodwe-et", GOODWE, {"meter_status": 0}, ("grid_w",)),
        ("foxess-h3", FOXESS, {"soc": 0, "battery_temp": 0}, (*BATTERY, "temp_c")),
        ("sigenergy-plant", SIGENERGY, {"grid_sensor": 0}, ("grid_w", "load_w")),
        ("sigenergy-plant", SIGENERGY, {"soc": 0}, BATTERY),
    ],
)  # fmt: skip
def test_zero_of_a_device_that_does_not_know_is_unknown(
    name: str, good: dict[str, int], said: dict[str, int], unknown: tuple[str, ...]
) -> None:
    known, found = read(name, good), read(name, good | said)
    assert [reading for reading in unknown if math.isnan(known[reading])] == []
    assert [reading for reading in unknown if not math.isnan(found[reading])] == []


@pytest.mark.parametrize("name", ["sonnen-v1", "sonnen-v2"])
def test_zero_everywhere_of_a_product_that_has_just_started_is_unknown(name: str) -> None:
    said: dict[str, Raw] = dict.fromkeys(("soc", "battery_power", "load_power", "grid_power", "pv_power"), 0)
    changes: tuple[tuple[dict[str, Raw], bool], ...] = (({}, True), ({"load_power": 400}, False), ({"soc": 5}, False))
    for changed, unknown in changes:
        values = Values()
        VARIANTS[name].decode(said | changed, values)
        found = VARIANTS[name].canonical(values).quantities
        assert {math.isnan(found[n]) for n in (*BATTERY, "load_w", "grid_w", "pv_w")} == {unknown}


@pytest.mark.parametrize(
    ("name", "good", "guard", "unknown"),
    [
        ("huawei-luna2000", HUAWEI, "meter_status", ("grid_w", "load_w")),
        ("huawei-luna2000", HUAWEI, "storage_status", BATTERY),
        ("sungrow-sh/magnitude-power", MAGNITUDE, "power_flow", ("battery_w",)),
        ("goodwe-et", GOODWE, "battery_mode", BATTERY),
        ("sigenergy-plant", SIGENERGY, "grid_sensor", ("grid_w",)),
    ],
)
def test_value_whose_witness_is_silent_is_unknown(
    name: str, good: dict[str, int], guard: str, unknown: tuple[str, ...]
) -> None:
    found = read(name, {point: number for point, number in good.items() if point != guard})
    assert [reading for reading in unknown if not math.isnan(found[reading])] == []


def test_zero_beside_a_value_that_is_none_is_a_zero() -> None:
    assert read("victron-gx-modbus", VICTRON)["grid_w"] == 0.0
    assert read("victron-gx-modbus", VICTRON | {"soc": 0})["soc_pct"] == 0.0
    assert read("victron-gx-modbus", VICTRON | {"battery_power": 0})["battery_w"] == 0.0
    assert read("huawei-luna2000", HUAWEI)["grid_w"] == 0.0
    assert read("goodwe-et", GOODWE)["grid_w"] == 0.0
    assert read("sungrow-sh", SUNGROW)["temp_c"] == 0.0


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ({"setpoint_raw": 0}, Mode.SELF_CONSUMPTION),
        ({"setpoint_raw": 0x7FFFFFFF}, Mode.SELF_CONSUMPTION),
        ({"setpoint_raw": 1}, Mode.REMOTE),
        ({"setpoint_raw": -3_000}, Mode.REMOTE),
        ({"ess_mode": 3}, Mode.OTHER),
    ],
)
def test_victron_without_a_grid_setpoint_is_in_its_own_mode(said: dict[str, Any], mode: Mode) -> None:
    assert read("victron-gx-modbus", VICTRON | said)["mode"] == mode
