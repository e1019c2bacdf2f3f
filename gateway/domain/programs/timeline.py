"""Dated statements as columns: who, from when until when, what. Read at an instant for everybody at once."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.programs.facts import FOREVER_MS, FactKey
from gateway.domain.table import Table, column
from gateway.domain.types import Ints

Numbers = NDArray[np.int32]
NOTHING = -1


class TimelineRows(Table):
    """One statement per row: `what` is said of `who` (numbers) from `from_ms` until `until_ms` (UTC)."""

    who: Numbers = column(NOTHING)
    what: Numbers = column(NOTHING)
    from_ms: Ints = column(0)
    until_ms: Ints = column(0)
    revision: Ints = column(0)


class Timeline:
    """TimelineRows by key; the highest revision of a key is the one that is kept."""

    def __init__(self) -> None:
        self._row_of: dict[FactKey, int] = {}
        self._rows_of: defaultdict[int, list[int]] = defaultdict(list)
        self._rows = TimelineRows()

    def put(
        self, key: FactKey, *, who: int, what: int, from_ms: int, until_ms: int | None, revision: int
    ) -> bool:  # fmt: skip
        """Add a statement, or replace an older one; returns whether anything changed."""
        rows, row = self._rows, self._row_of.get(key)
        if row is None:
            row = self._row_of[key] = len(self._row_of)
            self._rows_of[who].append(row)
            if row >= len(rows.who):
                rows.grow(max(16, 2 * row))
        elif revision <= rows.revision[row]:
            return False
        rows.who[row], rows.what[row] = who, what
        rows.from_ms[row], rows.until_ms[row] = from_ms, FOREVER_MS if until_ms is None else until_ms
        rows.revision[row] = revision
        return True

    def of(self, who: Numbers | None) -> TimelineRows:
        """The statements of these, whenever they hold; None: of everybody."""
        rows = self._rows.view(len(self._row_of))
        if who is None:
            return rows
        found = [row for number in who.tolist() for row in self._rows_of.get(number, ())]
        return _picked(rows, np.array(found, dtype=np.intp))

    def holding(self, at_ms: int, among: Numbers | None = None) -> "Held":
        """The statements that hold at an instant, in the order in which a later one counts; `among`: of these alone."""
        rows = self.of(among)
        found = np.flatnonzero((rows.from_ms <= at_ms) & (at_ms < rows.until_ms))
        who = rows.who[found]
        twice = np.bincount(who)[who] > 1 if len(found) else np.zeros(0, dtype=np.bool_)
        if twice.any():
            few = found[twice]
            few = few[np.lexsort((rows.revision[few], rows.from_ms[few]))]
            found = np.concatenate([found[~twice], few])
        return Held(who=rows.who[found], what=rows.what[found], from_ms=rows.from_ms[found])

    def newest_since(self, at_ms: int, those: "Those") -> tuple[Numbers, Ints]:
        """What holds of each of those at an instant, and since when; `NOTHING` and `-FOREVER_MS` where nothing does."""
        held = self.holding(at_ms, those.numbers)
        out, since_ms = np.full(those.n, NOTHING, dtype=np.int32), np.full(those.n, -FOREVER_MS, dtype=np.int64)
        at = those.places(held.who)
        out[at], since_ms[at] = held.what, held.from_ms
        return out, since_ms

    def last_before(self, at_ms: int, those: "Those") -> Ints:
        """The newest beginning until an instant, of each of those; `-FOREVER_MS` where there is none."""
        rows = self.of(those.numbers)
        begun = rows.from_ms <= at_ms
        out = np.full(those.n, -FOREVER_MS, dtype=np.int64)
        np.maximum.at(out, those.places(rows.who[begun]), rows.from_ms[begun])
        return out

    def begun(self, at_ms: int, among: Numbers | None = None) -> TimelineRows:
        """A copy of the statements that had begun by an instant, those that are over included."""
        rows = self.of(among)
        return _picked(rows, np.flatnonzero(rows.from_ms <= at_ms))

    def edges(self, at_ms: int, among: Numbers | None = None) -> tuple[int, int]:
        """Since when, and until when, nothing begins or ends: the edges around an instant."""
        rows = self.of(among)
        edges = np.concatenate([rows.from_ms, rows.until_ms])
        past, coming = edges[edges <= at_ms], edges[edges > at_ms]
        return int(past.max(initial=-FOREVER_MS)), int(coming.min(initial=FOREVER_MS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """TimelineRows that hold: assigned by `who` in this order, the last is the one that counts."""

    who: Numbers
    what: Numbers
    from_ms: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Those:
    """Whom a question is about: the first `n`, or `n` of them by number, ascending (`numbers`)."""

    n: int
    numbers: Numbers | None = None

    def places(self, numbers: Numbers) -> NDArray[np.intp]:
        """Where these of them stand in an answer."""
        return numbers.astype(np.intp) if self.numbers is None else np.searchsorted(self.numbers, numbers)


def _picked(rows: TimelineRows, found: NDArray[np.intp]) -> TimelineRows:
    out = TimelineRows(len(found))
    for name in TimelineRows.SPEC:
        out.column(name)[:] = rows.column(name)[found]
    return out
