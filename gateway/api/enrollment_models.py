"""Bodies of the REST answers about programs: enrollments, customers and consents. None holds personal data."""

from typing import Any

from gateway.api.models import BadRowBody
from gateway.schemas.body import Body
from gateway.schemas.event import Moment


class TableReportBody(Body):
    """What an import of a table did: rows that say something new (`changed`), that are known already (`unchanged`), and
    every bad one. `personal`: customers whose personal data was kept. `unknown_programs`: names in good rows that
    neither the configuration nor a file knows. `rejected_total` counts those too that `rejected` has no room for."""

    rows: int
    changed: int
    unchanged: int
    personal: int
    unknown_programs: list[str]
    rejected: list[BadRowBody]
    rejected_total: int


class DeadlineState(Body):
    """What is to be done by when."""

    what: str
    at: Moment


class EnrollmentState(Body):
    """What is stated of a subject's enrollment in a program for a delivery period, from `since` on. `status` is
    `unknown` where the peer has a word for it that we do not know: `peer_status`."""

    kind: str
    subject: str
    program: str
    delivery_period: str
    period_start: Moment
    period_end: Moment
    since: Moment
    status: str
    peer_status: str | None
    reasons: list[str]
    market_group: str | None
    deadlines: list[DeadlineState]
    rate_key: str | None
    rate_locked: Moment | None
    rate_locked_until: Moment | None
    dispatch_option: str | None
    noted: Moment
    by: str


class EnrollmentList(Body):
    """A page of statements, in the order in which they were first made; `next` is the `after` of the next page."""

    enrollments: list[EnrollmentState]
    next: int | None


class PreferenceState(Body):
    """What an owner wants of a program (null: of all) while that holds."""

    program: str | None
    preference: str
    peer_preference: str | None
    since: Moment
    until: Moment | None


class MembershipState(Body):
    """How a subject stands in a program now; `left_out`: why it does not take part, null = it does. What the enrollment
    says that holds now is null where there is none; of a device that may be the enrollment of a meter it is behind."""

    program: str
    takes_part: bool
    left_out: str | None
    status: str
    consent: str
    preference: str
    delivery_period: str | None
    market_group: str | None
    rate_key: str | None
    dispatch_option: str | None


class EnrollmentDetail(Body):
    """Everything that is known of the enrollments of a device, or of a meter of the aggregator."""

    id: str
    memberships: list[MembershipState]
    enrollments: list[EnrollmentState]
    preferences: list[PreferenceState]


class EligibilityState(Body):
    """Whether a program may have a device, and if not, why. `power_kw`: the lower of inverter and battery;
    `measured_pct`: the part of the last `days` that its intervals cover; null = unknown."""

    device: str
    eligible: bool
    reasons: list[str]
    power_kw: float | None
    capacity_kwh: float | None
    measured_pct: float


class EligibilityList(Body):
    """A page of all registered devices. `days`: as many before today are looked at for telemetry. `unverified`: which
    of the values that the program asks for today rest on no text."""

    program: str
    days: int
    unverified: list[str]
    total: int
    devices: list[EligibilityState]
    next: int | None


class FactChangeState(Body):
    """What a commit changed: a fact by its key, before and after (null = there was none). The kinds `customer`,
    `personal` and `erased` name a customer alone: no personal data is told."""

    place: int
    kind: str
    key: list[str | int]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class FactChangeList(Body):
    """A page of what one commit changed. `sha256`: of all that is stored of it now; the audit trail has the same."""

    batch: str
    sha256: str
    changes: list[FactChangeState]
    next: int | None


class DueState(Body):
    """What is due of a program on one of its own days: the first of it `at`, `local` in its time zone. `count` subjects
    or customers, `some` of them by name; `lacking` counts what they lack, as the peer says. `delivery_period` is the
    rate's key where a locked rate ends. What a program's file says (`data`, `nomination opens`, `nomination`) is of the
    program as a whole; `unverified`: no text was found that says so."""

    at: Moment
    local: Moment
    what: str
    program: str
    delivery_period: str | None
    count: int
    some: list[str]
    lacking: dict[str, int]
    unverified: bool
    missing_intervals: int | None = None
    missing_since: Moment | None = None


class DueList(Body):
    """What is due, the first one first."""

    deadlines: list[DueState]


class DataDueState(Body):
    """Data of a delivery period that has begun, due at `at`: of the intervals of its days that are over, `owed` is how
    many there should be and `missing` how many are not known or not measured enough, at `sites` sites, of which `some`
    lack the most, since `since`. `waiting_days`: days that are over and still wait for late data."""

    delivery_period: str
    at: Moment
    owed: int
    missing: int
    sites: int
    some: list[str]
    since: Moment | None
    waiting_days: int


class NextEvent(Body):
    """The event of a program that runs, or begins next."""

    id: str
    source: str
    state: str
    start: Moment


class ParticipationState(Body):
    """Whether a device takes part in the program's next event as things stand. `left_out`: what enrollment says against
    it, also where that is only observed; `limits`: why it could give nothing now; `excluded_by`: exclusions of its
    territory within the time of the event."""

    device: str
    takes_part: bool
    left_out: str | None
    limits: list[str]
    excluded_by: list[str]
    status: str
    consent: str


class ParticipationList(Body):
    """The devices that a program's running or next event names, and those that are enrolled in it. `left_out` counts
    all of them by what enrollment says against them, `excluded` those whose territory is excluded within the time of
    the event; `enrollment`: whether that is enforced or observed, or `unknown`, where neither the configuration nor a
    file knows the program; `data_due`: what is missing for the program's data deadlines that have not passed."""

    program: str
    enrollment: str
    event: NextEvent | None
    total: int
    left_out: dict[str, int]
    excluded: int
    data_due: list[DataDueState] = []
    devices: list[ParticipationState]
    next: int | None


class CustomerState(Body):
    """A customer by reference."""

    customer: str
    since: Moment
    erased: Moment | None


class CustomerList(Body):
    """A page of customers by reference; `next` is the `after` of the next page."""

    customers: list[CustomerState]
    next: str | None


class HeldState(Body):
    """What a customer has, or had."""

    kind: str
    subject: str
    since: Moment
    until: Moment | None


class PayeeState(Body):
    """Who is paid for a subject."""

    kind: str
    subject: str
    payee: str
    role: str
    since: Moment
    until: Moment | None


class ConsentBody(Body):
    """A consent (`given`, with the SHA-256 of its document) or a withdrawal (`withdrawn`) of a customer."""

    customer: str
    program: str
    document_sha256: str | None
    given: Moment | None
    expires: Moment | None
    withdrawn: Moment | None
    by: str
    noted: Moment


class ConsentList(Body):
    """A page of consents and withdrawals, in the order in which they were noted; `next` is the `after` of the next
    page."""

    consents: list[ConsentBody]
    next: int | None


class CustomerDetail(Body):
    """What stands under a customer's reference. `personal_data`: whether who they are is kept, apart from all this."""

    customer: str
    personal_data: bool
    holdings: list[HeldState]
    payees: list[PayeeState]
    consents: list[ConsentBody]
    required_actions: list[str]


class Erased(Body):
    """A customer whose personal data is erased; `had`: whether there was any."""

    customer: str
    had: bool
