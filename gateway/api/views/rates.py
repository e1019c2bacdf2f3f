"""The rates that enrollments are paid by on a day, from the rules of programs and what is stated of enrollments."""

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType

from gateway.api.rate_models import RateList, RateState
from gateway.clock import Clock
from gateway.domain.programs.facts import Enrollment, MeterDevice, Subject
from gateway.domain.programs.pay_rates import PaidRate, paid_rates
from gateway.domain.rules.calendar import local_day
from gateway.domain.rules.program import GridProgram
from gateway.domain.rules.rates import ChosenRate
from gateway.domain.rules.values import Certainty
from gateway.ports.programs import FactQuestion
from gateway.services.programs.enrollment import Enrollments

FACTS_MAX = 1_000
"""Statements about one subject that are read, at most."""


class RateView:
    """Reads from what was loaded and from what is stated; decides nothing."""

    def __init__(
        self, *, enrollments: Enrollments, clock: Clock, programs: Mapping[str, GridProgram] = MappingProxyType({})
    ) -> None:
        self._enrollments = enrollments
        self._clock = clock
        self._programs = programs

    async def of(self, name: str, on: date | None) -> RateList | None:
        """The rates of a device or meter for an event on a local day, None = today; of a device also those of the
        meters that it is behind. None where nothing is stated. Raises StorageError."""
        found = await self._stated(name)
        now_ms = self._clock.now().utc_ms
        for meter in sorted({one.meter for one in found if isinstance(one, MeterDevice) and one.holds(now_ms)}):
            found += [one for one in await self._stated(meter) if isinstance(one, Enrollment)]
        stated: dict[tuple[str, Subject], list[Enrollment]] = {}
        for one in found:
            if isinstance(one, Enrollment):
                stated.setdefault((one.program, one.subject), []).append(one)
        if not stated:
            return None
        rates = []
        for (name_of, subject), enrollments in sorted(stated.items()):
            program = self._programs.get(name_of)
            if program is not None:
                day = on or local_day(program.zone, now_ms)
                rates += [_state(program.id, subject, day, one) for one in paid_rates(program, enrollments, day)]
        return RateList(id=name, rates=rates)

    async def _stated(self, name: str) -> list[Enrollment | MeterDevice]:
        question = FactQuestion(kinds=(Enrollment, MeterDevice), subject=name)
        found = await self._enrollments.store.facts(question, FACTS_MAX)
        return [one.fact for one in found if isinstance(one.fact, Enrollment | MeterDevice)]


def _state(program: str, subject: Subject, day: date, paid: PaidRate) -> RateState:
    found = paid.found
    chosen = found if isinstance(found, ChosenRate) else None
    return RateState(
        subject=subject.id, kind=subject.kind.value, program=program, delivery_period=paid.period or None,
        on=day.isoformat(), version=paid.version or None, season=paid.season or None,
        enrolled=None if paid.enrolled is None else paid.enrolled.isoformat(), year=paid.year,
        unit=None if paid.unit is None else paid.unit.value, rate=None if chosen is None else chosen.rate.name,
        amount=None if chosen is None else f"{chosen.amount:f}",
        currency=None if chosen is None else chosen.rate.currency,
        factors=[] if chosen is None else [f"{one.name} {one.factor:f}" for one in chosen.factors],
        evidence=None if chosen is None else _least(chosen).value,
        source=None if chosen is None else chosen.rate.source, certain=chosen is not None and chosen.certain,
        reason=None if isinstance(found, ChosenRate) else found.reason,
    )  # fmt: skip


def _least(chosen: ChosenRate) -> Certainty:
    """How well the least known part of a rate is known."""
    order = list(Certainty)
    return max((chosen.rate.certainty, *(one.certainty for one in chosen.factors)), key=order.index)
