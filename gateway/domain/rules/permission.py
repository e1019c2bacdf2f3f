"""What a dispatch breaks of its program's rules, and what that does.

Calendar rules (version, season, weekdays, window, notice, length, events, hours, rest) bind whoever dispatches here.
The program's own dispatcher is warned of them, for our copy of a rule may be older than the grid's evening; it is
refused only where the operator has chosen that and the value is verified. Storm lock-out and permissions bind both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from gateway.domain.rules.calendar import DAY_MS, ClockWindow, Span, local_day, united
from gateway.domain.rules.counts import Allowance, period, used
from gateway.domain.rules.program import GridProgram, ProgramVersion
from gateway.domain.rules.values import Asker, Certainty, Effect, Rule

ALWAYS_BIND = frozenset({"storm_lockout", "export", "grid_charge"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A dispatch that somebody asks for: one occurrence of an event. `others`: the program's other events, cancelled
    ones left out. `storms`: when storms are expected. `charges`: it takes energy from the grid; `precharges`: it does
    so before it begins; `exports`: it pays for what homes give to the grid."""

    span: Span
    asker: Asker
    others: Sequence[Span] = ()
    storms: Sequence[Span] = ()
    charges: bool = False
    precharges: bool = False
    exports: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """One rule that a dispatch breaks: its name and version, what that does to whoever asks, and the facts in words."""

    rule: str
    version: str
    effect: Effect
    certainty: Certainty
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What the rules say of a dispatch. `version` is that of the rules, `PROGRAM VERSION`; "" = none is in force."""

    version: str
    breaches: tuple[Breach, ...] = ()

    @property
    def refused(self) -> bool:
        return any(breach.effect is Effect.REFUSE for breach in self.breaches)

    @property
    def held(self) -> bool:
        """Whether nothing may run now: refused, or outside what a clip leaves."""
        return any(breach.effect is not Effect.WARN for breach in self.breaches)

    @property
    def outside_known_rules(self) -> bool:
        """Whether it goes although a rule says otherwise."""
        return not self.refused and any(breach.effect is Effect.WARN for breach in self.breaches)


def permission(program: GridProgram, asked: Asked, now_ms: int, *, strict: bool = False) -> Permission:
    """What the rules in force at its start say of a dispatch that becomes known at `now_ms` (UTC). `strict`: verified
    calendar rules bind the program's dispatcher too. A dispatch that is clipped and of which nothing is left is
    refused."""
    version = program.version_at(asked.span[0])
    if version is None:
        return _without_version(program, asked)
    found = [
        *_when(version, asked.span),
        *_notice(version, asked, now_ms),
        *_too_short(version, asked),
        *_too_long(version, asked),
        *_events(version, asked),
        *_hours(version, asked),
        *_rest(version, asked),
        *_storms(version, asked),
        *_permits(version, asked),
    ]
    bound = _bound(found, asked.asker, strict=strict)
    if not _left(version, asked, {breach.rule for breach in bound if breach.effect is Effect.CLIP}):
        bound = tuple(replace(one, effect=Effect.REFUSE) if one.effect is Effect.CLIP else one for one in bound)
    return Permission(version=_named(version), breaches=bound)


def permission_now(
    program: GridProgram, asker: Asker, used: Sequence[Span], now_ms: int, *, strict: bool = False
) -> Permission:
    """What the rules say of the events of a program that run at `now_ms` (UTC), whoever they are for: of this instant,
    and of what was dispatched until now. `used`: the spans of all events of the program, these among them."""
    begun = [(start_ms, min(end_ms, now_ms + 1)) for start_ms, end_ms in used if start_ms <= now_ms]
    asked = Asked(span=(now_ms, now_ms + 1), asker=asker, others=begun)
    version = program.version_at(now_ms)
    if version is None:
        return _without_version(program, asked)
    found = [
        *_when(version, asked.span),
        *_too_long(version, asked),
        *_hours(version, asked),
        *_rest(version, asked),
    ]
    return Permission(version=_named(version), breaches=_bound(found, asker, strict=strict))


def held_from_ms(program: GridProgram, asker: Asker, now_ms: int, *, strict: bool = False) -> int | None:
    """When the calendar ends what runs at `now_ms`, UTC ms; None = not within a day. A rule that only warns whoever
    asks ends nothing."""
    version = program.version_at(now_ms)
    if version is None:
        return None

    def warns(rule: Rule[Any] | None) -> bool:
        if rule is None or rule.effect is Effect.WARN:
            return True
        return asker is Asker.PROGRAM and not (strict and rule.certainty is Certainty.VERIFIED)

    calendar = version.calendar.without(
        seasons=warns(version.season), days=warns(version.weekdays), windows=warns(version.window)
    )
    spans = calendar.spans(now_ms, now_ms + DAY_MS)
    return spans[0][1] if spans and spans[0][0] == now_ms and spans[0][1] < now_ms + DAY_MS else None


def _without_version(program: GridProgram, asked: Asked) -> Permission:
    day = local_day(program.zone, asked.span[0])
    effect = Effect.WARN if asked.asker is Asker.PROGRAM else Effect.REFUSE
    words = f"no version of its rules is in force on {day}"
    breach = Breach(rule="version", version=program.id, effect=effect, certainty=Certainty.UNVERIFIED, words=words)
    return Permission(version="", breaches=(breach,))


def _bound(found: Sequence[Breach], asker: Asker, *, strict: bool) -> tuple[Breach, ...]:
    """The breaches with their effect on whoever asks."""
    return tuple(breach if _binds(breach, asker, strict=strict) else replace(breach, effect=Effect.WARN)
                 for breach in found)  # fmt: skip


def _binds(breach: Breach, asker: Asker, *, strict: bool) -> bool:
    if asker is Asker.LOCAL or breach.rule in ALWAYS_BIND:
        return True
    return strict and breach.certainty is Certainty.VERIFIED


def _left(version: ProgramVersion, asked: Asked, clipped: set[str]) -> bool:
    """Whether something of a dispatch is left where these rules clip it."""
    calendar = version.calendar.without(
        seasons="season" not in clipped, days="weekdays" not in clipped, windows="window" not in clipped
    )
    spans = calendar.spans(*asked.span)
    if "storm_lockout" in clipped:
        spans = [span for span in spans if not any(_inside(span, lockout) for lockout in _lockouts(version, asked))]
    if "hours" in clipped and version.hours is not None:
        spans = spans if _used_hours(version, version.hours, asked) < version.hours.value.most else []
    return bool(spans)


# -- one rule each ---------------------------------------------------------------------------------------------------


def _when(version: ProgramVersion, span: Span) -> Iterator[Breach]:
    whole = version.calendar
    if whole.covers(span):
        return
    clock = whole.without(seasons=True, days=True)
    in_window = clock.covers(span)
    if version.window is not None and not in_window:
        windows = ", ".join(map(_window, version.window.value))
        yield _breach(
            version, "window", version.window, f"{windows} in {version.zone}; asked is {_told(version, span)}"
        )
    # a window past midnight belongs to the day on which it begins
    season = whole.without(days=True, windows=not in_window)
    if version.season is not None and not season.covers(span):
        seasons = ", ".join(f"{_day(s.first)} to {_day(s.last)}" for s in version.season.value)
        yield _breach(version, "season", version.season, f"{seasons}; asked is {_told(version, span)}")
    days = whole.without(seasons=True, windows=not in_window)
    if version.weekdays is not None and not days.covers(span):
        yield _breach(version, "weekdays", version.weekdays, f"not a day of the program: {_told(version, span)}")


def _notice(version: ProgramVersion, asked: Asked, now_ms: int) -> Iterator[Breach]:
    if version.notice is not None:
        by_ms = version.notice.value.by_ms(version.zone, asked.span[0])
        if now_ms > by_ms:
            yield _breach(version, "notice", version.notice, f"known by {_local(version, by_ms)}, not later")


def _too_short(version: ProgramVersion, asked: Asked) -> Iterator[Breach]:
    rule = version.length
    if rule is not None and rule.value.least_s is not None and _length_s(asked) < rule.value.least_s:
        words = f"the shortest event is {rule.value.least_s:.0f} s; asked is {_length_s(asked):.0f} s"
        yield _breach(version, "length", rule, words)


def _too_long(version: ProgramVersion, asked: Asked) -> Iterator[Breach]:
    rule = version.length
    if rule is not None and rule.value.most_s is not None and _length_s(asked) > rule.value.most_s:
        words = f"the longest event is {rule.value.most_s:.0f} s; asked is {_length_s(asked):.0f} s"
        yield _breach(version, "length", rule, words)


def _events(version: ProgramVersion, asked: Asked) -> Iterator[Breach]:
    rule = version.events
    if rule is not None:
        within = period(version.calendar, asked.span[0], rule.value.per)
        count = used([*asked.others, asked.span], within).events
        if count > rule.value.most:
            words = f"{rule.value.most:.0f} events in a {rule.value.per.value}; this is number {count}"
            yield _breach(version, "events", rule, words)


def _hours(version: ProgramVersion, asked: Asked) -> Iterator[Breach]:
    rule = version.hours
    if rule is not None:
        hours = _used_hours(version, rule, replace(asked, others=[*asked.others, asked.span]))
        if hours > rule.value.most:
            words = f"{rule.value.most:g} h in a {rule.value.per.value}; with this it is {hours:.2f} h"
            yield _breach(version, "hours", rule, words)


def _rest(version: ProgramVersion, asked: Asked) -> Iterator[Breach]:
    rule = version.rest_s
    if rule is None:
        return
    start_ms, end_ms = _whole(asked)
    apart = [start_ms - end for _, end in asked.others if end < start_ms]
    apart += [start - end_ms for start, _ in asked.others if start > end_ms]
    if apart and min(apart) < rule.value * 1000:
        words = f"{rule.value:.0f} s between events; here are {min(apart) / 1000:.0f} s"
        yield _breach(version, "rest", rule, words)


def _storms(version: ProgramVersion, asked: Asked) -> Iterator[Breach]:
    rule = version.storm_lockout_s
    if rule is not None and any(_meet(asked.span, lockout) for lockout in _lockouts(version, asked)):
        yield _breach(version, "storm_lockout", rule, f"no dispatch in the {rule.value / 3600:g} h before a storm")


def _permits(version: ProgramVersion, asked: Asked) -> Iterator[Breach]:
    if version.export is not None and not version.export.value and asked.exports:
        yield _breach(version, "export", version.export, "homes give up to their own load, not to the grid")
    if version.grid_charge is not None and not version.grid_charge.value:
        if asked.charges:
            # a target that charges cannot be narrowed to one that does not
            found = _breach(version, "grid_charge", version.grid_charge, "no charging from the grid")
            yield replace(found, effect=Effect.REFUSE)
        elif asked.precharges:
            yield _breach(version, "grid_charge", version.grid_charge, "no charging from the grid before an event")


# -- words and spans -------------------------------------------------------------------------------------------------


def _breach(version: ProgramVersion, rule: str, stated: Rule[Any], words: str) -> Breach:
    return Breach(rule=rule, version=_named(version), effect=stated.effect, certainty=stated.certainty, words=words)


def _named(version: ProgramVersion) -> str:
    return f"{version.program} {version.name}"


def _used_hours(version: ProgramVersion, rule: Rule[Allowance], asked: Asked) -> float:
    return used(asked.others, period(version.calendar, asked.span[0], rule.value.per)).hours


def _whole(asked: Asked) -> Span:
    """The dispatch with the others that it touches: hours that are asked for one by one are one event."""
    return next(span for span in united([asked.span, *asked.others]) if _inside(asked.span, span))


def _length_s(asked: Asked) -> float:
    start_ms, end_ms = _whole(asked)
    return (end_ms - start_ms) / 1000


def _lockouts(version: ProgramVersion, asked: Asked) -> list[Span]:
    rule = version.storm_lockout_s
    return [] if rule is None else [(start - round(rule.value * 1000), end) for start, end in asked.storms]


def _meet(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _inside(one: Span, other: Span) -> bool:
    return other[0] <= one[0] and one[1] <= other[1]


def _local(version: ProgramVersion, utc_ms: int) -> str:
    zone = ZoneInfo(version.zone)
    return f"{datetime.fromtimestamp(utc_ms / 1000, tz=UTC).astimezone(zone):%Y-%m-%d %H:%M %Z}"


def _told(version: ProgramVersion, span: Span) -> str:
    return f"{_local(version, span[0])} to {_local(version, span[1])}"


def _window(window: ClockWindow) -> str:
    words = f"{_clock(window.from_min)} to {_clock(window.until_min)}"
    return f"{words} ({window.season})" if window.season else words


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _day(day: tuple[int, int]) -> str:
    return f"{day[0]:02d}-{day[1]:02d}"
