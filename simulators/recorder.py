"""What truly happened, second by second: rings over the fleet for whoever judges afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from simulators.battery import Mode
from simulators.device import Devices

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Samples in order of time: `t_ms` per row, one column per device. Powers in W, + = discharge, + = import.

    `grid_w`, `load_w` and `pv_w` are the site's: count a two-battery site once. `available_w` is what each battery
    could truly have discharged then above its own reserve, 0 while the device cannot be reached; `command` is the id
    in force (0 = none), `lease_end_ms` its end.
    """

    t_ms: npt.NDArray[np.int64]
    battery_w: Singles
    true_soc_pct: Singles
    grid_w: Singles
    load_w: Singles
    pv_w: Singles
    available_w: Singles
    reserve_pct: Singles
    mode: npt.NDArray[np.int8]
    islanded: npt.NDArray[np.bool_]
    reachable: npt.NDArray[np.bool_]
    command: npt.NDArray[np.int64]
    lease_end_ms: npt.NDArray[np.int64]
    setpoint_w: Singles

    def only(self, devices: Sequence[int]) -> "Trace":
        """The samples of these devices."""
        chosen = list(devices)
        columns = {f.name: getattr(self, f.name)[:, chosen] for f in fields(self) if f.name != "t_ms"}
        return Trace(t_ms=self.t_ms, **columns)

    @property
    def total_w(self) -> npt.NDArray[np.float64]:
        """Gross AC battery power of the fleet at each sample."""
        total: npt.NDArray[np.float64] = self.battery_w.sum(axis=1, dtype=np.float64)
        return total


_SINGLES = (
    "battery_w", "true_soc_pct", "grid_w", "load_w", "pv_w", "available_w", "reserve_pct", "setpoint_w",
)  # fmt: skip


class Recorder:
    """Keeps the newest `samples_max` samples of every device."""

    def __init__(self, devices: Devices, *, samples_max: int = 1_200) -> None:
        shape = (samples_max, len(devices.homes))
        self._devices = devices
        self._size = samples_max
        self._t_ms = np.zeros(samples_max, dtype=np.int64)
        self._singles = {name: np.zeros(shape, dtype=np.float32) for name in _SINGLES}
        self._mode = np.zeros(shape, dtype=np.int8)
        self._islanded = np.zeros(shape, dtype=np.bool_)
        self._reachable = np.zeros(shape, dtype=np.bool_)
        self._command = np.zeros(shape, dtype=np.int64)
        self._lease_end_ms = np.zeros(shape, dtype=np.int64)
        self.samples = 0

    @property
    def overwritten(self) -> int:
        """Samples that gave way to newer ones."""
        return max(0, self.samples - self._size)

    def sample(self, now_ms: int) -> None:
        """Take one sample of the whole fleet."""
        row = self.samples % self._size
        devices, batteries = self._devices, self._devices.batteries
        self._t_ms[row] = now_ms
        for name, ring in self._singles.items():
            if name != "available_w":
                ring[row] = getattr(batteries, name)
        available_w = batteries.available_discharge_w(batteries.reserve_pct)
        self._singles["available_w"][row] = np.where(devices.reachable, available_w, 0.0)
        self._mode[row] = np.where(devices.steered, Mode.REMOTE, np.where(devices.elsewhere, 0, batteries.mode))
        self._islanded[row] = batteries.islanded
        self._reachable[row] = devices.reachable
        self._command[row] = devices.reported.command_in_force
        self._lease_end_ms[row] = devices.lease_end_ms
        self.samples += 1

    def trace(self, *, since_ms: int = 0) -> Trace:
        """Copies of the samples at or after `since_ms`, oldest first."""
        count = min(self.samples, self._size)
        order = np.arange(self.samples - count, self.samples) % self._size
        order = order[self._t_ms[order] >= since_ms]
        return Trace(
            t_ms=self._t_ms[order],
            mode=self._mode[order],
            islanded=self._islanded[order],
            reachable=self._reachable[order],
            command=self._command[order],
            lease_end_ms=self._lease_end_ms[order],
            **{name: ring[order] for name, ring in self._singles.items()},
        )
