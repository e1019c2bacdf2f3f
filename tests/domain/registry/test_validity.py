"""From when until when something is so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvariantBroken
from gateway.domain.registry.validity import Validity

TIMES = st.integers(0, 9)


@st.composite
def validities(draw: st.DrawFn) -> Validity:
    from_ms, until_ms = draw(st.none() | TIMES), draw(st.none() | TIMES)
    if from_ms is not None and until_ms is not None:
        from_ms, until_ms = sorted((from_ms, until_ms))
    return Validity(from_ms=from_ms, until_ms=until_ms)


@given(validities(), validities())
def test_validities_overlap_where_a_time_is_covered_by_both(one: Validity, other: Validity) -> None:
    both = any(one.covers(at) and other.covers(at) for at in range(-1, 11))
    empty = any(v.from_ms is not None and v.from_ms == v.until_ms for v in (one, other))
    assert empty or one.overlaps(other) == other.overlaps(one) == both


def test_validity_that_ends_before_it_begins_is_none() -> None:
    with pytest.raises(InvariantBroken):
        Validity(from_ms=2, until_ms=1)


def test_validity_without_an_end_is_open() -> None:
    assert Validity(from_ms=1).open
    assert not Validity(from_ms=1, until_ms=2).open
