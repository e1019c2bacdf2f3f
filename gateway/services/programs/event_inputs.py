"""What the performance of an event rests on, read from a state directory: records, homes and their customers, energy,
other events, prices; and all of it as texts, so that a change of it can be told."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np

from gateway.domain.errors import InvalidInput
from gateway.domain.events.energy_shares import rank
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.events.request import Compensation, EventKind, EventRequest
from gateway.domain.journal.stored import StoredRecords
from gateway.domain.programs.awarded import awarded_w
from gateway.domain.programs.baseline import DayMatching, matching_of
from gateway.domain.programs.enrollment import EnrollmentBook
from gateway.domain.programs.event_performance import EventHomes, PlayedEvent
from gateway.domain.programs.event_value import AreaHours
from gateway.domain.programs.local_hours import local_month, month_span
from gateway.domain.programs.metered import EventIntervals
from gateway.domain.programs.revised import InputKind
from gateway.domain.programs.shortfalls import AskedOf
from gateway.domain.programs.site_day import DayFrame
from gateway.domain.registry.placement import Placement
from gateway.domain.rules.calendar import local_day
from gateway.domain.rules.performance import BaselineMethod, Cited, MeasurementPoint, PerformanceRules
from gateway.domain.rules.program import GridProgram, ProgramVersion
from gateway.domain.rules.rates import ALWAYS
from gateway.domain.rules.stacking import PaidFor, StackedClaim
from gateway.domain.types import Bools
from gateway.schemas.performance import utc_text
from gateway.services.programs.event_energy import BaselineDays, StoredEnergy
from gateway.services.programs.event_members import EventMembers, StatedFacts, members_of, paid_homes
from gateway.services.programs.event_texts import RECORDED, texts_of
from gateway.storage.journal.placed import placements_beside
from gateway.storage.journal.played import PlayedOccurrence, ratings_w, records_of
from gateway.storage.programs.facts_beside import facts_beside
from gateway.storage.programs.series import ProgramSeries, SeriesKey

LIKE_DAYS = frozenset({BaselineMethod.CAISO_PDR, BaselineMethod.USUAL_DISCHARGE, BaselineMethod.GENERATOR_OUTPUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedProgram:
    """A program and the digest of its file."""

    program: GridProgram
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventInputs:
    """What is worked out from what; `texts` say it in words and digests. `left_out`: batteries of the event that are
    not enrolled in its program."""

    event: PlayedEvent
    homes: EventHomes
    areas: Mapping[str, AreaHours]
    texts: Mapping[InputKind, Mapping[str, str]]
    left_out: tuple[str, ...]


@dataclass(slots=True)
class _Known(StatedFacts):
    """What is read once for many events."""

    sign: object = None
    records: dict[tuple[str, int], StoredRecords] = field(default_factory=dict)


RECORDS_KEPT = 64


class InputReader:
    """Reads the inputs of events of `programs`; blocks. Raises StorageError, CorruptState, InvalidInput."""

    def __init__(self, state_dir: Path, programs: Mapping[str, RatedProgram]) -> None:
        self._state_dir = state_dir
        self._journal = state_dir / "journal.sqlite"
        self._programs = programs
        self._energy = StoredEnergy(state_dir)
        self._series = ProgramSeries(state_dir)
        self._known = _Known()

    def read(
        self, occurrence: PlayedOccurrence, others: Sequence[PlayedOccurrence], frame: DayFrame, facts_sign: object
    ) -> EventInputs | None:
        """`others`: other occurrences that are over, `facts_sign` the same while no fact came; None = no battery of the
        event counts, or none has a home."""
        request, span = occurrence.event.request, occurrence.span
        rated = self._programs[request.program]
        version = _version(rated.program, span[0])
        self._read_facts(facts_sign)
        records = records_of(self._journal, request.id, occurrence.occurrence_ms)
        members = members_of(rated.program, records.devices, self._known, self._placements(frame, span), span[0])
        if not members.sites:
            return None
        intervals = EventIntervals(from_ms=span[0], until_ms=span[1], length_ms=frame.length_s * 1000)
        homes = self._homes(rated.program, version, members, frame, intervals, _asked(records, members, request))
        days = self._baseline_days(version, members, intervals, others, request)
        if days is not None:
            homes = replace(homes, before=self._energy.before(frame, days, members.around, members.sites))
        names = sorted({home.area for home in homes.homes} - {""})
        areas = {area: self._area(rated.program, area, intervals) for area in names}
        claims, told = self._claims(occurrence, others, members, version)
        texts = {
            InputKind.EVENT: {
                "revision": str(request.revision), "state": occurrence.event.state.value, "end": utc_text(span[1]),
            },
            InputKind.PROGRAM: {"version": version.name, "file": rated.digest},
            InputKind.OTHERS: told,
            **texts_of(rated.program.zone, homes, areas, intervals),
        }  # fmt: skip
        event = _played(occurrence, version, intervals, claims, len(members.batteries))
        return EventInputs(event=event, homes=homes, areas=areas, texts=texts, left_out=members.left_out)

    def _homes(
        self,
        program: GridProgram,
        version: ProgramVersion,
        members: EventMembers,
        frame: DayFrame,
        intervals: EventIntervals,
        asked: AskedOf,
    ) -> EventHomes:
        starts_ms = intervals.starts_ms.tolist()
        each = [replace(stay, site=stay.device) for stay in sorted(members.stays, key=lambda stay: stay.device)]
        batteries = self._energy.measured(frame, starts_ms, each, members.batteries)
        grid = self._energy.measured(frame, starts_ms, members.around, members.sites)
        ratings = ratings_w(self._journal)
        nominal_w = np.zeros(len(members.sites))
        for battery, at in zip(members.batteries, members.site_of.tolist(), strict=True):
            if at >= 0:
                nominal_w[at] += ratings.get(battery, np.nan)
        paid = paid_homes(
            program, version, members, self._known.facts, self._series.site_areas(program.id), intervals.from_ms
        )
        powers = [None if np.isnan(watts) else Fraction(round(watts), 1000) for watts in nominal_w.tolist()]
        return EventHomes(
            batteries=members.batteries, site_of=members.site_of,
            homes=tuple(replace(home, nominal_kw=kw) for home, kw in zip(paid, powers, strict=True)),
            measured=batteries.energy.batteries, covered_pct=batteries.covered_pct, grid=grid.energy.grid, asked=asked,
            nominal_w=nominal_w,
        )  # fmt: skip

    def _read_facts(self, sign: object) -> None:
        if sign == self._known.sign and sign is not None:
            return
        book, facts = EnrollmentBook(), facts_beside(self._state_dir)
        for fact in facts:
            book.add(fact)
        self._known.sign, self._known.book, self._known.facts = sign, book, facts

    def _names(self, occurrence: PlayedOccurrence) -> frozenset[str]:
        """The batteries that an occurrence asked something of."""
        key = (f"{occurrence.event.request.id}/{occurrence.bytes}", occurrence.occurrence_ms)
        known = self._known.records
        if key not in known:
            while len(known) >= RECORDS_KEPT:
                del known[next(iter(known))]
            known[key] = records_of(self._journal, occurrence.event.request.id, occurrence.occurrence_ms)
        records = known[key]
        asked = records.columns["asked_wh"] != 0 if records.devices else ()
        return frozenset(name for name, one in zip(records.devices, asked, strict=True) if one)

    def _placements(self, frame: DayFrame, span: tuple[int, int]) -> list[Placement]:
        """Who was where on the local days of a span."""
        from_ms = frame.span(local_day(frame.zone, span[0]))[0]
        until_ms = frame.span(local_day(frame.zone, span[1] - 1))[1]
        return placements_beside(self._journal, from_ms, until_ms)

    def _area(self, program: GridProgram, area: str, intervals: EventIntervals) -> AreaHours:
        hours = intervals.hours_ms
        months = {local_month(program.zone, at) for at in hours}
        key = SeriesKey(program=program.id, area=area)
        of_month: dict[tuple[int, int], Sequence[Decimal]] = {}
        prices: dict[int, Decimal] = {}
        for month in months:
            found = self._series.prices(key, *month_span(program.zone, month))
            of_month[month] = [one.price for one in found]
            prices |= {one.start_ms: one.price for one in found if one.start_ms in hours}
        official = self._series.hours(key, hours[0], hours[-1] + 1)
        return AreaHours(types={one.start_ms: one.event_type for one in official}, prices=prices, of_month=of_month)

    def _baseline_days(
        self,
        version: ProgramVersion,
        members: EventMembers,
        intervals: EventIntervals,
        others: Sequence[PlayedOccurrence],
        request: EventRequest,
    ) -> BaselineDays | None:
        rules = version.performance
        if rules is None or rules.baseline.value in (BaselineMethod.NONE, BaselineMethod.PRESCRIPTIVE):
            return None
        window = version.preparation.adjustment
        window_ms: list[int] = []
        if window is not None and rules.baseline.value in (BaselineMethod.CAISO_PDR, BaselineMethod.SAME_DAY):
            first, last = window.value.span(intervals.from_ms)
            window_ms = list(range(first // intervals.length_ms * intervals.length_ms, last, intervals.length_ms))
        matching = None
        if rules.baseline.value in LIKE_DAYS:
            matching = _matching(rules)
            if matching is None:
                return None
        day = local_day(version.zone, intervals.from_ms)
        oldest = day - timedelta(days=0 if matching is None else matching.look_back_days)
        left_out: dict[date, set[str]] = {}
        site_of = {stay.device: stay.site for stay in members.stays}
        for other in others:
            asked = other.event.request
            on = local_day(version.zone, other.occurrence_ms)
            if asked.program == request.program and asked.kind is not EventKind.DRY_RUN and oldest <= on < day:
                left_out.setdefault(on, set()).update(site_of.get(name, "") for name in self._names(other))
        at_meter = _point(version) is not MeasurementPoint.BATTERY_AC
        of_output = rules.baseline.value is BaselineMethod.GENERATOR_OUTPUT
        holidays = frozenset[date]() if version.weekdays is None else version.weekdays.value.holidays
        return BaselineDays(
            starts_ms=intervals.starts_ms.tolist(), window_ms=window_ms, matching=matching, left_out=left_out,
            holidays=holidays, of_batteries=of_output or not at_meter, of_grid=of_output or at_meter,
        )  # fmt: skip

    def _claims(
        self,
        occurrence: PlayedOccurrence,
        others: Sequence[PlayedOccurrence],
        members: EventMembers,
        version: ProgramVersion,
    ) -> tuple[list[StackedClaim], dict[str, str]]:
        """The claims of the event and of those that ran at the same time on some of its homes, by their rank."""
        span = occurrence.span
        home_of = {stay.device: stay.site for stay in members.stays}
        number = {site: at for at, site in enumerate(members.sites)}
        found = [(occurrence, version, np.ones(len(members.sites), dtype=np.bool_))]
        for other in others:
            begin, end = other.span
            request = other.event.request
            if request.kind is EventKind.DRY_RUN or end <= span[0] or begin >= span[1] or other == occurrence:
                continue
            homes: Bools = np.zeros(len(members.sites), dtype=np.bool_)
            homes[[number[home_of[name]] for name in self._names(other) if name in home_of]] = True
            if homes.any():
                found.append((other, self._version_of(other), homes))
        order = sorted(found, key=lambda one: rank(_entry(one[0]), yields=one[1].stacking.yields))
        claims = [
            StackedClaim(
                name=one.event.request.id, rank=place, homes=homes, from_ms=one.span[0],
                until_ms=one.span[1], terms=its.stacking, program=one.event.request.program,
                paid_for=(
                    PaidFor.LOAD if one.event.request.compensation is Compensation.SITE_LOAD else PaidFor.BOTH
                ),
            )
            for place, (one, its, homes) in enumerate(order, 1)
        ]  # fmt: skip
        told = {
            f"{claim.name}": f"{claim.rank}/{claim.from_ms}/{claim.until_ms}/{zlib.crc32(claim.homes.tobytes())}"
            for claim in claims
        }
        return claims, told

    def _version_of(self, other: PlayedOccurrence) -> ProgramVersion:
        program = other.event.request.program
        rated = self._programs.get(program)
        version = None if rated is None else rated.program.version_at(other.occurrence_ms)
        return version or ProgramVersion(program=program, name="", zone="UTC", days=ALWAYS)


def _entry(occurrence: PlayedOccurrence) -> BookEntry:
    event = occurrence.event
    return BookEntry(index=0, request=event.request, state=event.state, decided_ms=event.decided_ms)


def _version(program: GridProgram, at_ms: int) -> ProgramVersion:
    found = program.version_at(at_ms)
    if found is None:
        raise InvalidInput([f"{program.id}: no version is in force at the event"])
    return found


def _point(version: ProgramVersion) -> MeasurementPoint:
    return MeasurementPoint.BATTERY_AC if version.measurement is None else version.measurement.point.value


def _matching(rules: PerformanceRules) -> DayMatching | None:
    """How days are matched; None where the program does not say."""
    try:
        return matching_of(Cited(rules), adjusted=rules.baseline.value is BaselineMethod.CAISO_PDR)
    except InvalidInput:
        return None


def _played(
    occurrence: PlayedOccurrence,
    version: ProgramVersion,
    intervals: EventIntervals,
    claims: Sequence[StackedClaim],
    batteries: int,
) -> PlayedEvent:
    request = occurrence.event.request
    nominated_w = None if request.nomination_w is None else Fraction(str(request.nomination_w))
    bounds = request.compensation is Compensation.NOMINATION or version.stacking.up_to_nomination
    return PlayedEvent(
        version=version, point=_point(version), intervals=intervals, claim=request.id, claims=claims,
        awarded_w=awarded_w(request, occurrence.occurrence_ms, intervals, batteries), nominated_w=nominated_w,
        bounded_w={request.id: request.nomination_w} if bounds and request.nomination_w is not None else {},
    )  # fmt: skip


def _asked(records: StoredRecords, members: EventMembers, request: EventRequest) -> AskedOf:
    columns = {name: np.asarray(records.columns[name])[members.rows] for name in RECORDED}
    return AskedOf(**columns, spread_ms=round(request.start_spread_s * 1000))
