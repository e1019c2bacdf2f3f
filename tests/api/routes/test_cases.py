"""Cases over REST: opened, listed, assigned, put off, closed."""

from tests.api.test_app import rig


async def test_case_is_opened_listed_assigned_snoozed_and_closed() -> None:
    async with rig() as r:
        case = await r.ask("POST", "/v1/cases?by=ann", json={"home": "home-00", "cause": "unit-off"})
        assert (case["case"], case["state"], case["opened_by"], case["lost_wh"]) == (1, "open", "ann", 0)
        path = "/v1/cases/1"
        assert (await r.ask("PATCH", path, json={"assignee": "bob"}))["assignee"] == "bob"
        year = int(case["opened"][:4])
        until = f"{year}{case['opened'][4:].replace('Z', '')}+00:00"
        refused = await r.ask("PATCH", path, json={"snooze_until": until}, status=400)
        assert refused["problems"] == ["snooze_until: within the next 366 days"]
        closed = await r.ask("PATCH", f"{path}?by=bob", json={"close": "replaced the unit"})
        assert (closed["state"], closed["closed_by"], closed["closed_because"]) == (
            "closed", "bob", "replaced the unit",
        )  # fmt: skip
        assert (await r.ask("GET", "/v1/cases"))["entries"] == []
        listed = await r.ask("GET", "/v1/cases?open=0&home=home-00&cause=unit-off&limit=1")
        assert (listed["entries"], listed["next"]) == ([closed], 1)
        assert (await r.ask("GET", "/v1/cases?open=0&after=1"))["entries"] == []


async def test_what_is_asked_wrongly_is_refused_with_its_place() -> None:
    async with rig() as r:
        await r.ask("PATCH", "/v1/cases/1", json={"assignee": "bob"}, status=404)
        await r.ask("PATCH", "/v1/cases/x", json={"assignee": "bob"}, status=404)
        refused = await r.ask("PATCH", "/v1/cases/1", json={}, status=400)
        assert refused["problems"] == ["(body): nothing is to change"]
        refused = await r.ask("GET", "/v1/cases?cause=tired", status=400)
        assert refused["problems"][0].startswith("cause: one of dead-comms, ")
        refused = await r.ask("POST", "/v1/cases", json={"home": "a", "cause": "tired"}, status=400)
        assert refused["problems"][0].startswith("cause: ")
