"""The platform's own book of received intervals: what came, what is missing, what contradicts itself.

A row is a JSON object: device, start (RFC 3339, Z), length_s, revision, charge_wh, discharge_wh, coverage_pct, samples,
soc_start_pct, soc_end_pct, source, battery_w_mean, battery_w_min, battery_w_max, grid_w_mean, pv_w_mean, load_w_mean,
quality, hash; energies, states of charge and powers may be null.
Identity is (device, start, revision): the same identity with other content is a conflict.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import pairwise

import orjson

ROWS_MAX = 5_000_000
SOURCES = ("none", "counter", "integrated")
QUALITIES = frozenset({"gap", "clock", "reset", "jump", "spread", "late", "disagrees", "drift", "cut"})
_NULLABLE = (
    "charge_wh", "discharge_wh", "soc_start_pct", "soc_end_pct", "battery_w_mean", "battery_w_min", "battery_w_max",
    "grid_w_mean", "pv_w_mean", "load_w_mean",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRow:
    """One interval of one device; None = unknown. `content` is the whole row in a canonical form."""

    device: str
    start_ms: int
    length_s: int
    revision: int
    charge_wh: float | None
    discharge_wh: float | None
    coverage_pct: float
    samples: int
    content: bytes


class Verdict(Enum):
    """What became of a row."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """Expected against received; `missing` names at most the first hundred."""

    expected: int
    received: int
    missing: int
    conflicting: int
    duplicates: int
    unexpected: int
    missing_first: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Totals of the highest revisions, Wh; `unknown` counts intervals with a null energy."""

    charge_wh: float
    discharge_wh: float
    unknown: int


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: object, *, at_least: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= at_least else None


def _start_ms(value: object) -> int | None:
    if not isinstance(value, str) or not value.endswith("Z"):
        return None
    try:
        return round(datetime.fromisoformat(value).timestamp() * 1000)
    except ValueError:
        return None


def _wrong_field(row: Mapping[object, object]) -> str | None:
    """The first field whose value cannot be, None where all can."""
    coverage_pct, source, quality = _number(row.get("coverage_pct")), row.get("source"), row.get("quality")
    checks = {
        "revision": _whole(row.get("revision"), at_least=0) is not None,
        "samples": _whole(row.get("samples"), at_least=0) is not None,
        "coverage_pct": coverage_pct is not None and 0 <= coverage_pct <= 100,
        "source": source in SOURCES,
        "quality": isinstance(quality, list) and QUALITIES.issuperset(map(str, quality)),
    }
    for name in _NULLABLE:
        checks[name] = name in row and (row[name] is None or _number(row[name]) is not None)
    for name in ("charge_wh", "discharge_wh"):
        checks[name] = checks[name] and (_number(row[name]) or 0.0) >= 0
    return next((name for name, fine in checks.items() if not fine), None)


def read_row(row: object) -> IntervalRow | str:
    """A row, or the name of the first field that is wrong."""
    if not isinstance(row, Mapping):
        return "row"
    device, start_ms = row.get("device"), _start_ms(row.get("start"))
    length_s = _whole(row.get("length_s"), at_least=1)
    if not isinstance(device, str) or not device:
        return "device"
    if length_s is None or 86_400 % length_s:
        return "length_s"
    if start_ms is None or start_ms % (length_s * 1000):
        return "start"
    wrong = _wrong_field(row)
    if wrong is not None:
        return wrong
    return IntervalRow(
        device=device,
        start_ms=start_ms,
        length_s=length_s,
        revision=int(row["revision"]),
        charge_wh=_number(row["charge_wh"]),
        discharge_wh=_number(row["discharge_wh"]),
        coverage_pct=float(row["coverage_pct"]),
        samples=int(row["samples"]),
        content=orjson.dumps(dict(row), option=orjson.OPT_SORT_KEYS),
    )


class Ledger:
    """Everything one channel delivered."""

    def __init__(self, *, rows_max: int = ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._rows: dict[tuple[str, int, int], IntervalRow] = {}
        self._latest: dict[tuple[str, int], IntervalRow] = {}
        self._newest_ms: dict[str, int] = {}
        self.duplicates = 0
        self.conflicts: list[tuple[bytes, bytes]] = []
        self.conflicting = 0
        self.rejected: dict[str, int] = {}
        self.out_of_order = 0

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, row: IntervalRow) -> Verdict:
        """Book a row; what is stored first stays."""
        key = (row.device, row.start_ms, row.revision)
        known = self._rows.get(key)
        if known is not None:
            if known.content == row.content:
                self.duplicates += 1
                return Verdict.DUPLICATE
            self.conflicting += 1
            if len(self.conflicts) < 100:
                self.conflicts.append((known.content, row.content))
            return Verdict.CONFLICT
        if len(self._rows) >= self._rows_max:
            return Verdict.FULL
        self._rows[key] = row
        latest = self._latest.get(key[:2])
        if latest is None and row.start_ms < self._newest_ms.get(row.device, row.start_ms):
            self.out_of_order += 1
        self._newest_ms[row.device] = max(row.start_ms, self._newest_ms.get(row.device, row.start_ms))
        if latest is None or latest.revision < row.revision:
            self._latest[key[:2]] = row
        return Verdict.STORED

    def take_all(self, rows: Iterable[object]) -> list[str | None]:
        """Book raw rows; per row None = accepted, else why it was rejected."""
        answers: list[str | None] = []
        for raw in rows:
            row = read_row(raw)
            if isinstance(row, IntervalRow):
                verdict = self.take(row)
                reason = None if verdict in {Verdict.STORED, Verdict.DUPLICATE} else verdict.value
            else:
                reason = row
            if reason is not None:
                self.rejected[reason] = self.rejected.get(reason, 0) + 1
            answers.append(reason)
        return answers

    def latest(self) -> dict[tuple[str, int], IntervalRow]:
        """The highest revision by (device, start ms)."""
        return dict(self._latest)

    def completeness(self, expected: Iterable[tuple[str, int, int]]) -> Completeness:
        """Compare with what should be there: (device, start ms, length s)."""
        wanted = {(device, start_ms): length_s for device, start_ms, length_s in expected}
        received = {
            key for key, length_s in wanted.items() if key in self._latest and self._latest[key].length_s == length_s
        }
        missing = sorted(wanted.keys() - received, key=lambda key: (key[1], key[0]))
        return Completeness(
            expected=len(wanted),
            received=len(received),
            missing=len(missing),
            conflicting=self.conflicting,
            duplicates=self.duplicates,
            unexpected=len(self._latest.keys() - wanted.keys()),
            missing_first=tuple(missing[:100]),
        )

    def gaps(self) -> int:
        """Intervals absent between the first and the last of each device."""
        starts: dict[str, list[IntervalRow]] = {}
        for row in self._latest.values():
            starts.setdefault(row.device, []).append(row)
        gaps = 0
        for rows in starts.values():
            rows.sort(key=lambda row: row.start_ms)
            for before, after in pairwise(rows):
                gaps += max(0, (after.start_ms - before.start_ms) // (before.length_s * 1000) - 1)
        return gaps

    def energy(self) -> Energy:
        """Totals over the highest revisions."""
        rows = self._latest.values()
        return Energy(
            charge_wh=sum(row.charge_wh for row in rows if row.charge_wh is not None),
            discharge_wh=sum(row.discharge_wh for row in rows if row.discharge_wh is not None),
            unknown=sum(row.charge_wh is None or row.discharge_wh is None for row in rows),
        )
