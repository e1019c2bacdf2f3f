"""How far a sign-up is: the furthest word ever heard, in any order, and what somebody has to do."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.sign_ups import DAY_MS, HeardWord, SignUpState, sign_up, sign_up_actions

S = SignUpState


def heard(*words: str, utility: str = "", at_ms: int = 0) -> list[HeardWord]:
    return [HeardWord(reference="c-1", utility=utility, word=word, first_ms=at_ms) for word in words]


@pytest.mark.parametrize(
    ("words", "state", "unknown"),
    [
        ([], S.NONE, ()), (["CREATED"], S.BEGUN, ()), (["CREATED", "UPDATED"], S.UNDER_WAY, ()),
        (["CREATED", "CLOSED", "UPDATED"], S.CLOSED, ()),
        # a session that ended is not begun again by a late word, and one that was completed stays it
        (["COMPLETED", "CLOSED", "CREATED", "UPDATED"], S.COMPLETED, ()),
        (["A_NEW_WORD"], S.UNKNOWN, ("A_NEW_WORD",)), (["A_NEW_WORD", "UPDATED"], S.UNDER_WAY, ("A_NEW_WORD",)),
        # a word of authorizations is none of sessions
        (["INITIATED"], S.UNKNOWN, ("INITIATED",)),
    ],
)  # fmt: skip
def test_furthest_word_counts_and_an_unknown_one_is_kept(
    words: list[str], state: SignUpState, unknown: tuple[str, ...]
) -> None:
    session = sign_up("c-1", heard(*words)).session
    assert (session.state, session.unknown) == (state, unknown)


words = st.sampled_from(["CREATED", "UPDATED", "CLOSED", "COMPLETED", "INITIATED", "FAILED", "X", "Y"])
events = st.lists(st.tuples(st.sampled_from(["", "PGE", "SCE"]), words), max_size=12)


@given(events=events, seed=st.integers(0, 1 << 32))
def test_order_and_repetition_change_nothing(events: list[tuple[str, str]], seed: int) -> None:
    def told(some: list[tuple[str, str]]) -> object:
        return sign_up("c-1", [one for utility, word in some for one in heard(word, utility=utility)])

    other = [*events, *random.Random(seed).choices(events, k=3)] if events else []
    random.Random(seed).shuffle(other)
    assert told(other) == told(events)


def test_what_somebody_has_to_do_is_said_in_words() -> None:
    def actions(*some: HeardWord, days: int = 0) -> list[str]:
        return sign_up_actions(sign_up("c-1", some), days * DAY_MS)

    assert actions() == []
    assert actions(*heard("CREATED"), days=2) == []
    assert actions(*heard("CREATED"), days=3) == ["the sign-up was begun 3 days ago and is not completed"]
    assert actions(*heard("COMPLETED"), days=9) == []
    assert actions(*heard("CLOSED")) == ["the sign-up was left early: ask, or send the link again"]
    failed = heard("INITIATED", "FAILED", utility="PGE")
    assert actions(*heard("COMPLETED"), *failed) == ["the authorization at PGE failed: send the link again"]
    assert actions(*heard("COMPLETED"), *failed, *heard("COMPLETED", utility="PGE")) == []
    assert actions(*heard("A_NEW_WORD")) == ["the aggregator says what is not known here: A_NEW_WORD"]
