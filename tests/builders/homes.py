"""Small fleets for tests of the simulators."""

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from simulators.battery import Batteries
from simulators.device import Devices
from simulators.homes import Bools, Floats, Homes, make_homes

START_MS = 1_800_000_000_000


def homes(n: int = 1, **columns: Any) -> Homes:
    """`n` single-battery homes without PV; numbers in `columns` hold for every device (or site)."""
    plain = make_homes(n, seed=5)
    values: dict[str, Any] = {
        "site_index": np.arange(n),
        "sites": tuple(f"site-{i:05d}" for i in range(n)),
        "load_base_w": np.full(n, 500.0),
        "pv_peak_w": np.zeros(n),
        "inverter_w_max": np.full(n, np.inf),
        "export_allowed": np.ones(n, dtype=np.bool_),
        "site_export_w_max": np.full(n, np.inf),
        "ambient_c": np.full(n, 22.0),
        "soc_start_pct": np.full(n, 60.0),
        "soc_step_pct": np.full(n, 1.0),
        "counter_step_wh": np.full(n, 1.0),
    }
    for name, value in columns.items():
        values[name] = np.full(n, value) if np.isscalar(value) and name != "seed" else value
    return replace(plain, **values)


def late(dead_s: float) -> type[Batteries]:
    """Batteries that confirm a command at once and act on it `dead_s` later; until then they go on as before."""

    class Late(Batteries):
        def __init__(self, *args: Any, **other: Any) -> None:
            super().__init__(*args, **other)
            self._told: deque[tuple[float, Floats, Any, Bools]] = deque()

        def step(self, dt_s: float) -> None:
            told = self.setpoint_w, self.mode, self.blocked
            self._told.append((self.time_s, told[0].copy(), told[1].copy(), told[2].copy()))
            while len(self._told) > 1 and self._told[1][0] <= self.time_s - dead_s:
                self._told.popleft()
            _, self.setpoint_w, self.mode, self.blocked = self._told[0]
            super().step(dt_s)
            self.setpoint_w, self.mode, self.blocked = told

    return Late


def devices(n: int = 1, *, guard: bool = False, store_max: int = 1_000, **columns: Any) -> Devices:
    """Firmware of such homes at `START_MS`: live every second, energy every five."""
    fleet = homes(n, **columns)
    return Devices(fleet, Batteries(fleet, guard=guard), now_ms=START_MS, store_max=store_max)


class Run:
    """Moves a fleet by hand and keeps what it says."""

    def __init__(self, fleet: Devices) -> None:
        self.fleet = fleet
        self.now_ms = START_MS
        self.live: list[tuple[int, bytes]] = []
        self.answers: list[dict[str, Any]] = []
        self.presence: list[tuple[int, bool]] = []

    def go(self, s: float) -> "Run":
        """Let `s` seconds pass in steps of 0.1 s."""
        for _ in range(round(s * 10)):
            self.now_ms += 100
            self.fleet.step(self.now_ms, 0.1)
            self.presence += self.fleet.take_presence()
            for message in self.fleet.take_answers():
                if message.qos == 0:
                    self.live.append((message.index, message.payload))
                else:
                    self.answers.append(orjson.loads(message.payload))
            self.live += [(message.index, message.payload) for message in self.fleet.live(self.now_ms)]
            self.fleet.make_energy(self.now_ms)
        return self

    def bodies(self, index: int = 0) -> list[dict[str, Any]]:
        return [orjson.loads(payload) for at, payload in self.live if at == index]

    def command(self, index: int = 0, **fields: Any) -> dict[str, Any] | None:
        """Hand a command to a device; its acknowledgement."""
        body = {"id": self.fleet.homes.ids[index], "valid_until": self.now_ms + 5_000} | fields
        ack = self.fleet.take_command(index, orjson.dumps(body), self.now_ms)
        return None if ack is None else dict(orjson.loads(ack.payload))

    def setpoint(self, cmd: int, setpoint_w: int, lease_s: int = 60, index: int = 0, **fields: Any) -> str:
        """The result of a setpoint, "" where there is no acknowledgement."""
        ack = self.command(index, cmd=cmd, op="setpoint", setpoint_w=setpoint_w, lease_s=lease_s, **fields)
        return "" if ack is None else str(ack["result"])
