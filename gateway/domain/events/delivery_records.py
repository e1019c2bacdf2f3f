"""Delivery records: what one event asked of one device, what the device did, and when. One row per device and event.

The id of a row is `<event>/<device>`, the same from the grid's signal to the meter, over revisions and restarts.
Reports upstream rest on these rows alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gateway.domain.commands import CommandResult, Unreached
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import Power
from gateway.domain.limits.types import UNCLEAR, Bits, Envelope, Reason
from gateway.domain.table import Singles, Table, column, run
from gateway.domain.types import Bools, Floats, Ints, Now, Slots, Small

Run = NDArray[np.integer] | slice
"""Devices by slot, as a slice where they follow each other."""

STARTED_PART = 0.5
"""A device has started once its measured power has gone this part of the way to its setpoint."""

TOLERANCE_W = 200.0
TOLERANCE_PART = 0.1
DT_S_MAX = 60.0


class Status(IntEnum):
    """How far a device has come within an event."""

    SCHEDULED = 0
    SENT = 1
    ACKNOWLEDGED = 2
    STARTED = 3
    DELIVERING = 4
    COMPLETED = 5
    FAILED = 6
    OPTED_OUT = 7
    CANCELLED = 8
    SUPERSEDED = 9


class Failure(IntEnum):
    """Why a device does not deliver."""

    NONE = 0
    OFFLINE = 1
    FAULT = 2
    LIMIT = 3
    REFUSED = 4
    NO_RESPONSE = 5
    EXCLUDED = 6


_S = Status
_UP = (_S.SENT, _S.ACKNOWLEDGED, _S.STARTED, _S.DELIVERING)
_AWAY = (_S.SCHEDULED, _S.FAILED, _S.OPTED_OUT, _S.SUPERSEDED, _S.COMPLETED, _S.CANCELLED)
STEPS: Mapping[Status, tuple[Status, ...]] = {
    _S.SCHEDULED: (*_UP, *_AWAY),
    _S.SENT: (*_UP[1:], *_AWAY),
    _S.ACKNOWLEDGED: (*_UP[2:], *_AWAY),
    _S.STARTED: (_S.DELIVERING, *_AWAY),
    _S.DELIVERING: (_S.STARTED, *_AWAY),
    _S.FAILED: (*_UP, *_AWAY),
    _S.SUPERSEDED: (*_UP, *_AWAY),
    _S.OPTED_OUT: (*_UP, _S.SCHEDULED, _S.FAILED, _S.CANCELLED),
    _S.COMPLETED: (_S.CANCELLED,),
    _S.CANCELLED: (),
}
"""The statuses that may follow each status; others leave it as it is. A new setpoint does not return a started device
to `SENT`; an event that is revised after its end gets new records."""

_MAY = np.zeros((len(Status), len(Status)), dtype=np.bool_)
for _from, _to in STEPS.items():
    _MAY[_from, [status for status in _to if status is not _from]] = True

ENDED = (int(Status.COMPLETED), int(Status.CANCELLED))


class RecordRows(Table):
    """Devices of one event. Powers W (+ = discharge), energies Wh with the sign of what was asked, times UTC ms (0 =
    never). `asked_w` what the event wanted, `allowed_w` the part that `limits` allowed (`Reason` bits, 0 = none),
    `written_w` the newest setpoint, `measured_w` measured power (NaN while not measured), `assumed_w` the power assumed
    then (NaN while measured). `unreached` (an `Unreached`) is why a device that did not respond cannot be told
    anything. `delivered_wh` is measured, `shortfall_wh` asked and not measured as delivered, `unmeasured_wh` the part
    of the shortfall asked while the device was not measured: it may have been delivered. Assumed power adds no
    energy. `shared_with`: how many other events the device's power serves too, `shared_wh` what of `delivered_wh` did:
    that is in their records as well."""

    slot: Slots = column(-1)
    status: Small = column(0)
    failure: Small = column(0)
    result: Small = column(0)
    unreached: Small = column(0)
    limits: Bits = column(0)
    asked_w: Singles = column(0.0)
    allowed_w: Singles = column(np.nan)
    written_w: Singles = column(np.nan)
    measured_w: Singles = column(np.nan)
    assumed_w: Singles = column(np.nan)
    asked_wh: Floats = column(0.0)
    delivered_wh: Floats = column(0.0)
    shortfall_wh: Floats = column(0.0)
    unmeasured_wh: Floats = column(0.0)
    shared_with: NDArray[np.int16] = column(0)
    shared_wh: Floats = column(0.0)
    commands: NDArray[np.int32] = column(0)
    cmd: Ints = column(0)
    status_ms: Ints = column(0)
    sent_ms: Ints = column(0)
    acknowledged_ms: Ints = column(0)
    started_ms: Ints = column(0)
    ended_ms: Ints = column(0)
    updated_ms: Ints = column(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """State of every device in a tick, for the records: its `power`, `asked_w` and `wanted_w` before and after limits,
    `unresponsive` devices that have not followed for long, `unreached` why a device cannot be told anything,
    `serves` how many running events share it, `by_own_mode` devices that serve by
    their maker's own mode: what they give counts as their share."""

    snapshot: Snapshot
    allowed: Envelope
    power: Power
    asked_w: Ints
    wanted_w: Ints
    unresponsive: Bools
    unreached: Small
    serves: NDArray[np.int16]
    by_own_mode: Bools


class Records:
    """The records of one occurrence of an event; a row is added with its device and stays."""

    def __init__(self) -> None:
        self.rows = RecordRows()
        self.n = 0
        self._row_of: NDArray[np.int32] = np.zeros(0, dtype=np.int32)

    def include(self, slots: Slots, n: int) -> None:
        """Add the missing rows of `slots`; `n` devices in the fleet."""
        if len(self._row_of) < n:
            self._row_of = np.concatenate((self._row_of, np.full(n - len(self._row_of), -1, dtype=np.int32)))
        new = slots[self._row_of[run(slots)] < 0]
        if not len(new):
            return
        self.rows.grow(self.n + len(new))
        at = np.arange(self.n, self.n + len(new), dtype=np.int32)
        self.rows.slot[at] = new
        self._row_of[new] = at
        self.n += len(new)

    def written(self, slots: Slots, setpoint_w: Ints, cmd: Ints, now: Now) -> None:
        """Note setpoints sent to some of the devices."""
        found = self._row_of[run(slots)]
        known = found >= 0
        if not known.all():
            found, setpoint_w, cmd = found[known], setpoint_w[known], cmd[known]
        at, rows = run(found), self.rows
        rows.written_w[at] = setpoint_w
        rows.cmd[at] = cmd
        rows.commands[at] += 1
        rows.sent_ms[found[rows.sent_ms[at] == 0]] = now.utc_ms

    def observe(
        self, sight: Sight, shares: Bools, opted_out: Bools, now: Now, *, sign: int, part: slice = slice(None)
    ) -> Ints:
        """Update some rows while the event runs. `shares`: the devices of the event, `opted_out` those that left it;
        `sign` +1 if it discharges, -1 if it charges, 0 if it asks for neither. Returns the rows whose status has
        changed."""
        at = slice(*part.indices(self.n))
        rows, slots = self.rows, run(self.rows.slot[at])
        control, power = sight.snapshot.control, sight.power
        mine, left = shares[slots], opted_out[slots]
        wanted_w, asked_w = sight.wanted_w[slots], sight.asked_w[slots]
        seen, each_w = power.measured[slots], power.each_w[slots]
        bits, most_w = _limits(sight.allowed, slots, asked_w, sign)
        nothing = (most_w < 1) & ((asked_w != 0) | (sign != 0))
        unreached = _unreached(sight, slots)
        failure = _failure(sight, slots, bits, nothing, unreached)
        status = _status(sight, slots, failure, rows.status[at], mine=mine, left=left)
        failure *= status == int(Status.FAILED)
        unreached = unreached * (failure == int(Failure.NO_RESPONSE))

        dt_s = np.where(rows.updated_ms[at] > 0, (now.utc_ms - rows.updated_ms[at]) / 1000, 0.0)
        hours = np.clip(dt_s, 0.0, DT_S_MAX) / 3600
        before_w = rows.asked_w[at].astype(np.float64) * mine
        way = np.where(before_w < 0, -1.0, 1.0)
        delivered_w = np.where(seen, each_w, 0.0) * mine
        asked_wh = before_w * hours
        hours *= before_w != 0
        for energy_wh, more_wh in (
            (rows.asked_wh, asked_wh),
            (rows.delivered_wh, delivered_w * hours),
            (rows.shortfall_wh, way * np.maximum(way * (before_w - delivered_w), 0.0) * hours),
            (rows.unmeasured_wh, asked_wh * ~seen),
            (rows.shared_wh, delivered_w * hours * (rows.shared_with[at] > 0)),
        ):
            energy_wh[at] = energy_wh[at] + more_wh
        rows.asked_w[at] = asked_w * mine
        rows.shared_with[at] = np.maximum(sight.serves[slots] - 1, 0) * mine
        rows.allowed_w[at] = wanted_w * mine
        rows.limits[at] = bits * ((np.abs(asked_w) > np.abs(wanted_w)) | nothing) * mine
        rows.measured_w[at] = np.where(seen, each_w, np.nan)
        rows.assumed_w[at] = np.where(seen, np.nan, each_w)
        rows.result[at] = control.result[slots]
        rows.updated_ms[at] = now.utc_ms
        acknowledged = (
            (rows.acknowledged_ms[at] == 0) & (rows.cmd[at] > 0) & (control.cmd_applied[slots] >= rows.cmd[at])
        )
        rows.acknowledged_ms[at][acknowledged] = now.utc_ms
        return self._move(at, status, failure, now, unreached)

    def end(self, status: Status, now: Now) -> Ints:
        """End the event as `COMPLETED` or `CANCELLED`. Rows that failed or opted out keep their status when it
        completes. Returns the rows whose status has changed."""
        at = np.arange(self.n)
        stays = np.isin(self.rows.status[at], (int(Status.FAILED), int(Status.OPTED_OUT)))
        if status is Status.COMPLETED:
            at = at[~stays]
        ended = np.full(len(at), int(status), dtype=np.int8)
        moved = self._move(at, ended, self.rows.failure[at], now, self.rows.unreached[at])
        open_ = self.rows.ended_ms[: self.n] == 0
        self.rows.ended_ms[: self.n][open_] = now.utc_ms
        return moved

    def _move(self, at: Ints | slice, status: Small, failure: Small, now: Now, unreached: Small) -> Ints:
        rows = self.rows
        before = rows.status[at]
        other = (failure != rows.failure[at]) | (unreached != rows.unreached[at])
        moves = np.flatnonzero((status != before) | other)
        moves = moves[_MAY[before[moves], status[moves]] | ((status == before) & other)[moves]]
        moved = moves + at.start if isinstance(at, slice) else at[moves]
        status = status[moves]
        rows.status[moved] = status
        rows.failure[moved] = failure[moves]
        rows.unreached[moved] = unreached[moves]
        rows.status_ms[moved] = now.utc_ms
        started = moved[(status >= int(Status.STARTED)) & (status <= int(Status.DELIVERING))]
        started = started[rows.started_ms[started] == 0]
        rows.started_ms[started] = now.utc_ms
        found: Ints = moved
        return found


def _limits(allowed: Envelope, slots: Run, asked_w: Ints, sign: int) -> tuple[Bits, Floats]:
    """The reasons that limit each device in the direction it is asked for, and the most it may do there."""
    if sign > 0:
        return allowed.reasons_discharge[slots], allowed.discharge_w[slots]
    if sign < 0:
        return allowed.reasons_charge[slots], allowed.charge_w[slots]
    charging = asked_w < 0
    return (
        np.where(charging, allowed.reasons_charge[slots], allowed.reasons_discharge[slots]),
        np.where(charging, allowed.charge_w[slots], allowed.discharge_w[slots]),
    )


def _status(sight: Sight, slots: Run, failure: Small, before: Small, *, mine: Bools, left: Bools) -> Small:
    """Status of each device now; `before`: its last status. Only a measured device becomes started or delivering, and a
    started device that is no longer measured is not reported as delivering."""
    live, control = sight.snapshot.live, sight.snapshot.control
    setpoint_w = control.setpoint_w[slots].astype(np.float64)
    measured_w, before_w = live.battery_w[slots], control.before_w[slots]
    close_w = np.maximum(TOLERANCE_W, TOLERANCE_PART * np.abs(setpoint_w))
    answered = control.cmd_applied[slots] >= control.cmd_sent[slots]
    there = np.abs(measured_w - setpoint_w) <= close_w
    way_w = setpoint_w - before_w
    gone = (measured_w - before_w) * np.sign(way_w) >= STARTED_PART * np.abs(way_w)
    status = np.full(len(failure), int(Status.SENT), dtype=np.int8)
    status[answered] = Status.ACKNOWLEDGED
    status[answered & gone & (way_w != 0)] = Status.STARTED
    status[answered & there] = Status.DELIVERING
    unseen = ~sight.power.measured[slots]
    if unseen.any():
        had_started = (before == int(Status.STARTED)) | (before == int(Status.DELIVERING))
        status[unseen] = np.where(had_started, Status.STARTED, np.minimum(status, Status.ACKNOWLEDGED))[unseen]
    authority = control.authority[slots]
    status[(authority != int(Authority.CONTROLLED)) | control.idle[slots]] = Status.SCHEDULED
    status[sight.by_own_mode[slots] & (authority == int(Authority.DEVICE))] = Status.DELIVERING
    status[failure != int(Failure.NONE)] = Status.FAILED
    status[~mine] = Status.SUPERSEDED
    status[left | (authority == int(Authority.OWNER))] = Status.OPTED_OUT
    return status


_REFUSED, _FAULT = np.uint64(Reason.REFUSED), np.uint64(Reason.FAULT)
_OFFLINE = np.uint64(Reason.OFFLINE | Reason.STALE | Reason.STUCK | Reason.ISLANDED)
_EXCLUDED = np.uint64(
    Reason.QUARANTINED | Reason.FROZEN | Reason.LOCKED | Reason.NOT_STEERABLE | Reason.UNENROLLED | Reason.OPTED_OUT
    | Reason.MAKER_BACKUP | Reason.DEPARTING | Reason.EXCLUDED | UNCLEAR
)  # fmt: skip


def _unreached(sight: Sight, slots: Run) -> Small:
    """Why each device cannot be told anything. What it was told before counts for as long as its lease runs."""
    found: Small = sight.unreached[slots]
    if found.any():
        # a product, not a change in place: a run of rows is a view of what the sight holds
        found = found * (sight.snapshot.control.authority[slots] != int(Authority.CONTROLLED))
    return found


def _failure(sight: Sight, slots: Run, bits: Bits, nothing: Bools, unreached: Small) -> Small:
    """Why each device cannot deliver; the strongest cause. `bits`: the reasons in the direction asked; `nothing`:
    devices that may give nothing in it."""
    failure = np.zeros(len(bits), dtype=np.int8)
    failure[nothing & ~sight.by_own_mode[slots]] = Failure.LIMIT
    failure[sight.unresponsive[slots]] = Failure.NO_RESPONSE
    failure[sight.snapshot.control.result[slots] == int(CommandResult.REFUSED)] = Failure.REFUSED
    # a lost device to which nothing is left to do
    overdue = sight.power.overdue[slots]
    if overdue.any():
        failure[overdue & (sight.wanted_w[slots] == 0)] = Failure.OFFLINE
    # most of these reasons hold for no device at all
    somewhere = np.bitwise_or.reduce(bits)
    if somewhere & _REFUSED:
        failure[(bits & _REFUSED) != 0] = Failure.REFUSED
    failure[unreached != int(Unreached.NONE)] = Failure.NO_RESPONSE
    for reasons, cause in ((_EXCLUDED, Failure.EXCLUDED), (_FAULT, Failure.FAULT), (_OFFLINE, Failure.OFFLINE)):
        if somewhere & reasons:
            failure[(bits & reasons) != 0] = cause
    return failure
