"""Configuration: every fault at once with its path, secrets by reference only, durations with units."""

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.durations import duration_s
from gateway.config.loader import load_settings
from gateway.config.secrets import SecretsMissing
from gateway.config.settings import DeviceSettings, Settings
from gateway.domain.errors import InvalidInput
from gateway.services.settings import MaintenanceSettings
from gateway.sinks.leap.settings import LeapCsvSinkSettings

ROOT = Path(__file__).parents[2]
SECRET = "correct-horse-battery-staple"
PLAIN: dict[str, Any] = {
    "state_dir": "state",
    "profiles_dir": "profiles",
    "devices": {"mqtt": {"broker": {"url": "mqtt://127.0.0.1:1883", "client_id": "gateway"}}},
}


def write(directory: Path, **change: Any) -> Path:
    path = directory / "gateway.yaml"
    path.write_text(yaml.safe_dump(PLAIN | change), encoding="utf-8")
    return path


def load(directory: Path, **change: Any) -> Settings:
    return load_settings(write(directory, **change))


def faults(directory: Path, **change: Any) -> list[str]:
    """The problems, without the file's name and the line in front of each."""
    path = write(directory, **change)
    with pytest.raises(InvalidInput) as caught:
        load_settings(path)
    found = [re.fullmatch(rf"{re.escape(str(path))}:\d+: (.*)", problem) for problem in caught.value.problems]
    return [match[1] for match in found if match is not None or pytest.fail(str(caught.value.problems))]


def test_config_example_is_valid_and_relative_paths_are_the_files_own() -> None:
    settings = load_settings(ROOT / "config" / "gateway.example.yaml")
    assert settings.state_dir == ROOT / "config" / ".." / "state"
    assert settings.profiles_dir.resolve() == ROOT / "device_profiles"
    assert settings.intervals.length_s == 300


@pytest.mark.parametrize("client_id", ["gateway-control", "gateway-telemetry"])
def test_config_platform_with_the_client_id_of_a_devices_connection_is_refused(tmp_path: Path, client_id: str) -> None:
    broker = {"url": "mqtt://127.0.0.1:1884", "client_id": client_id}
    assert faults(tmp_path, platform={"broker": broker}) == [
        "platform.broker.client_id: a connection to the devices has it; each would cut the other off"
    ]
    elsewhere = broker | {"url": "mqtts://platform.example"}
    assert load(tmp_path, platform={"broker": elsewhere}).platform is not None


def test_config_every_fault_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        http={"port": 70_000, "hots": "x"},
        intervals={"length_s": "7s"},
        sinks=[{"kind": "http", "name": "A!", "url": "ftp://x"}, {"kind": "pigeon", "name": "b"}],
        control={"tick_s": -1},
        devices={"mqtt": {"broker": {"url": "mqtt://10.0.0.1", "client_id": "gateway"}}},
    )
    for path in ("http.port", "http.hots", "intervals", "sinks.0", "sinks.1", "control.tick_s", "devices.mqtt.broker"):
        assert any(problem.startswith(path) for problem in found), path
    assert len(found) == 8


def test_config_example_uses_no_former_key() -> None:
    assert load_settings(ROOT / "config" / "gateway.example.yaml").former == ()


@pytest.mark.parametrize("name", ["maintenance", "upkeep"])
def test_config_maintenance_is_taken_under_both_names(tmp_path: Path, name: str) -> None:
    settings = load(tmp_path, control={name: {"recovery_s": "10min", "full_charge_cycles": 7}})
    assert settings.control.maintenance == MaintenanceSettings(recovery_s=600, full_charge_cycles=7)


def test_config_former_key_is_warned_about_and_the_new_one_is_not(tmp_path: Path) -> None:
    assert load(tmp_path, control={"maintenance": {}}).former == ()
    assert load(tmp_path, control={"upkeep": {}}).former == (
        f"{tmp_path / 'gateway.yaml'}:2: control.upkeep: the next release knows this key only as maintenance",
    )


def test_config_maintenance_under_both_names_at_once_is_refused_with_both(tmp_path: Path) -> None:
    assert faults(tmp_path, control={"upkeep": {}, "maintenance": {"recovery_s": "1h"}}) == [
        "control.upkeep: the former name of maintenance, which is given too; keep maintenance alone"
    ]


@pytest.mark.parametrize("name", ["maintenance", "upkeep"])
def test_config_fault_inside_maintenance_has_the_path_that_the_file_gives(tmp_path: Path, name: str) -> None:
    found = faults(tmp_path, control={name: {"recovery_s": -1, "recover": 1}})
    assert [problem.split(": ")[0] for problem in found] == [f"control.{name}.recover", f"control.{name}.recovery_s"]


def test_config_former_key_elsewhere_is_unknown(tmp_path: Path) -> None:
    assert faults(tmp_path, upkeep={}) == ["upkeep: unknown key"]


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "a: [", "\tx", "a: !!python/object/apply:os.system [ls]", "&a [*a]", "[" * 5_000]
)
def test_config_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        load_settings(path)
    assert all(str(path) in problem for problem in caught.value.problems)


def test_config_missing_binary_and_oversized_files_are_refused(tmp_path: Path) -> None:
    binary, large = tmp_path / "binary", tmp_path / "large"
    binary.write_bytes(b"\xff\xfe\x00")
    large.write_bytes(b"#" * ((1 << 20) + 1))
    for path in (tmp_path / "none", tmp_path, binary, large):
        with pytest.raises(InvalidInput):
            load_settings(path)


def test_config_secret_in_plain_text_is_a_fault_that_does_not_repeat_it(tmp_path: Path) -> None:
    found = faults(tmp_path, http={"token": SECRET})
    assert found == ["http.token: write a reference, env:NAME or file:/path, not the secret itself"]


def test_config_secret_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", SECRET)
    settings = load(tmp_path, http={"token": "env:TEST_TOKEN"})
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == SECRET
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.delenv("TEST_TOKEN")
    assert faults(tmp_path, http={"token": "env:TEST_TOKEN"}) == [
        "http.token: the environment variable TEST_TOKEN is not set"
    ]


def test_config_secret_from_a_file_that_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    file.chmod(0o640)
    broker = PLAIN["devices"]["mqtt"]["broker"] | {"username": "gateway", "password": f"file:{file}"}
    devices = {"mqtt": {"broker": broker}}
    assert faults(tmp_path, devices=devices) == [
        f"devices.mqtt.broker.password: {file} can be read by others; chmod 600"
    ]
    file.chmod(0o600)
    password = load(tmp_path, devices=devices).devices.mqtt.broker.password
    assert password is not None
    assert password.get_secret_value() == SECRET
    file.unlink()
    assert "cannot be read" in faults(tmp_path, devices=devices)[0]


def test_config_secrets_that_cannot_be_read_yet_are_told_apart_from_faults(tmp_path: Path) -> None:
    file = tmp_path / "password"
    broker = PLAIN["devices"]["mqtt"]["broker"] | {"username": "gateway", "password": f"file:{file}"}
    devices = {"mqtt": {"broker": broker}}
    with pytest.raises(SecretsMissing, match="cannot be read"):
        load(tmp_path, devices=devices)
    file.touch(0o600)
    with pytest.raises(SecretsMissing, match="is empty"):
        load(tmp_path, devices=devices)
    for other in ({"devices": devices, "state_dir": 7}, {"devices": {"mqtt": {"broker": broker | {"password": "x"}}}}):
        with pytest.raises(InvalidInput) as found:
            load(tmp_path, **other)
        assert not isinstance(found.value, SecretsMissing)
    file.write_text(SECRET, encoding="utf-8")
    assert load(tmp_path, devices=devices).devices.mqtt is not None


def test_device_secret_that_is_no_small_file_is_refused_and_does_not_stop_the_loop(tmp_path: Path) -> None:
    settings = DeviceSettings.model_validate(PLAIN["devices"] | {"secrets": [f"file:{tmp_path}/"]})
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name, size in (("most", 1 << 16), ("large", (1 << 16) + 1)):
        (tmp_path / name).write_bytes(b"x" * size)
        (tmp_path / name).chmod(0o600)
    for name, problem in (("pipe", "is no file"), ("folder", "is no file"), ("large", "is larger than 65536 bytes")):
        with pytest.raises(InvalidInput, match=problem):
            settings.secret(f"file:{tmp_path}/{name}")
    assert len(settings.secret(f"file:{tmp_path}/most")) == 1 << 16


def test_config_secret_does_not_appear_in_other_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", SECRET)
    monkeypatch.setenv("SHORT_TOKEN", "hunter2")
    sinks = [{"kind": "http", "name": "x", "url": "gopher://x", "token": "env:TEST_TOKEN"}]
    found = faults(tmp_path, http={"token": "env:TEST_TOKEN", "port": "x"}, sinks=sinks)
    assert len(found) == 2
    assert SECRET not in "".join(found)
    short = faults(tmp_path, http={"token": "env:SHORT_TOKEN"})
    assert short == ["http.token: shorter than 16 characters"]
    assert os.environ["SHORT_TOKEN"] not in "".join(short)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "gateway.example"])
def test_config_beyond_loopback_callers_and_tls_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    assert faults(tmp_path, http={"host": host}) == [f"http.host: {host} is not loopback: access and tls required"]
    monkeypatch.setenv("TEST_TOKEN", SECRET)
    tls = {"certificate": "server.pem", "key_file": "server.key"}
    assert load(tmp_path, http={"host": host, "token": "env:TEST_TOKEN", "tls": tls}).http.host == host
    metrics = {"host": host, "port": 9090}
    assert faults(tmp_path, http={"metrics": metrics, "token": "env:TEST_TOKEN"}) == [
        f"http.metrics: {host} is not loopback: tls required"
    ]


def test_config_sinks_have_names_of_their_own_and_mqtt_needs_a_platform(tmp_path: Path) -> None:
    mqtt = {"kind": "mqtt", "name": "a"}
    assert "kind: mqtt needs `platform`" in faults(tmp_path, sinks=[mqtt])[0]
    platform = {"broker": {"url": "mqtt://127.0.0.1", "client_id": "p"}}
    assert "another sink has this name" in faults(tmp_path, sinks=[mqtt, mqtt], platform=platform)[0]
    assert len(load(tmp_path, sinks=[mqtt, mqtt | {"name": "b"}], platform=platform).sinks) == 2


def test_config_aggregator_needs_quarters_and_its_meters_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKEN", SECRET)
    leap = {
        "kind": "leap_csv", "name": "leap", "url": "https://api.leap.example", "token": "env:TEST_TOKEN",
        "meters": "meters/leap.csv", "poll_s": "1min", "job_timeout_s": "1h",
    }  # fmt: skip
    assert "leap_csv needs a length of 15min" in faults(tmp_path, sinks=[leap])[0]
    quarters = {"length_s": "15min"}
    (sink,) = load(tmp_path, sinks=[leap], intervals=quarters).sinks
    assert isinstance(sink, LeapCsvSinkSettings)
    assert sink.token is not None
    assert (sink.meters, sink.poll_s, sink.token.get_secret_value()) == (tmp_path / "meters/leap.csv", 60, SECRET)
    (sink,) = load(tmp_path, sinks=[leap | {"meters": "/etc/leap.csv"}], intervals=quarters).sinks
    assert isinstance(sink, LeapCsvSinkSettings)
    assert sink.meters == Path("/etc/leap.csv")
    plain = faults(tmp_path, sinks=[leap | {"url": "http://api.leap.example"}], intervals=quarters)
    assert "https is required" in plain[0]


def test_config_aggregator_must_be_asked_in_the_way_it_has_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKEN", SECRET)
    sftp = {
        "host": "sftp.leap.example", "user": "me", "password": "env:TEST_TOKEN", "key_file": "keys/id",
        "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    }  # fmt: skip
    leap = {"kind": "leap_csv", "name": "leap", "meters": "m.csv", "sftp": sftp}
    rest: dict[str, object] = {"sinks": [leap], "intervals": {"length_s": "15min"}}
    (sink,) = load(tmp_path, **rest, leap={"confirmed": {"transport": "sftp", "upload_schema": "load"}}).sinks
    assert isinstance(sink, LeapCsvSinkSettings)
    assert sink.sftp is not None
    assert sink.sftp.password is not None
    assert (sink.sftp.key_file, sink.sftp.password.get_secret_value()) == (tmp_path / "keys/id", SECRET)
    assert (
        "transport is sftp, but http is confirmed"
        in faults(tmp_path, **rest, leap={"confirmed": {"transport": "http"}})[0]
    )
    assert (
        "upload_schema is load, but runtime is confirmed"
        in faults(tmp_path, **rest, leap={"confirmed": {"upload_schema": "runtime"}})[0]
    )
    assert "write a reference" in faults(tmp_path, **rest | {"sinks": [leap | {"sftp": sftp | {"password": "x"}}]})[0]


def test_config_examples_commented_sinks_are_valid_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PLATFORM_TOKEN", "LEAP_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    text = (ROOT / "config" / "gateway.example.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^  # (?=- kind|  \w+: )", "  ", text, flags=re.MULTILINE)
    path = tmp_path / "gateway.yaml"
    path.write_text(text.replace("length_s: 5min", "length_s: 15min"), encoding="utf-8")
    assert [sink.kind for sink in load_settings(path).sinks] == ["mqtt", "http", "leap_csv", "parquet"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5min", 300), ("24h", 86_400), ("500ms", 0.5), ("1.5 h", 5_400), ("2d", 172_800)],
)
def test_duration_with_a_unit_is_seconds(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@given(text=st.text(max_size=12))
def test_duration_anything_else_is_left_for_the_model_to_refuse(text: str) -> None:
    result = duration_s(text)
    assert result == text or isinstance(result, float)


@pytest.mark.parametrize("value", ["s", "-5s", "5 m", "1h30min", "∞s", "1e3s", "", None, []])
def test_config_duration_without_a_unit_or_a_sense_is_refused(tmp_path: Path, value: object) -> None:
    found = faults(tmp_path, control={"write_deadline_s": value})
    assert found[0].startswith("control.write_deadline_s: ")


def test_config_plain_numbers_are_seconds(tmp_path: Path) -> None:
    assert load(tmp_path, intervals={"length_s": 900, "grace_s": 0}).intervals.length_s == 900


@pytest.mark.parametrize("length", [0, -1, 7, 86_401, "1.5s", 100_000])
def test_config_interval_that_does_not_divide_a_day_is_refused(tmp_path: Path, length: object) -> None:
    assert faults(tmp_path, intervals={"length_s": length})[0].startswith("intervals")


@pytest.mark.parametrize(
    ("reference", "fits"),
    [("env:DEVICE_TOKEN", True), ("env:GATEWAY_TOKEN", False), ("file:/etc/passwd", False),
     ("file:/run/credentials/devices/../gateway-mqtt", False), ("file:/run/credentials/gateway-mqtt", False),
     ("DEVICE_TOKEN", False)],
)  # fmt: skip
def test_device_secret_comes_from_allowed_places_only(
    reference: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICE_TOKEN", "token-of-the-device")
    monkeypatch.setenv("GATEWAY_TOKEN", "token-of-the-gateway")
    for settings in (
        load_settings(ROOT / "config" / "gateway.example.yaml").devices,
        DeviceSettings.model_validate(PLAIN["devices"]),
    ):
        if fits:
            assert settings.secret(reference) == "token-of-the-device"
        else:
            with pytest.raises(InvalidInput, match=r"devices\.secrets"):
                settings.secret(reference)


def test_device_secret_is_never_one_of_the_gateways_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, devices, key = tmp_path / "gateway-mqtt", tmp_path / "device", tmp_path / "key.pem"
    for file in (own, devices, key):
        file.write_text(SECRET, encoding="utf-8")
        file.chmod(0o600)
    (tmp_path / "link").symlink_to(own)
    (tmp_path / "hard").hardlink_to(own)
    monkeypatch.setenv("DEVICE_OWN", SECRET)
    monkeypatch.setenv("DEVICE_OTHER", SECRET)
    broker = {"url": "mqtt://127.0.0.1:1883", "client_id": "gateway", "password": f"file:{own}",
              "cert_file": str(devices), "key_file": key.name}  # fmt: skip
    settings = load(
        tmp_path,
        devices={"mqtt": {"broker": broker}, "secrets": ["env:DEVICE_", f"file:{tmp_path}/"]},
        sinks=[{"kind": "http", "name": "x", "url": "https://x", "token": "env:DEVICE_OWN"}],
    ).devices
    for name in ("gateway-mqtt", "/gateway-mqtt", "link", "hard", "key.pem"):
        with pytest.raises(InvalidInput, match="the gateway's own"):
            settings.secret(f"file:{tmp_path}/{name}")
    with pytest.raises(InvalidInput, match="the gateway's own"):
        settings.secret("env:DEVICE_OWN")
    assert settings.secret(f"file:{tmp_path}/device") == settings.secret("env:DEVICE_OTHER") == SECRET


@pytest.mark.parametrize(
    ("url", "fits"),
    [("https://receiver.example/x", True), ("http://127.0.0.1:1/x", True), ("http://localhost/x", True),
     ("http://[::1]/x", True), ("http://127.9.9.9/x", True), ("http://receiver.example/x", False),
     ("http://10.0.0.1/x", False), ("http://127.0.0.1.example/x", False), ("http://localhost.example/", False)],
)  # fmt: skip
def test_config_http_sink_sends_no_token_in_the_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, fits: bool
) -> None:
    monkeypatch.setenv("TEST_TOKEN", SECRET)
    sink = {"kind": "http", "name": "x", "url": url}
    assert load(tmp_path, sinks=[sink]).sinks[0].name == "x"
    if fits:
        assert load(tmp_path, sinks=[sink | {"token": "env:TEST_TOKEN"}]).sinks[0].name == "x"
    else:
        found = faults(tmp_path, sinks=[sink | {"token": "env:TEST_TOKEN"}])
        assert found == ["sinks.0.url: https is required, because requests carry the token"]


@pytest.mark.parametrize(
    "url", ["https://user:pw@receiver.example/", "http://user@127.0.0.1/", "https:///x", "http://h:x/"]
)
def test_config_http_sink_address_without_a_host_or_with_an_account_is_refused(tmp_path: Path, url: str) -> None:
    found = faults(tmp_path, sinks=[{"kind": "http", "name": "x", "url": url}])
    assert len(found) == 1
    assert found[0].startswith("sinks.0.url: ")
    assert "pw" not in found[0]


BROKER = {"url": "mqtt://127.0.0.1:1883", "client_id": "gateway"}
PLANTED: dict[str, tuple[tuple[tuple[int | str, ...], object], ...]] = {
    "state_dir: not a path": ((("state_dir",), 7),),
    "http.port: Input should be less than or equal to 65535": ((("http", "port"), 99_999),),
    "http.host: 0.0.0.0 is not loopback: access and tls required": ((("http", "host"), "0.0.0.0"),),
    "http.prot: unknown key; did you mean port?": ((("http", "prot"), 1),),
    "log.level: Input should be 'debug', 'info', 'warning' or 'error'": ((("log", "level"), "loud"),),
    "devices.mqtt.broker.url: 10.0.0.1 is not loopback; use mqtts:// (or allow_plaintext: true)": (
        (("devices", "mqtt", "broker", "url"), "mqtt://10.0.0.1"),
    ),
    "devices.mqtt.broker.key_file: required, because cert_file is given": (
        (("devices", "mqtt", "broker", "cert_file"), "x.pem"),
    ),
    "devices.mqtt.broker.keepalive_s: not a duration; write 5min": (
        (("devices", "mqtt", "broker", "keepalive_s"), "5 minutes"),
    ),
    "platform.broker.client_id: required": ((("platform", "broker"), {"url": "mqtt://127.0.0.1:1883"}),),
    "sinks.0.url: credentials do not belong here; use token": (
        (("sinks", 0), {"kind": "http", "name": "a", "url": "https://me@receiver.example/"}),
    ),
    "sinks.2.name: another sink has this name": (
        (("sinks", 1), {"kind": "http", "name": "same", "url": "https://receiver.example/"}),
        (("sinks", 2), {"kind": "http", "name": "same", "url": "https://receiver.example/"}),
    ),
    "sinks.5.timeout_s: Input should be less than or equal to 300": (
        (("sinks", 5, "timeout_s"), "1h"),
    ),
    "sinks.4.kind: leap_csv needs a length of 15min in intervals or programs": (
        (("sinks", 4), {"kind": "leap_csv", "name": "l", "url": "https://x", "token": "env:TEST_TOKEN", "meters": "m"}),
    ),
    "sinks.3.kind: not one of 'http', 'mqtt', 'leap_csv', 'parquet'": (
        (("sinks", 3), {"kind": "htpp", "name": "b", "url": "https://receiver.example/"}),
    ),
    "intervals.length_s: 7 s does not divide a day": ((("intervals", "length_s"), 7),),
    "leap.confirmed.energy_columns: net energy is written only once net_sign is confirmed too": (
        (("leap", "confirmed"), {"energy_columns": "net"}),
    ),
    "control.tick_s: Input should be greater than or equal to 0.2": ((("control", "tick_s"), 0),),
    "programs.peak.ceiling_mw: Input should be greater than 0": ((("programs", "peak"), {"ceiling_mw": -1}),),
    "control.programs.noon.ceiling_mw: Input should be greater than 0": (
        (("control", "programs", "noon"), {"ceiling_mw": -1}),
    ),
    "intervals.programs.night.length_s: 7 s does not divide a day": (
        (("intervals", "programs", "night"), {"length_s": "7s"}),
    ),
}  # fmt: skip


def planted(*names: str) -> dict[str, Any]:
    """The plain configuration with six sinks and these faults in it."""
    document: Any = json.loads(json.dumps(PLAIN)) | {
        "sinks": [{"kind": "http", "name": f"fine-{i}", "url": "https://receiver.example/"} for i in range(6)]
    }
    for name in names:
        for loc, value in PLANTED[name]:
            here = document
            for part in loc[:-1]:
                here = here[part] if isinstance(part, int) else here.setdefault(part, {})
            here[loc[-1]] = value
    return dict(document)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(PLANTED, 2)))
def test_config_fault_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str) -> None:
    monkeypatch.setenv("TEST_TOKEN", SECRET)
    assert sorted(faults(tmp_path, **planted(one, other))) == sorted((one, other))


def test_config_all_faults_are_told_in_the_order_of_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKEN", SECRET)
    path = write(tmp_path, **planted(*PLANTED))
    with pytest.raises(InvalidInput) as caught:
        load_settings(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    told = [problem.removeprefix(f"{path}:").split(": ", 1) for problem in caught.value.problems]
    assert sorted(words for _, words in told) == sorted(PLANTED)
    assert [int(line) for line, _ in told] == sorted(int(line) for line, _ in told)
    for line, words in told:
        last = words.split(": ")[0].rpartition(".")[2]
        assert last in lines[int(line) - 1] or ": required" in words, (line, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [("5 minutes", "write 5min"), ("10m", "write 10min"), ("2 Hours", "write 2h"), ("1.5day", "write 1.5d"),
     ("3 secs", "write 3s"), ("soon", "write a number of seconds"), ("1h30min", "write a number of seconds")],
)  # fmt: skip
def test_config_duration_in_other_words_is_told_how_to_be_written(tmp_path: Path, text: str, words: str) -> None:
    (found,) = faults(tmp_path, control={"write_deadline_s": text})
    assert found.startswith("control.write_deadline_s: not a duration; ")
    assert words in found


def test_config_secret_with_a_fault_makes_nothing_else_wrong(tmp_path: Path) -> None:
    tls = {"certificate": "server.pem", "key_file": "server.key"}
    found = faults(tmp_path, http={"host": "0.0.0.0", "token": "env:NOT_SET_ANYWHERE", "tls": tls})
    assert found == ["http.token: the environment variable NOT_SET_ANYWHERE is not set"]


def test_config_repeated_key_and_a_second_document_are_refused_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    for text, words in (
        ("state_dir: a\nstate_dir: b\n", ":2: the key 'state_dir' stands twice"),
        ("a: 1\n---\n", ":2: more"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InvalidInput) as caught:
            load_settings(path)
        assert caught.value.problems[0].startswith(f"{path}{words}")


# -- customers -------------------------------------------------------------------------------------------------------


def test_config_the_key_of_personal_data_is_32_bytes_in_base64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONAL_KEY", "+/" * 21 + "8=")
    monkeypatch.setenv("FORMER_KEY", "-_" * 21 + "8=")
    keys = {"personal_key": "env:PERSONAL_KEY", "former_personal_key": "env:FORMER_KEY"}
    assert load(tmp_path, customers=keys).customers.keys == ("-_" * 21 + "8=", "-_" * 21 + "8=")
    assert load(tmp_path).customers.keys == ()
    monkeypatch.setenv("PERSONAL_KEY", SECRET)
    assert faults(tmp_path, customers=keys) == [
        "customers.personal_key: not 32 bytes in base64, such as `openssl rand -base64 32` prints"
    ]
    assert faults(tmp_path, customers={"former_personal_key": "env:FORMER_KEY"}) == [
        "customers.former_personal_key: stands beside a personal_key alone"
    ]
    assert faults(tmp_path, customers={"personal_key": SECRET}) == [
        "customers.personal_key: write a reference, env:NAME or file:/path, not the secret itself"
    ]


def test_config_the_time_zone_of_a_program_is_one_that_exists(tmp_path: Path) -> None:
    assert load(tmp_path, programs={"p": {"time_zone": "Europe/Berlin"}}).programs["p"].time_zone == "Europe/Berlin"
    [fault] = faults(tmp_path, programs={"p": {"time_zone": "Mars/Base"}})
    assert fault.startswith("programs.p.time_zone:")
    assert "is no time zone, like America/Los_Angeles" in fault
