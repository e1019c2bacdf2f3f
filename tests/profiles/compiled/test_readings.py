"""Points become canonical readings: signs, sums, cases, faults; what is unknown stays unknown (F26)."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.types import Grid, Mode
from gateway.profiles.compiled.points import Value
from gateway.profiles.compiled.readings import compile_reading, holds, mismatch
from gateway.profiles.language.points import Match, Reading


def read(name: str, reading: dict[str, Any], **values: Value) -> float:
    return compile_reading(name, Reading.model_validate(reading))(values)


def test_reading_sign_is_made_canonical() -> None:
    for sign, factor in (("discharge_positive", 1), ("charge_positive", -1)):
        assert read("battery_w", {"point": "p", "sign": sign}, p=1500.0) == factor * 1500.0
    for sign, factor in (("import_positive", 1), ("export_positive", -1)):
        assert read("grid_w", {"point": "p", "sign": sign}, p=-200.0) == factor * -200.0


@pytest.mark.fault("F26")
@pytest.mark.parametrize("value", [None, "5", True])
def test_reading_of_a_point_that_is_no_number_is_unknown(value: Value) -> None:
    assert math.isnan(read("soc_pct", {"point": "p"}, p=value))
    assert math.isnan(read("soc_pct", {"point": "p"}))


def test_reading_out_of_range_is_unknown_and_its_ends_are_in() -> None:
    reading = {"point": "p", "sign": "charge_positive", "range": [-100, 50]}
    assert [read("battery_w", reading, p=p) for p in (100.0, -50.0)] == [-100.0, 50.0]
    assert all(math.isnan(read("battery_w", reading, p=p)) for p in (100.5, -50.5))


@pytest.mark.fault("F26")
def test_reading_sum_with_one_unknown_term_is_unknown() -> None:
    reading = {"sum": [{"point": "a"}, {"point": "b", "times": -1}]}
    assert read("battery_w", reading, a=500.0, b=200.0) == 300.0
    assert read("battery_w", reading, a=500.0, b=0.0) == 500.0
    for values in ({"a": 500.0}, {"b": 200.0}, {"a": 500.0, "b": None}, {}):
        assert math.isnan(read("battery_w", reading, **values))


def test_reading_mean_weighs_its_points_and_is_unknown_with_any_of_them() -> None:
    reading = {"mean": [{"point": "a", "weight": "m"}, {"point": "b", "weight": "n"}], "range": [0, 100]}
    assert read("soc_pct", reading, a=80.0, m=9_000.0, b=20.0, n=3_000.0) == 65.0
    assert read("soc_pct", reading, a=0.0, m=1.0, b=0.0, n=1.0) == 0.0
    whole: dict[str, Value] = {"a": 80.0, "m": 9_000.0, "b": 20.0, "n": 3_000.0}
    for name in whole:
        assert math.isnan(read("soc_pct", reading, **(whole | {name: None})))
    assert math.isnan(read("soc_pct", reading, **(whole | {"n": 0.0})))


@pytest.mark.parametrize("state", [2.0, None])
def test_reading_magnitude_takes_its_direction_from_another_point(state: float | None) -> None:
    reading = {"point": "p", "negative_when": {"point": "state", "equals": [2]}}
    found = read("battery_w", reading, p=700.0, state=state)
    assert found == -700.0 if state == 2.0 else math.isnan(found)
    assert read("battery_w", reading, p=700.0, state=1.0) == 700.0
    flipped = reading | {"sign": "charge_positive"}
    assert read("battery_w", flipped, p=700.0, state=2.0) == 700.0


def test_reading_at_least_lifts_what_is_known_only() -> None:
    reading = {"point": "p", "at_least": 0, "range": [0, 100]}
    assert (read("pv_w", reading, p=-3.0), read("pv_w", reading, p=5.0)) == (0.0, 5.0)
    assert math.isnan(read("pv_w", reading, p=None))


MODES = {
    "cases": [
        {"when": [{"point": "mode", "equals": [4]}, {"point": "cmd", "above": 0}], "value": "remote"},
        {"when": [{"point": "mode", "equals": [4, 5]}], "value": "backup"},
        {"when": [{"point": "mode", "equals": [0]}], "value": "self_consumption"},
    ],
    "otherwise": "other",
}


@pytest.mark.parametrize(
    ("values", "mode"),
    [({"mode": 4.0, "cmd": 1.0}, Mode.REMOTE), ({"mode": 4.0, "cmd": 0.0}, Mode.BACKUP),
     ({"mode": 5.0, "cmd": 1.0}, Mode.BACKUP), ({"mode": 0.0, "cmd": 0.0}, Mode.SELF_CONSUMPTION),
     ({"mode": 9.0, "cmd": 0.0}, Mode.OTHER), ({"mode": 4.0}, Mode.UNKNOWN), ({"cmd": 1.0}, Mode.UNKNOWN),
     ({}, Mode.UNKNOWN), ({"mode": None, "cmd": 1.0}, Mode.UNKNOWN)],
)  # fmt: skip
def test_reading_cases_first_that_holds_wins_and_unknown_is_not_otherwise(values: dict[str, Value], mode: Mode) -> None:
    assert read("mode", MODES, **values) == mode


def test_reading_cases_without_otherwise_are_unknown_where_none_holds() -> None:
    reading = {"cases": [{"when": [{"point": "x", "equals": ["OFFGRID"]}], "value": "island"}]}
    assert [read("grid", reading, x=x) for x in ("OFFGRID", "ONGRID", None)] == [Grid.ISLAND, Grid.UNKNOWN, 0]


def test_reading_faults_are_bits_in_order_and_unknown_points_show_none() -> None:
    reading = {
        "any": [{"point": "a", "any_bits": 0x300}, {"point": "b", "equals": ["bad"]}, {"point": "c", "above": 1}]
    }
    assert read("faults", reading, a=256.0, b="bad", c=2.0) == 0b111
    assert read("faults", reading, a=0.0, b="good", c=2.0) == 0b100
    assert read("faults", reading, a=None, b="bad") == 0b010


@pytest.mark.parametrize(
    ("match", "value", "expected"),
    [
        ({"equals": [4]}, 4.0, True), ({"equals": [4]}, 4.5, False),
        ({"equals": [4_000_000_000]}, 4_000_000_001.0, False), ({"equals": [4_000_000_000]}, 4e9, True),
        ({"equals": [0.1]}, 0.1 + 1e-12, True),
        ({"equals": ["4"]}, 4.0, False), ({"equals": [4]}, "4", False), ({"equals": [1]}, True, False),
        ({"equals": [True]}, True, True), ({"equals": [True]}, 1.0, False), ({"equals": [False]}, False, True),
        ({"equals": ["a", "b"]}, "b", True), ({"begins": ["H3-", "AC"]}, "H3-5.0", True),
        ({"begins": ["H3"]}, "xH3", False),
        ({"contains": ["-ET", "-EH"]}, "GW10K-ET", True), ({"contains": ["-ET"]}, "GW10K-ES", False),
        ({"contains": ["3"]}, 3.0, False),
        ({"begins": ["3"]}, 3.0, False), ({"all_bits": 3}, 3.0, True), ({"all_bits": 3}, 1.0, False),
        ({"any_bits": 3}, 1.0, True), ({"any_bits": 3}, 4.0, False), ({"any_bits": 3}, "3", False),
        ({"any_bits": 1}, True, False), ({"above": 2}, 2.0, False), ({"above": 2}, 2.1, True),
        ({"above": 2}, None, None), ({"equals": [0]}, None, None), ({"any_bits": 1}, None, None),
    ],
)  # fmt: skip
def test_match_tells_kinds_apart_and_unknown_from_no(
    match: dict[str, Any], value: Value, expected: bool | None
) -> None:
    assert holds(Match.model_validate({"point": "p"} | match), {"p": value}) is expected


@pytest.mark.parametrize(
    ("match", "value", "text"),
    [
        ({"equals": [4]}, 5.0, "p is 5, expected 4"),
        ({"equals": ["a", "b"]}, "c", "p is 'c', expected one of 'a', 'b'"),
        ({"begins": ["SUN-"]}, "SON", "p is 'SON', expected a text that begins with 'SUN-'"),
        ({"contains": ["-ET"]}, None, "p is unknown, expected a text with '-ET' in it"),
        ({"all_bits": 6}, 4.0, "p is 4, expected all bits of 0x6"),
        ({"any_bits": 6}, 1.0, "p is 1, expected any bit of 0x6"),
        ({"above": 0}, 0.0, "p is 0, expected more than 0"),
    ],
)
def test_mismatch_says_what_was_said_and_what_was_expected(match: dict[str, Any], value: Value, text: str) -> None:
    assert mismatch(Match.model_validate({"point": "p"} | match), {"p": value}) == text


def test_mismatch_of_an_excluded_product_says_so() -> None:
    other = Match.model_validate({"point": "maker", "contains": ["Acme"]})
    told = mismatch(other, {"maker": "Acme Ltd"}, excluded=True)
    assert told == "maker is 'Acme Ltd', expected anything but a text with 'Acme' in it"


NUMBERS = st.floats(-1e9, 1e9) | st.none()


@pytest.mark.fault("F26")
@given(a=NUMBERS, b=NUMBERS, times=st.sampled_from([1.0, -1.0, 0.5]), flipped=st.booleans())
def test_reading_any_sum_is_within_its_range_or_unknown(
    a: float | None, b: float | None, times: float, flipped: bool
) -> None:
    reading = {"sum": [{"point": "a"}, {"point": "b", "times": times}], "range": [-5e8, 5e8],
               "sign": "charge_positive" if flipped else "discharge_positive"}  # fmt: skip
    found = read("battery_w", reading, a=a, b=b)
    if a is None or b is None:
        assert math.isnan(found)
    else:
        total = (a + b * times) * (-1 if flipped else 1)
        assert found == total if abs(total) <= 5e8 else math.isnan(found)


def test_reading_product_of_two_points_is_unknown_while_one_is() -> None:
    reading = {"product": ["volts", "amps"], "sign": "charge_positive", "range": [-5000, 5000]}
    assert read("battery_w", reading, volts=400.0, amps=2.5) == -1000.0
    assert read("battery_w", reading, volts=400.0, amps=-2.5) == 1000.0
    assert read("battery_w", reading, volts=400.0, amps=0.0) == 0.0
    for values in ({"volts": 400.0}, {"amps": 2.5}, {"volts": 400.0, "amps": None}, {"volts": 400.0, "amps": 20.0}):
        assert math.isnan(read("battery_w", reading, **values))


VERSIONS = ["1.8", "1.9", "V1.10", "1.79.9", "1.80", "v1.80.0", "1.80.1", "FW_1.81-2", "2"]


@pytest.mark.parametrize("said", VERSIONS)
def test_match_version_is_compared_number_by_number(said: str) -> None:
    later = VERSIONS.index(said) >= VERSIONS.index("1.80")
    assert holds(Match(point="p", from_version="1.80"), {"p": said}) is later
    assert holds(Match(point="p", before_version="1.80"), {"p": said}) is not later


@pytest.mark.parametrize("said", ["", "beta", "1.x", "1..80", "1.80 (test)", 1.8, True, None, "9" * 40])
def test_match_version_of_what_is_no_version_is_undecided(said: Value) -> None:
    assert holds(Match(point="p", from_version="1.80"), {"p": said}) is None
    assert holds(Match(point="p", before_version="1.80"), {"p": said}) is None


def test_match_version_that_fails_says_what_was_expected() -> None:
    assert (
        mismatch(Match(point="p", from_version="1.80"), {"p": "1.79"}) == "p is '1.79', expected version 1.80 or later"
    )
    assert mismatch(Match(point="p", before_version="2"), {}) == "p is unknown, expected a version before 2"
