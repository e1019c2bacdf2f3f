"""Declares metrics and builds them at each scrape: hot paths count in plain ints, which parts make samples of.

A part declares each of its metrics once, as a constant of its module (`counter`, `gauge`, `histogram`), and makes
samples of no other. `docs/reference/metrics.md` is generated from the declarations.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as PrometheusMetric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.domain.errors import invariant

CHUNK_SERIES = 50

HEADER_LINES = 2

LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


UNITS = ("seconds", "bytes", "watts", "wh", "ratio")

LabelValues = tuple[str, ...] | str
"""Every value that a label may have, or in words what bounds them."""

Key = TypeVar("Key")


class MetricKind(StrEnum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of one metric. `name` without `_total`; label values are from bounded sets."""

    name: str
    help: str
    value: float
    kind: str = "gauge"
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metric:
    """The declaration of a metric. `name` without `_total`, `bounds` of a histogram."""

    name: str
    help: str
    kind: MetricKind
    labels: Mapping[str, LabelValues] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """Its name in a scrape."""
        return f"{self.name}_total" if self.kind is MetricKind.COUNTER else self.name

    @property
    def unit(self) -> str:
        """The unit that its name ends with; empty = it counts things."""
        return next((unit for unit in UNITS if self.name.endswith(f"_{unit}")), "")

    def sample(self, value: float, /, **labels: str) -> Sample:
        """One value. Raises InvariantBroken for other labels than the declared ones."""
        invariant(labels.keys() == self.labels.keys(), f"{self.name} has the labels {[*self.labels]}, not {[*labels]}")
        ordered = tuple((label, labels[label]) for label in self.labels)
        return Sample(name=self.name, help=self.help, value=value, kind=self.kind, labels=ordered)

    def each(self, counts: Mapping[Key, float], /, **labels: str) -> Iterator[Sample]:
        """A value per key of `counts`, which is the value of the one label that is not given."""
        free = [label for label in self.labels if label not in labels]
        invariant(len(free) == 1, f"{self.name} has one label for the keys, not {free}")
        for key, count in counts.items():
            yield self.sample(count, **labels, **{free[0]: word(key)})


def word(key: object) -> str:
    """The value of a label: the name of a member in small letters."""
    return key.name.lower() if isinstance(key, Enum) and key.name is not None else str(key)


def words(kind: Iterable[Enum]) -> tuple[str, ...]:
    """The values of a label whose keys are these members."""
    return tuple(word(member) for member in kind)


def counter(name: str, text: str, /, **labels: LabelValues) -> Metric:
    """Declare a metric that only grows while the process lives."""
    return Metric(name=name, help=text, kind=MetricKind.COUNTER, labels=labels)


def gauge(name: str, text: str, /, **labels: LabelValues) -> Metric:
    """Declare a metric that goes up and down."""
    return Metric(name=name, help=text, kind=MetricKind.GAUGE, labels=labels)


def histogram(name: str, text: str, bounds: Sequence[float] = LAG_BUCKETS_S, /) -> Metric:
    """Declare a histogram of seconds."""
    return Metric(name=name, help=text, kind=MetricKind.HISTOGRAM, bounds=tuple(bounds))


class Histogram:
    """The counts of a declared histogram, in plain ints."""

    __slots__ = ("counts", "metric", "sum")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.counts = [0] * (len(metric.bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        for i, bound in enumerate(self.metric.bounds):
            if seconds <= bound:
                self.counts[i] += 1
                break
        else:
            self.counts[-1] += 1
        self.sum += seconds

    def family(self) -> HistogramMetricFamily:
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*self.metric.bounds, float("inf")), self.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), total))
        family = HistogramMetricFamily(self.metric.name, self.metric.help)
        family.add_metric([], buckets, self.sum)
        return family


Source = Callable[[], Iterable[Sample]]


class Metrics:
    """Writes the text of a scrape in chunks with turns of the loop between them: dispatch does not wait for Prometheus.

    Reads each source in one go, so that its values belong together; a source should have a thousand series at most.
    """

    def __init__(self, sources: Sequence[Source], histograms: Sequence[Histogram]) -> None:
        self._sources = sources
        self._histograms = histograms

    async def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        families: dict[str, list[Sample]] = {}
        for source in self._sources:
            for sample in source():
                families.setdefault(sample.name, []).append(sample)
            await asyncio.sleep(0)
        out: list[bytes] = []
        waiting = 0
        for samples in families.values():
            for first in range(0, len(samples), CHUNK_SERIES):
                chunk = samples[first : first + CHUNK_SERIES]
                text = generate_latest(_Family(_family(chunk)))
                out.append(text if first == 0 else text.split(b"\n", HEADER_LINES)[-1])
                waiting += len(chunk)
                if waiting >= CHUNK_SERIES:
                    waiting = 0
                    await asyncio.sleep(0)
        out += [generate_latest(_Family(histogram.family())) for histogram in self._histograms]
        return b"".join(out)


class _Family(Collector):
    """One family as a collector, for `generate_latest`."""

    def __init__(self, family: PrometheusMetric) -> None:
        self._family = family

    def collect(self) -> Iterable[PrometheusMetric]:
        return (self._family,)


def _family(samples: Sequence[Sample]) -> PrometheusMetric:
    first = samples[0]
    make = CounterMetricFamily if first.kind == "counter" else GaugeMetricFamily
    family = make(first.name, first.help, labels=[name for name, _ in first.labels])
    for sample in samples:
        family.add_metric([value for _, value in sample.labels], sample.value)
    return family


BUILD_INFO = gauge("gateway_build_info", "Version that runs; always 1.", version="the gateway's", python="Python's")


def build_info() -> Iterable[Sample]:
    """The version that runs."""
    yield BUILD_INFO.sample(1, version=__version__, python=sys.version.split()[0])


def registry(sources: Sequence[Source], histograms: Sequence[Histogram]) -> Metrics:
    """The metrics of this gateway, without those of the default registry."""
    return Metrics([build_info, *sources], histograms)
