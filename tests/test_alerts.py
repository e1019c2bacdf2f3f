"""Alert rules are about metrics that there are, fire on what they are for and on nothing else, and have a page each."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import CommandLine

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
METRICS = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
"""Generated from the declarations."""
SECTIONS = ["Meaning", "First look", "What to do", "When to wake whom"]
LONGEST = "1500m"
STEADY = {
    "up": 1, "gateway_ready": 1, "gateway_release_only": 0, "gateway_spool_failing": 0, "gateway_devices": 200,
    "gateway_clock_step_held_seconds": 0, "gateway_clock_contradicted": 0, "gateway_frozen_products": 0,
    "gateway_quarantined": 0, "gateway_stranded_devices": 0, "gateway_reserve_unguaranteed_devices": 0,
    "gateway_interval_log_bytes": 5, "gateway_interval_log_bytes_max": 100, "gateway_raw_messages": 0,
    "gateway_leap_enrollment_age_seconds": 30, "gateway_leap_enrollment_conflicts": 0,
    "gateway_leap_search_age_seconds": 30, "gateway_leap_unknown_meters": 0, "gateway_leap_bodies_set_aside": 0,
    "gateway_mqtt_connected": 1, "gateway_mqtt_client_id_contested": 0, "gateway_sink_oldest_seconds": 20,
    "gateway_sink_stopped": 0, "gateway_sink_backlog_records": 3, "gateway_event_target_watts": 100_000,
    "gateway_event_delivered_watts": 90_000, "gateway_event_assumed_watts": 9_000, "gateway_unreachable_devices": 1,
    "gateway_envelope_reasons": 3, "gateway_unclear_devices": 0, "gateway_outbox_rows": 0,
    "gateway_enrollment_mismatch_devices": 0, "gateway_enrollment_unknown_devices": 0,
    "gateway_leap_registration": 0, "gateway_leap_events": 0, "gateway_program_undecided_months": 0,
    "gateway_program_data_missing_intervals": 0, "gateway_program_data_due_timestamp_seconds": 10_000_000,
    "gateway_money_running": 1, "gateway_money_job_success_timestamp_seconds": 10_000_000,
}  # fmt: skip
GROWING = {
    "gateway_service_restarts_total": 0, "gateway_journal_failures_total": 0, "gateway_interval_log_failures_total": 0,
    "gateway_checkpoint_failures_total": 0, "gateway_journal_changes_lost_total": 0, "gateway_mqtt_connects_total": 0,
    "gateway_mqtt_session_lapses_total": 0, "gateway_live_readings_total": 6000, "gateway_leases_run_out_total": 0,
    "gateway_late_ticks_total": 0, "gateway_ticks_total": 60, "gateway_sink_rejected_total": 0,
    "gateway_sink_accepted_total": 40, "gateway_interval_dropped_unsent_total": 0, "gateway_sequence_gaps_total": 0,
    "gateway_settlement_rows_new_total": 1000, "gateway_program_rules_broken_total": 0,
    "gateway_loop_lag_seconds_count": 600,
}  # fmt: skip
"""What a healthy gateway shows: gauges, and how much counters grow in a minute."""
LABELS = {
    "up": {"job": "battery-gateway"},
    "gateway_envelope_reasons": {"reason": "stale", "direction": "discharge"},
    "gateway_outbox_rows": {"state": "proposed", "kind": "meter"},
    "gateway_leap_registration": {"level": "meter", "state": "other_url"},
    "gateway_leap_events": {"state": "refused"},
    "gateway_program_data_missing_intervals": {"program": "p"},
    "gateway_program_data_due_timestamp_seconds": {"program": "p"},
    "gateway_program_rules_broken_total": {"effect": "warn", "program": "p"},
}
BUCKETS = ("0.05", "0.25", "0.5", "+Inf")
FIRES: dict[str, tuple[str, dict[str, float]]] = {
    "GatewayReleaseOnly": ("1m", {"gateway_release_only": 1}),
    "GatewayClientIdContested": ("2m", {"gateway_mqtt_client_id_contested": 1}),
    "GatewaySessionLost": ("10m", {"gateway_mqtt_session_lapses_total": 0.2}),
    "GatewayOutsideKnownRules": ("10m", {"gateway_program_rules_broken_total": 0.2}),
    "GatewayEnrollmentMismatch": ("1m", {"gateway_enrollment_mismatch_devices": 3}),
    "GatewayMonthWithoutOfficialHour": ("1m", {"gateway_program_undecided_months": 1}),
    "GatewayEnrollmentUnknown": ("1m", {"gateway_enrollment_unknown_devices": 3}),
    "GatewayProgramDataMissing": (
        "1m",
        {"gateway_program_data_missing_intervals": 3, "gateway_program_data_due_timestamp_seconds": 100_000},
    ),
    "GatewayMoneyNotWorkedOut": ("40m", {"gateway_money_running": 0}),
    "GatewayLeapSearchOld": ("1m", {"gateway_leap_search_age_seconds": 1801}),
    "GatewayLeapWebhookElsewhere": ("1m", {"gateway_leap_registration": 1}),
    "GatewayLeapDispatchNotTaken": ("1m", {"gateway_leap_events": 1}),
    "GatewayLeapUnknownMeters": ("1m", {"gateway_leap_unknown_meters": 2}),
    "GatewayDown": ("2m", {"up": 0}),
    "GatewayNotReady": ("3m", {"gateway_ready": 0}),
    "GatewayServiceRestarts": ("15m", {"gateway_service_restarts_total": 0.3}),
    "GatewayNotDurable": ("5m", {"gateway_spool_failing": 1}),
    "GatewayCheckpointFails": ("30m", {"gateway_checkpoint_failures_total": 1}),
    "GatewayJournalChangesLost": ("10m", {"gateway_journal_changes_lost_total": 1}),
    "GatewayClockHeld": ("1m", {"gateway_clock_step_held_seconds": -600}),
    "GatewayClockContradicted": ("2m", {"gateway_clock_contradicted": 1}),
    "GatewayBrokerDisconnected": ("1m", {"gateway_mqtt_connected": 0}),
    "GatewayBrokerFlaps": ("10m", {"gateway_mqtt_connects_total": 2}),
    "GatewayFleetBlind": ("10m", {"gateway_live_readings_total": 0}),
    "GatewayDevicesOffline": ("3m", {"gateway_envelope_reasons": 11}),
    "GatewayUnreachable": ("5m", {"gateway_unreachable_devices": 11}),
    "GatewayProductFrozen": ("1m", {"gateway_frozen_products": 1}),
    "GatewayQuarantine": ("10m", {"gateway_quarantined": 1}),
    "GatewayStranded": ("3m", {"gateway_stranded_devices": 1}),
    "GatewayLeasesRunOut": ("10m", {"gateway_leases_run_out_total": 1}),
    "GatewayReserveUnguaranteed": ("40m", {"gateway_reserve_unguaranteed_devices": 1}),
    "GatewayNotUnderstood": ("20m", {"gateway_unclear_devices": 1}),
    "GatewayEventOffTarget": ("5m", {"gateway_event_delivered_watts": 85_000}),
    "GatewayTrackingBudgetBurns": ("90m", {"gateway_event_delivered_watts": 110_000}),
    "GatewayControlLate": ("10m", {"gateway_late_ticks_total": 3}),
    "GatewaySinkBehind": ("10m", {"gateway_sink_oldest_seconds": 901}),
    "GatewaySinkStopped": ("3m", {"gateway_sink_stopped": 1}),
    "GatewaySinkRefuses": ("20m", {"gateway_sink_rejected_total": 1}),
    "GatewayNothingAccepted": (LONGEST, {"gateway_sink_accepted_total": 0}),
    "GatewayDroppedUnsent": ("10m", {"gateway_interval_dropped_unsent_total": 1}),
    "GatewayIntervalLogFull": ("20m", {"gateway_interval_log_bytes": 91}),
    "GatewayRawMessages": ("20m", {"gateway_raw_messages": 1}),
    "GatewayCompletenessBudgetBurns": ("90m", {"gateway_sequence_gaps_total": 20}),
    "GatewayLeapEnrollmentOld": ("20m", {"gateway_leap_enrollment_age_seconds": 3601}),
    "GatewayLeapEnrollmentConflicts": ("90m", {"gateway_leap_enrollment_conflicts": 1}),
    "GatewayOutboxWaits": ("90m", {"gateway_outbox_rows": 1}),
}
"""By alert: after how long, and what is not healthy. Each case is also held to leave other alerts silent, but for those
that follow from the same state."""
ALSO = {"GatewayTrackingBudgetBurns": {"GatewayEventOffTarget"}}


def rules(name: str) -> list[dict[str, Any]]:
    document = yaml.safe_load((RULES / name).read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yaml")}
RECORDED = {rule["record"] for rule in rules("recording.yaml")}


def promtool() -> str:
    tool = shutil.which("promtool")
    if tool is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing")
        pytest.skip("no promtool here")
    return tool


def series(changed: dict[str, float], minutes: int) -> list[dict[str, str]]:
    """Input series of a gateway that is healthy but for what is `changed`."""
    found = []
    for name, value in (STEADY | {k: v for k, v in changed.items() if k in STEADY}).items():
        found.append({"series": selector(name), "values": f"{value}x{minutes}"})
    for name, value in (GROWING | {k: v for k, v in changed.items() if k in GROWING}).items():
        found.append({"series": selector(name), "values": f"0+{value}x{minutes}"})
    found += [
        {"series": selector("gateway_loop_lag_seconds_bucket", le=le), "values": f"0+600x{minutes}"} for le in BUCKETS
    ]  # fmt: skip
    return found


def selector(name: str, **more: str) -> str:
    labels = {"job": "battery-gateway", "instance": "g:8080"} | LABELS.get(name, {}) | more
    return f"{name}{{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def case(at: str, changed: dict[str, float], expected: set[str]) -> dict[str, Any]:
    """A test of promtool: of all alerts, exactly those of `expected` fire at a time."""
    firing = 'ALERTS{alertstate="firing"}'
    samples = [
        {"labels": f'ALERTS{{alertname="{name}", alertstate="firing"}}', "value": 1} for name in sorted(expected)
    ]  # fmt: skip
    return {
        "interval": "1m",
        "input_series": series(changed, int(at.removesuffix("m"))),
        "promql_expr_test": [
            {"expr": f"max by (__name__, alertname, alertstate) ({firing})", "eval_time": at, "exp_samples": samples}
        ],
    }


def run(tmp_path: Path, tests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    files = [str(RULES / name) for name in ("recording.yaml", "alerts.yaml")]
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump({"rule_files": files, "evaluation_interval": "1m", "tests": tests}))
    return subprocess.run([promtool(), "test", "rules", str(path)], capture_output=True, text=True, check=False)


def test_promtool_takes_every_file() -> None:
    files = [str(path) for path in sorted(RULES.glob("*.yaml"))]
    done = subprocess.run([promtool(), "check", "rules", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_healthy_gateway_raises_no_alert(tmp_path: Path) -> None:
    done = run(tmp_path, [case(at, {}, set()) for at in ("5m", "90m", LONGEST)])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_fires_on_what_it_is_for_and_no_other_does(tmp_path: Path, alert: str) -> None:
    at, changed = FIRES[alert]
    assert changed.keys() <= STEADY.keys() | GROWING.keys()
    done = run(tmp_path, [case(at, changed, {alert} | ALSO.get(alert, set()))])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_case_that_expects_another_alert_fails(tmp_path: Path) -> None:
    assert run(tmp_path, [case("5m", {"gateway_ready": 0}, {"GatewayDown"})]).returncode != 0


def test_alerts_and_records_are_about_metrics_that_there_are() -> None:
    for rule in [*ALERTS.values(), *rules("recording.yaml")]:
        expression = rule["expr"]
        names = re.findall(r"\bgateway_\w+", expression)
        names = [re.sub(r"_(bucket|count|sum)$", "", name) for name in names]
        assert all(f"| `{name}` |" in METRICS for name in names), rule
        used = set(re.findall(r"\bgateway:[\w:]+", expression))
        assert used <= RECORDED, rule
        assert names or used or "up{" in expression, rule


def test_every_recorded_series_is_used() -> None:
    used = {name for rule in ALERTS.values() for name in re.findall(r"\bgateway:[\w:]+", rule["expr"])}
    assert used == RECORDED


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
        page = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", page, re.MULTILINE) == SECTIONS
        assert page.startswith(f"# {name}\n\nSeverity: {rule['labels']['severity']}.")


def test_links_between_pages_lead_somewhere() -> None:
    for path in RUNBOOKS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), (path.name, target)


def test_commands_on_the_pages_are_commands_of_the_gateway() -> None:
    for path in RUNBOOKS.glob("*.md"):
        for words in re.findall(r"`gateway ([a-z][^`]*)`", path.read_text(encoding="utf-8")):
            first, *others = words.split()
            assert first in CommandLine.named, (path.name, words)
            command: Any = CommandLine.named[first].load(first)
            for word in others:
                if not hasattr(command, "commands"):
                    break
                assert word in command.commands, (path.name, words)
                command = command.commands[word]
