"""From messages of batteries to the aggregator: real processes and stand-ins of the broker and the aggregator."""

import uuid
from decimal import Decimal
from pathlib import Path

import aiomqtt
import orjson
import pytest

from simulators.aggregator import Aggregator
from simulators.clock import RealClock
from tests.e2e.rig import Daemon, eventually, now_ms, running
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e

KEY = "key-of-the-aggregator"
QUARTER_MS, MINUTE_MS = 900_000, 60_000


async def test_aggregator_has_every_quarter_of_the_homes_that_have_a_meter(tmp_path: Path) -> None:
    homes = {f"home-{i}": str(uuid.uuid4()) for i in range(3)}
    (tmp_path / "key").write_text(KEY, encoding="utf-8")
    (tmp_path / "key").chmod(0o600)
    lines = [f"{home},{meter}\n" for home, meter in homes.items()]
    (tmp_path / "meters.csv").write_text("".join(["device,meter_id\n", *lines]), encoding="utf-8")
    async with (
        standin_process(tmp_path) as broker,
        Aggregator(token=KEY, meters=homes.values(), clock=RealClock()) as aggregator,
    ):
        sink = {
            "kind": "leap_csv", "name": "leap", "url": aggregator.url, "token": f"file:{tmp_path / 'key'}",
            "meters": "meters.csv", "poll_s": "50ms", "gather_s": "0s",
        }  # fmt: skip
        daemon = Daemon(tmp_path, broker.port, {"sinks": [sink], "intervals": {"length_s": "15min", "grace_s": "1s"}})
        await daemon.enroll([*homes, "home-without-a-meter"])
        async with running(daemon):
            await daemon.ready()
            first_ms = now_ms() // QUARTER_MS * QUARTER_MS - 3 * QUARTER_MS
            await sent(broker.port, [*homes, "home-without-a-meter"], first_ms, minutes=45)
            await eventually(lambda: len(aggregator.rows) >= 9, "every quarter is there", alive=daemon.child)
            metrics = (await daemon.ask("GET", "/metrics")).body
        assert set(aggregator.rows) == {
            (meter, first_ms + i * QUARTER_MS) for meter in homes.values() for i in range(3)
        }
        told = {(row.generated_kwh, row.consumed_kwh) for row in aggregator.rows.values()}
        assert told == {(Decimal("0.375"), Decimal("0.01875"))}
        assert 'gateway_leap_meters{sink="leap"} 3.0' in metrics
        assert KEY not in (tmp_path / "gateway.yaml").read_text(encoding="utf-8")
    assert daemon.faults_logged() == []


async def sent(port: int, homes: list[str], first_ms: int, *, minutes: int) -> None:
    """A message a minute and home, each with 25 Wh discharged and 1.25 Wh charged."""
    async with aiomqtt.Client("127.0.0.1", port, identifier="homes", protocol=aiomqtt.ProtocolVersion.V5) as client:
        for minute in range(1, minutes + 1):
            for home in homes:
                body = {
                    "id": home, "boot": 1, "seq": minute, "t": first_ms + minute * MINUTE_MS, "span_ms": MINUTE_MS,
                    "charge_wh": 1.25, "discharge_wh": 25.0, "battery_w": 1_425, "soc_pct": 50,
                }  # fmt: skip
                await client.publish(f"gateway/v1/devices/{home}/energy", orjson.dumps(body), qos=1)
