"""The gateway, a device and the platform behind the shipped listeners and access list."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests.e2e.rig import CEILING_S, Daemon, event, now_ms, running
from tests.scenes.brokers import fleet_broker

pytestmark = pytest.mark.e2e

DISPATCH, OF_DEVICE = "gateway/v1/platform/dispatch", "gateway/v1/devices/home-1"


@asynccontextmanager
async def client(url: str, user: str, topic: str) -> AsyncIterator[aiomqtt.Client]:
    """A client that names another client id than its account, subscribed to `topic`."""
    port = int(url.rsplit(":", 1)[1])
    async with aiomqtt.Client(
        "127.0.0.1", port, username=user, password=user, identifier=f"any-{user}", protocol=aiomqtt.ProtocolVersion.V5
    ) as one:
        await one.subscribe(topic, qos=1)
        yield one


async def first(of: aiomqtt.Client, topic: str) -> Any:
    """The body of the next message on `topic`."""
    async with asyncio.timeout(CEILING_S):
        async for message in of.messages:
            if str(message.topic) == topic:
                return json.loads(bytes(message.payload))
    raise EOFError


async def test_gateway_device_and_platform_work_with_the_shipped_access_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "gateway")
    async with fleet_broker(tmp_path, "gateway", "platform", "home-1") as (broker, devices):
        account = {"url": broker.url, "username": "gateway", "password": "env:BROKER_PASSWORD"}
        change = {
            "devices": {"mqtt": {"broker": account | {"client_id": "gateway"}}},
            "platform": {"broker": account | {"client_id": "gateway-platform"}},
            "intervals": {"length_s": 10, "grace_s": 0},
            "sinks": [{"kind": "mqtt", "name": "platform-mqtt"}],
        }
        daemon = Daemon(tmp_path, broker.port, change)
        await daemon.enroll(["home-1"])
        async with (
            running(daemon),
            client(devices, "home-1", f"{OF_DEVICE}/command") as home,
            client(broker.url, "platform", "gateway/v1/platform/#") as platform,
            asyncio.TaskGroup() as group,
        ):
            talking = group.create_task(talk(home), name="home-1")
            start = now_ms() + 1_000
            body = event("e1", start_ms=start, end_ms=start + 60_000, target_w=1_000)
            await daemon.until("/readyz", lambda reply: "not connected" not in str(reply.body), "connected")
            await platform.publish(DISPATCH, json.dumps(body), qos=1)
            assert (await first(platform, f"{DISPATCH}/answers"))["outcome"] == "accepted"
            assert (await first(home, f"{OF_DEVICE}/command"))["id"] == "home-1"
            assert (await first(platform, "gateway/v1/platform/intervals"))["device"] == "home-1"
            talking.cancel()


async def talk(home: aiomqtt.Client) -> None:
    """What a battery says, a few times a second."""
    seq = 0
    while True:
        t, seq = now_ms(), seq + 1
        of = {"id": "home-1", "t": t}
        live = of | {"battery_w": 0, "soc_pct": 60, "mode": "self_consumption", "grid": "on"}
        energy = of | {"boot": 1, "seq": seq, "span_ms": 200, "charge_wh": 0, "discharge_wh": 0}
        await home.publish(f"{OF_DEVICE}/status", json.dumps({"id": "home-1", "online": True}), qos=1, retain=True)
        await home.publish(f"{OF_DEVICE}/live", json.dumps(live), qos=0)
        await home.publish(f"{OF_DEVICE}/energy", json.dumps(energy), qos=1)
        await asyncio.sleep(0.2)
