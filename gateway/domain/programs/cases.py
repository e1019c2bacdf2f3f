"""Cases: one per home and cause, from the day it is named until somebody closes it or the home recovers.

A case that was closed opens again by itself when an event after that shows the same cause; there is never a second one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from gateway.domain.programs.underperformers import LikelyCause, Trend, Underperformer

GATEWAY = "gateway"
"""Who opens and closes cases where nobody else does."""
RECOVERED = "recovered"
TEXT_MAX = 200

Evidence = Mapping[str, float | None]
CaseKey = tuple[str, LikelyCause]


class CaseState(StrEnum):
    """Where a case is. `SNOOZED`: open, and nobody is told before its time."""

    OPEN = "open"
    SNOOZED = "snoozed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A home that is named: the cause, `since` when, until which event (`newest_ms`, its end), in how many events and
    at what cost. Times UTC ms."""

    home: str
    cause: LikelyCause
    trend: Trend
    since_ms: int
    newest_ms: int
    events: int
    lost_wh: int
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeCase:
    """`number` 0 = not stored yet. `revision` grows with what others are told of; `told` is the one that the ticket
    system has. `closed_ms` None = open. Times UTC ms."""

    number: int
    home: str
    cause: LikelyCause
    opened_by: str
    opened_ms: int
    since_ms: int
    trend: Trend = Trend.UNKNOWN
    events: int = 0
    lost_wh: int = 0
    evidence: Evidence = field(default_factory=dict)
    assignee: str = ""
    snoozed_until_ms: int | None = None
    closed_by: str = ""
    closed_ms: int | None = None
    closed_because: str = ""
    reopened: int = 0
    revision: int = 1
    told: int = 0

    @property
    def key(self) -> CaseKey:
        return self.home, self.cause

    def state(self, now_ms: int) -> CaseState:
        if self.closed_ms is not None:
            return CaseState.CLOSED
        snoozed = self.snoozed_until_ms is not None and now_ms < self.snoozed_until_ms
        return CaseState.SNOOZED if snoozed else CaseState.OPEN


def finding(one: Underperformer, starts_ms: Sequence[int], ends_ms: Sequence[int]) -> Finding:
    """What is found of a home, given when the events that were looked at began and ended."""
    numbers = {"level": one.level, "energy": one.energy, "short": one.short, "late_s": one.late_s}
    shares = {"acknowledged": one.acknowledged, "coverage": one.coverage, "unmeasured_wh": float(one.unmeasured_wh)}
    return Finding(
        home=one.home, cause=one.cause, trend=one.trend, since_ms=starts_ms[one.since],
        newest_ms=ends_ms[one.affected[-1]], events=len(one.affected), lost_wh=one.lost_wh, evidence=numbers | shares,
    )  # fmt: skip


def opened(home: str, cause: LikelyCause, *, by: str, now_ms: int) -> HomeCase:
    """A case that a person opens."""
    return HomeCase(number=0, home=home, cause=cause, opened_by=by, opened_ms=now_ms, since_ms=now_ms)


def reopened(case: HomeCase, *, since_ms: int) -> HomeCase:
    """A closed case, open again."""
    return replace(
        case, closed_ms=None, closed_by="", closed_because="", snoozed_until_ms=None, since_ms=since_ms,
        reopened=case.reopened + 1, revision=case.revision + 1,
    )  # fmt: skip


def after_findings(
    known: Mapping[CaseKey, HomeCase], found: Sequence[Finding], sound: Collection[str], *, now_ms: int
) -> list[HomeCase]:
    """Cases that are new or changed. `sound`: homes that gave what they were asked in their last events; what is open
    of theirs is closed, unless a person opened it."""
    changed: list[HomeCase] = []
    for one in found:
        case = known.get((one.home, one.cause))
        after = _opened_by_finding(one, now_ms) if case is None else _found_again(case, one)
        if after != case:
            changed.append(after)
    named = {(one.home, one.cause) for one in found}
    for key, case in known.items():
        if case.closed_ms is None and case.home in sound and key not in named and case.opened_by == GATEWAY:
            changed.append(closed(case, because=RECOVERED, by=GATEWAY, now_ms=now_ms))
    return changed


def _opened_by_finding(one: Finding, now_ms: int) -> HomeCase:
    case = HomeCase(
        number=0, home=one.home, cause=one.cause, opened_by=GATEWAY, opened_ms=now_ms, since_ms=one.since_ms
    )  # fmt: skip
    return _with(case, one)


def _found_again(case: HomeCase, one: Finding) -> HomeCase:
    if case.closed_ms is None:
        return _with(case, one)
    if one.newest_ms <= case.closed_ms:
        return case
    return _with(reopened(case, since_ms=one.since_ms), one)


def _with(case: HomeCase, one: Finding) -> HomeCase:
    return replace(case, trend=one.trend, events=one.events, lost_wh=one.lost_wh, evidence=dict(one.evidence))


def assigned(case: HomeCase, assignee: str) -> HomeCase:
    """The case with somebody who looks after it; "" = nobody."""
    return case if case.assignee == assignee else replace(case, assignee=assignee, revision=case.revision + 1)


def snoozed(case: HomeCase, until_ms: int | None) -> HomeCase:
    """The case put off until then; None = no longer."""
    if case.snoozed_until_ms == until_ms:
        return case
    return replace(case, snoozed_until_ms=until_ms, revision=case.revision + 1)


def closed(case: HomeCase, *, because: str, by: str, now_ms: int) -> HomeCase:
    """The case closed, and why; one that is closed stays as it was."""
    if case.closed_ms is not None:
        return case
    return replace(
        case, closed_ms=now_ms, closed_by=by, closed_because=because, snoozed_until_ms=None, revision=case.revision + 1
    )  # fmt: skip


def to_tell(case: HomeCase, now_ms: int) -> bool:
    """Whether the ticket system lacks something of a case that is not snoozed."""
    return case.told < case.revision and case.state(now_ms) is not CaseState.SNOOZED
