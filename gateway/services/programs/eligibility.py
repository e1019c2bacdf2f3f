"""Works out which devices a program may have, a page of them at a time: their telemetry is read from the log."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from gateway.clock import Clock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.programs.eligibility import Requirements, unfit
from gateway.domain.programs.facts import EnrollmentStatus
from gateway.domain.programs.terms import ProgramTerms
from gateway.domain.types import Bools, DeviceId, Floats, Slots
from gateway.services.programs.participation import ProgramParticipation
from gateway.services.telemetry.history import History, Question

DAYS_MAX = 30
DAY_MS = 86_400_000
PAGE_MAX = 100
"""Devices of a page: each has thousands of intervals in the days that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EligibilityRow:
    """A device: what it is found by, and why a program cannot have it (`Unfit` bits; 0 = eligible)."""

    device: DeviceId
    power_w: float
    capacity_wh: float
    measured_pct: float
    unfit: int


class Eligibility:
    """`days`: how many whole days (UTC) before today are looked at for telemetry."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        participation: ProgramParticipation,
        terms: Mapping[str, ProgramTerms],
        history: History,
        clock: Clock,
        days: int = DAYS_MAX,
    ) -> None:
        self._fleet = fleet
        self._participation = participation
        self._terms = terms
        self._history = history
        self._clock = clock
        self.days = min(days, DAYS_MAX)

    def requirements(self, program: str) -> Requirements | None:
        """What a program asks for today; None: neither a file nor the configuration names it."""
        terms = self._terms.get(program)
        return None if terms is None else terms.on(self._clock.now().utc_ms).requirements

    def unverified(self, program: str) -> frozenset[str]:
        """Which of the values that it asks for today rest on no text."""
        terms = self._terms.get(program)
        return frozenset() if terms is None else terms.on(self._clock.now().utc_ms).unverified

    async def page(self, program: str, offset: int, limit: int) -> tuple[int, list[EligibilityRow]]:
        """How many devices there are, and a page of them in the order of slots. Raises StorageError."""
        requirements = self.requirements(program) or Requirements()
        registered = np.flatnonzero(self._fleet.nameplate.registered[: self._fleet.n]).astype(np.int32)
        slots = registered[offset : offset + limit]
        names = self._fleet.names(slots)
        measured_pct = await self._measured_pct(names) if len(slots) else np.zeros(0)
        nameplate = self._fleet.nameplate
        power_w = np.minimum(nameplate.discharge_w_max[slots], nameplate.inverter_w_max[slots])
        capacity_wh = nameplate.capacity_wh[slots].astype(np.float64)
        bits = unfit(
            requirements, power_w=power_w, capacity_wh=capacity_wh, measured_pct=measured_pct,
            inside=self._inside(requirements, slots), excluded=self._excluded(program, slots),
        )  # fmt: skip
        rows = [
            EligibilityRow(device=name, power_w=power, capacity_wh=capacity, measured_pct=measured, unfit=why)
            for name, power, capacity, measured, why in zip(
                names, power_w.tolist(), capacity_wh.tolist(), measured_pct.tolist(), bits.tolist(), strict=True
            )
        ]
        return len(registered), rows

    async def _measured_pct(self, names: Sequence[DeviceId]) -> Floats:
        """The part of the last whole days that intervals of each device cover."""
        to_ms = self._clock.now().utc_ms // DAY_MS * DAY_MS
        question = Question(from_ms=to_ms - self.days * DAY_MS, to_ms=to_ms, devices=tuple(names))
        place = {name: at for at, name in enumerate(names)}
        covered_s = np.zeros(len(names))
        async with aclosing(self._history.all(question)) as pages:
            async for page in pages:
                at = np.array([place[device] for device in page.devices], dtype=np.int32)
                seconds = page.records.coverage_pct / 100 * page.records.length_s
                np.add.at(covered_s, at[page.records.slots], seconds)
        return np.minimum(covered_s / (self.days * DAY_MS / 1000) * 100, 100.0)

    def _inside(self, requirements: Requirements, slots: Slots) -> Bools:
        there = [self._fleet.tags.get(tag, ()) for tag in requirements.territories]
        inside = {slot for of_tag in there for slot in of_tag}
        return np.array([slot in inside for slot in slots.tolist()], dtype=np.bool_)

    def _excluded(self, program: str, slots: Slots) -> Bools:
        """Who is pending or active in another program that excludes this one."""
        out = np.zeros(len(slots), dtype=np.bool_)
        own = self._terms.get(program, ProgramTerms())
        now_ms = self._clock.now().utc_ms
        for name, other in self._terms.items():
            if name != program and own.exclusive & other.exclusive:
                status = self._participation.standing(name, now_ms).membership.status[slots]
                out |= (status == EnrollmentStatus.PENDING) | (status == EnrollmentStatus.ACTIVE)
        return out
