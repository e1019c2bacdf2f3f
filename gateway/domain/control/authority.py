"""Who may be taken, written and returned: pure rules on the columns."""

import numpy as np
from numpy.typing import NDArray

from gateway.domain.control.marks import Marks
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.limits.device import NOT_TO_BE_WRITTEN, left_alone
from gateway.domain.table import run
from gateway.domain.types import Bools, Grid


def barred(snapshot: Snapshot, marks: Marks, excluded: Bools) -> Bools:
    """Commands, by row, that may not go out any more: their devices were `excluded` since they were decided, or are to
    be left alone by what they say by now. Handing back goes on, but nothing is written to an island."""
    taken: Bools = np.zeros(snapshot.n, dtype=np.bool_)
    taken[marks.batch.slots] = marks.taken
    alone = excluded.copy()
    for where, reason in left_alone(snapshot, taken):
        if reason in NOT_TO_BE_WRITTEN:
            alone |= where
    at: NDArray[np.integer] | slice = run(marks.batch.slots)
    islanded = snapshot.live.grid[at] == int(Grid.ISLAND)
    result: Bools = np.where(marks.released, islanded, alone[at])
    return result
