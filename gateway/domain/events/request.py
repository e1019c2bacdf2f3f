"""Event requests: what the grid asks of which devices, and when.

A target is for a group of devices and a span of time. An event is one span, several with a target each, or such spans
that repeat. Everything here is the request, never its outcome; see `book` and `delivery_records` for that.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from gateway.domain.events.calendar import DAY_MS, Daily
from gateway.domain.types import DeviceId, EventId

OPEN_MS = 253_370_764_800_000
"""The end of what runs until further notice: 9999-01-01 in UTC ms. No event has such a time of its own, it can be
written as a date, and what is added to it stays far from the bounds of an integer."""


class EventKind(Enum):
    """`real` and `capacity_test` actuate; `dry_run` never does."""

    REAL = "real"
    CAPACITY_TEST = "capacity_test"
    DRY_RUN = "dry_run"


class Want(Enum):
    """What a target asks for. `POWER`: gross AC battery power of the group. `DEVICE_POWER`: of each device.
    `CHARGE_TO`: a SoC of each device by the end. `FOLLOW_LOAD`: a power at the meter of each home. `IDLE`: no
    discharge. `SELF_CONSUMPTION`: the maker's own mode. `BACKUP`: charged as far as may be, and kept."""

    POWER = "power"
    DEVICE_POWER = "device_power"
    CHARGE_TO = "charge_to"
    FOLLOW_LOAD = "follow_load"
    IDLE = "idle"
    SELF_CONSUMPTION = "self_consumption"
    BACKUP = "backup"


class Way(Enum):
    """Which way a target moves energy; targets that go the same way can share a battery."""

    OUT = "out"
    INTO = "into"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked. `power_w`: W, battery + = discharge (of the group or of each device), at the meter + = import;
    None with `POWER` = the most that can be sustained to the end, charging if `charge_when_max`. `soc_pct` belongs to
    `CHARGE_TO`. `each_w` with `DEVICE_POWER`: the power of each device that the group names by id, in that order, where
    they differ; all go the same way, and `power_w` is their mean."""

    want: Want
    power_w: float | None = None
    soc_pct: float | None = None
    charge_when_max: bool = False
    each_w: tuple[float, ...] = ()

    @property
    def way(self) -> Way:
        if self.want in (Want.CHARGE_TO, Want.BACKUP):
            return Way.INTO
        if self.want not in (Want.POWER, Want.DEVICE_POWER):
            return Way.NEITHER
        if self.power_w is None:
            return Way.INTO if self.charge_when_max else Way.OUT
        return Way.OUT if self.power_w > 0 else Way.INTO if self.power_w < 0 else Way.NEITHER

    def shares_with(self, other: "Target") -> bool:
        """Whether one setpoint can serve both: they go the same way, or are equal."""
        return (self.way is other.way and self.way is not Way.NEITHER) or self == other


def power_of_each(each_w: Sequence[float]) -> Target:
    """W of each device that the group names by id, in that order, + = discharge; none may be 0."""
    mean_w = sum(each_w) / len(each_w)
    alike = all(one_w == each_w[0] for one_w in each_w)
    return Target(want=Want.DEVICE_POWER, power_w=each_w[0] if alike else mean_w, each_w=() if alike else tuple(each_w))


def power(power_w: float | None, *, charge: bool = False) -> Target:
    """W of the group, + = discharge; None = the most that can be sustained."""
    return Target(want=Want.POWER, power_w=power_w, charge_when_max=charge)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetGroup:
    """Which devices an event addresses: everything, or the union of the named ids and tags."""

    all: bool = False
    ids: tuple[DeviceId, ...] = ()
    tags: tuple[str, ...] = ()


class Compensation(Enum):
    """How far a program pays: up to its nomination, up to the load of each home, or exports too."""

    NOMINATION = "up_to_nomination"
    SITE_LOAD = "up_to_site_load"
    EXPORTS = "exports"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One target within an event: from `after_ms` to `until_ms`, counted from the start of the occurrence; the last one
    to `OPEN_MS` if it lasts until further notice."""

    after_ms: int
    until_ms: int
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The target at a moment, with its start and end. `sustained_until_ms`: the end of the run of equal targets, for
    which energy must last."""

    target: Target
    since_ms: int
    until_ms: int
    sustained_until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRequest:
    """What the grid asks of `group` from `start_ms` to `end_ms` (UTC, half open; `OPEN_MS` = until further notice).

    One target, or `legs` with a target each. An event that repeats has legs: `starts_ms` are its occurrences by the
    calendar and `ends_ms` their ends (none = the legs say them), `every_ms` the period of one that repeats until
    `end_ms`, `daily` the calendar of one that repeats until further notice. The last leg ends with its occurrence.
    `anchored`: its start was "now" and became the time when it was
    first received; `sent_ms`: when it was sent (UTC), None = unknown. `revision` grows with each change; `cancelled`
    withdraws.

    Lower `priority` wins, then commitment over `voluntary`. `compensation` and `nomination_w` bound what is paid.
    `reserve_pct`: SoC that the program leaves in every device. Members start within `start_spread_s`, each at its own
    time. For `prepare_s` before the start they are kept from discharging, and with `precharge` charged from the grid
    where that is permitted. A device in its maker's backup or storm mode is left alone unless `takes_backup`.
    `labels`: what its source says of it besides, a few words for reports.
    """

    id: EventId
    revision: int
    kind: EventKind
    program: str
    group: TargetGroup
    start_ms: int
    end_ms: int
    target: Target
    legs: tuple[Leg, ...] = ()
    _sustained_ms: tuple[int, ...] = field(default=(), init=False, repr=False, compare=False)
    starts_ms: tuple[int, ...] = ()
    # not compared: requests that were stored without are the same
    ends_ms: tuple[int, ...] = field(default=(), compare=False)
    every_ms: int | None = None
    daily: Daily | None = None
    anchored: bool = False
    priority: int
    voluntary: bool = True
    compensation: Compensation = Compensation.EXPORTS
    nomination_w: float | None = None
    reserve_pct: float = 0.0
    start_spread_s: float = 0.0
    prepare_s: float = 0.0
    precharge: bool = False
    takes_backup: bool = False
    cancelled: bool = False
    source: str = field(default="")
    sent_ms: int | None = field(default=None, compare=False)
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sustained_ms", _sustained_ms(self.legs))

    @property
    def length_ms(self) -> int:
        """Length of one occurrence; by the calendar, as long as no clock changes. `OPEN_MS` if it has no end."""
        if self.legs:
            return self.legs[-1].until_ms
        return OPEN_MS if self.open_ended else self.end_ms - self.start_ms

    def cancels(self, known: "EventRequest") -> bool:
        """Whether it is the revision that is `known`, cancelled, and nothing else: the later word of the two."""
        called_off = self.cancelled and not known.cancelled
        return called_off and replace(known, source="", cancelled=True) == replace(self, source="")

    @property
    def repeats(self) -> bool:
        return bool(self.every_ms) or self.daily is not None or len(self.starts_ms) > 1

    @property
    def open_ended(self) -> bool:
        """Whether the event goes on, or repeats, until further notice."""
        return self.end_ms >= OPEN_MS

    @property
    def endless(self) -> bool:
        """Whether an occurrence has no end of its own."""
        return self.length_ms >= OPEN_MS

    @property
    def target_w(self) -> float | None:
        """Power of the group where that is the target, W; None = the most, or another kind of target."""
        return self.target.power_w if self.target.want is Want.POWER else None

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(leg.target for leg in self.legs) or (self.target,)

    def occurrence_ms(self, utc_ms: int) -> int | None:
        """Start of the newest occurrence at or before `utc_ms`; None before the first."""
        if utc_ms < self.start_ms:
            return None
        if self.daily is not None:
            found = self.daily.newest(utc_ms)
            return None if found is None else found[0]
        if self.every_ms:
            return self.start_ms + (utc_ms - self.start_ms) // self.every_ms * self.every_ms
        if self.starts_ms:
            return self.starts_ms[bisect_right(self.starts_ms, utc_ms) - 1]
        return self.start_ms

    def next_ms(self, utc_ms: int) -> int | None:
        """Start of the next occurrence after `utc_ms`; None if there is none."""
        if utc_ms < self.start_ms:
            return self.start_ms
        if self.daily is not None:
            return self.daily.next_ms(utc_ms)
        now_ms = self.occurrence_ms(utc_ms)
        if now_ms is None:
            return None
        if self.every_ms:
            after_ms = now_ms + self.every_ms
            return after_ms if after_ms < self.end_ms else None
        at = bisect_right(self.starts_ms, utc_ms)
        return self.starts_ms[at] if at < len(self.starts_ms) else None

    def running(self, utc_ms: int) -> Running | None:
        """The target at `utc_ms`; None outside, and between legs and occurrences."""
        began_ms, over_ms = self.occurrence_ms(utc_ms), self.until_over_ms(utc_ms)
        if began_ms is None or utc_ms >= over_ms:
            return None
        if not self.legs:
            return Running(target=self.target, since_ms=began_ms, until_ms=over_ms, sustained_until_ms=over_ms)
        at = bisect_right(self.legs, utc_ms - began_ms, key=_after_ms) - 1
        leg = self.legs[max(at, 0)]
        until_ms = self._until_ms(leg.until_ms, began_ms, over_ms)
        if at < 0 or utc_ms >= until_ms:
            return None
        return Running(
            target=leg.target,
            since_ms=began_ms + leg.after_ms,
            until_ms=until_ms,
            sustained_until_ms=self._until_ms(self._sustained_ms[at], began_ms, over_ms),
        )

    def _until_ms(self, after_ms: int, began_ms: int, over_ms: int) -> int:
        """The end of a leg, UTC, that ends `after_ms` from the start of an occurrence."""
        return over_ms if after_ms == self.length_ms else min(began_ms + after_ms, over_ms)

    def until_over_ms(self, utc_ms: int) -> int:
        """When the current occurrence, or the event, is over."""
        began_ms = self.occurrence_ms(utc_ms)
        if began_ms is None:
            return self.end_ms
        if self.daily is not None and (found := self.daily.newest(utc_ms)) is not None:
            return found[1]
        if self.ends_ms:
            return self.ends_ms[bisect_right(self.starts_ms, utc_ms) - 1]
        return min(began_ms + self.length_ms, self.end_ms)

    def recorded_ms(self, utc_ms: int) -> tuple[int, int] | None:
        """Start and end of what one delivery record of each device covers: the newest occurrence at or before `utc_ms`,
        or its newest 24 h if it has no end. None before the first."""
        began_ms, over_ms = self.occurrence_ms(utc_ms), self.until_over_ms(utc_ms)
        if began_ms is None or not self.endless:
            return None if began_ms is None else (began_ms, over_ms)
        from_ms = began_ms + (utc_ms - began_ms) // DAY_MS * DAY_MS
        return from_ms, from_ms + DAY_MS


def _after_ms(leg: Leg) -> int:
    return leg.after_ms


def _sustained_ms(legs: tuple[Leg, ...]) -> tuple[int, ...]:
    """The end of the run of equal targets that each leg belongs to."""
    ends: list[int] = []
    following: Leg | None = None
    for leg in reversed(legs):
        goes_on = following is not None and following.after_ms == leg.until_ms and following.target == leg.target
        ends.append(ends[-1] if goes_on else leg.until_ms)
        following = leg
    return tuple(reversed(ends))
