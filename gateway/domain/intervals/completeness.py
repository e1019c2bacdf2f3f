"""Completeness: which of a day's intervals are stored, which the sinks accepted, and why others are missing.

An interval is `stored` once it has a record, `complete` if that record covers all of it with known energy both ways.
One that is not stored is missing: `SILENT` if other devices sent something then, else `NOBODY`: the gateway was down or
cut off from all. A sink is judged by the newest record of each interval: what became of it, or why it was refused.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from gateway.domain.intervals.record import IntervalRecord, Quality
from gateway.domain.types import DeviceId

SILENT = "silent"
NOBODY = "nobody_heard"
FORGOTTEN = "forgotten"
"""Why a record was refused whose reason is not kept any more."""


class RowOutcome(IntEnum):
    """What became of a record at a sink. The numbers are stored, but for those of `WAITING` and `INFERRED`: a release
    that did not record outcomes has read it, for a sink that wants it now."""

    WAITING = 0
    ACCEPTED = 1
    NOT_WANTED = 2
    SUPERSEDED = 3
    REFUSED = 4
    INFERRED = 5


Fate = RowOutcome | str
"""An outcome, or why the sink refused the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A run of intervals that are not stored, or not complete (then `reason` says why)."""

    from_ms: int
    to_ms: int
    intervals: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkDay:
    """Intervals of a device's day at one sink: `sent` = offered and answered, `refused` by reason. `inferred` of the
    accepted ones were read by a release that did not record what became of them. `not_wanted` were not for this sink
    when their turn came, `superseded` had a newer revision by then: neither was sent."""

    sent: int
    accepted: int
    inferred: int
    waiting: int
    not_wanted: int
    superseded: int
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDay:
    """One device and day. `missing` by reason; `gaps` in order."""

    device: DeviceId
    length_s: int
    expected: int
    stored: int
    complete: int
    revised: int
    missing: Mapping[str, int]
    sinks: Mapping[str, SinkDay]
    gaps: tuple[Gap, ...] = field(default=())


def device_day(
    device: DeviceId,
    *,
    from_ms: int,
    to_ms: int,
    length_s: int,
    newest: Mapping[int, IntervalRecord],
    heard: Collection[int],
    fates: Mapping[str, Mapping[int, Fate]],
) -> DeviceDay:
    """Compare a day with its records. `newest`: records by start within `[from_ms, to_ms)`; only intervals that end by
    `to_ms` are expected. `heard`: the starts for which any device has a record; `fates` by
    sink and start."""
    lengths = Counter(record.length_s for record in newest.values())
    length_s = lengths.most_common(1)[0][0] if lengths else length_s
    length_ms = length_s * 1000
    first = -(-from_ms // length_ms) * length_ms
    starts = range(first, to_ms - length_ms + 1, length_ms)
    reasons = [(start, _reason(newest.get(start), start in heard)) for start in starts]
    missing = Counter(reason for start, reason in reasons if reason and start not in newest)
    stored = [start for start in starts if start in newest]
    return DeviceDay(
        device=device,
        length_s=length_s,
        expected=len(starts),
        stored=len(stored),
        complete=sum(not reason for _, reason in reasons),
        revised=sum(newest[start].revision > 1 for start in stored),
        missing=dict(missing),
        sinks={name: _sink_day(found, stored) for name, found in fates.items()},
        gaps=tuple(_runs(reasons, length_ms)),
    )


def _reason(record: IntervalRecord | None, heard: bool) -> str:
    """Why an interval is not complete, "" = it is."""
    if record is None:
        return SILENT if heard else NOBODY
    if not record.quality & Quality.GAP:
        return ""
    return "reset" if record.quality & Quality.RESET else "jump" if record.quality & Quality.JUMP else "partial"


def _runs(reasons: Sequence[tuple[int, str]], length_ms: int) -> Iterator[Gap]:
    at = 0
    while at < len(reasons):
        start, reason = reasons[at]
        end = at + 1
        while end < len(reasons) and reasons[end][1] == reason:
            end += 1
        if reason:
            yield Gap(from_ms=start, to_ms=start + (end - at) * length_ms, intervals=end - at, reason=reason)
        at = end


def _sink_day(fates: Mapping[int, Fate], stored: Sequence[int]) -> SinkDay:
    counts = Counter(fates[start] for start in stored if start in fates)
    refused = {fate: count for fate, count in counts.items() if isinstance(fate, str)}
    accepted = counts[RowOutcome.ACCEPTED] + counts[RowOutcome.INFERRED]
    return SinkDay(
        sent=accepted + sum(refused.values()),
        accepted=accepted,
        inferred=counts[RowOutcome.INFERRED],
        waiting=counts[RowOutcome.WAITING],
        not_wanted=counts[RowOutcome.NOT_WANTED],
        superseded=counts[RowOutcome.SUPERSEDED],
        refused=refused,
    )
