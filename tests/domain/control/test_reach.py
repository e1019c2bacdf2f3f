"""Which devices cannot be told anything, when each is tried again, and when it is back."""

import numpy as np
import pytest

from gateway.domain.commands import Unreached, WriteOutcome
from gateway.domain.control.reach import (
    FORGET_S,
    SPREAD_PART,
    UNSENT_S_MAX,
    URGENT_S,
    WAIT_S_MAX,
    WAIT_S_MIN,
    Attempts,
    Reach,
    note_attempts,
    reach,
)
from gateway.domain.types import Now
from tests.builders.fleets import NOW, fleet_of

GONE = WriteOutcome.NO_SUBSCRIBER


class Line:
    """One device, and what becomes of the commands to it. `s` is the time since the first look at it."""

    def __init__(self) -> None:
        self.snapshot = fleet_of(1, cmd_sent=0, cmd_applied=0, cmd=0, command_latency_s=5)
        self.attempts = Attempts(1)
        self.s = 0.0
        self.cmd = 0
        self.found = self.after(0)

    @property
    def now(self) -> Now:
        ms = round(1000 * self.s)
        return Now(utc_ms=NOW.utc_ms + ms, mono_ms=NOW.mono_ms + ms)

    def after(self, s: float) -> Reach:
        self.s += s
        self.found = reach(self.attempts, self.snapshot, self.now)
        return self.found

    def tell(self, outcome: WriteOutcome, *, urgent: bool = False) -> list[int]:
        self.cmd += 1
        new = note_attempts(
            self.attempts, np.array([0], dtype=np.int32), np.array([self.cmd]), np.array([outcome], dtype=np.int8),
            self.now, urgent=np.array([urgent]),
        )  # fmt: skip
        return [int(slot) for slot in new]

    def told(self) -> tuple[Unreached, bool]:
        return Unreached(int(self.found.cause[0])), bool(self.found.waiting[0])


def pauses(line: Line, outcome: WriteOutcome, count: int) -> list[float]:
    """How long it takes each time until the device is tried again, told by tenths of a second."""
    out = []
    for _ in range(count):
        line.tell(outcome)
        since_s = line.s
        while line.after(0.1).waiting[0]:
            pass
        out.append(line.s - since_s)
    return out


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (WriteOutcome.NOT_SENT, Unreached.NOT_SENT),
        (WriteOutcome.NO_SUBSCRIBER, Unreached.NO_SUBSCRIBER),
        (WriteOutcome.REFUSED, Unreached.REFUSED),
    ],
)
def test_reach_command_that_cannot_have_arrived_makes_a_device_unreachable(
    outcome: WriteOutcome, cause: Unreached
) -> None:
    line = Line()
    assert (line.tell(outcome), line.tell(outcome)) == ([0], [])
    line.after(1)
    assert line.told() == (cause, True)


@pytest.mark.parametrize("outcome", [WriteOutcome.ACCEPTED, WriteOutcome.UNKNOWN])
def test_reach_command_that_may_have_arrived_does_not(outcome: WriteOutcome) -> None:
    line = Line()
    assert line.tell(outcome) == []
    line.after(1)
    assert line.told() == (Unreached.NONE, False)
    assert line.found.heard.tolist() == [1 if outcome is WriteOutcome.ACCEPTED else -1]
    assert line.after(1).heard.tolist() == [0]


def test_reach_pauses_double_up_to_a_minute_and_stay_short_where_nothing_was_sent() -> None:
    line = Line()
    longest = 1 + SPREAD_PART
    for pause_s, wanted_s in zip(pauses(line, GONE, 7), (2, 4, 8, 16, 32, 60, 60), strict=True):
        assert wanted_s <= pause_s <= longest * wanted_s + 0.1
    line = Line()
    assert max(pauses(line, WriteOutcome.NOT_SENT, 7)) <= longest * UNSENT_S_MAX + 0.1
    # the connection is back, and the device itself is missing: its own pauses begin
    assert pauses(line, GONE, 1)[0] <= longest * WAIT_S_MIN + 0.1


def test_reach_device_that_answers_is_back_at_once_and_one_that_says_nothing_after_its_latency() -> None:
    line = Line()
    line.tell(GONE)
    line.after(3)
    line.tell(WriteOutcome.ACCEPTED)
    line.after(1)
    assert line.told() == (Unreached.NO_SUBSCRIBER, True)
    line.snapshot.control.cmd_applied[:] = line.cmd
    assert line.after(1).back.tolist() == [True]
    assert line.told() == (Unreached.NONE, False)
    assert line.after(1).back.tolist() == [False]

    line = Line()
    line.tell(GONE)
    line.after(3)
    line.tell(WriteOutcome.ACCEPTED)
    assert not line.after(4.9).back[0]
    assert line.after(0.2).back[0]


def test_reach_command_that_has_arrived_is_not_given_again_while_its_answer_may_be_on_the_way() -> None:
    line = Line()
    line.tell(GONE)
    line.after(3)
    line.tell(WriteOutcome.ACCEPTED)
    assert line.after(4.9).waiting.tolist() == [True]
    assert line.after(0.2).waiting.tolist() == [False]


def test_reach_answer_to_an_older_command_brings_nobody_back() -> None:
    line = Line()
    line.snapshot.control.cmd_applied[:] = line.cmd
    line.tell(GONE)
    line.after(3)
    line.tell(WriteOutcome.ACCEPTED)
    line.snapshot.control.cmd_applied[:] = line.cmd - 1
    assert not line.after(1).back[0]


def test_reach_probe_that_may_not_have_arrived_leaves_it_as_it_was() -> None:
    line = Line()
    line.tell(GONE)
    line.after(3)
    line.tell(WriteOutcome.UNKNOWN)
    line.after(10)
    assert line.told()[0] is Unreached.NO_SUBSCRIBER


def test_reach_urgent_command_waits_for_an_urgent_one_only_and_for_seconds() -> None:
    line = Line()
    pauses(line, GONE, 5)
    line.tell(GONE)
    line.after(1)
    assert (line.found.waiting[0], line.found.waiting_urgent[0]) == (True, False)
    line.tell(GONE, urgent=True)
    line.after(1)
    assert (line.found.waiting[0], line.found.waiting_urgent[0]) == (True, True)
    line.after(URGENT_S)
    assert (line.found.waiting[0], line.found.waiting_urgent[0]) == (True, False)


def test_reach_device_that_has_connected_again_is_due() -> None:
    line = Line()
    pauses(line, GONE, 5)
    line.tell(GONE)
    line.snapshot.live.online[:] = 0
    line.after(1)
    assert line.told() == (Unreached.NO_SUBSCRIBER, True)
    line.snapshot.live.online[:] = 1
    line.after(1)
    assert line.told() == (Unreached.NO_SUBSCRIBER, False)


def test_reach_device_that_nobody_has_tried_for_long_is_unknown_again() -> None:
    line = Line()
    line.tell(GONE)
    line.after(FORGET_S - 1)
    assert line.told() == (Unreached.NO_SUBSCRIBER, False)
    line.after(2)
    assert line.told() == (Unreached.NONE, False)
    assert WAIT_S_MAX < FORGET_S
