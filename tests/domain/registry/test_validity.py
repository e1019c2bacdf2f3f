"""From when until when something is so."""

import pytest

from gateway.domain.errors import InvariantBroken
from gateway.domain.registry.validity import Validity


@pytest.mark.parametrize(("from_ms", "until_ms"), [(1, 1), (1, 2), (None, 2), (1, None), (None, None)])
def test_validity_may_lack_either_end(from_ms: int | None, until_ms: int | None) -> None:
    assert Validity(from_ms=from_ms, until_ms=until_ms).until_ms == until_ms


def test_validity_that_ends_before_it_begins_is_none() -> None:
    with pytest.raises(InvariantBroken):
        Validity(from_ms=2, until_ms=1)
