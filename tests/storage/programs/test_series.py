"""Prices and official hours in `programs.sqlite`: the newest import of an hour holds, and the daemon's facts beside it
are left alone."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.programs.prices import SiteArea
from gateway.domain.rules.calendar import HOUR_MS
from gateway.storage.programs.facts import NAME, SCHEMA_VERSION, SqliteFacts
from gateway.storage.programs.series import ImportedSeries, ProgramSeries, SeriesImport, SeriesKey

NORTH, SOUTH = SeriesKey(program="p", area="north"), SeriesKey(program="p", area="south")
ABOUT = SeriesImport(source="a page", who="operator", now_ms=5)
ALL = (0, 1 << 60)


def hours(*prices: str) -> Sequence[tuple[int, Decimal, str]]:
    return [(n * HOUR_MS, Decimal(price), "USD") for n, price in enumerate(prices)]


def test_prices_come_back_exact_with_source_version_and_time_of_import(tmp_path: Path) -> None:
    series = ProgramSeries(tmp_path)
    assert series.add_prices(NORTH, hours("51.757060", "-3", "0"), ABOUT) == ImportedSeries(
        version=1, rows=3, changed=True
    )
    found = series.prices(NORTH, *ALL)
    assert [str(one.price) for one in found] == ["51.757060", "-3", "0"]
    assert (found[0].origin.version, found[0].origin.source, found[0].origin.imported_ms) == (1, "a page", 5)
    assert [one.start_ms for one in series.prices(NORTH, HOUR_MS, 2 * HOUR_MS)] == [HOUR_MS]
    assert series.prices(SOUTH, *ALL) == series.prices(replace(NORTH, program="q"), *ALL) == []


def test_of_an_hour_the_newest_import_holds_and_earlier_ones_are_kept(tmp_path: Path) -> None:
    series = ProgramSeries(tmp_path)
    series.add_prices(NORTH, hours("1", "2"), ABOUT)
    series.add_prices(NORTH, hours("7"), replace(ABOUT, source="a later page"))
    assert [(one.price, one.origin.version) for one in series.prices(NORTH, *ALL)] == [(Decimal(7), 2), (Decimal(2), 1)]
    with closing(sqlite3.connect(tmp_path / NAME)) as db:
        assert db.execute("SELECT count(*) FROM price_hours").fetchone() == (3,)


def test_the_same_rows_of_the_same_source_are_no_new_version(tmp_path: Path) -> None:
    series = ProgramSeries(tmp_path)
    again = [series.add_prices(NORTH, hours("1"), replace(ABOUT, now_ms=n)) for n in range(2)]
    assert [(one.version, one.changed) for one in again] == [(1, True), (1, False)]
    assert series.add_prices(NORTH, hours("1"), replace(ABOUT, source="other")).version == 2
    assert series.add_prices(SOUTH, hours("1"), ABOUT).version == 1


def test_an_official_hour_may_have_no_type_yet_and_may_be_withdrawn(tmp_path: Path) -> None:
    series = ProgramSeries(tmp_path)
    series.add_hours(NORTH, [(0, None, "administrator"), (HOUR_MS, "Capacity", "administrator")], ABOUT)
    assert [(one.event_type, one.announced_by) for one in series.hours(NORTH, *ALL)] == [
        (None, "administrator"), ("Capacity", "administrator"),
    ]  # fmt: skip
    series.add_hours(NORTH, [(0, "Capacity", "utility"), (HOUR_MS, "withdrawn", "utility")], ABOUT)
    assert [(one.start_ms, one.event_type) for one in series.hours(NORTH, *ALL)] == [(0, "Capacity")]
    assert series.areas("p", "hour") == ["north"]
    assert series.areas("p", "price") == []


def test_the_area_of_a_site_is_what_was_said_last_of_a_day(tmp_path: Path) -> None:
    series = ProgramSeries(tmp_path)
    series.add_areas("p", [SiteArea(site="a", area="north", from_ms=0)], ABOUT)
    series.add_areas("p", [SiteArea(site="a", area="south", from_ms=0)], replace(ABOUT, now_ms=6))
    assert series.site_areas("p") == [SiteArea(site="a", area="south", from_ms=0)]
    assert series.site_areas("q") == []


def test_a_read_of_what_nobody_wrote_sees_nothing_and_makes_nothing(tmp_path: Path) -> None:
    series = ProgramSeries(tmp_path)
    assert (series.prices(NORTH, *ALL), series.hours(NORTH, *ALL), series.site_areas("p")) == ([], [], [])
    assert list(tmp_path.iterdir()) == []


def test_the_daemons_facts_and_the_series_are_beside_each_other_in_either_order(tmp_path: Path) -> None:
    for first in ("facts", "series"):
        state = tmp_path / first
        state.mkdir()
        facts = SqliteFacts(state, clock=ManualClock())
        if first == "facts":
            facts.load(lambda fact: None)
            assert ProgramSeries(state).prices(NORTH, *ALL) == [], "a read makes no tables in the daemon's file"
        ProgramSeries(state).add_prices(NORTH, hours("1"), ABOUT)
        if first == "series":
            facts.load(lambda fact: None)
        assert not facts.reasons()
        ProgramSeries(state).add_prices(NORTH, hours("2"), ABOUT)
        facts.close()
        assert [one.price for one in ProgramSeries(state).prices(NORTH, *ALL)] == [2]
        with closing(sqlite3.connect(state / NAME)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert (state / NAME).stat().st_mode & 0o077 == 0


def test_an_import_that_fails_leaves_nothing_of_it(tmp_path: Path) -> None:
    series = ProgramSeries(tmp_path)
    series.add_prices(NORTH, hours("1"), ABOUT)
    with pytest.raises(CorruptState):
        series.add_prices(NORTH, [*hours("2"), *hours("3")], ABOUT)
    assert [(one.price, one.origin.version) for one in series.prices(NORTH, *ALL)] == [(Decimal(1), 1)]


def test_a_file_that_is_newer_damaged_or_out_of_reach_is_an_error_and_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(CorruptState, match="is newer than"):
        ProgramSeries(tmp_path).add_prices(NORTH, hours("1"), ABOUT)
    path.write_bytes(b"not a database, and long enough to be read as one" * 50)
    with pytest.raises(CorruptState, match="not a database"):
        ProgramSeries(tmp_path).prices(NORTH, *ALL)
    assert path.read_bytes().startswith(b"not a database")
    with pytest.raises(StorageError):
        ProgramSeries(path).add_prices(NORTH, hours("1"), ABOUT)
