"""What every face stands on: one battery of the simulation with its home, and the terms all faces share.

A face is written from the maker's facts and knows nothing of any client. Its owner moves time: `face.step(dt_s)` runs
the product's timers and tells the battery what to do, then `batteries.step(dt_s)` moves the physics.
"""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Protocol

from simulators.battery import Batteries, Mode


class Trouble(Enum):
    """What a face does to its clients while `Face.trouble` says so."""

    NONE = "none"
    SILENT = "silent"  # takes requests, answers nothing
    DISCONNECT = "disconnect"  # closes the connection on a request
    GARBAGE = "garbage"  # answers with bytes that are no answer
    REFUSE = "refuse"  # refuses writes
    BUSY = "busy"  # answers "busy, try later" to everything
    LATE = "late"  # answers `late_s` after it was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a client reaches the product. `units` are further Modbus unit ids by the product's own name for them,
    `parameters` what an installer would write down (portal id, serial), `token` the secret, "" = none."""

    url: str
    units: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    username: str = ""
    token: str = ""


class Plant:
    """One battery of the fleet and its home; powers in W, `battery_w` + = discharge, `grid_w` + = import, AC.

    Counts energy at the meter and of PV by itself, since the physics counts the battery's only.
    """

    def __init__(self, batteries: Batteries, index: int) -> None:
        self.batteries = batteries
        self.index = index
        self.imported_wh = 0.0
        self.exported_wh = 0.0
        self.pv_wh = 0.0
        self._charged_before_wh = 0.0
        self._discharged_before_wh = 0.0

    def step(self, dt_s: float) -> None:
        """Count what flowed in the step that has just passed."""
        grid_w = self.grid_w
        self.imported_wh += max(grid_w, 0.0) * dt_s / 3600
        self.exported_wh += max(-grid_w, 0.0) * dt_s / 3600
        self.pv_wh += self.pv_w * dt_s / 3600

    @property
    def id(self) -> str:
        return self.batteries.homes.ids[self.index]

    @property
    def battery_w(self) -> float:
        return float(self.batteries.battery_w[self.index])

    @property
    def grid_w(self) -> float:
        return float(self.batteries.grid_w[self.index])

    @property
    def load_w(self) -> float:
        return float(self.batteries.load_w[self.index])

    @property
    def pv_w(self) -> float:
        return float(self.batteries.pv_w[self.index])

    @property
    def soc_pct(self) -> float:
        """What the BMS believes, in its coarse steps."""
        return float(self.batteries.reported_soc_pct()[self.index])

    @property
    def temp_c(self) -> float:
        return float(self.batteries.temp_c[self.index])

    @property
    def capacity_wh(self) -> float:
        return float(self.batteries.homes.capacity_wh[self.index])

    @property
    def discharge_w_max(self) -> float:
        return float(self.batteries.homes.discharge_w_max[self.index])

    @property
    def charge_w_max(self) -> float:
        return float(self.batteries.homes.charge_w_max[self.index])

    @property
    def discharge_limit_w(self) -> float:
        """Most the BMS lets out now."""
        return float(self.batteries.discharge_limit_w()[self.index])

    @property
    def charge_limit_w(self) -> float:
        """Most the BMS takes now, a magnitude."""
        return float(self.batteries.charge_limit_w()[self.index])

    @property
    def charged_wh(self) -> float:
        """Lifetime AC energy charged; starts anew after `reset_counters`."""
        return float(self.batteries.charged_wh[self.index]) - self._charged_before_wh

    @property
    def discharged_wh(self) -> float:
        return float(self.batteries.discharged_wh[self.index]) - self._discharged_before_wh

    def reset_counters(self) -> None:
        """As after a firmware upgrade: lifetime counters begin at 0."""
        self._charged_before_wh = float(self.batteries.charged_wh[self.index])
        self._discharged_before_wh = float(self.batteries.discharged_wh[self.index])

    @property
    def islanded(self) -> bool:
        return bool(self.batteries.islanded[self.index])

    @property
    def remote(self) -> bool:
        """Whether an outside setpoint steers the battery."""
        return bool(self.batteries.mode[self.index] == Mode.REMOTE)

    @property
    def setpoint_w(self) -> float:
        """The outside setpoint in force; NaN if none is."""
        return float(self.batteries.setpoint_w[self.index]) if self.remote else math.nan

    @property
    def reserve_pct(self) -> float:
        return float(self.batteries.reserve_pct[self.index])

    @reserve_pct.setter
    def reserve_pct(self, value: float) -> None:
        self.batteries.reserve_pct[self.index] = value

    def follow(self, setpoint_w: float) -> None:
        """Steer the battery to `setpoint_w` (+ = discharge)."""
        self.batteries.mode[self.index] = Mode.REMOTE
        self.batteries.setpoint_w[self.index] = setpoint_w

    def serve_home(self) -> None:
        """The maker's own self-consumption."""
        self.batteries.mode[self.index] = Mode.SELF_CONSUMPTION
        self.batteries.setpoint_w[self.index] = 0.0

    def serve_backup(self) -> None:
        self.batteries.mode[self.index] = Mode.BACKUP
        self.batteries.setpoint_w[self.index] = 0.0

    def home_w(self) -> float:
        """The battery power that would bring the meter to 0: load less PV."""
        return self.load_w - self.pv_w


class Face(Protocol):
    """One simulated home battery that speaks its maker's protocol on a real socket (loopback).

    Besides this, every face class takes `(plant: Plant)` and optional keyword settings in its constructor.
    """

    profile: ClassVar[str]
    plant: Plant
    trouble: Trouble
    late_s: float

    async def start(self, *, port: int = 0) -> Connection:
        """Listen (0 = any free port) and say how to connect."""
        ...

    async def stop(self) -> None: ...

    def step(self, dt_s: float) -> None:
        """Run the product's timers by `dt_s` simulated seconds and tell the battery what to do."""
        ...

    def reboot(self) -> None:
        """Lose what is volatile, keep what is stored, drop every connection."""
        ...

    def reboot_after_writes(self, n: int | None) -> None:
        """Reboot right after the n-th write request from now has taken effect, before it is answered; None = never."""
        ...

    def settings(self) -> dict[str, float]:
        """What an owner or installer has set and what control may touch, by the product's own names: equal before a
        dispatch and after its release. Timers that run and setpoints that no longer count are not in it."""
        ...

    def overwrite(self) -> None:
        """The maker's cloud, another controller or the owner's app puts the product back to its own mode."""
        ...

    @property
    def controlled(self) -> bool:
        """Whether the product is in a mode that an outside controller set: False again after release or time-out."""
        ...
