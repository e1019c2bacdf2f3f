"""Readiness: reasons make the gateway not ready, warnings do not; a change is a line, both are metrics."""

import logging

import pytest

from gateway.app.readiness import ReadinessWatch
from gateway.observability.parts import Part


class Saying(Part):
    """Says what the test wants."""

    component = "sinks"

    def __init__(self) -> None:
        self.bad: list[str] = []
        self.meant: list[str] = []

    def reasons(self) -> list[str]:
        return self.bad

    def warnings(self) -> list[str]:
        return self.meant


def watched() -> tuple[ReadinessWatch, Saying]:
    parts: list[Part] = []
    watch, part = ReadinessWatch(parts), Saying()
    parts += [watch, part]
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


def test_readiness_that_a_start_waits_for_is_not_there_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    part = Saying()
    watch = ReadinessWatch([part])
    for bad in (["no connection"], [], ["no connection"], []):
        part.bad = bad
        watch.observe()
    assert caplog.messages == [
        "gateway is not ready", "gateway is ready", "gateway is not ready", "gateway is ready again"
    ]  # fmt: skip


def test_parts_of_one_component_are_counted_together_and_told_one_after_the_other() -> None:
    one, other, quiet = Saying(), Saying(), Part()
    watch = ReadinessWatch([one, quiet, other])
    one.bad, one.meant, other.bad = ["a"], ["b"], ["c"]
    assert watch.now().model_dump() == {"ready": False, "reasons": ["a", "c"], "warnings": ["b"]}
    found = metrics(watch)
    assert found["gateway_readiness_reasons.sinks.critical"] == 2
    assert found["gateway_readiness_reasons.sinks.warning"] == 1
    assert found["gateway_readiness_reasons.gateway.critical"] == 0
