"""What a profile's writer is told: everything at once, with the line, in words of the language."""

import copy
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.errors import InvalidInput
from gateway.profiles.loader import parse_profile
from tests.builders.profiles import HTTP, MODBUS, MQTT, changed

REFERENCE = (Path(__file__).parents[2] / "device_profiles" / "reference-mqtt.yaml").read_text(encoding="utf-8")
Raw = dict[str, Any]
Change = Callable[[Raw], object]


def told(text: str) -> dict[str, str]:
    """What is wrong, by path."""
    with pytest.raises(InvalidInput) as caught:
        parse_profile(text, name="p.yaml")
    for problem in caught.value.problems:
        assert re.match(r"p\.yaml:[0-9]+: \S+: ", problem), problem
        assert not re.search(r"tuple|dictionary|Input should|Value error|permitted|instance of|\bstr\b", problem), (
            problem
        )
    return dict(problem.split(": ", 2)[1:] for problem in caught.value.problems)


def at(*path: str | int, value: object) -> Change:
    def change(raw: Raw) -> None:
        here: Any = raw
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = value

    return change


def without(*path: str | int) -> Change:
    def change(raw: Raw) -> None:
        here: Any = raw
        for part in path[:-1]:
            here = here[part]
        del here[path[-1]]

    return change


RULE = ("identity", "rules", 0)
WRONG: list[tuple[str, Change, dict[str, str]]] = [
    # lists, mappings, numbers, texts
    (MODBUS, at(*RULE, "begins", value="GW"), {"identity.rules.0.begins": "must be a list: [GW]"}),
    (MODBUS, at("control", "saves", value="work_mode"), {"control.saves": "must be a list: [work_mode]"}),
    (MODBUS, at("points", "soc", "sentinels", value=65535), {"points.soc.sentinels": "must be a list: [65535]"}),
    (MODBUS, at("control", "hold", value={"write": "setpoint"}), {"control.hold": "must be a list"}),
    (MODBUS, at("points", "soc", value="u16"), {"points.soc": "must be a mapping of keys to values (found 'u16')"}),
    (MODBUS, at("points", value=[]), {"points": "must be a mapping of keys to values"}),
    (MODBUS, at("maker", value=5), {"maker": "must be a text, in quotes (found 5)"}),
    (MODBUS, at("points", "soc", "scale", value="much"), {"points.soc.scale": "must be a number (found 'much')"}),
    (MODBUS, at("points", "soc", "register", value=1.5), {"points.soc.register": "must be a whole number (found 1.5)"}),
    (MODBUS, at("points", "soc", "register", value=70000), {
        "points.soc.register": "must be at most 65535 (found 70000)"}),
    (MODBUS, at("points", "soc", "range", value=[1]), {"points.soc.range.1": "required"}),
    (MODBUS, at("points", "soc", "range", value=[1, 2, 3]), {"points.soc.range": "must have at most 2"}),
    (MODBUS, at(*RULE, "equals", value=[[1]]), {"identity.rules.0.equals.0": "must be a text, a number or true "}),
    (HTTP, at("points", "reserve", "write", "as_text", value="maybe"), {
        "points.reserve.write.as_text": "must be true or false (found 'maybe')"}),
    # words of a list, names, places
    (MODBUS, at("points", "soc", "type", value="uint16"), {"points.soc.type": "must be 'u16', 'i16', 'u32', 'i32', "}),
    (MODBUS, at("points", "soc", "poll", value="often"), {
        "points.soc.poll": "must be 'live', 'energy', 'slow', 'once' or 'never' (found 'often')"}),
    (MODBUS, at("points", "Soc!", value={"register": 1, "type": "u16"}), {
        "points.Soc!": "its name must be 1 to 64 lower-case letters, digits, - and _"}),
    (HTTP, at("points", "power", "path", value="status"), {"points.power.path": "must begin with / "}),
    (HTTP, at("points", "power", "pointer", value="a.b"), {"points.power.pointer": "must be a JSON pointer "}),
    (MQTT, at("points", "power", "topic", value="N/#"), {"points.power.topic": "must be letters, digits, "}),
    (HTTP, at("points", "power", "pointer", value="/packs/[0]/soc"), {
        "points.power.pointer": "[0] chooses no element; write [key=text]"}),
    (MODBUS, at("points", "soc", "ask", value={}), {"points.soc.ask": "belongs to path"}),
    # keys
    (MODBUS, at("points", "soc", "scales", value=0.1), {"points.soc.scales": "unknown key; did you mean scale?"}),
    (MODBUS, at("polling", value={"often_s": 1}), {
        "polling.often_s": "unknown key; known are live_s, energy_s, slow_s"}),
    (MODBUS, without("maker"), {"maker": "required"}),
    (MODBUS, without("facts", "standby_w"), {"facts.standby_w": "required"}),
    # several at once: unknown keys, fields, rules of one part, rules between parts
    (MODBUS, lambda raw: (raw["points"]["soc"].update(colour="red", range=[5, 1]),
                          raw["readings"]["soc_pct"].update(point="nowhere")), {
        "points.soc.colour": "unknown key", "points.soc.range": "the lower end comes first",
        "readings.soc_pct": "'nowhere' is not a point"}),
    (MODBUS, lambda raw: (raw["points"].update(set={"register": 500, "type": "u16", "access": "rw", "scale": 0,
                                                     "write_function": 5}),), {
        "points.set.write_function": "must be 6 or 16 (found 5)", "points.set.storage": "missing; say volatile",
        "points.set.scale": "0 would erase the value"}),
    (MODBUS, lambda raw: (raw["control"].pop("release"),
                          raw["control"].update(begin=[{"write": "nowhere", "value": 1}]),
                          raw["watchdog"].update(lease_s=0)), {
        "watchdog.lease_s": "must be more than 0", "control.release": "missing",
        "control.begin.0": "'nowhere' is not a point that can be written"}),
    (MODBUS, lambda raw: (raw.update(transport="modbus_tcp"), raw["readings"]["soc_pct"].update(point="nowhere"),
                          raw["points"]["serial"].update(poll="onc"),
                          raw["points"]["battery_power"].update(register=70_000)), {
        "transport": "must be 'mqtt', 'modbus' or 'http' (found 'modbus_tcp')",
        "points.serial.poll": "must be 'live', ", "points.battery_power.register": "must be at most 65535",
        "readings.soc_pct": "'nowhere' is not a point"}),
    (MODBUS, lambda raw: (raw["modbus"].update(registers_max=4, colour="red"),
                          raw["points"]["serial"].update(tipe="text"), raw["modbus"].update(gap_max=200)), {
        "modbus.colour": "unknown key", "modbus.gap_max": "must be at most 124",
        "points.serial.tipe": "unknown key; did you mean type?",
        "points.serial.words": "longer than registers_max 4"}),
    (REFERENCE, lambda raw: (raw["messages"]["live"].update(qos=2), raw.update(commands=[])), {
        "messages.live.qos": "must be 0 or 1", "commands": "must be a mapping of keys to values"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "change", "wanted"), WRONG)
def test_profile_writer_is_told_every_fault_at_once_and_nothing_else(
    text: str, change: Change, wanted: dict[str, str]
) -> None:
    found = told(changed(text, change))
    assert found.keys() == wanted.keys()
    assert all(found[path].startswith(words) for path, words in wanted.items()), found


ODD: tuple[Any, ...] = (None, 0, -1, 1e9, "x", "", [], {}, [1], ["a"], {"a": 1}, True, [[1]], "/", 70_000, [{}])


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inside for place in places(part, (*path, key)))]


@pytest.mark.parametrize("text", [MODBUS, HTTP, MQTT, REFERENCE], ids=["modbus", "http", "mqtt", "reference"])
@pytest.mark.parametrize("seed", range(10))
def test_profile_that_is_wrong_in_any_places_is_refused_in_words(text: str, seed: int) -> None:
    rng = random.Random(seed)

    def spoil(raw: Raw) -> None:
        for _ in range(3):
            path = rng.choice(places(raw)[1:])
            at(*path, value=copy.deepcopy(rng.choice(ODD)))(raw)
        raw["extra"] = 1

    assert told(changed(text, spoil))["extra"].startswith("unknown key")


def test_profile_fault_has_the_line_of_its_key() -> None:
    text = MODBUS.replace("begins: [SM]", "begins: SM")
    line = next(n for n, words in enumerate(text.splitlines(), start=1) if "begins: SM" in words)
    with pytest.raises(InvalidInput) as caught:
        parse_profile(text, name="p.yaml")
    assert caught.value.problems == [f"p.yaml:{line}: identity.rules.0.begins: must be a list: [SM]"]
