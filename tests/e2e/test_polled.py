"""The daemon with a Modbus battery: enrolled over REST, dispatched, killed in mid-event, taken up again, released."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from simulators.faces.foxess_h3 import FoxessH3
from tests.e2e.rig import Daemon, battery, running
from tests.scenes.brokers import BrokerProcess, standin_process

pytestmark = pytest.mark.e2e
CEILING_S = 30.0


async def _until(holds: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(CEILING_S):
            while not holds():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


async def _device(daemon: Daemon, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The device as REST shows it, once it is as wanted."""
    body: dict[str, Any] = {}
    for _ in range(round(CEILING_S / 0.2)):
        body = (await daemon.ask("GET", "/v1/devices/fox")).body
        if wanted(body):
            return body
        await asyncio.sleep(0.2)
    raise AssertionError(body)


def _enrollment(url: str) -> bytes:
    row = {
        "id": "fox", "profile": "foxess-h3", "site": "s", "capacity_wh": 10_000, "discharge_w_max": 5_000,
        "charge_w_max": 5_000, "inverter_w_max": 5_000, "reserve_pct": 20, "export_allowed": True,
        "grid_charge_allowed": True, "site_import_w_max": "unlimited", "site_export_w_max": "unlimited",
        "fuse_protected": True,
        "address": url, "experimental": True,
    }  # fmt: skip
    return json.dumps(row).encode() + b"\n"


def _event(target_w: int) -> bytes:
    now = datetime.now(tz=UTC)
    event = {
        "id": "evening", "revision": 1, "kind": "real", "program": "test", "group": {"all": True},
        "start": now.isoformat(), "end": (now + timedelta(hours=1)).isoformat(), "target_w": target_w, "priority": 10,
    }  # fmt: skip
    return json.dumps(event).encode()


async def test_modbus_battery_is_dispatched_survives_a_kill_and_is_handed_back(tmp_path: Path) -> None:
    async with standin_process(tmp_path) as broker, battery(FoxessH3) as (face, url):
        await _story(Daemon(tmp_path, broker.port), broker, face, url)


async def _story(daemon: Daemon, broker: BrokerProcess, face: FoxessH3, url: str) -> None:
    before = face.settings()
    async with running(daemon):
        reply = await daemon.ask("POST", "/v1/devices", body=_enrollment(url), kind="application/x-ndjson")
        assert reply.body["enrolled"] == 1, reply.body
        shown = await _device(
            daemon, lambda d: (d["session"] or {}).get("state") == "ready" and d["soc_pct"] is not None
        )
        assert shown["soc_pct"] == pytest.approx(face.plant.soc_pct, abs=1.01)
        assert shown["steerable"] is True
        assert (await daemon.ask("POST", "/v1/dispatch-events", body=_event(2_000))).status == 200
        await _until(lambda: abs(face.plant.battery_w - 2_000) < 150, "the event's power")
        await daemon.child.kill()
        assert face.controlled
        await daemon.start()
        await _device(daemon, lambda d: d["held"] == "controlled" and d["setpoint_w"] not in (None, 0))
        assert abs(face.plant.battery_w - 2_000) < 300
        assert (await daemon.ask("DELETE", "/v1/dispatch-events/evening")).status == 200
        await _until(lambda: not face.controlled, "the release")
        await _device(daemon, lambda d: d["held"] == "free")
        assert face.settings() == before
