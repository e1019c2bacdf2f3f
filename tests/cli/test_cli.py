"""The command line: exit codes, words instead of tracebacks, and what it asks of a daemon."""

import asyncio
import fcntl
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TextIO

import pyarrow.parquet
import pytest
import yaml
from typer.testing import CliRunner, Result

from gateway.app.offline import locked
from gateway.cli import cli
from gateway.clock import SystemClock
from gateway.domain.errors import GatewayError
from gateway.domain.journal.changes import Change, ControlEnded, ControlTaken, PriorRestored, PriorSaved
from gateway.domain.types import DeviceId, EventId
from gateway.storage.journal.journal import SqliteJournal
from tests.builders.profiles import MODBUS, SAMPLES
from tests.config.test_settings import PLAIN

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "device_profiles"
HEADER = "id,profile,site,capacity_wh,discharge_w_max,charge_w_max,reserve_pct\n"
EVENT = {"id": "e", "revision": 1, "state": "active", "start": "s", "end": "e", "target_w": 5.0, "commanded_w": None,
         "delivered_w": None, "assumed_w": None, "attributed_w": None, "unserved_w": None, "shortfall": None,
         "devices": 2, "want": "power", "source": "rest"}  # fmt: skip


class Script:
    """A daemon that answers as scripted; `asked` are (method, path, body, authorization), `kinds` the media types."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes, str]] = []
        self.kinds: list[str | None] = []
        self.status = 200
        self.body: bytes = b"{}"
        self.promised: int | None = None
        script = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                given = self.headers.get("Authorization", "")
                script.asked.append((self.command, self.path, self.rfile.read(size), given))
                script.kinds.append(self.headers.get("Content-Type"))
                self.send_response(script.status)
                self.send_header("Content-Length", str(script.promised or len(script.body)))
                self.end_headers()
                self.wfile.write(script.body)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 names given by the library

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def says(self, body: object, status: int = 200) -> None:
        self.status, self.body = status, json.dumps(body).encode()


@pytest.fixture
def daemon() -> Iterator[Script]:
    script = Script()
    thread = threading.Thread(
        target=script.server.serve_forever, kwargs={"poll_interval": 0.02}, name="scripted daemon"
    )
    thread.start()
    yield script
    script.server.shutdown()
    thread.join(60)
    script.server.server_close()


def run(*args: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(cli, list(args), input=stdin, env={"GATEWAY_TOKEN": "", "COLUMNS": "200"} | (env or {}))
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def config(directory: Path, **change: object) -> str:
    path = directory / "gateway.yaml"
    path.write_text(yaml.safe_dump(PLAIN | {"profiles_dir": str(PROFILES)} | change), encoding="utf-8")
    return str(path)


def test_validate_good_file_is_valid_and_writes_nothing(tmp_path: Path) -> None:
    result = run("validate", "--config", config(tmp_path))
    assert (result.exit_code, result.output.strip().endswith(": valid")) == (0, True)
    assert not (tmp_path / "state").exists()


def test_validate_and_run_tell_every_fault_and_exit_2(tmp_path: Path) -> None:
    file = config(tmp_path, http={"port": -1}, intervals={"length_s": 7}, surplus=1)
    for command in ("validate", "run"):
        result = run(command, "--config", file)
        assert result.exit_code == 2
        for path in ("http.port", "intervals", "surplus"):
            assert path in result.output
    assert run("validate", "--config", str(tmp_path / "none.yaml")).exit_code == 2
    assert run("validate", "--config", config(tmp_path, profiles_dir=str(tmp_path / "none"))).exit_code == 2


def test_validate_tells_what_is_wrong_with_every_file_that_the_configuration_names(tmp_path: Path) -> None:
    (tmp_path / "access.yaml").write_text("callers: {}", encoding="utf-8")
    http = {"access": "access.yaml", "tls": {"certificate": "no.pem", "key_file": "no.key"}}
    result = run("validate", "--config", config(tmp_path, http=http, profiles_dir=str(tmp_path / "none")))
    assert result.exit_code == 2
    for words in ("no profiles", "access.yaml:1: callers", "http.tls: ", "no.pem"):
        assert words in result.output


def test_validate_warns_of_former_keys_of_configuration_and_profiles_and_is_valid(tmp_path: Path) -> None:
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    text = MODBUS.replace("command_latency_s", "delivery_s")
    (profiles / "sample-modbus.yaml").write_text(text, encoding="utf-8")
    line = next(n for n, words in enumerate(text.splitlines(), 1) if "delivery_s" in words)
    file = config(tmp_path, profiles_dir=str(profiles), control={"upkeep": {"recovery_s": "1h"}})
    result = run("validate", "--config", file)
    assert (result.exit_code, result.stdout.strip()) == (0, f"{file}: valid")
    of_profile = (
        f"sample-modbus.yaml:{line}: facts.delivery_s: the next release knows this key only as command_latency_s"
    )
    assert result.stderr.splitlines() == [
        f"warning: {file}:2: control.upkeep: the next release knows this key only as maintenance",
        f"warning: {of_profile}",
    ]
    result = run("profiles", "check", str(profiles))
    assert (result.exit_code, result.stderr.splitlines()) == (0, [f"warning: {of_profile}"])
    told = run("profiles", "check", str(profiles), "--json")
    assert json.loads(told.stdout)["problems"] == []
    (profiles / "sample-modbus.yaml").write_text(MODBUS, encoding="utf-8")
    file = config(tmp_path, profiles_dir=str(profiles), control={"maintenance": {"recovery_s": "1h"}})
    assert run("validate", "--config", file).stderr == ""


def test_profiles_list_and_check_know_what_is_installed(tmp_path: Path) -> None:
    listed = json.loads(run("profiles", "list", "--dir", str(PROFILES), "--json").output)
    assert {row["profile"] for row in listed} == {path.stem for path in PROFILES.glob("*.yaml")}
    assert run("profiles", "list", "--dir", str(PROFILES)).exit_code == 0
    assert run("profiles", "check", "--dir", str(PROFILES)).exit_code == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text("language: 1\nprofile: Not A Name\n", encoding="utf-8")
    for args in (("check", str(bad)), ("check", str(tmp_path / "none.yaml")), ("check", "--dir", str(tmp_path))):
        result = run("profiles", *args)
        assert result.exit_code == 2
        assert result.output


def test_profiles_list_says_of_each_quantity_whether_others_confirm_it(tmp_path: Path) -> None:
    shutil.copy(PROFILES / "foxess-h3.yaml", tmp_path)
    noticed = {"soc_pct": {"scale": ["a library 1.0"]}, "control": {"sign": [], "scale": ["a library 1.0"]}}
    (tmp_path / "confirmed.json").write_text(json.dumps({"foxess-h3": noticed}))
    (row,) = json.loads(run("profiles", "list", "--dir", str(tmp_path), "--json").output)
    assert row["confirmed"] == {
        "soc_pct": {"by": ["a library 1.0"], "unnoticed": [], "confirmed": True},
        "control": {"by": ["a library 1.0"], "unnoticed": ["sign"], "confirmed": False},
    }
    shown = run("profiles", "list", "--dir", str(tmp_path)).output
    assert "unconfirmed" in shown


def test_profiles_list_tells_what_a_product_can_be_told_and_which_file_it_is(tmp_path: Path) -> None:
    for name, text in SAMPLES.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    listed = json.loads(run("profiles", "list", "--dir", str(tmp_path), "--json").output)
    told = {row["profile"]: (row["control"], row["watchdog"], row["evidence"]) for row in listed}
    assert told == {
        "sample-modbus": ("battery_ac", "device_timer", "documented"),
        "sample-http": ("reserve only", "", "documented"),
        "sample-mqtt": ("battery_dc", "implicit", "experimental"),
    }
    for row in listed:
        digest = hashlib.sha256((tmp_path / f"{row['profile']}.yaml").read_bytes()).hexdigest()
        assert row["digest"] == digest[:12]
        assert row["digest"] in run("profiles", "list", "--dir", str(tmp_path)).output


def test_profiles_check_takes_files_and_directories_and_tells_both_good_and_bad(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    for name, text in SAMPLES.items():
        (good / f"{name}.yaml").write_text(text, encoding="utf-8")
    (bad / "broken.yaml").write_text(MODBUS.replace("saves: [work_mode]", "saves: [nowhere]"), encoding="utf-8")
    result = run("profiles", "check", str(good), str(good / "sample-http.yaml"), str(PROFILES))
    assert result.exit_code == 0
    assert "sample-modbus: valid, 8 points, 5 readings, 5 sequences (battery_ac)" in result.output
    assert result.output.count("sample-http: valid") == 2
    result = run("profiles", "check", str(good), str(bad), str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert "sample-modbus: valid" in result.output
    assert re.search(r"broken\.yaml:[0-9]+: control\.saves: 'nowhere'", result.output)
    assert "none.yaml:1: (document): cannot be read" in result.output
    result = run("profiles", "check", str(good), str(bad), "--json")
    told = json.loads(result.output)
    assert (result.exit_code, len(told["good"]), len(told["problems"])) == (2, 3, 3)


def test_profiles_schema_is_written_for_editors(tmp_path: Path) -> None:
    schema = json.loads(run("profiles", "schema").output)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["required"]) >= {"language", "profile", "transport"}
    assert schema["additionalProperties"] is False
    assert "from" in schema["$defs"]["Step"]["properties"]
    file = tmp_path / "profile.schema.json"
    assert run("profiles", "schema", "--out", str(file)).exit_code == 0
    assert json.loads(file.read_text(encoding="utf-8")) == schema
    assert run("profiles", "schema", "--out", str(tmp_path / "none" / "x.json")).exit_code == 2


def test_devices_import_tells_notes_and_they_are_no_failure(daemon: Script, tmp_path: Path) -> None:
    file = tmp_path / "devices.jsonl"
    file.write_text("{}\n", encoding="utf-8")
    note = {"line": 1, "note": "a: telemetry only"}
    daemon.says({"rows": 1, "enrolled": 1, "rejected": [], "rejected_total": 0, "notes": [note]})
    result = run("devices", "import", str(file), "--url", daemon.url)
    assert result.exit_code == 0
    assert "devices.jsonl:1: note: a: telemetry only" in result.output


def test_run_with_a_secret_that_cannot_be_read_yet_ends_with_a_code_that_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "password"
    broker = PLAIN["devices"]["mqtt"]["broker"] | {"username": "gateway", "password": f"file:{file}"}
    path = config(tmp_path, devices={"mqtt": {"broker": broker}})
    result = run("run", "--config", path)
    assert (result.exit_code, "cannot be read" in result.output) == (75, True)
    unit = (ROOT / "deploy" / "gateway.service").read_text(encoding="utf-8")
    assert "RestartPreventExitStatus=2\n" in unit
    assert run("validate", "--config", path).exit_code == 2


def test_devices_import_prints_each_fault_of_the_first_bad_rows_and_counts_the_rest(tmp_path: Path) -> None:
    settings = config(tmp_path, state_dir=str(tmp_path / "state"))
    file = tmp_path / "devices.csv"
    file.write_text(HEADER + "a,unheard-of,s,1,1,1,101\n" * 60, encoding="utf-8")
    ask = ("devices", "import", str(file), "--offline", "--config", settings)
    told = run(*ask)
    assert told.exit_code == 1
    reserve = "reserve_pct: Input should be less than or equal to 100 (found '101')"
    assert f"{file}:2: {reserve}; profile: is not known (found 'unheard-of')" in told.stderr
    assert f"{file}: and 10 more bad rows" in told.stderr
    assert len(told.stderr.splitlines()) == 51
    assert told.stdout == "60 rows, 0 new or changed, 60 rejected\n"
    as_json = run(*ask, "--json")
    assert (as_json.exit_code, as_json.stderr) == (1, "")
    report = json.loads(as_json.stdout)
    assert (len(report["rejected"]), report["rejected_total"]) == (60, 60)
    assert report["rejected"][0]["faults"][1] == {"column": "profile", "problem": "is not known", "value": "unheard-of"}


def test_devices_import_offline_knows_who_answers_where(tmp_path: Path) -> None:
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    for name, text in SAMPLES.items():
        (profiles / f"{name}.yaml").write_text(text, encoding="utf-8")
    settings = config(tmp_path, profiles_dir=str(profiles), state_dir=str(tmp_path / "state"))

    def imported(device: str, address: str) -> Result:
        file = tmp_path / "devices.csv"
        line = f"{device},sample-modbus,s,1,1,1,20,{address}\n"
        file.write_text(HEADER.strip() + ",address\n" + line, encoding="utf-8")
        return run("devices", "import", str(file), "--offline", "--config", settings)

    assert imported("a", "modbus://10.0.0.5").exit_code == 0
    result = imported("b", "modbus://10.0.0.5:502")
    assert result.exit_code == 1
    assert "'b' and 'a'" in result.output
    assert imported("a", "modbus://10.0.0.6").exit_code == 0
    assert imported("b", "modbus://10.0.0.5:502").exit_code == 0


@pytest.mark.parametrize(
    ("plan", "end", "why"),
    [
        (ControlTaken(devices=(DeviceId("a"),), event=EventId("e")),
         ControlEnded(devices=(DeviceId("a"),), reason="released"), "is under control"),
        (PriorSaved(device=DeviceId("a"), settings={"work_mode": 2.0}), PriorRestored(device=DeviceId("a")),
         "is still without the settings it had before it was controlled"),
    ],
)  # fmt: skip
def test_devices_import_offline_leaves_who_is_not_released_where_it_is(
    tmp_path: Path, plan: Change, end: Change, why: str
) -> None:
    profiles, state = tmp_path / "profiles", tmp_path / "state"
    profiles.mkdir()
    for name, text in SAMPLES.items():
        (profiles / f"{name}.yaml").write_text(text, encoding="utf-8")
    settings = config(tmp_path, profiles_dir=str(profiles), state_dir=str(state))

    def journalled(change: Change) -> None:
        async def commit() -> None:
            journal = SqliteJournal(state / "journal.sqlite", clock=SystemClock())
            journal.load()
            await journal.commit([change])
            journal.close()

        asyncio.run(commit())

    def imported(*rows: str) -> Result:
        file = tmp_path / "devices.csv"
        file.write_text("\n".join([HEADER.strip() + ",address", *rows]), encoding="utf-8")
        return run("devices", "import", str(file), "--offline", "--config", settings)

    assert imported("a,sample-modbus,s,1,1,1,20,modbus://10.0.0.5").exit_code == 0
    journalled(plan)
    moved = "a,sample-modbus,s,1,1,1,20,modbus://10.0.0.6"
    result = imported(moved, "b,sample-modbus,s,1,1,1,20,modbus://10.0.0.7")
    assert f"devices.csv:2: note: a: {why}" in " ".join(result.output.split())
    assert "2 rows, 1 new or changed, 1 once they are handed back, 0 rejected" in result.output
    assert "1 rows, 1 new" in imported("a,sample-modbus,t,1,1,1,20,modbus://10.0.0.5").output
    journalled(end)
    assert imported(moved).exit_code == 0


def test_schema_documents_in_the_tree_are_up_to_date(tmp_path: Path) -> None:
    assert (
        run("schema", "--profiles", str(PROFILES), "--directory", str(ROOT / "deploy" / "api"), "--check").exit_code
        == 0
    )
    assert run("schema", "--profiles", str(PROFILES), "--directory", str(tmp_path), "--check").exit_code == 1
    assert run("schema", "--profiles", str(PROFILES), "--directory", str(tmp_path)).exit_code == 0
    assert run("schema", "--profiles", str(PROFILES), "--directory", str(tmp_path), "--check").exit_code == 0


def test_devices_import_offline_names_bad_lines_and_keeps_the_good(tmp_path: Path) -> None:
    file = tmp_path / "fleet.csv"
    file.write_text(f"{HEADER}a,reference-mqtt,s,1,1,1,0\nb,none,s,1,1,1,0\n", encoding="utf-8")
    args = ("devices", "import", str(file), "--offline", "--config", config(tmp_path))
    result = run(*args)
    assert result.exit_code == 1
    assert re.search(r"fleet\.csv:3: profile: is not known \(found 'none'\)", result.output)
    assert "2 rows, 1 new or changed, 1 rejected" in result.output
    assert "2 rows, 0 new or changed, 1 rejected" in run(*args).output
    file.write_bytes(b"\xff")
    assert run(*args).exit_code == 2
    file.write_text("id\n", encoding="utf-8")
    assert run(*args).exit_code == 2


@pytest.mark.parametrize("name", ["fleet.txt", "fleet", "none.csv"])
def test_devices_import_of_no_inventory_is_refused(tmp_path: Path, name: str) -> None:
    if name != "none.csv":
        (tmp_path / name).write_text(HEADER, encoding="utf-8")
    assert run("devices", "import", str(tmp_path / name)).exit_code == 2
    (tmp_path / "x.csv").write_text(HEADER, encoding="utf-8")
    assert run("devices", "import", str(tmp_path / "x.csv"), "--offline").exit_code == 2


def test_devices_import_over_rest_sends_the_file_with_its_kind(tmp_path: Path, daemon: Script) -> None:
    daemon.says({"rows": 1, "enrolled": 1, "rejected": [], "rejected_total": 0})
    file = tmp_path / "fleet.jsonl"
    file.write_text("{}\n", encoding="utf-8")
    result = run("devices", "import", str(file), "--url", daemon.url, env={"GATEWAY_TOKEN": "t0ken", "USER": "me"})
    assert (result.exit_code, result.output.strip()) == (0, "1 rows, 1 new or changed, 0 rejected")
    assert daemon.asked == [("POST", "/v1/devices?by=me", b"{}\n", "Bearer t0ken")]


@pytest.mark.parametrize(
    ("url", "token", "warned"),
    [("http://gateway.invalid:1", "t0ken", True), ("http://gateway.invalid:1", "", False),
     ("https://gateway.invalid:1", "t0ken", False), ("http://127.0.0.1:1", "t0ken", False),
     ("http://localhost:1", "t0ken", False)],
)  # fmt: skip
def test_commands_warn_where_the_token_goes_in_the_open(
    url: str, token: str, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("http.client.HTTPConnection.request", lambda *_, **__: (_ for _ in ()).throw(OSError("no")))
    result = run("dispatch", "list", "--url", url, env={"GATEWAY_TOKEN": token})
    assert result.exit_code == 1
    assert ("the token goes over plain http" in result.output) is warned


@pytest.mark.parametrize(
    ("profile", "address", "code", "words"),
    [("victron-gx-mqtt", "mqtt://gateway.invalid", 1, "not connected"),
     ("hoymiles-ms-a2", "mqtt://gateway.invalid", 1, "not connected"),
     ("victron-gx-mqtt", "ftp://gateway.invalid", 2, "mqtt(s)://host"),
     ("hoymiles-ms-a2", "ftp://gateway.invalid", 2, "mqtt(s)://host")],
)  # fmt: skip
def test_probe_of_a_broker_that_is_not_on_this_machine_ends_in_words(
    profile: str, address: str, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.links.mqtt.point_link.OPEN_S_MAX", 0.05)
    names = ("portal=x", "battery=0") if profile.startswith("victron") else ("device=x",)
    parameters = [part for name in names for part in ("--param", name)]
    result = run("profiles", "probe", profile, address, *parameters)
    assert (result.exit_code, words in result.output) == (code, True), result.output


@pytest.mark.parametrize(
    ("args", "kind"),
    [(("dispatch", "send", "-"), "application/json"), (("dispatch", "cancel", "e"), "application/json"),
     (("dispatch", "stop-all"), "application/json"), (("dispatch", "stop-all", "--clear"), "application/json"),
     (("exclusions", "set", "-"), "application/json"), (("devices", "trust", "a"), "application/json"),
     (("sinks", "resend", "leap", "--from", "2027-01-15T08:00:00Z", "--to", "2027-01-15T09:00:00Z"),
      "application/json"),
     (("devices", "import", "fleet.csv"), "text/csv"), (("devices", "import", "fleet.jsonl"), "application/x-ndjson"),
     (("dispatch", "list"), None)],
)  # fmt: skip
def test_commands_say_what_they_send(
    args: tuple[str, ...], kind: str | None, tmp_path: Path, daemon: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("fleet.csv", "fleet.jsonl"):
        (tmp_path / name).write_text(HEADER, encoding="utf-8")
    report = {"rows": 0, "enrolled": 0, "rejected": [], "rejected_total": 0}
    daemon.says({"events": [], "stopped": False} | report)
    result = run(*args, "--url", daemon.url, stdin="{}", env={"GATEWAY_TOKEN": "grüße-0123456789"})
    assert result.exit_code == 0, result.output
    assert daemon.kinds == [kind]
    # what the library reads as Latin-1 was sent as UTF-8, which is what the daemon compares
    assert daemon.asked[0][3].encode("latin-1").decode() == "Bearer grüße-0123456789"


@pytest.mark.parametrize(
    ("args", "words"),
    [(("dispatch", "list"), "no events"), (("exclusions", "list"), "no exclusions"),
     (("devices", "quarantine"), "no devices or products in quarantine"), (("audit", "list"), "no entries"),
     (("sinks", "list"), "no sinks"), (("dispatch", "availability"), "no groups yet")],
)  # fmt: skip
def test_list_that_is_empty_says_so(args: tuple[str, ...], words: str, daemon: Script) -> None:
    daemon.says({"events": [], "stopped": False, "exclusions": [], "entries": [], "sinks": [], "groups": [],
                 "next": None})  # fmt: skip
    assert run(*args, "--url", daemon.url).stdout == f"{words}\n"


def test_dispatch_list_and_send_say_why_an_event_was_rejected(daemon: Script) -> None:
    daemon.says({"events": [EVENT | {"state": "rejected", "reason": "expired"}], "stopped": False})
    assert "expired" in run("dispatch", "list", "--url", daemon.url).stdout
    daemon.says({"outcome": "rejected", "reason": "over_ceiling", "warnings": ["the ceiling is 5 W"]}, 409)
    sent = run("dispatch", "send", "-", "--url", daemon.url, stdin="{}")
    assert (sent.exit_code, sent.stderr.splitlines()) == (1, ["rejected: over_ceiling", "the ceiling is 5 W"])


@pytest.mark.parametrize("args", [
    ("dispatch", "send", "-"), ("dispatch", "cancel", "e"), ("dispatch", "lift", "e"), ("exclusions", "set", "-"),
    ("exclusions", "lift", "x"), ("devices", "trust", "a"), ("devices", "import", "fleet.csv"),
])  # fmt: skip
def test_commands_say_who_asks(
    args: tuple[str, ...], tmp_path: Path, daemon: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.csv").write_text(HEADER, encoding="utf-8")
    daemon.says({"rows": 0, "enrolled": 0, "rejected": [], "rejected_total": 0, "exclusions": [], "entries": []})
    assert run(*args, "--url", daemon.url, stdin="{}", env={"USER": "ann"}).exit_code == 0
    assert "by=ann" in daemon.asked[0][1].partition("?")[2].split("&")


def test_dispatch_commands_ask_the_daemon(tmp_path: Path, daemon: Script) -> None:
    daemon.says({"events": [EVENT], "stopped": True})
    listed = run("dispatch", "list", "--url", daemon.url)
    assert listed.exit_code == 0
    assert "dispatch is stopped" in listed.output
    assert json.loads(run("dispatch", "list", "--url", daemon.url, "--json").output)["stopped"] is True
    daemon.says({"id": "e", "outcome": "accepted"})
    file = tmp_path / "e.json"
    file.write_text('{"id": "e"}', encoding="utf-8")
    me = {"USER": "me"}
    assert run("dispatch", "send", str(file), "--url", daemon.url, env=me).exit_code == 0
    assert run("dispatch", "send", "-", "--url", daemon.url, stdin='{"id": "f"}', env=me).exit_code == 0
    assert run("dispatch", "cancel", "e", "--url", daemon.url, env={"USER": ""}).exit_code == 0
    assert run("dispatch", "show", "e", "--url", daemon.url).exit_code == 0
    past = ("--offset", "5", "--limit", "2", "--occurrence", "2026-01-01T00:00:00Z")
    assert run("dispatch", "show", "e", *past, "--url", daemon.url).exit_code == 0
    assert run("dispatch", "show", "e", "--source", "mqtt", "--url", daemon.url).exit_code == 0
    assert run("dispatch", "cancel", "e", "--source", "mqtt", "--url", daemon.url, env=me).exit_code == 0
    assert run("dispatch", "lift", "e", "--url", daemon.url, env=me).exit_code == 0
    assert run("dispatch", "stop-all", "--url", daemon.url, env={"USER": "me"}).exit_code == 0
    assert run("dispatch", "stop-all", "--clear", "--url", daemon.url, env={"USER": "me"}).exit_code == 0
    assert [(method, path, body) for method, path, body, _ in daemon.asked[2:]] == [
        ("POST", "/v1/dispatch-events?by=me", b'{"id": "e"}'),
        ("POST", "/v1/dispatch-events?by=me", b'{"id": "f"}'),
        ("DELETE", "/v1/dispatch-events/e?by=operator", b""),
        ("GET", "/v1/dispatch-events/e?offset=0&limit=100", b""),
        ("GET", "/v1/dispatch-events/e?offset=5&limit=2&occurrence=2026-01-01T00%3A00%3A00Z", b""),
        ("GET", "/v1/dispatch-events/e?offset=0&limit=100&source=mqtt", b""),
        ("DELETE", "/v1/dispatch-events/e?by=me&source=mqtt", b""),
        ("DELETE", "/v1/dispatch-events/e/cancellation?by=me", b""),
        ("POST", "/v1/dispatch/stop-all", b'{"active": true, "by": "me"}'),
        ("POST", "/v1/dispatch/stop-all", b'{"active": false, "by": "me"}'),
    ]
    assert run("dispatch", "send", str(tmp_path / "none.json"), "--url", daemon.url).exit_code == 2


def test_dispatch_send_until_further_notice_says_so_in_the_event(tmp_path: Path, daemon: Script) -> None:
    daemon.says({"id": "e", "outcome": "accepted"})
    open_ended = ("dispatch", "send", "-", "--until-further-notice", "--url", daemon.url)
    assert run(*open_ended, stdin='{"id": "e"}').exit_code == 0
    assert run(*open_ended, stdin='{"id": "f", "end": "open"}').exit_code == 0
    assert [json.loads(body) for _, _, body, _ in daemon.asked] == [
        {"id": "e", "end": "open"}, {"id": "f", "end": "open"},
    ]  # fmt: skip
    for body, word in (
        ('{"id": "e", "end": "2030-06-01T19:00:00Z"}', "contradicts"), ("[]", "not an event"), ("{", "not JSON"),
    ):  # fmt: skip
        refused = run(*open_ended, stdin=body)
        assert refused.exit_code == 2
        assert word in refused.stderr
    assert len(daemon.asked) == 2, "nothing more was sent"


def test_audit_list_asks_for_a_page_and_says_how_to_get_the_next(daemon: Script) -> None:
    entry = {"id": 7, "at": "2026-01-01T00:00:00Z", "kind": "stop_all", "by": "me", "door": "rest",
             "what": {"active": True}}  # fmt: skip
    daemon.says({"entries": [entry], "next": "7"})
    shown = run("audit", "list", "--kind", "stop_all", "--from", "2026-01-01T00:00:00Z", "--url", daemon.url)
    assert shown.exit_code == 0
    assert re.search(r"stop_all +me +rest", shown.output)
    assert "there are more: --after 7" in shown.output
    again = run("audit", "list", "--after", "7", "--json", "--url", daemon.url)
    assert json.loads(again.stdout)["entries"] == [entry]
    assert [path for _, path, *_ in daemon.asked] == [
        "/v1/audit?from=2026-01-01T00%3A00%3A00Z&kind=stop_all&limit=100", "/v1/audit?after=7&limit=100"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["exclusions", "holds"])
def test_exclusions_commands_ask_the_daemon_under_both_names(name: str, tmp_path: Path, daemon: Script) -> None:
    storm = {"id": "h", "reason": "storm", "event": None, "since": "s", "until": None, "by": "me", "devices": 2,
             "active": True}  # fmt: skip
    daemon.says({name: [storm]})
    listed = run(name, "list", "--url", daemon.url)
    assert (listed.exit_code, "storm" in listed.stdout) == (0, True)
    assert json.loads(run(name, "list", "--url", daemon.url, "--json").stdout) == {name: [storm]}
    assert run(name, "lift", "a/b", "--url", daemon.url, env={"USER": "me"}).exit_code == 0
    daemon.says(storm | {"durable": False, "warnings": ["not registered: x"]})
    done = run(name, "set", "-", "--url", daemon.url, stdin='{"id": "h"}', env={"USER": "me"})
    assert (done.exit_code, "not durable yet" in done.stderr) == (0, True)
    assert "warning: not registered: x" in done.stderr
    assert run(name, "set", str(tmp_path / "none.json"), "--url", daemon.url).exit_code == 2
    assert [(method, path, body) for method, path, body, _ in daemon.asked] == [
        ("GET", f"/v1/{name}", b""),
        ("GET", f"/v1/{name}", b""),
        ("DELETE", f"/v1/{name}/a%2Fb?by=me", b""),
        ("POST", f"/v1/{name}?by=me", b'{"id": "h"}'),
    ]


@pytest.mark.parametrize(
    ("group", "command", "former"),
    [((), "exclusions", "holds"), (("intervals",), "completeness", "ledger"),
     (("devices",), "unregistered", "unenrolled")],
)  # fmt: skip
def test_command_former_name_is_hidden_and_says_that_it_is_deprecated(
    group: tuple[str, ...], command: str, former: str, daemon: Script
) -> None:
    daemon.says({former: [], "day": "d", "total": 0, "next": None, "devices": [], "messages": 0})
    names = {line.split()[1] for line in run(*group, "--help").stdout.splitlines() if line.startswith("│ ")}
    assert command in names
    assert former not in names
    ask = ("list",) if not group else ()
    told = run(*group, former, *ask, "--url", daemon.url)
    assert (told.exit_code, "deprecated" in told.stderr, "deprecated" in told.stdout) == (0, True, False)
    daemon.says({command: [], "day": "d", "total": 0, "next": None, "devices": [], "messages": 0})
    told = run(*group, command, *ask, "--url", daemon.url)
    assert (told.exit_code, told.stderr) == (0, "")
    assert f"Former name of `{command}`" in run(*group, former, "--help").stdout


def test_unregistered_command_asks_the_daemon_under_both_names(daemon: Script) -> None:
    daemon.says({"devices": [{"device": "stranger", "seen": "s"}], "messages": 4})
    shown = [run("devices", name, "--url", daemon.url).stdout for name in ("unregistered", "unenrolled")]
    assert shown[0] == shown[1]
    assert json.loads(shown[0])["messages"] == 4
    assert [path for _, path, _, _ in daemon.asked] == ["/v1/unregistered"] * 2


def test_quarantine_commands_ask_the_daemon(daemon: Script) -> None:
    since = "2026-05-01T00:00:00Z"
    entries = [
        {"name": "home-1", "reason": "wrong_sign", "since": since, "lifted_by": "an operator", "detail": ""},
        {"name": "product:acme", "reason": "many_failed", "since": None, "lifted_by": "its devices", "detail": ""},
        {"name": "fox", "reason": "wrong_identity", "since": since, "lifted_by": "an import", "detail": "model is 9"},
    ]
    daemon.says({"entries": entries, "quarantined": {}, "frozen": []})
    shown = run("devices", "quarantine", "--url", daemon.url).output
    assert re.search(rf"home-1 +wrong_sign +{since} +an operator", shown)
    assert re.search(r"product:acme +many_failed +- +its devices", shown)
    assert re.search(rf"fox +wrong_identity +{since} +an import +model is 9", shown)
    assert run("devices", "quarantine", "--url", daemon.url, "--json").exit_code == 0
    trust = ("devices", "trust", "product:acme", "--reason", "rolled back", "--url", daemon.url)
    assert run(*trust, env={"USER": "me"}).exit_code == 0
    assert [(method, path, body) for method, path, body, _ in daemon.asked] == [
        ("GET", "/v1/quarantine", b""),
        ("GET", "/v1/quarantine", b""),
        ("DELETE", "/v1/quarantine/product%3Aacme?by=me&reason=rolled%20back", b""),
    ]


@pytest.mark.parametrize("name", ["completeness", "ledger"])
def test_completeness_and_sinks_commands_ask_the_daemon_and_show_it(name: str, daemon: Script) -> None:
    gap = {"start": "2027-01-15T08:20:00Z", "end": "2027-01-15T08:30:00Z", "intervals": 2, "reason": "silent"}
    sink = {"sent": 9, "accepted": 8, "inferred": 0, "waiting": 1, "not_wanted": 3, "superseded": 0,
            "refused": {"mtr_0003": 1}}  # fmt: skip
    day = {"device": "bat-1", "length_s": 300, "expected": 12, "stored": 10, "complete": 10, "revised": 1,
           "missing": {"silent": 2}, "sinks": {"leap": sink}, "gaps": [gap]}  # fmt: skip
    daemon.says({"day": "2027-01-15", "total": 200, "next": 100, "devices": [day]})
    wanted = ("--day", "2027-01-15", "--tag", "a b", "--incomplete", "--url", daemon.url)
    shown = run("intervals", name, *wanted).output
    assert re.search(r"bat-1 +12 +10 +10 +1 +silent=2 +8/9 waiting=1 not_wanted=3 mtr_0003=1", shown)
    assert "--offset 100" in shown
    gaps = run("intervals", name, "--gaps", "--url", daemon.url).output
    assert re.search(r"bat-1 +2027-01-15T08:20:00Z +2027-01-15T08:30:00Z +2 +silent", gaps)
    assert json.loads(run("intervals", name, "--json", "--url", daemon.url).stdout)["devices"] == [day]
    state = {"name": "leap", "accepted": 8, "backlog": 1, "oldest": None, "backfills": 0, "parked": {"bad": 2},
             "failing": "http_503", "stopped": False, "detail": ""}  # fmt: skip
    daemon.says({"sinks": [state]})
    assert re.search(r"leap +8 +1 +- +0 +\{'bad': 2\} +http_503", run("sinks", "list", "--url", daemon.url).output)
    daemon.says({"missing": [{"device": "bat-1", "meter": "m"}]})
    assert re.search(r"bat-1 +m", run("sinks", "missing", "leap", *STRETCH, "--url", daemon.url).output)
    daemon.says({"marked": 3})
    assert run("sinks", "resend", "leap", *STRETCH, "--parked", "--url", daemon.url).exit_code == 0
    assert run("sinks", "resend", "leap", *STRETCH, "--device", "bat-1", "--url", daemon.url).exit_code == 0
    paths = [path for _, path, _, _ in daemon.asked]
    assert paths[0] == "/v1/completeness?limit=100&offset=0&incomplete=true&day=2027-01-15&tag=a+b"
    assert paths[-3].startswith("/v1/sinks/leap/missing?from=2027-01-15T08%3A00%3A00Z")
    bodies = [json.loads(body) for _, _, body, _ in daemon.asked[-2:]]
    assert [(body["parked"], body["missing"], body["devices"]) for body in bodies] == [
        (True, False, []), (False, False, ["bat-1"]),
    ]  # fmt: skip


def test_leap_status_command_shows_what_is_open_what_went_up_and_what_waits(daemon: Script) -> None:
    file = {"name": "leap-1.csv", "rows": 96, "job": "j-1", "status": "COMPLETED", "at": "2027-01-15T08:00:00Z"}
    sink = {
        "sink": "leap", "transport": "http", "upload_schema": "load", "failing": "http_403", "stopped": True,
        "detail": "wrong [key]", "backlog": 7, "oldest": "2027-01-15T07:00:00Z",
        "waiting": {"receiver_clock_behind": 2}, "parked": {"mtr_0003": 1},
        "meters": 5, "meters_failing": None, "last_file": file, "on_its_way": None,
        "last_accepted": {"start": "2027-01-15T06:45:00Z", "device": "home-1", "revision": 2}, "missing_unknown": None,
        "missing": {"entries": 3, "oldest": "2027-01-14T00:00:00Z", "oldest_meter": "m", "oldest_device": "home-2",
                    "next_deadline": "2027-01-21T00:00:00Z"},
    }  # fmt: skip
    status = {"state": "UNCONFIRMED", "confirmed": {"upload_schema": "load"}, "unconfirmed": ["transport"]}
    daemon.says(status | {"sinks": [sink]})
    shown = run("leap", "status", "--url", daemon.url).output
    assert shown.splitlines() == [
        "UNCONFIRMED: not confirmed by the aggregator: transport",
        "  confirmed upload_schema: load",
        "",
        "leap over http, schema load, 5 meters",
        "  last file          leap-1.csv, 96 rows, COMPLETED at 2027-01-15T08:00:00Z, job j-1",
        "  on its way         none",
        "  last accepted row  2027-01-15T06:45:00Z home-1 revision 2",
        "  missing there      3 entries, the oldest of home-2 from 2027-01-14T00:00:00Z",
        "  next deadline      2027-01-21T00:00:00Z",
        "  waits              7 records, the oldest begins 2027-01-15T07:00:00Z",
        "  why                http_403 (wrong [key]): STOPPED, somebody must act",
        "  waits              2 rows: receiver_clock_behind",
        "  parked             1 records: mtr_0003",
        "",
        "no dispatch from the aggregator is configured (signals.leap)",
    ]
    assert json.loads(run("leap", "status", "--json", "--url", daemon.url).stdout)["sinks"] == [sink]
    daemon.says(status | {"sinks": []})
    assert "no sink of kind leap_csv" in run("leap", "status", "--url", daemon.url).output


STRETCH = ("--from", "2027-01-15T08:00:00Z", "--to", "2027-01-16T00:00:00Z")
COLUMNS = (
    "device,start,length_s,revision,charge_wh,discharge_wh,coverage_pct,samples,soc_end_pct,source,battery_w_mean,"
    "battery_w_min,battery_w_max\n"
)
LINE = "bat-1,2027-01-15T08:00:00Z,300,2,1.5,,100.0,7,55.5,counter,-18.0,-20.0,-15.5\n"


def test_intervals_list_shows_a_page_and_where_the_next_begins(daemon: Script) -> None:
    row = dict(zip(COLUMNS.strip().split(","), LINE.strip().split(","), strict=True))
    daemon.says({"intervals": [row], "next": "1800000000000~bat-1"})
    shown = run("intervals", "list", *STRETCH, "--device", "a", "--device", "b", "--tag", "t", "--url", daemon.url)
    assert (shown.exit_code, "--after 1800000000000~bat-1" in shown.output) == (0, True)
    page = run("intervals", "list", *STRETCH, "--after", "1~a", "--limit", "5", "--url", daemon.url, "--json")
    assert json.loads(page.output)["next"] == "1800000000000~bat-1"
    asked = "/v1/intervals?from=2027-01-15T08%3A00%3A00Z&to=2027-01-16T00%3A00%3A00Z"
    assert [path for _, path, *_ in daemon.asked] == [
        f"{asked}&device=a&device=b&tag=t&limit=100", f"{asked}&limit=5&after=1~a",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_intervals_export_writes_what_the_daemon_says(tmp_path: Path, daemon: Script, form: str) -> None:
    daemon.body = (COLUMNS + LINE).encode() * 50_000
    done = run("intervals", "export", str(tmp_path / "out"), *STRETCH, "--format", form, "--url", daemon.url)
    assert done.exit_code == 0
    assert (tmp_path / "out").read_bytes() == daemon.body
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert daemon.asked[0][1].endswith(f"&format={form}")


def test_intervals_export_as_parquet_has_types_and_nulls(tmp_path: Path, daemon: Script) -> None:
    daemon.body = (COLUMNS + LINE * 3).encode()
    target = tmp_path / "out.parquet"
    assert run("intervals", "export", str(target), *STRETCH, "--format", "parquet", "--url", daemon.url).exit_code == 0
    rows = pyarrow.parquet.read_table(target).to_pylist()
    assert len(rows) == 3
    assert rows[0] == {
        "device": "bat-1", "start": datetime(2027, 1, 15, 8, tzinfo=UTC), "length_s": 300, "revision": 2,
        "charge_wh": 1.5, "discharge_wh": None, "coverage_pct": 100.0, "samples": 7, "soc_end_pct": 55.5,
        "source": "counter", "battery_w_mean": -18.0, "battery_w_min": -20.0, "battery_w_max": -15.5,
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_intervals_export_that_fails_leaves_no_file(tmp_path: Path, daemon: Script) -> None:
    def export(*where: str) -> Result:
        return run("intervals", "export", *(where or (str(tmp_path / "out"),)), *STRETCH, "--url", daemon.url)

    daemon.says({"error": "the request was not understood", "problems": ["tag: nobody"]}, status=400)
    assert (export().exit_code, "tag: nobody" in export().output) == (1, True)
    daemon.status, daemon.body, daemon.promised = 200, COLUMNS.encode(), 10_000
    assert (export().exit_code, "cut short" in export().output) == (1, True)
    assert list(tmp_path.iterdir()) == []
    assert export(str(tmp_path / "none" / "out")).exit_code == 2


def test_state_goes_into_an_archive_and_comes_back(tmp_path: Path) -> None:
    fleet, archive, other = tmp_path / "fleet.csv", tmp_path / "out.tgz", tmp_path / "other"
    fleet.write_text(f"{HEADER}a,reference-mqtt,s,1,1,1,0\n", encoding="utf-8")
    file = config(tmp_path)
    result = run("state", "export", "--config", file, "--out", str(archive))
    assert (result.exit_code, result.output.strip()) == (2, f"state_dir {tmp_path}/state: does not exist")
    assert run("devices", "import", str(fleet), "--offline", "--config", file).exit_code == 0
    told = json.loads(run("state", "export", "--config", file, "--out", str(archive), "--json").output)
    size = (tmp_path / "state" / "journal.sqlite").stat().st_size
    assert (told["file"], told["files"], told["bytes"]) == (str(archive), 1, size)
    assert told["archive_bytes"] == archive.stat().st_size
    shown = run("state", "export", "--config", file, "--out", str(archive)).output
    assert re.fullmatch(rf"{archive}: 1 files, {size} bytes in [0-9]+\n", shown)

    there = config(tmp_path, state_dir=str(other))
    shown = run("state", "import", "--config", there, "--in", str(archive)).output
    assert re.fullmatch(rf"{other}: 1 files, {size} bytes, as of [0-9T:-]+Z\n", shown)
    assert "1 rows, 0 new or changed" in run("devices", "import", str(fleet), "--offline", "--config", there).output
    told = json.loads(run("state", "import", "--config", there, "--in", str(archive), "--replace", "--json").output)
    assert told["state_dir"] == str(other)
    assert re.fullmatch(rf"{other}\.before-[0-9]{{8}}T[0-9]{{6}}Z", told["before"])
    assert (Path(told["before"]) / "journal.sqlite").exists()


def test_state_commands_refuse_in_words(tmp_path: Path) -> None:
    file, archive, state = config(tmp_path), tmp_path / "out.tgz", tmp_path / "state"
    state.mkdir()
    assert run("state", "export", "--config", file, "--out", str(archive)).exit_code == 0
    (state / "journal.sqlite").touch()
    given = ("state", "import", "--config", file, "--in")
    refused = run(*given, str(archive))
    why = f"state_dir {state}: not empty; --replace keeps what is there aside"
    assert (refused.exit_code, refused.output.strip()) == (2, why)
    refused = run(*given, str(fleet := tmp_path / "fleet.csv"), "--replace")
    assert (refused.exit_code, refused.output.strip()) == (1, f"{fleet}: No such file or directory")
    archive.write_bytes(b"PK")
    refused = run(*given, str(archive), "--replace")
    assert (refused.exit_code, refused.output.strip()) == (2, f"{archive}: not gzip, or damaged")
    with locked(state):
        for args in (("state", "export", "--config", file, "--out", str(archive)), (*given, str(archive))):
            refused = run(*args)
            why = f"state_dir {state}: another gateway is using it"
            assert (refused.exit_code, refused.output.strip()) == (1, why)
    assert archive.read_bytes() == b"PK"


def test_locked_directory_that_is_replaced_meanwhile_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the lock and having it, an import puts another directory there."""
    state = tmp_path / "state"
    real = fcntl.flock

    def late(file: TextIO, how: int) -> None:
        state.rename(tmp_path / "before")
        state.mkdir()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(GatewayError, match="was replaced just now"), locked(state):
        pytest.fail("the lock of another directory was taken")


def test_dispatch_availability_is_a_table_of_kilowatts(daemon: Script) -> None:
    group = {"group": "all", "devices": 3, "hours": [1, 2], "discharge_w": [9_000.0, 4_500.0], "charge_w": [1.0, 0.0]}
    daemon.says({"groups": [group]})
    shown = run("dispatch", "availability", "--url", daemon.url).output
    assert "discharge 2 h" in shown
    assert re.search(r"all +3 +9.0 +4.5 +0.0 +0.0", shown)
    assert run("dispatch", "availability", "--url", daemon.url, "--json").exit_code == 0


def test_command_refused_by_the_daemon_exits_1_with_its_words(daemon: Script) -> None:
    daemon.says({"error": "the request was not understood", "problems": ["id: too long"]}, status=400)
    result = run("dispatch", "cancel", "e", "--url", daemon.url)
    assert (result.exit_code, result.output.split("\n")[:2]) == (1, ["the request was not understood", "id: too long"])
    daemon.says({"id": "e", "revision": 1, "outcome": "rejected", "reason": "stopped"}, status=409)
    result = run("dispatch", "send", "-", "--url", daemon.url, stdin="{}")
    assert (result.exit_code, result.output.strip()) == (1, "rejected: stopped")


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"7", b"null"])
def test_command_daemon_that_is_none_exits_1_in_words(daemon: Script, body: bytes) -> None:
    daemon.status, daemon.body = 500, body
    assert run("dispatch", "cancel", "e", "--url", daemon.url).exit_code == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://", "nonsense", "ftp://x", "http://127.0.0.1:port", "http://[::1"]
)
def test_command_without_a_daemon_exits_1_in_words(url: str) -> None:
    result = run("devices", "list", "--url", url)
    assert result.exit_code == 1
    assert result.output


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "é", "a?b=c", "x\ny"])
def test_command_odd_id_is_one_segment_of_the_path(daemon: Script, name: str) -> None:
    daemon.says({"error": "no such event"}, status=404)
    assert run("dispatch", "show", name, "--url", daemon.url).exit_code == 1
    assert len(daemon.asked) == 1
    assert re.fullmatch(r"/v1/dispatch-events/[A-Za-z0-9%._~-]+(\?offset=0&limit=100)?", daemon.asked[0][1])
