"""The part of the graph that speaks with the aggregator: takes its dispatch in, changes what it holds, and keeps
enrollments in step."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.api.routes.leap_dispatch import LeapDispatch
from gateway.api.routes.leap_enrollments import LeapEnrollments
from gateway.app.outbox import outbox
from gateway.app.parts import RunningParts
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.events.scope import qualified
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.programs.enrollment import EnrollmentBook
from gateway.domain.programs.terms import ProgramTerms
from gateway.domain.types import DeviceId
from gateway.ports.journal import Journal
from gateway.programs.loader import LoadedProgram
from gateway.services.events.intake import Dispatcher
from gateway.services.programs.enrollment import UTC, Enrollments
from gateway.services.programs.leap_sync import LeapSync
from gateway.services.programs.nominations import Nominations
from gateway.services.programs.outbox import ChangeOutbox
from gateway.services.programs.participation import ProgramParticipation
from gateway.services.programs.sign_ups import SignUps
from gateway.services.programs.wishes import OwnerWishes
from gateway.signals.leap.catch_up import LeapCatchUp
from gateway.signals.leap.registration import LeapRegistration
from gateway.signals.leap.requests import SOURCE, Batteries
from gateway.signals.leap.signal import FOLDER, LeapSignal
from gateway.signals.leap.submission import Submission
from gateway.signals.leap.webhook_rows import WebhookRows
from gateway.storage.programs.sign_ups import SqliteSignUps
from gateway.transports.leap.client import LeapClient

PEER = "leap"


class EnrolledMeters:
    """Implements `gateway.signals.leap.submission.MeterMap` with what enrollment says of meters."""

    def __init__(self, book: EnrollmentBook, fleet: Fleet) -> None:
        self._book = book
        self._fleet = fleet

    @property
    def version(self) -> tuple[int, int]:
        return self._book.version, self._fleet.version

    def batteries(self, meters: Sequence[str], at_ms: int) -> list[Batteries]:
        rating_w, slot_of = self._fleet.nameplate.discharge_w_max, self._fleet.slot_of

        def able_w(device: DeviceId) -> float:
            slot = slot_of.get(device)
            return 0.0 if slot is None else float(rating_w[slot])

        found = self._book.devices_of(meters, at_ms)
        if not all(found):
            # a table may have the ids in capital letters
            capital = self._book.devices_of([meter.upper() for meter in meters], at_ms)
            found = [own or other for own, other in zip(found, capital, strict=True)]
        return [[(DeviceId(name), able_w(DeviceId(name))) for name in devices] for devices in found]


def programs_of(programs: Mapping[str, LoadedProgram]) -> dict[str, str]:
    """Our program for each id that the aggregator has."""
    return {theirs: name for name, one in programs.items() for theirs in one.document.peer_ids.get(PEER, ())}


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorParts:
    """What was started."""

    dispatch: LeapDispatch
    outbox: ChangeOutbox
    enrollments: LeapEnrollments
    nominations: Nominations | None
    sign_ups: SignUps


async def aggregator(
    settings: Settings, *, dispatcher: Dispatcher, enrolled: Enrollments, participation: ProgramParticipation,
    fleet: Fleet, programs: Mapping[str, LoadedProgram], terms: Mapping[str, ProgramTerms], journal: Journal,
    clock: Clock, parts: RunningParts,
) -> AggregatorParts:  # fmt: skip
    """Start everything that speaks with the aggregator, as far as it is configured."""
    dispatch = await _dispatch(
        settings, dispatcher=dispatcher, enrolled=enrolled.book, fleet=fleet, programs=programs, clock=clock,
        parts=parts,
    )  # fmt: skip
    changes = await outbox(settings, dispatch, enrollments=enrolled, clock=clock, journal=journal, parts=parts)
    return AggregatorParts(
        dispatch=dispatch,
        outbox=changes,
        enrollments=await _enrollments(
            settings, dispatch, changes, enrolled=enrolled, participation=participation, programs=programs,
            terms=terms, opt_outs=dispatcher.exclusions.all, clock=clock, parts=parts,
        ),
        nominations=await _nominations(
            settings, changes, enrolled=enrolled, fleet=fleet, programs=programs, terms=terms, clock=clock, parts=parts
        ),
        sign_ups=await parts.start(
            SignUps(await parts.start(SqliteSignUps(settings.state_dir)), settings.leap.connect, clock=clock)
        ),
    )  # fmt: skip


async def _enrollments(
    settings: Settings, leap: LeapDispatch, changes: ChangeOutbox, *, enrolled: Enrollments,
    participation: ProgramParticipation, programs: Mapping[str, LoadedProgram], terms: Mapping[str, ProgramTerms],
    opt_outs: Callable[[], Sequence[Exclusion]], clock: Clock, parts: RunningParts,
) -> LeapEnrollments:  # fmt: skip
    """Start what keeps enrollments in step, where there is an account, and what proposes owners' wishes there."""
    account, door = settings.leap.account, None if leap.signal is None else leap.signal.door
    if account is None:
        return LeapEnrollments(door=door)
    # nobody lives in UTC: it is what a program without a zone has
    zones = {name: one.zone for name, one in terms.items() if one.zone != UTC}
    wishes = OwnerWishes(
        enrolled, changes, clock=clock, zone_of=zones, program_of=programs_of(programs),
        part_days=settings.leap.idle_part_days, opt_outs=opt_outs,
    )  # fmt: skip
    sync = LeapSync(
        LeapClient(account), enrolled, program_of=programs_of(programs), clock=clock,
        every_s=settings.leap.enrollments_every_s, mismatched=lambda: participation.mismatched, rng=random.Random(),
        wishes=wishes,
    )  # fmt: skip
    return LeapEnrollments(sync=await parts.start(sync), door=door)


async def _nominations(
    settings: Settings, changes: ChangeOutbox, *, enrolled: Enrollments, fleet: Fleet,
    programs: Mapping[str, LoadedProgram], terms: Mapping[str, ProgramTerms], clock: Clock, parts: RunningParts,
) -> Nominations | None:  # fmt: skip
    """Start what follows nominations, where there is an account."""
    account = settings.leap.account
    if account is None:
        return None
    meters = EnrolledMeters(enrolled.book, fleet)

    def rating_w(some: Sequence[str], at_ms: int) -> list[float]:
        return [sum(able_w for _, able_w in found) for found in meters.batteries(some, at_ms)]

    return await parts.start(
        Nominations(
            LeapClient(account), changes, enrolled, program_of=programs_of(programs),
            zone_of={name: one.zone for name, one in terms.items()}, rating_w=rating_w, clock=clock,
            every_s=settings.leap.enrollments_every_s, rng=random.Random(),
        )
    )  # fmt: skip


async def _dispatch(
    settings: Settings, *, dispatcher: Dispatcher, enrolled: EnrollmentBook, fleet: Fleet,
    programs: Mapping[str, LoadedProgram], clock: Clock, parts: RunningParts,
) -> LeapDispatch:  # fmt: skip
    """Start the signal where it is configured, and what asks the aggregator where there is an account."""
    asked = settings.signals.leap
    if asked is None:
        return LeapDispatch()

    def known(name: str) -> BookEntry | None:
        for own in (name, qualified(SOURCE, name)):
            entry = dispatcher.entry(own)
            if entry is not None and entry.request.source == SOURCE:
                return entry
        return None

    submission = Submission(
        submit=dispatcher.submit, known=known, meters=EnrolledMeters(enrolled, fleet),
        program_of=programs_of(programs), per_device=settings.leap.confirmed.energy_kw == "device",
    )  # fmt: skip
    signal = await parts.start(LeapSignal(asked, submission, directory=settings.state_dir / FOLDER, clock=clock))
    account = settings.leap.account
    if account is None:
        return LeapDispatch(signal=signal)
    registration = await parts.start(LeapRegistration(asked, LeapClient(account)))
    return LeapDispatch(
        signal=signal,
        catch_up=await parts.start(LeapCatchUp(asked, LeapClient(account), signal, clock=clock, rng=random.Random())),
        registration=registration,
        webhooks=WebhookRows(registration),
    )
