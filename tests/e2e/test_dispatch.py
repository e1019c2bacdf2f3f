"""Dispatch through the real daemon to simulated homes: late commands, stops with and without release, stop-all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from simulators.battery import Mode
from simulators.clock import RealClock
from simulators.commands import CommandSeen, Op, Result
from simulators.faults import Fault, FaultKind
from simulators.firmware import FirmwareFleet
from simulators.homes import inventory_rows
from tests.builders.homes import homes
from tests.e2e.rig import CEILING_S, Daemon, event, eventually, now_ms, running
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e

N = 4
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
CONTROL = {"release_spread_s": 2, "fleet_w_per_s": 4_000, "command_valid_s": 3}


@dataclass(frozen=True, slots=True)
class Street:
    """A few homes on a broker, enrolled with a gateway that is not running yet."""

    daemon: Daemon
    fleet: FirmwareFleet

    @property
    def remote(self) -> int:
        """How many homes are steered from outside."""
        return int((self.fleet.devices.batteries.mode == Mode.REMOTE).sum())

    def commands(self, index: int | None = None) -> list[CommandSeen]:
        return [seen for seen in self.fleet.devices.commands_seen if index in (None, seen.index)]

    async def enroll(self) -> None:
        """Over REST, then wait for a reading of each."""
        await self.daemon.import_rows(inventory_rows(self.fleet.devices.homes))
        await self.daemon.until(
            "/v1/devices", lambda r: all(d["soc_pct"] is not None for d in r.body["devices"]), "a reading of each"
        )

    async def discharge(self, name: str, *, s: float, target_w: float = 4_000) -> None:
        """Start an event now that lasts `s` seconds."""
        start = now_ms()
        wanted = event(name, start_ms=start, end_ms=start + round(s * 1000), target_w=target_w)
        assert (await self.daemon.post("/v1/dispatch-events", wanted)).status == 200


@asynccontextmanager
async def street(directory: Path) -> AsyncIterator[Street]:
    async with standin_process(directory) as broker, asyncio.TaskGroup() as tasks:
        plain = homes(N, soc_start_pct=80.0, reserve_pct=20.0, discharge_w_max=5_000.0, capacity_wh=10_000.0)
        fleet = FirmwareFleet(plain, broker.url, RealClock(), live_s=0.5, energy_s=2)
        living = tasks.create_task(fleet.run(), name="fleet")
        await fleet.wait_connected(CEILING_S)
        try:
            yield Street(Daemon(directory, broker.port, {"control": CONTROL}), fleet)
        finally:
            living.cancel()


async def test_command_that_arrives_after_its_time_and_the_events_end_has_no_effect(tmp_path: Path) -> None:
    async with street(tmp_path) as s, running(s.daemon):
        await s.enroll()
        # The way to the device is slow, and then it is cut off until the event is over.
        s.fleet.inject(0, Fault(kind=FaultKind.LAG, value=5.0, for_s=6.0))
        await eventually(lambda: len(s.fleet.faults) == 1, "the slow way", alive=s.daemon.child)
        await s.discharge("short", s=8)
        device = s.fleet.devices.homes.ids[0]
        await s.daemon.until(f"/v1/devices/{device}", lambda r: r.body["setpoint_w"] is not None, "a command sent")
        s.fleet.inject(0, Fault(kind=FaultKind.OFFLINE, for_s=12.0))
        await eventually(lambda: s.remote == N - 1, "the others follow", alive=s.daemon.child)
        await eventually(lambda: s.commands(0) != [], "the late commands reach the device", alive=s.daemon.child)
        late = s.commands(0)
        assert all(seen.result is Result.EXPIRED for seen in late if seen.op in (Op.SETPOINT, Op.HOLD))
        assert any(seen.op in (Op.SETPOINT, Op.HOLD) for seen in late)
        assert s.fleet.devices.batteries.mode[0] == Mode.SELF_CONSUMPTION
        assert s.fleet.devices.last_cmd[0] == 0 or s.commands(0)[-1].op is Op.RELEASE
        await eventually(lambda: s.remote == 0, "all are back", alive=s.daemon.child)
    assert s.daemon.faults_logged() == []


@pytest.mark.fault("F42")
async def test_sigterm_in_mid_event_leaves_leases_running_and_release_hands_all_back(tmp_path: Path) -> None:
    async with street(tmp_path) as s:
        async with running(s.daemon):
            await s.enroll()
            await s.discharge("long", s=600)
            await eventually(lambda: s.remote == N, "all follow", alive=s.daemon.child)
            assert await s.daemon.stop() == 0
        assert s.remote == N
        assert [seen for seen in s.commands() if seen.op is Op.RELEASE] == []
        before = {i: max(seen.cmd for seen in s.commands(i)) for i in range(N)}
        power_w = float(np.sum(s.fleet.devices.batteries.battery_w))
        assert power_w > 0

        again = Daemon(tmp_path, s.daemon.broker_port, s.daemon.change, release=True, http_port=s.daemon.http_port)
        seen_before = len(s.commands())
        async with running(again):
            await again.until(
                "/v1/dispatch-events/long",
                lambda r: r.body["state"] == "active" and (r.body["delivered_w"] or 0) > 0,
                "the event goes on",
            )
            await eventually(lambda: len(s.commands()) >= seen_before + N, "leases are renewed", alive=again.child)
            assert s.remote == N
            assert all(seen.result is Result.APPLIED for seen in s.commands()[seen_before:])
            assert all(min(c.cmd for c in s.commands()[seen_before:] if c.index == i) > before[i] for i in range(N))
            assert await again.stop() == 0
        assert s.remote == 0
        released = {seen.index for seen in s.commands() if seen.op is Op.RELEASE and seen.result is Result.APPLIED}
        assert released == set(range(N))
    assert again.faults_logged() == []


@pytest.mark.fault("F11")
@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed (Debian: apt-get install faketime)")
@pytest.mark.parametrize("step", ["-3h", "+2d"])
async def test_dispatch_wall_clock_of_the_machine_steps_in_mid_event(tmp_path: Path, step: str) -> None:
    async with street(tmp_path) as s:
        # the gateway's wall clock is in this file
        moved = tmp_path / "time"
        moved.write_text("+0", encoding="ascii")
        s.daemon.child.env |= {
            "LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_TIMESTAMP_FILE": str(moved), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        async with running(s.daemon):
            await s.enroll()
            end_ms = now_ms() + 15_000
            await s.discharge("through", s=15)
            await eventually(lambda: s.remote == N, "all follow", alive=s.daemon.child)
            moved.write_text(step, encoding="ascii")
            told = await s.daemon.until("/readyz", lambda r: r.status == 503, "the step is told")
            assert any("wall clock stepped" in reason for reason in told.body["reasons"])
            await eventually(lambda: s.remote < N, "the event ends", alive=s.daemon.child)
            # a lease is whole seconds and ends no later than its event
            assert now_ms() >= end_ms - 1_000
            await eventually(lambda: s.remote == 0, "all are back", alive=s.daemon.child)
            # those whose lease ran out need no release
            await s.daemon.until(
                "/v1/devices", lambda r: all(d["authority"] == "device" for d in r.body["devices"]), "the gateway knows"
            )


async def test_stop_all_releases_everything_and_refuses_until_cleared(tmp_path: Path) -> None:
    async with street(tmp_path) as s, running(s.daemon):
        await s.enroll()
        await s.discharge("running", s=600)
        await eventually(lambda: s.remote == N, "all follow", alive=s.daemon.child)
        assert (await s.daemon.post("/v1/dispatch/stop-all", {"active": True, "by": "operator"})).status == 200
        await eventually(lambda: s.remote == 0, "all are released", alive=s.daemon.child)
        await s.daemon.until(
            "/v1/devices", lambda r: all(d["held"] == "free" for d in r.body["devices"]), "the gateway knows"
        )
        assert (await s.daemon.ask("GET", "/v1/dispatch-events/running")).body["state"] == "cancelled"
        start = now_ms()
        fresh = event("fresh", start_ms=start, end_ms=start + 600_000, target_w=2_000)
        refused = await s.daemon.post("/v1/dispatch-events", fresh)
        assert (refused.status, refused.body["outcome"], refused.body["reason"]) == (409, "rejected", "stopped")
        assert (await s.daemon.post("/v1/dispatch/stop-all", {"active": False})).status == 200
        assert (await s.daemon.post("/v1/dispatch-events", fresh)).status == 200
        await eventually(lambda: s.remote == N, "all follow again", alive=s.daemon.child)
    assert s.daemon.faults_logged() == []
