"""The performance of an event through the real daemon: within a minute of its last interval, revised by what is late,
whatever becomes of the process that works it out."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from simulators.faults import Fault, FaultKind
from tests.e2e.rig import Daemon, Reply, event, eventually, now_ms, running
from tests.e2e.test_dispatch import CONTROL, N, Street, street

pytestmark = pytest.mark.e2e

MINUTE_MS = 60_000
PROGRAM = """\
language: 1
program: test
title: Energy by the minute
pricing: rates
zone: America/Los_Angeles
sources: {page: A page}
versions:
  - version: one
    from: 2020-01-01
    evidence: verified
    source: page
    measurement:
      point: {value: battery_ac, evidence: verified, source: page}
      interval_length_s: {value: 60, evidence: verified, source: page}
    performance:
      baseline: {value: none, evidence: verified, source: page}
      formula: {value: energy, evidence: verified, source: page}
    rates:
      - {name: energy, amount: "2", currency: USD, per: kwh, evidence: verified, source: page}
"""


def with_program(s: Street, directory: Path) -> Daemon:
    """The same gateway, which knows a program that pays by the minute."""
    programs = directory / "programs"
    programs.mkdir()
    (programs / "test.yaml").write_text(PROGRAM, encoding="utf-8")
    change = {
        "control": CONTROL, "programs_dir": str(programs), "programs": {"test": {}}, "intervals": {"length_s": 60},
        "money": {"every_s": 1},
    }  # fmt: skip
    return Daemon(directory, s.daemon.broker_port, change, http_port=s.daemon.http_port)


def money_process(daemon: Daemon) -> int:
    """The process that works out money."""
    assert daemon.child.process is not None
    pid = daemon.child.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    found = [int(child) for child in children if b"money_worker" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(found) == 1
    return found[0]


async def performance(daemon: Daemon, revision: int, *, by_ms: int) -> dict[str, Any]:
    """Until a revision is there; fails at an instant."""
    while True:
        daemon.child.check()
        reply: Reply = await daemon.ask("GET", "/v1/events/evening/performance?level=device")
        if reply.status == 200 and reply.body["revision"] >= revision:
            found: dict[str, Any] = reply.body
            return found
        assert now_ms() < by_ms, reply
        await asyncio.sleep(0.2)


async def test_an_event_is_worked_out_within_a_minute_and_again_when_a_late_interval_comes(tmp_path: Path) -> None:
    async with street(tmp_path) as s:
        daemon = with_program(s, tmp_path)
        async with running(daemon):
            await Street(daemon, s.fleet).enroll()
            # of the minute in which a home comes, nobody knows its share
            start_ms = now_ms() // MINUTE_MS * MINUTE_MS + MINUTE_MS
            end_ms = start_ms + MINUTE_MS
            wanted = event("evening", start_ms=start_ms, end_ms=end_ms, target_w=4_000)
            assert (await daemon.post("/v1/dispatch-events", wanted)).status == 200
            await eventually(lambda: s.remote == N, "all follow", alive=daemon.child, timeout_s=90.0)
            # from here on nothing of one home is heard until the event is worked out
            away_s = (end_ms - now_ms()) / 1000 + 50.0
            s.fleet.inject(0, Fault(kind=FaultKind.OFFLINE, for_s=away_s))
            first = await performance(daemon, 1, by_ms=end_ms + MINUTE_MS)
            assert first["revisions"][0]["because"] == []
            away = s.fleet.devices.homes.ids[0]
            by_name = {row["name"]: row for row in first["figures"]}
            assert set(by_name) == set(s.fleet.devices.homes.ids)
            assert by_name[away]["covered_pct"] < min(
                row["covered_pct"] for row in by_name.values() if row["name"] != away
            )
            assert first["figure"]["value"]["status"] == "provisional (intervals missing)"
            assert sum(row["energy_wh"] for row in first["figures"]) == first["figure"]["energy_wh"] > 0

            process = money_process(daemon)
            os.kill(process, signal.SIGKILL)
            second = await performance(daemon, 2, by_ms=end_ms + 3 * MINUTE_MS)
            assert any(f"intervals of {away}" in why for why in second["because"])
            assert second["figure"]["energy_wh"] > first["figure"]["energy_wh"]
            older = await daemon.ask("GET", "/v1/events/evening/performance?revision=1")
            assert older.body["figure"] == first["figure"]
            assert money_process(daemon) != process
            listed = await daemon.ask("GET", "/v1/programs/test/performance")
            assert [(row["event"], row["revision"]) for row in listed.body["events"]] == [
                ("evening", second["revision"])
            ]
            assert await daemon.stop() == 0
        assert daemon.faults_logged() == []
