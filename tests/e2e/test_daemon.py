"""The daemon as a process: start, readiness, refusals, imports, restarts, garbage, metrics."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import orjson
import pytest

from gateway.clock import SystemClock
from gateway.domain.journal.changes import ControlTaken
from gateway.domain.types import DeviceId, EventId
from gateway.storage.journal.journal import SqliteJournal
from simulators import processes
from tests.e2e.rig import PROFILES, Daemon, Reply, event, eventually, inventory_csv, now_ms, run_cli, running, utc
from tests.scenes.brokers import BrokerProcess, standin_process

pytestmark = pytest.mark.e2e

GARBAGE = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe\x00",
    b"NaN",
    b"1e999",
    b"[" * 5_000,
    b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
    b'{"id":"x","id":"y"}',
    b"\x00" * 1_000,
    '{"id":"\u202e"}'.encode(),
)
PROGRAM_FAULTS: tuple[tuple[str, object], ...] = (
    ("id", ""), ("id", "a b"), ("id", "x" * 65), ("id", None), ("id", 7), ("revision", -1), ("revision", 1.5),
    ("revision", "1"), ("revision", 2**70), ("kind", "wish"), ("program", "../x"), ("group", {}), ("group", []),
    ("group", {"ids": ["/"]}), ("group", {"all": True, "ids": ["a"]}), ("start", "yesterday"), ("start", 1e300),
    ("start", "2026-01-01T00:00:00"), ("end", None), ("end", "9999-99-99T00:00:00Z"), ("target_w", "5"),
    ("target_w", True), ("target_w", []), ("priority", 0), ("priority", 10**9), ("cancelled", "perhaps"),
    ("cancelled", "no"),    ("cancelled", 0), ("voluntary", 1), ("group", {"all": "true"}), ("takes_backup", "off"),
    ("direction", "up"), ("surplus", 1),
)  # fmt: skip

PATHS = (
    "/v1/devices?offset=-1", "/v1/devices?limit=1001", "/v1/devices?limit=x", "/v1/devices?limit=%C2%B2",
    "/v1/devices?offset=%F0%9F%92%A9", "/v1/devices?offset=" + "9" * 5_000, "/v1/devices/%00", "/v1/none",
    "/v1/dispatch-events/%2e%2e",
)  # fmt: skip


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    async with standin_process(tmp_path) as process:
        yield process


async def metric(daemon: Daemon, name: str) -> float:
    """The value of one series, 0 where there is none."""
    text = (await daemon.ask("GET", "/metrics")).body
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.MULTILINE)
    return float(found.group(1)) if found else 0.0


async def test_daemon_without_a_broker_is_alive_and_says_why_it_is_not_ready(tmp_path: Path) -> None:
    port = processes.free_port()
    daemon = Daemon(tmp_path, port)
    async with running(daemon):
        assert (await daemon.ask("GET", "/healthz")).status == 200
        reply = await daemon.until(
            "/readyz", lambda r: r.status == 503 and len(r.body["reasons"]) == 2, "both connections are missing"
        )
        assert reply.body["reasons"] == ["MQTT control: not connected", "MQTT telemetry: not connected"]
        async with standin_process(tmp_path, port=port):
            await daemon.ready()
            assert (await daemon.ask("GET", "/readyz")).body == {
                "ready": True, "reasons": [], "warnings": ["devices: none is registered"],
            }  # fmt: skip
        await daemon.until("/readyz", lambda r: r.status == 503, "the broker has gone")
        assert await daemon.stop() == 0
    assert daemon.faults_logged() == []


async def test_daemon_on_sigterm_stops_at_once_and_leaves_a_checkpoint(tmp_path: Path, broker: BrokerProcess) -> None:
    daemon = Daemon(tmp_path, broker.port)
    async with running(daemon):
        await daemon.ready()
        async with asyncio.timeout(30):
            assert await daemon.stop() == 0
    messages = [line["message"] for line in daemon.log_lines()]
    assert "gateway is stopping" in messages
    assert list((tmp_path / "state").glob("*.checkpoint"))
    assert daemon.faults_logged() == []


async def test_daemon_second_on_the_same_state_is_refused_in_words(tmp_path: Path, broker: BrokerProcess) -> None:
    daemon = Daemon(tmp_path, broker.port)
    async with running(daemon):
        code, output = await run_cli("run", "--config", str(daemon.config))
        assert code == 1
        assert output.strip().endswith("another gateway is using it")
        assert "Traceback" not in output
        csv = tmp_path / "more.csv"
        csv.write_text(inventory_csv(["x"]), encoding="utf-8")
        code, output = await run_cli("devices", "import", str(csv), "--offline", "--config", str(daemon.config))
        assert (code, "another gateway is using it" in output) == (1, True)


async def test_daemon_port_taken_is_refused_in_words(tmp_path: Path, broker: BrokerProcess) -> None:
    daemon = Daemon(tmp_path, broker.port, http_port=broker.port)
    code, output = await run_cli("run", "--config", str(daemon.config))
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{broker.port}" in output
    assert "Traceback" not in output


async def test_daemon_import_over_rest_and_offline_takes_the_good_rows_and_names_the_bad(
    tmp_path: Path, broker: BrokerProcess
) -> None:
    daemon = Daemon(tmp_path, broker.port)
    lines = inventory_csv([f"d-{i}" for i in range(10_000)]).splitlines()
    lines[17] = lines[17].replace("10000,5000", "ten,5000")
    lines[5_000] = lines[5_000].replace("reference-mqtt", "unheard-of")
    lines[9_999] = lines[1]
    lines[10_000] = "short,row"
    file = tmp_path / "fleet.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    async with asyncio.timeout(60):
        code, output = await run_cli("devices", "import", str(file), "--offline", "--config", str(daemon.config))
    assert code == 1
    assert "10000 rows, 9996 new or changed, 4 rejected" in output
    for line in (18, 5_001, 10_000, 10_001):
        assert re.search(rf"fleet\.csv:{line}: ", output), line
    async with running(daemon):
        assert (await daemon.ask("GET", "/v1/devices?limit=0")).body["total"] == 9_996
        more = inventory_csv([f"e-{i}" for i in range(10_000)])
        async with asyncio.timeout(60):
            reply = await daemon.ask("POST", "/v1/devices", body=more.encode(), kind="text/csv")
        assert reply.body == {
            "rows": 10_000, "enrolled": 10_000, "departing": 0, "rejected": [], "rejected_total": 0, "notes": [],
        }  # fmt: skip
        again = await daemon.ask("POST", "/v1/devices", body=file.read_bytes(), kind="text/csv")
        assert (again.body["enrolled"], again.body["rejected_total"]) == (0, 4)
        assert [row["line"] for row in again.body["rejected"]] == [18, 5_001, 10_000, 10_001]
        assert (await daemon.ask("GET", "/v1/devices?limit=0")).body["total"] == 19_996


async def test_daemon_events_and_stop_survive_a_kill(tmp_path: Path, broker: BrokerProcess) -> None:
    daemon = Daemon(tmp_path, broker.port)
    later = now_ms() + 3_600_000
    wanted = event("tomorrow", start_ms=later, end_ms=later + 60_000, target_w=-1_000)
    async with running(daemon):
        assert (await daemon.post("/v1/dispatch-events", wanted)).body["outcome"] == "accepted"
        assert (await daemon.post("/v1/dispatch-events", wanted | {"id": "gone"})).status == 200
        assert (await daemon.ask("DELETE", "/v1/dispatch-events/gone")).body["outcome"] == "accepted"
        assert (await daemon.post("/v1/dispatch/stop-all", {"active": True, "by": "me"})).status == 200
    async with running(daemon):
        page = (await daemon.ask("GET", "/v1/dispatch-events")).body
        assert page["stopped"] is True
        assert {e["id"]: (e["state"], e["revision"]) for e in page["events"]} == {
            "tomorrow": ("scheduled", 1),
            "gone": ("cancelled", 1),
        }
        assert (await daemon.post("/v1/dispatch-events", wanted)).body["outcome"] == "duplicate"
        refused = await daemon.post("/v1/dispatch-events", wanted | {"id": "new"})
        assert (refused.status, refused.body["reason"]) == (409, "stopped")
        assert "dispatch is stopped by an operator" in (await daemon.ask("GET", "/readyz")).body["reasons"]
        await daemon.post("/v1/dispatch/stop-all", {"active": False})
        assert (await daemon.post("/v1/dispatch-events", wanted | {"id": "new"})).status == 200


async def test_daemon_metrics_pass_promtool(tmp_path: Path, broker: BrokerProcess) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is missing")
        pytest.skip("no promtool here")
    daemon = Daemon(tmp_path, broker.port, {"platform": {"broker": _platform(broker.port)}, "sinks": _SINKS})
    await daemon.enroll(["a", "b"])
    async with running(daemon):
        await daemon.ready()
        start = now_ms()
        await daemon.post("/v1/dispatch-events", event("e", start_ms=start, end_ms=start + 60_000, target_w=1_000))
        await daemon.until(
            "/metrics", lambda r: 'gateway_event_target_watts{program="test"} 1000.0' in r.body, "a running event"
        )
        text = (await daemon.ask("GET", "/metrics")).body
    process = await asyncio.create_subprocess_exec(
        tool, "check", "metrics",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(text.encode()), 60)
    assert (process.returncode, output.decode()) == (0, "")
    names = set(re.findall(r"^# TYPE (\S+)", text, flags=re.MULTILINE))
    assert len(names) > 40
    assert all(name.startswith("gateway_") for name in names)


_SINKS = [{"kind": "mqtt", "name": "platform-mqtt"}]


def _platform(port: int) -> dict[str, object]:
    return {"url": f"mqtt://127.0.0.1:{port}", "client_id": "gateway-platform", "reconnect_base_s": 0.1}


async def test_daemon_garbage_over_rest_is_answered_and_never_breaks_it(tmp_path: Path, broker: BrokerProcess) -> None:
    daemon = Daemon(tmp_path, broker.port)
    start = now_ms() + 60_000
    good = event("good", start_ms=start, end_ms=start + 60_000, target_w=1_000)
    async with running(daemon):
        answers: list[tuple[object, Reply]] = []
        for path in ("/v1/dispatch-events", "/v1/dispatch/stop-all", "/v1/devices"):
            answers += [((path, body[:40]), await daemon.ask("POST", path, body=body)) for body in GARBAGE]
        for kind in ("text/csv", "application/x-ndjson"):
            answers += [
                ((kind, body[:40]), await daemon.ask("POST", "/v1/devices", body=body, kind=kind)) for body in GARBAGE
            ]
        for name, value in PROGRAM_FAULTS:
            answers.append(((name, value), await daemon.post("/v1/dispatch-events", good | {name: value})))
        for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"0x10", b"1" * 5_000):
            body = json.dumps(good).encode().replace(b"1000", number)
            answers.append((number[:20], await daemon.ask("POST", "/v1/dispatch-events", body=body)))
        huge = b'{"id":"' + b"x" * (2 << 20) + b'"}'
        answers.append(("huge", await daemon.ask("POST", "/v1/dispatch-events", body=huge)))
        for path in PATHS:
            answers.append((path, await daemon.ask("GET", path)))
        wrong = [(what, reply) for what, reply in answers if not _refused(what, reply)]
        assert wrong == []
        assert (await daemon.ask("GET", "/v1/dispatch-events")).body["events"] == []
        assert (await daemon.ask("GET", "/v1/devices")).body["total"] == 0
        assert (await daemon.post("/v1/dispatch-events", good)).body["outcome"] == "accepted"
    assert daemon.faults_logged() == []


def _refused(what: object, reply: Reply) -> bool:
    """4xx in JSON; an inventory of which no row is good may also be a report that says so."""
    if reply.status == 200 and isinstance(what, tuple) and what[0] in ("text/csv", "application/x-ndjson"):
        return bool(reply.body["enrolled"] == 0)
    return 400 <= reply.status < 500 and isinstance(reply.body, dict)


async def test_daemon_garbage_from_devices_is_counted_and_never_breaks_it(
    tmp_path: Path, broker: BrokerProcess
) -> None:
    daemon = Daemon(tmp_path, broker.port, {"platform": {"broker": _platform(broker.port)}})
    await daemon.enroll(["home-1", "home-2"])
    live = {"id": "home-1", "t": now_ms(), "battery_w": 0, "soc_pct": 50}
    wrong_values: tuple[object, ...] = ("text", [], {}, True, 1e308, -1e308, 2**70, None)
    bodies = list(GARBAGE)
    bodies += [json.dumps(live | {key: value}).encode() for key in live if key != "id" for value in wrong_values]
    bodies += [json.dumps(live).encode().replace(b"50", text) for text in (b"NaN", b"1e999", b"-1e999", b"1" * 5_000)]
    async with (
        running(daemon),
        aiomqtt.Client("127.0.0.1", broker.port, identifier="stranger", protocol=aiomqtt.ProtocolVersion.V5) as client,
    ):
        await daemon.ready()
        for kind in ("live", "energy", "status", "ack"):
            for body in bodies:
                await client.publish(f"gateway/v1/devices/home-1/{kind}", body, qos=1)
            for device in ("home-2", "nobody", "", "a b", "x" * 200):
                await client.publish(f"gateway/v1/devices/{device}/{kind}", json.dumps(live), qos=1)
        for body in (*GARBAGE, json.dumps({"id": "x"}).encode()):
            await client.publish("gateway/v1/platform/dispatch", body, qos=1)
        good = json.dumps(live | {"t": now_ms(), "soc_pct": 77}).encode()
        await client.publish("gateway/v1/devices/home-1/live", good, qos=1)
        await daemon.until("/v1/devices/home-1", lambda r: r.body["soc_pct"] == 77, "the good reading")
        # Energy and dispatch go other ways; give both a last word of their own.
        energy = {"id": "home-2", "boot": 1, "seq": 1, "t": now_ms(), "span_ms": 1_000, "charge_wh": 1}
        await client.publish("gateway/v1/devices/home-2/energy", json.dumps(energy), qos=1)
        await daemon.until(
            "/metrics", lambda r: "gateway_settlement_rows_total 1.0" in r.body, "the only energy message that is one"
        )
        start = now_ms() + 60_000
        last = event("last", start_ms=start, end_ms=start + 1_000, target_w=0)
        await client.publish("gateway/v1/platform/dispatch", json.dumps(last), qos=1)
        await daemon.until("/v1/dispatch-events/last", lambda r: r.status == 200, "the good event")
        assert await metric(daemon, 'gateway_decode_rejects_total{reason="malformed"}') >= 4 * 5
        assert await metric(daemon, 'gateway_decode_rejects_total{reason="identity"}') >= 1
        unenrolled = (await daemon.ask("GET", "/v1/unenrolled")).body
        assert {found["device"] for found in unenrolled["devices"]} == {"nobody"}
        assert unenrolled["messages"] == 4
        state = (await daemon.ask("GET", "/v1/devices/home-2")).body
        assert (state["soc_pct"], state["reading_age_s"]) == (None, None)
        await daemon.ready()
        assert await daemon.stop() == 0
    assert daemon.faults_logged() == []


async def test_daemon_answers_platform_dispatch_on_its_own_topic_only(tmp_path: Path, broker: BrokerProcess) -> None:
    daemon = Daemon(tmp_path, broker.port, {"platform": {"broker": _platform(broker.port)}})
    await daemon.enroll(["home-1"])
    start = now_ms() + 60_000
    answers: list[dict[str, object]] = []
    async with (
        running(daemon),
        aiomqtt.Client("127.0.0.1", broker.port, identifier="platform", protocol=aiomqtt.ProtocolVersion.V5) as client,
    ):
        await daemon.ready()
        await client.subscribe("gateway/v1/platform/dispatch/answers", qos=1)
        wanted = event("mqtt-1", start_ms=start, end_ms=start + 1_000, target_w=500)
        await client.publish("gateway/v1/devices/home-1/dispatch", json.dumps(wanted | {"id": "forged"}), qos=1)
        for body in (wanted, wanted, wanted | {"start": utc(start + 1)}, {"id": "x"}):
            await client.publish("gateway/v1/platform/dispatch", json.dumps(body), qos=1)
        async with asyncio.timeout(30):
            async for message in client.messages:
                answers.append(orjson.loads(bytes(message.payload)))
                if len(answers) == 4:
                    break
        assert [a["outcome"] for a in answers] == ["accepted", "duplicate", "rejected", "rejected"]
        assert [a["reason"] for a in answers] == [None, None, "conflict", "malformed"]
        events = (await daemon.ask("GET", "/v1/dispatch-events")).body["events"]
        assert [e["id"] for e in events] == ["mqtt-1"]


async def test_daemon_log_and_state_hold_no_secret(tmp_path: Path, broker: BrokerProcess) -> None:
    secret = "correct-horse-battery-staple"
    change = {"http": {"host": "127.0.0.1", "port": processes.free_port(), "token": "env:TEST_TOKEN"}}
    daemon = Daemon(tmp_path, broker.port, change, http_port=int(str(change["http"]["port"])))
    daemon.child.env["TEST_TOKEN"] = secret
    async with running(daemon):
        assert (await daemon.ask("GET", "/v1/devices")).status == 401
        assert (await daemon.ask("GET", "/healthz")).status == 200
        code, output = await run_cli("devices", "list", "--url", daemon.url, env={"GATEWAY_TOKEN": secret})
        assert (code, "0 of 0" in output) == (0, True)
        code, output = await run_cli("devices", "list", "--url", daemon.url, env={"GATEWAY_TOKEN": "wrong" * 4})
        assert (code, "a bearer token is required" in output) == (1, True)
        await eventually((tmp_path / "state").exists, "state")
        await daemon.stop()
    for path in (daemon.child.log, daemon.config, *(tmp_path / "state").rglob("*")):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path


async def test_daemon_without_the_profile_of_a_device_under_control_says_that_nobody_can_release_it(
    tmp_path: Path, broker: BrokerProcess
) -> None:
    profiles, away = tmp_path / "profiles", tmp_path / "mine.yaml"
    shutil.copytree(PROFILES, profiles)
    text = (profiles / "reference-mqtt.yaml").read_text(encoding="utf-8")
    (profiles / "mine.yaml").write_text(text.replace("profile: reference-mqtt", "profile: mine"), encoding="utf-8")
    daemon = Daemon(tmp_path, broker.port, {"profiles_dir": str(profiles)})
    file = tmp_path / "mine.csv"
    file.write_text(inventory_csv(["a"]).replace("reference-mqtt", "mine"), encoding="utf-8")
    code, output = await run_cli("devices", "import", str(file), "--offline", "--config", str(daemon.config))
    assert code == 0, output
    journal = SqliteJournal(tmp_path / "state" / "journal.sqlite", clock=SystemClock())
    journal.load()
    await journal.commit([ControlTaken(devices=(DeviceId("a"),), event=EventId("evening"))])
    journal.close()
    (profiles / "mine.yaml").rename(away)
    why = "1 device may still be under control and cannot be released, its profile is not installed: a (mine)"
    async with running(daemon):
        reply = await daemon.until("/readyz", lambda r: r.body["reasons"] == [why], "the one reason")
        assert reply.status == 503
        assert await metric(daemon, "gateway_stranded_devices") == 1.0
        reply = await daemon.ask("POST", "/v1/devices", body=inventory_csv(["a", "b"]).encode(), kind="text/csv")
        assert (reply.body["enrolled"], reply.body["departing"], reply.body["rejected"]) == (1, 1, [])
        assert "under control since before the gateway started" in reply.body["notes"][0]["note"]
    assert [line["count"] for line in daemon.log_lines() if "cannot be released" in line["message"]] == [1]
    away.rename(profiles / "mine.yaml")
    async with running(daemon):
        await daemon.ready()
        assert await metric(daemon, "gateway_stranded_devices") == 0.0
        assert (await daemon.ask("GET", "/v1/devices/a")).body["held"] == "controlled"
