"""What a site is taken to have done without an event: its baseline, in kW of each interval of the event.

Exact: power and its means are fractions. A day that is not whole has no part in a baseline; nothing is filled in.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

from gateway.domain.rules.calendar import local_ms
from gateway.domain.rules.performance import AdjustBy, Cited, LikeDays, TieBreak

ZERO = Fraction(0)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedDay:
    """A day like that of an event: kW of each of the event's intervals, and of those in the adjustment window."""

    day: date
    event_kw: tuple[Fraction, ...]
    window_kw: tuple[Fraction, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DayMatching:
    """`highest` of `days` like days, which are looked for `look_back_days` back. `adjust_by` None = not adjusted; the
    caps bound a ratio (None = without a bound)."""

    days: int
    highest: int
    look_back_days: int
    like: LikeDays = LikeDays.WORKDAYS
    ties: TieBreak = TieBreak.EARLIER
    adjust_by: AdjustBy | None = None
    cap_low: Fraction | None = None
    cap_high: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DayBaseline:
    """kW of each interval; what it is made of: the `days` whose mean is `unadjusted_kw`, the `adjustment` (a ratio, or
    kW) as it was found and as it was `applied`."""

    kw: tuple[Fraction, ...]
    unadjusted_kw: tuple[Fraction, ...]
    days: tuple[date, ...]
    adjustment: Fraction | None
    applied: Fraction | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoBaseline:
    """There is none, and why."""

    reason: str


def matching_of(cited: Cited, *, adjusted: bool) -> DayMatching:
    """The day matching that a program states. Raises InvalidInput where a number is missing."""
    rules, days = cited.rules, int(cited.number("days"))
    highest = cited.optional("highest")
    adjust = cited.or_else("performance.adjust_by", rules.adjust_by, AdjustBy.RATIO) if adjusted else None
    ratio = adjust is AdjustBy.RATIO
    return DayMatching(
        days=days,
        highest=days if highest is None else int(highest),
        look_back_days=int(cited.number("look-back-days")),
        like=cited.or_else("performance.like_days", rules.like_days, LikeDays.WORKDAYS),
        ties=cited.or_else("performance.ties", rules.ties, TieBreak.EARLIER),
        adjust_by=adjust,
        cap_low=cited.optional("cap-low") if ratio else None,
        cap_high=cited.optional("cap-high") if ratio else None,
    )


def like_days(
    event_day: date, matching: DayMatching, *, left_out: Container[date], holidays: Container[date] = ()
) -> Iterator[date]:
    """Days before an event that are like its own, newest first. `left_out`: those of events and outages."""

    def kind(day: date) -> int:
        workday = day.weekday() < 5 and day not in holidays
        return {LikeDays.ALL: 0, LikeDays.WORKDAYS: int(workday), LikeDays.SAME_WEEKDAY: day.weekday()}[matching.like]

    for n in range(1, matching.look_back_days + 1):
        day = event_day - timedelta(days=n)
        if day not in left_out and kind(day) == kind(event_day):
            yield day


def same_clock_ms(zone: str, at_ms: int, days: int) -> int:
    """The instant (UTC ms) at which a clock in `zone` shows, `days` later (below 0: earlier), what it shows at `at_ms`:
    the first of two; where that is left out, as much later as is left out."""
    local = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone))
    seconds = local.hour * 3600 + local.minute * 60 + local.second
    whole = local_ms(zone, local.date() + timedelta(days=days), seconds // 60)
    return whole + (seconds % 60) * 1000 + at_ms % 1000


def day_matched(
    days: Sequence[MatchedDay], window_kw: Sequence[Fraction], matching: DayMatching
) -> DayBaseline | NoBaseline:
    """The mean of the `highest` of the first `days` days, adjusted by what the site did in the window of the event's
    day (`window_kw`). `days`: newest first, each of them whole."""
    pool = list(days[: matching.days])
    if len(pool) < matching.days:
        return NoBaseline(reason=f"{len(pool)} of {matching.days} like days have data")
    order = 1 if matching.ties is TieBreak.EARLIER else -1
    chosen = sorted(pool, key=lambda one: (-mean(one.event_kw), order * one.day.toordinal()))[: matching.highest]
    unadjusted = tuple(mean(column) for column in zip(*(one.event_kw for one in chosen), strict=True))
    found = applied = None
    if matching.adjust_by is not None:
        if not window_kw or any(len(one.window_kw) != len(window_kw) for one in chosen):
            return NoBaseline(reason="the adjustment window has no data")
        usual = mean([mean(one.window_kw) for one in chosen])
        found = _adjustment(mean(window_kw), usual, matching.adjust_by)
        applied = found if matching.adjust_by is AdjustBy.DIFFERENCE else _capped(found, matching)
    return DayBaseline(
        kw=tuple(map(_adjusted(applied, matching.adjust_by), unadjusted)),
        unadjusted_kw=unadjusted,
        days=tuple(sorted(one.day for one in chosen)),
        adjustment=found,
        applied=applied,
    )


def same_day(window_kw: Sequence[Fraction], intervals: int) -> tuple[Fraction, ...] | NoBaseline:
    """The mean of the window before an event, for each of the event's intervals."""
    if not window_kw:
        return NoBaseline(reason="the window before the event has no data")
    return (mean(window_kw),) * intervals


def prescriptive_kw(ratio: Fraction, nominal_kw: Fraction) -> Fraction:
    """A share of the nominal power of a battery."""
    return ratio * nominal_kw


def generator_output_kw(
    battery_kw: Fraction, load_kw: Fraction, typical_kw: Fraction, *, exports_counted: bool
) -> Fraction:
    """What a metered battery (+ = discharge) gives its home, without what is exported, less what it typically gives.
    `load_kw`: what the home draws with neither battery nor event."""
    counted = battery_kw if exports_counted else min(battery_kw, max(load_kw, ZERO))
    return counted - typical_kw


def response_kw(baseline_kw: Fraction, site_kw: Fraction, *, exports_counted: bool) -> Fraction:
    """What a site (+ = import) drew less than its baseline; an export is no more than drawing nothing unless exports
    count."""
    return baseline_kw - (site_kw if exports_counted else max(site_kw, ZERO))


def mean(values: Sequence[Fraction]) -> Fraction:
    """The mean of at least one value."""
    return sum(values, ZERO) / len(values)


def _adjustment(today: Fraction, usual: Fraction, by: AdjustBy) -> Fraction | None:
    """None = a ratio to what is 0 or below says nothing."""
    if by is AdjustBy.DIFFERENCE:
        return today - usual
    return today / usual if usual > 0 else None


def _capped(ratio: Fraction | None, matching: DayMatching) -> Fraction | None:
    if ratio is None:
        return None
    ratio = ratio if matching.cap_high is None else min(ratio, matching.cap_high)
    return ratio if matching.cap_low is None else max(ratio, matching.cap_low)


def _adjusted(applied: Fraction | None, by: AdjustBy | None) -> Callable[[Fraction], Fraction]:
    if applied is None:
        return lambda kw: kw
    return (lambda kw: kw * applied) if by is AdjustBy.RATIO else (lambda kw: kw + applied)
