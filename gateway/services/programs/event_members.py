"""Whose batteries an event's were: enrolled in its program at its start, at which home, whose, and paid by what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from gateway.domain.programs.day_builder import SiteStay, stays_within
from gateway.domain.programs.enrollment import EnrollmentBook
from gateway.domain.programs.event_value import PaidHome
from gateway.domain.programs.facts import Enrollment, EnrollmentStatus, Fact, SubjectKind
from gateway.domain.programs.pay_rates import paid_rates
from gateway.domain.programs.prices import SiteArea, area_at
from gateway.domain.programs.timeline import NOTHING
from gateway.domain.registry.placement import Placement
from gateway.domain.registry.territory import folded
from gateway.domain.rules.calendar import local_day
from gateway.domain.rules.program import GridProgram, ProgramVersion
from gateway.domain.types import DeviceId, Ints


@dataclass(slots=True)
class StatedFacts:
    """What is stated of enrollments, as a list and as a book."""

    book: EnrollmentBook = field(default_factory=EnrollmentBook)
    facts: Sequence[Fact] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventMembers:
    """Batteries of an event that count, by name: `rows` are their places in its delivery records, `site_of` those of
    their homes in `sites` (-1: at none). `stays`: where they were on the event's days, by site, device and time;
    `around`: the same of every battery of their homes. `left_out`: those that are not enrolled in the program."""

    batteries: tuple[str, ...]
    rows: Ints
    site_of: Ints
    stays: tuple[SiteStay, ...]
    around: tuple[SiteStay, ...]
    sites: tuple[str, ...]
    customer_of: Mapping[str, str]
    utility_of: Mapping[str, str]
    left_out: tuple[str, ...]


def members_of(
    program: GridProgram, devices: Sequence[str], stated: StatedFacts, placements: Sequence[Placement], at_ms: int
) -> EventMembers:
    """Which of `devices` are in a program at an instant: all of them where no enrollment in it was ever stated.
    `placements`: of all devices on the event's days."""
    names = sorted(devices)
    counts, customers = np.ones(len(names), dtype=np.bool_), [""] * len(names)
    if program.id in stated.book.programs():
        stands = stated.book.membership(program.id, at_ms).take(stated.book.numbers([DeviceId(name) for name in names]))
        counts = stands.status == EnrollmentStatus.ACTIVE
        known = stated.book.customers()
        customers = [known[number] if number != NOTHING else "" for number in stands.customer.tolist()]
    mine = {name: customer for name, customer, one in zip(names, customers, counts.tolist(), strict=True) if one}
    held = {
        str(one.device): one
        for one in placements
        if one.device in mine
        and (one.valid.from_ms is None or one.valid.from_ms <= at_ms)
        and (one.valid.until_ms is None or at_ms < one.valid.until_ms)
    }
    sites = tuple(sorted({one.site for one in held.values()}))
    number = {site: at for at, site in enumerate(sites)}
    there = [one for one in placements if one.device in held and held[one.device].site == one.site]
    place = {name: at for at, name in enumerate(devices)}
    customer_of: dict[str, str] = {}
    for name, customer in mine.items():
        if name in held and customer:
            customer_of.setdefault(held[name].site, customer)
    return EventMembers(
        batteries=tuple(mine),
        rows=np.array([place[name] for name in mine], dtype=np.int64),
        site_of=np.array([number[held[name].site] if name in held else -1 for name in mine], dtype=np.int64),
        stays=tuple(_stays(there)),
        around=tuple(_stays([one for one in placements if one.site in number])),
        sites=sites,
        customer_of=customer_of,
        utility_of={one.site: one.utility for one in held.values()},
        left_out=tuple(name for name in names if name not in mine),
    )


def paid_homes(
    program: GridProgram,
    version: ProgramVersion,
    members: EventMembers,
    facts: Sequence[Fact],
    areas: Sequence[SiteArea],
    at_ms: int,
) -> list[PaidHome]:
    """The homes as money sees them, without their power."""
    utilities = {folded(utility): utility for rate in version.rates for utility in rate.utilities}
    by_day = any(
        rate.years is not None or rate.enrolled.first is not None or rate.enrolled.until is not None
        for rate in version.rates
    )
    enrolled = _enrolled(program, members, facts, local_day(program.zone, at_ms)) if by_day else {}
    return [
        PaidHome(
            name=site, customer=members.customer_of.get(site, ""), area=area_at(areas, site, at_ms) or "",
            rate_class=utilities.get(folded(members.utility_of.get(site, "")), ""), enrolled=enrolled.get(site),
        )
        for site in members.sites
    ]  # fmt: skip


def _stays(placements: Sequence[Placement]) -> list[SiteStay]:
    edges = [one.valid.from_ms for one in placements if one.valid.from_ms is not None]
    ends = [one.valid.until_ms for one in placements if one.valid.until_ms is not None]
    return stays_within(placements, min([0, *edges]), max([FOREVER, *ends]))


FOREVER = 1 << 60


def _enrolled(program: GridProgram, members: EventMembers, facts: Sequence[Fact], day: date) -> dict[str, date]:
    """The day of enrollment that counts, by home."""
    stated: dict[str, list[Enrollment]] = {}
    for fact in facts:
        if isinstance(fact, Enrollment) and fact.program == program.id and fact.subject.kind is SubjectKind.DEVICE:
            stated.setdefault(fact.subject.id, []).append(fact)
    found: dict[str, date] = {}
    for battery, at in zip(members.batteries, members.site_of.tolist(), strict=True):
        when = next((one.enrolled for one in paid_rates(program, stated.get(battery, []), day) if one.enrolled), None)
        if at >= 0 and when is not None:
            found.setdefault(members.sites[at], when)
    return found
