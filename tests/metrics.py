"""The metrics: what the modules declare, as the reference, and what of a scrape they do not declare.

`python -m tests.metrics` prints `docs/reference/metrics.md`, `--write` writes it.
"""

import fnmatch
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import gateway
from gateway.observability.metrics import LabelValues, Metric, MetricKind

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "reference" / "metrics.md"
SCRAPE = ROOT / "tests" / "golden" / "files" / "metrics.txt"

_SERIES = re.compile(r"^(?P<name>gateway_\w+?)(?:\{(?P<labels>.*)\})?(?: \S+)?$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_NAMED = re.compile(r"\bgateway_[a-z0-9_*]*(?:\{[a-z0-9_,]+\}[a-z0-9_]*)?")
_OF_A_HISTOGRAM = ("_bucket", "_sum", "_count")
BUCKET = "le"


def modules() -> Iterator[ModuleType]:
    """Every module of the gateway but the one that runs it."""
    for found in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def by_part(found: Iterable[ModuleType]) -> dict[str, dict[str, Metric]]:
    """Declared metrics by name, by part: the first two steps of the module's name. Raises ValueError for a metric that
    is declared twice."""
    parts: dict[str, dict[str, Metric]] = {}
    places: dict[str, str] = {}
    for module in found:
        part = "/".join(module.__name__.split(".")[1:3])
        for metric in (value for value in vars(module).values() if isinstance(value, Metric)):
            if metric.name in places:
                raise ValueError(f"{metric.name} is declared in {places[metric.name]} and in {module.__name__}")
            places[metric.name] = module.__name__
            parts.setdefault(part, {})[metric.name] = metric
    return parts


@cache
def parts() -> Mapping[str, Mapping[str, Metric]]:
    """What the gateway declares."""
    return by_part(modules())


@cache
def declared() -> Mapping[str, Metric]:
    """What the gateway declares, by name."""
    return {name: metric for part in parts().values() for name, metric in part.items()}


def scraped(text: str) -> dict[str, Metric]:
    """The families of a scrape by name, with the labels and values that its series have."""
    families: dict[str, Metric] = {}
    helps: dict[str, str] = {}
    series: dict[str, dict[str, list[str]]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, helps[name] = line.split(" ", 3)
            series[name] = {}
        elif line.startswith("# TYPE "):
            kind = MetricKind(line.split()[3])
            families[name] = Metric(
                name=name.removesuffix("_total") if kind is MetricKind.COUNTER else name, help=helps[name], kind=kind
            )
        elif found := _SERIES.match(line):
            for label, value in _LABEL.findall(found["labels"] or ""):
                if label != BUCKET:
                    series[name].setdefault(label, []).append(value)
    return {
        metric.name: Metric(
            name=metric.name,
            help=metric.help,
            kind=metric.kind,
            labels={label: tuple(dict.fromkeys(values)) for label, values in series[key].items()},
        )
        for key, metric in families.items()
    }


def unlike(found: Metric, known: Metric) -> list[str]:
    """In what a family of a scrape differs from its declaration."""
    out = []
    if (found.kind, found.help) != (known.kind, known.help):
        out.append(f"{found.name}: {found.kind} {found.help!r}, declared as {known.kind} {known.help!r}")
    if found.labels and found.labels.keys() != known.labels.keys():
        out.append(f"{found.name}: labels {[*found.labels]}, declared {[*known.labels]}")
    for label, values in found.labels.items():
        admitted = known.labels.get(label)
        if isinstance(admitted, tuple):
            out += [f"{found.name}: {label}={value!r} is not declared" for value in values if value not in admitted]
    return out


def names_in(text: str) -> set[str]:
    """Metrics that a text names; `gateway_{a,b}_c` names two, `gateway_*` all that begin so."""
    out: set[str] = set()
    for name in _NAMED.findall(text):
        head, brace, rest = name.partition("{")
        inside, _, tail = rest.partition("}")
        out |= {f"{head}{one}{tail}" for one in inside.split(",")} if brace else {name}
    return out


def exposed() -> set[str]:
    """Every name that an alert, a dashboard or a document may use."""
    out = {metric.exposed for metric in declared().values()}
    for metric in declared().values():
        if metric.kind is MetricKind.HISTOGRAM:
            out |= {f"{metric.name}{suffix}" for suffix in _OF_A_HISTOGRAM}
    return out


def unknown_in(text: str) -> set[str]:
    """What a text names and is no metric."""
    known = exposed()
    return {name for name in names_in(text) if not fnmatch.filter(known, name)}


def document() -> str:
    """The reference: every metric by the part that counts it."""
    lines = [
        "# Metrics",
        "",
        "Every metric of `/metrics`, by the part that counts it. A counter begins at 0 with each start. A histogram is",
        "of seconds and has the series `_bucket`, `_sum` and `_count`. Generated by `python -m tests.metrics --write`.",
    ]
    for part, metrics in sorted(parts().items()):
        lines += ["", f"## {part}", "", "| metric | type | labels | what it is |", "|---|---|---|---|"]
        for metric in (metrics[name] for name in sorted(metrics)):
            labels = "<br>".join(f"`{label}`: {_admitted(values)}" for label, values in metric.labels.items())
            lines.append(f"| `{metric.exposed}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"


def _admitted(values: LabelValues) -> str:
    return values if isinstance(values, str) else ", ".join(f"`{value}`" for value in values)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(document(), encoding="utf-8")
    else:
        sys.stdout.write(document())
