"""Judges the aggregator's evening from outside: whose is what the batteries gave, what homes were told, what went up.

Load is resource adequacy's and exports are DSGS's where both want the same home; alone each has what it is paid for,
and the rest is the home's own use. That is worked out here from what batteries and meters of the homes did, and held
against what the gateway says of its events and what it publishes. Powers in W, + = discharge, times UTC ms.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from simulators.commands import CommandSeen, Op, Result
from simulators.evening_doors import Shares
from simulators.evening_street import CHANGED_KW, CUT_KW, QUARTER_MS, RA_KW, REDUCED_KW, Street
from simulators.homes import Homes
from simulators.ledger import IntervalRow
from simulators.oracle import Verdict
from simulators.recorder import Trace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STEERS = frozenset({Op.SETPOINT, Op.HOLD, Op.BLOCK})
LATE_S = 2.5
"""What is told of an event is of the newest tick (1 s), which rests on readings of up to a second ago; and of when it
was asked."""

TOLD_PCT, STEADY_WH = 2.0, 0.5
"""What an interval may be off by where nothing changes: of its energy, and for each counter that goes in steps."""

SILENT_S = 12.0
ABLE_W = 500.0
OLD_S = 15.0
"""A reading may count for so long."""

MOMENT_W = 50.0
UPLOAD_PCT, UPLOAD_WH = 1.0, 3.0
BEGINS_MS, CAUGHT_UP_MS = 15_000, 15_000
SETTLES_MS = 4_000


@dataclass(slots=True, kw_only=True)
class EveningVerdict(Verdict):
    """And what the evening adds. `shares`: each interval of the homes of both programs, Wh; `sequences`: of each part,
    how many homes were told once, of how many that can give more than their load; `reduced_ms`, `cancelled_ms`: when
    that was known to have come."""

    shares: list[dict[str, float]] = field(default_factory=list)
    shares_error_pct: float = 0.0
    moments: int = 0
    sequences: dict[str, str] = field(default_factory=dict)
    first_command_s: dict[str, float] = field(default_factory=dict)
    uploads: dict[str, int] = field(default_factory=dict)
    reduced_ms: int = 0
    cancelled_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event that the aggregator tells of: what the gateway calls it, and whose batteries it is for."""

    name: str
    event: str
    batteries: tuple[int, ...]


class Books:
    """Lifetime energy of every battery over time, about once a second."""

    def __init__(self) -> None:
        self._t_ms: list[int] = []
        self._wh: list[tuple[Floats, Floats]] = []

    def note(self, now_ms: int, discharged_wh: Floats, charged_wh: Floats) -> None:
        if not self._t_ms or now_ms - self._t_ms[-1] >= 1_000:
            self._t_ms.append(now_ms)
            self._wh.append((discharged_wh.copy(), charged_wh.copy()))

    def between(self, index: int, from_ms: int, until_ms: int) -> tuple[float, float]:
        """What a battery gave and took, Wh."""
        columns = [[row[i][index] for row in self._wh] for i in (0, 1)]
        gave, took = (np.interp([from_ms, until_ms], self._t_ms, column) for column in columns)
        return float(gave[1] - gave[0]), float(took[1] - took[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What homes gave, and whose that is, at each sample."""

    t_ms: Ints
    total_w: Floats
    adequacy_w: Floats
    exports_w: Floats

    @property
    def own_w(self) -> Floats:
        """What nobody pays for."""
        own: Floats = self.total_w - self.adequacy_w - self.exports_w
        return own


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacking:
    """Both programs on the same homes: resource adequacy from `start_ms` for two hours of `hour_ms`, the second with
    less; DSGS from half an hour later to `end_ms`."""

    homes: Homes
    trace: Trace
    answers: Sequence[Shares]
    start_ms: int
    end_ms: int
    hour_ms: int

    def split(self, batteries: Sequence[int], later_ms: int) -> Split:
        """What these batteries gave and whose it was; their events begin `later_ms` later."""
        trace, at = self.trace, list(batteries)
        sites, first, of = np.unique(self.homes.site_index[at], return_index=True, return_inverse=True)
        gave_w = np.zeros((len(sites), len(trace.t_ms)))
        np.add.at(gave_w, of.tolist(), np.maximum(trace.battery_w[:, at], 0.0).T)
        gave_w = gave_w.T
        meter = [at[i] for i in first]
        need_w = np.maximum(trace.load_w[:, meter].astype(np.float64) - trace.pv_w[:, meter], 0.0)
        load_w = np.minimum(gave_w, need_w).sum(axis=1)
        total_w = gave_w.sum(axis=1)
        second = trace.t_ms - self.start_ms - later_ms
        wanted_w = np.where(second < self.hour_ms, RA_KW, CUT_KW) * 1000 * len(sites)
        for_load = (second >= 0) & (second < 2 * self.hour_ms)
        for_more = (second >= self.hour_ms // 2) & (trace.t_ms < self.end_ms + later_ms)
        adequacy_w = np.where(for_load, np.minimum(load_w, wanted_w), 0.0)
        exports_w = np.where(for_more, np.where(for_load, total_w - load_w, total_w), 0.0)
        return Split(t_ms=trace.t_ms, total_w=total_w, adequacy_w=adequacy_w, exports_w=exports_w)

    def told_w(self, event: str, t_ms: Ints) -> tuple[Floats, Floats]:
        """What the gateway credited an event with at each time, and how long ago it said so, s."""
        moments = np.array([(one.asked_ms + one.t_ms) // 2 for one in self.answers], dtype=np.int64)
        said = np.array([one.by_event.get(event, (0.0, 0.0))[1] for one in self.answers])
        newest = np.searchsorted(moments, t_ms, side="right") - 1
        known = newest >= 0
        age_s = np.where(known, (t_ms - moments[np.maximum(newest, 0)]) / 1000, np.inf)
        return np.where(known, said[np.maximum(newest, 0)], 0.0), age_s


def judge_shares(
    stacking: Stacking, adequacy: Told, exports: Told, published: Mapping[tuple[str, int], IntervalRow],
    interval_ms: int, verdict: EveningVerdict, *, later_ms: int,
) -> None:  # fmt: skip
    """In every interval: load to one program and exports to the other, and with the home's own use they sum to what
    was published of the batteries."""
    split = stacking.split(adequacy.batteries, later_ms)
    ids = [stacking.homes.ids[i] for i in adequacy.batteries]
    t_ms = split.t_ms
    told = {one.name: stacking.told_w(one.event, t_ms) for one in (adequacy, exports)}
    first_ms = stacking.start_ms // interval_ms * interval_ms
    for at in range(first_ms, stacking.end_ms, interval_ms):
        rows = (t_ms >= at) & (t_ms < at + interval_ms)
        found = [published.get((name, at)) for name in ids]
        gave_wh = sum(row.discharge_wh or 0.0 for row in found if row is not None)
        hours = interval_ms / 3_600_000
        steps_wh = STEADY_WH * len(ids) ** 0.5

        def wh(power_w: Floats, rows: npt.NDArray[np.bool_] = rows, hours: float = hours) -> float:
            return float(power_w[rows].mean()) * hours if rows.any() else 0.0

        late_s = LATE_S + max(float(age_s[rows].max(initial=0.0)) for _, age_s in told.values())
        around = (t_ms >= at - late_s * 1000) & (t_ms < at + interval_ms)
        least_wh = TOLD_PCT / 100 * gave_wh + steps_wh

        def may_wh(
            *series: Floats, around: npt.NDArray[np.bool_] = around, late_s: float = late_s, least_wh: float = least_wh
        ) -> float:
            moved_w = sum(float(np.ptp(one[around])) for one in series) if around.any() else 0.0
            return least_wh + late_s * moved_w / 3600

        shares = [wh(power_w) for power_w, _ in told.values()]
        true = [wh(split.adequacy_w), wh(split.exports_w)]
        own_wh = wh(split.own_w)
        off_wh = sum(shares) + own_wh - gave_wh
        verdict.shares.append({
            "second": (at - stacking.start_ms) // 1000, "published": round(gave_wh, 1), "adequacy": round(shares[0], 1),
            "dsgs": round(shares[1], 1), "own": round(own_wh, 1), "off": round(off_wh, 1),
        })  # fmt: skip
        problems = verdict.problems
        second = f"interval at {(at - stacking.start_ms) // 1000} s"
        if any(row is None for row in found):
            problems.append(f"{second}: {sum(row is None for row in found)} homes are not published")
        if any(age_s[rows].max(initial=0.0) > SILENT_S for _, age_s in told.values()):
            problems.append(f"{second}: the gateway said nothing of its events")
        if abs(off_wh) > may_wh(split.total_w, split.adequacy_w, split.own_w):
            problems.append(f"{second}: shares and own use are off the batteries by {off_wh:.1f} of {gave_wh:.1f} Wh")
        for one, share, is_wh, series in zip(
            told, shares, true, (split.adequacy_w, split.exports_w), strict=True
        ):  # fmt: skip
            if abs(share - is_wh) > may_wh(series, split.total_w):
                problems.append(f"{second}: {one} is credited with {share:.1f} Wh, {is_wh:.1f} Wh are its own")
    given = sum(one["published"] for one in verdict.shares)
    verdict.shares_error_pct = round(100 * sum(one["off"] for one in verdict.shares) / max(given, 1.0), 2)
    # what ramps up is told late, once
    late_wh = (
        LATE_S * float(split.total_w[(t_ms >= stacking.start_ms) & (t_ms < stacking.end_ms)].max(initial=0.0)) / 3600
    )
    if abs(sum(one["off"] for one in verdict.shares)) > TOLD_PCT / 100 * given + late_wh:
        verdict.problems.append(f"over the evening shares are off by {verdict.shares_error_pct} %")
    if not all(any(one[name] > 1.0 for one in verdict.shares) for name in ("adequacy", "dsgs")):
        verdict.problems.append("no interval was shared by both programs")


def judge_moments(trace: Trace, answers: Sequence[Shares], told: Mapping[str, Told], verdict: EveningVerdict) -> None:
    """At no moment are the events of the same homes credited with more than those gave: each home the most it gave
    while its newest reading could be of that time."""
    for part in ("stacked", "uploading"):
        events = [one for name, one in told.items() if name.startswith(part)]
        at = list(events[0].batteries)
        for answer in answers:
            credited_w = sum(answer.by_event.get(one.event, (0.0, 0.0))[1] for one in events)
            if not all(one.event in answer.by_event for one in events):
                continue
            verdict.moments += 1
            rows = (trace.t_ms >= answer.asked_ms - OLD_S * 1000) & (trace.t_ms <= answer.t_ms)
            gave_w = float(np.maximum(trace.battery_w[rows][:, at], 0.0).max(axis=0, initial=0.0).sum())
            if credited_w > gave_w * (1 + TOLD_PCT / 100) + MOMENT_W:
                verdict.problems.append(f"{part}: {credited_w:.0f} W are credited of {gave_w:.0f} W")
    if not verdict.moments:
        verdict.problems.append("both programs were never seen to run at once")


Limits = dict[str, tuple[tuple[int, int], list[tuple[int, int, float]]]]


def limits(verdict: EveningVerdict, start_ms: int, over_ms: int, *, hour_ms: int, search_ms: int) -> Limits:
    """Of each part of the street: from when until when each home that can give more than its load must first be told
    to, and the most that it may be told from when until when. `search_ms`: until what a webhook hints at is
    confirmed."""
    half_ms = start_ms + hour_ms // 2
    adequacy, given = [(start_ms, half_ms, RA_KW * 1000)], (half_ms, half_ms + BEGINS_MS)
    reduced_ms = verdict.reduced_ms + search_ms + SETTLES_MS
    changed = [(start_ms, over_ms, CHANGED_KW * 1000), (reduced_ms, over_ms, REDUCED_KW * 1000)]
    return {
        "stacked: DSGS": (given, adequacy),
        "uploading: DSGS": (given, adequacy),
        "changed": ((start_ms, start_ms + BEGINS_MS + search_ms), changed),
        "unheard": ((start_ms, start_ms + CAUGHT_UP_MS + 2 * search_ms), []),
    }


def judge_sequence(
    trace: Trace, commands: Iterable[CommandSeen], told: Told, reached: tuple[int, int],
    most: Sequence[tuple[int, int, float]], verdict: EveningVerdict, *, homes: Homes,
) -> None:  # fmt: skip
    """Each home is told once: it is taken, steered without a break and released; nothing comes late, or again. One
    whose load is all that it can cover may do so by itself."""
    by_home: dict[int, list[CommandSeen]] = {i: [] for i in told.batteries}
    for seen in commands:
        if seen.index in by_home:
            by_home[seen.index].append(seen)
    rows = (trace.t_ms >= reached[0]) & (trace.t_ms < reached[1])
    unsure_pct, ids = homes.soc_uncertainty_pct, homes.ids
    once, able, first_ms = 0, 0, 0
    for index, found in by_home.items():
        more_w = trace.available_w[rows, index] - np.maximum(trace.load_w[rows, index] - trace.pv_w[rows, index], 0.0)
        # what the gateway cannot know of a state of charge it keeps, and a little more to begin again
        spare_pct = trace.true_soc_pct[rows, index] - trace.reserve_pct[rows, index] - 2 * unsure_pct[index]
        must = bool(more_w.min(initial=np.inf) > ABLE_W and spare_pct.min(initial=np.inf) > 0)
        problem = _broken(found, reached, most, must=must)
        if problem:
            verdict.problems.append(f"{told.name}: {ids[index]}: {problem}")
        elif must:
            once += 1
            first_ms = max(first_ms, _first(found, reached[0]) or 0)
        able += must
    verdict.sequences[told.name] = f"{once} of {able} (of {len(by_home)})"
    if once:
        verdict.first_command_s[told.name] = round((first_ms - reached[0]) / 1000, 1)
    else:
        verdict.problems.append(f"{told.name}: no home was seen to be told")


def _first(found: Sequence[CommandSeen], from_ms: int) -> int | None:
    """When a home was first told to give, from a time on."""
    return next((one.t_ms for one in found if one.op is Op.SETPOINT and one.t_ms >= from_ms), None)


def _broken(
    found: Sequence[CommandSeen], reached: tuple[int, int], most: Sequence[tuple[int, int, float]], *, must: bool
) -> str:
    """What is wrong with the commands that one home got, "" = nothing."""
    if any(later.cmd <= earlier.cmd for earlier, later in pairwise(found)):
        return "commands come again, or in another order"
    refused = [one for one in found if one.result is not Result.APPLIED]
    if refused:
        return f"a command was {refused[0].result} ({refused[0].reason})"
    begun_ms = _first(found, reached[0])
    if must and (begun_ms is None or begun_ms > reached[1]):
        return "it was told to give too late" if begun_ms is not None else "it was never told to give"
    steering = [one for one in found if one.op in STEERS]
    released = [one.t_ms for one in found if one.op is Op.RELEASE]
    if steering and (not released or released[-1] < steering[-1].t_ms):
        return "it was steered after its last release"
    again = [at for at in released if begun_ms is not None and at > begun_ms]
    if must and len(again) > 1:
        return f"it was released {len(again)} times"
    for from_ms, until_ms, most_w in most:
        over = [one for one in steering if from_ms <= one.t_ms < until_ms and one.setpoint_w > most_w + 1]
        if over:
            return f"{over[0].setpoint_w} W were set {(over[0].t_ms - reached[0]) / 1000:.1f} s after the start"
    return ""


def judge_uploads(
    rows: Sequence[Mapping[str, Any]], street: Street, books: Books, quarters: Sequence[int], verdict: EveningVerdict
) -> None:
    """Every quarter hour of every home that uploads was accepted once, with the energy that its battery moved."""
    by_key = {(row["meter_id"], row["start_ms"]): row for row in rows}
    missing = twice = wrong = 0
    for index in street.uploading:
        for at in quarters:
            row = by_key.get((street.device_meters[index], at))
            if row is None:
                missing += 1
                continue
            twice += row["versions"] != 1
            true = books.between(index, at, at + QUARTER_MS)
            said = [1000 * (row[name] or 0.0) for name in ("generated_kwh", "consumed_kwh")]
            off = [abs(a - b) > UPLOAD_WH + UPLOAD_PCT / 100 * b for a, b in zip(said, true, strict=True)]
            wrong += any(off)
            if row["versions"] != 1:
                verdict.problems.append(f"{street.homes.ids[index]} at {at}: {row} went up more than once")
            if any(off):
                verdict.problems.append(f"{street.homes.ids[index]} at {at}: {said} Wh went up, {true} Wh are true")
    verdict.uploads = {"expected": len(street.uploading) * len(quarters), "missing": missing, "twice": twice,
                       "wrong": wrong}  # fmt: skip
    if missing:
        verdict.problems.append(f"uploads: {missing} quarter hours are missing")
