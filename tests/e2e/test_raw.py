"""Energy of devices that nobody knows yet, through a real broker, a missing profile and SIGKILL: all of it, once."""

import asyncio
import json
import random
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiomqtt
import pytest

from tests.e2e.rig import PROFILES, Daemon, now_ms, running, utc
from tests.scenes.brokers import mosquitto_process

pytestmark = pytest.mark.e2e

DEVICES = ("home-1", "home-2", "home-3")
LENGTH_S = 10


class Meters:
    """Devices without counters: every message carries its own energy, in 1/64 Wh, so that sums are exact."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._rng = random.Random(7)
        self._seq = 0
        self.began_ms = now_ms()
        self.sent_64 = dict.fromkeys(DEVICES, 0)

    async def send(self, times: int) -> None:
        """Messages of all of them, some twice, as firmware does that missed the acknowledgement."""
        for _ in range(times):
            self._seq += 1
            await asyncio.gather(*(self._send(device) for device in DEVICES))
            await asyncio.sleep(0.05)

    async def _send(self, device: str) -> None:
        energy_64 = self._rng.randint(1, 9)
        self.sent_64[device] += energy_64
        body = {
            "id": device, "boot": 1, "seq": self._seq, "t": now_ms() - 10, "span_ms": 40,
            "charge_wh": energy_64 / 64, "discharge_wh": 0, "battery_w": 0, "soc_pct": 50,
        }  # fmt: skip
        for _ in range(self._rng.choice((1, 1, 2))):
            await self._client.publish(f"gateway/v1/devices/{device}/energy", json.dumps(body), qos=1)


async def kept(daemon: Daemon) -> dict[str, tuple[int, str]]:
    reply = await daemon.ask("GET", "/v1/raw-messages")
    return {one["topic"].split("/")[3]: (one["messages"], one["reason"]) for one in reply.body["topics"]}


async def _kept_of_all(daemon: Daemon, least: int, reason: str) -> None:
    async def there() -> bool:
        found = await kept(daemon)
        return len(found) == len(DEVICES) and all(n >= least and why == reason for n, why in found.values())

    async with asyncio.timeout(20):
        while not await there():
            await asyncio.sleep(0.1)


async def test_energy_of_devices_that_are_imported_late_is_counted_once_through_kills_and_a_missing_profile(
    tmp_path: Path,
) -> None:
    others = tmp_path / "profiles"
    shutil.copytree(PROFILES, others, ignore=shutil.ignore_patterns("reference-mqtt.yaml", "README.md"))
    plain: dict[str, Any] = {"intervals": {"length_s": LENGTH_S, "grace_s": 0}}
    async with (
        mosquitto_process(tmp_path) as broker,
        aiomqtt.Client("127.0.0.1", broker.port, identifier="meters", protocol=aiomqtt.ProtocolVersion.V5) as client,
    ):
        daemon, meters = Daemon(tmp_path, broker.port, plain), Meters(client)
        async with running(daemon):
            await daemon.until("/readyz", lambda reply: "not connected" not in str(reply.body), "connected")
            await meters.send(40)
            await _kept_of_all(daemon, 40, "its device is not registered")
            await daemon.child.kill()
            # it waits at the broker
            await meters.send(10)
            daemon.change = plain | {"profiles_dir": str(others)}
            daemon.write_config()
            await daemon.start()
            await _kept_of_all(daemon, 50, "no installed profile has this topic")
            await daemon.child.kill()
            daemon.change = plain
            daemon.write_config()
            await daemon.start()
            warned = await daemon.until("/readyz", lambda reply: "kept raw" in str(reply.body), "a warning of them")
            assert "first of home-" in str(warned.body["warnings"])
            rows = [{"id": device, "profile": "reference-mqtt", **HOME} for device in DEVICES]
            await daemon.import_rows(rows)
            await meters.send(5)
            await daemon.until("/v1/raw-messages", lambda reply: reply.body["total"] == 0, "nothing is kept raw")
            await _told(daemon, meters)


async def _told(daemon: Daemon, meters: Meters) -> None:
    """The intervals have what was sent, to the 1/64 Wh."""
    span = urlencode({"from": utc(meters.began_ms - 60_000), "to": utc(now_ms() + 600_000), "limit": 1_000})
    told: dict[str, float] = {}

    def all_there() -> bool:
        return told == {device: sent / 64 for device, sent in meters.sent_64.items()}

    async with asyncio.timeout(60):
        while not all_there():
            reply = await daemon.ask("GET", f"/v1/intervals?{span}")
            assert reply.status == 200, reply
            told.clear()
            for one in reply.body["intervals"]:
                told[one["device"]] = told.get(one["device"], 0.0) + one["charge_wh"]
            await asyncio.sleep(0.5)


HOME = {
    "site": "s", "capacity_wh": "10000", "discharge_w_max": "5000", "charge_w_max": "5000", "reserve_pct": "20",
    "fuse_protected": "true",
}  # fmt: skip
