"""Who takes part in which program at an instant: a function of the facts that are known and of the instant alone.

A battery is enrolled itself, or through the meters of the aggregator that it is behind; what is stated of the battery
itself counts before what is stated of a meter, and of several meters the one whose enrollment is furthest. Its customer
is found the same way. It takes part if its enrollment is active, its customer's consent to the program is valid and
nobody who speaks for it sits out.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from gateway.domain.programs.facts import (
    EVERY_PROGRAM,
    FOREVER_MS,
    Consent,
    Enrollment,
    EnrollmentStatus,
    Fact,
    Holding,
    MeterDevice,
    OwnerPreference,
    Payee,
    Preference,
    Subject,
    SubjectKind,
    Withdrawal,
)
from gateway.domain.programs.timeline import NOTHING, Numbers, Those, Timeline
from gateway.domain.types import Bools, DeviceId, Ints

Codes = NDArray[np.uint8]
Places = NDArray[np.intp]
TOUCHED_MAX = 2_000
"""Facts, and subjects, that the book remembers as changed: of more than that everything is worked out anew."""


class ConsentState(IntEnum):
    """What a customer's consent to a program is worth at an instant."""

    MISSING = 0
    EXPIRED = 1
    WITHDRAWN = 2
    VALID = 3


class LeftOut(IntEnum):
    """Why a battery does not take part; `NOT` = it does."""

    NOT = 0
    OPTED_OUT = 1
    PREFERENCE_UNKNOWN = 2
    CONSENT_WITHDRAWN = 3
    CONSENT_EXPIRED = 4
    CONSENT_MISSING = 5
    INELIGIBLE = 6
    STATUS_UNKNOWN = 7
    NOT_ACTIVE = 8
    NOT_ENROLLED = 9


_OF_STATUS = np.zeros(len(EnrollmentStatus), dtype=np.uint8)
_OF_STATUS[EnrollmentStatus.NONE] = LeftOut.NOT_ENROLLED
_OF_STATUS[EnrollmentStatus.UNKNOWN] = LeftOut.STATUS_UNKNOWN
_OF_STATUS[EnrollmentStatus.INELIGIBLE] = LeftOut.INELIGIBLE
for _status in (EnrollmentStatus.CANDIDATE, EnrollmentStatus.PENDING, EnrollmentStatus.ELIGIBLE):
    _OF_STATUS[_status] = LeftOut.NOT_ACTIVE

_OF_CONSENT = np.zeros(len(ConsentState), dtype=np.uint8)
_OF_CONSENT[ConsentState.MISSING] = LeftOut.CONSENT_MISSING
_OF_CONSENT[ConsentState.EXPIRED] = LeftOut.CONSENT_EXPIRED
_OF_CONSENT[ConsentState.WITHDRAWN] = LeftOut.CONSENT_WITHDRAWN

_OF_PREFERENCE = np.zeros(len(Preference), dtype=np.uint8)
_OF_PREFERENCE[Preference.UNKNOWN] = LeftOut.PREFERENCE_UNKNOWN
_OF_PREFERENCE[[Preference.PAUSED, Preference.LEAVING]] = LeftOut.OPTED_OUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """How everybody stands in one program, by the number that the book gives a subject. It holds from `from_ms` until
    `until_ms` (UTC), as long as the book says nothing else. `stated_ms`: since when the status holds; `customer`: a
    number too, `NOTHING` = none is known."""

    status: Codes
    stated_ms: Ints
    consent: Codes
    preference: Codes
    customer: Numbers
    from_ms: int
    until_ms: int

    def take(self, numbers: Numbers) -> "Membership":
        """The same of these subjects, in this order; one that nobody knows (`NOTHING`) is enrolled nowhere."""
        known = numbers >= 0
        at = numbers[known]

        def taken(codes: Codes) -> Codes:
            out = np.zeros(len(numbers), dtype=np.uint8)
            out[known] = codes[at]
            return out

        customer = np.full(len(numbers), NOTHING, dtype=np.int32)
        customer[known] = self.customer[at]
        stated_ms = np.full(len(numbers), -FOREVER_MS, dtype=np.int64)
        stated_ms[known] = self.stated_ms[at]
        return Membership(
            status=taken(self.status), stated_ms=stated_ms, consent=taken(self.consent),
            preference=taken(self.preference), customer=customer, from_ms=self.from_ms, until_ms=self.until_ms,
        )  # fmt: skip

    def replaced(self, places: Numbers, others: "Membership") -> "Membership":
        """The same with what `others` says, one after the other, of these places; it holds while both do."""
        columns = {}
        for name in ("status", "stated_ms", "consent", "preference", "customer"):
            columns[name] = getattr(self, name).copy()
            columns[name][places] = getattr(others, name)
        since, until = max(self.from_ms, others.from_ms), min(self.until_ms, others.until_ms)
        return Membership(**columns, from_ms=since, until_ms=until)

    @property
    def mismatched(self) -> Bools:
        """Whose enrollment alone keeps them out: their consent is valid, and they do not sit out."""
        wanted = (_OF_CONSENT[self.consent] == LeftOut.NOT) & (_OF_PREFERENCE[self.preference] == LeftOut.NOT)
        out: Bools = wanted & (_OF_STATUS[self.status] != LeftOut.NOT)
        return out

    @property
    def left_out(self) -> Codes:
        """Why each does not take part (`LeftOut`): an owner's choice first, then consent, then enrollment."""
        out = _OF_PREFERENCE[self.preference]
        for codes in (_OF_CONSENT[self.consent], _OF_STATUS[self.status]):
            out = np.where(out == LeftOut.NOT, codes, out)
        return out


def in_force(enrollments: Iterable[Enrollment], at_ms: int) -> Enrollment | None:
    """What holds at an instant of several statements about one subject and program: its status, market group, locked
    rate and the rest; None = nothing does."""
    found = [
        (max(one.from_ms, one.period.from_ms), one.revision, one)
        for one in enrollments
        if max(one.from_ms, one.period.from_ms) <= at_ms < one.period.until_ms
    ]
    return max(found, key=lambda begun: begun[:2])[2] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ByMeter:
    """Who is behind which meter, by number, in the order of the meters, between two instants."""

    version: int
    from_ms: int
    until_ms: int
    meter: Numbers
    device: Numbers


class EnrollmentBook:
    """All facts, as columns. `version` grows with every fact that changes something, `subjects` with every subject;
    `meters`: how many of them are meters of the aggregator."""

    def __init__(self) -> None:
        self.version = 0
        self.meters = 0
        self._number_of: dict[Subject, int] = {}
        self._devices: dict[str, int] = {}
        self._customers: dict[str, int] = {}
        self._status: defaultdict[str, Timeline] = defaultdict(Timeline)
        self._preference: defaultdict[str, Timeline] = defaultdict(Timeline)
        self._consent: defaultdict[str, Timeline] = defaultdict(Timeline)
        self._withdrawn: defaultdict[str, Timeline] = defaultdict(Timeline)
        self._subjects: list[Subject] = []
        self._devices_of: defaultdict[int, set[int]] = defaultdict(set)
        self._had: defaultdict[int, set[int]] = defaultdict(set)
        self._touched: deque[tuple[int, ...]] = deque(maxlen=TOUCHED_MAX)
        self._holding = Timeline()
        self._behind = Timeline()
        self._by_meter: _ByMeter | None = None

    @property
    def subjects(self) -> int:
        """How many subjects have a number."""
        return len(self._number_of)

    def programs(self) -> list[str]:
        """Programs of which an enrollment or a consent is known, by name."""
        return sorted({*self._status, *self._consent})

    def customers(self) -> list[str]:
        """Customers by the number that the book gives them."""
        return [*self._customers]

    def number_of(self, subject: Subject) -> int:
        """The number of a subject, `NOTHING` if no fact names it."""
        return self._number_of.get(subject, NOTHING)

    def numbers(self, devices: Sequence[DeviceId]) -> Numbers:
        """The numbers of batteries, in this order."""
        known = self._devices.get
        return np.fromiter((known(device, NOTHING) for device in devices), np.int32, len(devices))

    def devices_of(self, meters: Sequence[str], at_ms: int) -> list[list[str]]:
        """The batteries behind each of these meters at an instant, by name."""
        known = self._by_meter
        if known is None or known.version != self.version or not known.from_ms <= at_ms < known.until_ms:
            held = self._behind.holding(at_ms)
            order = np.argsort(held.what, kind="stable")
            since, until = self._behind.edges(at_ms)
            known = self._by_meter = _ByMeter(
                version=self.version, from_ms=since, until_ms=until, meter=held.what[order], device=held.who[order]
            )
        numbers = [self.number_of(Subject(kind=SubjectKind.LEAP_METER, id=meter)) for meter in meters]
        begin, end = (np.searchsorted(known.meter, numbers, side=side) for side in ("left", "right"))
        found = (known.device[a:b].tolist() for a, b in zip(begin, end, strict=True))
        return [
            sorted({self._subjects[device].id for device in devices}) if number != NOTHING else []
            for number, devices in zip(numbers, found, strict=True)
        ]

    def add(self, fact: Fact) -> bool:
        """Add a fact; returns whether membership may be another one with it."""
        changed = self._put(fact)
        if changed:
            self.version += 1
            self._touched.append(self._touches(fact))
        return changed

    def _touches(self, fact: Fact) -> tuple[int, ...]:
        """Whose membership a fact may change: what it names, whoever was ever behind that, and all that a customer ever
        had."""
        if isinstance(fact, Consent | Withdrawal):
            named = self._had.get(self._customer(fact.customer), set())
        elif isinstance(fact, MeterDevice):
            named = {self._number(Subject(kind=SubjectKind.DEVICE, id=fact.device))}
            meter = self._number(Subject(kind=SubjectKind.LEAP_METER, id=fact.meter))
            self._devices_of[meter] |= named
        else:
            named = {self._number(fact.subject)}
            if isinstance(fact, Holding):
                self._had[self._customer(fact.customer)] |= named
        return tuple({*named, *(device for one in named for device in self._devices_of.get(one, ()))})

    def membership(self, program: str, at_ms: int, among: Numbers | None = None) -> Membership:
        """How everybody stands in a program at an instant; `among`: these alone, in this order."""
        those = Those(n=self.subjects) if among is None else self._with_meters(among)
        own_status, own_since = _filled_since(self._status.get(program), at_ms, those)
        own_customer, _ = self._holding.newest_since(at_ms, those)
        status, since_ms, customer = own_status.copy(), own_since.copy(), own_customer.copy()
        behind = self._behind.holding(at_ms, those.numbers)
        device, meter = those.places(behind.who), those.places(behind.what)
        order = np.argsort(own_status[meter], kind="stable")
        device, meter = device[order], meter[order]
        through = (own_status[device] < 0) & (own_status[meter] >= 0)
        status[device[through]], since_ms[device[through]] = own_status[meter[through]], own_since[meter[through]]
        held = (own_customer[device] < 0) & (own_customer[meter] >= 0)
        customer[device[held]] = own_customer[meter[held]]
        known = customer[customer >= 0]
        asked = Those(n=len(self._customers)) if among is None else _those(known)
        since, until = self._edges(program, at_ms, those, asked)
        consent = np.zeros(those.n, dtype=np.uint8)
        consent[customer >= 0] = self._consents(program, at_ms, asked)[asked.places(known)]
        found = Membership(
            status=np.maximum(status, EnrollmentStatus.NONE).astype(np.uint8), stated_ms=since_ms, consent=consent,
            preference=self._preferences(program, at_ms, those, device, meter), customer=customer,
            from_ms=since, until_ms=until,
        )  # fmt: skip
        return found if among is None else found.take(those.places(among).astype(np.int32))

    def changed_since(self, version: int) -> Numbers | None:
        """Whose membership may be another one since a version of the book, ascending; None: of too many to say."""
        behind = self.version - version
        if behind > len(self._touched):
            return None
        found = {number for some in islice(reversed(self._touched), behind) for number in some}
        return np.array(sorted(found), dtype=np.int32) if len(found) <= TOUCHED_MAX else None

    def subject(self, number: int) -> Subject:
        """The subject of a number."""
        return self._subjects[number]

    def _with_meters(self, among: Numbers) -> Those:
        """These, and every meter that one of them was ever behind."""
        return _those(np.concatenate([among, self._behind.of(among).what]))

    def _preferences(self, program: str, at_ms: int, those: Those, device: Places, meter: Places) -> Codes:
        """The wish that keeps a battery furthest away: its own or that of a meter, of the program or of all."""
        out = np.zeros(those.n, dtype=np.int32)
        for scope in (EVERY_PROGRAM, program):
            np.maximum(out, _filled_since(self._preference.get(scope), at_ms, those)[0], out=out)
        np.maximum.at(out, device, out[meter].copy())
        return out.astype(np.uint8)

    def _consents(self, program: str, at_ms: int, asked: Those) -> Codes:
        """What the consent of each of these customers is worth."""
        out = np.zeros(asked.n, dtype=np.uint8)
        known = self._consent.get(program)
        if known is None:
            return out
        withdrawn = self._withdrawn.get(program)
        void_ms = np.full(len(out), -FOREVER_MS) if withdrawn is None else withdrawn.last_before(at_ms, asked)
        given = known.begun(at_ms, asked.numbers)
        who = asked.places(given.who)
        void = given.from_ms <= void_ms[who]
        states = np.where(
            void, ConsentState.WITHDRAWN, np.where(at_ms < given.until_ms, ConsentState.VALID, ConsentState.EXPIRED)
        )
        np.maximum.at(out, who, states.astype(np.uint8))
        return out

    def _edges(self, program: str, at_ms: int, those: Those, asked: Those) -> tuple[int, int]:
        """Between which instants nothing changes by itself of those and of these customers."""
        found = [(of[program], those) for of in (self._status, self._preference) if program in of]
        found += [(of[program], asked) for of in (self._consent, self._withdrawn) if program in of]
        found += [(self._holding, those), (self._behind, those)]
        if EVERY_PROGRAM in self._preference:
            found.append((self._preference[EVERY_PROGRAM], those))
        edges = [one.edges(at_ms, whose.numbers) for one, whose in found]
        return max(since for since, _ in edges), min(until for _, until in edges)

    def _put(self, fact: Fact) -> bool:
        if isinstance(fact, Enrollment):
            begin = max(fact.from_ms, fact.period.from_ms)
            return self._status[fact.program].put(
                fact.key, who=self._number(fact.subject), what=fact.status, from_ms=begin,
                until_ms=fact.period.until_ms, revision=fact.revision,
            )  # fmt: skip
        if isinstance(fact, OwnerPreference):
            return self._preference[fact.program].put(
                fact.key, who=self._number(fact.subject), what=fact.preference, from_ms=fact.from_ms,
                until_ms=fact.until_ms, revision=fact.revision,
            )  # fmt: skip
        if isinstance(fact, Holding):
            return self._holding.put(
                fact.key, who=self._number(fact.subject), what=self._customer(fact.customer), from_ms=fact.from_ms,
                until_ms=fact.until_ms, revision=fact.revision,
            )  # fmt: skip
        if isinstance(fact, MeterDevice):
            device = self._number(Subject(kind=SubjectKind.DEVICE, id=fact.device))
            meter = self._number(Subject(kind=SubjectKind.LEAP_METER, id=fact.meter))
            return self._behind.put(
                fact.key, who=device, what=meter, from_ms=fact.from_ms, until_ms=fact.until_ms, revision=fact.revision
            )
        if isinstance(fact, Consent):
            return self._consent[fact.program].put(
                fact.key, who=self._customer(fact.customer), what=0, from_ms=fact.given_ms, until_ms=fact.expires_ms,
                revision=fact.revision,
            )  # fmt: skip
        if isinstance(fact, Withdrawal):
            return self._withdrawn[fact.program].put(
                fact.key, who=self._customer(fact.customer), what=0, from_ms=fact.at_ms, until_ms=None,
                revision=fact.revision,
            )  # fmt: skip
        if isinstance(fact, Payee):
            return False
        assert_never(fact)

    def _number(self, subject: Subject) -> int:
        number = self._number_of.setdefault(subject, len(self._number_of))
        if number == len(self._subjects):
            self._subjects.append(subject)
            self.meters += subject.kind is SubjectKind.LEAP_METER
        if subject.kind is SubjectKind.DEVICE:
            self._devices[subject.id] = number
        return number

    def _customer(self, customer: str) -> int:
        return self._customers.setdefault(customer, len(self._customers))


def _those(numbers: Numbers) -> Those:
    """These, each of them once."""
    found = np.unique(numbers)
    return Those(n=len(found), numbers=found)


def _filled_since(known: Timeline | None, at_ms: int, those: Those) -> tuple[Numbers, Ints]:
    if known is None:
        return np.full(those.n, NOTHING, dtype=np.int32), np.full(those.n, -FOREVER_MS, dtype=np.int64)
    return known.newest_since(at_ms, those)
