"""State of the interval engine: tables indexed by slot, late data, and days that wait for drift correction."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gateway.domain.errors import invariant
from gateway.domain.intervals.accumulators import Accumulators
from gateway.domain.intervals.config import IntervalConfig, Newest
from gateway.domain.intervals.device_clock import Clocks
from gateway.domain.intervals.drift import DriftCorrection
from gateway.domain.intervals.duplicates import Seen
from gateway.domain.intervals.late import Late
from gateway.domain.intervals.missing import MissingNumbers
from gateway.domain.intervals.types import CounterState, IntervalRules, SampleCounts
from gateway.domain.table import Table
from gateway.domain.types import Ints

DAY_S = 86_400
LATE_PREFIX, DAYS_PREFIX, MISSING_PREFIX = "late.", "days.", "missing."


class EngineState:
    """The whole state, empty or loaded from `columns`; changed from one thread."""

    def __init__(self, rules: IntervalRules | None = None) -> None:
        self.rules = rules or IntervalRules()
        invariant(0 < self.rules.length_s <= DAY_S, "an interval is between a second and a day")
        invariant(DAY_S % self.rules.length_s == 0, "the interval length divides a day")
        self.n = 0
        self.totals = SampleCounts()
        self.config = IntervalConfig()
        self.clocks = Clocks()
        self.seen = Seen()
        self.missing = MissingNumbers()
        self.charge = CounterState()
        self.discharge = CounterState()
        self.newest = Newest()
        self.cur = Accumulators()
        self.prev = Accumulators()
        self.late = Late()
        self.drift = DriftCorrection()
        self.any_coarse = False

    def reserve(self, n: int) -> None:
        """Have room for slots below `n`."""
        if n > self.n:
            size = len(self.newest.t_ms)
            if n > size:
                # By a quarter where devices come one by one, exactly where a whole fleet comes at once.
                capacity = max(64, n, size + size // 4)
                for table in self._tables().values():
                    table.grow(capacity)
                self.config.length_ms[size:] = self.rules.length_ms
            self.n = n

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Views of the whole state by name, each `n` long except late data, days and missing
        sequence numbers; copy before the next change."""
        own = {
            f"{name}.{column}": table.column(column)[: self.n]
            for name, table in self._tables().items()
            for column in table.SPEC
        }
        late = {f"{LATE_PREFIX}{name}": column for name, column in self.late.columns().items()}
        missing = {f"{MISSING_PREFIX}{name}": column for name, column in self.missing.columns().items()}
        return own | late | missing | {f"{DAYS_PREFIX}{name}": column for name, column in self.drift.columns().items()}

    def load(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Load a state that `columns` returned; a column missing from it keeps its default."""
        invariant(self.n == 0, "only an empty engine loads a state")
        self.reserve(len(columns.get("newest.t_ms", ())))
        beside = ((LATE_PREFIX, self.late), (DAYS_PREFIX, self.drift), (MISSING_PREFIX, self.missing))
        for prefix, waiting in beside:
            waiting.load({k.removeprefix(prefix): v for k, v in columns.items() if k.startswith(prefix)})
        for name, table in self._tables().items():
            for column in table.SPEC:
                stored = columns.get(f"{name}.{column}")
                if stored is not None:
                    table.load(column, stored)
        self.any_coarse = bool(self.config.coarse.any())
        wrong, age_ms = columns.get("clocks.wrong"), columns.get("clocks.age_ms")
        if wrong is not None and age_ms is not None:
            self.clocks.take_over(wrong.astype(np.bool_), age_ms.astype(np.int64))
        self.clocks.any_watched = bool(self.clocks.watched.any())

    def renumber(self, old_slots: Ints) -> None:
        """Give devices new slots: `old_slots[new]` is the old slot of each, -1 for a new device."""
        for table in self._tables().values():
            table.renumber(old_slots)
        self.config.length_ms[old_slots < 0] = self.rules.length_ms
        self.late.renumber(old_slots)
        self.missing.renumber(old_slots)
        self.drift.renumber(old_slots)
        self.n = len(old_slots)

    def _tables(self) -> dict[str, Table]:
        return {
            "seen": self.seen,
            "charge": self.charge,
            "discharge": self.discharge,
            "newest": self.newest,
            "terms": self.config,
            "clocks": self.clocks,
            "cur": self.cur,
            "prev": self.prev,
        }
