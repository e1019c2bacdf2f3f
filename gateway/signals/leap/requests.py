"""An event as the plan has it becomes an event request: its program, kind and pay, its devices and the power of each.

Pure. Power of a meter is split among the batteries behind it in proportion to what they can give; the power of a group
is shared by the allocation of the tick. kW upstream are W here, and what the aggregator dispatches is discharge.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.domain.events.request import (
    Compensation,
    EventKind,
    EventRequest,
    Leg,
    Target,
    TargetGroup,
    power,
    power_of_each,
)
from gateway.domain.types import DeviceId, EventId
from gateway.signals.leap.slots import Level

SOURCE = "leap"
"""Whose events these are: what a program names among its dispatchers."""

UNKNOWN_PROGRAM = "unknown-program"
SEVERAL_PROGRAMS = "several-programs"
COMMUNICATION_TEST = "communication-test"
INTEGRATION_TEST = "integration-test"
UNKNOWN_PAY = "unknown-compensation"
LABELS_MAX, LABEL_CHARS = 16, 48
NO_PROGRAM = "leap"

COMPENSATION: Mapping[str, Compensation] = {
    "up-to-nomination": Compensation.NOMINATION,
    "up-to-site-load": Compensation.SITE_LOAD,
    "grid-exports-allowed": Compensation.EXPORTS,
}

Batteries = Sequence[tuple[DeviceId, float]]
"""The batteries behind a meter, and what each can give, W."""


@dataclass(slots=True, kw_only=True)
class PlanRows:
    """An event of the plan, as it comes from the reader part by part. `kw`: a row for each meter, of each leg; of a
    group one row for all."""

    id: str
    level: Level
    integration: bool
    test: bool
    capacity_test: bool
    programs: tuple[str, ...]
    priority: int
    voluntary: bool
    cap: str
    spans_ms: tuple[tuple[int, int], ...]
    nomination_kw: float | None
    types: tuple[str, ...]
    gaps: tuple[str, ...]
    meters: list[str] = field(default_factory=list)
    kw: list[list[float | None]] = field(default_factory=list)

    @property
    def start_ms(self) -> int:
        return self.spans_ms[0][0]

    @property
    def end_ms(self) -> int:
        return self.spans_ms[-1][1]

    @staticmethod
    def take(events: "dict[str, PlanRows]", message: Mapping[str, Any]) -> None:
        """Add a part of an event to the events that are here by now."""
        event = events.get(message["event"])
        if event is None:
            event = events[message["event"]] = PlanRows(
                id=message["event"], level="group" if message["level"] == "group" else "meter",
                integration=message["integration"], test=message["test"], capacity_test=message["capacity_test"],
                programs=tuple(message["programs"]), priority=message["priority"], voluntary=message["voluntary"],
                cap=message["cap"], spans_ms=tuple((start, end) for start, end in message["spans_ms"]),
                nomination_kw=message["nomination_kw"], types=tuple(message["types"]), gaps=tuple(message["gaps"]),
            )  # fmt: skip
        event.meters += message["meters"]
        event.kw += [list(row) for row in message["kw"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What an event of the plan became. `request` None: none of its meters has a battery; `unknown`: meters without
    one; `program_known`: whether one of our programs bears its program's name."""

    request: EventRequest | None
    unknown: int
    program_known: bool


def make_request(
    event: PlanRows, batteries: Sequence[Batteries], *, program_of: Mapping[str, str], per_device: bool
) -> Made:
    """The request, at revision 0. `batteries`: of each meter; `program_of`: our program for the aggregator's id;
    `per_device`: its power is of each battery, not of the meter."""
    program, known, labels = _program(event, program_of)
    ids, targets = _members(event, batteries, per_device=per_device)
    unknown = sum(not behind for behind in batteries)
    if not ids:
        return Made(request=None, unknown=unknown, program_known=known)
    legs = tuple(
        Leg(after_ms=start_ms - event.start_ms, until_ms=end_ms - event.start_ms, target=target)
        for (start_ms, end_ms), target in zip(event.spans_ms, targets, strict=True)
    )
    request = EventRequest(
        id=EventId(event.id),
        revision=0,
        kind=_kind(event),
        program=program,
        group=TargetGroup(ids=ids),
        start_ms=event.start_ms,
        end_ms=event.end_ms,
        target=targets[0],
        legs=legs if len(legs) > 1 else (),
        priority=event.priority,
        voluntary=event.voluntary,
        compensation=COMPENSATION.get(event.cap, Compensation.EXPORTS),
        nomination_w=None if event.nomination_kw is None else round(event.nomination_kw * 1000, 3),
        source=SOURCE,
        labels=_labels(event, labels),
    )
    return Made(request=request, unknown=unknown, program_known=known)


def _kind(event: PlanRows) -> EventKind:
    """A test of the interface moves nothing; a test of the batteries does, and is reported as a test."""
    if event.integration:
        return EventKind.DRY_RUN
    return EventKind.CAPACITY_TEST if event.test or event.capacity_test else EventKind.REAL


def _program(event: PlanRows, program_of: Mapping[str, str]) -> tuple[str, bool, list[str]]:
    """Our program, whether it is one of ours, and what to say of that. An event of a program that we do not know goes
    all the same: it comes from the program's own dispatcher."""
    ours = list(dict.fromkeys(program_of[name] for name in event.programs if name in program_of))
    labels = [] if len(event.programs) < 2 else [SEVERAL_PROGRAMS, *event.programs]
    if ours:
        return ours[0], True, labels
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in (*event.programs, NO_PROGRAM)[0])
    return name[:64].lstrip("._-") or NO_PROGRAM, False, [UNKNOWN_PROGRAM, *labels]


def _members(
    event: PlanRows, batteries: Sequence[Batteries], *, per_device: bool
) -> tuple[tuple[DeviceId, ...], list[Target]]:
    """The devices, each once, and the target of each leg."""
    legs = range(len(event.spans_ms))
    if event.level == "group":
        ids = tuple(dict.fromkeys(device for behind in batteries for device, _ in behind))
        return ids, [power(None if kw is None else kw * 1000) for kw in event.kw[0]]
    each_w: dict[DeviceId, list[float]] = {}
    free = [event.kw[0][leg] is None for leg in legs] if event.kw else []
    for behind, kw in zip(batteries, event.kw, strict=True):
        total_w = sum(able_w for _, able_w in behind)
        for device, able_w in behind:
            part = 1.0 if per_device else able_w / total_w if total_w > 0 else 1.0 / len(behind)
            own_w = [0.0 if one is None else max(one * 1000 * part, 1.0) for one in kw]
            before_w = each_w.get(device)
            # behind two meters of one event, such as its own and that of the home: each of them sees the same power,
            # so what the larger asks serves both
            each_w[device] = own_w if before_w is None else [max(a, b) for a, b in zip(before_w, own_w, strict=True)]
    targets: list[Target] = []
    for leg in legs if each_w else ():
        target = power(None) if free[leg] else power_of_each([own[leg] for own in each_w.values()])
        # one object where nothing changes, which is compared in no time
        targets.append(targets[-1] if targets and targets[-1] == target else target)
    return tuple(each_w), targets


def _labels(event: PlanRows, more: Iterable[str]) -> tuple[str, ...]:
    found = [
        *((INTEGRATION_TEST,) if event.integration else ()),
        *((COMMUNICATION_TEST,) if event.test else ()),
        *((UNKNOWN_PAY,) if event.cap not in COMPENSATION else ()),
        *more,
        *event.types,
        *(f"without-{gap.replace('_', '-')}" for gap in event.gaps),
    ]
    fit = ("".join(c for c in label[:LABEL_CHARS] if c.isprintable()) for label in found)
    return tuple(dict.fromkeys(label for label in fit if label))[:LABELS_MAX]
