"""Suggestions and nominations: what covers what, who may delete, JSON and CSV."""

from typing import Any

import pytest

from tests.simulators.aggregator.asking import CSV, METER, OTHER_METER, Asker, asking
from tests.simulators.aggregator.test_meters import with_meters

ONE = f"/v2/meters/{METER}/nominations/suggestions"
MANY = "/v2/meters/nominations/suggestions"
SEARCH = MANY + "/search"


def item(start: str = "2026-12-01", kw: float = 4.0, **fields: Any) -> dict[str, Any]:
    return {"start_date": start, "nomination_kw": kw} | fields


async def suggested(client: Asker, **asked: Any) -> Any:
    return (await client.send("POST", SEARCH, asked)).json()["suggestions"]


async def test_nominations_newer_suggestion_deletes_what_it_covers_and_leaves_other_overlaps() -> None:
    async with asking() as (served, client):
        with_meters(served)
        old = [item("2026-12-05", end_date="2026-12-08"), item("2026-12-20")]
        assert (await client.send("POST", ONE, old)).status == 200
        made = (await client.send("POST", ONE, [item(end_date="2026-12-31")])).json()["suggestions"]
        assert [one["status"] for one in made] == ["DELETED", "RECEIVED"]
        assert [one["status"] for one in await suggested(client)] == ["DELETED", "RECEIVED", "RECEIVED"]
        assert len(await suggested(client, status="RECEIVED", meter_ids=[METER])) == 2


async def test_nominations_suggestion_is_deleted_only_while_received() -> None:
    async with asking() as (served, client):
        with_meters(served)
        (made,) = (await client.send("POST", ONE, [item()])).json()["suggestions"]
        served.nominations.decide(made["nomination_suggestion_id"], "APPROVED")
        path = f"{ONE}/{made['nomination_suggestion_id']}"
        assert (await client.send("DELETE", path)).status == 400
        (other,) = (await client.send("POST", ONE, [item("2026-11-25", end_date="2026-11-26")])).json()["suggestions"]
        deleted = await client.send("DELETE", f"{ONE}/{other['nomination_suggestion_id']}")
        assert (deleted.status, deleted.json()["status"]) == (200, "DELETED")


@pytest.mark.parametrize("body", [[], {}, [item(kw=10_001.0)], [item("1 Dec")], [item(end_date="2026-12-01")]])
async def test_nominations_bad_suggestions_are_refused(body: object) -> None:
    async with asking() as (served, client):
        with_meters(served)
        assert (await client.send("POST", ONE, body)).status == 400
        assert served.nominations.suggestions == {}


async def test_nominations_of_many_meters_come_as_json_or_csv_and_leave_as_either() -> None:
    async with asking() as (served, client):
        with_meters(served)
        made = await client.send("POST", MANY, [item(meter_ids=[METER, OTHER_METER])])
        assert len(made.json()["suggestions"]) == 2
        body = f"meter_id,program_identifier,start_date,end_date,nomination_kw\n{METER},CCA,2027-01-01,,2.5\n".encode()
        (row,) = (await client.ask("POST", MANY, body=body, headers=CSV)).json()["suggestions"]
        assert (row["program_identifier"], row["nomination_kw"]) == ("CCA", 2.5)
        headers = {"Content-Type": "application/json", "Accept": "text/csv"}
        out = (await client.ask("POST", SEARCH, body=b"{}", headers=headers)).body.decode().splitlines()
        assert (len(out), out[0].split(",")[0]) == (4, "nomination_suggestion_id")
        page = (await client.send("POST", SEARCH, {"page_size": 2})).json()
        rest = (await client.send("POST", SEARCH, {"page_size": 2, "page_token": page["next_page_token"]})).json()
        assert (len(rest["suggestions"]), "next_page_token" in rest) == (1, False)


async def test_nominations_that_hold_now_or_later_are_found() -> None:
    async with asking() as (served, client):
        served.nominations.nominate(METER, "2026-11-01T00:00:00Z", 4.0, end_time="2026-11-20T00:00:00Z")
        served.nominations.nominate(METER, "2026-11-20T00:00:00Z", 5.0)
        found = (await client.send("POST", "/v2/meters/nominations/search", {})).json()["nominations"]
        assert [one["nomination_kw"] for one in found] == [5.0]
        asked = {"start_time": "2026-11-01T00:00:00Z", "end_time": "2026-11-19T00:00:00Z"}
        found = (await client.send("POST", "/v2/meters/nominations/search", asked)).json()["nominations"]
        assert [one["nomination_kw"] for one in found] == [4.0]
