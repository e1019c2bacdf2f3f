"""The performance of events over REST: pages of figures, revisions with their reasons, a program's events."""

from pathlib import Path
from typing import Any

from tests.api.test_app import Rig, rig
from tests.builders.stored_performance import stored_event

MAY: dict[str, Any] = {"from": "2025-05-01T00:00:00Z", "to": "2025-06-01T00:00:00Z"}


async def asked(r: Rig, path: str, status: int = 200, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = await r.ask("GET", path, status=status, params=query)
    return found


async def test_an_event_has_its_program_and_pages_of_figures_of_each_level(tmp_path: Path) -> None:
    async with rig(state_dir=tmp_path) as r:
        stored_event(tmp_path, homes=5)
        first = await asked(r, "/v1/events/e/performance", level="site", limit="3")
        assert [row["name"] for row in first["figures"]] == ["home-0", "home-1", "home-2"]
        assert first["figure"]["energy_wh"] == 20_000
        assert (first["figure"]["short_wh"], first["figure"]["short_because"]) == (5_000, {"unexplained": 5_000})
        assert first["figure"]["value"]["value"] == "40.00"
        assert first["counts"] == {"program": 1, "customer": 5, "site": 5, "device": 5}
        rest = await asked(r, "/v1/events/e/performance", level="site", limit="3", after=first["next"])
        assert [row["name"] for row in rest["figures"]] == ["home-3", "home-4"]
        assert rest["next"] is None


async def test_a_revision_says_what_changed_and_an_older_one_can_be_asked_for(tmp_path: Path) -> None:
    async with rig(state_dir=tmp_path) as r:
        stored_event(tmp_path, kw=3.0)
        stored_event(tmp_path, because=("intervals of battery-1 changed",))
        newest = await asked(r, "/v1/events/e/performance")
        assert (newest["revision"], newest["because"]) == (2, ["intervals of battery-1 changed"])
        assert [one["revision"] for one in newest["revisions"]] == [2, 1]
        older = await asked(r, "/v1/events/e/performance", revision="1")
        assert (older["figure"]["energy_wh"], newest["figure"]["energy_wh"]) == (6_000, 8_000)
        await asked(r, "/v1/events/e/performance", 404, revision="3")
        await asked(r, "/v1/events/unknown/performance", 404)
        at_another_time = await asked(r, "/v1/events/e/performance", occurrence=newest["occurrence"])
        assert at_another_time["revision"] == 2
        await asked(r, "/v1/events/e/performance", 404, occurrence="2025-01-01T00:00:00Z")


async def test_events_that_two_sources_call_alike_are_asked_for_by_their_source(tmp_path: Path) -> None:
    async with rig(state_dir=tmp_path) as r:
        stored_event(tmp_path)
        stored_event(tmp_path, "platform~e")
        answer = await asked(r, "/v1/events/e/performance", 400)
        assert "e or platform~e" in answer["problems"][0]
        assert (await asked(r, "/v1/events/platform~e/performance"))["event"] == "platform~e"


async def test_a_program_lists_its_events_by_their_start_page_by_page(tmp_path: Path) -> None:
    async with rig(state_dir=tmp_path) as r:
        for day in range(5):
            stored_event(tmp_path, f"e-{day}", days=day)
        first = await asked(r, "/v1/programs/p/performance", limit="3", **MAY)
        assert [row["event"] for row in first["events"]] == ["e-0", "e-1", "e-2"]
        rest = await asked(r, "/v1/programs/p/performance", limit="3", after=first["next"], **MAY)
        assert [row["event"] for row in rest["events"]] == ["e-3", "e-4"]
        assert rest["next"] is None
        assert (await asked(r, "/v1/programs/other/performance", **MAY))["events"] == []
        await asked(r, "/v1/programs/p/performance", 400, **(MAY | {"to": "2025-04-01T00:00:00Z"}))
