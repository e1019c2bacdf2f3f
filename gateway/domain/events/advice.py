"""What the source of an event should know when it is accepted: what its group does now that the event would end, and
whom it names in vain. What whoever excludes devices should know: whom that misses. And what an operator should know of
events that nobody has ended."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np

from gateway.domain.events.areas import unplaced
from gateway.domain.events.calendar import DAY_MS
from gateway.domain.events.lifecycle import BookEntry
from gateway.domain.events.request import EventRequest, TargetGroup, Want, Way
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.registry.territory import Area
from gateway.domain.types import Now, Slots

HEARD_MS = 60_000
TOLERANCE_W = 200.0
TOLERANCE_PART = 0.1
NAMED = 10
"""Of ids and tags that address nobody, as many are named; the others are counted."""

FORGOTTEN_MS = DAY_MS
"""An event without an end that runs for longer may be forgotten; no other runs for so long."""


def own_power_w(snapshot: Snapshot, members: Slots, way: Way, now: Now) -> float:
    """Power that devices give (or take) in their maker's own mode, W, not negative; those not heard lately add none."""
    live = snapshot.live
    heard = now.mono_ms - live.seen_mono_ms[members] <= HEARD_MS
    own = heard & (snapshot.control.authority[members] == int(Authority.DEVICE))
    power_w = np.nan_to_num(live.battery_w[members][own]) * (-1.0 if way is Way.INTO else 1.0)
    return float(np.maximum(power_w, 0.0).sum())


def warnings(request: EventRequest, snapshot: Snapshot, members: Slots, now: Now) -> tuple[str, ...]:
    """Warnings on an event that was accepted: it asks for less than its group does by itself now, and its target is
    all that the group gives."""
    target = request.target
    if target.want is not Want.POWER or target.power_w is None or target.way is Way.NEITHER:
        return ()
    asked_w, own_w = abs(target.power_w), own_power_w(snapshot, members, target.way, now)
    if own_w <= asked_w + max(TOLERANCE_W, TOLERANCE_PART * asked_w):
        return ()
    does, other = ("charges", "charging") if target.way is Way.INTO else ("discharges", "discharging")
    return (
        f"the group {does} with {own_w:.0f} W by itself now; the event asks for {asked_w:.0f} W of it in all, "
        f"and may end the other {own_w - asked_w:.0f} W of {other}",
    )


def unmatched(fleet: Fleet, group: TargetGroup) -> tuple[str, ...]:
    """Warnings on a group that names devices or tags that are not there, or that is nobody."""
    slot_of = fleet.slot_of
    slots = np.fromiter((slot_of.get(name, -1) for name in group.ids), np.int64, len(group.ids))
    # read after the slots, which may become more meanwhile
    registered = fleet.nameplate.registered
    here = slots >= 0
    here[here] = registered[slots[here]]
    unknown = [group.ids[at] for at in np.flatnonzero(~here).tolist()]
    unused = [tag for tag in group.tags if not any(registered[slot] for slot in fleet.tags.get(tag, ()))]
    someone = len(unknown) < len(group.ids) or len(unused) < len(group.tags)
    if group.all:
        someone = bool(registered[: fleet.n].any())
    return tuple(_told(unknown, unused, someone=someone))


def unmatched_area(fleet: Fleet, area: Area, devices: int) -> tuple[str, ...]:
    """Warnings on an area that names what no home has, and on homes of which is not known what it names; `devices` are
    in it."""
    found = [f"no home has the {member}: {_names(texts)}" for member, texts in fleet.territories.missing(area).items()]
    found += [
        f"of {count} devices no {member} is known: they are not in the area"
        for member, count in unplaced(fleet, area).items()
    ]
    return (*found, *(() if devices else ("the area has no device now",)))


def excluded(count: int, of: int, names: Sequence[str]) -> tuple[str, ...]:
    """A warning on an event: how many of its devices exclusions of areas keep out within its time."""
    return (f"{count} of {of} devices are excluded at some time of the event: {_names(names)}",) if count else ()


def _told(unknown: Collection[str], unused: Collection[str], *, someone: bool) -> Iterator[str]:
    if unknown:
        yield f"not registered: {_names(unknown)}"
    if unused:
        yield f"no device has the tag: {_names(unused)}"
    if not someone:
        yield "the group has no device now"


def _names(names: Collection[str]) -> str:
    shown = ", ".join([*names][:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def unknown_program(request: EventRequest, programs: Collection[str]) -> tuple[str, ...]:
    """A warning on an event of a program that is none of `programs`, which the configuration names, if any."""
    if not programs or request.program in programs:
        return ()
    return (f"no block of programs in the configuration names {request.program}: no rule of a program applies",)


def forgotten(running: Iterable[BookEntry], now: Now) -> list[str]:
    """Warnings on events without an end that have run for more than a day."""
    return [
        f"event {entry.request.id} runs until further notice, since {_date(entry.request.start_ms)}"
        for entry in running
        if now.utc_ms - entry.request.start_ms > FORGOTTEN_MS
    ]


def _date(utc_ms: int) -> str:
    return f"{datetime.fromtimestamp(utc_ms / 1000, tz=UTC):%Y-%m-%d %H:%M} UTC"
