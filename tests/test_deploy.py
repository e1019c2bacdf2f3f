"""What is shipped for service managers and for Prometheus fits what the gateway does and tells."""

import configparser
import re
from pathlib import Path
from typing import Any

import yaml

from gateway.app.daemon import EXIT_BROKEN
from gateway.app.last_runs import LAST_CHANCE_S
from gateway.config.loader import load_settings
from gateway.domain.runs import ENDS_MAX, WITHIN_MS
from gateway.services.control.loop import RELEASE_SLACK_S

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
METRICS = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "golden" / "files").glob("metrics*"))
START_S = 30.0


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
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


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_alerts_are_about_metrics_that_there_are() -> None:
    for rule in rules():
        names = re.findall(r"\bgateway_\w+", rule["expr"])
        assert names, rule
        assert all(f"\n# TYPE {name} " in METRICS for name in names), rule


def test_alerts_name_a_section_of_the_runbook() -> None:
    for rule in rules():
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        titles = re.findall(r"^## (.+)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}, rule


def test_gateway_that_only_releases_pages_somebody() -> None:
    (rule,) = [rule for rule in rules() if "gateway_release_only" in rule["expr"]]
    assert rule["labels"]["severity"] == "page"
    assert "gateway resume" in rule["annotations"]["description"]
