"""Nominations: what became of a suggestion, and a power shared over meters, never more than there is."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.nominations import NominationState, Suggestion, judged, shared_kw


def suggestion(word: str, kw: float | None = 4.0) -> Suggestion:
    return Suggestion(id="s", meter="m", program="p", since="2026-08-01", until=None, kw=kw, word=word)


@pytest.mark.parametrize(
    ("word", "kw", "sent_kw", "state"),
    [
        ("RECEIVED", 4.0, 4.0, NominationState.SENT), ("APPROVED", 4.0, 4.0, NominationState.ACCEPTED),
        ("MODIFIED", 3.0, 4.0, NominationState.CHANGED), ("MODIFIED", 3.0, None, NominationState.CHANGED),
        ("DENIED", 4.0, 4.0, NominationState.REJECTED), ("DENIED", 3.0, 4.0, NominationState.REJECTED),
        ("DELETED", 4.0, None, NominationState.GONE), ("INVALIDATED", 4.0, 4.0, NominationState.GONE),
        # another power than was sent is a change, also where the word hides it
        ("APPROVED", 3.0, 4.0, NominationState.CHANGED), ("RECEIVED", 0.0, 4.0, NominationState.CHANGED),
        ("APPROVED", None, 4.0, NominationState.ACCEPTED), ("APPROVED", 4.0, None, NominationState.ACCEPTED),
        ("A_NEW_WORD", 4.0, 4.0, NominationState.UNKNOWN), ("", 4.0, 4.0, NominationState.UNKNOWN),
    ],
)  # fmt: skip
def test_what_became_of_a_suggestion_follows_from_the_word_and_the_power(
    word: str, kw: float | None, sent_kw: float | None, state: NominationState
) -> None:
    assert judged(suggestion(word, kw), sent_kw) is state


def test_power_is_shared_in_proportion_and_rounded_down() -> None:
    assert shared_kw(10.0, {"a": 5_000, "b": 5_000, "c": 10_000}) == {"a": 2.5, "b": 2.5, "c": 5.0}
    assert shared_kw(10.0, {"a": 1, "b": 1, "c": 1}) == {"a": 3.33, "b": 3.33, "c": 3.33}
    assert shared_kw(0.01, {"a": 1, "b": 1}) == {}
    assert shared_kw(10.0, {"a": 0.0}) == shared_kw(10.0, {}) == shared_kw(0.0, {"a": 1}) == {}
    assert shared_kw(4.0, {"a": 0.0, "b": 2.0}) == {"b": 4.0}


@given(
    kw=st.floats(0.01, 1e6),
    weights=st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1e6, allow_subnormal=False), max_size=8),
)
def test_parts_are_never_more_than_the_whole(kw: float, weights: dict[str, float]) -> None:
    parts = shared_kw(kw, weights)
    assert sum((Decimal(repr(part)) for part in parts.values()), Decimal()) <= Decimal(repr(kw))
    assert all(part == round(part, 2) > 0 for part in parts.values())
    if parts and all(weights.values()):
        assert sum(parts.values()) > kw - 0.01 * len(weights) - 1e-6
