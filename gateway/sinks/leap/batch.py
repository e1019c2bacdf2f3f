"""Makes the file of a batch: the newest revision of each meter and start, checked by our own rules; the rest by reason.

A row that ends in the future is not wrong: a clock is, or was. It waits (`early`) until its end has passed.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId
from gateway.sinks.leap.outbox import TAKEN, Row
from gateway.sinks.leap.rows import FIRST_ROW_LINE, Document, LeapMeter, NetColumn, render, validate

YEAR_10000_MS = 253_402_300_800_000
EARLY_MAX_MS = 2 * 3_600_000
"""A row that ends later than this is no row of this time, and is refused."""
WITHHELD_UNKNOWN, WITHHELD_COVERAGE, NO_METER = "withheld_unknown", "withheld_coverage", "no_meter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A batch as a file, and the rows it lacks: `refused` with a reason, `over` (older revisions of a position's row),
    `early` (with their end, UTC ms), or known already. A row's position in the batch identifies it; `rows` by position.
    `wrong_clock`: most rows end in the future."""

    document: Document
    rows: Sequence[Row]
    refused: Mapping[int, str]
    early: Mapping[int, int]
    over: Mapping[int, Sequence[int]]
    wrong_clock: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a row needs to go up, and how it is written."""

    min_coverage_pct: float
    final: bool | None
    net: NetColumn | None


def rows_of(records: Sequence[IntervalRecord], meters: Mapping[DeviceId, LeapMeter]) -> list[Row]:
    """What identifies records, in their order."""
    ids = {device: meter.id for device, meter in meters.items()}
    return [(record.start_ms, record.device, record.revision, ids.get(record.device, "")) for record in records]


def prepare(
    rows: Sequence[IntervalRecord],
    meters: Mapping[DeviceId, LeapMeter],
    rules: Rules,
    *,
    known: Mapping[Row, str],
    held: Set[Row],
    now_ms: int,
) -> Prepared:
    """The file. `known`: what became of rows before; `held`: rows that wait; `now_ms`: UTC."""
    named = rows_of(rows, meters)
    refused: dict[int, str] = {}
    newest: dict[tuple[DeviceId, int], int] = {}
    over: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        if row.device not in meters:
            refused[position] = NO_METER
            continue
        key = (row.device, row.start_ms)
        other = newest.setdefault(key, position)
        if other != position:
            older = other if rows[other].revision <= row.revision else position
            newest[key] = newer = position if older == other else other
            over.setdefault(newer, []).extend((older, *over.pop(older, ())))
    early: dict[int, int] = {}
    future = 0
    due: list[int] = []
    for position in newest.values():
        row = rows[position]
        before = known.get(named[position])
        end_ms = row.start_ms + row.length_s * 1000
        future += end_ms > now_ms
        if before is not None:
            if before != TAKEN:
                refused[position] = before
        elif not 0 <= row.start_ms < YEAR_10000_MS - row.length_s * 1000:
            refused[position] = "stm_0002"
        elif row.charge_wh is None or row.discharge_wh is None:
            refused[position] = WITHHELD_UNKNOWN
        elif not row.coverage_pct >= rules.min_coverage_pct:
            refused[position] = WITHHELD_COVERAGE
        elif named[position] in held or now_ms < end_ms <= now_ms + EARLY_MAX_MS:
            early[position] = end_ms
        else:
            due.append(position)
    document = render(rows, due, meters, final=rules.final, net=rules.net)
    faults = validate(document.body(), meters={meter.id for meter in meters.values()}, now_ms=now_ms)
    wrong: dict[int, str] = {}
    for fault in faults:
        wrong.setdefault(document.positions[fault.line - FIRST_ROW_LINE], fault.code.lower())
    return Prepared(
        document=document.without(wrong) if wrong else document, rows=named,
        refused=refused | wrong, early=early, over=over, wrong_clock=future > 1 and 2 * future > len(newest),
    )  # fmt: skip
