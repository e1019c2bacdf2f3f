"""The job that compares the meters of homes, from their stored days, with the readings of their utilities."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from gateway.domain.programs.meter_match import matched
from gateway.domain.programs.site_day import DayFrame, SiteChannel
from gateway.domain.rules.calendar import DAY_MS, local_day
from gateway.domain.types import Bools, Ints
from gateway.services.programs.work import JobState
from gateway.storage.journal.placed import placements_beside
from gateway.storage.programs.daily import DailyColumns
from gateway.storage.programs.match_file import CountedMatches, SiteMatch, write_matches
from gateway.storage.programs.utility_meters import MeterDay, UtilityMeters

WINDOW = 90
"""Days (UTC) before today that are compared."""
METERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metered:
    """A site that is behind a meter, from until (UTC ms)."""

    meter: str
    site: str
    from_ms: int
    until_ms: int


@dataclass(slots=True)
class _Round:
    """A comparison of all meters: what it rests on, those that are left, and what was found."""

    state: object
    from_ms: int
    until_ms: int
    left: list[tuple[int, list[_Metered]]]
    found: list[SiteMatch]


class MeterMatchJob:
    """Compares again whenever readings were imported or a day was written."""

    name = "meters"

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._utility = UtilityMeters(state_dir)
        self._round: _Round | None = None
        self._compared: object = None

    def step(self, now_ms: int) -> JobState:
        with DailyColumns(self._state_dir) as store:
            if self._round is None:
                self._round = self._begun(store, now_ms)
            this = self._round
            if this is None:
                return JobState()
            if this.left:
                length_s, some = this.left[-1]
                this.found += self._compare(store, this, length_s, some)
                this.left.pop()
                return JobState(more=True, backlog=len(this.left))
        counts = Counter(one.match.mismatch.value for one in this.found if one.match.mismatch is not None)
        rows = tuple(sorted(this.found, key=lambda one: (one.site, one.meter, one.length_s)))
        write_matches(self._state_dir, CountedMatches(at_ms=now_ms, mismatches=dict(counts), rows=rows))
        self._compared, self._round = this.state, None
        return JobState()

    def _begun(self, store: DailyColumns, now_ms: int) -> _Round | None:
        revision = self._utility.revision()
        state = (revision, [(frame, store.written(frame)) for frame in store.frames()]) if revision else None
        if state == self._compared:
            return None
        until_ms = now_ms // DAY_MS * DAY_MS
        from_ms = until_ms - WINDOW * DAY_MS
        left: list[tuple[int, list[_Metered]]] = []
        behind = self._behind(from_ms, until_ms)
        for length_s in sorted({length_s for _, length_s in self._utility.meters()}):
            some = [one for meter, of in self._utility.meters() if of == length_s for one in behind.get(meter, ())]
            left += [(length_s, some[at : at + METERS]) for at in range(0, len(some), METERS)]
        return _Round(state=state, from_ms=from_ms, until_ms=until_ms, left=left, found=[])

    def _behind(self, from_ms: int, until_ms: int) -> Mapping[str, list[_Metered]]:
        """The sites behind each meter."""
        spans: dict[tuple[str, str], tuple[int, int]] = {}
        for one in placements_beside(self._state_dir / "journal.sqlite", from_ms, until_ms):
            if not one.meter:
                continue
            begin = max(from_ms, one.valid.from_ms or from_ms)
            end = until_ms if one.valid.until_ms is None else min(until_ms, one.valid.until_ms)
            known = spans.get((one.meter, one.site), (begin, end))
            spans[one.meter, one.site] = min(known[0], begin), max(known[1], end)
        found: dict[str, list[_Metered]] = {}
        for (meter, site), (begin, end) in sorted(spans.items()):
            found.setdefault(meter, []).append(_Metered(meter=meter, site=site, from_ms=begin, until_ms=end))
        return found

    def _compare(
        self, store: DailyColumns, this: _Round, length_s: int, some: Sequence[_Metered]
    ) -> list[SiteMatch]:  # fmt: skip
        shape = len(some), WINDOW * DAY_MS // (length_s * 1000)
        first, until = _utc_day(this.from_ms), _utc_day(this.until_ms)
        readings = self._utility.days(sorted({one.meter for one in some}), length_s, first, until)
        own, own_known = self._own(store, this, length_s, some, shape)
        theirs, known, revisions = _readings(readings, some, first, shape)
        starts = this.from_ms + np.arange(shape[1], dtype=np.int64) * length_s * 1000
        found = []
        for at, one in enumerate(some):
            there = (starts >= one.from_ms) & (starts + length_s * 1000 <= one.until_ms)
            both = (own_known[at] & known[at] & there).reshape(WINDOW, -1)
            match = matched([*own[at].reshape(WINDOW, -1)], [*theirs[at].reshape(WINDOW, -1)], [*both])
            found.append(
                SiteMatch(site=one.site, meter=one.meter, length_s=length_s, revision=revisions[at], match=match)
            )  # fmt: skip
        return found

    def _own(
        self, store: DailyColumns, this: _Round, length_s: int, some: Sequence[_Metered], shape: tuple[int, int]
    ) -> tuple[Ints, Bools]:
        """Net energy of the homes' own meters, of any division of days into these intervals."""
        wh, known = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
        rows: dict[str, list[int]] = {}
        for at, one in enumerate(some):
            rows.setdefault(one.site, []).append(at)
        for frame in store.frames():
            if frame.length_s != length_s:
                continue
            for days in store.days(frame, _local_days(frame, this), sites=sorted(rows)):
                net = days.energy_wh[SiteChannel.IMPORT] - days.energy_wh[SiteChannel.EXPORT]
                there = days.known[SiteChannel.IMPORT] & days.known[SiteChannel.EXPORT]
                places = (days.from_ms - this.from_ms) // (length_s * 1000) + np.arange(days.parts)
                inside = (places >= 0) & (places < shape[1])
                for number, site in enumerate(days.sites):
                    for row in rows[site]:
                        wh[row, places[inside]] = net[number, inside]
                        known[row, places[inside]] = there[number, inside]
        return wh, known


def _readings(
    readings: Sequence[MeterDay], some: Sequence[_Metered], first: date, shape: tuple[int, int]
) -> tuple[Ints, Bools, list[int]]:
    wh, known, revisions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_), [0] * len(some)
    rows: dict[str, list[int]] = {}
    for at, one in enumerate(some):
        rows.setdefault(one.meter, []).append(at)
    for day in readings:
        begin = (day.day - first).days * len(day.wh)
        for row in rows[day.meter]:
            wh[row, begin : begin + len(day.wh)] = day.wh
            known[row, begin : begin + len(day.wh)] = day.known
            revisions[row] = max(revisions[row], day.revision)
    return wh, known, revisions


def _local_days(frame: DayFrame, this: _Round) -> list[date]:
    first, last = local_day(frame.zone, this.from_ms), local_day(frame.zone, this.until_ms)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _utc_day(ms: int) -> date:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).date()
