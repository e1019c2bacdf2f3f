"""Exclusions of territories over REST: set, preview, import, and what the answers show of them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.api.exclusion_models import DAYS_MAX, NAMES_MAX
from gateway.schemas.interval_rows import rfc3339
from tests.api.test_app import Rig, rig
from tests.builders.fakes import FACTS
from tests.scenes.world import World

CSV: dict[str, Any] = {"headers": {"Content-Type": "text/csv"}}
LINES: dict[str, Any] = {"headers": {"Content-Type": "application/x-ndjson"}}
STORM: dict[str, Any] = {"id": "storm-7", "reason": "storm", "territory": {"postcodes": ["95404"]}, "note": "wind"}
COLUMNS = "id,reason,postcode,county,utility,until,note,reserve_pct,dispatch_above_reserve\n"


def until(world: World, s: float = 3_600) -> str:
    return rfc3339(world.clock.utc + round(s * 1000))


@asynccontextmanager
async def street() -> AsyncIterator[Rig]:
    """Three homes: two in one postcode, one of which nobody knows where it is."""
    async with rig() as r:
        for slot in (0, 1):
            here = replace(r.world.fleet.device(slot), postcode="95404", county="Sonoma", utility="PG&E", feeder="f1")
            r.world.fleet.register(here, FACTS)
        await r.world.go(3)
        yield r


async def test_territory_is_set_once_by_whatever_is_sent_again_listed_and_lifted() -> None:
    async with street() as r:
        body = STORM | {"until": until(r.world), "reserve_pct": 80}
        first = await r.ask("POST", "/v1/exclusions", json=body)
        assert (first["devices"], first["active"], first["note"], first["reserve_pct"]) == (2, True, "wind", 80)
        assert first["territory"] == {
            "postcodes": ["95404"], "counties": [], "utilities": [], "feeders": [], "programs": [],
        }  # fmt: skip
        assert first["warnings"] == ["of 1 devices no postcode is known: they are not in the area"]
        await r.world.go(30)
        again = await r.ask("POST", "/v1/exclusions", json=body)
        assert again == first
        assert [one["id"] for one in (await r.ask("GET", "/v1/exclusions"))["exclusions"]] == ["storm-7"]
        assert (await r.ask("DELETE", "/v1/exclusions/storm-7"))["exclusions"] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"until": None}, "until: a territory is excluded until a time; it can be lifted before"),
     ({"territory": {}}, "territory: name homes: postcodes, counties, utilities, feeders or programs"),
     ({"territory": {"postcodes": [" "]}}, "territory.postcodes.0: "), ({"territory": {"zip": ["1"]}},
      "territory.zip: "),
     ({"territory": {"postcodes": ["x"] * (NAMES_MAX + 1)}}, "territory.postcodes: "),
     ({"territory": {"counties": ["x" * 65]}}, "territory.counties.0: "),
     ({"group": {"all": True}}, "group: either a group or a territory"),
     ({"territory": None}, "group: either a group or a territory"),
     ({"reason": "opt_out"}, "reason: of a territory it is storm, outage, weather, utility_request or other"),
     ({"territory": None, "group": {"all": True}, "reason": "weather"}, "reason: of a group it is opt_out or storm"),
     ({"territory": None, "group": {"all": True}}, "note: belongs to a territory"),
     ({"note": "x" * 257}, "note: "), ({"note": "a\nb"}, "note: "), ({"reserve_pct": 0}, "reserve_pct: "),
     ({"reserve_pct": 101}, "reserve_pct: "), ({"reserve_pct": True}, "reserve_pct: "),
     ({"reserve_pct": "50"}, "reserve_pct: "),
     ({"dispatch_above_reserve": True}, "dispatch_above_reserve: needs a reserve_pct"),
     ({"from": "2027-01-15T09:00:00Z", "until": "2027-01-15T09:00:00Z"}, "until: not after from"),
     ({"event": "e"}, "event: belongs to opt_out")],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/exclusions", "/v1/exclusions/preview"])
async def test_territory_that_is_not_understood_is_refused_with_what_is_wrong_and_where(
    path: str, change: dict[str, Any], problem: str
) -> None:
    async with street() as r:
        refused = await r.ask("POST", path, json=STORM | {"until": until(r.world)} | change, status=400)
        assert [one for one in refused["problems"] if one.startswith(problem)], refused
        assert (await r.ask("GET", "/v1/exclusions"))["exclusions"] == []


async def test_territory_for_longer_than_anybody_means_is_refused_by_every_door() -> None:
    async with street() as r:
        far = until(r.world, (DAYS_MAX + 1) * 86_400)
        refused = await r.ask("POST", "/v1/exclusions", json=STORM | {"until": far}, status=400)
        assert refused["problems"] == [f"until: more than {DAYS_MAX} days ahead"]
        rows = f"id,reason,county,until\na,storm,Sonoma,{far}\n"
        (row,) = (await r.ask("POST", "/v1/exclusions/import", data=rows, **CSV))["rejected"]
        assert row["faults"] == [{"column": "until", "problem": f"more than {DAYS_MAX} days ahead", "value": None}]


async def test_preview_says_what_a_territory_would_do_and_sets_nothing() -> None:
    async with street() as r:
        await r.world.submit("evening", s=3_600, target_w=3_000.0)
        await r.world.submit("later", s=3_600, target_w=3_000.0, program="other", start_ms=r.world.clock.utc + 10**6,
                             end_ms=r.world.clock.utc + 2 * 10**6)  # fmt: skip
        await r.world.go(30)
        effect = await r.ask("POST", "/v1/exclusions/preview", json=STORM | {"until": until(r.world)})
        assert (effect["devices"], effect["homes"], effect["excluded"], effect["replaces"]) == (2, 2, 0, False)
        assert (effect["rated_w"], effect["discharge_w"]) == (10_000, 10_000)
        assert effect["programs"] == [
            {"program": "other", "enrolled": 0, "named": 2, "events": ["later"]},
            {"program": "test", "enrolled": 0, "named": 2, "events": ["evening"]},
        ]
        assert (await r.ask("GET", "/v1/exclusions"))["exclusions"] == []
        await r.ask("POST", "/v1/exclusions", json=STORM | {"until": until(r.world)})
        await r.world.go(3)
        effect = await r.ask("POST", "/v1/exclusions/preview", json=STORM | {"until": until(r.world)})
        assert (effect["excluded"], effect["discharge_w"], effect["replaces"]) == (2, 0, True)
        named = STORM | {"territory": {"programs": ["test"], "counties": ["sonoma"]}, "until": until(r.world)}
        assert (await r.ask("POST", "/v1/exclusions/preview", json=named))["devices"] == 2


async def test_event_shows_how_many_of_its_devices_are_excluded_while_it_runs() -> None:
    async with street() as r:
        await r.world.submit("evening", s=3_600, target_w=3_000.0)
        assert (await r.ask("GET", "/v1/dispatch-events/evening"))["excluded"] is None
        await r.world.go(2)
        assert (await r.ask("GET", "/v1/dispatch-events/evening"))["excluded"] == 0
        await r.ask("POST", "/v1/exclusions", json=STORM | {"until": until(r.world)})
        await r.world.go(30)
        shown = await r.ask("GET", "/v1/dispatch-events/evening")
        assert (shown["excluded"], shown["devices"]) == (2, 3)


async def test_delivery_records_and_a_device_name_the_exclusions_that_cover_it_now() -> None:
    async with street() as r:
        await r.world.submit("evening", s=60, target_w=3_000.0)
        for name, change in (("storm-7", {}), ("flood", {"reason": "other"}), ("later", {"from": until(r.world, 300)})):
            await r.ask("POST", "/v1/exclusions", json=STORM | {"id": name, "until": until(r.world)} | change)
        await r.world.go(20)
        shown = await r.ask("GET", "/v1/dispatch-events/evening")
        assert [(one["device"], one["failure"], one["excluded_by"]) for one in shown["members"]] == [
            ("home-00", "barred", ["storm-7", "flood"]), ("home-01", "barred", ["storm-7", "flood"]),
            ("home-02", None, []),
        ]  # fmt: skip
        assert {"storm", "excluded"} <= set(shown["members"][0]["limits"])
        for device, names in (("home-00", ["storm-7", "flood"]), ("home-02", [])):
            assert (await r.ask("GET", f"/v1/devices/{device}"))["excluded_by"] == names
        assert {one["excluded_by"] for one in (await r.ask("GET", "/v1/devices"))["devices"]} == {None}
        await r.world.go(60)
        over = await r.ask("GET", "/v1/dispatch-events/evening")
        assert (over["state"], [one["excluded_by"] for one in over["members"]]) == ("completed", [[], [], []])


async def test_participation_names_the_exclusions_within_the_time_of_the_next_event() -> None:
    async with street() as r:
        start_ms = r.world.clock.utc + 7_200_000
        later = {"start_ms": start_ms, "end_ms": start_ms + 3_600_000, "program": "other"}
        await r.world.submit("later", s=1, target_w=3_000.0, **later)
        for name, begin, end in (("now", 0, 3_600), ("then", 9_000, 9_001), ("after", 10_800, 12_000)):
            body = STORM | {"id": name, "from": until(r.world, begin), "until": until(r.world, end)}
            await r.ask("POST", "/v1/exclusions", json=body | {"reason": "outage"})
        found = await r.ask("GET", "/v1/participation/other")
        assert found["excluded"] == 2
        listed = found["devices"]
        assert [(one["device"], one["takes_part"], one["excluded_by"]) for one in listed] == [
            ("home-00", False, ["then"]), ("home-01", False, ["then"]), ("home-02", True, []),
        ]  # fmt: skip


async def test_import_takes_good_rows_once_and_names_every_bad_one_with_its_line() -> None:
    async with street() as r:
        end = until(r.world)
        rows = [
            f"a,storm,95404;95405,,,{end},wind,,", f"b,outage,,Sonoma,PG&E,{end},,60,true", f"c,opt_out,1,,,{end},,,",
            f"d,storm,,,,{end},,,", f"e,storm,1,,,{rfc3339(r.world.clock.utc)},,,", f"a,storm,1,,,{end},,,",
            f"f,other,1,,,{end},,120,", "g,other,1,,,tomorrow,,,", f"h,weather,1,,,{end},,,yes", "short",
        ]  # fmt: skip
        text = COLUMNS + "\n".join(rows) + "\n"
        done = await r.ask("POST", "/v1/exclusions/import", data=text, **CSV)
        assert (done["rows"], done["changed"], done["unchanged"], done["rejected_total"]) == (10, 2, 0, 8)
        told = {row["line"]: row["problem"] for row in done["rejected"]}
        assert [*told] == [4, 5, 6, 7, 8, 9, 10, 11]
        for line, words in ((4, "reason"), (5, "postcode: name homes"), (6, "until: is over already"),
                            (7, "id: stands on line 2 already"), (8, "reserve_pct"), (9, "until"),
                            (10, "dispatch_above_reserve: needs a reserve_pct"), (11, "columns expected")):  # fmt: skip
            assert words in told[line], told[line]
        again = await r.ask("POST", "/v1/exclusions/import", data=text, **CSV)
        assert (again["changed"], again["unchanged"]) == (0, 2)
        listed = {one["id"]: one for one in (await r.ask("GET", "/v1/exclusions"))["exclusions"]}
        assert [(name, one["devices"], one["reserve_pct"]) for name, one in listed.items()] == [
            ("a", 2, None),
            ("b", 2, 60),
        ]
        assert listed["b"]["dispatch_above_reserve"] is True


async def test_import_takes_lines_of_json_as_well_and_refuses_what_is_no_table() -> None:
    async with street() as r:
        rows: list[dict[str, Any]] = [
            {"id": "a", "reason": "storm", "postcode": ["95404"], "until": until(r.world), "reserve_pct": 50.5},
            {"id": "b", "reason": "storm", "feeder": "f1;f2", "until": until(r.world), "color": "red"},
        ]
        text = "\n".join(json.dumps(row) for row in rows)
        done = await r.ask("POST", "/v1/exclusions/import", data=text, **LINES)
        assert (done["changed"], done["durable"], [row["line"] for row in done["rejected"]]) == (1, True, [2])
        for data in ("id,reason\n", "id,reason,until,until\n", b"\xff"):
            await r.ask("POST", "/v1/exclusions/import", data=data, status=400, **CSV)
        r.world.journal.failing = True
        text = json.dumps(rows[0] | {"id": "c"})
        done = await r.ask("POST", "/v1/exclusions/import", data=text, status=202, **LINES)
        assert (done["changed"], done["durable"]) == (1, False)


async def test_import_takes_no_truth_for_a_reserve() -> None:
    async with street() as r:
        row = {"id": "a", "reason": "storm", "postcode": ["95404"], "until": until(r.world), "reserve_pct": True}
        done = await r.ask("POST", "/v1/exclusions/import", data=json.dumps(row), **LINES)
        assert (done["changed"], [bad["line"] for bad in done["rejected"]]) == (0, [1])
