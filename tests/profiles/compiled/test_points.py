"""Raw <-> value of one point: sentinels are unknown (F26), what is written never exceeds what was asked for (F27)."""

import math
import struct
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.profiles.compiled.points import (
    DecodeCounts,
    Marker,
    PointCodec,
    Raw,
    Unwritable,
    Value,
    Values,
    decode_all,
)
from gateway.profiles.language.points import REGISTERS, Point, PointType

WHOLE = ["u16", "i16", "u32", "i32", "u64", "i64"]
LIMITS = {
    "u16": (0, 2**16 - 1), "i16": (-(2**15), 2**15 - 1), "u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1),
    "u64": (0, 2**64 - 1), "i64": (-(2**63), 2**63 - 1),
}  # fmt: skip


def codec(kind: str, *, order: str = "big", unimplemented: bool = False, **other: Any) -> PointCodec:
    place = {"register": 1} if PointType(kind) in REGISTERS or "words" in other else {"path": "/x"}
    point = Point.model_validate(place | {"type": kind} | other)
    return PointCodec("p", point, order=order, unimplemented=unimplemented)


def words(kind: str, bits: int) -> tuple[int, ...]:
    count = REGISTERS[PointType(kind)]
    return struct.unpack(f">{count}H", bits.to_bytes(2 * count, "big"))


def decoded(found: PointCodec, raw: Raw | None, **values: Value) -> tuple[Value, str]:
    """The value, and the one count that has grown."""
    counts = DecodeCounts()
    value = found.decode(raw, values, counts)
    grown = [name for name in ("sentinel", "implausible", "malformed") if getattr(counts, name)]
    assert len(grown) <= 1
    return value, grown[0] if grown else ""


# -- F26 -------------------------------------------------------------------------------------------------------

F32_BITS = [0x7FC00000, 0xFFC00000, 0x7F800001, 0x7F800000, 0xFF800000]
F64_BITS = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000000, 0xFFF0000000000000]


@pytest.mark.fault("F26")
@pytest.mark.parametrize(
    ("kind", "bits"),
    [("u16", 0xFFFF), ("i16", 0x8000), ("u32", 0xFFFFFFFF), ("i32", 0x80000000), ("u64", 2**64 - 1), ("i64", 2**63),
     ("acc32", 0), ("acc64", 0), *(("f32", bits) for bits in F32_BITS), *(("f64", bits) for bits in F64_BITS)],
)  # fmt: skip
@pytest.mark.parametrize("order", ["big", "little"])
def test_point_sentinel_of_its_type_is_unknown(kind: str, bits: int, order: str) -> None:
    raw = words(kind, bits)
    found = codec(kind, order=order, unimplemented=True)
    assert decoded(found, raw[::-1] if order == "little" else raw) == (None, "sentinel")


@pytest.mark.fault("F26")
@pytest.mark.parametrize(
    ("kind", "bits", "value"),
    [("u16", 0xFFFF, 65535.0), ("i16", 0x8000, -32768.0), ("u32", 0xFFFFFFFF, 4294967295.0),
     ("i32", 0x80000000, -2147483648.0), ("u16", 0x8000, 32768.0), ("i16", 0xFFFF, -1.0), ("u16", 0, 0.0)],
)  # fmt: skip
def test_point_sentinel_of_other_rules_is_a_value(kind: str, bits: int, value: float) -> None:
    assert decoded(codec(kind), words(kind, bits)) == (value, "")


@pytest.mark.fault("F26")
@pytest.mark.parametrize("told", [-32768, 0x8000])
def test_point_sentinel_is_its_bits_however_its_sign_is_written(told: int) -> None:
    assert decoded(codec("i16", sentinels=[told]), (0x8000,)) == (None, "sentinel")
    assert decoded(codec("i16", sentinels=[told]), (0x7FFF,)) == (32767.0, "")


@pytest.mark.fault("F26")
@pytest.mark.parametrize("factor", [None, -11.0, 11.0, 20.0, -20.0, -32768.0, 0.5, math.nan, math.inf, "1", True])
def test_point_scale_factor_that_is_absurd_makes_the_value_unknown(factor: Value) -> None:
    found = codec("i16", scale_factor="sf", access="rw", storage="volatile")
    assert decoded(found, (5,), sf=factor) == (None, "sentinel")
    with pytest.raises(Unwritable, match="scale factor"):
        found.encode(5.0, {"sf": factor})


@pytest.mark.fault("F26")
@pytest.mark.parametrize("factor", range(-10, 11))
def test_point_scale_factor_within_bounds_scales_both_ways(factor: int) -> None:
    found = codec("i16", scale_factor="sf", access="rw", storage="volatile")
    value, _ = decoded(found, (123,), sf=float(factor))
    assert value == pytest.approx(123 * 10.0**factor, rel=1e-12)
    assert found.encode(value, {"sf": float(factor)}) == (123,)
    assert decoded(found, (123,))[0] is None


@pytest.mark.fault("F26")
def test_point_out_of_range_is_unknown_and_never_clamped() -> None:
    found = codec("i16", scale=0.1, range=[0, 100])
    assert [decoded(found, (raw,)) for raw in (0, 1000, 1001, 0xFFFF)] == [
        (0.0, ""), (100.0, ""), (None, "implausible"), (None, "implausible"),
    ]  # fmt: skip
    assert decoded(codec("f64", scale=1e300), words("f64", 0x7FE0000000000000)) == (None, "implausible")


@pytest.mark.fault("F26")
@pytest.mark.parametrize(
    ("raw", "value", "count"),
    [(1, 1.0, ""), (1.5, 1.5, ""), ("1", None, "malformed"), (True, None, "malformed"), (math.nan, None, "malformed"),
     (math.inf, None, "malformed"), (10**400, None, "malformed"), (-1, None, "sentinel"), ((1,), None, "malformed"),
     (None, None, ""), (Marker.NULL, None, ""), (Marker.MISSING, None, ""), (Marker.EMPTY, None, ""),
     (Marker.GARBLED, None, "malformed")],
)  # fmt: skip
def test_point_json_number_that_is_none_is_unknown(raw: Raw | None, value: Value, count: str) -> None:
    assert decoded(codec("number", sentinels=[-1]), raw) == (value, count)


@pytest.mark.fault("F26")
@pytest.mark.parametrize(
    ("raw", "value"),
    [("12.5", 12.5), (" 3 ", 3.0), ("nan", None), ("inf", None), ("1e999", None), ("", None), ("x", None), (4, 4.0)],
)
def test_point_number_in_text_is_read_or_unknown(raw: Raw, value: Value) -> None:
    assert decoded(codec("number", as_text=True), raw)[0] == value


def test_point_null_and_missing_mean_what_the_profile_says() -> None:
    found = codec("number", null="zero", missing="unknown")
    assert (decoded(found, Marker.NULL)[0], decoded(found, Marker.MISSING)[0]) == (0.0, None)
    found = codec("number", missing="zero")
    assert (decoded(found, Marker.NULL)[0], decoded(found, Marker.MISSING)[0]) == (None, 0.0)


@pytest.mark.parametrize(
    ("raw", "text"),
    [((0x4142, 0x4300, 0x5858), "ABC"), ((0x2041, 0x4220, 0x0000), "AB"), ((0x0041, 0x0042, 0x0000), "AB"),
     ((0, 0, 0), ""), ((0xFF41, 0x4242, 0x0000), "\ufffdABB")],
)  # fmt: skip
def test_point_text_in_registers_ends_at_its_first_nul(raw: tuple[int, ...], text: str) -> None:
    assert decoded(codec("text", words=3), raw) == (text, "")
    assert decoded(codec("text", words=3, word_order="little"), raw) == (text, "")


@pytest.mark.parametrize("kind", [kind.value for kind in REGISTERS])
def test_point_of_another_length_is_malformed(kind: str) -> None:
    assert decoded(codec(kind), (0,) * (REGISTERS[PointType(kind)] + 1)) == (None, "malformed")
    assert decoded(codec(kind), ()) == (None, "malformed")


@pytest.mark.fault("F26")
@given(
    kind=st.sampled_from([kind.value for kind in REGISTERS]),
    scale=st.sampled_from([1.0, 0.1, -0.01, 10.0]),
    unimplemented=st.booleans(),
    data=st.data(),
)
def test_point_any_registers_are_a_finite_number_or_unknown(
    kind: str, scale: float, unimplemented: bool, data: st.DataObject
) -> None:
    size = REGISTERS[PointType(kind)]
    raw = data.draw(st.tuples(*[st.integers(0, 65535)] * size))
    value, count = decoded(codec(kind, scale=scale, unimplemented=unimplemented), raw)
    assert (value is None) == bool(count)
    assert value is None or (isinstance(value, float) and math.isfinite(value))


# -- F27 -------------------------------------------------------------------------------------------------------

MAGNITUDES = st.floats(-1e7, 1e7) | st.integers(-70_000, 70_000).map(float) | st.floats(-10, 10)


def written(found: PointCodec, value: float, **values: Value) -> float | None:
    """What the device then shows, with the sign of `value`; None = refused."""
    try:
        raw = found.encode(value, values)
    except Unwritable:
        return None
    shown, _ = decoded(found, raw, **values)
    assert isinstance(shown, float), raw
    return shown * found.flip


@pytest.mark.fault("F27")
@given(
    kind=st.sampled_from(WHOLE),
    value=MAGNITUDES,
    scale=st.sampled_from([1.0, 0.1, 0.01, 0.001, 10.0, -1.0, -0.1]),
    factor=st.sampled_from([None, -2.0, -1.0, 0.0, 1.0, 2.0]),
    sign=st.sampled_from([None, "charge_positive", "discharge_positive"]),
    order=st.sampled_from(["big", "little"]),
)
def test_point_written_value_never_exceeds_and_is_less_than_a_step_off(
    kind: str, value: float, scale: float, factor: float | None, sign: str | None, order: str
) -> None:
    values: dict[str, Value] = {} if factor is None else {"sf": factor}
    found = codec(kind, scale=scale, sign=sign, order=order, scale_factor="sf" if values else None)
    step = abs(scale) * 10.0 ** (factor or 0.0)
    shown = written(found, value, **values)
    raw = value * found.flip / (scale * 10.0 ** (factor or 0.0))
    low, high = LIMITS[kind]
    if shown is None:
        assert not low + 1 <= raw <= high - 1
        return
    assert low - 1 < raw < high + 1
    assert abs(shown) <= abs(value) * (1 + 1e-9) + 1e-9
    assert abs(shown - value) < step * (1 + 1e-9)
    assert shown * value >= 0


@pytest.mark.fault("F27")
@given(value=st.floats(-20_000, 20_000), shift=st.sampled_from([-10_000.0, -32_000.0, 5_000.0]))
def test_point_with_a_shift_is_rounded_towards_no_power(value: float, shift: float) -> None:
    shown = written(codec("u16", shift=shift), value)
    assume(shown is not None)
    assert shown is not None
    assert abs(shown) <= abs(value) + 1e-9
    assert abs(shown - value) < 1 + 1e-9


@pytest.mark.fault("F27")
@given(value=st.floats(-1e30, 1e30), scale=st.sampled_from([1.0, 0.1, 1000.0]))
def test_point_of_floating_type_never_exceeds(value: float, scale: float) -> None:
    for kind, step in (("f32", 2.0**-22), ("f64", 2.0**-50)):
        shown = written(codec(kind, scale=scale), value)
        assert shown is not None
        assert abs(shown) <= abs(value) * (1 + 1e-11)
        assert abs(shown - value) <= abs(value) * step + 1e-38


@pytest.mark.fault("F27")
@given(value=MAGNITUDES, scale=st.sampled_from([1.0, 0.1, 1000.0]), kind=st.sampled_from(["number", "integer"]))
def test_point_in_json_never_exceeds(value: float, scale: float, kind: str) -> None:
    shown = written(codec(kind, scale=scale), value)
    assert shown is not None
    assert abs(shown) <= abs(value) * (1 + 1e-9) + 1e-9
    assert abs(shown - value) < scale


@pytest.mark.fault("F27")
@given(kind=st.sampled_from([*WHOLE, "f32", "f64"]), scale=st.sampled_from([1.0, 0.1, 0.01, 10.0]), data=st.data())
def test_point_read_and_written_back_is_the_same(kind: str, scale: float, data: st.DataObject) -> None:
    """What is restored is what was saved, to the bit."""
    size = min(2, REGISTERS[PointType(kind)])
    pad = (0,) * (REGISTERS[PointType(kind)] - size)
    raw = pad + data.draw(st.tuples(*[st.integers(0, 65535)] * size))
    found = codec(kind, scale=scale)
    value, _ = decoded(found, raw)
    assume(isinstance(value, float) and (kind[0] != "f" or abs(value) > 1e-30 or value == 0))
    assert isinstance(value, float)
    again, _ = decoded(found, found.encode(value, {}))
    assert again == pytest.approx(value, rel=1e-13)
    if kind[0] != "f":
        assert found.encode(value, {}) == raw


@pytest.mark.fault("F27")
@pytest.mark.parametrize(
    ("kind", "value"),
    [("u16", -1.0), ("u16", 65536.0), ("i16", 32768.0), ("i16", -32769.0), ("u32", 2.0**32), ("i32", -(2.0**31) - 1),
     ("u64", 2.0**64), ("i64", 2.0**63), ("f32", 1e39), ("u16", math.nan), ("u16", math.inf), ("f32", math.nan),
     ("f64", -math.inf), ("u16", True), ("u16", "5"), ("i16", "x")],
)  # fmt: skip
def test_point_value_the_type_cannot_hold_is_refused(kind: str, value: Value) -> None:
    with pytest.raises(Unwritable, match=r"^p: "):
        codec(kind).encode(value, {})


@pytest.mark.parametrize(
    ("kind", "value"),
    [("boolean", 1.0), ("boolean", "true"), ("number", True), ("number", "1"), ("integer", "1"), ("text", True),
     ("number", math.nan), ("integer", math.inf)],
)  # fmt: skip
def test_point_in_json_value_of_another_kind_is_refused(kind: str, value: Value) -> None:
    with pytest.raises(Unwritable, match=r"^p: "):
        codec(kind).encode(value, {})


def test_point_text_in_registers_is_never_written() -> None:
    for value in ("x", 1.0, True):
        with pytest.raises(Unwritable):
            codec("text", words=2).encode(value, {})


@pytest.mark.fault("F27")
def test_point_outside_its_range_or_at_a_sentinel_is_refused_and_within_written() -> None:
    found = codec("i16", range=[-5000, 4000], sign="charge_positive")
    assert found.encode(5000.0, {}) == (65536 - 5000,)
    assert found.encode(-4000.0, {}) == (4000,)
    for value in (5001.0, -4001.0):
        with pytest.raises(Unwritable, match="outside"):
            found.encode(value, {})
    with pytest.raises(Unwritable, match="means something else"):
        codec("u16", sentinels=[65535]).encode(65535.0, {})
    assert codec("u16", sentinels=[65535]).encode(65534.0, {}) == (65534,)


@pytest.mark.fault("F27")
def test_point_of_large_numbers_is_still_cut_towards_zero() -> None:
    assert written(codec("u32"), 4_000_000_000.9) == 4_000_000_000.0
    assert written(codec("i64"), -(2.0**40) - 0.75) == -(2.0**40)


def test_point_in_json_is_written_as_its_kind() -> None:
    assert codec("integer").encode(50.9, {}) == 50
    assert codec("number").encode(-0.1, {}) == -0.1
    assert codec("text").encode(2.0, {}) == "2"
    assert codec("text").encode("auto", {}) == "auto"
    assert codec("boolean").encode(False, {}) is False
    assert codec("number").encode(None, {}) is Marker.NULL


# -- fallbacks -------------------------------------------------------------------------------------------------


def with_fallback(raws: dict[str, Raw], **other: Any) -> Values:
    """The values of `soc`, which falls back to `second`, read together with it."""
    first = {"register": 1, "type": "u16", "sentinels": [0xFFFF], "range": [0, 100], "fallback": "second"} | other
    second = {"register": 9, "type": "u16", "scale": 0.1, "range": [0, 100]}
    codecs = [PointCodec("soc", Point.model_validate(first)), PointCodec("second", Point.model_validate(second))]
    values = Values()
    decode_all(codecs, raws, values, DecodeCounts())
    return values


@pytest.mark.parametrize("absent", [Marker.MISSING, Marker.NULL, (0xFFFF,)])
def test_fallback_is_used_while_the_point_is_not_there(absent: Raw) -> None:
    assert with_fallback({"soc": absent, "second": (555,)})["soc"] == pytest.approx(55.5)
    assert with_fallback({"soc": (60,), "second": (555,)})["soc"] == 60.0
    assert with_fallback({"soc": (0,), "second": (555,)})["soc"] == 0.0
    assert with_fallback({"soc": absent, "second": Marker.MISSING})["soc"] is None
    assert with_fallback({"second": (555,)}).get("soc") is None


@pytest.mark.parametrize("bad", [Marker.GARBLED, (101,), (1, 2)])
def test_fallback_is_not_used_for_what_is_there_and_not_understood(bad: Raw) -> None:
    values = with_fallback({"soc": bad, "second": (555,)})
    assert values["soc"] is None
    assert values.unclear == {"soc"}


def test_fallback_that_is_not_understood_leaves_the_point_so_too() -> None:
    values = with_fallback({"soc": Marker.MISSING, "second": (2000,)})
    assert values["soc"] is None
    assert values.unclear == {"soc", "second"}


def test_value_that_the_product_does_not_take_is_refused_and_read_all_the_same() -> None:
    found = codec("u16", scale=0.1, range=[0, 100], accepts=[0, 20], access="rw", storage="volatile")
    with pytest.raises(Unwritable, match="30 is outside 0 to 20"):
        found.encode(30.0, {})
    assert found.encode(20.0, {}) == (200,)
    assert decoded(found, (300,)) == (30.0, "")
    assert found.encode(30.0, {}, owners=True) == (300,), "the product held it before"
