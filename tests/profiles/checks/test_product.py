"""What the checks find in a well-formed profile, and that they let the good one through."""

from collections.abc import Callable
from typing import Any

import pytest

from gateway.domain.errors import InvalidInput
from gateway.profiles.checks.product import faults_of
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.loader import parse_profile
from tests.builders.profiles import HTTP, MODBUS, MQTT, SAMPLES, changed

Raw = dict[str, Any]
OVERLAY = {"name": "new", "when": [{"point": "soc", "above": 50}]}


def faults(text: str, change: Callable[[Raw], object]) -> list[str]:
    """Faults of a sample with `change` made to it, none where it is good."""
    try:
        parse_profile(changed(text, change), name="x.yaml")
    except InvalidInput as error:
        return [problem.split(": ", 1)[1] for problem in error.problems]
    return []


@pytest.mark.parametrize("name", SAMPLES)
def test_checks_good_profile_has_no_faults(name: str) -> None:
    document = parse_profile(SAMPLES[name], name="x.yaml")
    assert isinstance(document, ProfileDocument)
    assert faults_of(document) == []


def step(sequence: str, *steps: Raw) -> Callable[[Raw], object]:
    return lambda raw: raw["control"].update({sequence: list(steps)})


def point(name: str, **cells: object) -> Callable[[Raw], object]:
    return lambda raw: raw["points"].setdefault(name, {}).update(cells)


def points(**named: Raw) -> Callable[[Raw], object]:
    return lambda raw: [raw["points"][name].update(cells) for name, cells in named.items()]


def in_model(raw: Raw, *, factor: int, model: int = 103) -> None:
    """The battery's power at offset 2 of a model, its scale factor at offset `factor` of `model`."""
    raw["modbus"] |= {"sunspec": {"required": [103]}, "gap_max": 0}
    raw["points"]["battery_power"] |= {"register": None, "model": 103, "offset": 2}
    raw["points"]["power_sf"] = {"model": model, "offset": factor, "type": "i16"}


def sunspec(raw: Raw, **cells: object) -> None:
    """The state of charge in a model with two repeating blocks."""
    raw["modbus"]["sunspec"] = {"required": [160], "blocks": {160: {"start": 10, "length": 20, "count": 2}}}
    raw["points"]["soc"] = {"model": 160, "offset": 1, "type": "u16", "scale": 0.1, "unit": "%"} | cells


def named(raw: Raw, *, registers_max: int = 125, **cells: Any) -> None:
    """The SoC in a model that is chosen by its common block."""
    sunspec(raw, model="meter")
    raw["modbus"]["registers_max"] = registers_max
    raw["modbus"]["sunspec"] |= {"models": {"meter": {"ids": [203], "options": ["Export+Import"]}}} | cells


LONG_NAMES: Raw = {"offset": 1, "words": 4, "begins": {"charge": "StCha"}}
POWER: Raw = {"write": "setpoint", "from": "setpoint_w"}
TIMER: Raw = {"write": "timeout", "from": "lease"}
SIGNLESS: Raw = {"register": 500, "type": "u16", "unit": "W", "access": "w", "storage": "volatile"}


@pytest.mark.parametrize(
    ("text", "change", "fault"),
    [
        # registers
        (MODBUS, point("soc", path="/x", register=None), "points.soc.type: u16 belongs to registers"),
        (MODBUS, point("soc", model=103, offset=2, register=None), "points.soc.model: needs modbus.sunspec"),
        (MODBUS, lambda raw: sunspec(raw, block=3), "points.soc.block: model 160 has 2 blocks"),
        (MODBUS, lambda raw: sunspec(raw, model=161, block=1), "points.soc.block: model 161 has no modbus.sunspec"),
        (MODBUS, lambda raw: sunspec(raw, block=-3), "points.soc.block: model 160 has 2 blocks"),
        (MODBUS, lambda raw: sunspec(raw, block="x"), "points.soc.block: model 160 has 2 blocks, none of them nam"),
        (MODBUS, lambda raw: sunspec(raw, block=0), "points.soc.block: 1 is the first"),
        (MODBUS, lambda raw: sunspec(raw, model="meter"), "points.soc.model: 'meter' is not in modbus.sunspec.models"),
        (MODBUS, lambda raw: named(raw, required=["inverter"]),
         "modbus.sunspec.required: 'inverter' is not in modbus.sunspec.models"),
        (MODBUS, lambda raw: named(raw, models={"meter": {"ids": [203], "options": ["x"], "nth": 2}}),
         "modbus.sunspec.models.meter: "),
        (MODBUS, lambda raw: named(raw, blocks={160: {"start": 10, "length": 4, "count": 2, "names": LONG_NAMES}}),
         "modbus.sunspec.blocks.160.names: the text lies"),
        (MODBUS, lambda raw: named(raw, models={"meter": {"ids": [203]}, "serial": {"ids": [204]}}),
         "modbus.sunspec.models: 'serial' is what a registration"),
        (MODBUS, lambda raw: named(raw, registers_max=47), "modbus.registers_max: a common block is read whole to"),
        (MODBUS, point("serial", words=64, register=196), "points.serial.register: lies in modbus.forbidden"),
        (MODBUS, point("soc", register=209), "points.soc.register: lies in modbus.forbidden"),
        (MODBUS, point("grid_power", register=199), "points.grid_power.register: lies in modbus.forbidden"),
        (MODBUS, lambda raw: raw["modbus"].update(registers_max=4), "points.serial.words: longer than registers_max"),
        (MODBUS, point("soc", sentinels=[65536]), "points.soc.sentinels: 65536 does not fit u16"),
        (MODBUS, point("soc", sentinels=[-32769]), "points.soc.sentinels: -32769 does not fit u16"),
        # scale factors are read together with what they scale
        (MODBUS, point("power_sf", poll="once"), "points.battery_power.scale_factor: 'power_sf' must be polled live"),
        (MODBUS, point("power_sf", poll="slow"), "points.battery_power.scale_factor: 'power_sf' must be polled live"),
        (MODBUS, point("battery_power", poll="energy"), "points.battery_power.scale_factor: 'power_sf' must be "),
        (MODBUS, point("battery_power", scale_factor="soc"), "points.battery_power.scale_factor: 'soc' must be an i16"),
        (MODBUS, point("battery_power", scale_factor="x"), "points.battery_power.scale_factor: 'x' is not a point"),
        (MODBUS, point("power_sf", scale_factor="power_sf"), "points.battery_power.scale_factor: 'power_sf' must be a"),
        (MODBUS, point("power_sf", access="w", storage="volatile"), "points.battery_power.scale_factor: 'power_sf' mu"),
        (MODBUS, point("power_sf", unit_id="meter"), "points.battery_power.scale_factor: 'power_sf' must be of the sa"),
        (MODBUS, point("power_sf", function=4), "points.battery_power.scale_factor: 'power_sf' must be of the same"),
        (MODBUS, point("power_sf", register=110), "points.power_sf: 9 registers lie between it and what it scales"),
        (MODBUS, points(battery_power={"register": 199}, power_sf={"register": 210}), "points.power_sf: modbus.forbid"),
        (MODBUS, lambda raw: raw["modbus"].update(split_at=[101]), "points.power_sf: modbus.split_at parts it from"),
        (MODBUS, lambda raw: in_model(raw, factor=127), "points.power_sf: with what it scales it spans 126 registers"),
        (MODBUS, lambda raw: in_model(raw, factor=4, model=104), "points.battery_power.scale_factor: 'power_sf' must"),
        (MODBUS, points(power_sf={"poll": "once"}, timeout={"scale_factor": "power_sf", "access": "w"}),
         "points.timeout.scale_factor: 'power_sf' must be polled: what it scales"),
        # a value and what says whether it is valid are read together
        (MODBUS, point("soc", valid_when=[{"point": "work_mode", "above": 0}]),
         "points.soc.valid_when.0: 'work_mode' must be polled live like what it speaks of, not slow"),
        (MODBUS, point("soc", invalid_when=[{"point": "nowhere", "equals": [0]}]),
         "points.soc.invalid_when.0.point: 'nowhere' is not a point"),
        (MODBUS, points(setpoint={"access": "w"}, soc={"valid_when": [{"point": "setpoint", "above": 0}]}),
         "points.soc.valid_when.0.point: 'setpoint' cannot be read"),
        # readings
        (MODBUS, lambda raw: raw["readings"].update(volts={"point": "soc"}), "readings.volts: not a reading"),
        (MODBUS, lambda raw: raw["readings"]["soc_pct"].update(point="nowhere"), "readings.soc_pct: 'nowhere' is not"),
        (MODBUS, lambda raw: raw["readings"]["soc_pct"].update(sign="charge_positive"), "readings.soc_pct.sign: "),
        (MODBUS, lambda raw: raw["readings"]["battery_w"].pop("measured_at"), "readings.battery_w.measured_at: "),
        (MODBUS, lambda raw: raw["readings"]["grid_w"].update(sign="charge_positive"), "readings.grid_w.sign: must be"),
        (MODBUS, point("battery_power", unit="kW"), "readings.battery_w.unit: 'battery_power' is in 'kW'"),
        (MODBUS, lambda raw: raw["readings"]["mode"].update(otherwise="turbo"), "readings.mode.otherwise: 'turbo'"),
        (MODBUS, lambda raw: raw["readings"].update(mode={"point": "work_mode"}), "readings.mode.cases: belongs"),
        (MODBUS, lambda raw: raw["readings"].update(faults={"point": "work_mode"}), "readings.faults.any: belongs"),
        (MODBUS, point("soc", access="w", storage="volatile"), "readings.soc_pct: 'soc' cannot be read"),
        (MODBUS, lambda raw: raw["identity"].update(serial="nowhere"), "identity: 'nowhere' is not a point"),
        (MODBUS, lambda raw: raw["identity"]["rules"][0].update(point="nowhere"), "identity.rules.0.point: 'nowhere'"),
        (MODBUS, lambda raw: raw["identity"].update(excludes=[{"point": "nowhere", "equals": ["x"]}]),
         "identity.excludes.0.point: 'nowhere'"),
        (MODBUS, lambda raw: raw["readings"]["battery_w"].update(point=None, product=["battery_power", "soc"]),
         "readings.battery_w.product: units % and W, must be A and V"),
        (MODBUS, lambda raw: raw["readings"]["soc_pct"].update(point=None, product=["battery_power", "soc"]),
         "readings.soc_pct.product: units % and W, this is no product"),
        (MODBUS, lambda raw: raw["identity"].update(serial="soc"), "identity: 'soc' is a serial and has no scale"),
        # fallbacks
        (MODBUS, point("soc", fallback="nowhere"), "points.soc.fallback: 'nowhere' is not a point that can be read"),
        (MODBUS, point("soc", fallback="grid_power"), "points.soc.fallback: 'grid_power' must have the same unit and"),
        (MODBUS, point("work_mode", fallback="soc"), "points.work_mode.fallback: belongs to what is only read"),
        (MODBUS, points(soc={"fallback": "soc"}), "points.soc.fallback: 'soc' has one itself"),
        # transport sections of overlays
        (MODBUS, lambda raw: raw.update(overlays=[OVERLAY | {"http": {}}]), "overlays.0.http: belongs to points over"),
        (MODBUS, lambda raw: raw.update(overlays=[OVERLAY | {"modbus": {"units": {"main": 1}}}]),
         "overlays.0.points.grid_power.unit_id: 'meter' is not in modbus.units"),
        (HTTP, lambda raw: raw.update(overlays=[{"name": "new", "when": [{"point": "power", "above": 0}],
                                                 "http": {"auth": {"kind": "header", "name": "a b"}}}]),
         "overlays.0.http.auth.name: 'a b' is not the name of a header"),
        (MODBUS, lambda raw: raw["identity"]["rules"].append({"point": "serial", "from_version": "1.x"}),
         "identity.rules.1.from_version: '1.x' is no version"),
        (MODBUS, lambda raw: raw["identity"].update(builds=[[{"point": "nowhere", "equals": ["x"]}]]),
         "identity.builds.0.0.point: 'nowhere'"),
        # control
        (MODBUS, step("discharge", TIMER), "control.discharge: writes no setpoint"),
        (MODBUS, step("discharge", POWER), "control.discharge: does not write the watchdog's 'timeout'"),
        (MODBUS, step("discharge", POWER, {"write": "soc", "value": 1}, TIMER), "control.discharge.1: 'soc' is not"),
        (MODBUS, step("hold", {"write": "work_mode", "value": 1}, TIMER), "control.hold.0: 'work_mode' is stored"),
        (MODBUS, step("begin", {"write": "soc", "from": "lease"}), "control.begin.0: 'soc': a lease needs"),
        (MODBUS, step("begin", {"write": "work_mode", "value": 65536}), "control.begin.0: 'work_mode': work_mode: 6"),
        (MODBUS, step("begin", {"write": "work_mode", "value": -1}), "control.begin.0: 'work_mode': work_mode: -1"),
        (MODBUS, step("begin", {"write": "work_mode", "value": True}), "control.begin.0: 'work_mode': work_mode: True"),
        (MODBUS, step("begin", {"write": "work_mode", "value": "x"}), "control.begin.0: 'work_mode': work_mode: texts"),
        (MODBUS, step("begin", {"write": "work_mode", "null": True}), "control.begin.0: 'work_mode': registers hold"),
        (MODBUS, step("begin", {"write": "setpoint", "value": 5001}), "control.begin.0: 'setpoint': setpoint: 5001 is"),
        (MODBUS, step("release", {"restore": "work_mode", "or_value": -1}), "control.release.0: 'work_mode': "),
        (MODBUS, step("release", {"write": "setpoint", "value": 0}), "control.release: 'work_mode' is saved and not"),
        (MODBUS, lambda raw: raw["control"].update(saves=[]), "control.release: 'work_mode' is restored and not in"),
        (MODBUS, lambda raw: raw["control"].update(apart=[["setpoint", "x"]]), "control.apart: 'x' is not a point"),
        (MODBUS, lambda raw: raw["control"].update(apart=[["setpoint", "timeout"]]), "control.discharge.0.together: "),
        (MODBUS, point("timeout", register=413), "control.discharge.0.together: registers of one request must follow"),
        (MODBUS, point("timeout", unit_id="meter"), "control.discharge.0.together: registers of one request must"),
        (MODBUS, step("discharge", {"together": [POWER, TIMER | {"if_changed": True}]}),
         "control.discharge.0.together: if_changed holds for all"),
        (MODBUS, step("begin", {"write": "setpoint", "from": "magnitude_w"}), "control.begin.0: 'setpoint': a magn"),
        (MODBUS, step("begin", {"write": "timeout", "from": "grid_target_w"}), "control.begin.0: 'timeout': a grid"),
        (MODBUS, step("begin", POWER | {"percent_of": "nowhere"}), "control.begin.0.percent_of: 'nowhere' is not"),
        (MODBUS, lambda raw: raw["watchdog"].update(point="nowhere"), "watchdog.point: 'nowhere' is not a point"),
        # overlays
        (MODBUS, lambda raw: raw.update(overlays=[OVERLAY | {"when": [{"point": "x", "above": 1}]}]), "overlays.0"),
        (MODBUS, lambda raw: raw.update(overlays=[OVERLAY | {"readings": {"pv_w": {"point": "x"}}}]),
         "overlays.0.readings.pv_w"),
        # elsewhere
        (HTTP, point("power", register=1, path=None, type="u16"), "points.power: register, path or topic: this is not"),
        (HTTP, point("kind", topic="x", path=None), "points.kind: register, path or topic: this is not"),
        (MQTT, point("power", topic="N/{other}"), "points.power.topic: {other} is none of mqtt.variables"),
    ],
)  # fmt: skip
def test_checks_fault_is_found_and_named(text: str, change: Callable[[Raw], object], fault: str) -> None:
    found = faults(text, change)
    assert any(problem.startswith(fault) for problem in found), found


@pytest.mark.parametrize(
    ("text", "change"),
    [
        (MODBUS, point("soc", sentinels=[65535, -1, -32768])),
        (MODBUS, point("soc", register=199)),
        (MODBUS, lambda raw: sunspec(raw, block=2)),
        (MODBUS, point("power_sf", register=109)),
        (MODBUS, points(power_sf={"poll": "slow"}, battery_power={"poll": "slow"})),
        (MODBUS, lambda raw: in_model(raw, factor=126)),
        (MODBUS, lambda raw: raw["modbus"].update(split_at=[100, 103])),
        (MODBUS, points(timeout={"scale_factor": "power_sf", "access": "w", "poll": "never"})),
        (MODBUS, point("soc", register=210)),
        (MODBUS, point("soc", register=65535)),
        (MODBUS, point("last", register=65534, type="u32")),
        (MODBUS, step("begin", {"write": "work_mode", "value": 65535})),
        (MODBUS, step("begin", {"write": "setpoint", "value": -5000}, {"write": "work_mode", "value": 0})),
        (MODBUS, lambda raw: raw.update(overlays=[OVERLAY])),
        (MQTT, point("power", topic="N/{portal}/{device}")),
        (HTTP, point("power", path="/a/..b/c?x=..")),
    ],
)
def test_checks_what_is_allowed_is_let_through(text: str, change: Callable[[Raw], object]) -> None:
    assert faults(text, change) == []


def test_checks_fault_of_two_overlays_together_names_both() -> None:
    gone: Raw = {"name": "gone", "when": [{"point": "soc", "above": 60}],
                 "points": {"soc": {"register": 103, "type": "u16", "unit": "W"}},
                 "readings": {"soc_pct": {"point": "share", "range": [0, 100]}},
                 }  # fmt: skip
    gone["points"]["share"] = {"register": 104, "type": "u16", "unit": "%"}
    back: Raw = {"name": "back", "when": [{"point": "serial", "begins": ["SM"]}],
                 "readings": {"soc_pct": {"point": "soc", "range": [0, 50]}}}  # fmt: skip
    words = "unit: 'soc' is in 'W', must be '%' (scale converts)"
    assert faults(MODBUS, lambda raw: raw.update(overlays=[gone])) == []
    assert faults(MODBUS, lambda raw: raw.update(overlays=[back])) == []
    (found,) = faults(MODBUS, lambda raw: raw.update(overlays=[gone, back]))
    assert found.startswith("overlays.1.readings.soc_pct")
    assert found.endswith(f"{words} (beside gone)")
    gone["when"] = [{"point": "serial", "begins": ["SN"]}]
    assert faults(MODBUS, lambda raw: raw.update(overlays=[gone, back])) == [], "never both"


def test_checks_magnitude_with_a_direction_is_let_through() -> None:
    def change(raw: Raw) -> None:
        raw["points"]["magnitude"] = SIGNLESS
        for name in ("discharge", "charge"):
            raw["control"][name] = [{"write": "magnitude", "from": "magnitude_w"}, TIMER]

    assert faults(MODBUS, change) == []
