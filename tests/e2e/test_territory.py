"""A territory is excluded from a running event through the real daemon, over a kill, until its time is over."""

import json
from pathlib import Path

import pytest

from simulators.homes import inventory_rows
from tests.e2e.rig import eventually, now_ms, run_cli, running, utc
from tests.e2e.test_dispatch import N, street

pytestmark = pytest.mark.e2e

HERE = {"postcode": "95404", "county": "Sonoma", "utility": "PG&E"}


async def test_territory_is_out_of_a_running_event_over_a_kill_until_its_time_is_over(tmp_path: Path) -> None:
    async with street(tmp_path) as s:
        async with running(s.daemon):
            await s.enroll()
            rows = [
                row | (HERE if index < 2 else dict.fromkeys(HERE, ""))
                for index, row in enumerate(inventory_rows(s.fleet.devices.homes))
            ]
            await s.daemon.import_rows(rows)
            await s.discharge("evening", s=600)
            await eventually(lambda: s.remote == N, "all follow", alive=s.daemon.child)
            asked = ("storm-7", "--reason", "utility_request", "--in", "county=sonoma", "--in", "utility=PG&E",
                     "--until", utc(now_ms() + 3_600_000), "--url", s.daemon.url)  # fmt: skip
            code, output = await run_cli("exclusions", "territory", *asked, "--dry-run")
            assert code == 0, output
            effect = json.loads(output[: output.rindex("}") + 1])
            assert (effect["devices"], effect["programs"][0]["events"]) == (2, ["evening"])
            assert s.remote == N
            code, output = await run_cli("exclusions", "territory", *asked)
            assert code == 0, output
            await eventually(lambda: s.remote == N - 2, "they are out", alive=s.daemon.child)
            shown = await s.daemon.until(
                "/v1/dispatch-events/evening", lambda r: r.body["excluded"] == 2, "the event says so"
            )
            assert {one["status"] for one in shown.body["members"][:2]} == {"failed"}
            told = [len(s.commands(index)) for index in (0, 1)]
        async with running(s.daemon):
            await s.daemon.until("/v1/dispatch-events/evening", lambda r: r.body["excluded"] == 2, "still out")
            await eventually(lambda: s.remote == N - 2, "the others go on", alive=s.daemon.child)
            assert [len(s.commands(index)) for index in (0, 1)] == told, "nothing is said to those who are out"
            (listed,) = (await s.daemon.ask("GET", "/v1/exclusions")).body["exclusions"]
            soon = {"id": "storm-7", "reason": listed["reason"], "territory": listed["territory"],
                    "until": utc(now_ms() + 3_000)}  # fmt: skip
            assert (await s.daemon.post("/v1/exclusions", soon)).status == 200
            await eventually(lambda: s.remote == N, "they are back", alive=s.daemon.child)
            assert (await s.daemon.ask("GET", "/v1/exclusions")).body["exclusions"] == []
            audit = (await s.daemon.ask("GET", "/v1/audit?limit=1000")).body["entries"]
            kinds = [entry["kind"] for entry in audit if entry["kind"].startswith("hold_")]
            assert kinds == ["hold_lifted", "hold_set", "hold_set"]
            assert await s.daemon.stop() == 0
        assert s.daemon.faults_logged() == []
        assert "95404" not in s.daemon.child.log.read_text(encoding="utf-8")
