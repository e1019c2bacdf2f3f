"""Counts the work between two turns of the event loop, the same on every machine: calls of Python and C functions.

Under `counted()` each callback of the loop is one stretch: what runs between two awaits that really wait. Time is not
looked at; the bench `stretch` measures it.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

CALLS = frozenset({"call", "c_call"})


@dataclass(slots=True)
class Work:
    """Calls in the longest stretch since `begin`, and where most of them were made (for the message of a failure)."""

    now: int = 0
    most: int = 0
    stretches: int = 0
    places: dict[str, int] = field(default_factory=dict)
    worst: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        self.now, self.most, self.stretches, self.worst = 0, 0, 0, {}

    def note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event in CALLS:
            self.now += 1
            if event == "call":
                name = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_code.co_name}"
                self.places[name] = self.places.get(name, 0) + 1

    def end(self) -> None:
        """A stretch is over."""
        self.stretches += 1
        if self.now > self.most:
            self.most, self.worst = self.now, dict(self.places)
        self.now = 0
        self.places.clear()

    @contextmanager
    def profiling(self) -> Iterator[None]:
        """Count every call while in here, in this thread."""
        before = sys.getprofile()
        sys.setprofile(self.note)
        try:
            yield
        finally:
            sys.setprofile(before)

    def told(self) -> str:
        """The functions called most in the longest stretch."""
        most = sorted(self.worst.items(), key=lambda place: -place[1])[:5]
        return f"{self.most} calls between two awaits: " + ", ".join(f"{n} x {name}" for name, n in most)


@contextmanager
def counted() -> Iterator[Work]:
    """Count while in here, in this thread; the loop is asyncio's own."""
    work, handle = Work(), asyncio.events.Handle
    run = handle._run

    def counting(self: asyncio.Handle) -> None:
        work.now = 0
        work.places.clear()
        run(self)
        work.end()

    handle._run = counting  # type: ignore[method-assign]
    try:
        with work.profiling():
            yield work
    finally:
        handle._run = run  # type: ignore[method-assign]
