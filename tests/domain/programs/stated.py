"""Facts in a few words, and membership worked out the slow way: one battery, one instant, from a set of facts."""

from collections.abc import Iterable

from gateway.domain.programs.enrollment import ConsentState, LeftOut
from gateway.domain.programs.facts import (
    Consent,
    DeliveryPeriod,
    Enrollment,
    EnrollmentStatus,
    Fact,
    Holding,
    MeterDevice,
    OwnerPreference,
    Preference,
    Subject,
    SubjectKind,
    Withdrawal,
)

DAY_MS = 86_400_000
PROGRAM = "dsgs"
SEASON = DeliveryPeriod(name="season", from_ms=0, until_ms=100 * DAY_MS)
LEFT_BY = {
    EnrollmentStatus.NONE: LeftOut.NOT_ENROLLED,
    EnrollmentStatus.UNKNOWN: LeftOut.STATUS_UNKNOWN,
    EnrollmentStatus.INELIGIBLE: LeftOut.INELIGIBLE,
    EnrollmentStatus.CANDIDATE: LeftOut.NOT_ACTIVE,
    EnrollmentStatus.PENDING: LeftOut.NOT_ACTIVE,
    EnrollmentStatus.ELIGIBLE: LeftOut.NOT_ACTIVE,
    EnrollmentStatus.ACTIVE: LeftOut.NOT,
}


def device(name: str) -> Subject:
    return Subject(kind=SubjectKind.DEVICE, id=name)


def meter(name: str) -> Subject:
    return Subject(kind=SubjectKind.LEAP_METER, id=name)


def enrolled(
    subject: Subject,
    status: EnrollmentStatus = EnrollmentStatus.ACTIVE,
    *,
    from_ms: int = 0,
    revision: int = 1,
    period: DeliveryPeriod = SEASON,
    program: str = PROGRAM,
) -> Enrollment:
    return Enrollment(
        subject=subject, program=program, period=period, from_ms=from_ms, revision=revision, status=status
    )  # fmt: skip


def held(
    subject: Subject, customer: str, *, from_ms: int = 0, until_ms: int | None = None, revision: int = 2
) -> Holding:
    return Holding(subject=subject, customer=customer, from_ms=from_ms, until_ms=until_ms, revision=revision)


def consented(
    customer: str, *, given_ms: int = 0, expires_ms: int | None = None, revision: int = 3, program: str = PROGRAM
) -> Consent:
    return Consent(
        customer=customer, program=program, document="0" * 64, given_ms=given_ms, expires_ms=expires_ms, by="clerk",
        revision=revision,
    )  # fmt: skip


def withdrawn(customer: str, at_ms: int, *, revision: int = 4, program: str = PROGRAM) -> Withdrawal:
    return Withdrawal(customer=customer, program=program, at_ms=at_ms, revision=revision, by="owner")


def standing(facts: Iterable[Fact], name: str, program: str, at_ms: int) -> tuple[EnrollmentStatus, LeftOut]:
    """How a battery stands in a program at an instant, and why it is left out."""
    newest: dict[tuple[type, object], Fact] = {}
    for fact in facts:
        key = (type(fact), fact.key)
        if key not in newest or newest[key].revision < fact.revision:
            newest[key] = fact
    known = list(newest.values())
    own = device(name)
    behind = sorted(
        (f for f in known if isinstance(f, MeterDevice) and f.device == name and _holds(f.from_ms, f.until_ms, at_ms)),
        key=lambda f: (f.from_ms, f.revision),
    )
    meters = [meter(f.meter) for f in behind]
    status = _status(known, own, program, at_ms)
    if status is None:
        found = [one for of in meters if (one := _status(known, of, program, at_ms)) is not None]
        status = max(found, default=EnrollmentStatus.NONE)
    customer = _customer(known, own, at_ms)
    if customer is None:
        through = [
            (_status(known, of, program, at_ms) or EnrollmentStatus.NONE, at, who)
            for at, of in enumerate(meters)
            if (who := _customer(known, of, at_ms)) is not None
        ]
        customer = max(through)[2] if through else None
    preference = max(
        (_preference(known, of, scope, at_ms) for of in (own, *meters) for scope in ("", program)),
        default=Preference.PARTICIPATE,
    )
    consent = _consent(known, customer, program, at_ms)
    if preference is Preference.UNKNOWN:
        return status, LeftOut.PREFERENCE_UNKNOWN
    if preference is not Preference.PARTICIPATE:
        return status, LeftOut.OPTED_OUT
    if consent is not ConsentState.VALID:
        return status, LeftOut[f"CONSENT_{consent.name}"]
    return status, LEFT_BY[status]


def _holds(from_ms: int, until_ms: int | None, at_ms: int) -> bool:
    return from_ms <= at_ms and (until_ms is None or at_ms < until_ms)


def _status(known: list[Fact], of: Subject, program: str, at_ms: int) -> EnrollmentStatus | None:
    found = [
        (max(f.from_ms, f.period.from_ms), f.revision, f.status)
        for f in known
        if isinstance(f, Enrollment) and f.subject == of and f.program == program
        and _holds(max(f.from_ms, f.period.from_ms), f.period.until_ms, at_ms)
    ]  # fmt: skip
    return max(found)[2] if found else None


def _customer(known: list[Fact], of: Subject, at_ms: int) -> str | None:
    found = [
        (f.from_ms, f.revision, f.customer)
        for f in known
        if isinstance(f, Holding) and f.subject == of and _holds(f.from_ms, f.until_ms, at_ms)
    ]
    return max(found)[2] if found else None


def _preference(known: list[Fact], of: Subject, scope: str, at_ms: int) -> Preference:
    found = [
        (f.from_ms, f.revision, f.preference)
        for f in known
        if isinstance(f, OwnerPreference) and f.subject == of and f.program == scope
        and _holds(f.from_ms, f.until_ms, at_ms)
    ]  # fmt: skip
    return max(found)[2] if found else Preference.PARTICIPATE


def _consent(known: list[Fact], customer: str | None, program: str, at_ms: int) -> ConsentState:
    void = [
        f.at_ms
        for f in known
        if isinstance(f, Withdrawal) and f.customer == customer and f.program == program and f.at_ms <= at_ms
    ]
    states = [ConsentState.MISSING]
    for f in known:
        if isinstance(f, Consent) and f.customer == customer and f.program == program and f.given_ms <= at_ms:
            if void and f.given_ms <= max(void):
                states.append(ConsentState.WITHDRAWN)
            else:
                ends = f.expires_ms is not None and at_ms >= f.expires_ms
                states.append(ConsentState.EXPIRED if ends else ConsentState.VALID)
    return max(states)
