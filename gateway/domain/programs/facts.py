"""What somebody stated about enrollments, customers and consents: facts, each from an instant on.

A fact is never changed. One with the same `key` and a higher `revision` takes its place; whoever stores facts gives
each revision once, to one fact. Of two facts about one thing that hold at an instant, the one that begins later counts,
and of those the one with the higher revision. So membership follows from which facts there are, not from the order in
which they came. Times are UTC ms; a fact holds from `from_ms` on until just before `until_ms` (None: until another one
says otherwise).
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from gateway.domain.errors import invariant

EVERY_PROGRAM = ""
"""The program of a preference that holds for all."""

FOREVER_MS = 1 << 62

FactKey = tuple[str | int, ...]


class EnrollmentStatus(IntEnum):
    """How far the enrollment of a battery is. `NONE`: nothing is stated; `UNKNOWN`: the peer said something that we do
    not know."""

    NONE = 0
    UNKNOWN = 1
    INELIGIBLE = 2
    CANDIDATE = 3
    PENDING = 4
    ELIGIBLE = 5
    ACTIVE = 6


class Preference(IntEnum):
    """Whether an owner takes part: `PAUSED` sits out a time, `LEAVING` leaves as soon as the program lets it. Nothing
    stated is `PARTICIPATE`, as it is with the aggregator."""

    PARTICIPATE = 0
    UNKNOWN = 1
    PAUSED = 2
    LEAVING = 3


class DispatchOption(StrEnum):
    """Whether a home is dispatched every day or on the few days that are worth most."""

    DAILY = "daily"
    TARGETED = "targeted"


class PayeeRole(StrEnum):
    """Who gets the money of a home."""

    OWNER = "owner"
    TENANT = "tenant"
    FINANCIER = "financier"


class SubjectKind(StrEnum):
    """What is enrolled: one battery, or the aggregator's record, behind which there may be several."""

    DEVICE = "device"
    LEAP_METER = "leap_meter"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Subject:
    """What is enrolled, by its id."""

    kind: SubjectKind
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPeriod:
    """A stretch of a program that is enrolled for as a whole, such as a season or a month."""

    name: str
    from_ms: int
    until_ms: int

    def __post_init__(self) -> None:
        invariant(self.from_ms < self.until_ms, "a delivery period ends after it begins")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """Something is to be done by `at_ms`; `what` such as `enrollment` or `activation`."""

    what: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLock:
    """The rate that an enrollment locked when it was made (its vintage), and until when."""

    key: str
    locked_ms: int
    until_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """The enrollment of a subject in a program for a delivery period, from `from_ms` until the period's end.
    `reasons`: why it is ineligible or what it lacks; `peer_status`: the peer's own word where we do not know it."""

    subject: Subject
    program: str
    period: DeliveryPeriod
    from_ms: int
    revision: int
    status: EnrollmentStatus
    reasons: tuple[str, ...] = ()
    peer_status: str = ""
    market_group: str = ""
    deadlines: tuple[Deadline, ...] = ()
    rate: RateLock | None = None
    dispatch: DispatchOption | None = None

    @property
    def key(self) -> FactKey:
        return (self.subject.kind, self.subject.id, self.program, self.period.name, self.from_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerPreference:
    """What the owner of a subject wants of a program, or of all of them (`EVERY_PROGRAM`)."""

    subject: Subject
    from_ms: int
    revision: int
    preference: Preference
    program: str = EVERY_PROGRAM
    until_ms: int | None = None
    peer_preference: str = ""

    @property
    def key(self) -> FactKey:
        return (self.subject.kind, self.subject.id, self.program, self.from_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A customer has a subject: the home is theirs, or they live in it."""

    subject: Subject
    customer: str
    from_ms: int
    revision: int
    until_ms: int | None = None

    @property
    def key(self) -> FactKey:
        return (self.subject.kind, self.subject.id, self.from_ms)

    def holds(self, at_ms: int) -> bool:
        return self.from_ms <= at_ms and (self.until_ms is None or at_ms < self.until_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payee:
    """Who is paid for a subject, apart from whose customer it is."""

    subject: Subject
    payee: str
    role: PayeeRole
    from_ms: int
    revision: int
    until_ms: int | None = None

    @property
    def key(self) -> FactKey:
        return (self.subject.kind, self.subject.id, self.from_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterDevice:
    """A battery is behind a meter of the aggregator. It may be behind several at once."""

    meter: str
    device: str
    from_ms: int
    revision: int
    until_ms: int | None = None

    @property
    def key(self) -> FactKey:
        return (self.meter, self.device, self.from_ms)

    def holds(self, at_ms: int) -> bool:
        return self.from_ms <= at_ms and (self.until_ms is None or at_ms < self.until_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """A customer consented to a program. `document`: the SHA-256 of what was agreed to; `by`: who noted it."""

    customer: str
    program: str
    document: str
    given_ms: int
    revision: int
    by: str
    expires_ms: int | None = None

    @property
    def key(self) -> FactKey:
        return (self.customer, self.program, self.document, self.given_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """A customer withdrew every consent to a program that was given until `at_ms`. One that is given later counts."""

    customer: str
    program: str
    at_ms: int
    revision: int
    by: str

    @property
    def key(self) -> FactKey:
        return (self.customer, self.program, self.at_ms)


Fact = Enrollment | OwnerPreference | Holding | Payee | MeterDevice | Consent | Withdrawal
