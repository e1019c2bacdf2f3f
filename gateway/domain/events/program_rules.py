"""An event as the rules of its program see it: what it asks for, the time it uses, and what permissions leave of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from gateway.domain.events.calendar import DAY_MS
from gateway.domain.events.lifecycle import ActiveEvent, BookEntry, EventState
from gateway.domain.events.preparation import FILL, IDLE
from gateway.domain.events.request import Compensation, EventKind, EventRequest, Way
from gateway.domain.rules.calendar import Span
from gateway.domain.rules.permission import Asked, Breach, Permission, permission
from gateway.domain.rules.program import GridProgram, ProgramVersion
from gateway.domain.rules.values import Asker

JUDGED = 8
"""Occurrences that are judged when an event is decided; those after them are judged when they run."""

JUDGED_MS = 8 * DAY_MS
"""Of an occurrence that is longer, so much is judged when it is decided."""

COUNTED = 400


def judge(
    program: GridProgram,
    request: EventRequest,
    *,
    asker: Asker,
    others: Sequence[Span],
    storms: Sequence[Span],
    now_ms: int,
    told_ms: int,
    strict: bool,
) -> Permission:
    """What the rules say of the occurrences of an event that begin next, or that run, at `now_ms` (UTC); one breach of
    each rule. `others` are the spans of the program's other events, `told_ms` is when the event became known."""
    version, found = "", dict[str, Breach]()
    earlier: list[Span] = []
    for span in islice(occurrences(request, now_ms), JUDGED):
        span = span[0], min(span[1], span[0] + JUDGED_MS)
        one = permission(
            program,
            asked(request, span, asker=asker, others=[*others, *earlier], storms=storms),
            told_ms,
            strict=strict,
        )
        version = version or one.version
        for breach in one.breaches:
            found.setdefault(breach.rule, breach)
        earlier.append(span)
    return Permission(version=version, breaches=tuple(found.values()))


def asked(
    request: EventRequest, span: Span, *, asker: Asker, others: Sequence[Span] = (), storms: Sequence[Span] = ()
) -> Asked:
    """One occurrence of an event as a dispatch that its program's rules judge."""
    return Asked(
        span=span,
        asker=asker,
        others=others,
        storms=storms,
        charges=any(target.way is Way.INTO for target in request.targets),
        precharges=request.precharge,
        exports=request.compensation is not Compensation.SITE_LOAD
        and any(target.way is Way.OUT for target in request.targets),
    )


def occurrences(request: EventRequest, from_ms: int) -> Iterator[Span]:
    """Start and end of every occurrence that is not over at `from_ms`, ascending."""
    start_ms = request.occurrence_ms(from_ms)
    if start_ms is None or request.until_over_ms(from_ms) <= from_ms:
        start_ms = request.next_ms(from_ms)
    while start_ms is not None:
        yield start_ms, request.until_over_ms(start_ms)
        start_ms = request.next_ms(start_ms)


def used_spans(entry: BookEntry, from_ms: int, until_ms: int) -> list[Span]:
    """The time that an event takes, or has taken, of its program from `from_ms` until `until_ms`: of one that was
    cancelled, as far as it ran. A dry run takes none."""
    request = entry.request
    if request.kind is EventKind.DRY_RUN or entry.state is EventState.REJECTED:
        return []
    if entry.state is EventState.CANCELLED:
        ran = request.cancelled or entry.ran
        until_ms = min(until_ms, entry.decided_ms) if request.cancelled else until_ms if ran else from_ms
    if not request.repeats:
        span = max(request.start_ms, from_ms), min(request.end_ms, until_ms)
        return [span] if span[0] < span[1] else []
    found: list[Span] = []
    for start_ms, end_ms in islice(occurrences(request, from_ms), COUNTED):
        if start_ms >= until_ms:
            break
        found.append((start_ms, min(end_ms, until_ms)))
    return found


def narrowed(request: EventRequest, version: ProgramVersion) -> EventRequest:
    """An event within what its program permits: the reserve that stays, and exports."""
    reserve, export = version.reserve_pct, version.export
    if reserve is not None and reserve.value > request.reserve_pct:
        request = replace(request, reserve_pct=reserve.value)
    if export is not None and not export.value and request.compensation is not Compensation.SITE_LOAD:
        request = replace(request, compensation=Compensation.SITE_LOAD)
    return request


def within(event: ActiveEvent, request: EventRequest, until_ms: int | None, *, charges: bool = True) -> ActiveEvent:
    """An event that runs, as its `narrowed` request has it, and no longer than a rule lets it: energy has to last until
    `until_ms` at most (None = no rule ends it). `charges`: its program permits charging from the grid now."""
    running = event.running
    if event.preparing:
        keeps = running.target == FILL and not charges
        return replace(event, request=request, running=replace(running, target=IDLE) if keeps else running)
    if until_ms is not None and until_ms < running.sustained_until_ms:
        ends_ms = min(running.until_ms, until_ms)
        running = replace(running, until_ms=ends_ms, sustained_until_ms=until_ms)
    return replace(event, request=request, running=running)
