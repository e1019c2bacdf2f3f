"""A case on the wire: what REST answers and what a ticket system is told."""

from pydantic import Field

from gateway.domain.programs.cases import CaseState, HomeCase
from gateway.domain.programs.underperformers import LikelyCause, Trend
from gateway.schemas.body import Body
from gateway.schemas.interval_rows import rfc3339


class CaseBody(Body):
    """A case: one home, one cause. `since`: begin of the first event that went wrong; `events`: how many did;
    `lost_wh`: energy wanted in them and not measured as given. `evidence`, over the events that agree (null = not
    measured): `level`, `energy` and `short` as parts of what was wanted, `late_s` in seconds, `acknowledged` and
    `coverage` as shares. `revision` grows with every change but of the evidence."""

    case: int
    revision: int
    state: CaseState
    home: str
    cause: LikelyCause
    trend: Trend
    opened_by: str
    opened: str
    since: str
    events: int
    lost_wh: int
    evidence: dict[str, float | None] = Field(examples=[{"level": 0.8, "late_s": 20.0}])
    assignee: str
    snoozed_until: str | None
    closed_by: str
    closed: str | None
    closed_because: str
    reopened: int


def case_body(case: HomeCase, now_ms: int) -> CaseBody:
    """A case as it is told."""
    return CaseBody(
        case=case.number, revision=case.revision, state=case.state(now_ms), home=case.home, cause=case.cause,
        trend=case.trend, opened_by=case.opened_by, opened=rfc3339(case.opened_ms), since=rfc3339(case.since_ms),
        events=case.events, lost_wh=case.lost_wh, evidence=dict(case.evidence), assignee=case.assignee,
        snoozed_until=None if case.snoozed_until_ms is None else rfc3339(case.snoozed_until_ms),
        closed_by=case.closed_by, closed=None if case.closed_ms is None else rfc3339(case.closed_ms),
        closed_because=case.closed_because, reopened=case.reopened,
    )  # fmt: skip
