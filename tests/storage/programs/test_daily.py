"""Days of sites in their file: versions, holds, the token of exports, and readers beside the writer."""

import shutil
import sqlite3
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.programs.site_day import DayFrame, SiteChannel
from gateway.storage.programs.daily import DailyColumns, SiteDayKey
from tests.builders.site_days import JULY, PACIFIC, site_days

DAY = timedelta(days=1)


def key(site: str, version: int, day: date = JULY) -> SiteDayKey:
    return SiteDayKey(frame=PACIFIC, day=day, site=site, version=version)


def test_what_is_the_same_again_makes_no_version_and_what_differs_makes_the_next_one_of_that_site(
    tmp_path: Path,
) -> None:
    with DailyColumns(tmp_path, write=True) as store:
        assert store.put(site_days(["a", "b"]), 1) == 2
        assert store.put(site_days(["a", "b"]), 2) == 0
        wh = np.full((4, 2, 96), 250)
        wh[SiteChannel.DISCHARGE, 1, 70] = 251
        assert store.put(site_days(["a", "b"], wh=wh), 3) == 1
        (now,) = store.days(PACIFIC, [JULY])
        assert now.sites == ("a", "b")
        assert now.versions == (1, 2)
        assert now.energy_wh[SiteChannel.DISCHARGE, :, 70].tolist() == [250, 251]
        (then,) = store.days(PACIFIC, [JULY], as_of_ms=2)
        assert then.versions == (1, 1)
        old = store.version(key("b", 1))
        assert old is not None
        assert old.energy_wh[SiteChannel.DISCHARGE, 0, 70] == 250
        assert store.version(key("b", 3)) is None


def test_unknown_stays_unknown_in_the_file(tmp_path: Path) -> None:
    known = np.ones((4, 1, 96), dtype=np.bool_)
    known[SiteChannel.IMPORT, 0, 3] = False
    with DailyColumns(tmp_path, write=True) as store:
        store.put(site_days(["a"], known=known), 1)
        (day,) = store.days(PACIFIC, [JULY])
    assert np.array_equal(day.known, known)


def test_days_are_read_by_frame_day_and_site_and_those_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    hourly = DayFrame(zone="America/New_York", length_s=3600)
    with DailyColumns(tmp_path, write=True) as store:
        store.put(site_days(["a", "b"]), 1)
        store.put(site_days(["b"], day=JULY + 2 * DAY), 1)
        store.put(site_days(["a"], frame=hourly), 1)
        found = list(store.days(PACIFIC, [JULY + n * DAY for n in range(-1, 4)], sites=["b"]))
        assert [(day.day, day.sites) for day in found] == [(JULY, ("b",)), (JULY + 2 * DAY, ("b",))]
        assert [day.parts for day in store.days(hourly, [JULY])] == [24]
        assert list(store.days(DayFrame(zone="UTC", length_s=60), [JULY])) == []
        assert store.frames() == [PACIFIC, hourly]


def test_a_version_that_somebody_holds_outlives_the_days_that_are_kept(tmp_path: Path) -> None:
    with DailyColumns(tmp_path, write=True) as store:
        for version, wh in enumerate((1, 2), 1):
            store.put(site_days(["a", "b"], wh=wh), version)
        store.put(site_days(["a"], day=JULY + DAY), 3)
        store.note_written(PACIFIC, JULY, 3)
        store.hold("statement-1", [key("a", 1)])
        store.hold("statement-2", [key("a", 1), key("nobody", 1)])
        assert store.prune(JULY + DAY) == 3
        assert store.prune(JULY + DAY) == 0
        assert store.version(key("a", 1)) is not None
        assert store.version(key("a", 2)) is None
        assert [day.day for day in store.days(PACIFIC, [JULY, JULY + DAY])] == [JULY, JULY + DAY]
        store.release("statement-1")
        assert store.prune(JULY + DAY) == 0
        store.release("statement-2")
        assert store.prune(JULY + DAY) == 1
        assert store.written(PACIFIC) == []


def test_after_a_token_there_is_only_what_was_written_since_whatever_day_it_is_of(tmp_path: Path) -> None:
    with DailyColumns(tmp_path, write=True) as store:
        store.put(site_days(["a", "b"], day=JULY + DAY), 1)
        first = store.since(0, JULY, JULY + 9 * DAY, [PACIFIC], 10)
        assert [one.key.site for one in first] == ["a", "b"]
        store.put(site_days(["a"]), 2)
        store.put(site_days(["a"], wh=9, day=JULY + DAY), 3)
        new = store.since(first[-1].token, JULY, JULY + 9 * DAY, [PACIFIC], 10)
        assert [(one.key.day, one.key.version, one.written_ms) for one in new] == [(JULY, 1, 2), (JULY + DAY, 2, 3)]
        assert store.since(first[-1].token, JULY + DAY, JULY + 9 * DAY, [PACIFIC], 10) == new[1:]
        assert store.since(first[-1].token, JULY, JULY + 9 * DAY, [PACIFIC], 1) == new[:1]
        assert store.since(new[-1].token, JULY, JULY + 9 * DAY, [PACIFIC], 10) == []


def test_what_pruning_removes_is_never_the_token_of_something_else(tmp_path: Path) -> None:
    with DailyColumns(tmp_path, write=True) as store:
        store.put(site_days(["a"]), 1)
        (one,) = store.since(0, JULY, JULY + DAY, [PACIFIC], 10)
        store.prune(JULY + DAY)
        store.put(site_days(["a"], day=JULY + DAY), 2)
        (other,) = store.since(0, JULY, JULY + 2 * DAY, [PACIFIC], 10)
    assert other.token > one.token


def test_a_reader_creates_nothing_and_sees_what_is_written_meanwhile(tmp_path: Path) -> None:
    with DailyColumns(tmp_path) as reader:
        assert list(reader.days(PACIFIC, [JULY])) == []
    assert list(tmp_path.iterdir()) == []
    with DailyColumns(tmp_path, write=True) as writer, DailyColumns(tmp_path) as reader:
        writer.put(site_days(["a"]), 1)
        assert [day.sites for day in reader.days(PACIFIC, [JULY])] == [("a",)]
        with pytest.raises(StorageError, match="readonly"):
            reader.note_progress("columns", 1, 1)


def test_a_writer_that_is_in_the_middle_of_it_delays_no_reader_and_nobody_elses_file(tmp_path: Path) -> None:
    with DailyColumns(tmp_path, write=True) as writer:
        writer.put(site_days(["a"]), 1)
        with closing(sqlite3.connect(writer.path, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            with DailyColumns(tmp_path) as reader:
                assert [day.sites for day in reader.days(PACIFIC, [JULY])] == [("a",)]
    assert writer.path.parent.name == "money"
    assert [path.name for path in tmp_path.iterdir()] == ["money"]


def test_how_far_the_log_is_in_here_survives(tmp_path: Path) -> None:
    with DailyColumns(tmp_path, write=True) as store:
        assert store.progress("columns") is None
        store.note_progress("columns", 3, 70)
        store.note_progress("columns", 4, 1)
        store.note_written(PACIFIC, JULY, 1)
    with DailyColumns(tmp_path, write=True) as store:
        assert store.progress("columns") == (4, 1)
        assert store.written(PACIFIC) == [JULY]


def test_a_file_of_a_newer_gateway_is_left_alone_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    with DailyColumns(tmp_path, write=True) as store:
        store.put(site_days(["a"]), 1)
        path = store.path
    with closing(sqlite3.connect(path)) as db:
        db.execute("update site_days set body = x'0102'")
        db.commit()
    with DailyColumns(tmp_path) as store, pytest.raises(CorruptState, match="site a on 2026-07-14"):
        list(store.days(PACIFIC, [JULY]))
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma user_version = 99")
    with pytest.raises(CorruptState, match="schema 99"):
        DailyColumns(tmp_path, write=True)
    path.write_bytes(b"no database" * 400)
    with pytest.raises(CorruptState, match=r"columns\.sqlite"):
        DailyColumns(tmp_path)


def test_nothing_is_written_to_a_disk_that_the_daemon_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DailyColumns(tmp_path, write=True) as store:
        usage = SimpleNamespace(total=100 << 30, free=5 << 30)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(StorageError, match="5120 MiB left"):
            store.put(site_days(["a"]), 1)
        assert store.size() == (0, 0)
        usage.free = 7 << 30
        assert store.put(site_days(["a"]), 1) == 1
