"""Values at the edge of their range: rounding is forgiven, everything else beyond it is not."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.profiles.compiled.ranges import within
from tests.builders.fakes import message_product


@given(low=st.floats(-1e6, 0, width=32), high=st.floats(1, 1e6, width=32))
def test_value_that_single_precision_rounds_past_an_edge_is_the_edge(low: float, high: float) -> None:
    above, below = (float(np.nextafter(np.float32(of), np.float32(to))) for of, to in ((high, np.inf), (low, -np.inf)))
    assert (within(above, low, high), within(below, low, high)) == (high, low)


@pytest.mark.parametrize("value", [100.001, -0.001, 1e9, math.inf, -math.inf, math.nan])
def test_value_beyond_an_edge_is_none(value: float) -> None:
    assert within(value, 0.0, 100.0) is None


@pytest.mark.parametrize("value", [-100.0, -1.0, -0.01])
def test_value_below_0_is_none_however_far_the_other_edge_is(value: float) -> None:
    assert within(value, 0.0, 1e9) is None
    assert within(-value, -1e9, 0.0) is None


def test_range_without_an_end_forgives_no_more_at_the_other() -> None:
    assert within(-0.001, 0.0, math.inf) is None
    assert within(1e300, 0.0, math.inf) == 1e300


@pytest.mark.parametrize(
    ("said", "soc_pct"), [("100.0000076", 100.0), ("-0.0000001", 0.0), ("100.4", None), ("NaN", None), ("1e999", None)]
)
def test_message_with_a_value_at_its_edge_counts_with_it_and_with_an_impossible_one_without_it(
    said: str, soc_pct: float | None
) -> None:
    decoder = message_product().decoders["energy"]
    payload = (
        f'{{"id": "a", "boot": 1, "seq": 1, "t": 1800000000000, "span_ms": 10000, "charge_counter_wh": 5, '
        f'"discharge_counter_wh": 6, "soc_pct": {said}}}'
    )
    row = decoder.decode(payload.encode(), "a")
    assert (row.charge_counter_wh, row.soc_pct) == (5.0, soc_pct)
    with pytest.raises(msgspec.DecodeError):
        decoder.decode(payload.replace('"seq": 1', '"seq": "x"').encode(), "a")
