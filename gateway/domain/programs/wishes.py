"""What owners want of a meter, as days on which the aggregator is to leave it alone, to have it again or to let it go.

The aggregator knows wishes by meter and by local day; ours are of batteries and programs, and begin at any instant. So
a meter sits out while every battery behind it sits out of every program that the meter is in, and only on days that
this covers whole: an opt-out of one evening is ours to keep, unless `part_days` says that the whole day is given up.
The later word counts: a wish that was noted after what the aggregator has; what it was told since stays, and is listed.
Times are UTC ms, days are those of the meter's zone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from gateway.domain.programs.facts import EVERY_PROGRAM, FOREVER_MS, Preference
from gateway.domain.programs.outbox import Content, WriteKind

OPEN_END = date(2099, 12, 31)
"""The last day of what has no end, as the aggregator writes it."""
LEAVE_DAYS = 3
"""How far ahead a meter is to leave: another person gives leave meanwhile, and no day that has begun is taken."""
REASON = "the owner leaves"
NOT_ALL = (
    "not all of its batteries or programs sit out, and the aggregator knows no part of a meter; nothing is proposed"
)

DAY = timedelta(days=1)
OUT = (Preference.PAUSED, Preference.LEAVING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A wish as it was stated here, of one program or of all: it holds from `from_ms` until `until_ms` (None: no end);
    `noted_ms`: when it was noted; of several that begin together the highest `revision` counts."""

    preference: Preference
    from_ms: int
    noted_ms: int
    until_ms: int | None = None
    program: str = EVERY_PROGRAM
    revision: int = 0

    def holds(self, at_ms: int) -> bool:
        return self.from_ms <= at_ms and (self.until_ms is None or at_ms < self.until_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPeriod:
    """A time that the aggregator has of a meter. `noted_ms`: when it was first seen there, None = just now."""

    preference: Preference
    from_ms: int
    until_ms: int | None = None
    noted_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterWishes:
    """A meter: the programs that it is in, its zone (None: it is not known), what was stated of each battery behind it,
    and what the aggregator has. `reference`: what a person knows it by."""

    meter: str
    reference: str
    programs: frozenset[str]
    zone: str | None
    batteries: Sequence[Sequence[Statement]]
    periods: Sequence[PeerPeriod] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedDays:
    """A change of the aggregator's that a wish asks for."""

    kind: WriteKind
    meter: str
    after: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class _Days:
    """Days, both ends included."""

    first: date
    last: date

    def covers(self, day: date) -> bool:
        return self.first <= day <= self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """What a meter wants from `from_ms` until `until_ms`. None: its batteries, or programs, want different things;
    `noted_ms`: when that was said, -1 = nobody said anything."""

    wants: Preference | None
    from_ms: int
    until_ms: int
    noted_ms: int


def wanted_days(one: MeterWishes, now_ms: int, *, part_days: bool) -> tuple[list[WantedDays], list[str]]:
    """What is to be changed of a meter, and what contradicts, in words."""
    stretches = [
        stretch for stretch in _stretches(one) if stretch.until_ms > now_ms and stretch.noted_ms >= 0
    ]  # fmt: skip
    if not one.programs or not stretches:
        return [], []
    if one.zone is None:
        return [], [f"{one.reference}: its programs have no zone in common; no wish of its owner is proposed"]
    zone = ZoneInfo(one.zone)
    today = _local(now_ms, zone).date()
    changes: list[WantedDays] = []
    conflicts: list[str] = []
    for stretch in stretches:
        found: WantedDays | None = None
        if stretch.wants is None:
            # an evening concerns nobody but us
            if _whole(stretch, zone) is not None:
                conflicts.append(f"{one.reference}: {NOT_ALL}")
        elif stretch.wants is Preference.LEAVING:
            found = _leaving(one, stretch, zone, today)
        elif stretch.wants is Preference.PAUSED:
            found = _paused(one, stretch, zone, today, part_days=part_days)
        else:
            found = _back(one, stretch, zone, today, conflicts)
        once = found is not None and found.kind is not WriteKind.IDLE
        if found is not None and not (once and any(change.kind is found.kind for change in changes)):
            changes.append(found)
            if stretch.wants in OUT and stretch.from_ms <= now_ms:
                conflicts.append(
                    f"{one.reference}: {stretch.wants.name.lower()} here, takes part at the aggregator; sits out"
                )
    return changes, conflicts


def still_fits(change: WantedDays, proposed: Content, now_ms: int) -> bool:
    """Whether a row that was proposed already asks for the same; a day on which a meter leaves may be nearer."""
    if change.kind is not WriteKind.DISENROLL:
        return dict(proposed) == dict(change.after)
    today = _local(now_ms, ZoneInfo(str(change.after["zone"]))).date()
    same = all(proposed.get(name) == change.after[name] for name in ("zone", "reason"))
    return same and today.isoformat() < str(proposed.get("start_date")) <= str(change.after["start_date"])


def _paused(one: MeterWishes, stretch: _Stretch, zone: ZoneInfo, today: date, *, part_days: bool) -> WantedDays | None:
    days = _touched(stretch, zone) if part_days else _whole(stretch, zone)
    left = _without(days, today, _out_days(one, zone))
    if left is None:
        return None
    after = {"start_date": left.first.isoformat(), "end_date": left.last.isoformat(), "zone": zone.key}
    return WantedDays(kind=WriteKind.IDLE, meter=one.meter, after=after)


def _leaving(one: MeterWishes, stretch: _Stretch, zone: ZoneInfo, today: date) -> WantedDays | None:
    days = _whole(stretch, zone)
    if days is None or any(period.preference is Preference.LEAVING for period in one.periods):
        return None
    first = max(days.first, today + LEAVE_DAYS * DAY)
    after = {"start_date": first.isoformat(), "reason": REASON, "zone": zone.key}
    return WantedDays(kind=WriteKind.DISENROLL, meter=one.meter, after=after)


def _back(one: MeterWishes, stretch: _Stretch, zone: ZoneInfo, today: date, conflicts: list[str]) -> WantedDays | None:
    """Taking part again from the first day that the aggregator would leave it alone though its owner came back."""
    days = _whole(stretch, zone)
    if days is None:
        return None
    for period, out in sorted(_out(one, zone), key=lambda found: found[1].first):
        first = max(days.first, out.first, today)
        if first > min(days.last, out.last):
            continue
        later = period.noted_ms is not None and period.noted_ms < stretch.noted_ms
        if later and period.preference is Preference.PAUSED:
            after = {"start_date": first.isoformat(), "zone": zone.key}
            return WantedDays(kind=WriteKind.PARTICIPATE, meter=one.meter, after=after)
        word = period.preference.name.lower()
        conflicts.append(f"{one.reference}: takes part here, {word} at the aggregator from {out.first}; sits out")
    return None


def _stretches(one: MeterWishes) -> list[_Stretch]:
    """Everything that was ever wanted of a meter, in order, until ever."""
    said = [statement for battery in one.batteries for statement in battery]
    edges = {one.from_ms for one in said} | {one.until_ms for one in said if one.until_ms is not None}
    found: list[_Stretch] = []
    for from_ms, until_ms in pairwise([*sorted(edges), FOREVER_MS]):
        wants, noted_ms = _wants(one, from_ms)
        if found and found[-1].wants == wants:
            before = found.pop()
            from_ms, noted_ms = before.from_ms, max(before.noted_ms, noted_ms)
        found.append(_Stretch(wants=wants, from_ms=from_ms, until_ms=until_ms, noted_ms=noted_ms))
    return found


def _wants(one: MeterWishes, at_ms: int) -> tuple[Preference | None, int]:
    """What a meter wants at an instant, and when the last of what decides that was noted."""
    wants: set[Preference] = set()
    noted_ms = -1
    for battery in one.batteries:
        holding = [statement for statement in battery if statement.holds(at_ms)]
        for program in one.programs:
            # the wish that keeps it furthest away: of the program or of all
            deciding = [_newest(holding, EVERY_PROGRAM), _newest(holding, program)]
            known = [statement for statement in deciding if statement is not None]
            wants.add(max((statement.preference for statement in known), default=Preference.PARTICIPATE))
            noted_ms = max([noted_ms, *(statement.noted_ms for statement in known)])
    if wants == {Preference.LEAVING}:
        return Preference.LEAVING, noted_ms
    if wants and wants <= set(OUT):
        return Preference.PAUSED, noted_ms
    if wants & set(OUT) or Preference.UNKNOWN in wants:
        return None, noted_ms
    return Preference.PARTICIPATE, noted_ms


def _newest(statements: Iterable[Statement], program: str) -> Statement | None:
    mine = (statement for statement in statements if statement.program == program)
    return max(mine, key=lambda statement: (statement.from_ms, statement.revision), default=None)


def _out(one: MeterWishes, zone: ZoneInfo) -> Iterator[tuple[PeerPeriod, _Days]]:
    """When the aggregator leaves a meter alone."""
    for period in one.periods:
        until_ms = FOREVER_MS if period.until_ms is None else period.until_ms
        days = _whole(_Stretch(wants=None, from_ms=period.from_ms, until_ms=until_ms, noted_ms=0), zone)
        if period.preference in OUT and days is not None:
            yield period, days


def _out_days(one: MeterWishes, zone: ZoneInfo) -> list[_Days]:
    return [days for _, days in _out(one, zone)]


def _without(days: _Days | None, today: date, others: Sequence[_Days]) -> _Days | None:
    """The days from today on without those at either end that are covered already."""
    if days is None:
        return None
    first, last = max(days.first, today), days.last
    for other in sorted(others, key=lambda one: one.first):
        if other.covers(first):
            if other.last >= last:
                return None
            first = other.last + DAY
    for other in sorted(others, key=lambda one: one.last, reverse=True):
        if other.covers(last):
            last = other.first - DAY
    return _Days(first=first, last=last) if first <= last else None


def _whole(stretch: _Stretch, zone: ZoneInfo) -> _Days | None:
    """The days that a stretch covers whole."""
    first, until = _local(stretch.from_ms, zone).date(), _local(stretch.until_ms, zone).date()
    # where clocks change at midnight the day begins when it does
    if stretch.from_ms > round(datetime.combine(first, time(), zone).timestamp() * 1000):
        first += DAY
    last = min(until - DAY, OPEN_END)
    return _Days(first=first, last=last) if first <= last else None


def _touched(stretch: _Stretch, zone: ZoneInfo) -> _Days:
    """The days of which a stretch covers some."""
    last = (_local(stretch.until_ms, zone) - timedelta(microseconds=1)).date()
    return _Days(first=_local(stretch.from_ms, zone).date(), last=min(last, OPEN_END))


def _local(at_ms: int, zone: ZoneInfo) -> datetime:
    """A moment in a zone; what is as far away as never is the day after the last one."""
    end = datetime.combine(OPEN_END + DAY, time(), zone)
    if at_ms >= end.timestamp() * 1000:
        return end
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).astimezone(zone)
