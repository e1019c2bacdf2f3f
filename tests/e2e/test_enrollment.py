"""Enrollment through the real daemon: an upgraded fleet delivers as before, an enforced program waits for consent, and
who customers are appears nowhere."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import Daemon, Reply, eventually, run_cli, running
from tests.e2e.test_dispatch import CONTROL, N, Street, street
from tests.services.programs.stores import BASE, CONSENT, KEY, table

pytestmark = pytest.mark.e2e

PERIOD = {
    "program": "test", "delivery_period_start_date_time": "2026-01-01T00:00:00Z",
    "delivery_period_end_date_time": "2090-01-01T00:00:00Z",
}  # fmt: skip
PERSON = {
    "end_customer_name": "Canary Nightingale", "end_customer_email": "canary@nest.example", "street_1": "1 Canary Row",
    "electric_service_account_number": "CANARY-77",
}  # fmt: skip


async def imported(daemon: Daemon, what: str, *rows: dict[str, str]) -> Any:
    reply = await daemon.ask("POST", f"/v1/{what}", body=table(*rows).encode(), kind="text/csv")
    assert (reply.status, reply.body["rejected"]) == (200, [])
    return reply.body


async def counts(daemon: Daemon, number: float, *words: str) -> None:
    """Until the metrics whose line has all of these words sum up to a number."""

    def is_so(reply: Reply) -> bool:
        found = [line for line in reply.body.splitlines() if all(word in line for word in words)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found) == number

    await daemon.until("/metrics", is_so, f"{number} {words}")


def read(directory: Path, pattern: str) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in directory.rglob(pattern) if path.is_file())


def again(s: Street, directory: Path, programs: dict[str, Any], **change: Any) -> Daemon:
    """The next run over the same state, with these programs."""
    configuration = {"control": CONTROL, "programs": programs} | change
    return Daemon(directory, s.daemon.broker_port, configuration, release=True, http_port=s.daemon.http_port)


async def test_a_fleet_without_enrollments_delivers_the_evening_after_the_upgrade_as_before(tmp_path: Path) -> None:
    async with street(tmp_path) as s:
        async with running(s.daemon):
            await s.enroll()
            assert await s.daemon.stop() == 0
        # a former release knows no programs
        for path in (tmp_path / "state").glob("programs.sqlite*"):
            path.unlink()
        upgraded = again(s, tmp_path, {"test": {}})
        async with running(upgraded):
            await upgraded.ready()
            await Street(upgraded, s.fleet).discharge("evening", s=600)
            await eventually(lambda: s.remote == N, "all follow", alive=upgraded.child)
            await upgraded.until(
                "/v1/dispatch-events/evening", lambda r: (r.body["delivered_w"] or 0) > 3_800, "the target"
            )
            left_out = ("gateway_enrollment_left_out_devices", 'enrollment="observe"', 'reason="consent_missing"')
            await counts(upgraded, N, *left_out)
            assert await upgraded.stop() == 0
        assert upgraded.faults_logged() == []


async def test_an_enforced_program_waits_for_consent_and_tells_nobody_who_customers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONAL_KEY", KEY)
    async with street(tmp_path) as s:
        ids = s.fleet.devices.homes.ids
        async with running(s.daemon):
            await s.enroll()
            assert await s.daemon.stop() == 0
        enforced = again(
            s, tmp_path, {"test": {"enrollment": "enforce"}}, customers={"personal_key": "env:PERSONAL_KEY"}
        )
        told = []
        async with running(enforced):
            await enforced.ready()
            await imported(enforced, "enrollments", *(BASE | PERIOD | {"device": name} for name in ids))
            held = {"held_since": "2026-01-01T00:00:00Z"}
            customers = [
                held | {"customer": f"c-{name}", "device": name, "end_customer_name": f"Canary {name}"} for name in ids
            ]
            await imported(enforced, "customers", *customers)
            await imported(enforced, "customers", PERSON | {"customer": "c-9"})
            await Street(enforced, s.fleet).discharge("evening", s=600)
            left_out = ("gateway_enrollment_left_out_devices", 'enrollment="enforce"', 'reason="consent_missing"')
            await enforced.until("/v1/dispatch-events/evening", lambda r: r.body["state"] == "active", "it runs")
            await counts(enforced, N, *left_out)
            assert s.remote == 0
            consents = [CONSENT | {"customer": f"c-{name}", "program": "test"} for name in ids]
            await imported(enforced, "consents", *consents)
            await eventually(lambda: s.remote == N, "all follow", alive=enforced.child)
            for path in ("/metrics", "/v1/customers", f"/v1/customers/c-{ids[0]}", "/v1/consents", "/v1/enrollments",
                         f"/v1/enrollments/{ids[0]}", "/v1/audit", "/readyz"):  # fmt: skip
                told.append(json.dumps((await enforced.ask("GET", path)).body))
            assert await enforced.stop() == 0
        assert enforced.faults_logged() == []
        out = tmp_path / "state.tar.gz"
        code, output = await run_cli("state", "export", "--config", str(enforced.config), "--out", str(out))
        assert code == 0, output
        told.append(output)
        with tarfile.open(out) as archive:
            members = [archive.extractfile(name) for name in archive.getmembers()]
            told += [member.read().decode("latin-1") for member in members if member is not None]
        told += [read(tmp_path, "*.log"), read(tmp_path / "state", "*")]
        assert not [text for text in told if "anary" in text or "ANARY" in text]
