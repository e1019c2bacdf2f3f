"""The route that tells how uploads to the aggregator stand, with the stand-in of the aggregator."""

import random
from pathlib import Path
from typing import Any

import orjson

from gateway.api.interval_models import LeapStatus
from gateway.api.routes.leap import LeapUploads
from gateway.ports.sinks import Stop
from gateway.services.uplink.delivery import SinkDelivery
from gateway.services.uplink.resend import Resend
from gateway.sinks.leap.confirmed import LeapConfirmed
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.query import IntervalQueries
from simulators.aggregator import Operation, answer
from tests.builders.interval_logs import T0, quarter
from tests.builders.leap import meter_id
from tests.scenes.leap import Rig, rig


def body(status: LeapStatus) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(status.model_dump_json())
    return found


async def uploads(r: Rig, directory: Path, confirmed: LeapConfirmed) -> tuple[LeapUploads, IntervalLog]:
    log = IntervalLog(directory / "log", clock=r.clock)
    await log.__aenter__()
    queries = IntervalQueries(log.files_from, log.check)
    delivery = SinkDelivery(r.sink, log_=log, finder=Resend(log, queries, r.clock), clock=r.clock, rng=random.Random(1))
    return LeapUploads(log=log, clock=r.clock, confirmed=confirmed, sinks=[(r.sink, delivery)]), log


async def test_leap_status_tells_the_last_file_what_is_missing_and_until_when(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(1, 2)) as r:
        status, log = await uploads(r, tmp_path, LeapConfirmed())
        try:
            before = body(await status.status())
            assert (before["state"], len(before["unconfirmed"]), before["confirmed"]) == ("UNCONFIRMED", 7, {})
            (sink,) = before["sinks"]
            assert (sink["last_file"], sink["on_its_way"], sink["last_accepted"]) == (None, None, None)
            await r.send(*(quarter(1, index=i) for i in range(4)))
            (sink,) = body(await status.status())["sinks"]
            assert (sink["last_file"]["status"], sink["last_file"]["rows"]) == ("COMPLETED", 4)
            assert sink["last_accepted"] == {"start": "2027-01-15T08:45:00Z", "device": "home-1", "revision": 1}
            await r.restart()
            again, other = await uploads(r, tmp_path / "again", LeapConfirmed())
            (recalled,) = body(await again.status())["sinks"]
            await other.__aexit__(None, None, None)
            assert (recalled["last_file"], recalled["last_accepted"]) == (sink["last_file"], sink["last_accepted"])
            assert sink["missing"]["oldest"] == "2027-01-15T00:00:00Z"
            assert sink["missing"]["oldest_device"] == "home-1"
            assert sink["missing"]["next_deadline"] == "2027-01-23T00:00:00Z"
            assert sink["missing_unknown"] is None
        finally:
            await log.__aexit__(None, None, None)


async def test_leap_status_tells_why_it_does_not_know_what_is_missing(tmp_path: Path) -> None:
    confirmed = LeapConfirmed(
        upload_schema="load", energy_columns="generated_consumed", energy_kw="meter", penalty_sign="reduces",
        error_lines="header_is_line_1", transport="http",
    )  # fmt: skip
    async with rig(tmp_path) as r:
        status, log = await uploads(r, tmp_path, confirmed)
        try:
            r.aggregator.script(Operation.MISSING, answer(403, b"no access"), answer(503))
            found = body(await status.status())
            assert (found["state"], found["unconfirmed"]) == ("CONFIRMED", [])
            assert found["sinks"][0]["missing_unknown"] == "http_403: no access"
            assert body(await status.status())["sinks"][0]["missing_unknown"] == "http_503"
        finally:
            await log.__aexit__(None, None, None)


async def test_leap_status_shows_a_file_on_its_way_and_rows_that_wait(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        status, log = await uploads(r, tmp_path, LeapConfirmed())
        try:
            r.aggregator.script(Operation.UPLOADS, answer(403))
            assert isinstance(await r.send(quarter(1)), Stop)
            (sink,) = body(await status.status())["sinks"]
            assert (sink["on_its_way"]["status"], sink["on_its_way"]["rows"]) == ("uploaded", 1)
            r.clock.advance(s=T0 / 1000 - r.clock.now().utc_ms / 1000)
            await r.send(quarter(1, index=1))
            (sink,) = body(await status.status())["sinks"]
            assert sink["waiting"] == {"ends_in_the_future": 1}
            assert meter_id(1) not in str(sink["last_file"])
        finally:
            await log.__aexit__(None, None, None)
