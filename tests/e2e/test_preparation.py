"""Energy for day-ahead events, through the real daemon: kept at once where one comes late, let go when it is moved,
kept on by a gateway that was killed, let go for good with the last one cancelled; daily time of use yields."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import Daemon, event, eventually, now_ms, running
from tests.e2e.test_dispatch import CONTROL, Street, street

pytestmark = pytest.mark.e2e

HOUR_MS = 3_600_000
NOTHING_W = 50.0
TAIL = "evidence: inferred, source: here}"
FILE = """\
language: 1
program: {name}
title: A program of the tests
pricing: none
zone: UTC
sources: {{here: This file}}
versions:
  - version: one
    from: 2020-01-01
    evidence: inferred
    source: here
    measurement:
      point: {{value: battery_ac, {tail}
      interval_length_s: {{value: 900, {tail}
    {more}
    performance:
      baseline: {{value: none, {tail}
      formula: {{value: energy, {tail}
"""
PROGRAMS = {
    "evening": f"preparation: {{keep_h: {{value: 5, {TAIL}, charge_from_pv: {{value: true, {TAIL}}}",
    "tou": f"stacking: {{yields: {{value: true, {TAIL}}}",
}


def gives_w(s: Street) -> float:
    """What all batteries give together, W."""
    return float(s.fleet.devices.batteries.battery_w.sum())


async def send(daemon: Daemon, name: str, program: str, start_ms: int, **other: Any) -> None:
    body = event(name, start_ms=start_ms, end_ms=start_ms + 2 * HOUR_MS, target_w=4_000) | {"program": program} | other
    reply = await daemon.post("/v1/dispatch-events", body)
    assert (reply.status, reply.body["outcome"]) == (200, "accepted"), reply.body


async def test_energy_is_kept_for_day_ahead_events_that_come_late_are_moved_and_cancelled(tmp_path: Path) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, more in PROGRAMS.items():
        (folder / f"{name}.yaml").write_text(FILE.format(name=name, more=more, tail=TAIL), encoding="utf-8")
    async with street(tmp_path) as s:
        configuration = {"control": CONTROL, "programs_dir": str(folder)}
        daemon = Daemon(tmp_path, s.daemon.broker_port, configuration, http_port=s.daemon.http_port)

        async def kept(when: str) -> None:
            await eventually(lambda: abs(gives_w(s)) < NOTHING_W, f"energy is kept {when}", alive=daemon.child)

        async def daily_runs(when: str) -> None:
            await eventually(lambda: gives_w(s) > 3_800, f"daily time of use {when}", alive=daemon.child)
            await daemon.until("/v1/dispatch-events/daily", lambda r: r.body["state"] == "active", when)

        async with running(daemon):
            await Street(daemon, s.fleet).enroll()
            await send(daemon, "daily", "tou", now_ms())
            await daily_runs("begins")
            start_ms = now_ms() + HOUR_MS
            await send(daemon, "known", "evening", start_ms)
            await kept("at once for an event that comes late")
            await daemon.until("/v1/dispatch-events/daily", lambda r: r.body["state"] == "superseded", "it yields")
            shown = (await daemon.ask("GET", "/v1/dispatch-events/known")).body
            assert (shown["state"], shown["preparation"]["rules"][0]["version"]) == ("scheduled", "evening one")
            await send(daemon, "known", "evening", start_ms + 24 * HOUR_MS, revision=2)
            await daily_runs("has them back while the event is a day away")
            await send(daemon, "known", "evening", start_ms + HOUR_MS, revision=3)
            await kept("for its new time")
            await send(daemon, "second", "evening", start_ms + 3 * HOUR_MS)
            await daemon.child.kill()
            await daemon.start()
            await daemon.ready()
            assert abs(gives_w(s)) < NOTHING_W, "also while nobody was there"
            reply = await daemon.ask("DELETE", "/v1/dispatch-events/known")
            assert reply.body["outcome"] == "accepted"
            await daemon.until(
                "/v1/dispatch-events/daily", lambda r: r.body["state"] == "superseded", "it yields still"
            )
            await kept("for the second event")
            await daemon.ask("DELETE", "/v1/dispatch-events/second")
            await daily_runs("has them back once no event is known")
            assert await daemon.stop() == 0
        assert daemon.faults_logged() == []
