"""The platform's book: duplicates, conflicts, gaps and completeness, judged independently."""

from typing import Any

import pytest

from simulators.ledger import IntervalRow, Ledger, read_row

START_MS = 1_800_000_000_000


def row(**fields: Any) -> dict[str, Any]:
    return {
        "device": "sim-00000",
        "start": "2027-01-15T08:00:00Z",
        "length_s": 300,
        "revision": 0,
        "charge_wh": 0.0,
        "discharge_wh": 120.5,
        "coverage_pct": 100.0,
        "samples": 60,
        "soc_start_pct": None,
        "soc_end_pct": 55.0,
        "source": "counter",
        "battery_w_mean": 1_446.0,
        "battery_w_min": 1_400.0,
        "battery_w_max": None,
        "grid_w_mean": -12.5,
        "pv_w_mean": None,
        "load_w_mean": None,
        "quality": ["gap", "late"],
    } | fields


def test_read_row_good_is_understood() -> None:
    read = read_row(row())
    assert isinstance(read, IntervalRow)
    assert (read.start_ms, read.discharge_wh, read.samples) == (START_MS, 120.5, 60)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"device": ""}, "device"),
        ({"start": "2027-01-15T08:00:00"}, "start"),
        ({"start": "2027-01-15T08:00:01Z"}, "start"),
        ({"length_s": 7}, "length_s"),
        ({"revision": -1}, "revision"),
        ({"samples": 1.5}, "samples"),
        ({"coverage_pct": 101}, "coverage_pct"),
        ({"source": "guess"}, "source"),
        ({"quality": "gap"}, "quality"),
        ({"quality": ["fine"]}, "quality"),
        ({"charge_wh": "0"}, "charge_wh"),
        ({"discharge_wh": -1}, "discharge_wh"),
    ],
)
def test_read_row_bad_names_the_field(fields: dict[str, Any], wrong: str) -> None:
    assert read_row(row(**fields)) == wrong


def test_ledger_same_row_again_is_a_duplicate() -> None:
    ledger = Ledger()
    assert ledger.take_all([row(), dict(reversed(row().items()))]) == [None, None]
    assert (len(ledger), ledger.duplicates, ledger.conflicting) == (1, 1, 0)


def test_ledger_same_identity_other_content_is_a_conflict() -> None:
    ledger = Ledger()
    assert ledger.take_all([row(), row(discharge_wh=121.0)]) == [None, "conflict"]
    assert ledger.conflicting == 1
    assert ledger.energy().discharge_wh == 120.5


def test_ledger_higher_revision_replaces_energy() -> None:
    ledger = Ledger()
    ledger.take_all([row(revision=1, discharge_wh=130.0), row()])
    assert ledger.energy().discharge_wh == 130.0
    assert ledger.conflicting == 0


def test_ledger_completeness_names_what_is_missing() -> None:
    ledger = Ledger()
    ledger.take_all([row(), row(start="2027-01-15T08:10:00Z"), row(device="sim-00009")])
    expected = [("sim-00000", START_MS + k * 300_000, 300) for k in range(3)]
    report = ledger.completeness(expected)
    assert (report.expected, report.received, report.missing, report.unexpected) == (3, 2, 1, 1)
    assert report.missing_first == (("sim-00000", START_MS + 300_000),)
    assert ledger.gaps() == 1


def test_ledger_older_interval_after_newer_is_out_of_order() -> None:
    ledger = Ledger()
    ledger.take_all([row(start="2027-01-15T08:10:00Z"), row(), row(revision=1)])
    assert ledger.out_of_order == 1


def test_ledger_full_takes_no_more() -> None:
    ledger = Ledger(rows_max=1)
    assert ledger.take_all([row(), row(device="sim-00001"), row()]) == [None, "full", None]
    assert ledger.rejected == {"full": 1}
