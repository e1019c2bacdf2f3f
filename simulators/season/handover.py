"""What the simulated street hands to the gateway's side of a season, and what it gets back, as files of a directory.

- `day-NN.npz`: what is heard, message by message, of the homes that go the whole way on the day of an event, and the
  quarters of the others.
- `found.json`: `months`, pay by home (number) and month as text; `found` and `planted` underperformers; `disk_bytes`.

Each day is announced by its number on a line of the process's standard input, once its file is whole.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from simulators.homes import Ints
from simulators.season.received import Received

FOUND = "found.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandedDay:
    """`received` of the first homes; `charge_wh` and `discharge_wh` of the quarters of all others, whole Wh, -1 = not
    known."""

    received: Received
    charge_wh: Ints
    discharge_wh: Ints


def _path(directory: Path, event: int) -> Path:
    return directory / f"day-{event:02}.npz"


def hand_over(directory: Path, day: HandedDay) -> None:
    """Write a day."""
    arrays: dict[str, Any] = {name: getattr(day.received, name) for name in _NAMES}
    path = _path(directory, day.received.event)
    np.savez(path, charge_quarters=day.charge_wh, discharge_quarters=day.discharge_wh, **arrays)


def handed_over(directory: Path, event: int) -> HandedDay:
    """Read it, and remove it."""
    path = _path(directory, event)
    with np.load(path) as file:
        received = Received(event=event, **{name: file[name] for name in _NAMES})
        day = HandedDay(received=received, charge_wh=file["charge_quarters"], discharge_wh=file["discharge_quarters"])
    path.unlink()
    return day


_NAMES = [one.name for one in fields(Received) if one.name != "event"]
