"""What owners reported of real devices (device_profiles/reports.md), through the profiles as they ship."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.types import Grid, Mode
from gateway.links.json_values import raw_of, tokens_of, value_at
from gateway.profiles.compiled.points import Marker, Read, Values
from gateway.profiles.compiled.variant import ProductVariant
from gateway.profiles.loader import load_profiles

CODECS = load_profiles(Path(__file__).parents[2] / "device_profiles")
Words = Mapping[int, tuple[int, ...]]


def variant_of(profile: str, name: str = "") -> ProductVariant:
    product = CODECS[profile].product
    assert product is not None
    return next(variant for variant in product.variants if variant.variant == name)


def readings(variant: ProductVariant, raws: Mapping[str, Read]) -> Mapping[str, float]:
    values = Values()
    variant.decode(raws, values)
    return variant.canonical(values).quantities


def from_registers(variant: ProductVariant, image: Words) -> Mapping[str, float]:
    """The readings of a device with these words from each address on; others were not told."""
    words = {address + i: word for address, run in image.items() for i, word in enumerate(run)}
    raws: dict[str, Read] = {}
    for name, point in variant.points.items():
        places = range(point.address or 0, (point.address or 0) + point.register_count)
        if point.address is not None and all(place in words for place in places):
            raws[name] = tuple(words[place] for place in places)
    return readings(variant, raws)


def from_document(variant: ProductVariant, path: str, document: Any) -> Mapping[str, float]:
    return readings(
        variant,
        {
            name: raw_of(value_at(document, tokens_of(point.pointer)))
            for name, point in variant.points.items()
            if point.path == path
        },
    )


def little_f32(value: int) -> tuple[int, int]:
    """The words of the bits of a float, least significant word first."""
    return value & 0xFFFF, value >> 16


STATUS_1 = json.loads(
    '{"BackupBuffer":"0","BatteryCharging":false,"BatteryDischarging":true,"Consumption_W":356,"GridFeedIn_W":-53,'
    '"OperatingMode":"2","Pac_total_W":299,"Production_W":0,"RSOC":37,"SystemStatus":"OnGrid","USOC":34}'
)
STATUS_OLD = json.loads(
    '{"BatteryCharging":false,"BatteryDischarging":false,"Consumption_W":480,"GridFeedIn_W":-485,"Pac_total_W":-4,'
    '"Production_W":0,"RSOC":5,"USOC":0,"Ubat":48}'
)


def test_report_sonnen_status_of_2020_balances() -> None:
    found = from_document(variant_of("sonnen-v1"), "/api/v1/status", STATUS_1)
    assert (found["battery_w"], found["grid_w"], found["load_w"], found["soc_pct"]) == (299, 53, 356, 34)
    assert (found["mode"], found["grid"], found["reserve_pct"]) == (Mode.SELF_CONSUMPTION, Grid.ON, 0)


def test_report_sonnen_status_of_2019_has_no_mode_and_is_read_right() -> None:
    found = from_document(variant_of("sonnen-v1"), "/api/v1/status", STATUS_OLD)
    assert (found["battery_w"], found["grid_w"], found["load_w"], found["soc_pct"]) == (-4, 485, 480, 0)
    assert (found["mode"], found["grid"]) == (Mode.UNKNOWN, Grid.UNKNOWN)


@pytest.mark.parametrize(("raw", "shown"), [(28.75, 25.0), (24.0, 20.0), (5.0, 0.0), (100.0, 100.0)])
def test_report_powerwall_reserve_is_what_the_app_shows_both_ways(raw: float, shown: float) -> None:
    variant = variant_of("tesla-powerwall")
    assert readings(variant, {"reserve": raw})["reserve_pct"] == pytest.approx(shown)
    assert variant.codecs["reserve"].encode(shown, {}) == pytest.approx(raw, abs=1e-5)


def test_report_sungrow_magnitude_that_became_signed_is_no_tens_of_kilowatts() -> None:
    variant = variant_of("sungrow-sh", "magnitude-power")
    for flow in (0, 2, 4):
        battery_w = from_registers(variant, {13000: (flow,), 13021: (0xF136,)})["battery_w"]
        assert math.isnan(battery_w) or abs(battery_w) == 3786


@pytest.mark.parametrize("mode", [1, 2, 5, 6, 9])
def test_report_sigenergy_in_a_mode_of_its_owner_or_maker_is_in_another_mode(mode: int) -> None:
    assert from_registers(variant_of("sigenergy-plant"), {30003: (mode,), 40029: (0,)})["mode"] == Mode.OTHER


def test_report_huawei_two_units_are_told_as_one_sum() -> None:
    power = struct.unpack(">2H", struct.pack(">i", -7800))
    found = from_registers(
        variant_of("huawei-luna2000"), {37760: (500,), 37762: (2,), 37765: power, 37000: (2,), 37741: (2,)}
    )
    assert (found["battery_w"], found["soc_pct"]) == (7800, 50)


def test_report_huawei_refuses_single_register_writes_so_none_is_sent() -> None:
    points = variant_of("huawei-luna2000").points.values()
    assert [p for p in points if p.access != "r" and p.register_count == 1 and p.write_function != 16] == []


def solaredge(*, batteries: int, power: int, soc: int, status: int) -> Mapping[str, float]:
    """The readings of batteries that idle at half, but for the last one: its words."""
    image: dict[int, tuple[int, ...]] = {}
    for i in range(batteries):
        base, last = 0xE100 + 0x100 * (0, 1, 3)[i], i == batteries - 1
        image[base + 0x7E] = little_f32(0x461C4000)
        image[base + 0x74] = little_f32(power if last else 0)
        image[base + 0x84] = little_f32(soc if last else 0x42480000)
        image[base + 0x86] = (status if last else 6, 0)
    return from_registers(
        variant_of("solaredge-storedge", ("", "second-battery", "second-battery+third-battery")[batteries - 1]), image
    )


@pytest.mark.parametrize("batteries", [1, 2, 3])
def test_report_solaredge_battery_asleep_gives_no_tens_of_kilowatts(batteries: int) -> None:
    asleep = solaredge(batteries=batteries, power=0xC7000000, soc=0x42480000, status=6)
    assert math.isnan(asleep["battery_w"])
    assert asleep["soc_pct"] == 50
    assert solaredge(batteries=batteries, power=0xC47A0000, soc=0x42480000, status=4)["battery_w"] == 1000


@pytest.mark.parametrize("batteries", [1, 2, 3])
def test_report_solaredge_battery_that_is_off_and_says_0_everywhere_is_unknown(batteries: int) -> None:
    off = solaredge(batteries=batteries, power=0, soc=0, status=0)
    assert math.isnan(off["battery_w"])
    assert math.isnan(off["soc_pct"])
    empty = solaredge(batteries=batteries, power=0, soc=0, status=6)
    assert empty["battery_w"] == 0
    assert empty["soc_pct"] == pytest.approx(50 * (batteries - 1) / batteries)


def test_report_solaredge_48_v_battery_at_ten_percent() -> None:
    image = {
        0xE144: little_f32(0x459C4000), 0xE146: little_f32(0x459C4000), 0xE16C: little_f32(0x415E6667),
        0xE174: little_f32(0), 0xE184: little_f32(0x41193106), 0xE186: (6, 0),
    }  # fmt: skip
    found = from_registers(variant_of("solaredge-storedge"), image)
    assert found["soc_pct"] == pytest.approx(9.5744686)
    assert found["temp_c"] == pytest.approx(13.9)
    assert (found["battery_w"], found["charge_w_max"], found["discharge_w_max"]) == (0, 5000, 5000)


@pytest.mark.parametrize("words", [(0xFF7F, 0xFFFF), (0x7F7F, 0xFFFF), (0xFFFF, 0xFF7F), (0xFFFF, 0x7F7F)])
def test_report_solaredge_says_no_value_in_either_order_of_words(words: tuple[int, int]) -> None:
    found = from_registers(variant_of("solaredge-storedge"), {0xE174: words, 0xE184: words, 0xE186: (10, 0)})
    assert math.isnan(found["battery_w"])
    assert math.isnan(found["soc_pct"])


def test_report_solaredge_counters_of_the_battery_begin_with_the_least_significant_word() -> None:
    image = {0xE176: (0x3F10, 0x42, 0, 0), 0xE17A: (0x168C, 0x5E, 0, 0)}
    found = from_registers(variant_of("solaredge-storedge"), image)
    assert (found["discharge_counter_wh"], found["charge_counter_wh"]) == (4_341_520, 6_166_156)


def test_report_fronius_reserve_that_is_not_there_is_unknown() -> None:
    variant = variant_of("fronius-gen24")
    (reserve,) = variant.reserve_points
    factor = variant.points[reserve].scale_factor
    assert factor is not None
    assert math.isnan(readings(variant, {reserve: (0xFFFF,), factor: (0xFFFE,)})["reserve_pct"])


def test_report_foxess_soc_of_an_h3_is_at_31038_and_an_evo_is_none() -> None:
    variant = variant_of("foxess-h3")
    assert from_registers(variant, {31038: (88,), 31024: (0,)})["soc_pct"] == 88
    assert variant.not_this_product({"model": "EVO 10-5-H"}) != []


def test_report_victron_multi_rs_without_hub4_is_in_no_known_mode() -> None:
    variant = variant_of("victron-gx-mqtt")
    raws: dict[str, Read] = dict.fromkeys(variant.points, Marker.MISSING)
    raws |= {"soc": 84.5, "battery_power": -350.0}
    found = readings(variant, raws)
    assert (found["battery_w"], found["soc_pct"]) == (350, 84.5)
    assert found["mode"] == Mode.UNKNOWN
