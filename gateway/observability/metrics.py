"""Builds metrics at each scrape from plain counters: hot paths count in plain ints, this module reads them."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

CHUNK_SERIES = 50

HEADER_LINES = 2

LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of one metric. `name` without `_total`; label values are from bounded sets."""

    name: str
    help: str
    value: float
    kind: str = "gauge"
    labels: tuple[tuple[str, str], ...] = ()


class Histogram:
    """A histogram of seconds counted in plain ints."""

    __slots__ = ("bounds", "counts", "name", "sum", "text")

    def __init__(self, name: str, text: str, bounds: Sequence[float] = LAG_BUCKETS_S) -> None:
        self.name = name
        self.text = text
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        for i, bound in enumerate(self.bounds):
            if seconds <= bound:
                self.counts[i] += 1
                break
        else:
            self.counts[-1] += 1
        self.sum += seconds

    def family(self) -> HistogramMetricFamily:
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), total))
        family = HistogramMetricFamily(self.name, self.text)
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

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


def _family(samples: Sequence[Sample]) -> Metric:
    first = samples[0]
    make = CounterMetricFamily if first.kind == "counter" else GaugeMetricFamily
    family = make(first.name, first.help, labels=[name for name, _ in first.labels])
    for sample in samples:
        family.add_metric([value for _, value in sample.labels], sample.value)
    return family


def build_info() -> Iterable[Sample]:
    """The version that runs."""
    labels = (("version", version("battery-fleet-gateway")), ("python", sys.version.split()[0]))
    yield Sample(name="gateway_build_info", help="Version that runs; always 1.", value=1, labels=labels)


def registry(sources: Sequence[Source], histograms: Sequence[Histogram]) -> Metrics:
    """The metrics of this gateway, without those of the default registry."""
    return Metrics([build_info, *sources], histograms)
