"""Judges a gateway from what the aggregator has: every slot that is to come or runs is an event of ours for its
batteries at its times and power, once, and nothing else is; everybody is enrolled as the aggregator and our own rows
say."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gateway.domain.events.lifecycle import OVER, EventState
from gateway.domain.events.request import EventKind, EventRequest, Target
from gateway.domain.programs.facts import EnrollmentStatus, Preference, Subject, SubjectKind
from gateway.domain.types import DeviceId
from gateway.signals.leap.slot_book import HINT_WAIT_MS
from simulators.aggregator.dispatch_book import Event, Kind
from simulators.aggregator.times import time_ms
from tests.scenes.in_step import HOMES, MORE, PROGRAMS, InStep

Piece = tuple[frozenset[str], int, int, float | None, int, str]
"""Batteries that give a power together, from when until when (UTC ms), W (None: the most), priority and program."""

STATUS = {
    "ACTIVE": EnrollmentStatus.ACTIVE, "PENDING": EnrollmentStatus.PENDING, "ELIGIBLE": EnrollmentStatus.ELIGIBLE,
    "INELIGIBLE": EnrollmentStatus.INELIGIBLE, "NOT_PARTICIPATING": EnrollmentStatus.CANDIDATE,
}  # fmt: skip
WISH = {"PARTICIPATE": Preference.PARTICIPATE, "IDLE": Preference.PAUSED, "DISENROLL": Preference.LEAVING}


def judge(both: InStep) -> list[str]:
    """What is wrong once all was told and asked."""
    return [*_dispatch(both), *_nothing_waits(both), *_enrollment(both)]


def judge_meanwhile(both: InStep) -> list[str]:
    """What is wrong meanwhile: what a search has shown is undone by nothing that is older, until the next search may
    be had."""
    searched_ms = both.searched_ms
    known = searched_ms is not None and both.clock.now().utc_ms - searched_ms < HINT_WAIT_MS
    return list(_dispatch(both)) if known else []


def _dispatch(both: InStep) -> Iterator[str]:
    now_ms = both.clock.now().utc_ms
    wanted, found = Counter(_wanted(both, now_ms)), Counter(_found(both, now_ms))
    yield from (f"missing: {_told(piece)}" for piece in (wanted - found).elements())
    yield from (f"too much: {_told(piece)}" for piece in (found - wanted).elements())


def _nothing_waits(both: InStep) -> Iterator[str]:
    signal = both.process.signal
    if signal.hints or signal.waiting:
        yield f"{signal.hints} hints, {signal.waiting} bodies wait"
    if signal.standing.refused or signal.standing.unknown_meters:
        yield f"refused {signal.standing.refused}, unknown {signal.standing.unknown_named}"


def _told(piece: Piece) -> str:
    batteries, start_ms, end_ms, *rest = piece
    return f"{sorted(batteries)} {start_ms} to {end_ms}: {rest}"


def _wanted(both: InStep, now_ms: int) -> Iterator[Piece]:
    for event in both.book.events.values():
        if not event.slot["cancelled"] and event.end_ms > now_ms:
            yield from _pieces(both, event)


def _pieces(both: InStep, event: Event) -> Iterator[Piece]:
    kw, program = event.slot["energy_kw"], PROGRAMS[event.slot["programs"][0]]
    rest = (event.slot["priority"], program)
    meters = event.members if event.kind is Kind.GROUP else (event.target,)
    # who is behind a meter is judged for itself
    book, now_ms = both.process.enrollments.book, both.clock.now().utc_ms
    batteries = frozenset(name for names in book.devices_of(meters, now_ms) for name in names)
    if event.kind is Kind.GROUP:
        yield from _shared(batteries, event.start_ms, event.end_ms, None if kw is None else kw * 1000, *rest)
        return
    for name in batteries:
        each_w = None if kw is None else round(kw * 1000 / len(batteries), 3)
        yield (frozenset([name]), event.start_ms, event.end_ms, each_w, *rest)


def _shared(
    batteries: frozenset[str], start_ms: int, end_ms: int, power_w: float | None, priority: int, program: str
) -> Iterator[Piece]:
    """The most that can be sustained is of each."""
    groups = [frozenset([name]) for name in batteries] if power_w is None else [batteries]
    for group in filter(None, groups):
        yield (group, start_ms, end_ms, power_w, priority, program)


def _found(both: InStep, now_ms: int) -> Iterator[Piece]:
    for entry in both.process.dispatcher.entries():
        request = entry.request
        if entry.state in OVER or entry.state is EventState.REJECTED or request.kind is EventKind.DRY_RUN:
            continue
        legs = request.legs or ((None),)
        for leg in legs:
            start_ms = request.start_ms if leg is None else request.start_ms + leg.after_ms
            end_ms = request.end_ms if leg is None else request.start_ms + leg.until_ms
            if end_ms > now_ms:
                yield from _given(request, request.target if leg is None else leg.target, start_ms, end_ms)


def _given(request: EventRequest, target: Target, start_ms: int, end_ms: int) -> Iterator[Piece]:
    rest: Any = (request.priority, request.program)
    if target.want.value == "power":
        yield from _shared(frozenset(request.group.ids), start_ms, end_ms, target.power_w, *rest)
        return
    each_w = target.each_w or (target.power_w,) * len(request.group.ids)
    for name, power_w in zip(request.group.ids, each_w, strict=True):
        yield (frozenset([name]), start_ms, end_ms, None if power_w is None else round(power_w, 3), *rest)


def _enrollment(both: InStep) -> Iterator[str]:
    now_ms = both.clock.now().utc_ms
    book, program = both.process.enrollments.book, PROGRAMS["CEC-DSGS"]
    meters = both.aggregator.meter_book.meters.values()
    for meter in meters:
        devices = book.devices_of([meter.meter_id], now_ms)[0]
        if set(devices) != both.truth.behind[meter.meter_id]:
            yield f"behind {meter.meter_id} are {devices}"
    found = book.membership(program, now_ms)
    for name in (*HOMES, *MORE):
        mine = [meter for meter in meters if name in both.truth.behind[meter.meter_id]]
        status = EnrollmentStatus.NONE
        if name in both.truth.status:
            status = STATUS[both.truth.status[name]]
        elif mine:
            word = "INELIGIBLE" if mine[0].archived else mine[0].programs[0]["enrollment_status"]
            status = STATUS[word]
        said = {WISH[both.truth.wish.get(name, "PARTICIPATE")]}
        for meter in mine:
            said |= {
                WISH[one["participation_preference"]]
                for one in meter.enrollment()["participation_preferences"]
                if time_ms(one["start_time"]) <= now_ms < _end_ms(one)
            }
        (number,) = book.numbers([DeviceId(name)])
        at = found.take(book.numbers([DeviceId(name)]))
        has = (EnrollmentStatus(int(at.status[0])), Preference(int(at.preference[0])))
        if has != (status, max(said)):
            yield f"{name} ({number}) is {has}, and is to be {(status, max(said))}"
    for meter in meters:
        if book.number_of(Subject(kind=SubjectKind.LEAP_METER, id=meter.meter_id)) < 0:
            yield f"{meter.meter_id} is not known"


def _end_ms(preference: dict[str, Any]) -> float:
    return time_ms(preference["end_time"])
