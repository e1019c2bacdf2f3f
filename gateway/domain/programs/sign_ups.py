"""How far a customer's sign-up at the aggregator is, from what its webhooks said.

They carry no time, no order and no id of a session: only a reference, perhaps a utility, and a word. So the furthest
word ever heard counts, which is the same in whatever order they come and however often. Times are UTC ms.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

DAY_MS = 86_400_000
PATIENCE_DAYS = 3
"""After so many days a sign-up that was begun is somebody's business."""


class SignUpState(StrEnum):
    """How far a sign-up, or the authorization at a utility, is. `NONE`: nothing was heard; `CLOSED`: left early;
    `UNKNOWN`: nothing was heard but words that we do not know."""

    NONE = "none"
    UNKNOWN = "unknown"
    BEGUN = "begun"
    UNDER_WAY = "under_way"
    CLOSED = "closed"
    FAILED = "failed"
    COMPLETED = "completed"


SESSION: Mapping[str, SignUpState] = {
    "CREATED": SignUpState.BEGUN,
    "UPDATED": SignUpState.UNDER_WAY,
    "CLOSED": SignUpState.CLOSED,
    "COMPLETED": SignUpState.COMPLETED,
}
AUTHORIZATION: Mapping[str, SignUpState] = {
    "INITIATED": SignUpState.BEGUN,
    "FAILED": SignUpState.FAILED,
    "COMPLETED": SignUpState.COMPLETED,
}
RANK = {state: rank for rank, state in enumerate(SignUpState)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardWord:
    """A word of a webhook: of the session, or (`utility`) of the authorization there; `first_ms`: when it was heard
    first."""

    reference: str
    utility: str
    word: str
    first_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignUpProgress:
    """How far the session is (`utility` ""), or an authorization. `unknown`: words that we do not know, as they are."""

    utility: str
    state: SignUpState
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignUp:
    """A customer's sign-up. `since_ms`: when anything was heard of it first, None = nothing was."""

    reference: str
    session: SignUpProgress
    authorizations: tuple[SignUpProgress, ...] = ()
    since_ms: int | None = None


def sign_up(reference: str, heard: Sequence[HeardWord]) -> SignUp:
    """The sign-up of a reference, from everything that was heard of it, in any order."""
    utilities = sorted({one.utility for one in heard if one.utility})
    return SignUp(
        reference=reference,
        session=_progress("", heard, SESSION),
        authorizations=tuple(_progress(utility, heard, AUTHORIZATION) for utility in utilities),
        since_ms=min((one.first_ms for one in heard), default=None),
    )


def sign_up_actions(one: SignUp, now_ms: int) -> list[str]:
    """What somebody has to do about a sign-up, in words."""
    found = [
        f"the authorization at {progress.utility} failed: send the link again"
        for progress in one.authorizations if progress.state is SignUpState.FAILED
    ]  # fmt: skip
    if one.session.state is SignUpState.CLOSED:
        found.append("the sign-up was left early: ask, or send the link again")
    elif one.since_ms is not None and one.session.state is not SignUpState.COMPLETED:
        days = (now_ms - one.since_ms) // DAY_MS
        if days >= PATIENCE_DAYS:
            found.append(f"the sign-up was begun {days} days ago and is not completed")
    words = sorted({word for progress in (one.session, *one.authorizations) for word in progress.unknown})
    if words:
        found.append(f"the aggregator says what is not known here: {', '.join(words)}")
    return found


def _progress(utility: str, heard: Iterable[HeardWord], known: Mapping[str, SignUpState]) -> SignUpProgress:
    words = {one.word for one in heard if one.utility == utility}
    states = [known.get(word, SignUpState.UNKNOWN) for word in words]
    return SignUpProgress(
        utility=utility,
        state=max(states, key=RANK.__getitem__, default=SignUpState.NONE),
        unknown=tuple(sorted(words - known.keys())),
    )
