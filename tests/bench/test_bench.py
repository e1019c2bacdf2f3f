"""Every bench runs in small and prints the documented object; how fast it was is not judged here."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.bench import (
    allocate,
    beside,
    columns,
    csv,
    dsgs_season,
    edge,
    fanout,
    ingest,
    log,
    memory,
    mixed,
    modbus,
    outage,
    paced,
    persistence,
    season,
    season_market,
    signal,
    stretch,
    tick,
    track,
)
from tests.bench.rig import PACKAGES, aim, percentile
from tests.bench.season_evenings import evenings, season_homes


@pytest.fixture(autouse=True)
def unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benches keep to one core; the tests after them must not."""
    for bench in (allocate, columns, csv, dsgs_season, fanout, ingest, mixed, modbus, paced, tick, track):
        monkeypatch.setattr(bench, "pin", lambda: None)


def check(found: Mapping[str, Any], bench: str, ratios: set[str], aims: set[str]) -> list[dict[str, Any]]:
    """The members that every bench has; returns the sizes."""
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["bench"] == bench
    assert set(again["ratios"]) == ratios
    assert set(again["aims"]) == aims
    assert all(set(entry) == {"aim", "value", "met"} for entry in again["aims"].values())
    assert set(again["versions"]) == {"python", *PACKAGES}
    sizes: list[dict[str, Any]] = again["sizes"]
    assert sizes
    assert all(size["n"] > 0 for size in sizes)
    return sizes


async def test_fanout_few_devices_reports_phases() -> None:
    sizes = check(await fanout.run(quick=True, devices=2_000), "fanout", {"bound_x"}, {"bound_x", "seconds"})
    assert sizes[0]["seconds"] > 0
    assert "journal_release_plan_ms" in sizes[0]["phases"]


async def test_mixed_few_devices_counts_what_was_acknowledged() -> None:
    found = await mixed.run(quick=True, devices=1_000)
    sizes = check(found, "mixed", {"idle_x", "bound_x"}, {"idle_x", "resumed_and_nothing_lost"})
    assert [size["load"] for size in sizes] == ["idle", "saturated"]
    assert sizes[1]["messages_ingested"] > 0


async def test_paced_few_devices_have_everything_acknowledged_over_an_edge() -> None:
    sizes = check(await paced.run(quick=True), "paced", set(), {"cpu_share", "behind_s"})
    assert [size["n"] for size in sizes] == [200, 1_000]
    assert all(0 < size["messages"] <= 4_000 for size in sizes)


async def test_tick_few_devices_reports_each_size() -> None:
    found = await tick.run(quick=True, sizes=(100, 1_000, 2_000))
    ratios, aims = {"growth_x", "passes_x", "territories_x"}, {"tick_ms", "growth_x", "territories_changed_ms"}
    sizes = check(found, "tick", ratios, aims)
    assert [size["n"] for size in sizes] == [100, 1_000, 2_000]


async def test_memory_few_devices_makes_no_task_and_no_timer() -> None:
    found = await memory.run(quick=True, devices=500)
    sizes = check(
        found, "memory", set(), {"rss_kib_per_item", "tasks_per_item", "timers_per_item", "gc_ms", "scrape_block_ms"}
    )
    assert max(sizes[0]["tasks_per_item"], sizes[0]["timers_per_item"]) < 0.01
    assert sizes[0]["series"] == memory.SERIES


async def test_modbus_few_devices_reads_all_points_in_one_request() -> None:
    sizes = check(await modbus.run(quick=True, sizes=(20, 50)), "modbus", {"raw_x"}, {"raw_x", "rss_kib_per_device"})
    assert [(size["points_per_request"], size["failures"]) for size in sizes] == [(modbus.POINTS, 0)] * 2


async def test_allocate_few_fleets_reports_every_cause_beside_both_policies() -> None:
    found = await allocate.run(quick=True, sizes=(200, 400), fleets=2)
    ratios = {"unserved_pct", "proportional_unserved_pct", "equal_unserved_pct"}
    sizes = check(found, "allocate", ratios, {"unserved_pct", "site_caps_unserved_pct", "solve_ms"})
    assert [size["case"] for size in sizes] == [*allocate.CASES, "time", "time"]
    assert found["aims"]["unserved_pct"]["met"]
    assert found["ratios"]["unserved_pct"] < found["ratios"]["proportional_unserved_pct"]


async def test_track_few_devices_follow_the_target_and_break_nothing() -> None:
    found = await track.run(quick=True, devices=60, event_s=400)
    sizes = check(found, "track", {"mean_error_pct"}, {"mean_error_pct", "capacity_sufficed", "problems"})
    assert sizes[0]["problems"] == []
    assert len(sizes[0]["mean_errors_pct"]) == 1


async def test_csv_few_sites_writes_what_the_standard_library_writes_and_finds_the_same_wrong() -> None:
    sizes = check(await csv.run(quick=True, sites=30), "csv", {"stdlib_x"}, {"seconds"})
    assert sizes[0]["n"] == 30 * csv.QUARTERS
    assert min(sizes[0]["write_seconds"], sizes[0]["stdlib_seconds"], sizes[0]["bytes"]) > 0


async def test_columns_a_few_days_of_homes_say_what_a_stored_one_takes() -> None:
    sizes = check(await columns.run(quick=True, sites=20), "columns", set(), {"bytes_per_site_day"})
    assert [size["n"] for size in sizes] == [40, 40]
    assert 100 < sizes[0]["bytes_per_site_day"] < sizes[1]["bytes_per_site_day"]


async def test_season_of_a_few_homes_agrees_with_a_straight_script_of_the_same() -> None:
    sizes = check(await season.run(quick=True, sites=20, events=1), "season", {"settle_x"}, {"seconds", "settle_x"})
    assert (sizes[0]["n"], sizes[0]["events"]) == (20, 1)
    assert sizes[0]["wh"] == sizes[0]["straight_wh"] != 0
    assert sizes[0]["busy_seconds"] > 0


async def test_beside_a_report_every_tick_of_a_few_devices_begins() -> None:
    found = await beside.run(quick=True, devices=50, pairs=1, ticks=3, sites=10)
    sizes = check(found, "beside", set(), {"more_p99_ms", "skipped"})
    assert (sizes[0]["ticks"], sizes[0]["pair"]) == (3, 1)


async def test_log_one_commit_reports_both_loads_beside_raw_sqlite() -> None:
    ratios = {"raw_x", "busy_x", "columns_raw_x"}
    sizes = check(await log.run(quick=True, n=log.BATCH_ROWS), "log", ratios, ratios)
    assert [size["load"] for size in sizes] == ["idle", "saturated", "raw"]
    assert len({size["bytes_per_row"] for size in sizes}) == 1
    assert min(sizes[0]["columns_items_per_s"], sizes[0]["tuples_items_per_s"]) > 0


async def test_edge_few_devices_closes_all_through_the_service() -> None:
    (size,) = check(await edge.run(quick=True, devices=2_000), "edge", set(), {"close_s", "late_ms"})
    assert min(size["close_s"], size["seconds"], size["late_ms"]) > 0


async def test_stretch_few_devices_reports_every_case() -> None:
    (size,) = check(await stretch.run(quick=True, sizes=(200,)), "stretch", set(), {"stretch_ms"})
    cases = {"telemetry", "silences", "spans", "checkpoint", "lists", "registration", "import", "named"}
    assert set(size["cases_ms"]) == cases
    assert size["stretch_ms"] == max(size["cases_ms"].values()) == size["cases_ms"][size["longest"]]
    assert all(ms > 0 for ms in size["cases_ms"].values())


async def test_season_market_few_events_are_all_carried_out_and_recorded() -> None:
    aims = {"lost", "rss_mib", "stretch_ms", "growth_x"}
    (size,) = check(await season_market.run(quick=True, events=30), "season-market", {"growth_x"}, aims)
    assert (size["refused"], size["without_record"], size["unknown"]) == (0, 0, 0)
    assert min(size["rows_told"], size["bytes_on_disk"], size["stretch_ms"]) > 0


@pytest.mark.deep
async def test_dsgs_season_one_evening_is_judged_for_both_ways_to_keep_energy() -> None:
    ratios, aims = {"optimum_pct", "true_soc_pct", "unbound_pct"}, {"optimum_pct", "refused", "problems"}
    found = await dsgs_season.run(quick=True, events=evenings()[1:2], homes=season_homes(2))
    sizes = check(found, "dsgs-season", ratios, aims)
    assert [(size["keep_h"], size["refused"], size["problems"]) for size in sizes] == [(5.0, [], []), (24.0, [], [])]
    assert all(set(size["lost_pct"]) == {"prices", "keeping", "tracking"} for size in sizes)
    assert sizes[1]["demonstrated_kw"]["05"] >= sizes[0]["demonstrated_kw"]["05"]


@pytest.mark.fault("F7")
async def test_outage_silent_receiver_loses_nothing_and_has_nothing_twice_different() -> None:
    """The receiver is stopped, not closed; what it has afterwards it says itself."""
    aims = {"lost", "different", "memory_mib"}
    sizes = check(await outage.run(quick=True, devices=50, silent_s=1.0, week=30), "outage", set(), aims)
    assert [(size["outage"], size["lost"], size["different"]) for size in sizes] == [("minute", 0, 0), ("week", 0, 0)]
    assert [size["backlog"] for size in sizes] == [50, 1_500]


@pytest.mark.real_time
async def test_signal_few_devices_are_all_told_at_the_start_and_have_what_the_body_says() -> None:
    aims = {"answer_p99_ms", "first_command_s", "acknowledged_s", "tick_late_ms"}
    (size,) = check(await signal.run(quick=True, devices=60), "signal", {"commanded_x"}, aims)
    assert (size["n"], size["posts"], size["not_acknowledged"], size["revisions"]) == (60, signal.QUICK_POSTS, 0, 0)
    assert size["commanded_kw"] == pytest.approx(size["dispatched_kw"], rel=0.05)
    assert min(size["bytes"], size["answer_p99_ms"], size["book_s"], size["acknowledged_s"]) > 0


@pytest.mark.real_time
async def test_persistence_quick_compares_each_way_of_writing() -> None:
    ratios = {"each_change_written_x", "each_change_p50_x"}
    sizes = check(await persistence.run(quick=True), "persistence", ratios, set())
    assert [size["kind"] for size in sizes] == ["each minute", "shipped", "each change", "shipped", "each change"]


@pytest.mark.deep
async def test_ingest_quick_reports_both_ratios() -> None:
    ratios = {"bound_x", "conventional_x"}
    check(await ingest.run(quick=True), "ingest", ratios, ratios)


def test_aim_value_on_the_bound_is_met() -> None:
    assert aim(3.0, most=3.0)["met"]
    assert aim(12.0, least=12.0)["met"]
    assert not aim(3.1, most=3.0)["met"]


def test_percentile_few_values_takes_one_of_them() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
