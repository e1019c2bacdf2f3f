"""Values that other points declare invalid, beside fallbacks."""

from typing import Any

import pytest

from gateway.profiles.compiled.points import Marker, Raw, Value, Values
from gateway.profiles.compiled.variant import ProductVariant
from tests.builders.profiles import MODBUS, changed, compiled


def guarded(raw: dict[str, Any]) -> None:
    """`soc` is that of `second` while the battery is away."""
    raw["points"]["present"] = {"register": 110, "type": "u16"}
    raw["points"]["second"] = {"register": 111, "type": "u16", "unit": "%"}
    raw["points"]["soc"] |= {"fallback": "second", "valid_when": [{"point": "present", "equals": [1]}]}


def variant() -> ProductVariant:
    product = compiled(changed(MODBUS, guarded)).product
    assert product is not None
    return product.base


@pytest.mark.parametrize(
    ("present", "soc", "second", "known"),
    [
        (1, (500,), (40,), 50.0),
        (0, (0,), (40,), 40.0),
        (1, Marker.MISSING, (40,), 40.0),
        (0, Marker.MISSING, (40,), 40.0),
        (0, (0,), Marker.MISSING, None),
    ],
)
def test_point_that_another_declares_invalid_has_the_value_of_its_fallback(
    present: int, soc: Raw, second: Raw, known: Value
) -> None:
    values = Values()
    variant().decode({"present": (present,), "soc": soc, "second": second}, values)
    assert values["soc"] == known
    assert values.unclear == set()
