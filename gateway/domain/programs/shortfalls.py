"""Why batteries gave less than an event asked of them: whole Wh by reason, which sum to what was short.

What was asked, and what stood in the way, is from the delivery records; what was given is what was measured in the
intervals. Each reason has what the ones before it leave.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from gateway.domain.events.delivery_records import Failure, Status
from gateway.domain.limits.types import Bits, Reason
from gateway.domain.programs.metered import EventIntervals, MeteredWh
from gateway.domain.types import Bools, Floats, Ints, Small


class Short(StrEnum):
    """Why energy is missing. `unmeasured`: nobody knows whether it is; `clamp`: a limit other than the reserve;
    `unexplained`: it was asked and could have been given."""

    UNMEASURED = "unmeasured"
    WRONG_SIGN = "wrong_sign"
    LATE_START = "late_start"
    OPTED_OUT = "opted_out"
    OFFLINE = "offline"
    UNRESPONSIVE = "unresponsive"
    FAULT = "fault"
    EXCLUDED = "excluded"
    AT_RESERVE = "at_reserve"
    CLAMP = "clamp"
    UNEXPLAINED = "unexplained"


_RESERVE = np.uint64(
    Reason.RESERVE | Reason.PROGRAM_RESERVE | Reason.RAISED_RESERVE | Reason.DEVICE_FLOOR | Reason.LOOKAHEAD
    | Reason.SOC_CEILING | Reason.SOC_DOUBT
)  # fmt: skip
_OPTED_OUT = np.uint64(Reason.OPTED_OUT)
_OFFLINE = np.uint64(Reason.OFFLINE | Reason.STALE | Reason.STUCK)
_ALONE = {
    Failure.OFFLINE: Short.OFFLINE,
    Failure.FAULT: Short.FAULT,
    Failure.REFUSED: Short.UNRESPONSIVE,
    Failure.NO_RESPONSE: Short.UNRESPONSIVE,
    Failure.EXCLUDED: Short.EXCLUDED,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedOf:
    """What an event asked of each battery and what became of it, from its delivery record: Wh with the sign of what was
    asked, times UTC ms (0 = never). `status`, `failure` and `limits` are the last ones of the event; `spread_ms`: how
    long its start may be put off by the event's own spread."""

    asked_wh: Floats
    status: Small
    failure: Small
    limits: Bits
    started_ms: Ints
    status_ms: Ints
    spread_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shortfalls:
    """By battery, Wh: what was asked and given (both + in the direction that was asked), what is short, and why;
    `reasons` sum to `short_wh`. `late_s` NaN: it never started; `early_s`: how long before the end it stopped, 0 = it
    did not."""

    asked_wh: Ints
    given_wh: Ints
    short_wh: Ints
    reasons: Mapping[Short, Ints]
    late_s: Floats
    early_s: Floats


def shortfalls(asked: AskedOf, measured: MeteredWh, covered_pct: Floats, intervals: EventIntervals) -> Shortfalls:
    """`measured`: what each battery gave in the event's part of each interval (+ = discharge); `covered_pct`: how much
    of each interval that rests on."""
    way = np.where(asked.asked_wh < 0, -1, 1)
    asked_wh = np.floor(np.abs(asked.asked_wh) + 0.5).astype(np.int64)
    along = measured.wh * way[:, np.newaxis]
    given_wh = along.sum(axis=1)
    short_wh = np.maximum(asked_wh - given_wh, 0)
    length_ms = intervals.until_ms - intervals.from_ms
    unknown_ms = (np.where(measured.known, 1 - covered_pct / 100, 1.0) * intervals.part_ms).sum(axis=1)
    late_ms = np.maximum(asked.started_ms - intervals.from_ms - asked.spread_ms, 0)
    started = asked.started_ms > 0
    left = short_wh.copy()
    reasons: dict[Short, Ints] = {}

    def give(why: Short, wh: Ints | Floats | Bools) -> None:
        part = np.minimum(np.floor(wh).astype(np.int64), left)
        reasons[why] = part
        left[:] -= part

    give(Short.UNMEASURED, asked_wh * (unknown_ms / length_ms))
    give(Short.WRONG_SIGN, np.maximum(-along, 0).sum(axis=1))
    give(Short.LATE_START, started * asked_wh * np.minimum(late_ms / length_ms, 1.0))
    for why, where in _causes(asked).items():
        give(why, where * left)
    give(Short.UNEXPLAINED, left.copy())
    stopped = started & np.isin(asked.status, (int(Status.FAILED), int(Status.OPTED_OUT)))
    early_ms = np.where(stopped, np.maximum(intervals.until_ms - asked.status_ms, 0), 0)
    return Shortfalls(
        asked_wh=asked_wh,
        given_wh=given_wh,
        short_wh=short_wh,
        reasons=reasons,
        late_s=np.where(started, np.maximum(asked.started_ms - intervals.from_ms, 0) / 1000, np.nan),
        early_s=np.minimum(early_ms, length_ms) / 1000,
    )


def _causes(asked: AskedOf) -> Mapping[Short, Bools]:
    """One cause of each battery at most: what it ended with."""
    failed = asked.status == int(Status.FAILED)
    out = (asked.status == int(Status.OPTED_OUT)) | ((asked.limits & _OPTED_OUT) != 0)
    found: dict[Short, Bools] = {why: np.zeros(len(failed), dtype=np.bool_) for why in Short}
    found[Short.OPTED_OUT] = out
    for failure, why in _ALONE.items():
        found[why] |= failed & (asked.failure == int(failure))
    found[Short.OFFLINE] |= (asked.limits & _OFFLINE) != 0
    found[Short.AT_RESERVE] = (asked.limits & _RESERVE) != 0
    found[Short.CLAMP] = asked.limits != 0
    order = (
        Short.OPTED_OUT, Short.OFFLINE, Short.UNRESPONSIVE, Short.FAULT, Short.EXCLUDED, Short.AT_RESERVE, Short.CLAMP
    )  # fmt: skip
    return {why: found[why] for why in order}
