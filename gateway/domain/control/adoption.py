"""Devices that were under control when the gateway started: each is ours, or not any more, by its first reading."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet.columns import Authority, ControlColumns
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.types import Bools, Mode, Now

RENEW_PART = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """Devices heard since the start: those still `ours`, those that are `gone`. The others are `waiting`."""

    ours: NDArray[np.intp]
    gone: NDArray[np.intp]
    waiting: Bools


def adopted(snapshot: Snapshot, waiting: Bools, began_mono_ms: int) -> Adopted:
    """Who of those `waiting` (shorter if devices were added) has been heard since the start at `began_mono_ms`."""
    n, live = len(waiting), snapshot.live
    # What was written or handed back since the start is known; it needs no reading.
    waiting = waiting & (snapshot.control.authority[:n] == int(Authority.CONTROLLED))
    # A reading from before the restart shows a power that a ramp has left behind.
    heard = waiting & (live.seen_mono_ms[:n] > began_mono_ms) & np.isfinite(live.battery_w[:n])
    # A product that does not report its mode may still be under control.
    ours = heard & ((live.mode[:n] == int(Mode.REMOTE)) | (live.mode[:n] == int(Mode.UNKNOWN)))
    return Adopted(ours=np.flatnonzero(ours), gone=np.flatnonzero(heard & ~ours), waiting=waiting & ~heard)


def adopt(control: ControlColumns, snapshot: Snapshot, slots: NDArray[np.intp], now: Now, *, newest_cmd: int) -> None:
    """Read the setpoints of devices that are ours from what they do. An id beyond `newest_cmd` was never given out and
    proves nothing, however large."""
    live = snapshot.live
    # How much of the lease is left is unknown: it is renewed soon, with the setpoint wanted by then.
    soon_ms = (1000 * RENEW_PART * snapshot.nameplate.lease_s[slots]).astype(np.int64)
    control.lease_end_mono_ms[slots] = now.mono_ms + soon_ms
    control.setpoint_w[slots] = np.round(live.battery_w[slots]).astype(np.int64)
    control.before_w[slots] = control.setpoint_w[slots]
    control.ran_high_w[slots] = control.ran_low_w[slots] = control.setpoint_w[slots]
    cmd = np.where(live.cmd[slots] <= newest_cmd, live.cmd[slots], 0)
    control.cmd_sent[slots] = control.cmd_applied[slots] = cmd
