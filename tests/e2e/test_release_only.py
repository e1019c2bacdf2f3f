"""A gateway that breaks in every tick, as a service manager restarts it: it hands back what it has, and says why."""

import asyncio
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.app.daemon import EXIT_BROKEN
from gateway.domain.runs import ENDS_MAX
from simulators.battery import Mode
from simulators.clock import RealClock
from simulators.faces.goodwe_et import GoodweEt
from simulators.firmware import FirmwareFleet
from simulators.homes import inventory_rows
from tests.builders.homes import homes
from tests.e2e.broken_gateway import BROKEN
from tests.e2e.rig import CEILING_S, MAY, PROFILES, Daemon, Reply, battery, event, eventually, now_ms, run_cli, running
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e

LEASE_S = 40
RELEASED_WITHIN_S = 60.0
CONTROL = {"release_spread_s": 2, "fleet_w_per_s": 10_000, "command_valid_s": 3, "warm_up_s": 1}


@dataclass(slots=True)
class Service:
    """Starts the gateway again whenever it ends, as systemd does; `codes`: how it ended."""

    daemon: Daemon
    stopping: bool = False
    codes: list[int] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            process = self.daemon.child.process
            assert process is not None
            code = await process.wait()
            if self.stopping:
                return
            self.codes.append(code)
            await asyncio.sleep(1)
            await self.daemon.child.start()

    async def asked(self, path: str, method: str = "GET", body: bytes | None = None) -> Reply | None:
        """An answer, or None while nobody listens."""
        try:
            return await self.daemon.ask(method, path, body=body)
        except OSError:
            return None

    async def release_only(self) -> Reply:
        """Wait for a run that is release-only; returns what /readyz says."""
        async with asyncio.timeout(CEILING_S):
            while True:
                reply = await self.asked("/readyz")
                if reply is not None and reply.status == 503 and "release-only" in str(reply.body):
                    return reply
                await asyncio.sleep(0.1)

    async def metric(self, name: str) -> float:
        lines = str((await self.daemon.ask("GET", "/metrics")).body).splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def profiles(directory: Path) -> Path:
    """The products of this story, those with a timer on a short lease."""
    directory.mkdir()
    for name in ("reference-mqtt", "goodwe-et"):
        text = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8")
        if name == "reference-mqtt":
            assert text.count("lease_s: 120") == 1
            text = text.replace("lease_s: 120", f"lease_s: {LEASE_S}")
        (directory / f"{name}.yaml").write_text(text, encoding="utf-8")
    return directory


STARTS = f"start: broken invariant: {BROKEN}"
REASONS = {
    "control": f"control: broken invariant: {BROKEN}",
    # what was received and not checkpointed yet is counted again by a start
    "ingest": f"ingest: 4 failures within 60 s, the last ExceptionGroup: .*|{STARTS}",
    "recovery": STARTS,
}


@pytest.mark.fault("F41")
@pytest.mark.parametrize("part", REASONS)
async def test_gateway_that_breaks_again_and_again_hands_timed_and_untimed_products_back_across_kills(
    part: str, tmp_path: Path
) -> None:
    flag = tmp_path / "broken"
    async with standin_process(tmp_path) as broker, battery(GoodweEt) as (face, url), asyncio.TaskGroup() as tasks:
        plain = homes(2, soc_start_pct=80.0, reserve_pct=20.0, discharge_w_max=5_000.0, capacity_wh=10_000.0)
        fleet = FirmwareFleet(plain, broker.url, RealClock(), live_s=0.5, energy_s=2)
        living = tasks.create_task(fleet.run(), name="fleet")
        await fleet.wait_connected(CEILING_S)
        change = {"control": CONTROL, "profiles_dir": str(profiles(tmp_path / "profiles"))}
        daemon = Daemon(tmp_path, broker.port, change)
        daemon.child.command[1:3] = ["-m", "tests.e2e.broken_gateway", str(flag)]
        assert daemon.child.command[0] == sys.executable
        async with running(daemon):
            service = Service(daemon)
            settings = face.settings()
            await _take_control(daemon, fleet, face, url)
            assert face.settings() != settings
            restarting = tasks.create_task(service.run(), name="restarts")
            flag.write_text(part, encoding="ascii")
            if part == "recovery":
                await daemon.child.kill()
            try:
                async with asyncio.timeout((2 if part == "ingest" else 1) * RELEASED_WITHIN_S):
                    said = await service.release_only()
                    assert re.search(REASONS[part], str(said.body))
                    assert "gateway resume" in str(said.body)
                    await daemon.child.kill()
                    await service.release_only()
                    await _handed_back(fleet, face)
                assert face.settings() == settings
                assert service.codes.count(EXIT_BROKEN) >= ENDS_MAX - 1
                await _says_so(service, counts_energy=part == "control")
                service.stopping = True
                assert await daemon.stop() == 0
                await restarting
            finally:
                restarting.cancel()
        broken = [line for line in daemon.log_lines() if line["level"] == "critical" and "reason" in line]
        assert len(broken) == service.codes.count(EXIT_BROKEN)
        assert all(re.fullmatch(REASONS[part], line["reason"]) for line in broken)
        flag.unlink()
        await _resumes(daemon)
        living.cancel()


async def _take_control(daemon: Daemon, fleet: FirmwareFleet, face: GoodweEt, url: str) -> None:
    await daemon.import_rows(inventory_rows(fleet.devices.homes))
    export, charge, fuse, grid_import, grid_export = MAY.split(",")
    await daemon.import_rows(
        [
            {
                "id": "goodwe", "profile": "goodwe-et", "site": "s", "capacity_wh": "10000", "discharge_w_max": "5000",
                "charge_w_max": "5000", "inverter_w_max": "5000", "reserve_pct": "20", "export_allowed": export,
                "grid_charge_allowed": charge, "fuse_protected": fuse, "site_import_w_max": grid_import,
                "site_export_w_max": grid_export, "address": url, "experimental": "true",
            }
        ]
    )  # fmt: skip
    await daemon.until(
        "/v1/devices", lambda r: all(d["soc_pct"] is not None for d in r.body["devices"]), "a reading of each"
    )
    start = now_ms()
    wanted = event("evening", start_ms=start, end_ms=start + 3_600_000, target_w=14_000)
    assert (await daemon.post("/v1/dispatch-events", wanted)).status == 200
    await eventually(lambda: _remote(fleet) == 2 and face.controlled, "all are steered", alive=daemon.child)
    await eventually(lambda: face.plant.battery_w > 500, "the inverter discharges", alive=daemon.child)


def _remote(fleet: FirmwareFleet) -> int:
    return int((fleet.devices.batteries.mode == Mode.REMOTE).sum())


async def _handed_back(fleet: FirmwareFleet, face: GoodweEt) -> None:
    while _remote(fleet) or face.controlled:
        await asyncio.sleep(0.1)


async def _says_so(service: Service, *, counts_energy: bool) -> None:
    """What a release-only gateway answers, and that it still takes energy, unless that is what is broken."""
    daemon = service.daemon
    assert await service.metric("gateway_release_only") == 1
    rows = await service.metric("gateway_settlement_rows_total") if counts_energy else 0
    start = now_ms()
    wanted = event("another", start_ms=start, end_ms=start + 60_000, target_w=1_000)
    refused = await daemon.post("/v1/dispatch-events", wanted)
    assert refused.status == 503
    assert "release-only" in str(refused.body)
    assert (await daemon.ask("GET", "/v1/dispatch-events/evening")).status == 200
    await daemon.until(
        "/v1/devices", lambda r: all(d["authority"] == "device" for d in r.body["devices"]), "all known to be free"
    )
    stopped = await daemon.post("/v1/dispatch/stop-all", {"active": True, "by": "operator"})
    assert (stopped.status, stopped.body["durable"]) == (200, True)
    async with asyncio.timeout(CEILING_S):
        while counts_energy and await service.metric("gateway_settlement_rows_total") <= rows:
            await asyncio.sleep(0.1)


async def _resumes(daemon: Daemon) -> None:
    """Repaired, and told so: the next run is an ordinary one."""
    code, output = await run_cli("resume", "--config", str(daemon.config))
    assert code == 0, output
    async with running(daemon):
        reply = await daemon.ask("GET", "/readyz")
        assert "release-only" not in str(reply.body)
        assert await Service(daemon).metric("gateway_release_only") == 0
        assert await daemon.stop() == 0
