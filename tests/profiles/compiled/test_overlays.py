"""Overlays of a product that hold at once: which may, and what they make together."""

import pytest

from gateway.profiles.compiled.variant import PointProduct
from tests.builders.profiles import MODBUS, changed, compiled


def product(*overlays: dict[str, object]) -> PointProduct:
    found = compiled(changed(MODBUS, lambda raw: raw.update(overlays=list(overlays)))).product
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({"before_version": "1.80"}, {"from_version": "1.80"}, False),
        ({"from_version": "2.0"}, {"before_version": "1.80"}, False),
        ({"before_version": "1.80"}, {"from_version": "1.9"}, True),
        ({"from_version": "1.80"}, {"from_version": "2.0"}, True),
        ({"before_version": "1.80"}, {"before_version": "2.0"}, True),
    ],
)
def test_overlays_of_versions_apart_never_hold_at_once(
    one: dict[str, object], other: dict[str, object], both: bool
) -> None:
    first: dict[str, object] = {"name": "a", "when": [{"point": "serial"} | one]}
    second: dict[str, object] = {"name": "b", "when": [{"point": "serial"} | other]}
    assert ("a+b" in {variant.variant for variant in product(first, second).variants}) is both


def test_overlays_that_hold_at_once_keep_the_section_that_one_of_them_has() -> None:
    section = {"units": {"main": 7, "meter": 2}, "registers_max": 100, "word_order": "little"}
    overlays: list[dict[str, object]] = [
        {"name": "sections", "when": [{"point": "soc", "above": 10}], "modbus": section},
        {"name": "readings", "when": [{"point": "serial", "begins": ["SM"]}],
         "readings": {"soc_pct": {"point": "soc", "range": [0, 60]}}},
    ]  # fmt: skip
    for order in (overlays, overlays[::-1]):
        found = product(*order).variant({"soc": 55.0, "serial": "SM1"})
        assert found.document.modbus is not None
        assert (found.document.modbus.units["main"], found.document.modbus.registers_max) == (7, 100)
        assert "readings" in found.variant


def test_overlay_that_is_read_only_is_so_whatever_holds_beside_it() -> None:
    overlays: list[dict[str, object]] = [
        {"name": "unknown-map", "when": [{"point": "serial", "begins": ["SM"]}], "read_only": "unknown registers"},
        {"name": "firmware", "when": [{"point": "soc", "above": 10}],
         "readings": {"soc_pct": {"point": "soc", "range": [0, 60]}}},
    ]  # fmt: skip
    for order in (overlays, overlays[::-1]):
        found = product(*order).variant({"soc": 55.0, "serial": "SM1"})
        assert (found.read_only, found.control) == ("unknown registers", None)
        assert found.takes_setpoints is False
