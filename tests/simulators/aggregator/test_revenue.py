"""Revenue rows by month and page, versions, and meters that did not respond."""

from typing import Any

import pytest

from tests.simulators.aggregator.asking import METER, OTHER_METER, asking

METERS = "/v1.1/revenue/periodic/aggregation/meter/search"
UNRESPONSIVE = "/v1.1/performance/diagnosis/monthly/unresponsive/meters"
MONTHS = {"period_start": "2026-09", "period_end": "2026-11"}


def row(meter: str, month: int) -> dict[str, Any]:
    return {"meter_id": meter, "delivery_start_date": f"2026-{month:02}-01", "total_revenue": 1.5}


async def test_revenue_rows_of_the_months_come_in_pages_whose_token_is_page_token() -> None:
    async with asking() as (served, client):
        served.revenue.rows["meter"] = [row(METER, month) for month in range(8, 12)] + [row(OTHER_METER, 9)]
        first = (await client.send("POST", METERS, MONTHS | {"page_size": 3})).json()
        second = (
            await client.send("POST", METERS, MONTHS | {"page_size": 3, "page_token": first["page_token"]})
        ).json()
        assert [one["delivery_start_date"][5:7] for one in first["meters"] + second["meters"]] == [
            "09", "10", "11", "09",
        ]  # fmt: skip
        assert "page_token" not in second
        assert len((await client.send("POST", METERS, MONTHS | {"filters": [OTHER_METER[:4]]})).json()["meters"]) == 1


@pytest.mark.parametrize(
    "asked",
    [{}, MONTHS | {"period_start": "2026-08"}, MONTHS | {"period_end": "2026-08"}, MONTHS | {"page_size": 1001}],
)
async def test_revenue_refuses_in_its_own_words(asked: dict[str, Any]) -> None:
    async with asking() as (_, client):
        refused = await client.send("POST", METERS, asked)
        assert (refused.status, refused.json().keys()) == (400, {"title", "status", "details"})


async def test_revenue_answers_csv_where_that_is_accepted_and_415_to_another_type() -> None:
    async with asking() as (served, client):
        served.revenue.rows["meter"] = [row(METER, 10)]
        body = b'{"period_start": "2026-09", "period_end": "2026-11"}'
        headers = {"Content-Type": "application/json", "Accept": "text/csv"}
        table = (await client.ask("POST", METERS, body=body, headers=headers)).body.decode()
        assert table.splitlines()[0] == "delivery_start_date,meter_id,total_revenue"
        refused = await client.ask("POST", METERS, body=body, headers=headers | {"Accept": "text/html"})
        assert refused.status == 415


async def test_revenue_versions_are_a_bare_array() -> None:
    async with asking() as (served, client):
        served.revenue.versions = [{"version": "V2", "updated_at": "2026-11-01T00:00:00Z", "settlement_period": MONTHS}]
        found = await client.send("GET", "/v1.1/revenue/periodic/versions", **MONTHS)
        assert found.json() == served.revenue.versions
        served.mischief.extra_fields = True
        (later,) = (await client.send("GET", "/v1.1/revenue/periodic/versions", **MONTHS)).json()
        assert "field_of_a_later_version" in later
        assert (await client.send("GET", "/v1.1/revenue/periodic/versions")).status == 400


async def test_revenue_unresponsive_meters_are_filtered_and_sorted_per_program() -> None:
    async with asking() as (served, client):
        usual = {"meter_id": METER, "transmission_region": "CAISO", "historical_responsiveness": "NEVER_RESPONDS"}
        served.revenue.unresponsive["2026-10"] = [
            usual | {"program": "CCA", "nomination_w": 5.0},
            usual | {"program": "CEC-DSGS", "nomination_w": 9.0},
        ]
        asked = {"year_month": "2026-10", "sort": [{"field": "nomination_kw", "direction": "DESC"}]}
        found = (await client.send("POST", UNRESPONSIVE, asked, include_summary="true")).json()
        assert [one["program"] for one in found["meters"]] == ["CEC-DSGS", "CCA"]
        assert found["summary"]["number_of_meters"] == 1
        left_out = asked | {"exclude_meter_programs": [{"program": "CCA", "meter_id": METER}]}
        assert len((await client.send("POST", UNRESPONSIVE, left_out)).json()["meters"]) == 1
        assert (await client.send("POST", UNRESPONSIVE, {})).status == 400
