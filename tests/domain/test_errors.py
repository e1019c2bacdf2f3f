"""The class of an error says whether what failed is tried again, and how soon."""

import pytest

from gateway.domain.errors import (
    InvariantBroken,
    LinkDown,
    NotThisProduct,
    PeerRefused,
    Retry,
    StorageError,
    pause_ceiling_s,
    retry_of,
)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (LinkDown("away"), Retry.LATER),
        (PeerRefused("no"), Retry.AFTER_CHANGE),
        (InvariantBroken("a bug"), Retry.NEVER),
        (KeyError("a bug"), Retry.NEVER),
        (ExceptionGroup("two", [StorageError("full"), NotThisProduct("other")]), Retry.AFTER_CHANGE),
        (ExceptionGroup("deep", [ExceptionGroup("in", [KeyError("a bug")]), LinkDown("away")]), Retry.NEVER),
    ],
)
def test_retry_of_an_error_is_its_class_and_of_several_that_which_helps_least(error: Exception, wanted: Retry) -> None:
    assert retry_of(error) is wanted


def test_pause_grows_to_its_cap_and_is_longer_where_somebody_must_act_first() -> None:
    later = [pause_ceiling_s(Retry.LATER, n, base_s=1, cap_s=5) for n in (0, 1, 2, 3, 40)]
    refused = [pause_ceiling_s(Retry.AFTER_CHANGE, n, base_s=1, cap_s=5) for n in (0, 1, 2, 3, 40)]
    assert (later, refused) == ([1, 2, 4, 5, 5], [8, 16, 32, 40, 40])
