"""Commands as ordered writes: all of a sequence or nothing, never more than asked for, restored as it was (F27)."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.commands import CommandOp
from gateway.profiles.compiled.points import Marker, PointCodec, Raw, Unwritable, Value
from gateway.profiles.compiled.sequences import Quantities, Request, Wait, actions, shows
from gateway.profiles.compiled.variant import PointProduct, ProductVariant
from gateway.profiles.language.control import Step
from gateway.profiles.language.points import Point
from tests.builders.profiles import HTTP, MODBUS, changed, compiled

VOLATILE: dict[str, object] = {"access": "rw", "storage": "volatile"}
POINTS: dict[str, dict[str, object]] = {
    "power": {"register": 1, "type": "i16", "sign": "charge_positive"},
    "magnitude": {"register": 2, "type": "u16"},
    "percent": {"register": 3, "type": "i16", "scale": 0.01, "sign": "discharge_positive"},
    "rating": {"register": 4, "type": "u16"},
    "timeout": {"register": 5, "type": "u16", "unit": "s"},
    "minutes": {"register": 6, "type": "u16", "unit": "min"},
    "mode": {"register": 7, "type": "u16"},
    "scaled": {"register": 8, "type": "i16", "scale_factor": "sf", "sign": "discharge_positive"},
    "text": {"path": "/x", "type": "text", "write": {"method": "PUT", "path": "/x", "key": "x"}},
    "beat": {"register": 9, "type": "u16"},
}
CODECS = {name: PointCodec(name, Point.model_validate(VOLATILE | point)) for name, point in POINTS.items()}


def done(
    *steps: dict[str, Any], values: Mapping[str, Value] | None = None, saved: Mapping[str, Value] | None = None,
    **quantities: Any,
) -> list[list[tuple[str, Raw]] | float]:  # fmt: skip
    """Requests as (point, raw), waits as seconds."""
    found = actions(
        [Step.model_validate(step) for step in steps], Quantities(**quantities), codecs=CODECS, values=values or {},
        saved=saved or {},
    )  # fmt: skip
    return [action.s if isinstance(action, Wait) else [(w.point, w.raw) for w in action.writes] for action in found]


def test_sequence_keeps_its_order_with_waits_between() -> None:
    steps = ({"write": "mode", "value": 4}, {"wait_s": 1.5}, {"write": "power", "from": "setpoint_w"})
    assert done(*steps, setpoint_w=1000.0) == [[("mode", (4,))], 1.5, [("power", (65536 - 1000,))]]


@pytest.mark.parametrize(
    ("target_w", "raw"), [(0.0, 1), (-0.0, 1), (0.7, 1), (-0.7, 1), (-1.0, 1), (1.0, 65535), (300.0, 65236)]
)
def test_write_of_a_zero_that_means_nothing_is_set_is_the_value_in_its_place(target_w: float, raw: int) -> None:
    step = {"write": "power", "from": "grid_target_w", "instead_of_zero": 1}
    assert done(step, grid_target_w=target_w) == [[("power", (raw,))]]


@pytest.mark.parametrize(
    ("step", "quantities", "raw"),
    [
        ({"write": "power", "from": "setpoint_w"}, {"setpoint_w": -1000.0}, 1000),
        ({"write": "magnitude", "from": "magnitude_w"}, {"setpoint_w": -1000.9}, 1000),
        ({"write": "power", "from": "grid_target_w", "times": -1}, {"grid_target_w": 300.0}, 300),
        ({"write": "power", "from": "setpoint_w", "times": 0.1}, {"setpoint_w": -1239.0}, 123),
        ({"write": "percent", "from": "setpoint_w", "percent_of": "rating"}, {"setpoint_w": 1250.0}, 2500),
        ({"write": "timeout", "from": "lease"}, {"lease_s": 90.2}, 91),
        ({"write": "minutes", "from": "lease"}, {"lease_s": 61.0}, 2),
        ({"write": "minutes", "from": "lease"}, {"lease_s": 120.0}, 2),
        ({"write": "mode", "from": "reserve_pct"}, {"reserve_pct": 20.7}, 20),
        ({"write": "beat", "from": "count"}, {"count": 7}, 7),
    ],
)
def test_sequence_quantity_reaches_the_wire_as_the_product_wants_it(
    step: dict[str, Any], quantities: dict[str, Any], raw: int
) -> None:
    assert done(step, values={"rating": 5000.0}, **quantities) == [[(step["write"], (raw,))]]


@pytest.mark.fault("F27")
@pytest.mark.parametrize(
    ("step", "quantities"),
    [
        ({"write": "power", "from": "setpoint_w"}, {"setpoint_w": math.nan}),
        ({"write": "power", "from": "setpoint_w"}, {"setpoint_w": 40_000.0}),
        ({"write": "mode", "from": "reserve_pct"}, {}),
        ({"write": "power", "from": "grid_target_w"}, {}),
        ({"write": "percent", "from": "setpoint_w", "percent_of": "unknown"}, {"setpoint_w": 1.0}),
        ({"write": "percent", "from": "setpoint_w", "percent_of": "nothing"}, {"setpoint_w": 1.0}),
        ({"write": "percent", "from": "setpoint_w", "percent_of": "words"}, {"setpoint_w": 1.0}),
        ({"write": "percent", "from": "setpoint_w", "percent_of": "rating"}, {"setpoint_w": 5000.0 * 4}),
        ({"write": "scaled", "from": "setpoint_w"}, {"setpoint_w": 1.0}),
        ({"write": "magnitude", "value": -1}, {}),
    ],
)
def test_sequence_with_one_value_that_cannot_be_written_sends_nothing(
    step: dict[str, Any], quantities: dict[str, Any]
) -> None:
    values: dict[str, Value] = {"rating": 5000.0, "nothing": 0.0, "words": "x"}
    with pytest.raises(Unwritable):
        done({"write": "mode", "value": 4}, step, values=values, **quantities)


def test_sequence_constant_and_restored_value_keep_the_products_own_sign() -> None:
    assert done({"write": "power", "value": 300}) == [[("power", (300,))]]
    assert done({"restore": "power"}, saved={"power": -300.0}) == [[("power", (65536 - 300,))]]
    assert done({"write": "text", "null": True}) == [[("text", Marker.NULL)]]
    assert done({"write": "text", "value": "auto"}) == [[("text", "auto")]]


def test_sequence_restore_takes_what_was_saved_else_the_default_else_nothing() -> None:
    step = {"restore": "mode", "or_value": 2}
    assert done(step, saved={"mode": 5.0}) == [[("mode", (5,))]]
    assert done(step, saved={"mode": 0.0}) == [[("mode", (0,))]]
    assert done(step) == [[("mode", (2,))]]
    assert done({"restore": "mode"}) == []


def test_sequence_if_changed_leaves_out_what_is_known_to_be_there_only() -> None:
    step = {"write": "mode", "value": 4, "if_changed": True}
    assert done(step, values={"mode": 4.0}) == []
    for values in ({"mode": 3.0}, {"mode": None}, {}):
        assert done(step, values=values) == [[("mode", (4,))]]
    power = {"write": "power", "from": "setpoint_w", "if_changed": True}
    assert done(power, values={"power": -1000.0}, setpoint_w=1000.0) == []
    assert done(power, values={"power": 1000.0}, setpoint_w=1000.0) == [[("power", (65536 - 1000,))]]


def test_sequence_if_changed_knows_a_number_by_whatever_factor_it_is_shown() -> None:
    step = {"write": "scaled", "from": "setpoint_w", "if_changed": True}
    for factor, value in ((0.0, 1200.0), (2.0, 1200.0), (-1.0, 1200.0)):
        assert done(step, values={"scaled": value, "sf": factor}, setpoint_w=1200.0) == []
    assert done(step, values={"scaled": 1200.0, "sf": 1.0}, setpoint_w=1210.0) == [[("scaled", (121,))]]


@pytest.mark.parametrize(
    ("written_by", "shown", "shown_by", "holds"),
    [
        (0.0, 1234.0, 0.0, True),
        (0.0, 1233.0, 0.0, False),
        (0.0, 1230.0, 1.0, True),
        (0.0, 1240.0, 1.0, True),
        (0.0, 1220.0, 1.0, False),
        (1.0, 1230.0, 0.0, True),
        (1.0, 1234.0, 0.0, True),
        (1.0, 1241.0, 0.0, False),
        (0.0, 12340.0, 1.0, False),
        (0.0, 123.4, -1.0, False),
        (0.0, 1234.0, None, False),
        (0.0, None, 0.0, False),
    ],
)
def test_shows_compares_numbers_to_the_step_of_the_coarser_factor(
    written_by: float, shown: float | None, shown_by: float | None, holds: bool
) -> None:
    step = Step.model_validate({"write": "scaled", "from": "setpoint_w"})
    (request,) = actions([step], Quantities(setpoint_w=1234.0), codecs=CODECS, values={"sf": written_by}, saved={})
    assert isinstance(request, Request)
    assert shows(CODECS["scaled"], {"scaled": shown, "sf": shown_by}, request.writes[0]) is holds


def test_sequence_together_goes_out_whole_or_not_at_all() -> None:
    both = {
        "together": [
            {"write": "mode", "value": 4, "if_changed": True},
            {"write": "beat", "value": 1, "if_changed": True},
        ]
    }
    assert done(both, values={"mode": 4.0, "beat": 1.0}) == []
    assert done(both, values={"mode": 4.0, "beat": 0.0}) == [[("mode", (4,)), ("beat", (1,))]]
    restored = {"together": [{"restore": "mode"}, {"restore": "beat"}]}
    assert done(restored) == []
    assert done(restored, saved={"mode": 1.0, "beat": 2.0}) == [[("mode", (1,)), ("beat", (2,))]]
    with pytest.raises(Unwritable, match="belong together"):
        done(restored, saved={"mode": 1.0})


@pytest.mark.fault("F27")
@given(setpoint_w=st.floats(-1e5, 1e5), rating=st.floats(100, 1e5), times=st.sampled_from([1.0, 0.1, -1.0]))
def test_sequence_any_setpoint_is_written_at_most_or_refused(setpoint_w: float, rating: float, times: float) -> None:
    for name, percent_of in (("power", None), ("magnitude", None), ("percent", "rating")):
        source = "magnitude_w" if name == "magnitude" else "setpoint_w"
        step = Step.model_validate({"write": name, "from": source, "percent_of": percent_of, "times": times})
        given_ = Quantities(setpoint_w=setpoint_w)
        try:
            (request,) = actions([step], given_, codecs=CODECS, values={"rating": rating}, saved={})
        except Unwritable:
            continue
        assert isinstance(request, Request)
        (write,) = request.writes
        assert isinstance(write.raw, tuple)
        (word,) = write.raw
        shown = abs(word - 65536 if word > 32767 and name != "magnitude" else word)
        whole = rating / 100 * 0.01 if percent_of else 1.0
        assert shown * whole <= abs(setpoint_w * times) * (1 + 1e-9) + 1e-6


# -- a variant -------------------------------------------------------------------------------------------------


def variant(text: str = MODBUS) -> ProductVariant:
    product = compiled(text).product
    assert isinstance(product, PointProduct)
    return product.base


@pytest.mark.parametrize(
    ("op", "setpoint_w", "name"),
    [
        (CommandOp.SETPOINT, 500.0, "discharge"),
        (CommandOp.SETPOINT, -500.0, "charge"),
        (CommandOp.SETPOINT, 0.0, "hold"),
        (CommandOp.SETPOINT, 99.0, "hold"),
        (CommandOp.SETPOINT, -99.0, "hold"),
        (CommandOp.HOLD, 500.0, "hold"),
        (CommandOp.RELEASE, 500.0, "release"),
        (CommandOp.RESERVE, 500.0, "reserve"),
    ],
)
def test_variant_operation_takes_its_sequence(op: CommandOp, setpoint_w: float, name: str) -> None:
    found = variant(changed(MODBUS, lambda raw: raw["control"].update(setpoint_w_min=100)))
    assert found.control is not None
    assert found.sequence(op, setpoint_w) == found.control.sequences()[name]


@pytest.mark.parametrize(
    ("step_w", "setpoint_w", "quantised"),
    [
        (1, 999.9, 999.0),
        (1, -999.9, -999.0),
        (100, 199.0, 100.0),
        (0.1, 1000.0, 1000.0),
        (0.1, 0.3, 0.3),
        (10, 9.0, 0.0),
    ],
)
def test_variant_setpoint_is_cut_to_whole_steps_towards_zero(
    step_w: float, setpoint_w: float, quantised: float
) -> None:
    found = variant(changed(MODBUS, lambda raw: raw["control"].update(step_w=step_w)))
    assert found.quantised(setpoint_w) == pytest.approx(quantised)


def test_variant_commands_reach_the_wire_and_readings_come_back() -> None:
    found = variant()
    steps = found.sequence(CommandOp.SETPOINT, 1000.0)
    (request,) = found.actions(steps, Quantities(setpoint_w=1000.0, lease_s=120.0), {}, {})
    assert isinstance(request, Request)
    assert [(write.point, write.raw) for write in request.writes] == [("setpoint", (65535, 64536)), ("timeout", (120,))]
    values: dict[str, Value] = {}
    # the scale factor comes last and is decoded first
    found.decode({"battery_power": (65036,), "soc": (555,), "work_mode": (4,), "power_sf": (1,)}, values)
    canonical = found.canonical(values)
    assert canonical.get("battery_w") == 5000.0
    assert canonical.get("soc_pct") == pytest.approx(55.5)
    assert math.isnan(canonical.get("grid_w"))
    assert math.isnan(canonical.get("load_w"))


def test_variant_value_that_comes_without_its_factor_is_unknown_and_counted() -> None:
    """A factor of another request may be that of another value."""
    found = variant()
    values: dict[str, Value] = {}

    def decoded(**raws: Raw) -> tuple[Value, Value]:
        found.decode(raws, values)
        return values["battery_power"], values["soc"]

    assert decoded(battery_power=(500,), power_sf=(1,), soc=(550,)) == (5000.0, 55.0)
    assert decoded(battery_power=(600,), soc=(560,)) == (None, 56.0)
    assert found.counts.sentinel == 1
    assert decoded(battery_power=(700,), power_sf=Marker.MISSING, soc=(570,)) == (None, 57.0)
    assert decoded(battery_power=(700,), power_sf=(0,), soc=(580,)) == (700.0, 58.0)


def test_variant_identity_and_needs_are_told_as_text_and_unknown_does_not_hold() -> None:
    found = variant()
    assert found.not_this_product({"serial": "SM123"}) == []
    for serial in ("XX", None):
        (told,) = found.not_this_product({"serial": serial})
        assert "serial" in told


def test_variant_overlay_is_taken_when_all_of_it_holds() -> None:
    overlay = {"name": "new", "when": [{"point": "soc", "above": 50}, {"point": "serial", "begins": ["SM"]}],
               "readings": {"soc_pct": {"point": "soc", "range": [0, 60]}}}  # fmt: skip
    product = compiled(changed(MODBUS, lambda raw: raw.update(overlays=[overlay]))).product
    assert product is not None
    assert product.variant({"soc": 55.0, "serial": "SM1"}).variant == "new"
    others: list[dict[str, Value]] = [{"soc": 45.0, "serial": "SM1"}, {"soc": 55.0}, {}]
    for values in others:
        assert product.variant(values) is product.base


def test_every_overlay_that_holds_is_taken_and_later_ones_replace_earlier_ones() -> None:
    wide, narrow = ({"soc_pct": {"point": "soc", "range": [0, top]}} for top in (60, 50))
    temperature = {"temp_c": {"point": "soc_as_temp", "range": [0, 90]}}
    overlays = [
        {"name": "firmware", "when": [{"point": "soc", "above": 10}], "readings": wide | temperature,
         "points": {"soc_as_temp": {"register": 102, "type": "u16", "unit": "degC"}}},
        {"name": "model", "when": [{"point": "serial", "begins": ["SM"]}], "readings": narrow},
        {"name": "other-model", "when": [{"point": "serial", "begins": ["SN"]}]},
    ]  # fmt: skip
    product = compiled(changed(MODBUS, lambda raw: raw.update(overlays=overlays))).product
    assert product is not None
    found = product.variant({"soc": 55.0, "serial": "SM1"})
    assert found.variant == "firmware+model"
    reading = found.canonical({"soc": 55.0, "soc_as_temp": 20.0})
    assert (reading.get("temp_c"), math.isnan(reading.get("soc_pct"))) == (20.0, True)
    assert product.variant({"soc": 55.0, "serial": "SX1"}).variant == "firmware"
    assert product.variant({"soc": 5.0, "serial": "SN1"}).variant == "other-model"
    assert {one.variant for one in product.variants} == {
        "", "firmware", "model", "other-model", "firmware+model", "firmware+other-model",
    }  # fmt: skip


def test_variant_that_steers_nothing_has_no_sequences_for_it() -> None:
    found = variant(HTTP)
    assert (found.takes_setpoints, found.sequence(CommandOp.SETPOINT, 500.0)) == (False, ())
    assert found.sequence(CommandOp.RESERVE, 0.0)


@pytest.mark.parametrize(("point", "experimental"), [("setpoint", True), ("work_mode", True), ("soc", False)])
def test_variant_is_experimental_where_what_it_writes_is(point: str, experimental: bool) -> None:
    found = changed(MODBUS, lambda raw: raw["points"][point].update(evidence="experimental"))
    assert variant(found).experimental is experimental
    assert compiled(found).facts.experimental is experimental
