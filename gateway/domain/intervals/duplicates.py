"""Separates new energy messages from repeated ones, a whole batch at a time.

What is beyond the window is new where it is known to be missing (see `missing`), and counts as repeated elsewhere.

The table keeps the current boot and the one before it per device, each as (highest seq, 64-bit window); bit `i` of a
window says that `highest - i` has been seen. A batch is compared with the state before it, so its inner order does
not matter; of equal rows within a batch the first counts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.intervals.missing import NONE, MissingNumbers
from gateway.domain.table import Table, column
from gateway.domain.types import Bools, Ints, Slots

Words = NDArray[np.uint64]

WINDOW = 64
NO_BOOT = -1
_ONE = np.uint64(1)


class Seen(Table):
    """What has been received from each device: `boot` the newest boot (-1 none), `prev_boot` the one before."""

    boot: Ints = column(NO_BOOT)
    high: Ints = column(0)
    window: Words = column(0)
    prev_boot: Ints = column(NO_BOOT)
    prev_high: Ints = column(0)
    prev_window: Words = column(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """`new` marks, in the batch's order, the rows never seen before. `too_old`: beyond the window and not known to be
    missing, hence treated as repeated. `gaps`: sequence numbers that rows skipped (some may still come)."""

    new: Bools
    duplicates: int
    too_old: int
    gaps: int


def by_slot(slots: Slots | Ints) -> Ints:
    """Order that sorts by slot and keeps the arrival order within a slot."""
    key = (slots.astype(np.int64) << 32) | np.arange(len(slots), dtype=np.int64)
    key.sort()
    return key & 0xFFFF_FFFF


def heads(*keys: NDArray[np.generic]) -> Bools:
    """Marks the first row of each run of equal keys."""
    out = np.ones(len(keys[0]), dtype=np.bool_)
    if len(out) > 1:
        out[1:] = keys[0][1:] != keys[0][:-1]
        for key in keys[1:]:
            out[1:] |= key[1:] != key[:-1]
    return out


def tails(key: NDArray[np.generic]) -> Bools:
    """Marks the last row of each run of equal keys."""
    out = np.ones(len(key), dtype=np.bool_)
    if len(out) > 1:
        out[:-1] = key[1:] != key[:-1]
    return out


def second_last(last: Bools) -> Bools:
    """Marks the row before the last one of each run, given the marks of the last ones."""
    out = np.zeros(len(last), dtype=np.bool_)
    if len(out) > 1:
        out[:-1] = last[1:] & ~last[:-1]
    return out


def sift(seen: Seen, missing: MissingNumbers, slots: Slots, boot: Ints, seq: Ints) -> Sifted:
    """Mark the rows not seen before and remember them, and what they skipped. `boot` and `seq` must not be negative."""
    n = len(slots)
    if not n:
        return Sifted(new=np.zeros(0, dtype=np.bool_), duplicates=0, too_old=0, gaps=0)
    gaps = _in_order(seen, missing, slots, boot, seq)
    if gaps is not None:
        return Sifted(new=np.ones(n, dtype=np.bool_), duplicates=0, too_old=0, gaps=gaps)
    order = _order(slots, boot, seq)
    s, b, q = slots[order], boot[order], seq[order]
    first = heads(s, b)
    starts = np.flatnonzero(first)
    group = np.cumsum(first) - 1
    gs, gb = s[starts], b[starts]
    at_cur, at_prev = gb == seen.boot[gs], gb == seen.prev_boot[gs]
    known = at_cur | at_prev
    high = np.where(at_cur, seen.high[gs], np.where(at_prev, seen.prev_high[gs], 0))
    window = np.where(at_cur, seen.window[gs], np.where(at_prev, seen.prev_window[gs], np.uint64(0)))
    stale = ~known & (gb < seen.prev_boot[gs])

    behind = high[group] - q
    row_known = known[group]
    old = stale[group] | (row_known & (behind >= WINDOW))
    bit = (window[group] >> np.clip(behind, 0, WINDOW - 1).astype(np.uint64)) & _ONE
    lacking = missing.find(s, b, q)
    old &= lacking == NONE
    repeated = row_known & (behind >= 0) & (behind < WINDOW) & (bit != 0)
    if n > 1:
        repeated[1:] |= ~first[1:] & (q[1:] == q[:-1])
    fresh = ~(old | repeated)

    top = np.maximum.reduceat(np.where(fresh & ~stale[group], q, -1), starts)
    moved = top >= 0
    new_high = np.maximum(high, top)
    shift = np.where(known, new_high - high, WINDOW)
    kept = np.where(shift < WINDOW, window << np.minimum(shift, WINDOW - 1).astype(np.uint64), np.uint64(0))
    offset = new_high[group] - q
    bits = np.where(fresh & (offset < WINDOW), _ONE << np.clip(offset, 0, WINDOW - 1).astype(np.uint64), np.uint64(0))
    new_window: Words = np.bitwise_or(kept, np.bitwise_or.reduceat(bits, starts))

    _note_missing(missing, (s, b, q, lacking), fresh, fresh & (behind < 0) & ~stale[group], group,
                  np.where(known, high, 0))  # fmt: skip
    advanced = np.add.reduceat((fresh & (behind < 0)).astype(np.int64), starts)
    # A boot seen for the first time on a known device is expected to begin at 1.
    counts_gaps = moved & (known | ((seen.boot[gs] != NO_BOOT) & (gb > seen.boot[gs])))
    gaps = int(np.sum(np.where(counts_gaps, np.maximum(new_high - high - advanced, 0), 0)))

    _remember(seen, gs, gb, new_high, new_window, at_cur & moved, at_prev & moved, ~known & ~stale & moved)
    new = np.zeros(n, dtype=np.bool_)
    new[order] = fresh
    too_old = int(np.count_nonzero(old))
    return Sifted(new=new, duplicates=n - int(np.count_nonzero(fresh)) - too_old, too_old=too_old, gaps=gaps)


def _note_missing(
    missing: MissingNumbers, rows: tuple[Slots, Ints, Ints, Ints], fresh: Bools, ahead: Bools, group: Ints, high: Ints
) -> None:
    """Take what has come from what was missing, and note what the rows `ahead` of all before skipped. `rows`: slot,
    boot, sequence and number of the missing range, sorted by these; `high`: by `group` of device and boot."""
    s, b, q, lacking = rows
    come = np.flatnonzero(fresh & (lacking != NONE))
    if len(come):
        come = come[np.lexsort((q[come], lacking[come]))]
        missing.take(lacking[come], q[come])
    at = np.flatnonzero(ahead)
    before = high[group[at]]
    same = np.zeros(len(at), dtype=np.bool_)
    same[1:] = group[at[1:]] == group[at[:-1]]
    before[same] = q[at[:-1]][same[1:]]
    skips = q[at] - before > 1
    if skips.any():
        at = at[skips]
        missing.add(s[at], b[at], before[skips] + 1, q[at] - 1)


def _in_order(seen: Seen, missing: MissingNumbers, s: Slots, boot: Ints, seq: Ints) -> int | None:
    """The common batch in a tenth of the operations: one row per device, of its newest boot, with a sequence number
    higher than any seen. Remembers the rows and returns the gaps; None = not such a batch."""
    high = seen.high[s]
    ahead = seq - high
    if not ((ahead > 0) & (boot == seen.boot[s])).all():
        return None
    ordered = np.sort(s)
    if (ordered[1:] == ordered[:-1]).any():
        return None
    window = np.where(ahead < WINDOW, seen.window[s] << np.minimum(ahead, WINDOW - 1).astype(np.uint64), np.uint64(0))
    seen.high[s], seen.window[s] = seq, window | _ONE
    skips = ahead > 1
    if skips.any():
        at = np.flatnonzero(skips)
        at = at[np.argsort(s[at], kind="stable")]
        missing.add(s[at], boot[at], high[at] + 1, seq[at] - 1)
    return int(ahead.sum()) - len(s)


def _order(slots: Slots, boot: Ints, seq: Ints) -> Ints:
    order = by_slot(slots)
    s, b, q = slots[order], boot[order], seq[order]
    back = (b[1:] < b[:-1]) | ((b[1:] == b[:-1]) & (q[1:] < q[:-1]))
    if np.any(back & (s[1:] == s[:-1])):
        return order[np.lexsort((q, b, s))]
    return order


def _remember(
    seen: Seen, slots: Slots, boot: Ints, high: Ints, window: Words, at_cur: Bools, at_prev: Bools, opening: Bools
) -> None:
    s = slots[at_cur]
    seen.high[s], seen.window[s] = high[at_cur], window[at_cur]
    if at_prev.any():
        s = slots[at_prev]
        seen.prev_high[s], seen.prev_window[s] = high[at_prev], window[at_prev]
    if opening.any():
        _keep_newest_two(seen, slots[opening], boot[opening], high[opening], window[opening])


def _keep_newest_two(seen: Seen, slots: Slots, boot: Ints, high: Ints, window: Words) -> None:
    touched = np.unique(slots)
    cur = touched[seen.boot[touched] != NO_BOOT]
    prev = touched[seen.prev_boot[touched] != NO_BOOT]
    s = np.concatenate((cur, prev, slots))
    b = np.concatenate((seen.boot[cur], seen.prev_boot[prev], boot))
    h = np.concatenate((seen.high[cur], seen.prev_high[prev], high))
    w = np.concatenate((seen.window[cur], seen.prev_window[prev], window))
    order = np.lexsort((b, s))
    s, b, h, w = s[order], b[order], h[order], w[order]
    last = tails(s)
    seen.boot[s[last]], seen.high[s[last]], seen.window[s[last]] = b[last], h[last], w[last]
    second = second_last(last)
    at = s[second]
    seen.prev_boot[at], seen.prev_high[at], seen.prev_window[at] = b[second], h[second], w[second]
