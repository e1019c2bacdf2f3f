"""What a battery did on a day, in words: for which event, on whose order, what is missing and why, and its reserve.

Times UTC ms, told in a time zone; energies Wh, + = given to the home or the grid; None = unknown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from gateway.domain.events.delivery_records import Failure, Status

RESERVE_TOLERANCE_PCT = 1.0
"""A SoC in whole percent may be off by so much."""
MISSING_MIN_WH = 50.0
"""Less than this is no shortfall worth a word."""
WHOLE_PCT = 99.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BatteryEvent:
    """The part of a battery in one event that is over: its delivery record, and whose event it was. `limits`: what
    narrowed its power in the end; times 0 = never."""

    event: str
    source: str
    program: str
    kind: str
    start_ms: int
    ended_ms: int
    status: Status
    failure: Failure
    limits: tuple[str, ...]
    asked_wh: float
    delivered_wh: float
    shortfall_wh: float
    unmeasured_wh: float
    sent_ms: int = 0
    acknowledged_ms: int = 0
    started_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DayEnergy:
    """What its intervals of a day say together. `covered_pct`: the part of the day that was measured."""

    discharge_wh: float | None
    charge_wh: float | None
    covered_pct: float
    soc_low_pct: float | None
    soc_high_pct: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatteryDay:
    """A battery and a local day. `reserve_pct`: its owner's reserve as it is known now."""

    battery: str
    zone: str
    day: date
    events: Sequence[BatteryEvent]
    energy: DayEnergy
    reserve_pct: float | None


_FAILURES = {
    Failure.NONE: "",
    Failure.OFFLINE: "it could not be reached, or its readings were not to be trusted",
    Failure.FAULT: "it reported a fault",
    Failure.LIMIT: "a limit left it no power",
    Failure.REFUSED: "it refused the command",
    Failure.NO_RESPONSE: "it did not follow its commands",
    Failure.EXCLUDED: "it was kept out of dispatch",
}
_STATUSES = {
    Status.OPTED_OUT: "Its owner took it out of the event.",
    Status.CANCELLED: "The event was cancelled.",
    Status.SUPERSEDED: "Another event of higher rank had it.",
}


def explained(day: BatteryDay) -> list[str]:
    """The day in sentences: its energy, each event, its reserve."""
    return [*_energy(day), *(_event(day.zone, one) for one in day.events), *_without(day), *_reserve(day)]


def _energy(day: BatteryDay) -> Iterator[str]:
    energy, on = day.energy, f"{day.day.isoformat()} ({day.zone})"
    if energy.discharge_wh is None and energy.charge_wh is None:
        yield f"On {on} nothing was measured of {day.battery}."
        return
    moved = [
        f"{word} {wh / 1000:.2f} kWh"
        for word, wh in (("gave", energy.discharge_wh), ("took", energy.charge_wh))
        if wh is not None
    ]
    covered = "" if energy.covered_pct >= WHOLE_PCT else f"; {energy.covered_pct:.0f} % of the day was measured"
    yield f"On {on} {day.battery} {' and '.join(moved)}{covered}."


def _event(zone: str, one: BatteryEvent) -> str:
    program = f" of program {one.program}" if one.program else ""
    order = f"ordered by {one.source}" if one.source else "whose source is not known"
    kind = "" if one.kind == "real" else f", a {one.kind.replace('_', ' ')}"
    head = f"{_clock(zone, one.start_ms)} to {_clock(zone, one.ended_ms)}: event {one.event}{program}, {order}{kind}"
    way = "give" if one.asked_wh >= 0 else "take"
    done = "gave" if one.asked_wh >= 0 else "took"
    asked, got = abs(one.asked_wh), one.delivered_wh if one.asked_wh >= 0 else -one.delivered_wh
    if asked < 1:
        said = ["It was asked for nothing."]
    else:
        said = [f"It was asked to {way} {asked / 1000:.2f} kWh and {done} {got / 1000:.2f} kWh."]
    steps = [
        f"{word} at {_clock(zone, at, seconds=True)}"
        for word, at in (
            ("the first setpoint went out", one.sent_ms),
            ("it was acknowledged", one.acknowledged_ms),
            ("power followed", one.started_ms),
        )
        if at > 0
    ]
    if steps:
        said.append(f"{', '.join(steps)}.".capitalize())
    said += [word for word in (_STATUSES.get(one.status, ""), _missing(one)) if word]
    return f"{head}. {' '.join(said)}"


def _missing(one: BatteryEvent) -> str:
    """What is missing, and what is known of why."""
    missing = abs(one.shortfall_wh)
    if missing < MISSING_MIN_WH:
        return ""
    reasons = [_FAILURES[one.failure]] if one.failure is not Failure.NONE else []
    reasons += [f"limited by {', '.join(one.limits).replace('_', ' ')}"] if one.limits else []
    unmeasured = abs(one.unmeasured_wh)
    if unmeasured >= MISSING_MIN_WH:
        reasons.append(f"{unmeasured / 1000:.2f} kWh of it were not measured and may have been given")
    why = "; ".join(reasons) or "no reason is known"
    return f"{missing / 1000:.2f} kWh are missing: {why}."


def _without(day: BatteryDay) -> Iterator[str]:
    if not day.events:
        yield "No event that is over asked anything of it."


def _reserve(day: BatteryDay) -> Iterator[str]:
    low, high = day.energy.soc_low_pct, day.energy.soc_high_pct
    if low is None or high is None:
        return
    between = f"Its SoC was between {low:.0f} and {high:.0f} %"
    if day.reserve_pct is None:
        yield f"{between}; the reserve of its owner is not known."
    elif low >= day.reserve_pct - RESERVE_TOLERANCE_PCT:
        yield f"{between}: the reserve of its owner, {day.reserve_pct:.0f} % as it is set now, was kept."
    else:
        yield f"{between}: below the reserve of its owner, {day.reserve_pct:.0f} % as it is set now."


def _clock(zone: str, at_ms: int, *, seconds: bool = False) -> str:
    """A time of day."""
    moment = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
    return moment.strftime("%H:%M:%S" if seconds else "%H:%M")
