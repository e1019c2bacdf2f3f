"""Moves the readings of a counter back that turn out to lie in the future.

A clock that is set back (the gateway's, or that of a device before anybody knew that it was ahead) leaves readings with
a time that has not come yet. What the device sends next seems to be older than those, and its energy would belong
nowhere. Its sequence numbers say that it is newer. Where it comes at its time, the reading before it was made one span
earlier. Where it is off, a second one must be off by the same (one alone may be an error that the next takes back):
the readings before are moved by as much as its delay has changed.
"""

import numpy as np

from gateway.domain.intervals.device_clock import Clocks
from gateway.domain.intervals.types import CounterState, SampleRows
from gateway.domain.types import Bools, Ints, Slots

SAMPLES = 2


def move_back(state: CounterState, clocks: Clocks, rows: SampleRows, newer: Bools, now_ms: int, slack_ms: int) -> None:
    """`newer`: rows after all before them, by their numbers. More than `slack_ms` ahead of now is the future."""
    s = rows.slots
    known_ms = state.t_ms[s]
    future = known_ms > now_ms + slack_ms
    if not future.any():
        return
    at = np.flatnonzero(future & newer & (rows.t_ms <= known_ms))
    s, t, known_ms = s[at], rows.t_ms[at], known_ms[at]
    in_time = (now_ms - t <= slack_ms) & ~clocks.watched[s]
    change_ms = clocks.low_ms[s] - clocks.base_ms[s]
    off = clocks.watched[s] & (clocks.steady[s] >= SAMPLES) & (change_ms < -slack_ms)
    to_ms = np.where(off, known_ms + change_ms, t - np.maximum(rows.span_ms[at], 1))
    chosen = np.flatnonzero(in_time | off)
    # the rows are sorted by device and time
    first = chosen[np.unique(s[chosen], return_index=True)[1]]
    if len(first):
        put_back(state, s[first], to_ms[first])


def put_back(state: CounterState, slots: Slots, to_ms: Ints | int) -> None:
    """No reading of these is later than `to_ms`; what their counters gained stays."""
    for column in (state.t_ms, state.to_ms):
        column[slots] = np.minimum(column[slots], to_ms)
    state.since_ms[slots] = np.where(state.from_ms[slots] >= to_ms, 0, state.since_ms[slots])
    state.before_ms[slots] = np.minimum(state.before_ms[slots], to_ms - 1)
