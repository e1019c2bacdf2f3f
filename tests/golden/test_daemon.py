"""What a daemon shows of a state that a release stored, with nobody around it: REST and a scrape."""

from pathlib import Path
from typing import Any

import pytest

from simulators.processes import free_port
from tests.e2e.rig import Reply, running
from tests.golden import golden, masks
from tests.releases import truth
from tests.releases.trees import HERE, TreeDaemon

pytestmark = pytest.mark.e2e

RELEASE, STATE = "0.1", "killed"
RECEIVERS = 2
OF_NOW = ("reading_age_s", "online", "session")
ASKED = (
    "/v1/devices?limit=3&offset=1",
    "/v1/devices/sim-00008",
    "/v1/devices/nobody",
    "/v1/dispatch-events",
    "/v1/dispatch-events/over?limit=1",
    "/v1/dispatch-events/nobody",
    "/v1/exclusions",
    "/v1/holds",
    "/v1/quarantine",
    "/v1/availability",
    "/v1/intervals?from={day}T00:00:00Z&to={day}T23:59:59Z&limit=2",
    "/v1/intervals?from={day}T00:00:00Z&to={day}T23:59:59Z&device=meter-1&format=csv",
    "/v1/intervals?from={day}T00:00:00Z&to={day}T23:59:59Z&device=meter-1&format=ndjson",
    "/v1/intervals?to=never",
    "/v1/completeness?day={day}&device=meter-1",
    "/v1/sinks",
    "/v1/sinks/platform-http/missing?from={day}T00:00:00Z&to={day}T23:59:59Z",
    "/v1/unregistered",
    "/v1/unenrolled",
    "/v1/nothing",
    "/healthz",
    "/readyz",
)
JOBS = ("columns", "completeness", "meters", "performance")


def _every_job_has_reported(metrics: Reply) -> bool:
    return all(f'gateway_money_backlog{{job="{job}"}}' in metrics.body for job in JOBS)


async def test_daemon_on_a_stored_state_shows_what_stands_in_the_golden_files(tmp_path: Path) -> None:
    known = truth.stored(RELEASE)
    (tmp_path / "meters.csv").write_text("device,meter_id\nsim-00000,00000000-0000-4000-8000-000000000000\n")
    (tmp_path / "token").write_text("nobody-asks-for-it")
    (tmp_path / "token").chmod(0o600)
    daemon = await truth.placed(HERE, RELEASE, STATE, tmp_path / "copy", known[STATE]["at_ms"], _every_kind(tmp_path))
    day = truth.day_of(known[STATE]["at_ms"])
    async with running(daemon):
        await truth.settled(daemon, known, STATE, but=["sinks"])
        await daemon.until("/readyz", _all_receivers_fail, "the receivers that nobody reaches")
        await daemon.until("/metrics", _every_job_has_reported, "the process that works out money")
        told = [await _told(daemon, path.format(day=day)) for path in ASKED]
        metrics = (await daemon.ask("GET", "/metrics")).body
    golden("rest.txt", "\n\n".join(told))
    golden("metrics.txt", masks.metrics(metrics))


def _every_kind(directory: Path) -> dict[str, Any]:
    """Settings with which every part is there that counts something."""
    leap = {"kind": "leap_csv", "name": "leap", "url": f"http://127.0.0.1:{free_port()}",
            "token": f"file:{directory / 'token'}", "meters": str(directory / "meters.csv")}  # fmt: skip
    rows = {"kind": "parquet", "name": "warehouse", "directory": str(directory / "rows")}
    return {
        "sinks": [leap, rows],
        "platform": {"live_s": "30s"},
        "programs": {"nobodys": {"interval_length_s": "15min"}},
    }


def _all_receivers_fail(reply: Reply) -> bool:
    return sum("sink" in reason for reason in reply.body["warnings"]) >= RECEIVERS


async def _told(daemon: TreeDaemon, path: str) -> str:
    reply = await daemon.ask("GET", path)
    body = reply.body if isinstance(reply.body, str) else masks.json_text(masks.without(reply.body, *OF_NOW))
    return f"GET {path}\n{reply.status}\n{body.strip()}"
