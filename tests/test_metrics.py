"""A metric is declared once, by the part that counts it; scrapes, documents, alerts and dashboards know no other."""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from gateway.domain.errors import InvariantBroken
from gateway.observability.metrics import Metric, Sample, counter, gauge
from tests.metrics import (
    DOCUMENT,
    ROOT,
    SCRAPE,
    by_part,
    declared,
    document,
    scraped,
    unknown_in,
    unlike,
)

SCRAPES = (SCRAPE, SCRAPE.with_name("metrics-control.txt"))
GENERATED = ROOT / "deploy" / "api"
TEXTS = [
    path
    for path in (*(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*"))
    if path.is_file() and GENERATED not in path.parents
]


def module(name: str, *metrics: Metric) -> ModuleType:
    made = ModuleType(name)
    vars(made).update({f"M{number}": metric for number, metric in enumerate(metrics)})
    return made


def test_metric_that_two_modules_declare_is_an_error() -> None:
    one, two = counter("gateway_x", "X."), gauge("gateway_x", "Another.")
    with pytest.raises(ValueError, match=r"gateway_x is declared in gateway\.a\.b and in gateway\.a\.c"):
        by_part([module("gateway.a.b", one), module("gateway.a.c", two)])


@pytest.mark.parametrize("labels", [{}, {"reason": "a"}, {"reason": "a", "sink": "b", "more": "c"}])
def test_sample_with_other_labels_than_declared_is_an_error(labels: dict[str, str]) -> None:
    metric = counter("gateway_x", "X.", sink="sinks", reason=("a",))
    with pytest.raises(InvariantBroken, match="gateway_x has the labels"):
        metric.sample(1, **labels)


def test_sample_has_the_labels_in_the_declared_order() -> None:
    metric = counter("gateway_x", "X.", sink="sinks", reason=("a", "b"))
    made: Iterable[Sample] = metric.each({"a": 1, "b": 2}, sink="s")
    assert [(s.name, s.kind, s.labels, s.value) for s in made] == [
        ("gateway_x", "counter", (("sink", "s"), ("reason", "a")), 1),
        ("gateway_x", "counter", (("sink", "s"), ("reason", "b")), 2),
    ]


@pytest.mark.parametrize(
    ("name", "unit"), [("gateway_lag_seconds", "seconds"), ("gateway_energy_spread_wh", "wh"), ("gateway_devices", "")]
)
def test_unit_of_a_metric_is_that_of_its_name(name: str, unit: str) -> None:
    assert gauge(name, "X.").unit == unit


@pytest.mark.parametrize("path", SCRAPES, ids=lambda path: path.stem)
def test_scrape_has_no_metric_that_is_not_declared_as_it_is(path: Path) -> None:
    found = scraped(path.read_text(encoding="utf-8"))
    assert found
    assert found.keys() <= declared().keys()
    assert [text for name, metric in found.items() for text in unlike(metric, declared()[name])] == []


def test_document_of_metrics_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "python -m tests.metrics --write"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_alerts_dashboards_and_documents_name_only_metrics_that_exist(path: Path) -> None:
    assert unknown_in(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("`gateway_ticks_total` and gateway_tick_seconds_bucket", set()),
        ("gateway_ticks", {"gateway_ticks"}),
        ("gateway_event_{target,wanted}_watts", {"gateway_event_wanted_watts"}),
        ("gateway_event_*_watts, gateway_nothing_*", {"gateway_nothing_*"}),
    ],
)
def test_name_that_is_no_metric_is_found_in_a_text(text: str, unknown: set[str]) -> None:
    assert unknown_in(text) == unknown
