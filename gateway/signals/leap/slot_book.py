"""What the aggregator said of each slot last, by rules that no order of messages can break. Pure.

Slots carry no version and no time of change, webhooks come late and twice, and a page of search may be older than a
webhook. So:

1. A slot that nobody knows is taken from whoever names it first.
2. Search is the source of truth. What it says replaces what is known, unless a webhook that came after the search was
   asked says otherwise: then the next search decides.
3. Until a search has confirmed a slot, webhooks replace it in the order in which they come.
4. Once a search has confirmed a slot, a webhook that says otherwise is a hint: it may be a late retry of an older body.
   It asks for a search at once and takes effect when a search says the same, or when no search could be had for
   `HINT_WAIT_MS`.
5. What search does not show is not cancelled by that: it may hide it.

A message that says what is known changes nothing, however often it comes. Times are of the gateway's clock, UTC ms.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from gateway.signals.leap.slots import DispatchSlot, Level

HINT_WAIT_MS = 60_000

SlotKey = tuple[bool, str, str, str]


class Took(StrEnum):
    """What a message about a slot did."""

    NEW = "new"
    CHANGED = "changed"
    SAME = "same"
    HINT = "hint"
    OUTDATED = "outdated"


@dataclass(slots=True, kw_only=True)
class KnownSlot:
    """A slot as it counts. `said_ms`: when a webhook said so, or the search was asked; `confirmed_ms`: when the newest
    search that showed it was asked, None = none has; `hint`: what a webhook says otherwise since `hint_ms`; `event`:
    which event of ours it is in, "" = none yet."""

    slot: DispatchSlot
    said_ms: int
    first_ms: int
    confirmed_ms: int | None = None
    hint: DispatchSlot | None = None
    hint_ms: int = 0
    event: str = ""

    @property
    def live(self) -> bool:
        return not self.slot.cancelled


class SlotBook:
    """All slots. `changed`: keys whose entry differs from what was stored; whoever stores them empties it."""

    def __init__(self, known: Iterable[KnownSlot] = ()) -> None:
        self._known: dict[SlotKey, KnownSlot] = {one.slot.key: one for one in known}
        self.changed: set[SlotKey] = set()

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[KnownSlot]:
        return iter(self._known.values())

    def get(self, key: SlotKey) -> KnownSlot | None:
        return self._known.get(key)

    def webhook(self, slot: DispatchSlot, at_ms: int) -> Took:
        """A webhook that came at `at_ms` says this."""
        known = self._known.get(slot.key)
        if known is None:
            return self._first(slot, at_ms)
        if _alike(known.slot, slot):
            if known.hint is not None and known.hint_ms <= at_ms:
                # the newest word agrees with what is known
                known.hint = None
                self.changed.add(slot.key)
            return Took.SAME
        if known.confirmed_ms is None:
            if at_ms < known.said_ms:
                return Took.OUTDATED
            return self._replace(known, slot, at_ms, confirmed_ms=None)
        if known.hint is None or at_ms >= known.hint_ms:
            known.hint, known.hint_ms = slot, at_ms
            self.changed.add(slot.key)
        return Took.HINT

    def search(self, slot: DispatchSlot, asked_ms: int) -> Took:
        """A search that was asked at `asked_ms` shows this."""
        known = self._known.get(slot.key)
        if known is None:
            took = self._first(slot, asked_ms)
            self._known[slot.key].confirmed_ms = asked_ms
            return took
        if _alike(known.slot, slot):
            if known.hint is not None and known.hint_ms <= asked_ms:
                known.hint = None
            known.confirmed_ms = max(asked_ms, known.confirmed_ms or asked_ms)
            self.changed.add(slot.key)
            return Took.SAME
        if known.hint is not None and _alike(known.hint, slot):
            return self._replace(known, slot, asked_ms, confirmed_ms=asked_ms)
        newest_ms = known.hint_ms if known.hint is not None else known.said_ms
        if asked_ms < max(newest_ms, known.confirmed_ms or 0):
            # a webhook, or another search, is newer than this answer
            return Took.OUTDATED
        return self._replace(known, slot, asked_ms, confirmed_ms=asked_ms)

    def settle(self, now_ms: int) -> int:
        """Take hints for which no search could be had; returns how many."""
        waited = [one for one in self.hints() if now_ms - one.hint_ms >= HINT_WAIT_MS]
        for known in waited:
            if known.hint is not None:
                self._replace(known, known.hint, known.hint_ms, confirmed_ms=None)
        return len(waited)

    def hints(self) -> list[KnownSlot]:
        """Slots of which a webhook says something else than the newest search."""
        return [one for one in self._known.values() if one.hint is not None]

    def hidden(self, level: Level, from_ms: int, to_ms: int, asked_ms: int) -> int:
        """How many live slots within a window a search that was asked at `asked_ms` did not show."""
        return sum(
            one.live
            and one.slot.level == level
            and not one.slot.integration
            and one.first_ms < asked_ms
            and from_ms <= one.slot.start_ms < to_ms
            and (one.confirmed_ms or 0) < asked_ms
            for one in self._known.values()
        )

    def forget(self, before_ms: int) -> list[SlotKey]:
        """Forget slots that ended before; returns their keys. A cancelled one without times ends when it was said."""
        gone = [key for key, one in self._known.items() if max(one.slot.end_ms, one.said_ms) < before_ms]
        for key in gone:
            del self._known[key]
            self.changed.discard(key)
        return gone

    def put(self, known: KnownSlot, event: str) -> None:
        """Note which event of ours a slot is in."""
        if known.event != event:
            known.event = event
            self.changed.add(known.slot.key)

    def _first(self, slot: DispatchSlot, at_ms: int) -> Took:
        self._known[slot.key] = KnownSlot(slot=slot, said_ms=at_ms, first_ms=at_ms)
        self.changed.add(slot.key)
        return Took.NEW

    def _replace(self, known: KnownSlot, slot: DispatchSlot, at_ms: int, *, confirmed_ms: int | None) -> Took:
        known.slot, known.said_ms, known.confirmed_ms, known.hint = _whole(known.slot, slot), at_ms, confirmed_ms, None
        self.changed.add(slot.key)
        return Took.CHANGED


def _alike(one: DispatchSlot, other: DispatchSlot) -> bool:
    """Whether two messages say the same of a slot. A cancellation is one, whatever else it says."""
    if one.cancelled and other.cancelled:
        return True
    return _content(one) == _content(other)


def _content(slot: DispatchSlot) -> tuple[object, ...]:
    """What counts of a slot: webhook and search may differ in what surrounds it."""
    return (
        slot.start_ms, slot.end_ms, slot.energy_kw, slot.nomination_kw, slot.cancelled, slot.cap, slot.priority,
        slot.voluntary, frozenset(slot.types), slot.programs, slot.test, frozenset(slot.meters),
    )  # fmt: skip


def _whole(before: DispatchSlot, slot: DispatchSlot) -> DispatchSlot:
    """What is replaced. A cancellation by id alone leaves the times that are known, so that it is forgotten in time."""
    if slot.cancelled and not slot.end_ms and before.end_ms:
        return DispatchSlot(
            level=slot.level, event_id=slot.event_id, owner=slot.owner, integration=slot.integration, cancelled=True,
            start_ms=before.start_ms, end_ms=before.end_ms, meters=slot.meters, references=slot.references,
        )  # fmt: skip
    return slot
