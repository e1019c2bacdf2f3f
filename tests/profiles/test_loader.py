"""Reading profiles from files: keys that had other names before."""

from pathlib import Path
from typing import Any

import pytest

from gateway.domain.errors import InvalidInput
from gateway.profiles.compile import compile_profile
from gateway.profiles.loader import load_profile, load_profiles, parse_profile
from tests.builders.profiles import MODBUS, changed

ROOT = Path(__file__).parents[2]
NAMES = ("command_latency_s", "delivery_s")
BEFORE = MODBUS[: MODBUS.index("facts:")].count("\n")
FACTS = "  efficiency_discharge: 0.95\n  efficiency_charge: 0.95\n  standby_w: 30\n  soc_uncertainty_pct: 5\n"


def profile(*latency: str) -> str:
    """The sample with these lines of `facts` first; the first of them stands on line `BEFORE + 2`."""
    head, _, tail = MODBUS.partition("facts:\n")
    return head + "facts:\n" + "".join(f"  {line}\n" for line in latency) + FACTS + tail.split("\n", maxsplit=1)[1]


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_profile(text, name="p.yaml")
    return caught.value.problems


def test_profiles_that_ship_use_no_former_key_and_raise_no_doubt() -> None:
    codecs = load_profiles(ROOT / "device_profiles")
    warned = {name: (*codec.former, *codec.doubts) for name, codec in codecs.items()}
    assert {name: warnings for name, warnings in warned.items() if warnings} == {}


COUNTED = {
    "points": {
        "into": {"register": 20, "type": "u32", "unit": "Wh"},
        "out": {"register": 22, "type": "u32", "unit": "Wh"},
    },
    "readings": {
        "charge_counter_wh": {"point": "into", "range": [0, 1e9]},
        "discharge_counter_wh": {"point": "out", "range": [0, 1e9]},
    },
}  # fmt: skip
NEARER = {"register": 30, "type": "i16", "unit": "W", "range": [-20000, 20000]}


@pytest.mark.parametrize(
    ("overlay", "stay"),
    [
        ({"points": {"battery_power": NEARER}}, "charge_counter_wh and discharge_counter_wh"),
        ({"points": {"battery_power": NEARER, "into": {"register": 32, "type": "u32", "unit": "Wh"}}},
         "discharge_counter_wh"),
        ({"points": {"battery_power": NEARER}, "readings": COUNTED["readings"]}, ""),
        ({"points": {"soc": {"register": 31, "type": "u16", "scale": 0.1, "unit": "%"}}}, ""),
    ],
)  # fmt: skip
def test_overlay_that_moves_the_power_and_not_its_counters_is_warned_about(
    tmp_path: Path, overlay: dict[str, Any], stay: str
) -> None:
    def change(raw: dict[str, Any]) -> None:
        for section, cells in COUNTED.items():
            raw[section] |= cells
        raw["overlays"] = [{"name": "new", "when": [{"point": "serial", "begins": ["SN"]}]} | overlay]

    file = tmp_path / "sample-modbus.yaml"
    file.write_text(changed(MODBUS, change), encoding="utf-8")
    doubts = load_profile(file).doubts
    assert len(doubts) == bool(stay)
    assert not stay or f"overlays.0.readings: battery_w is read elsewhere than in the profile, {stay} are not" in (
        doubts[0].replace("overlays.0: readings", "overlays.0.readings")
    )


@pytest.mark.parametrize("name", NAMES)
def test_profile_command_latency_is_taken_under_both_names(name: str) -> None:
    document = parse_profile(profile(f"{name}: 7"), name="p.yaml")
    assert compile_profile(document).facts.command_latency_s == 7


def test_profile_former_key_is_warned_about_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "sample-modbus.yaml"
    for name, former in (("command_latency_s", ()), ("delivery_s", (
        f"sample-modbus.yaml:{BEFORE + 2}: facts.delivery_s: the next release knows this key only as command_latency_s",
    ))):  # fmt: skip
        file.write_text(profile(f"{name}: 7"), encoding="utf-8")
        assert load_profile(file).former == former


def test_profile_command_latency_under_both_names_or_none_is_refused_with_its_line() -> None:
    both = "the former name of command_latency_s, which is given too; keep command_latency_s alone"
    for lines, at in (((f"{NAMES[0]}: 7", f"{NAMES[1]}: 7"), 3), ((f"{NAMES[1]}: 7", f"{NAMES[0]}: 7"), 2)):
        assert faults(profile(*lines)) == [f"p.yaml:{BEFORE + at}: facts.delivery_s: {both}"]
    assert faults(profile()) == [f"p.yaml:{BEFORE + 1}: facts.command_latency_s: required"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["0", "61", "soon", "null", ".5e9"])
def test_profile_command_latency_out_of_bounds_is_refused_by_the_name_in_the_file(name: str, value: str) -> None:
    (fault,) = faults(profile(f"{name}: {value}"))
    assert fault.startswith(f"p.yaml:{BEFORE + 2}: facts.{name}: ")


def test_profile_former_key_elsewhere_is_unknown() -> None:
    assert faults(MODBUS + "delivery_s: 5\n")[0].startswith(
        f"p.yaml:{MODBUS.count(chr(10)) + 1}: delivery_s: unknown key"
    )
