"""Readings of utilities' meters: imported by revision, compared with homes' own, counted and listed."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import CorruptState
from gateway.domain.journal.changes import DeviceRegistered
from gateway.domain.programs.site_day import SiteChannel
from gateway.domain.rules.calendar import DAY_MS, HOUR_MS
from gateway.services.programs.meter_match_job import MeterMatchJob
from gateway.services.programs.meter_mismatches import MeterMismatches
from gateway.services.programs.usage_table import read_usage
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.programs.daily import DailyColumns
from gateway.storage.programs.match_file import read_matches
from gateway.storage.programs.utility_meters import UsageRow, UtilityMeters
from tests.builders.fakes import home
from tests.builders.site_days import JULY, PACIFIC, site_days
from tests.cli.test_cli import config, run
from tests.domain.programs.test_meter_match import net

HEAD = "meter,start,usage_wh\n"
FIRST = JULY - timedelta(days=11)
NOW_MS = PACIFIC.span(JULY)[1] + 8 * HOUR_MS


def utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat()


def row(meter: str, start_ms: int, wh: int, length_s: int = 900) -> UsageRow:
    return UsageRow(meter=meter, start_ms=start_ms, length_s=length_s, wh=wh)


def test_good_rows_are_read_and_bad_ones_named_with_their_line() -> None:
    text = HEAD + "".join(
        f"{line}\n"
        for line in (
            "m1,2026-07-14T17:15:00Z,120.5", "m1,2026-07-14T10:30:00-07:00,-3", "m1,2026-07-14T17:45:00Z,",
            "m1,2026-07-14T17:16:00Z,1", "m1,2026-07-14T17:15:00,1", ",2026-07-14T17:15:00Z,1",
            "m1,2026-07-14T17:15:00Z,nan", "m1,soon,1", "m1,2026-07-14T17:15:00Z,7", "m1",
            "m1,2026-07-14T17:15:00Z,121",
        )
    )  # fmt: skip
    table = read_usage(text, length_s=900)
    at_ms = round(datetime(2026, 7, 14, 17, 15, tzinfo=UTC).timestamp() * 1000)
    assert table.rows == [row("m1", at_ms, 121), row("m1", at_ms + 900_000, -3)]
    assert (table.empty, table.bad) == (2, 6)
    assert [fault.split(":")[0] for fault in table.faults] == [f"line {n}" for n in (5, 6, 7, 8, 9, 10)]
    assert "the file says 121 and 7 Wh of one interval" in table.faults[-1]
    assert read_usage("meter,usage_wh\n", length_s=900).faults == ["line 1: no column start"]
    assert [
        one.length_s
        for one in read_usage("meter,start,usage_wh,length_s\nm,2026-07-14T17:00Z,1,3600\n", length_s=900).rows
    ] == [3600]


def test_an_import_is_a_revision_of_what_it_names_alone_and_the_same_again_is_none(tmp_path: Path) -> None:
    store = UtilityMeters(tmp_path)
    noon = round(datetime(2026, 7, 14, 12, tzinfo=UTC).timestamp() * 1000)
    rows = [row("m", noon, 10), row("m", noon + 900_000, -20)]
    assert store.add(rows, source="file", who="t", now_ms=1).changed_days == 1
    assert store.add(rows, source="file", who="t", now_ms=2).changed_days == 0
    assert store.add([row("m", noon, 11)], source="file", who="t", now_ms=3).revision == 3
    (day,) = store.days(["m", "other"], 900, JULY, JULY + timedelta(days=1))
    assert (day.revision, day.wh[48:51].tolist(), day.known[47:51].tolist()) == (
        3,
        [11, -20, 0],
        [False, True, True, False],
    )
    assert store.days(["m"], 3600, JULY, JULY + timedelta(days=1)) == []
    assert (store.meters(), store.revision()) == ([("m", 900)], 3)


def test_a_reader_creates_nothing_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = UtilityMeters(tmp_path)
    assert (store.revision(), store.meters()) == (0, [])
    assert list(tmp_path.iterdir()) == []
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(CorruptState, match=r"utility\.sqlite"):
        store.revision()


async def homes(state_dir: Path, factors: dict[str, float]) -> None:
    """Twelve days of homes, each with its meter, whose own transformer reads so many times what the utility's says."""
    clock = ManualClock(utc_ms=PACIFIC.span(FIRST)[0] - 1)
    journal = SqliteJournal(state_dir / "journal.sqlite", clock=clock)
    try:
        journal.load()
        for name in factors:
            device = replace(home(name), site=f"site-{name}", meter=f"meter-{name}")
            await journal.commit([DeviceRegistered(device=device)])
    finally:
        journal.close()
    readings: list[UsageRow] = []
    with DailyColumns(state_dir, write=True) as store:
        for n in range(12):
            day: date = FIRST + timedelta(days=n)
            wh = np.zeros((4, len(factors), 96), dtype=np.int64)
            for at, (name, factor) in enumerate(sorted(factors.items())):
                true = net(12, seed=at)[n]
                own = np.rint(true * factor).astype(np.int64)
                wh[SiteChannel.IMPORT, at], wh[SiteChannel.EXPORT, at] = np.maximum(own, 0), np.maximum(-own, 0)
                from_ms = PACIFIC.span(day)[0]
                readings += [row(f"meter-{name}", from_ms + i * 900_000, int(w)) for i, w in enumerate(true)]
            store.put(site_days([f"site-{name}" for name in sorted(factors)], day=day, wh=wh), n)
            store.note_written(PACIFIC, day, n)
    UtilityMeters(state_dir).add(readings, source="file", who="t", now_ms=1)


def settled(job: MeterMatchJob, now_ms: int = NOW_MS) -> None:
    for _ in range(50):
        if not job.step(now_ms).more:
            return
    raise AssertionError("it does not come to an end")


async def test_a_transformer_that_is_8_percent_high_or_reversed_is_counted_and_listed(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    await homes(state_dir, {"good": 1.0, "high": 1.08, "turned": -1.0})
    job = MeterMatchJob(state_dir)
    settled(job)
    part = MeterMismatches(state_dir)
    await part.read()
    counts = {dict(sample.labels)["kind"]: sample.value for sample in part.samples()}
    assert counts == {"reversed": 1, "scaled": 1, "unlike": 0}
    file = config(tmp_path, state_dir=str(state_dir))

    def listed(*words: str) -> list[dict[str, Any]]:
        result = run("meters", "list", "--config", file, "--json", *words)
        assert result.exit_code == 0, result.output
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return found

    assert [(one["site"], one["mismatch"]) for one in listed("--mismatches")] == [
        ("site-high", "scaled"), ("site-turned", "reversed"),
    ]  # fmt: skip
    good = listed()[0]
    assert (good["site"], good["meter"], good["ratio"], good["low"], good["high"]) == (
        "site-good",
        "meter-good",
        1.0,
        1.0,
        1.0,
    )
    # of whole UTC days before now: the last local one up to midnight UTC
    assert (good["days"], good["intervals"]) == (12, 12 * 96 - 28)


async def test_a_corrected_import_is_compared_again_and_nothing_else_is(tmp_path: Path) -> None:
    await homes(tmp_path, {"turned": -1.0})
    job = MeterMatchJob(tmp_path)
    settled(job)
    before = read_matches(tmp_path)
    settled(job, NOW_MS + 1000)
    assert read_matches(tmp_path).at_ms == before.at_ms
    store = UtilityMeters(tmp_path)
    days = store.days(["meter-turned"], 900, FIRST, JULY + timedelta(days=2))
    turned = [
        row("meter-turned", (day.day - date(1970, 1, 1)).days * DAY_MS + int(at) * 900_000, -int(day.wh[at]))
        for day in days for at in np.flatnonzero(day.known)
    ]  # fmt: skip
    store.add(turned, source="corrected", who="t", now_ms=2)
    settled(job, NOW_MS + 2000)
    (after,) = read_matches(tmp_path).rows
    assert (after.match.mismatch, after.revision) == (None, 2)
    assert after.match.ratio == pytest.approx(1.0)


def test_an_import_by_command_says_what_it_took_and_exits_with_1_where_rows_are_bad(tmp_path: Path) -> None:
    file = config(tmp_path, state_dir=str(tmp_path / "state"))
    table = tmp_path / "usage.csv"
    table.write_text(HEAD + "m,2026-07-14T17:15:00Z,5\nm,2026-07-14T17:20:00Z,5\n")
    result = run("meters", "import", str(table), "--config", file, "--source", "report", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["rows"], told["bad"], told["revision"], told["changed_days"]) == (1, 1, 1, 1)
    assert told["faults"][0].startswith("line 3: start")
    assert UtilityMeters(tmp_path / "state").meters() == [("m", 900)]
