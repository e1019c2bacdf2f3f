"""Simulated homes as a process of their own: enrolled by the inventory that they write, seen and dispatched."""

import sys
from pathlib import Path

import pytest

from simulators.faces.catalogue import FACES
from simulators.processes import Child, free_port
from tests.e2e.rig import Daemon, event, eventually, now_ms, running
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e


def simulated(directory: Path, port: int, *more: str) -> Child:
    command = [sys.executable, "-m", "simulators", "fleet", "--broker", f"mqtt://127.0.0.1:{port}", *more]
    return Child("homes", command, directory / "homes.log")


async def test_fleet_is_enrolled_by_its_own_inventory_and_follows_an_event(tmp_path: Path) -> None:
    inventory = tmp_path / "homes.csv"
    async with standin_process(tmp_path) as broker:
        devices = 2 * len(FACES) + 10
        homes = simulated(
            tmp_path, broker.port, "--devices", str(devices), "--each", "1", "--inventory", str(inventory)
        )
        await homes.start()
        try:
            await eventually(lambda: "stop with" in homes.log.read_text(encoding="utf-8"), "homes live", alive=homes)
            daemon = Daemon(tmp_path, broker.port, {"control": {"fleet_w_per_s": 100_000}})
            secrets = inventory.with_suffix(".env")
            assert secrets.stat().st_mode & 0o777 == 0o600
            lines = secrets.read_text(encoding="utf-8").splitlines()
            daemon.child.env |= dict(line.split("=", 1) for line in lines)
            async with running(daemon):
                reply = await daemon.ask("POST", "/v1/devices", body=inventory.read_bytes(), kind="text/csv")
                assert (reply.status, reply.body["rejected_total"]) == (200, 0), reply
                assert all(f",{product}," in inventory.read_text(encoding="utf-8") for product in FACES)
                await daemon.until(
                    "/v1/devices",
                    lambda r: all(d["soc_pct"] is not None for d in r.body["devices"]), "a reading of each home",
                )  # fmt: skip
                start_ms = now_ms()
                asked = event("try", start_ms=start_ms, end_ms=start_ms + 60_000, target_w=10_000)
                assert (await daemon.post("/v1/dispatch-events", asked)).status == 200
                await daemon.until(
                    "/v1/dispatch-events/try", lambda r: (r.body["delivered_w"] or 0) > 8_000, "homes follow"
                )
                homes.check()
            assert await homes.stop() == 0
        finally:
            await homes.kill()


async def test_fleet_without_a_broker_says_so(tmp_path: Path) -> None:
    homes = simulated(tmp_path, free_port(), "--devices", "2", "--inventory", str(tmp_path / "homes.csv"))
    await homes.start()
    assert homes.process is not None
    assert await homes.process.wait() == 2
    assert "no broker answers at mqtt://127.0.0.1:" in homes.log.read_text(encoding="utf-8")
