"""The verdict: judges a run from the simulated batteries, the broker's acknowledgements and the platform alone.

Nothing here asks the gateway. Powers in W, + = discharge; a step is the change of fleet power between two samples a
second apart, less what islanded homes and homes that are not under control did by themselves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from simulators.battery import Mode
from simulators.energy_store import AckedEnergy
from simulators.faults import FaultRecord
from simulators.homes import Homes
from simulators.ledger import Completeness, Ledger
from simulators.recorder import Trace

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

TRACKING_PCT = 2.0
TRACKING_FROM_S = 52
STEP_PCT = 5.0
SETTLE_S = 5
"""After a release a battery is on its way to its own mode for about this long."""

DISCHARGING_W = 50.0
TELEMETRY_ONLY = frozenset({"foxess-h3-smart", "sonnen-v1", "tesla-powerwall"})
EXPORT_W = 100.0
ENDED = frozenset({"completed", "failed", "opted_out", "cancelled", "superseded"})
LEASE_S = 120
REACTION_S = 10
"""A load that is switched off or a reserve that is raised is seen one reading later (1 s), acted on one tick after that
(1 s), and followed by the battery with a time constant of up to 2 s: after that, nothing may be left of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """An event as the platform asked for it. `members`: the homes it addresses, None = all."""

    id: str
    start_ms: int
    end_ms: int
    target_w: float
    members: tuple[int, ...] | None = None

    def of(self, trace: Trace) -> Trace:
        """What its homes did."""
        return trace if self.members is None else trace.only(self.members)


@dataclass(slots=True, kw_only=True)
class Minute:
    """One minute of an event: mean measured power against the target while capacity sufficed."""

    event: str
    start_s: int
    mean_w: float
    target_w: float
    capacity_w: float
    error_pct: float


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was found; `problems` empty = it held."""

    target_wh: float = 0.0
    delivered_wh: float = 0.0
    minutes: list[Minute] = field(default_factory=list)
    largest_step_w: float = 0.0
    largest_step_pct: float = 0.0
    largest_ramp_w_per_s: float = 0.0
    reserve_violations: int = 0
    export_violations: int = 0
    exported_wh: float = 0.0
    left_under_control: int = 0
    intervals: dict[str, int] = field(default_factory=dict)
    intervals_mqtt: dict[str, int] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    records_error_pct: float = 0.0
    told_over_w: float = 0.0
    return_s: float | None = None
    kept_pct: float | None = None
    performance: dict[str, Any] = field(default_factory=dict)
    products: list[str] = field(default_factory=list)
    took_part: dict[str, str] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok} | asdict(self)


def on_grid_total(trace: Trace) -> Floats:
    """Gross AC battery power of the homes that are connected to the grid."""
    total: Floats = np.where(trace.islanded, 0.0, trace.battery_w).sum(axis=1, dtype=np.float64)
    return total


def judge_tracking(trace: Trace, window: Window, verdict: Verdict, *, but: tuple[int, int] | None = None) -> None:
    """Every full minute from 52 s after the start: within 2 % while the true capacity suffices. Not those that a
    disturbance and the ramp after it take part in: `but` from when until when it lasted."""
    trace = window.of(trace)
    total = on_grid_total(trace)
    inside = (trace.t_ms >= window.start_ms) & (trace.t_ms < window.end_ms)
    if inside.any():
        verdict.target_wh += window.target_w * (window.end_ms - window.start_ms) / 3_600_000
        verdict.delivered_wh += float(total[inside].mean()) * (window.end_ms - window.start_ms) / 3_600_000
    begin = window.start_ms + TRACKING_FROM_S * 1000
    while begin + 60_000 <= window.end_ms:
        if but is not None and begin < but[1] + TRACKING_FROM_S * 1000 and begin + 60_000 > but[0]:
            begin += 60_000
            continue
        rows = (trace.t_ms >= begin) & (trace.t_ms < begin + 60_000)
        if rows.sum() < 50:
            verdict.problems.append(f"{window.id}: only {int(rows.sum())} samples in a minute")
            return
        capacity = float(trace.available_w[rows].sum(axis=1, dtype=np.float64).min())
        mean = float(total[rows].mean())
        minute = Minute(
            event=window.id,
            start_s=(begin - window.start_ms) // 1000,
            mean_w=round(mean, 1),
            target_w=window.target_w,
            capacity_w=round(capacity, 1),
            error_pct=round((mean / window.target_w - 1) * 100, 3),
        )
        verdict.minutes.append(minute)
        suffices = window.target_w < 0 or capacity >= window.target_w
        over = minute.error_pct > TRACKING_PCT
        if over or (suffices and minute.error_pct < -TRACKING_PCT):
            verdict.problems.append(f"{window.id}: minute from {minute.start_s} s is off by {minute.error_pct} %")
        begin += 60_000


def _spans(bad: Bools) -> npt.NDArray[np.int64]:
    """Longest run of True per column."""
    longest = np.zeros(bad.shape[1], dtype=np.int64)
    run = np.zeros(bad.shape[1], dtype=np.int64)
    for row in bad:
        run = np.where(row, run + 1, 0)
        longest = np.maximum(longest, run)
    return longest


def _lowest(values: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.float32]:
    """Per device, the smallest value of the last `samples`: a raise counts once there was time to react."""
    lowest = values.copy()
    for back in range(1, min(samples, len(values) - 1) + 1):
        lowest[back:] = np.minimum(lowest[back:], values[:-back])
    return lowest


def _heard(trace: Trace, unheard: Sequence[int], span_ms: tuple[int, int] | None) -> npt.NDArray[np.float32]:
    """The reserve of every device as far as it could be heard: the last one before, while nobody hears it. No lease
    lasts longer than `LEASE_S`, so that nothing is excused after that."""
    known_pct = trace.reserve_pct.copy()
    if span_ms is not None and unheard:
        until_ms = min(span_ms[1], span_ms[0] + LEASE_S * 1000)
        rows = np.flatnonzero((trace.t_ms >= span_ms[0]) & (trace.t_ms < until_ms))
        at = np.ix_(rows, np.array(unheard))
        before = max(int(np.searchsorted(trace.t_ms, span_ms[0])) - 1, 0)
        known_pct[at] = np.minimum(known_pct[at], known_pct[before, unheard])
    return known_pct


def judge_safety(
    trace: Trace,
    homes: Homes,
    verdict: Verdict,
    *,
    silent: Sequence[int] = (),
    unheard: Sequence[int] = (),
    unheard_ms: tuple[int, int] | None = None,
) -> None:
    """Reserve and export, per device, while a command of the gateway is in force and the home is on the grid. A device
    that was made `silent` shows nobody what its home does: it may go on until its lease is over. A reserve that is
    raised while nobody hears a device (`unheard`, `unheard_ms`) counts from when it is heard again."""
    ours = (trace.mode == Mode.REMOTE) & (trace.command > 0) & ~trace.islanded
    discharging = ours & (trace.battery_w > DISCHARGING_W)
    known_pct = _heard(trace, unheard, unheard_ms)
    below = trace.true_soc_pct < _lowest(known_pct, REACTION_S) - homes.soc_uncertainty_pct
    verdict.reserve_violations = int((discharging & below).sum())
    if verdict.reserve_violations:
        who = [homes.ids[i] for i in np.flatnonzero((discharging & below).any(axis=0))[:5]]
        verdict.problems.append(f"discharged below the reserve: {', '.join(who)}")
    export_w = np.minimum(trace.battery_w, -trace.grid_w)
    unwanted = discharging & (export_w > EXPORT_W) & ~homes.export_allowed
    verdict.exported_wh = round(float(np.where(unwanted, export_w, 0).sum(dtype=np.float64)) / 3600, 2)
    longest = _spans(unwanted)
    allowed_s = np.full(len(homes), REACTION_S)
    allowed_s[list(silent)] += LEASE_S
    verdict.export_violations = int((longest > allowed_s).sum())
    if verdict.export_violations:
        who = [f"{homes.ids[i]} for {longest[i]} s" for i in np.flatnonzero(longest > allowed_s)[:5]]
        verdict.problems.append(f"exported without permission: {', '.join(who)}")


def judge_steps(trace: Trace, target_w: float, largest_device_w: float, verdict: Verdict) -> None:
    """The largest change of fleet power within a second that homes make which are, or just were, under control, and the
    steepest ramp over ten. In a small fleet one battery alone is a step: the largest, switching by itself, is
    allowed."""
    total = on_grid_total(trace)
    seconds = np.diff(trace.t_ms) / 1000
    steady = (seconds > 0.5) & (seconds < 1.5)
    ours = trace.mode == Mode.REMOTE
    lately = ours.copy()
    for back in range(1, min(SETTLE_S, len(ours) - 1) + 1):
        lately[back:] |= ours[:-back]
    # a home that loses or regains the grid, or that nobody steers, moves the total by itself
    counted = (lately[1:] | lately[:-1]) & ~trace.islanded[1:] & ~trace.islanded[:-1]
    moved_w = np.where(counted, np.diff(trace.battery_w, axis=0), 0.0).sum(axis=1, dtype=np.float64)
    # what took less than a second is no more for that: samples are not taken to the millisecond
    steps = np.abs(moved_w)[steady] / np.maximum(seconds[steady], 1.0)
    verdict.largest_step_w = round(float(steps.max(initial=0.0)), 1)
    verdict.largest_step_pct = round(verdict.largest_step_w / abs(target_w) * 100, 2)
    if len(total) > 10:
        verdict.largest_ramp_w_per_s = round(float(np.abs(total[10:] - total[:-10]).max() / 10), 1)
    if verdict.largest_step_w > max(STEP_PCT / 100 * abs(target_w), largest_device_w):
        verdict.problems.append(f"a step of {verdict.largest_step_pct} % of the target")


def judge_end(trace: Trace, verdict: Verdict) -> None:
    """Nobody may be left under control."""
    left = (trace.mode[-1] == Mode.REMOTE) if len(trace.mode) else np.ones(1, dtype=np.bool_)
    verdict.left_under_control = int(left.sum())
    if verdict.left_under_control:
        verdict.problems.append(f"{verdict.left_under_control} devices were left under control")


def expected_intervals(
    acked: Iterable[AckedEnergy], ids: Sequence[str], *, length_s: int, until_ms: int
) -> set[tuple[str, int, int]]:
    """Every device and interval with an acknowledged message; an interval counts if it ended before `until_ms`."""
    length_ms = length_s * 1000
    out: set[tuple[str, int, int]] = set()
    for message in acked:
        # A message that ends on an edge completes the interval before it.
        start = (message.t_ms - 1) // length_ms * length_ms
        if start + length_ms <= until_ms:
            out.add((ids[message.index], start, length_s))
    return out


def expected_of_polled(
    ids: Iterable[str], *, length_s: int, since_ms: int, until_ms: int, but: tuple[int, int] | None = None
) -> set[tuple[str, int, int]]:
    """Every whole interval of devices that are asked, not heard: from `since_ms` on one is due for each. Not those of a
    time (`but`) in which nobody could ask them."""
    length_ms = length_s * 1000
    starts = range(-(-since_ms // length_ms) * length_ms, until_ms - length_ms + 1, length_ms)
    asked = [start for start in starts if but is None or start >= but[1] or start + length_ms <= but[0]]
    return {(device, start, length_s) for device in ids for start in asked}


def judge_products(trace: Trace, products: Mapping[str, Sequence[int]], window: Window, verdict: Verdict) -> None:
    """How many homes of each polled product were steered in the event; `took_part` counts, and the oracle asks that a
    product that can be steered took part with at least one home."""
    inside = (trace.t_ms >= window.start_ms) & (trace.t_ms < window.end_ms)
    for product, homes in sorted(products.items()):
        steered = (trace.mode[inside][:, list(homes)] == Mode.REMOTE).any(axis=0)
        verdict.took_part[product] = f"{int(steered.sum())} of {len(homes)}"
        if product not in TELEMETRY_ONLY and not steered.any():
            verdict.problems.append(f"{product}: no home took part in the event")


def judge_intervals(ledger: Ledger, expected: set[tuple[str, int, int]], verdict: Verdict, *, path: str) -> None:
    """Completeness at the platform, by one of its two ways in."""
    found: Completeness = ledger.completeness(expected)
    numbers = {
        "expected": found.expected,
        "received": found.received,
        "missing": found.missing,
        "conflicting": found.conflicting,
    }
    if path == "http":
        verdict.intervals = numbers
    else:
        verdict.intervals_mqtt = numbers
    if not found.expected:
        verdict.problems.append(f"intervals by {path}: none were expected")
    if found.missing:
        verdict.problems.append(f"intervals by {path}: {found.missing} missing, first {found.missing_first[:3]}")
    if found.conflicting:
        verdict.problems.append(f"intervals by {path}: {found.conflicting} arrived twice with different content")


def judge_ended(
    window: Window, ids: Sequence[str], deliveries: Mapping[str, Mapping[str, Any]], verdict: Verdict
) -> list[Mapping[str, Any]]:
    """Whether the platform was told of every home of an event how it ended; returns the records of its homes."""
    members = range(len(ids)) if window.members is None else window.members
    found = [deliveries.get(f"{window.id}/{ids[i]}", {}) for i in members]
    statuses = [record.get("status", "none") for record in found]
    for status in sorted(set(statuses)):
        verdict.records[status] = verdict.records.get(status, 0) + statuses.count(status)
    if unended := len(statuses) - sum(status in ENDED for status in statuses):
        verdict.problems.append(f"{window.id}: {unended} homes of which the platform was not told how it ended")
    return found


def judge_charging(trace: Trace, window: Window, verdict: Verdict) -> None:
    """A recharge must charge, and no more than was asked for."""
    inside = (trace.t_ms >= (window.start_ms + window.end_ms) // 2) & (trace.t_ms < window.end_ms)
    mean_w = float(on_grid_total(window.of(trace))[inside].mean()) if inside.any() else 0.0
    if not 1.1 * window.target_w <= mean_w < 0:
        verdict.problems.append(
            f"{window.id}: {mean_w:.0f} W in its second half, {window.target_w:.0f} W were asked for"
        )


def judge_records(
    trace: Trace,
    window: Window,
    found: Sequence[Mapping[str, Any]],
    verdict: Verdict,
    *,
    tolerance_pct: float,
    measured: bool = True,
) -> None:
    """What the platform was told of the energy of an event's homes (`found`: a record of each) against what the
    batteries gave of those that completed it. Unless they were `measured` all along, it may be less."""
    trace = window.of(trace)
    gave = [i for i, record in enumerate(found) if record.get("status") == "completed" and record["asked_wh"]]
    inside = (trace.t_ms >= window.start_ms) & (trace.t_ms < window.end_ms)
    if not gave or not inside.any():
        verdict.problems.append(f"{window.id}: no record of a home that completed it")
        return
    hours = (window.end_ms - window.start_ms) / 3_600_000 / int(inside.sum())
    told_to = (trace.mode == Mode.REMOTE) & (trace.setpoint_w * np.sign(window.target_w) > 0)
    true_wh = float(np.where(told_to, trace.battery_w, 0.0)[inside][:, gave].sum(dtype=np.float64)) * hours
    told_wh = sum(float(found[i]["delivered_wh"]) for i in gave)
    verdict.records_error_pct = round((told_wh / true_wh - 1) * 100, 2)
    if verdict.records_error_pct > tolerance_pct or (measured and verdict.records_error_pct < -tolerance_pct):
        verdict.problems.append(f"{window.id}: records are off by {verdict.records_error_pct} % of what was delivered")


def judge_faults(records: Sequence[FaultRecord], planted: int, verdict: Verdict) -> None:
    """Every planted fault must have been seen to happen, or the run proves nothing about it."""
    verdict.faults = [{"device": r.device, "fault": r.fault.kind.value, "effect": r.effect or None} for r in records]
    unseen = [f"{r.fault.kind.value} of {r.device}" for r in records if r.first_effect_ms is None]
    if unseen:
        verdict.problems.append(f"planted faults without an effect: {', '.join(unseen)}")
    if len(records) < planted:
        verdict.problems.append(f"only {len(records)} of {planted} planted faults began")
