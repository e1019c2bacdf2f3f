"""Live, energy and status messages of the reference firmware protocol, built from a fleet's columns.

JSON; an absent key or null = unknown; times UTC ms; battery_w + = discharge, grid_w + = import. `load_w`, `pv_w` and
`grid_w` are the site's: two batteries of one site report the same meter.
"""

import math
from dataclasses import dataclass

import numpy as np
import orjson

from simulators.battery import Batteries, Mode
from simulators.energy_store import EnergyMessage
from simulators.homes import Floats, Ints

MODE_NAMES = {Mode.SELF_CONSUMPTION: "self_consumption", Mode.REMOTE: "remote", Mode.BACKUP: "backup"}
Body = dict[str, object]


class Topics:
    """Topics of every device, by index."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.live, self.energy, self.status, self.command, self.ack = (
            [f"gateway/v1/devices/{device}/{leaf}" for device in ids]
            for leaf in ("live", "energy", "status", "command", "ack")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message for the broker."""

    index: int
    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    energy: EnergyMessage | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Reported:
    """What the firmware adds to the battery's own state in its reports."""

    fault_bits: Ints
    command_in_force: Ints


def live_bodies(batteries: Batteries, reported: Reported, due: Ints, now_ms: int) -> list[Body]:
    """The honest live message of each device in `due`."""
    homes = batteries.homes
    site = homes.site_index[due]
    columns = (
        due.tolist(),
        batteries.battery_w[due].round(1).tolist(),
        batteries.reported_soc_pct()[due].round(2).tolist(),
        homes.soc_step_pct[due].tolist(),
        batteries.temp_c[due].round(1).tolist(),
        np.floor(batteries.discharge_limit_w()[due]).tolist(),
        np.floor(batteries.charge_limit_w()[due]).tolist(),
        batteries.mode[due].tolist(),
        batteries.islanded[due].tolist(),
        reported.fault_bits[due].tolist(),
        batteries.reserve_pct[due].tolist(),
        batteries.site_pv_w[site].round(1).tolist(),
        batteries.site_load_w[site].round(1).tolist(),
        batteries.site_grid_w[site].round(1).tolist(),
        reported.command_in_force[due].tolist(),
    )
    return [
        {
            "id": homes.ids[i],
            "t": now_ms,
            "battery_w": battery_w,
            "soc_pct": soc_pct,
            "soc_step_pct": step_pct,
            "temp_c": temp_c,
            "discharge_w_max": discharge_w,
            "charge_w_max": charge_w,
            "mode": MODE_NAMES[Mode(mode)],
            "grid": "island" if islanded else "on",
            "faults": faults,
            "reserve_pct": reserve_pct,
            "pv_w": pv_w,
            "load_w": load_w,
            "grid_w": grid_w,
            "cmd": cmd,
        }
        for (
            i, battery_w, soc_pct, step_pct, temp_c, discharge_w, charge_w, mode,
            islanded, faults, reserve_pct, pv_w, load_w, grid_w, cmd,
        ) in zip(*columns, strict=True)
    ]  # fmt: skip


def status_payload(device: str, *, online: bool, now_ms: int, live_s: float) -> bytes:
    return orjson.dumps({"id": device, "online": online, "t": now_ms, "live_s": live_s})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One device's energy and mean powers since its last energy message."""

    span_ms: int
    charge_wh: float
    discharge_wh: float
    means_w: tuple[float, float, float, float]


class SpanMeter:
    """Energy and mean powers of every device since its last energy message."""

    def __init__(self, batteries: Batteries, *, now_ms: int) -> None:
        n = len(batteries.homes)
        self._batteries = batteries
        self._start_ms: Ints = np.full(n, now_ms, dtype=np.int64)
        self._charged_wh = batteries.charged_wh.copy()
        self._discharged_wh = batteries.discharged_wh.copy()
        self._sums: Floats = np.zeros((4, n))
        self._covered_s: Floats = np.zeros(n)

    def add(self, dt_s: float) -> None:
        """Count the step of `dt_s` that the batteries have just made."""
        b = self._batteries
        for row, values in enumerate((b.battery_w, b.grid_w, b.pv_w, b.load_w)):
            self._sums[row] += values * dt_s
        self._covered_s += dt_s

    def take(self, index: int, now_ms: int) -> Span:
        """Close the span of one device at `now_ms` and begin the next."""
        b = self._batteries
        covered_s = float(self._covered_s[index])
        means = (self._sums[:, index] / covered_s).tolist() if covered_s > 0 else [math.nan] * 4
        span = Span(
            span_ms=now_ms - int(self._start_ms[index]),
            charge_wh=float(b.charged_wh[index] - self._charged_wh[index]),
            discharge_wh=float(b.discharged_wh[index] - self._discharged_wh[index]),
            means_w=(means[0], means[1], means[2], means[3]),
        )
        self._start_ms[index] = now_ms
        self._charged_wh[index] = b.charged_wh[index]
        self._discharged_wh[index] = b.discharged_wh[index]
        self._sums[:, index] = 0.0
        self._covered_s[index] = 0.0
        return span


def _known(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReadings:
    """State at the end of the spans, taken once for all devices that are due."""

    charge_counter_wh: Floats
    discharge_counter_wh: Floats
    soc_pct: Floats

    @classmethod
    def of(cls, batteries: Batteries) -> "EnergyReadings":
        return cls(
            charge_counter_wh=batteries.charge_counter_wh(),
            discharge_counter_wh=batteries.discharge_counter_wh(),
            soc_pct=batteries.reported_soc_pct(),
        )


def energy_body(
    batteries: Batteries, readings: EnergyReadings, span: Span, *, index: int, boot: int, seq: int, now_ms: int
) -> tuple[Body, float, float]:
    """(body, charge, discharge) with the counters where the product has them, else the energy of the span, Wh."""
    counted = not math.isnan(readings.charge_counter_wh[index])
    charge_wh = float(readings.charge_counter_wh[index]) if counted else round(span.charge_wh, 3)
    discharge_wh = float(readings.discharge_counter_wh[index]) if counted else round(span.discharge_wh, 3)
    battery_w, grid_w, pv_w, load_w = span.means_w
    body: Body = {
        "id": batteries.homes.ids[index],
        "boot": boot,
        "seq": seq,
        "t": now_ms,
        "span_ms": span.span_ms,
        "charge_counter_wh": charge_wh if counted else None,
        "discharge_counter_wh": discharge_wh if counted else None,
        "charge_wh": None if counted else charge_wh,
        "discharge_wh": None if counted else discharge_wh,
        "battery_w": _known(battery_w, 1),
        "soc_pct": round(float(readings.soc_pct[index]), 2),
        "grid_w": _known(grid_w, 1),
        "pv_w": _known(pv_w, 1),
        "load_w": _known(load_w, 1),
        "temp_c": round(float(batteries.temp_c[index]), 1),
    }
    return body, charge_wh, discharge_wh
