"""Readiness: reasons make the gateway not ready, warnings do not; a change is a line, both are metrics."""

import logging

import pytest

from gateway.app.readiness import ReadinessWatch, broken_services
from gateway.services.runtime.supervisor import Health


class Part:
    """Says what the test wants."""

    def __init__(self) -> None:
        self.bad: list[str] = []
        self.meant: list[str] = []

    def reasons(self) -> list[str]:
        return self.bad

    def warnings(self) -> list[str]:
        return self.meant


def watched() -> tuple[ReadinessWatch, Part]:
    watch, part = ReadinessWatch(), Part()
    watch.add("sinks", reasons=part.reasons, warnings=part.warnings)
    return watch, part


def metrics(watch: ReadinessWatch) -> dict[str, float]:
    return {".".join([s.name, *(value for _, value in s.labels)]): s.value for s in watch.samples()}


def test_reason_makes_it_not_ready_and_a_warning_leaves_it_ready() -> None:
    watch, part = watched()
    part.meant = ["sink a: no_subscriber"]
    assert watch.now().model_dump() == {"ready": True, "reasons": [], "warnings": ["sink a: no_subscriber"]}
    part.bad = ["spool: full"]
    assert watch.now().model_dump() == {
        "ready": False, "reasons": ["spool: full"], "warnings": ["sink a: no_subscriber"],
    }  # fmt: skip


def test_metrics_count_by_component_and_severity() -> None:
    watch, part = watched()
    part.meant = ["x", "y"]
    found = metrics(watch)
    assert found["gateway_ready"] == 1
    assert found["gateway_readiness_reasons.sinks.critical"] == 0
    assert found["gateway_readiness_reasons.sinks.warning"] == 2
    watch.stopping = True
    found = metrics(watch)
    assert (found["gateway_ready"], found["gateway_readiness_reasons.gateway.critical"]) == (0, 1)


def test_stop_is_not_ready() -> None:
    watch, _ = watched()
    watch.stopping = True
    assert watch.now().reasons == ["the gateway is stopping"]


def test_change_is_one_line_and_the_start_in_order_is_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch, part = watched()
    watch.observe()
    assert caplog.messages == []
    part.bad = [f"r{i}" for i in range(7)]
    watch.observe()
    part.bad = ["other"]
    watch.observe()
    assert caplog.messages == ["gateway is not ready"]
    assert (caplog.records[0].__dict__["reasons"], caplog.records[0].__dict__["count"]) == (
        [f"r{i}" for i in range(5)],
        7,
    )
    part.bad = []
    watch.observe()
    watch.observe()
    assert caplog.messages == ["gateway is not ready", "gateway is ready again"]


@pytest.mark.parametrize(
    ("service", "spare"),
    [("control", False), ("ingest", False), ("link-mqtt", False), ("platform", False), ("timekeeper", False),
     ("sessions", False), ("checkpoint", False), ("delivery-x", True), ("retention", True), ("device-session", True),
     ("live", True), ("reports", True)],
)  # fmt: skip
def test_service_that_can_be_spared_is_a_warning_and_an_essential_one_a_reason(service: str, spare: bool) -> None:
    health = {service: Health(down={object(): "KeyError"}), "fine": Health()}
    said = [f"service {service}: KeyError"]
    assert broken_services(health, spare=False)() == ([] if spare else said)
    assert broken_services(health, spare=True)() == (said if spare else [])
