"""The process that reads the aggregator's bodies: a large one, or one that kills it, never holds the gateway.

It is started as `python -m gateway.signals.leap.worker DIRECTORY` and ends when its input does. On both pipes a message
is 4 bytes of length (big endian) and JSON. A question is an object with `ask`; the answer to it is any number of
messages and at last one with `end`:

    {"ask": "read", "body": NAME, "path": PATH, "kind": KIND, "at_ms": MS, "now_ms": MS}   the counts of what it did
    {"ask": "searched", "level", "from_ms", "to_ms", "asked_ms"}                            what search did not show
    {"ask": "plan", "now_ms": MS}                                     {"event": ..} per part of an event, {"gone": [..]}
    {"ask": "bad", "limit": N}                                                              {"bad": [..]}

KIND is `meter`, `group` (webhooks), `meter_search` or `group_search` (pages, as `{"results": [..]}`).
"""

import resource
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, get_args

import orjson

from gateway.signals.leap.plan import PlannedEvent, SlotPlan, make_plan
from gateway.signals.leap.slot_book import SlotBook
from gateway.signals.leap.slot_store import SlotStore
from gateway.signals.leap.slots import BadSlot, BodyRead, Level, parts, read_results, read_webhook

STORE = "slots.sqlite"
PART = 500
"""Members of an event in one message."""
KEPT_MS = 3 * 86_400_000
"""How long slots are remembered after their end."""
LENGTH = 4
TRY_LATER = 75
"""The exit code for a disk that does not do what is asked of it (EX_TEMPFAIL): the body is not to blame."""
MEMORY_BYTES_MAX = 4 << 30


class Reader:
    """Reads bodies into the book of slots, and makes the plan of it."""

    def __init__(self, directory: Path) -> None:
        try:
            self._open(directory / STORE)
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            # what is lost with it, the next search finds
            number = sum(1 for _ in directory.glob("*.unreadable-*"))
            for path in directory.glob(f"{STORE}*"):
                if ".unreadable-" not in path.name:
                    path.rename(path.with_name(f"{path.name}.unreadable-{number}"))
            print(f"the slots cannot be read and are set aside, as number {number}: {error}", file=sys.stderr)
            self._open(directory / STORE)

    def _open(self, path: Path) -> None:
        self._store = SlotStore(path)
        self._book = SlotBook(self._store.load())
        self._events = self._store.events()

    def close(self) -> None:
        self._store.close()

    def answer(self, question: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The messages of an answer, without its end."""
        ask = question["ask"]
        if ask == "read":
            yield self._read(question)
        elif ask == "searched":
            level: Level = "group" if question["level"] == "group" else "meter"
            hidden = self._book.hidden(level, question["from_ms"], question["to_ms"], question["asked_ms"])
            yield {"hidden": hidden}
        elif ask == "plan":
            yield from self._plan(question["now_ms"])
        elif ask == "bad":
            yield {"bad": self._store.bad(question["limit"])}
        else:
            raise ValueError(f"unknown question {ask!r}")

    def _read(self, question: dict[str, Any]) -> dict[str, Any]:
        name, now_ms = question["body"], question["now_ms"]
        if self._store.has_read(name):
            return {"again": True}
        found, searched = _body(Path(question["path"]), question["kind"])
        counts: Counter[str] = Counter()
        for slot in found.slots:
            take = self._book.search if searched else self._book.webhook
            counts[take(slot, question["at_ms"]).value] += 1
        bad = [*found.bad, *([BadSlot(place="(body)", problem=found.problem)] if found.problem else [])]
        gone = self._book.forget(now_ms - KEPT_MS)
        _, news = self._planned(now_ms)
        with self._store.transaction():
            self._flush(news)
            self._store.keep_bad(name, question["at_ms"], bad)
            self._store.note_read(name)
            self._store.forget(gone, now_ms - KEPT_MS)
        return {
            "slots": len(found.slots), "took": dict(counts), "bad": found.bad_total, "problem": found.problem,
            "gaps": sum(bool(slot.gaps) for slot in found.slots),
            "integration": sum(slot.integration for slot in found.slots),
        }  # fmt: skip

    def _plan(self, now_ms: int) -> Iterator[dict[str, Any]]:
        unconfirmed = self._book.settle(now_ms)
        plan, news = self._planned(now_ms)
        if news or self._book.changed:
            with self._store.transaction():
                self._flush(news)
        for event in plan.events:
            yield from messages_of(event)
        yield {
            "gone": plan.gone,
            "hints": len(self._book.hints()),
            "unconfirmed": unconfirmed,
            "slots": len(self._book),
        }

    def _planned(self, now_ms: int) -> tuple[SlotPlan, dict[str, int]]:
        """The plan, with each slot's event noted, and the events whose end is another one than is stored."""
        plan = make_plan(self._book, self._events, now_ms)
        for known, name in plan.slots:
            self._book.put(known, name)
        ends = {event.id: event.end_ms for event in plan.events}
        news = {name: end_ms for name, end_ms in ends.items() if self._events.get(name) != end_ms}
        self._events |= news
        self._events = {name: end_ms for name, end_ms in self._events.items() if end_ms >= now_ms - KEPT_MS}
        return plan, news

    def _flush(self, events: Mapping[str, int]) -> None:
        """Store what has changed."""
        known = [one for key in self._book.changed if (one := self._book.get(key)) is not None]
        self._store.keep(known)
        self._store.keep_events(events)
        self._book.changed.clear()


def messages_of(event: PlannedEvent) -> Iterator[dict[str, Any]]:
    """An event in parts of so many members; what is not its members stands in the first."""
    terms = event.terms
    head = {
        "event": event.id, "level": terms.level, "integration": terms.integration, "test": terms.test,
        "programs": terms.programs, "priority": terms.priority, "voluntary": terms.voluntary, "cap": terms.cap,
        "capacity_test": terms.capacity_test, "spans_ms": event.spans_ms, "nomination_kw": event.nomination_kw,
        "types": event.types, "gaps": event.gaps,
    }  # fmt: skip
    pieces = parts(event.meters, PART)
    group = terms.level == "group"
    for number, meters in enumerate(pieces):
        at = number * PART
        kw = (event.kw if number == 0 else ()) if group else event.kw[at : at + PART]
        yield (head if number == 0 else {"event": event.id}) | {"meters": meters, "kw": kw}


def _body(path: Path, kind: str) -> tuple[BodyRead, bool]:
    """What a body says, and whether it is of a search. A body that is no JSON says so."""
    level, _, search = kind.partition("_")
    if level not in get_args(Level):
        raise ValueError(f"unknown kind {kind!r}")
    at: Level = "group" if level == "group" else "meter"
    try:
        document = orjson.loads(path.read_bytes())
    except (orjson.JSONDecodeError, RecursionError) as error:
        return BodyRead(problem=f"no JSON: {error}"), bool(search)
    if not search:
        return read_webhook(document, at), False
    results = document.get("results") if isinstance(document, dict) else None
    return read_results(results, at), True


def _say(out: BinaryIO, message: dict[str, Any]) -> None:
    text = orjson.dumps(message)
    out.write(len(text).to_bytes(LENGTH, "big") + text)


def serve(inp: BinaryIO, out: BinaryIO, directory: Path) -> None:
    """Answer questions until there are no more."""
    reader = Reader(directory)
    try:
        while len(head := inp.read(LENGTH)) == LENGTH:
            question = orjson.loads(inp.read(int.from_bytes(head, "big")))
            for message in reader.answer(question):
                _say(out, message)
            _say(out, {"end": True})
            out.flush()
    finally:
        reader.close()


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer, Path(sys.argv[1]))
    except (sqlite3.OperationalError, OSError) as error:
        print(f"the slots cannot be stored: {error}", file=sys.stderr)
        return TRY_LATER
    return 0


if __name__ == "__main__":
    sys.exit(main())
