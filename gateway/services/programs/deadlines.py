"""What is to be done by when: enrollments and activations that are open, consents and locked rates that end."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from gateway.domain.programs.due_data import DueData
from gateway.domain.programs.facts import Consent, Enrollment, EnrollmentStatus, Fact, Withdrawal
from gateway.domain.programs.terms import DATA_DUE, ProgramTerms
from gateway.domain.rules.values import Certainty

SETTLED = (EnrollmentStatus.ACTIVE, EnrollmentStatus.INELIGIBLE)
"""Enrollments for which no deadline counts any more."""

SOME = 5
CONSENT_EXPIRES, RATE_ENDS = "consent expires", "locked rate ends"

ZoneOf = Callable[[str], str]
"""The time zone of a program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is due of a program on one of its local days: `at_ms` (UTC) the first, of `count` subjects or customers, of
    which `some` are named; `lacking` counts what they lack, as the peer says. What a program's file says concerns the
    program as a whole; `unverified`: no text was found that says so. Of data that is due, `count` and `some` are sites
    that lack intervals, `missing` of them in all since `since_ms` (UTC); None: nothing was counted, or none is."""

    at_ms: int
    local: datetime
    what: str
    program: str
    period: str
    count: int
    some: tuple[str, ...]
    lacking: dict[str, int]
    unverified: bool = False
    missing: int | None = None
    since_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _One:
    at_ms: int
    what: str
    program: str
    period: str
    name: str
    lacking: tuple[str, ...] = ()


def deadlines(facts: Sequence[Fact], now_ms: int, until_ms: int, zone_of: ZoneOf) -> list[Due]:
    """What is due from now until `until_ms`, the first one first."""
    together: defaultdict[tuple[str, str, str, str], list[_One]] = defaultdict(list)
    for one in (*_enrollments(facts), *_consents(facts)):
        if now_ms <= one.at_ms < until_ms:
            day = _local(one.at_ms, zone_of(one.program)).date().isoformat()
            together[one.what, one.program, one.period, day].append(one)
    found = [_due(some, zone_of(key[1])) for key, some in together.items()]
    return sorted(found, key=lambda due: (due.at_ms, due.program, due.what, due.period))


def of_programs(
    terms: Mapping[str, ProgramTerms], now_ms: int, until_ms: int, counted: Sequence[DueData] = ()
) -> list[Due]:
    """What the programs' own terms say is due from now until `until_ms`: data and nominations of a period, the first
    one first; `counted`: what is missing of data."""
    data = {(one.program, one.period, one.due_ms): one for one in counted}
    found = [
        Due(
            at_ms=one.at_ms, local=_local(one.at_ms, of.zone), what=one.what, program=name, period=one.period, count=0,
            some=(), lacking={}, unverified=one.certainty is Certainty.UNVERIFIED,
        )
        for name, of in terms.items() for one in of.due(now_ms, until_ms)
    ]  # fmt: skip
    told = [_with_data(due, data) if due.what == DATA_DUE else due for due in found]
    return sorted(told, key=lambda due: (due.at_ms, due.program, due.what))


def _with_data(due: Due, data: Mapping[tuple[str, str, int], DueData]) -> Due:
    one = data.get((due.program, due.period, due.at_ms))
    if one is None:
        return due
    return replace(due, count=one.sites, some=one.some, missing=one.missing, since_ms=one.since_ms)


def _due(some: list[_One], zone: str) -> Due:
    first = min(some, key=lambda one: one.at_ms)
    names = sorted({one.name for one in some})
    return Due(
        at_ms=first.at_ms, local=_local(first.at_ms, zone), what=first.what, program=first.program,
        period=first.period, count=len(names), some=tuple(names[:SOME]),
        lacking=dict(sorted(Counter(reason for one in some for reason in one.lacking).items())),
    )  # fmt: skip


def _enrollments(facts: Iterable[Fact]) -> Iterator[_One]:
    newest: dict[tuple[str, str, str], Enrollment] = {}
    for fact in facts:
        if isinstance(fact, Enrollment):
            key = (f"{fact.subject.kind}:{fact.subject.id}", fact.program, fact.period.name)
            known = newest.get(key)
            if known is None or (known.from_ms, known.revision) < (fact.from_ms, fact.revision):
                newest[key] = fact
    for fact in newest.values():
        if fact.status not in SETTLED:
            for deadline in fact.deadlines:
                yield _One(
                    at_ms=deadline.at_ms, what=deadline.what, program=fact.program, period=fact.period.name,
                    name=fact.subject.id, lacking=fact.reasons,
                )  # fmt: skip
        if fact.rate is not None and fact.rate.until_ms is not None:
            yield _One(
                at_ms=fact.rate.until_ms, what=RATE_ENDS, program=fact.program, period=fact.rate.key,
                name=fact.subject.id,
            )  # fmt: skip


def _consents(facts: Iterable[Fact]) -> Iterator[_One]:
    """The end of the last consent of each customer to each program that ends and was not withdrawn."""
    void: defaultdict[tuple[str, str], int] = defaultdict(lambda: -1)
    given: defaultdict[tuple[str, str], list[Consent]] = defaultdict(list)
    for fact in facts:
        if isinstance(fact, Withdrawal):
            void[fact.customer, fact.program] = max(void[fact.customer, fact.program], fact.at_ms)
        elif isinstance(fact, Consent):
            given[fact.customer, fact.program].append(fact)
    for (customer, program), some in given.items():
        ends = [one.expires_ms for one in some if one.given_ms > void[customer, program]]
        last = [end for end in ends if end is not None]
        if last and len(last) == len(ends):
            yield _One(at_ms=max(last), what=CONSENT_EXPIRES, program=program, period="", name=customer)


def _local(ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).astimezone(ZoneInfo(zone))
