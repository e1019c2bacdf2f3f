"""A question changes nothing: whatever is asked by GET, the metrics before and after it are the same."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.observability.metrics import Sample, registry
from gateway.schemas.interval_rows import rfc3339
from gateway.services.control.metrics import control_samples, dispatch_samples, fleet_samples
from gateway.sinks.leap.settings import LeapCsvSinkSettings
from gateway.sinks.leap.sink import LeapCsvSink
from tests.api.routes.test_telemetry import DAY_MS, Street, at, street
from tests.api.test_app import DOCUMENT
from tests.builders.energy_batches import T0
from tests.builders.fakes import ScriptedSink
from tests.builders.leap import meter_id

STRETCH = {"from": at(0), "to": at(12)}
QUERIES = {
    "/v1/completeness": {"day": rfc3339(DAY_MS)[:10]},
    "/v1/intervals": STRETCH,
    "/v1/sinks/{name}/missing": STRETCH,
}
NAMES = {"name": "leap", "id": "bat-1"}
ASKED = sorted(path for path, methods in DOCUMENT["paths"].items() if "get" in methods and path != "/metrics")


def aggregator(directory: Path) -> LeapCsvSink:
    """A sink whose homes have meters and intervals of five minutes, which it does not take."""
    meters = directory / "meters.csv"
    meters.write_text("".join(["device,meter_id\n", *(f"bat-{i},{meter_id(i)}\n" for i in range(3))]))
    settings = LeapCsvSinkSettings.model_validate(
        {"kind": "leap_csv", "name": "leap", "url": "http://127.0.0.1:1", "token": "nobody-asks-for-it",
         "meters": str(meters)}
    )  # fmt: skip
    return LeapCsvSink(settings, clock=ManualClock(utc_ms=T0), directory=directory / "outbox")


async def scraped(s: Street, sink: LeapCsvSink) -> bytes:
    world, link = s.rig.world, s.rig.link
    assert link is not None

    def samples() -> Iterable[Sample]:
        yield from control_samples(world.queries)
        yield from dispatch_samples(world.dispatcher, world.queries)
        yield from fleet_samples(world.fleet, world.clock)
        yield from link.samples()
        yield from (sample for delivery in s.deliveries for sample in delivery.samples())
        yield from s.log.stats.samples()
        yield from sink.samples()

    return await registry([samples], []).text()


@pytest.mark.parametrize("path", ASKED)
async def test_question_moves_no_metric(tmp_path: Path, path: str) -> None:
    sink = aggregator(tmp_path)
    async with street(tmp_path / "log", sink, ScriptedSink("other")) as s:
        before = await scraped(s, sink)
        url = re.sub(r"\{(\w+)\}", lambda found: NAMES[found[1]], path)
        for _ in range(2):
            async with s.rig.client.get(url, params=QUERIES.get(path, {})) as reply:
                await reply.read()
                assert reply.status in (200, 404), url
        assert await scraped(s, sink) == before
    await sink.close()
