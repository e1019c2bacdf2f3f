"""A sequence sets timer and value before it switches control on, or says why it cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.errors import InvalidInput
from gateway.profiles.loader import parse_profile
from tests.builders.profiles import MODBUS, changed

Raw = dict[str, Any]
PROFILES = Path(__file__).parents[3] / "device_profiles"
SWITCH: Raw = {"write": "work_mode", "value": 4, "if_changed": True}
POWER: Raw = {"write": "setpoint", "from": "setpoint_w"}
TIMER: Raw = {"write": "timeout", "from": "lease"}
SEQUENCES = ("discharge", "charge", "hold")


def faults(change: Callable[[Raw], object]) -> list[str]:
    try:
        parse_profile(changed(MODBUS, change), name="x.yaml")
    except InvalidInput as error:
        return [problem.split(": ", 1)[1] for problem in error.problems]
    return []


def ordered(*steps: Raw, begin: tuple[Raw, ...] = (), reason: str = "", **readings: Raw) -> Callable[[Raw], object]:
    def change(raw: Raw) -> None:
        raw["control"] |= {name: list(steps) for name in SEQUENCES} | {"begin": list(begin), "switch_first": reason}
        raw["readings"] |= readings

    return change


@pytest.mark.parametrize("late", [POWER, TIMER])
def test_value_or_timer_after_the_switch_is_refused_in_every_sequence(late: Raw) -> None:
    early = TIMER if late is POWER else POWER
    found = faults(ordered(early, SWITCH, late))
    words = f"{late['write']!r} is set after 'work_mode' has switched on; if it must be, switch_first says why"
    assert found == [f"control.{name}.2: {words}" for name in SEQUENCES]


def test_switch_that_begins_an_episode_comes_after_a_value_too() -> None:
    assert any("is set after 'work_mode'" in fault for fault in faults(ordered(POWER, TIMER, begin=(SWITCH,))))
    still = {"write": "setpoint", "value": 0}
    assert faults(ordered(POWER, TIMER, begin=(still, TIMER, SWITCH))) == []


@pytest.mark.parametrize("steps", [(TIMER, POWER, SWITCH), (POWER, SWITCH | {"if_changed": True}, {"wait_s": 1})])
def test_switch_that_comes_last_is_let_through(steps: tuple[Raw, ...]) -> None:
    whole = steps if TIMER in steps else (TIMER, *steps)
    assert faults(ordered(*whole)) == []


def test_value_in_the_request_of_the_switch_is_let_through() -> None:
    beside: Raw = {"register": 414, "type": "u16", "access": "rw", "storage": "volatile"}

    def change(raw: Raw) -> None:
        raw["points"]["on"] = beside | {"register": 409}
        raw["readings"]["mode"]["cases"][0]["when"] = [{"point": "on", "equals": [1]}]
        ordered(TIMER, {"together": [{"write": "on", "value": 1}, POWER]})(raw)

    assert faults(change) == []


def test_other_order_is_let_through_with_a_reason() -> None:
    assert faults(ordered(SWITCH, TIMER, POWER, reason="power is reset when control begins")) == []


def test_switch_of_a_product_whose_mode_does_not_show_it_is_what_a_release_sets_back() -> None:
    mode = {"cases": [{"when": [{"point": "soc", "above": 101}], "value": "remote"}], "otherwise": "other"}
    assert any("is set after 'work_mode'" in fault for fault in faults(ordered(SWITCH, TIMER, POWER, mode=mode)))
    assert faults(ordered(TIMER, POWER, SWITCH, mode=mode)) == []


def test_profiles_that_ship_switch_first_only_for_a_reason() -> None:
    given = {path.stem for path in PROFILES.glob("*.yaml") if "switch_first:" in path.read_text(encoding="utf-8")}
    assert given == {"hoymiles-ms-a2", "sma-sbs", "sonnen-v2"}
