"""What is shipped for service managers and for Prometheus fits what the gateway does and tells."""

import configparser
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gateway.app.daemon import EXIT_BROKEN
from gateway.app.last_runs import LAST_CHANCE_S
from gateway.app.service_manager import BEATS
from gateway.config.loader import load_settings
from gateway.domain.runs import ENDS_MAX, WITHIN_MS
from gateway.services.control.loop import RELEASE_SLACK_S

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
START_S = 30.0
EXPOSURE_MAX = 2.0


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "gateway.service", encoding="utf-8")
    return parser


def test_unit_restarts_a_broken_gateway_until_it_is_release_only_and_never_gives_up() -> None:
    service = unit()["Service"]
    assert unit()["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["Restart"] == "always"
    assert str(EXIT_BROKEN) not in service["RestartPreventExitStatus"].split()
    assert "SuccessExitStatus" not in service
    each_s = float(service["RestartSec"]) + START_S + 2 * LAST_CHANCE_S
    assert ENDS_MAX * each_s < WITHIN_MS / 1000


def test_unit_leaves_a_stop_the_time_that_releases_take() -> None:
    control = load_settings(ROOT / "config" / "gateway.example.yaml").control
    assert float(unit()["Service"]["TimeoutStopSec"]) > control.release_spread_s + RELEASE_SLACK_S + 60


def test_unit_is_ready_when_the_gateway_says_so_and_is_ended_when_control_stands_still() -> None:
    service = unit()["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    tick_s = load_settings(ROOT / "config" / "gateway.example.yaml").control.tick_s
    assert float(service["WatchdogSec"]) >= 10 * tick_s * BEATS
    assert service["ExecStartPre"].split()[1:] == ["validate", "--config", "/etc/gateway/gateway.yaml"]
    assert service["DynamicUser"] == "yes"
    assert service["StateDirectory"] == "gateway"


def test_unit_is_not_exposed_by_systemds_own_measure() -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("no systemd-analyze here")
    done = subprocess.run(
        [tool, "security", "--offline=true", "--no-pager", str(DEPLOY / "gateway.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for gateway.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_MAX


def granted() -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """The access list: what each device may do under its own name, and what the gateway may, as verb and topic."""
    devices, of_user = set(), dict[str, set[tuple[str, str]]]()
    user = ""
    for line in (DEPLOY / "mosquitto.acl").read_text(encoding="utf-8").splitlines():
        match line.split():
            case ["pattern", verb, topic]:
                devices.add((verb, topic))
            case ["user", user]:
                pass
            case ["topic", verb, topic]:
                of_user.setdefault(user, set()).add((verb, topic))
    return devices, of_user["gateway"]


def topics_on_our_broker() -> list[tuple[str, str, str]]:
    """Profile, direction as a device sees it, and topic, of every product that is a client of our broker."""

    def walk(node: object, told: bool) -> Iterator[tuple[str, str]]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "topic":
                    yield ("read" if told else "write"), value
                else:
                    yield from walk(value, told or key in ("write", "commands"))
        elif isinstance(node, list):
            for value in node:
                yield from walk(value, told)

    found = []
    for path in sorted((ROOT / "device_profiles").glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        ours = "messages" in document or document.get("mqtt", {}).get("broker") == "fleet"
        if document["transport"] == "mqtt" and ours:
            found += [(path.stem, verb, topic) for verb, topic in walk(document, told=False)]
    return found


def covers(pattern: str, topic: str) -> bool:
    levels, wanted = pattern.split("/"), topic.split("/")
    return len(levels) == len(wanted) and all(a in ("+", b) for a, b in zip(levels, wanted, strict=True))


def test_access_list_lets_every_product_on_our_broker_speak_and_be_told() -> None:
    devices, gateway = granted()
    found = topics_on_our_broker()
    assert {profile for profile, _, _ in found} >= {"reference-mqtt", "hoymiles-ms-a2"}
    for profile, verb, topic in found:
        mine = topic.replace("{device}", "%u")
        assert any(v == verb and covers(t, mine) for v, t in devices), (profile, verb, topic)
        opposite = "write" if verb == "read" else "read"
        assert any(v == opposite and covers(t, topic) for v, t in gateway), (profile, opposite, topic)


def test_access_list_gives_devices_nothing_but_their_own_name() -> None:
    devices, _ = granted()
    assert devices
    assert all("%u" in topic.split("/") for _, topic in devices)
