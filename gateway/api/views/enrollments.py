"""Facts about programs as REST tells them."""

import math
from collections.abc import Sequence
from dataclasses import asdict

from gateway.api.enrollment_models import (
    ConsentBody,
    DeadlineState,
    EligibilityState,
    EnrollmentState,
    HeldState,
    MembershipState,
    PayeeState,
    PreferenceState,
    TableReportBody,
)
from gateway.api.models import BadRowBody, RowFaultBody
from gateway.domain.programs.eligibility import unfit_names
from gateway.domain.programs.enrollment import ConsentState, EnrollmentBook, LeftOut, in_force
from gateway.domain.programs.facts import (
    Consent,
    Enrollment,
    EnrollmentStatus,
    Holding,
    OwnerPreference,
    Payee,
    Preference,
    Subject,
    Withdrawal,
)
from gateway.ports.programs import StoredFact
from gateway.schemas.interval_rows import rfc3339
from gateway.services.devices.import_rows import MAX_REPORTED
from gateway.services.programs.eligibility import EligibilityRow
from gateway.services.programs.enrollment import TableReport


def table_report(done: TableReport) -> TableReportBody:
    return TableReportBody(
        rows=done.rows,
        changed=done.changed,
        unchanged=done.unchanged,
        personal=done.personal,
        unknown_programs=list(done.unknown_programs),
        rejected=[
            BadRowBody(line=row.line, problem=row.problem, faults=[RowFaultBody(**asdict(one)) for one in row.faults])
            for row in done.bad[:MAX_REPORTED]
        ],
        rejected_total=len(done.bad),
    )


def enrollment_state(stored: StoredFact, fact: Enrollment) -> EnrollmentState:
    rate = fact.rate
    return EnrollmentState(
        kind=fact.subject.kind, subject=fact.subject.id, program=fact.program, delivery_period=fact.period.name,
        period_start=rfc3339(fact.period.from_ms), period_end=rfc3339(fact.period.until_ms),
        since=rfc3339(fact.from_ms), status=fact.status.name.lower(), peer_status=fact.peer_status or None,
        reasons=list(fact.reasons), market_group=fact.market_group or None,
        deadlines=[DeadlineState(what=one.what, at=rfc3339(one.at_ms)) for one in fact.deadlines],
        rate_key=None if rate is None else rate.key, rate_locked=None if rate is None else rfc3339(rate.locked_ms),
        rate_locked_until=None if rate is None else _moment(rate.until_ms),
        dispatch_option=None if fact.dispatch is None else fact.dispatch.value,
        noted=rfc3339(stored.noted_ms), by=stored.by,
    )  # fmt: skip


def preference_state(fact: OwnerPreference) -> PreferenceState:
    return PreferenceState(
        program=fact.program or None, preference=fact.preference.name.lower(),
        peer_preference=fact.peer_preference or None, since=rfc3339(fact.from_ms), until=_moment(fact.until_ms),
    )  # fmt: skip


def eligibility_state(row: EligibilityRow) -> EligibilityState:
    return EligibilityState(
        device=row.device, eligible=not row.unfit, reasons=unfit_names(row.unfit), power_kw=_kilo(row.power_w),
        capacity_kwh=_kilo(row.capacity_wh), measured_pct=round(row.measured_pct, 2),
    )  # fmt: skip


def memberships(
    book: EnrollmentBook, subject: Subject, known: Sequence[Enrollment], at_ms: int
) -> list[MembershipState]:
    """How a subject stands in every program that is known. `known`: its own enrollments and those of its meters."""
    number = book.number_of(subject)
    if number < 0:
        return []
    found = []
    for program in book.programs():
        of = book.membership(program, at_ms)
        left_out = LeftOut(int(of.left_out[number]))
        terms = _terms([one for one in known if one.program == program], subject, at_ms)
        found.append(
            MembershipState(
                program=program, takes_part=left_out is LeftOut.NOT,
                left_out=None if left_out is LeftOut.NOT else left_out.name.lower(),
                status=EnrollmentStatus(int(of.status[number])).name.lower(),
                consent=ConsentState(int(of.consent[number])).name.lower(),
                preference=Preference(int(of.preference[number])).name.lower(),
                delivery_period=None if terms is None else terms.period.name,
                market_group=None if terms is None else terms.market_group or None,
                rate_key=None if terms is None or terms.rate is None else terms.rate.key,
                dispatch_option=None if terms is None or terms.dispatch is None else terms.dispatch.value,
            )
        )  # fmt: skip
    return found


def _terms(known: Sequence[Enrollment], subject: Subject, at_ms: int) -> Enrollment | None:
    """The enrollment that counts: the subject's own, else that of the meter whose enrollment is furthest."""
    own = in_force((one for one in known if one.subject == subject), at_ms)
    if own is not None:
        return own
    others = {one.subject for one in known if one.subject != subject}
    found = [in_force((one for one in known if one.subject == other), at_ms) for other in sorted(others)]
    return max((one for one in found if one is not None), key=lambda one: one.status, default=None)


def held_state(fact: Holding) -> HeldState:
    return HeldState(
        kind=fact.subject.kind, subject=fact.subject.id, since=rfc3339(fact.from_ms), until=_moment(fact.until_ms)
    )


def payee_state(fact: Payee) -> PayeeState:
    return PayeeState(
        kind=fact.subject.kind, subject=fact.subject.id, payee=fact.payee, role=fact.role.value,
        since=rfc3339(fact.from_ms), until=_moment(fact.until_ms),
    )  # fmt: skip


def consent_body(stored: StoredFact, fact: Consent | Withdrawal) -> ConsentBody:
    given = fact if isinstance(fact, Consent) else None
    return ConsentBody(
        customer=fact.customer, program=fact.program, document_sha256=None if given is None else given.document,
        given=None if given is None else rfc3339(given.given_ms),
        expires=None if given is None else _moment(given.expires_ms),
        withdrawn=rfc3339(fact.at_ms) if isinstance(fact, Withdrawal) else None, by=fact.by,
        noted=rfc3339(stored.noted_ms),
    )  # fmt: skip


def _kilo(value: float) -> float | None:
    return round(value / 1000, 3) if math.isfinite(value) else None


def _moment(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
