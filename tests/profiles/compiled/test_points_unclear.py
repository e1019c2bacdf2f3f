"""Products read by points: what a point about safety says and nobody understands is named, not taken for absent."""

from typing import Any

import pytest

from gateway.domain.types import CLEAR, Grid, Unclear
from gateway.profiles.compiled.points import Marker, Read, Unreadable, Values
from gateway.profiles.compiled.variant import ProductVariant
from tests.builders.profiles import HTTP, MODBUS, changed, compiled


def status(pointer: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"path": "/api/status", "pointer": f"/{pointer}", "type": kind, **more}


def with_safety(raw: dict[str, Any]) -> None:
    raw["points"] |= {
        "grid_state": status("grid", "text"),
        "lock": status("lock", "boolean"),
        "away": status("away", "integer", range=[0, 1]),
        "alarm": status("alarm", "integer", missing="zero"),
        "word": status("word", "integer"),
        "owner": status("owner", "integer", range=[0, 9]),
        "limit": status("limit", "number", unit="W", range=[0, 9000]),
    }
    raw["readings"] |= {
        "grid": {
            "cases": [
                {"when": [{"point": "grid_state", "equals": ["OnGrid"]}], "value": "on"},
                {"when": [{"point": "grid_state", "equals": ["OffGrid"]}], "value": "island"},
            ]
        },
        "mode": {"cases": [{"when": [{"point": "owner", "equals": [1]}], "value": "remote"}], "otherwise": "other"},
        "locked": {"any": [{"point": "lock", "equals": [True]}]},
        "opt_out": {"any": [{"point": "away", "equals": [1]}]},
        "faults": {"any": [{"point": "alarm", "equals": [2]}, {"point": "word", "any_bits": 0xFFFF}]},
        "discharge_w_max": {"point": "limit", "range": [0, 8000]},
    }


GOOD: dict[str, Read] = {
    "power": 100.0, "soc": 50.0, "grid_state": "OnGrid", "lock": False, "away": 0, "alarm": 0, "word": 0, "owner": 0,
    "limit": 5000.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def program() -> ProductVariant:
    product = compiled(changed(HTTP, with_safety)).product
    assert product is not None
    return product.base


def read(program: ProductVariant, **raws: Read) -> Unclear:
    """What is unclear after a good poll and one with `raws` in it; the rest of the reading stays."""
    values = Values()
    program.decode(GOOD, values)
    program.decode(GOOD | raws, values)
    found = program.canonical(values)
    assert (found.get("battery_w"), found.get("soc_pct")) == (100.0, 50.0)
    return found.unclear


@pytest.mark.parametrize(
    ("raws", "unclear"),
    [
        # an enumeration with no match, of the wrong kind, null, or no value at all
        ({"grid_state": "off"}, Unclear.GRID),
        ({"grid_state": ""}, Unclear.GRID),
        ({"grid_state": 1}, Unclear.GRID),
        ({"grid_state": Marker.NULL}, Unclear.GRID),
        ({"grid_state": Marker.GARBLED}, Unclear.GRID),
        ({"owner": 12}, Unclear.MODE),
        ({"owner": "1"}, Unclear.MODE),
        # flags that are neither on nor off
        ({"lock": "true"}, Unclear.LOCKED),
        ({"lock": 1}, Unclear.LOCKED),
        ({"lock": Marker.NULL}, Unclear.LOCKED),
        ({"lock": Marker.GARBLED}, Unclear.LOCKED),
        ({"away": 7}, Unclear.OPT_OUT),
        ({"away": True}, Unclear.OPT_OUT),
        # faults
        ({"alarm": Marker.GARBLED}, Unclear.FAULTS),
        ({"alarm": "2"}, Unclear.FAULTS),
        ({"alarm": float("nan")}, Unclear.FAULTS),
        ({"word": 1 << 63}, Unclear(0)),
        ({"word": float(1 << 63)}, Unclear.FAULTS),
        ({"word": 1 << 65}, Unclear.FAULTS),
        ({"word": 0.5}, Unclear.FAULTS),
        ({"word": float("inf")}, Unclear.FAULTS),
        ({"alarm": 2, "word": "x"}, Unclear.FAULTS),
        # a limit of the battery's own
        ({"limit": -5.0}, Unclear.DISCHARGE_W_MAX),
        ({"limit": 8500.0}, Unclear.DISCHARGE_W_MAX),
        ({"limit": "5000"}, Unclear.DISCHARGE_W_MAX),
        ({"limit": float("nan")}, Unclear.DISCHARGE_W_MAX),
        ({"grid_state": "off", "lock": 1}, Unclear.GRID | Unclear.LOCKED),
        # what nobody can read may have said anything, whatever was said before
        ({"grid_state": Unreadable("OnGrid"), "alarm": Unreadable(0)}, Unclear.GRID | Unclear.FAULTS),
        ({"lock": Unreadable(Marker.MISSING), "limit": Unreadable(5000.0)}, Unclear.LOCKED | Unclear.DISCHARGE_W_MAX),
    ],
)
def test_program_point_about_safety_that_is_not_understood_is_named(
    program: ProductVariant, raws: dict[str, Read], unclear: Unclear
) -> None:
    assert read(program, **raws) == unclear


@pytest.mark.parametrize(
    "raws",
    [
        {},
        {"grid_state": "OffGrid", "lock": True, "away": 1, "alarm": 2, "word": 5, "owner": 9},
        {"word": 1 << 40},
        # what a product does not have, or leaves out, means what it meant
        dict.fromkeys(("grid_state", "lock", "away", "alarm", "word", "owner", "limit"), Marker.MISSING),
        {"limit": Marker.NULL},
    ],
)
def test_program_what_is_understood_or_absent_is_not_unclear(program: ProductVariant, raws: dict[str, Read]) -> None:
    assert read(program, **raws) == CLEAR


def test_program_point_is_unclear_until_it_is_read_well(program: ProductVariant) -> None:
    values = Values()
    program.decode(GOOD | {"grid_state": "off", "lock": 3}, values)
    assert program.canonical(values).unclear == Unclear.GRID | Unclear.LOCKED
    # what is polled less often stands as it was read last
    program.decode({"grid_state": "OnGrid"}, values)
    assert program.canonical(values).unclear == Unclear.LOCKED
    program.decode({"lock": True}, values)
    assert (program.canonical(values).unclear, program.canonical(values).get("grid")) == (CLEAR, Grid.ON)
    program.decode({"lock": 3}, values)
    values.clear()
    program.decode({name: raw for name, raw in GOOD.items() if name != "lock"}, values)
    assert program.canonical(values).unclear == CLEAR


def test_program_register_out_of_its_range_is_unclear_and_a_sentinel_is_absent() -> None:
    def flags(raw: dict[str, Any]) -> None:
        raw["points"]["lock"] = {"register": 420, "type": "u16", "range": [0, 1], "sentinels": [65535]}
        raw["readings"]["locked"] = {"any": [{"point": "lock", "equals": [1]}]}

    product = compiled(changed(MODBUS, flags)).product
    assert product is not None
    for word, unclear in ((0, 0), (1, 0), (65535, 0), (2, Unclear.LOCKED), (65534, Unclear.LOCKED)):
        values = Values()
        product.base.decode({"lock": (word,)}, values)
        assert product.base.canonical(values).unclear == unclear
