"""Turns rows into facts: what is new, what corrects something, what is known already, and what cannot be.

Importing the same table again states nothing. Pure: what is known, the time and the revisions are given.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from gateway.domain.programs.facts import (
    FOREVER_MS,
    Consent,
    Deadline,
    DeliveryPeriod,
    Enrollment,
    EnrollmentStatus,
    Fact,
    FactKey,
    Holding,
    MeterDevice,
    OwnerPreference,
    Payee,
    Preference,
    RateLock,
    Subject,
    SubjectKind,
    Withdrawal,
)
from gateway.services.devices.row_faults import RowFault
from gateway.services.programs.peer_words import REASON, preference_of, status_of
from gateway.services.programs.rows import ConsentRow, CustomerRow, EnrollmentRow, end_ms, utc_ms

F = TypeVar("F", bound=Fact)

BINDING = (EnrollmentStatus.PENDING, EnrollmentStatus.ACTIVE)
"""Enrollments that keep a home out of an exclusive program."""

Exclusivity = Mapping[str, frozenset[str]]
"""The exclusivity groups of each program: a home is in one program of a group at most."""

NO_EXCLUSIVITY: Exclusivity = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class TableFacts:
    """The result of a table: facts to commit, bad rows by line, how many rows say nothing new, who customers are, and
    which programs its good rows name."""

    facts: list[Fact] = field(default_factory=list)
    bad: dict[int, list[RowFault]] = field(default_factory=dict)
    unchanged: int = 0
    people: dict[str, dict[str, str]] = field(default_factory=dict)
    customers: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)

    @property
    def taking_out(self) -> list[Fact]:
        """What takes somebody out of dispatch: it counts before it is durable."""
        return [
            fact
            for fact in self.facts
            if isinstance(fact, Withdrawal)
            or (isinstance(fact, OwnerPreference) and fact.preference is not Preference.PARTICIPATE)
        ]


class KnownFacts:
    """The newest fact of each key, grown by what a table adds."""

    def __init__(self, facts: Iterable[Fact], revision: Callable[[], int]) -> None:
        self._revision = revision
        self._of: dict[tuple[object, FactKey], Fact] = {}
        self._groups: defaultdict[tuple[object, FactKey], dict[FactKey, Fact]] = defaultdict(dict)
        for fact in facts:
            self._put(fact)

    def state(self, fact: F) -> F | None:
        """The fact with a revision of its own; None if it is known already."""
        known = self._of.get((type(fact), fact.key))
        if known is not None and replace(fact, revision=known.revision) == known:
            return None
        stated = replace(fact, revision=self._revision())
        self._put(stated)
        return stated

    def group(self, kind: type[F], *of: str | int) -> list[F]:
        """The facts of a kind whose key begins with these members, the one that counts last at the end."""
        found = [fact for fact in self._groups[kind, of].values() if isinstance(fact, kind)]
        return sorted(found, key=lambda fact: (fact.key[-1], fact.revision))

    def all(self, kind: type[F]) -> list[F]:
        return [fact for (of, _), fact in self._of.items() if of is kind and isinstance(fact, kind)]

    def _put(self, fact: Fact) -> None:
        self._of[type(fact), fact.key] = fact
        self._groups[type(fact), fact.key[:-1]][fact.key] = fact


def enrollments(
    rows: Sequence[tuple[int, EnrollmentRow]],
    known: KnownFacts,
    *,
    now_ms: int,
    program_of: Mapping[str, str],
    exclusivity: Exclusivity = NO_EXCLUSIVITY,
) -> TableFacts:
    """What a table of enrollments states. `program_of`: our program for an id of the peer, which is its own name
    where that is not given."""
    out = TableFacts()
    homes = _Homes(known, exclusivity)
    for _, row in rows:
        homes.note_behind(row.meter_id, row.own_device, _begins_ms(row))
    first: dict[FactKey, tuple[int, EnrollmentRow]] = {}
    said: set[FactKey] = set()
    for line, row in rows:
        subject = row.subject
        if subject is None:
            continue
        program = row.program or program_of.get(row.program_identifier or "", row.program_identifier or "")
        since = 0 if row.since is None else utc_ms(row.since)
        place = (subject.kind, subject.id, program, row.delivery_period, since)
        before = first.setdefault(place, (line, row))
        if _but_device(before[1]) != _but_device(row):
            out.bad[line] = [
                RowFault(column="enrollment_status", problem=f"line {before[0]} says something else of it")
            ]
            continue
        wanted = _enrollment(row, subject, program)
        conflict = homes.conflict(wanted)
        if conflict is None and not _is_behind(row, known):
            conflict = homes.parted(row.meter_id, row.own_device, _begins_ms(row))
        if conflict is not None:
            out.bad[line] = [conflict]
            continue
        stated = _behind(wanted, row, known)
        if place not in said:
            stated = [*_restated(wanted, row, known, now_ms), *_preference(wanted, row, known, now_ms), *stated]
            said.add(place)
        out.facts += stated
        out.programs.add(program)
        out.unchanged += not stated
    return out


def _but_device(row: EnrollmentRow) -> EnrollmentRow:
    """What a row says of its meter, whichever of the devices behind it the row names."""
    return row if row.meter_id is None else row.model_copy(update={"device": None, "partner_reference": None})


def _enrollment(row: EnrollmentRow, subject: Subject, program: str) -> Enrollment:
    status, word = status_of(row.enrollment_status)
    told = [reason.strip() for reason in row.reasons.split(";") if reason.strip()]
    beyond = REASON.get(row.enrollment_status.upper())
    deadlines = (("enrollment", row.enrollment_deadline_date_time), ("activation", row.activation_date_time))
    return Enrollment(
        subject=subject,
        program=program,
        period=DeliveryPeriod(
            name=row.delivery_period,
            from_ms=utc_ms(row.delivery_period_start_date_time),
            until_ms=utc_ms(row.delivery_period_end_date_time),
        ),
        from_ms=0,
        revision=0,
        status=status,
        peer_status=word,
        reasons=tuple([*told, beyond] if beyond is not None and beyond not in told else told),
        market_group=row.market_group_id or "",
        deadlines=tuple(Deadline(what=what, at_ms=utc_ms(at)) for what, at in deadlines if at is not None),
        rate=None
        if row.rate_key is None or row.rate_locked is None
        else RateLock(key=row.rate_key, locked_ms=utc_ms(row.rate_locked), until_ms=end_ms(row.rate_locked_until)),
        dispatch=row.dispatch_option,
    )


def _restated(wanted: Enrollment, row: EnrollmentRow, known: KnownFacts, now_ms: int) -> list[Fact]:
    """The enrollment from when it is so; and where the period itself is another one now, what is known of it anew."""
    subject, period = wanted.subject, wanted.period
    group = known.group(Enrollment, subject.kind, subject.id, wanted.program, period.name)
    moved = [known.state(replace(fact, period=period)) for fact in group if fact.period != period]
    # what is stated of a later time is no word about now
    begin_ms = max(now_ms, period.from_ms)
    begun = [fact for fact in group if fact.from_ms <= begin_ms]
    newest = replace(begun[-1], period=period) if begun else None
    if row.since is not None:
        from_ms = utc_ms(row.since)
    elif newest is None:
        from_ms = period.from_ms
    elif replace(newest, from_ms=0, revision=0) == wanted or now_ms >= period.until_ms:
        from_ms = newest.from_ms
    else:
        from_ms = begin_ms
    return _some([*moved, known.state(replace(wanted, from_ms=from_ms))])


def _preference(wanted: Enrollment, row: EnrollmentRow, known: KnownFacts, now_ms: int) -> list[Fact]:
    if row.participation_preference is None:
        return []
    preference, word = preference_of(row.participation_preference)
    group = known.group(OwnerPreference, wanted.subject.kind, wanted.subject.id, wanted.program)
    newest = group[-1] if group else None
    until_ms = end_ms(row.participation_end_time)
    if row.participation_start_time is not None:
        from_ms = utc_ms(row.participation_start_time)
    elif newest is None:
        from_ms = wanted.period.from_ms
    elif (newest.preference, newest.peer_preference, newest.until_ms) == (preference, word, until_ms):
        from_ms = newest.from_ms
    else:
        from_ms = max(now_ms, newest.from_ms)
    fact = OwnerPreference(
        subject=wanted.subject, program=wanted.program, from_ms=from_ms, until_ms=until_ms, preference=preference,
        peer_preference=word, revision=0,
    )  # fmt: skip
    return _some([known.state(fact)])


def _begins_ms(row: EnrollmentRow) -> int:
    """From when a row is so."""
    return utc_ms(row.delivery_period_start_date_time if row.since is None else row.since)


def _behind(wanted: Enrollment, row: EnrollmentRow, known: KnownFacts) -> list[Fact]:
    device, meter = row.own_device, row.meter_id
    if device is None or meter is None:
        return []
    if _is_behind(row, known):
        return []
    return _some([known.state(MeterDevice(meter=meter, device=device, from_ms=_begins_ms(row), revision=0))])


def _is_behind(row: EnrollmentRow, known: KnownFacts) -> bool:
    """Whether the row's home is known to be behind its meter from when the row is so."""
    links = known.group(MeterDevice, row.meter_id or "", row.own_device or "")
    return any(link.holds(_begins_ms(row)) for link in links)


_Home = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """A home is in a program from `from_ms` until `until_ms`, UTC: for its period, as long as it is behind the
    meter."""

    enrolled: Enrollment
    from_ms: int
    until_ms: int


class _Homes:
    """Which programs homes are bound to, to find those that exclude each other."""

    def __init__(self, known: KnownFacts, exclusivity: Exclusivity) -> None:
        self._exclusivity = exclusivity
        # by meter and device: since when it is behind it, by when that ends
        self._behind: defaultdict[str, dict[str, dict[int, int]]] = defaultdict(dict)
        self._bound: defaultdict[_Home, dict[tuple[Subject, str, str, int], _Bound]] = defaultdict(dict)
        for fact in known.all(MeterDevice):
            self.note_behind(fact.meter, fact.device, fact.from_ms, fact.until_ms)
        for enrolled in sorted(known.all(Enrollment), key=lambda fact: (fact.from_ms, fact.revision)):
            self._note(enrolled)

    def note_behind(self, meter: str | None, device: str | None, from_ms: int, until_ms: int | None = None) -> None:
        if meter is not None and device is not None:
            since_ms = self._behind[meter].setdefault(device, {})
            over_ms = FOREVER_MS if until_ms is None else until_ms
            since_ms[over_ms] = min(from_ms, since_ms.get(over_ms, from_ms))

    def conflict(self, wanted: Enrollment) -> RowFault | None:
        """Why a home cannot be in this program too; notes that it is where it can."""
        if wanted.status in BINDING:
            for home, bound in self._of(wanted):
                problem = self._excluded(home, bound)
                if problem is not None:
                    return RowFault(column="program", problem=problem)
        self._note(wanted)
        return None

    def parted(self, meter: str | None, device: str | None, from_ms: int) -> RowFault | None:
        """Why a home cannot be behind a meter from then on: a program that one of them is in excludes one that the
        other is in."""
        if meter is not None and device is not None:
            for bound in self._bound[str(SubjectKind.LEAP_METER), meter].values():
                since = replace(bound, from_ms=max(from_ms, bound.from_ms))
                problem = self._excluded((str(SubjectKind.DEVICE), device), since)
                if problem is not None:
                    return RowFault(column="meter_id", problem=problem)
        return None

    def _excluded(self, home: _Home, wanted: _Bound) -> str | None:
        program = wanted.enrolled.program
        groups = self._exclusivity.get(program, frozenset())
        for bound in self._bound[home].values():
            other = bound.enrolled
            shared = groups & self._exclusivity.get(other.program, frozenset())
            at_once = max(bound.from_ms, wanted.from_ms) < min(bound.until_ms, wanted.until_ms)
            if other.program != program and shared and at_once:
                return (
                    f"{home[1]} is {other.status.name.lower()} in {other.program} in {other.period.name}, which "
                    f"excludes {program} ({', '.join(sorted(shared))})"
                )
        return None

    def _note(self, enrolled: Enrollment) -> None:
        if not self._exclusivity.get(enrolled.program):
            return
        for home, bound in self._of(enrolled):
            place = (enrolled.subject, enrolled.program, enrolled.period.name, bound.until_ms)
            if enrolled.status in BINDING:
                self._bound[home][place] = bound
            else:
                self._bound[home].pop(place, None)

    def _of(self, enrolled: Enrollment) -> Iterator[tuple[_Home, _Bound]]:
        """Whom an enrollment binds, and when: its subject, and every home while it is behind that meter."""
        subject, period = enrolled.subject, enrolled.period
        whole = _Bound(enrolled=enrolled, from_ms=period.from_ms, until_ms=period.until_ms)
        yield (str(subject.kind), subject.id), whole
        if subject.kind is not SubjectKind.LEAP_METER or subject.id not in self._behind:
            return
        for device, spans in sorted(self._behind[subject.id].items()):
            for until_ms, since_ms in spans.items():
                part = replace(whole, from_ms=max(since_ms, whole.from_ms), until_ms=min(until_ms, whole.until_ms))
                if part.from_ms < part.until_ms:
                    yield (str(SubjectKind.DEVICE), device), part


def customers(
    rows: Sequence[tuple[int, CustomerRow]], known: KnownFacts, *, erased: frozenset[str], personal: bool
) -> TableFacts:
    """What a table of customers states. `erased`: references whose data was erased; `personal`: whether there is a
    place for personal data."""
    out = TableFacts()
    accounts: dict[str, tuple[int, str]] = {}
    people: dict[str, tuple[int, dict[str, str]]] = {}
    held: dict[FactKey, tuple[int, str]] = {}
    for line, row in rows:
        faults = _person_faults(line, row, accounts, people, erased=erased, personal=personal)
        holding, payee = _held(row)
        if holding is not None:
            before = held.setdefault(holding.key, (line, row.customer))
            if before[1] != row.customer:
                faults.append(RowFault(column="customer", problem=f"line {before[0]} gives it to another one"))
        if faults:
            out.bad[line] = faults
            continue
        stated = _some([
            None if holding is None else known.state(holding), None if payee is None else known.state(payee)
        ])  # fmt: skip
        out.facts += stated
        out.customers.add(row.customer)
        if row.person:
            people[row.customer] = (line, row.person)
            out.people[row.customer] = row.person
        out.unchanged += not stated and not row.person
    return out


def _person_faults(
    line: int,
    row: CustomerRow,
    accounts: dict[str, tuple[int, str]],
    people: Mapping[str, tuple[int, dict[str, str]]],
    *,
    erased: frozenset[str],
    personal: bool,
) -> list[RowFault]:
    """What is wrong with who somebody is; no value is repeated."""
    faults = []
    if row.customer in erased:
        faults.append(RowFault(column="customer", problem="was erased; a reference is not used again"))
    if row.person and not personal:
        faults.append(
            RowFault(column=next(iter(row.person)), problem="there is no place for it without customers.personal_key")
        )
    account = row.electric_service_account_number
    if account is not None:
        before = accounts.setdefault(account, (line, row.customer))
        if before[1] != row.customer:
            faults.append(
                RowFault(
                    column="electric_service_account_number",
                    problem=f"line {before[0]} has it of another customer: the same one twice?",
                )
            )
    earlier = people.get(row.customer)
    if earlier is not None and row.person and earlier[1] != row.person:
        differs = sorted(
            name for name in {*earlier[1], *row.person} if earlier[1].get(name) != row.person.get(name)
        )  # fmt: skip
        faults.append(RowFault(column=differs[0], problem=f"line {earlier[0]} says something else of the customer"))
    return faults


def _held(row: CustomerRow) -> tuple[Holding | None, Payee | None]:
    subject = row.subject
    if subject is None or row.held_since is None:
        return None, None
    holding = Holding(
        subject=subject, customer=row.customer, from_ms=utc_ms(row.held_since), until_ms=end_ms(row.held_until),
        revision=0,
    )  # fmt: skip
    if row.payee is None or row.paid_since is None:
        return holding, None
    return holding, Payee(
        subject=subject, payee=row.payee, role=row.payee_role, from_ms=utc_ms(row.paid_since),
        until_ms=end_ms(row.paid_until), revision=0,
    )  # fmt: skip


def consents(rows: Sequence[tuple[int, ConsentRow]], known: KnownFacts) -> TableFacts:
    """What a table of consents states."""
    out = TableFacts()
    for _, row in rows:
        given = withdrawn = None
        if row.given is not None and row.document_sha256 is not None:
            given = known.state(
                Consent(
                    customer=row.customer, program=row.program, document=row.document_sha256,
                    given_ms=utc_ms(row.given), expires_ms=end_ms(row.expires), by=row.by, revision=0,
                )
            )  # fmt: skip
        if row.withdrawn is not None:
            withdrawn = known.state(
                Withdrawal(
                    customer=row.customer, program=row.program, at_ms=utc_ms(row.withdrawn), by=row.by, revision=0
                )
            )
        stated = _some([given, withdrawn])
        out.facts += stated
        out.programs.add(row.program)
        out.unchanged += not stated
    return out


def _some(facts: Iterable[Fact | None]) -> list[Fact]:
    return [fact for fact in facts if fact is not None]
