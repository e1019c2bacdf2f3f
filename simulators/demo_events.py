"""The events of the demo: which homes each of them addresses, and how much it asks of them.

Three events run side by side, each with homes of its own, so that one run shows both directions, both doors and
products of every kind of watchdog within the time of one. Powers in W, + = discharge.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from simulators.oracle import Window

PROGRAM = "demo"
CHARGING_SHARE = 0.06
"""Of the homes, at most so many charge."""

SOC_MAX_PCT = 80.0
"""A home that is fuller has little room to charge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Homes of the three events by index: the discharge, those that only silence releases, the recharge."""

    discharge: tuple[int, ...]
    silence: tuple[int, ...]
    recharge: tuple[int, ...]


def groups(
    count: int, *, silence: Collection[int], may_charge: npt.NDArray[np.bool_], soc_pct: npt.NDArray[np.float64],
    cast: Collection[int],
) -> Groups:  # fmt: skip
    """Every home in one group. Homes that charge are those with most room; none that has a part in the story."""
    fit = [int(i) for i in np.argsort(soc_pct, kind="stable") if may_charge[i] and soc_pct[i] < SOC_MAX_PCT]
    taken = {*silence, *cast}
    charge = [i for i in fit if i not in taken][: max(1, int(count * CHARGING_SHARE))]
    elsewhere = {*silence, *charge}
    rest = tuple(i for i in range(count) if i not in elsewhere)
    return Groups(discharge=rest, silence=tuple(sorted(silence)), recharge=tuple(sorted(charge)))


def whole_hundreds(power_w: float) -> float:
    """The power in whole hundreds, towards 0."""
    return float(np.trunc(power_w / 100) * 100)


def event(window: Window, ids: Sequence[str]) -> dict[str, object]:
    """The body of an event, as both doors take it. `ids` are those of all homes."""

    def text(ms: int) -> str:
        return datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat()

    return {
        "id": window.id,
        "revision": 1,
        "kind": "real",
        "program": PROGRAM,
        "group": {"all": True} if window.members is None else {"ids": [ids[i] for i in window.members]},
        "start": text(window.start_ms),
        "end": text(window.end_ms),
        "target_w": window.target_w,
        "priority": 10,
    }
