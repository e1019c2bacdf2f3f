"""The completeness ledger of one device and day, against what was put in."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.intervals.completeness import NOBODY, SILENT, DeviceDay, Fate, Gap, RowOutcome, device_day
from gateway.domain.intervals.record import IntervalRecord, Quality
from gateway.domain.types import DeviceId
from tests.builders.interval_logs import record

DAY_MS = 1_799_971_200_000
LENGTH_MS = 900_000
N = 96
KINDS = ("whole", "partial", "reset", "jump", SILENT, NOBODY)


def interval(index: int, kind: str) -> IntervalRecord:
    quality = {"partial": Quality.GAP, "reset": Quality.GAP | Quality.RESET, "jump": Quality.GAP | Quality.JUMP}
    made = replace(record(0), start_ms=DAY_MS + index * LENGTH_MS, length_s=900, revision=1 + index % 2)
    return replace(made, quality=quality.get(kind, Quality.SPREAD))


def day(
    kinds: list[str], fates: Mapping[str, Mapping[int, Fate]] | None = None, to_ms: int = DAY_MS + 86_400_000
) -> DeviceDay:
    newest = {r.start_ms: r for r in (interval(i, k) for i, k in enumerate(kinds) if k not in (SILENT, NOBODY))}
    heard = {DAY_MS + i * LENGTH_MS for i, kind in enumerate(kinds) if kind != NOBODY}
    return device_day(
        DeviceId("home-0"), from_ms=DAY_MS, to_ms=to_ms, length_s=900, newest=newest, heard=heard, fates=fates or {}
    )


@given(kinds=st.lists(st.sampled_from(KINDS), min_size=N, max_size=N))
def test_device_day_counts_each_interval_once_and_gaps_are_runs(kinds: list[str]) -> None:
    found = day(kinds)
    assert (found.expected, found.stored) == (N, sum(k not in (SILENT, NOBODY) for k in kinds))
    assert found.complete == kinds.count("whole")
    assert found.missing == {k: kinds.count(k) for k in (SILENT, NOBODY) if k in kinds}
    assert found.stored + sum(found.missing.values()) == found.expected
    rebuilt = ["whole"] * N
    before: Gap | None = None
    for gap in found.gaps:
        first = (gap.from_ms - DAY_MS) // LENGTH_MS
        assert gap.to_ms - gap.from_ms == gap.intervals * LENGTH_MS
        assert before is None or before.to_ms < gap.from_ms or before.reason != gap.reason
        rebuilt[first : first + gap.intervals] = [gap.reason] * gap.intervals
        before = gap
    assert rebuilt == kinds


def test_device_day_of_today_expects_only_what_is_over() -> None:
    found = day(["whole"] * 10, to_ms=DAY_MS + 10 * LENGTH_MS + 5)
    assert (found.expected, found.stored, found.complete, found.gaps) == (10, 10, 10, ())


def test_device_day_counts_what_each_sink_has() -> None:
    starts = [DAY_MS + i * LENGTH_MS for i in range(N)]
    fates: dict[str, dict[int, Fate]] = {
        "all": dict.fromkeys(starts, RowOutcome.ACCEPTED),
        "some": {
            starts[0]: RowOutcome.ACCEPTED,
            starts[1]: RowOutcome.WAITING,
            starts[2]: "mtr_0003",
            starts[3]: "mtr_0003",
        },
        "older": {starts[0]: RowOutcome.INFERRED, starts[1]: RowOutcome.NOT_WANTED, starts[2]: RowOutcome.SUPERSEDED},
        "none": {},
    }
    found = day(["whole"] * 4 + [SILENT] * 92, fates)
    older = found.sinks["older"]
    assert (older.sent, older.accepted, older.inferred, older.not_wanted, older.superseded) == (1, 1, 1, 1, 1)
    assert {name: (s.sent, s.accepted, s.waiting, s.refused) for name, s in found.sinks.items()} == {
        "all": (4, 4, 0, {}), "some": (3, 1, 1, {"mtr_0003": 2}), "older": (1, 1, 0, {}),
        "none": (0, 0, 0, {}),
    }  # fmt: skip


def test_device_day_goes_by_the_length_that_was_recorded() -> None:
    found = device_day(
        DeviceId("home-0"), from_ms=DAY_MS, to_ms=DAY_MS + 86_400_000, length_s=300,
        newest={DAY_MS: interval(0, "whole")}, heard=set(), fates={},
    )  # fmt: skip
    assert (found.length_s, found.expected, found.stored) == (900, 96, 1)
