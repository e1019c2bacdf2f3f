"""Ceilings of power: of each event, of what its nomination pays for, and of all events of a program, or of a source,
together."""

from collections.abc import Iterator, Mapping

import numpy as np

from gateway.domain.events.lifecycle import ActiveEvent
from gateway.domain.events.request import Compensation
from gateway.domain.types import Floats


class Ceilings:
    """What each event may move in a tick, W, whatever it asks for. Events are bounded in the order of their rank; an
    event that does not actuate takes nothing from its program or source."""

    def __init__(self, target_w_max: float, program_w: Mapping[str, float], source_w: Mapping[str, float]) -> None:
        self._target_w_max = target_w_max
        self._program_w, self._source_w = program_w, source_w
        self._used_w: dict[tuple[str, str], float] = {}

    def _most_w(self, event: ActiveEvent) -> float:
        request, most_w = event.request, self._target_w_max
        if request.compensation is Compensation.NOMINATION and request.nomination_w is not None:
            most_w = min(most_w, request.nomination_w)
        if event.actuates:
            for key, ceiling_w in self._shared(event):
                most_w = min(most_w, max(ceiling_w - self._used_w.get(key, 0.0), 0.0))
        return most_w

    def _shared(self, event: ActiveEvent) -> Iterator[tuple[tuple[str, str], float]]:
        """The ceilings that an event shares with others, each with a key of its own."""
        program, source = event.request.program, event.request.source
        if (of_program_w := self._program_w.get(program)) is not None:
            yield ("program", program), of_program_w
        if (of_source_w := self._source_w.get(source)) is not None:
            yield ("source", source), of_source_w

    def _count(self, event: ActiveEvent, power_w: float) -> None:
        if event.actuates:
            for key, _ in self._shared(event):
                self._used_w[key] = self._used_w.get(key, 0.0) + power_w

    def power(self, event: ActiveEvent, wanted_w: float) -> tuple[float, bool]:
        """Power of a group within its ceilings, and whether they cut it."""
        most_w = self._most_w(event)
        target_w = float(np.clip(wanted_w, -most_w, most_w))
        self._count(event, abs(target_w))
        return target_w, target_w != wanted_w

    def each(self, event: ActiveEvent, goal_w: Floats, asked_w: Floats, others_w: float) -> tuple[Floats, Floats, bool]:
        """Power of each device, and what was asked of it, cut in proportion; and whether the ceilings cut anything.
        `others_w`: what members do that are not told anything."""
        sign = -1.0 if float(asked_w.sum()) < 0 else 1.0
        done_w = max(sign * others_w, 0.0)
        left_w = max(self._most_w(event) - done_w, 0.0)
        size_w, total_w = float(np.abs(goal_w).sum()), float(np.abs(asked_w).sum())
        if size_w > left_w:
            goal_w = goal_w * (left_w / size_w)
            size_w = left_w
        self._count(event, size_w + done_w)
        if total_w <= left_w:
            return goal_w, asked_w, False
        # what the goal leaves of the ceiling is asked of those who cannot give it
        beyond_w = np.abs(asked_w) - np.abs(goal_w)
        part = (left_w - size_w) / max(float(beyond_w.sum()), 1.0)
        return goal_w, np.sign(asked_w) * (np.abs(goal_w) + part * beyond_w), True
