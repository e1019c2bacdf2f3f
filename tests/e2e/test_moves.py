"""A battery that gets another address while it is under control, and a gateway that is killed meanwhile."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulators.faces.foxess_h3 import FoxessH3
from simulators.faces.sungrow_sh import SungrowSh
from tests.e2e.rig import Daemon, battery, event, eventually, now_ms, running
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e
TARGET_W = 2_000.0


def row(url: str, **other: Any) -> bytes:
    found = {
        "id": "fox", "profile": "foxess-h3", "site": "s", "capacity_wh": 10_000, "discharge_w_max": 5_000,
        "charge_w_max": 5_000, "inverter_w_max": 5_000, "reserve_pct": 20, "export_allowed": True,
        "grid_charge_allowed": True, "site_import_w_max": "unlimited", "site_export_w_max": "unlimited",
        "fuse_protected": True, "address": url, "experimental": True,
    }  # fmt: skip
    return json.dumps(found | other).encode() + b"\n"


async def imported(daemon: Daemon, url: str, **other: Any) -> dict[str, Any]:
    reply = await daemon.ask("POST", "/v1/devices", body=row(url, **other), kind="application/x-ndjson")
    assert (reply.status, reply.body["rejected_total"]) == (200, 0), reply
    return dict(reply.body)


async def connections(daemon: Daemon) -> list[tuple[str, str | None]]:
    reply = await daemon.ask("GET", "/v1/devices/fox/connections")
    return [(one["address"], one["ended"]) for one in reply.body["connections"]]


async def test_battery_is_handed_back_at_its_old_address_before_the_event_has_the_one_at_the_new(
    tmp_path: Path,
) -> None:
    async with standin_process(tmp_path) as broker, battery(FoxessH3) as (old, here), battery(FoxessH3) as (new, there):
        await _story(Daemon(tmp_path, broker.port, {"control": {"fleet_w_per_s": 100_000}}), old, here, new, there)


async def _story(daemon: Daemon, old: FoxessH3, here: str, new: FoxessH3, there: str) -> None:
    before, untouched = old.settings(), new.settings()
    async with running(daemon):
        assert (await imported(daemon, here))["enrolled"] == 1
        start_ms = now_ms()
        asked = event("evening", start_ms=start_ms, end_ms=start_ms + 600_000, target_w=TARGET_W)
        assert (await daemon.post("/v1/dispatch-events", asked)).status == 200
        await eventually(lambda: abs(old.plant.battery_w - TARGET_W) < 150, "the event's power at the old address")
        assert (await imported(daemon, there))["departing"] == 1
        await daemon.child.kill()
        assert old.controlled, "it was not handed back before the kill"
        assert new.settings() == untouched
        await daemon.start()
        await eventually(lambda: not old.controlled, "the release at the old address")
        await eventually(lambda: abs(new.plant.battery_w - TARGET_W) < 150, "the event's power at the new address")
        assert old.settings() == before
        assert (await daemon.ask("GET", "/v1/departures")).body["total"] == 0
        assert await connections(daemon) == [(here, "moved"), (there, None)]

        assert (await daemon.ask("DELETE", "/v1/devices/fox")).status == 202
        await eventually(lambda: not new.controlled, "the release at the new address")
        await daemon.until("/v1/devices", lambda reply: reply.body["total"] == 0, "removed")
        assert new.settings() == untouched
        assert (await imported(daemon, here))["enrolled"] == 1
        await eventually(lambda: abs(old.plant.battery_w - TARGET_W) < 150, "the event's power where it is again")
        assert await connections(daemon) == [(here, "moved"), (there, "removed"), (here, None)]
        await daemon.ask("DELETE", "/v1/dispatch-events/evening")
        await eventually(lambda: not old.controlled, "the release")
        assert old.settings() == before


async def test_battery_that_gets_another_address_from_its_router_keeps_its_event_and_gets_its_settings_back_there(
    tmp_path: Path,
) -> None:
    """The serial number of its rows says that it is the same one; where it was, nothing answers any more."""
    async with standin_process(tmp_path) as broker, battery(SungrowSh) as (battery_, here):
        daemon = Daemon(tmp_path, broker.port, {"control": {"fleet_w_per_s": 100_000}})
        before = battery_.settings()
        same = {"profile": "sungrow-sh", "parameters": {"serial": battery_.serial}}
        async with running(daemon):
            await imported(daemon, here, **same)
            start_ms = now_ms()
            asked = event("evening", start_ms=start_ms, end_ms=start_ms + 600_000, target_w=TARGET_W)
            assert (await daemon.post("/v1/dispatch-events", asked)).status == 200
            await eventually(lambda: abs(battery_.plant.battery_w - TARGET_W) < 150, "the event's power")
            assert battery_.settings() != before
            await battery_.stop()
            there = (await battery_.start()).url
            assert (await imported(daemon, there, **same))["departing"] == 1
            await daemon.until("/v1/departures", lambda reply: reply.body["total"] == 0, "it went along")
            await daemon.child.kill()
            await daemon.start()
            await daemon.until(
                "/v1/devices/fox", lambda reply: reply.body["online"] is True, "it answers at the new address"
            )  # fmt: skip
            await eventually(lambda: abs(battery_.plant.battery_w - TARGET_W) < 150, "the event's power")
            await daemon.ask("DELETE", "/v1/dispatch-events/evening")
            await eventually(lambda: battery_.settings() == before, "its settings from before the event")
            assert await connections(daemon) == [(here, "moved"), (there, None)]
