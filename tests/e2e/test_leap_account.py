"""The account at the aggregator with the real daemon: 200 meters are created once, and their enrollment comes back."""

import os
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from simulators.aggregator import Access, Aggregator, AssetFate, Mishap, Operation, Trouble
from tests.e2e.rig import Daemon, running
from tests.scenes.brokers import standin_process
from tests.services.programs.stores import KEY as PERSONAL_KEY

pytestmark = pytest.mark.e2e

KEY, CANARY, SHARED = "key-of-the-account", "Kanarie", "the-shared-header-0123"
HOMES = 200
ASSET = {
    "transmission_region": "CAISO", "customer_classification": "RESIDENTIAL", "load_types": ["BATTERY_STORAGE"],
    "meter_type": "DEVICE", "device.battery_energy_capacity_kwh": 10.0,
}  # fmt: skip
PERIOD = {
    "program_identifier": "CEC-DSGS", "delivery_period": "CEC-DSGS_2035_AUG_OCT",
    "delivery_period_start_date_time": "2035-08-01T07:00:00Z",
    "delivery_period_end_date_time": "2035-11-01T07:00:00Z", "enrollment_status": "ACTIVE",
    "enrollment_deadlines": [],
}  # fmt: skip
CUSTOMERS = "customer,end_customer_name,street_1,city,postal_code,state_or_province_code\n"


def configured(tmp_path: Path, broker_port: int, url: str) -> Daemon:
    for name, text in (("key", KEY), ("personal", PERSONAL_KEY), ("shared", SHARED)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o600)
    change = {
        "leap": {"account": {"environment": "staging", "key": f"file:{tmp_path / 'key'}", "url": url}},
        "signals": {"leap": {"secret": f"file:{tmp_path / 'shared'}"}},
        "customers": {"personal_key": f"file:{tmp_path / 'personal'}"},
    }
    return Daemon(tmp_path, broker_port, change)


async def hinted(daemon: Daemon, secret: str) -> int:
    """The answer to a webhook of the aggregator about a meter."""
    body = {"webhook_event_id": "1", "payload": {"webhook_event_type": "meter.enrollment.global-status.updated"}}
    headers = {"x-leap-secret": secret}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{daemon.url}/v1/signals/leap/platform", json=body, headers=headers) as reply,
    ):
        return reply.status


async def sent(daemon: Daemon, aggregator: Aggregator, confirm: int | None) -> Any:
    body = {"kind": "meter", "dry_run": False, "confirm": confirm}
    found = (await daemon.post("/v1/outbox/runs", body)).body
    aggregator.meter_jobs.settle()
    return found


async def test_meters_are_created_once_over_a_kill_and_their_enrollment_comes_back(tmp_path: Path) -> None:
    aggregator = Aggregator(keys={KEY: Access()}, meters={})
    async with standin_process(tmp_path) as broker, aggregator:
        daemon = configured(tmp_path, broker.port, aggregator.url)
        people = [f"c-{i},{CANARY} {i},{i} {CANARY} Way,Fresno,93650,CA" for i in range(HOMES)]
        rows = [{"subject": f"home-{i}", "after": ASSET | {"customer": f"c-{i}"}} for i in range(HOMES)]
        aggregator.meter_jobs.fates |= {
            "home-7": AssetFate(failed_fields={"customer.street_1": CANARY}),
            "home-8": AssetFate(status="DUPLICATE", name="DUPLICATE_METER"),
        }
        async with running(daemon):
            await daemon.ready()
            table = (CUSTOMERS + "\n".join(people) + "\n").encode()
            assert (await daemon.ask("POST", "/v1/customers", body=table, kind="text/csv")).status == 200
            assert (await daemon.post("/v1/outbox", {"kind": "meter", "rows": rows})).status == 200
            refused = await sent(daemon, aggregator, None)
            assert refused["refusal"] == "200 rows would go, more than 1 of 0 meters: confirm 200"
            # the request has its effect, and its answer is lost with the gateway
            aggregator.script(Operation.METER_JOB_CREATE, Mishap(trouble=Trouble.CUT, done=True))
            assert (await sent(daemon, aggregator, HOMES))["error"] is not None
            await daemon.child.kill()
        again = Daemon(tmp_path, broker.port, daemon.change, http_port=daemon.http_port)
        async with running(again):
            await again.ready()
            assert (await sent(again, aggregator, 0))["error"] is None
            assert (await sent(again, aggregator, 0))["error"] is None
            listed = (await again.ask("GET", "/v1/outbox?unfinished=0&limit=1000")).body["entries"]
            states = {row["subject"]: (row["state"], row["detail"]) for row in listed}
            assert states.pop("home-7") == ("refused", "FAILED: ADDRESS_NOT_FOUND: customer.street_1")
            assert states.pop("home-8") == ("refused", "DUPLICATE: DUPLICATE_METER")
            assert set(states.values()) == {("done", "")}
            assert len(aggregator.meter_book.meters) == HOMES - 2
            # again: what the aggregator has is no change
            more = (await again.post("/v1/outbox", {"kind": "meter", "rows": rows[10:]})).body["entries"]
            assert more == []
            for meter in aggregator.meter_book.meters.values():
                meter.programs = [PERIOD]
            read = (await again.post("/v1/leap/enrollments", {})).body
            assert (read["meters"], read["changed"], read["conflicts"]) == (HOMES - 2, HOMES - 2, [])
            assert (await again.post("/v1/leap/enrollments", {})).body["changed"] == 0
            for meter in aggregator.meter_book.meters.values():
                meter.programs = [PERIOD | {"enrollment_status": "PENDING"}]
            assert await hinted(again, "wrong") == 401
            assert [await hinted(again, SHARED) for _ in range(2)] == [202, 202]
            await again.until(
                "/v1/leap/enrollments", lambda reply: reply.body["changed"] == HOMES - 2, "all is read again"
            )
            page = (await again.ask("GET", "/v1/enrollments?limit=1000")).body["enrollments"]
            assert {one["status"] for one in page} == {"pending"}
        for folder, _, files in os.walk(tmp_path / "state"):
            for name in files:
                if name.startswith("personal"):
                    continue
                assert CANARY.encode() not in (Path(folder) / name).read_bytes(), name
        assert CANARY not in orjson.dumps(again.log_lines() + daemon.log_lines()).decode()
        assert aggregator.faults == []
