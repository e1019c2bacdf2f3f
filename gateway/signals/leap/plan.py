"""Makes events of ours out of slots: adjacent slots become legs of one event, meters with the same slots its members.

Pure. A chain is what one meter (or group) has without a gap under the same terms, for 24 h at most; the battery is not
released between its slots. Meters whose chains have the same terms and times are members of one event, in which each
has its own power. The most that can be sustained and a given power are two events. Overlapping slots stay apart, also
two of one meter at the same times, so that the power of neither is lost: the aggregator's priority, 1 first, decides
between them where they are served.

An event of ours keeps its id while most of its slots stay together, whatever changes of them; a new one is called by
the smallest id of its slots. So a change is a revision, not an end and a beginning.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.signals.leap.slot_book import KnownSlot
from gateway.signals.leap.slots import SLOT_MS_MAX, DispatchSlot, Level

TEST_MARK = "test-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under which slots are dispatched: what they must share to be one event."""

    level: Level
    integration: bool
    test: bool
    programs: tuple[str, ...]
    priority: int
    voluntary: bool
    cap: str
    capacity_test: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEvent:
    """An event of ours. `spans_ms`: start and end of each leg, UTC, without gaps; `meters`: its members, and `kw` what
    each is to give in each leg (None: the most that can be sustained); of a group one row for all of them together.
    `nomination_kw`: the sum, None if one is not told; `types`, `references`, `gaps`: of all its slots."""

    id: str
    terms: Terms
    spans_ms: tuple[tuple[int, int], ...]
    meters: tuple[str, ...]
    kw: tuple[tuple[float | None, ...], ...]
    nomination_kw: float | None
    types: tuple[str, ...]
    gaps: tuple[str, ...]

    @property
    def start_ms(self) -> int:
        return self.spans_ms[0][0]

    @property
    def end_ms(self) -> int:
        return self.spans_ms[-1][1]


@dataclass(slots=True)
class _Chain:
    """Slots of one owner, one after the other without a gap."""

    slots: list[KnownSlot]

    @property
    def end_ms(self) -> int:
        return self.slots[-1].slot.end_ms

    def goes_on(self, slot: DispatchSlot) -> bool:
        """Whether it goes on with a slot, and is not too long for one event then."""
        return self.end_ms == slot.start_ms and slot.end_ms - self.slots[0].slot.start_ms <= SLOT_MS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPlan:
    """`events`: what is to run, from now on; `gone`: events of ours that have no slot any more and were not to be over
    yet; `slots`: which event each slot is in."""

    events: Sequence[PlannedEvent]
    gone: Sequence[str]
    slots: Sequence[tuple[KnownSlot, str]]


def terms_of(slot: DispatchSlot) -> Terms:
    return Terms(
        level=slot.level, integration=slot.integration, test=slot.test, programs=slot.programs, priority=slot.priority,
        voluntary=slot.voluntary, cap=slot.cap, capacity_test="capacity-test" in slot.types,
    )  # fmt: skip


def make_plan(known: Iterable[KnownSlot], events: Mapping[str, int], now_ms: int) -> SlotPlan:
    """What is to run after `now_ms`, of all slots that are known. `events`: those of ours that there were, and when
    they were to end."""
    everything = list(known)
    alone: defaultdict[tuple[Terms, str, tuple[str, ...], float | None], list[KnownSlot]] = defaultdict(list)
    for one in everything:
        if one.live:
            slot = one.slot
            alone[(terms_of(slot), slot.owner, slot.meters, slot.nomination_kw)].append(one)
    bundles: defaultdict[tuple[object, ...], list[_Chain]] = defaultdict(list)
    at_once: Counter[tuple[object, ...]] = Counter()
    for (terms, owner, *_), slots in sorted(alone.items(), key=_first_id):
        for chain in _chains(slots):
            if chain.end_ms > now_ms:
                shape = tuple((one.slot.start_ms, one.slot.end_ms, one.slot.energy_kw is None) for one in chain.slots)
                # a group's power is shared by its own members alone, and each of two at once has its own
                first = chain.slots[0].slot
                group = (owner, first.event_id) if first.level == "group" else ()
                # an owner is a member once: what it has twice at the same times is asked of it twice
                number = at_once[terms, owner, group, shape]
                at_once[terms, owner, group, shape] += 1
                bundles[terms, group, shape, number].append(chain)
    found = sorted(bundles.values(), key=_first)
    names = _named(found, {*events, *(one.event for one in everything if one.event)})
    planned = [_event(name, chains) for name, chains in zip(names, found, strict=True)]
    placed = [(one, name) for name, chains in zip(names, found, strict=True) for chain in chains for one in chain.slots]
    kept = set(names)
    gone = sorted(name for name, end_ms in events.items() if end_ms > now_ms and name not in kept)
    return SlotPlan(events=planned, gone=gone, slots=placed)


def _first_id(alone: tuple[object, list[KnownSlot]]) -> str:
    return min(one.slot.event_id for one in alone[1])


def _chains(slots: list[KnownSlot]) -> list[_Chain]:
    """Slots of one owner under one set of terms, joined where one begins as another ends."""
    slots.sort(key=lambda one: (one.slot.start_ms, one.slot.end_ms, one.slot.event_id))
    chains: list[_Chain] = []
    for one in slots:
        chain = next((open_ for open_ in chains if open_.goes_on(one.slot)), None)
        if chain is None:
            chains.append(_Chain([one]))
        else:
            chain.slots.append(one)
    return chains


def _first(chains: Sequence[_Chain]) -> tuple[int, str]:
    return chains[0].slots[0].slot.start_ms, min(one.slot.event_id for chain in chains for one in chain.slots)


def _named(bundles: Sequence[Sequence[_Chain]], used: set[str]) -> list[str]:
    """The id of each event: that of the event most of its slots were in, if no other event has more of that one's."""
    counted = []
    for i, chains in enumerate(bundles):
        before = Counter(one.event for chain in chains for one in chain.slots if one.event)
        counted += [(-count, event, i) for event, count in before.items()]
    names: dict[int, str] = {}
    taken: set[str] = set()
    for _, event, i in sorted(counted):
        if i not in names and event not in taken:
            names[i] = event
            taken.add(event)
    used = used | taken
    for i, chains in enumerate(bundles):
        if i not in names:
            names[i] = _new_name(chains, used)
            used.add(names[i])
    return [names[i] for i in range(len(bundles))]


def _new_name(chains: Sequence[_Chain], used: set[str]) -> str:
    slots = [one.slot for chain in chains for one in chain.slots]
    mark = TEST_MARK if slots[0].integration else ""
    ids = sorted({mark + slot.event_id for slot in slots})
    free = next((name for name in ids if name not in used), None)
    if free is not None:
        return free
    number = 2
    while f"{ids[0]}.{number}" in used:
        number += 1
    return f"{ids[0]}.{number}"


def _event(name: str, chains: Sequence[_Chain]) -> PlannedEvent:
    chains = sorted(chains, key=lambda chain: chain.slots[0].slot.owner)
    slots = [one.slot for chain in chains for one in chain.slots]
    first = chains[0].slots
    group = slots[0].level == "group"
    nominations = [chain.slots[0].slot.nomination_kw for chain in chains]
    told = [kw for kw in nominations if kw is not None]
    return PlannedEvent(
        id=name,
        terms=terms_of(slots[0]),
        spans_ms=tuple((one.slot.start_ms, one.slot.end_ms) for one in first),
        meters=slots[0].meters if group else tuple(chain.slots[0].slot.owner for chain in chains),
        kw=tuple(tuple(one.slot.energy_kw for one in chain.slots) for chain in chains),
        nomination_kw=sum(told) if len(told) == len(nominations) else None,
        types=tuple(sorted({word for slot in slots for word in slot.types})),
        gaps=tuple(sorted({gap for slot in slots for gap in slot.gaps})),
    )
