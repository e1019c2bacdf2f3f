"""The job that works out the performance of each event when its last interval is in, and again when what that rests on
changes: a late record, a price, an official hour, an enrollment, the program's file, another event.

What a revision rests on is stored with it. Nothing is worked out again while nothing that could change it did; where
that did, and what figures rest on is the same all the same, there is no new revision.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.domain.errors import InvalidInput
from gateway.domain.events.request import EventKind
from gateway.domain.programs.event_performance import event_performance
from gateway.domain.programs.revised import differences, digest_of
from gateway.domain.programs.site_day import DayFrame
from gateway.domain.rules.calendar import HOUR_MS, local_day
from gateway.schemas.performance import figure_plain, performance_plain
from gateway.services.programs.event_inputs import EventInputs, InputReader, RatedProgram
from gateway.services.programs.frames import ProgramFrames
from gateway.services.programs.work import JobState
from gateway.storage.interval_log.beside import IntervalLogBeside
from gateway.storage.interval_log.positions import Cursor
from gateway.storage.journal.played import PlayedOccurrence, played
from gateway.storage.programs.daily import DailyColumns
from gateway.storage.programs.event_revisions import EventRevision, EventRevisions, NewRevision
from gateway.storage.programs.facts_beside import facts_sign
from gateway.storage.programs.series import ProgramSeries

log = logging.getLogger(__name__)

DAY_MS = 24 * HOUR_MS
CLOSED_MS = 32_000
"""After its end an interval is closed, and stored."""
REVISED_MS = 400 * DAY_MS
"""Events that ended longer ago are not looked at again."""
WINDOW_MS = 46 * DAY_MS
"""How long before an event there may be days that its baselines are of."""
NEW_ROWS = 200_000
TOLD_OUT_MAX = 20
STORED_MS, LOOK_MS = 50_000, 4_000
"""Where the last interval has no record yet, one may still be on its way to the log: the event is looked at every few
seconds, until so long after its end."""


class EventFiguresJob:
    """`programs`: those whose files can be read; `frames`: how each divides its days."""

    name = "performance"

    def __init__(
        self, state_dir: Path, *, frames: ProgramFrames, programs: Mapping[str, RatedProgram], keep_days: int,
        reader: Callable[[Path, Mapping[str, RatedProgram]], InputReader] = InputReader,
    ) -> None:  # fmt: skip
        self._state_dir = state_dir
        self._frames = frames
        self._programs = programs
        self._keep_ms = keep_days * DAY_MS
        self._reader = reader(state_dir, programs)
        self._log = IntervalLogBeside(state_dir / "intervals")
        self._series = ProgramSeries(state_dir)
        self._waits_ms: dict[tuple[str, int], int] = {}

    def step(self, now_ms: int) -> JobState:
        with EventRevisions(self._state_dir, write=True) as store:
            if self._look_through(store):
                return JobState(more=True, backlog=1)
            found = played(self._state_dir / "journal.sqlite", now_ms - min(REVISED_MS, self._keep_ms))
            facts = facts_sign(self._state_dir)
            due, problems = self._due(store, found, facts, now_ms)
            if not due:
                return JobState(more=store.prune(now_ms - self._keep_ms) > 0, problems=problems)
            occurrence, frame, sign = due[0]
            problem = self._work_out(store, occurrence, found, frame, facts, now_ms)
            if problem is None:
                self._waits_ms[occurrence.event.request.id, occurrence.occurrence_ms] = now_ms + LOOK_MS
                return JobState(more=len(due) > 1, backlog=len(due), problems=problems)
            store.note(occurrence.event.request.id, occurrence.occurrence_ms, occurrence.span, sign + problem)
            return JobState(more=True, backlog=len(due) - 1, problems=problems)

    def _due(
        self, store: EventRevisions, found: Sequence[PlayedOccurrence], facts: str, now_ms: int
    ) -> tuple[list[tuple[PlayedOccurrence, DayFrame, str]], tuple[str, ...]]:
        """What is to be looked at, what ended last first; and what cannot be."""
        due: list[tuple[PlayedOccurrence, DayFrame, str]] = []
        problems: list[str] = []
        signs: dict[str, str] = {}
        for occurrence in reversed(found):
            request = occurrence.event.request
            rated = self._programs.get(request.program)
            from_ms, until_ms = occurrence.span
            if rated is None or request.kind is EventKind.DRY_RUN or until_ms <= from_ms:
                continue
            try:
                frame = self._frames.frame(request.program, local_day(rated.program.zone, from_ms))
            except InvalidInput as error:
                problems += [f"event {request.id}: {problem}" for problem in error.problems]
                continue
            length_ms = frame.length_s * 1000
            closed_ms = -(-until_ms // length_ms) * length_ms + CLOSED_MS
            if max(closed_ms, self._waits_ms.get((request.id, occurrence.occurrence_ms), 0)) > now_ms:
                continue
            if request.program not in signs:
                signs[request.program] = f"{facts}|{rated.digest}|{self._series.sign(request.program)}"
            sign = f"{signs[request.program]}|{self._event_sign(occurrence, found, frame)}"
            known = store.sign(request.id, occurrence.occurrence_ms)
            if known is None or not known.startswith(sign):
                due.append((occurrence, frame, sign))
            elif known != sign:
                problems.append(known[len(sign) :])
        return due, tuple(problems)

    def _event_sign(self, occurrence: PlayedOccurrence, found: Sequence[PlayedOccurrence], frame: DayFrame) -> str:
        """Another text once something changed of an event, of those that ran at the same time, or of the days
        before."""
        from_ms, until_ms = occurrence.span
        at_once = (one for one in found if one.occurrence_ms < until_ms and from_ms < one.ended_ms)
        own = "/".join(
            f"{one.event.request.id}.{one.event.request.revision}.{one.event.state.value}.{one.span[1]}.{one.bytes}"
            for one in at_once
        )
        first, last = (local_day(frame.zone, at) for at in (from_ms - WINDOW_MS, from_ms))
        with DailyColumns(self._state_dir) as days:
            return f"{own}/{days.newest_token(frame, first, last)}"

    def _work_out(
        self, store: EventRevisions, occurrence: PlayedOccurrence, found: Sequence[PlayedOccurrence], frame: DayFrame,
        facts: str, now_ms: int,
    ) -> str | None:  # fmt: skip
        """Work an occurrence out, and store it where it is another figure; returns why it cannot be, "" = it can; None:
        its last interval may still be on its way."""
        request = occurrence.event.request
        others = [one for one in found if one != occurrence]
        try:
            inputs = self._reader.read(occurrence, others, frame, facts)
            if inputs is None:
                return f"event {request.id}: no battery of it is enrolled in {request.program} and has a home"
            known = store.newest(request.id, occurrence.occurrence_ms)
            if (
                known is None
                and now_ms < occurrence.span[1] + STORED_MS
                and not inputs.homes.measured.known[:, -1].any()
            ):
                return None
            digest = digest_of(inputs.texts)
            if known is not None and known.digest == digest:
                return ""
            new = _revision(occurrence, inputs, digest, _because(store, known, inputs))
        except InvalidInput as error:
            return f"event {request.id}: {'; '.join(error.problems)}"
        number = store.put(new, now_ms)
        if number > 1:
            log.info("the performance of an event was revised", extra={"event": request.id, "revision": number})
        return ""

    def _look_through(self, store: EventRevisions) -> bool:
        """Find late records in the log; returns whether there may be more."""
        at = store.progress()
        if at is None:
            # what is worked out from now on is read whole
            end = self._log.end()
            store.note_progress(end.file, end.row, [])
            return False
        found = self._log.new_rows(Cursor(*at), 1 << 62, NEW_ROWS)
        if found.until == Cursor(*at):
            return False
        hours = sorted({start_ms // HOUR_MS * HOUR_MS for _, start_ms in found.touched})
        store.note_progress(found.until.file, found.until.row, hours)
        return True


def _because(store: EventRevisions, known: EventRevision | None, inputs: EventInputs) -> list[str]:
    return [] if known is None else differences(store.inputs(known.id), inputs.texts)


def _revision(occurrence: PlayedOccurrence, inputs: EventInputs, digest: str, because: Sequence[str]) -> NewRevision:
    request, (from_ms, until_ms) = occurrence.event.request, occurrence.span
    performance = event_performance(inputs.event, inputs.homes, inputs.areas)
    out = {"left_out": {"count": len(inputs.left_out), "some": list(inputs.left_out[:TOLD_OUT_MAX])}}
    return NewRevision(
        event=request.id, occurrence_ms=occurrence.occurrence_ms, program=request.program, from_ms=from_ms,
        until_ms=until_ms, digest=digest, because=because, inputs=inputs.texts,
        summary=performance_plain(performance) | out,
        figures={
            level.value: [figure_plain(figure) for figure in figures] for level, figures in performance.figures.items()
        },
    )  # fmt: skip
