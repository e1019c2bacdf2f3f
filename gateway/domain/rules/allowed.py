"""What a program's rules leave to be dispatched: when, and how much of what is counted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.domain.rules.calendar import Span
from gateway.domain.rules.counts import Per, period, used
from gateway.domain.rules.program import GridProgram, ProgramVersion
from gateway.domain.rules.values import Certainty, Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedSpan:
    """When an event may run, UTC ms. `notice_by_ms`: the latest instant at which one that begins with it becomes known;
    None = no notice is asked for."""

    span: Span
    version: str
    notice_by_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowanceLeft:
    """How much of what a rule counts is used within a day, month or season. `used` has what is still to come."""

    rule: str
    version: str
    per: Per
    within: Span
    most: float
    used: float
    effect: Effect
    certainty: Certainty

    @property
    def left(self) -> float:
        """Not negative."""
        return max(0.0, self.most - self.used)


def allowances_left(program: GridProgram, from_ms: int, until_ms: int, events: Sequence[Span]) -> list[AllowanceLeft]:
    """What is left of events and hours in every day, month or season that `from_ms` to `until_ms` touches. `events`:
    the spans of the program's events."""
    found: list[AllowanceLeft] = []
    for version, start_ms, end_ms in _versions(program, from_ms, until_ms):
        for name, rule in (("events", version.events), ("hours", version.hours)):
            at_ms = start_ms
            while rule is not None and at_ms < end_ms:
                within = period(version.calendar, at_ms, rule.value.per)
                count = used(events, within)
                found.append(
                    AllowanceLeft(
                        rule=name, version=version.name, per=rule.value.per, within=within, most=rule.value.most,
                        used=count.events if name == "events" else count.hours, effect=rule.effect,
                        certainty=rule.certainty,
                    )
                )  # fmt: skip
                at_ms = within[1]
    return found


def allowed_spans(
    program: GridProgram, from_ms: int, until_ms: int, left: Sequence[AllowanceLeft]
) -> list[AllowedSpan]:
    """When the calendar of the versions in force allows an event, without the days, months or seasons in which nothing
    is `left` of what binds."""
    spent = [one for one in left if one.left == 0 and one.effect is not Effect.WARN]
    found: list[AllowedSpan] = []
    for version, start_ms, end_ms in _versions(program, from_ms, until_ms):
        over = [one.within for one in spent if one.version == version.name]
        for span in version.calendar.spans(start_ms, end_ms):
            for rest in _without(span, over):
                by_ms = None if version.notice is None else version.notice.value.by_ms(version.zone, rest[0])
                found.append(AllowedSpan(span=rest, version=version.name, notice_by_ms=by_ms))
    return found


def _versions(program: GridProgram, from_ms: int, until_ms: int) -> Iterator[tuple[ProgramVersion, int, int]]:
    """Every version in force within a span, and the part of it in which it is."""
    for version in program.versions:
        first_ms, last_ms = version.from_ms(), version.until_ms()
        start_ms = from_ms if first_ms is None else max(from_ms, first_ms)
        end_ms = until_ms if last_ms is None else min(until_ms, last_ms)
        if start_ms < end_ms:
            yield version, start_ms, end_ms


def _without(span: Span, over: Sequence[Span]) -> list[Span]:
    parts = [span]
    for first_ms, last_ms in over:
        parts = [
            (start_ms, end_ms)
            for begun_ms, until_ms in parts
            for start_ms, end_ms in ((begun_ms, min(until_ms, first_ms)), (max(begun_ms, last_ms), until_ms))
            if start_ms < end_ms
        ]
    return parts
