"""Interval records as JSON and as CSV say the same."""

import csv
import io
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.intervals.columns import columns_of_objects
from gateway.domain.intervals.record import EnergySource, IntervalRecord, Quality
from gateway.domain.types import DeviceId
from gateway.schemas.interval_rows import IntervalBody, csv_lines, quality_names, row_of

REAL = st.floats(-1e9, 1e9) | st.sampled_from([0.0, -0.0, 0.1 + 0.2, 1e-7, 2.5e-6])
UNSURE = st.none() | REAL
RECORDS = st.builds(
    IntervalRecord, device=st.sampled_from(["bat-1", "home.a"]).map(DeviceId), start_ms=st.integers(0, 1 << 42),
    length_s=st.sampled_from([300, 900]), revision=st.integers(1, 9), charge_wh=UNSURE, discharge_wh=UNSURE,
    coverage_pct=st.floats(0, 100), samples=st.integers(0, 400), soc_start_pct=UNSURE, soc_end_pct=UNSURE,
    source=st.sampled_from(EnergySource), battery_w_mean=UNSURE, battery_w_min=UNSURE, battery_w_max=UNSURE,
    grid_w_mean=UNSURE, pv_w_mean=UNSURE, load_w_mean=UNSURE, quality=st.integers(0, 511).map(Quality),
    hash=st.sampled_from(["", "00000000000000ff", "7fffffffffffffff"]),
)  # fmt: skip


@given(RECORDS)
def test_row_has_the_members_of_the_documented_body_in_its_order(record: IntervalRecord) -> None:
    row = row_of(record)
    assert list(row) == list(IntervalBody.model_fields)
    assert IntervalBody.model_validate(row).model_dump() == row


@given(st.lists(RECORDS, max_size=8))
def test_csv_lines_say_what_the_json_of_each_record_says(records: list[IntervalRecord]) -> None:
    lines = csv.reader(io.StringIO(csv_lines(columns_of_objects(records)).decode()))
    expected = [
        [
            "|".join(cell) if isinstance(cell, list) else "" if cell is None else str(cell)
            for cell in row_of(one).values()
        ]
        for one in records
    ]
    assert list(lines) == expected


def test_document_lists_every_quality_mark_in_order_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
    table = text.split("| `quality` | says | sent upstream |\n", 1)[1].split("\n\n", 1)[0]
    listed = re.findall(r"^\| `(\w+)` \| .+ \| (yes|no) \|$", table, re.MULTILINE)
    assert listed == [(name, "yes") for name in quality_names(Quality((1 << len(Quality)) - 1))]
