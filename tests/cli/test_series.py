"""`gateway prices` and `gateway calendar`: imported, listed, what is missing, and what does not agree; offline."""

import asyncio
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.domain.programs.local_hours import hour_starts
from gateway.domain.rules.calendar import HOUR_MS
from gateway.storage.journal.journal import SqliteJournal
from tests.cli.test_cli import config, run
from tests.programs.test_shipped import HOURS
from tests.storage.journal.test_journal import event

PROGRAMS = Path(__file__).parents[2] / "config" / "programs"
OF = ("--program", "dsgs-option3")
YEAR = ("--from", "2025-05-01", "--to", "2025-10-31")
ANNOUNCED = ("--source", "a page", "--announced-by", "administrator")


@pytest.fixture
def file(tmp_path: Path) -> str:
    return config(tmp_path, programs_dir=str(PROGRAMS), state_dir=str(tmp_path / "state"))


def asked(*words: str, file: str) -> Any:
    result = run(*words, *OF, "--config", file, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def table(directory: Path, text: str) -> str:
    path = directory / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_public_calendar_of_2025_is_imported_listed_and_has_no_gaps(file: str) -> None:
    assert asked("calendar", "list", "--area", "PG&E", *YEAR, file=file) == []
    done = asked("calendar", "import", str(HOURS), "--area", "PG&E", *ANNOUNCED, file=file)
    assert done == {"program": "dsgs-option3", "area": "PG&E", "version": 1, "rows": 68, "changed": True}
    assert len(asked("prices", "gaps", *YEAR, file=file)) == 68
    asked("prices", "import", str(HOURS), "--area", "PG&E", "--source", "a page", file=file)
    assert asked("prices", "gaps", *YEAR, file=file) == []
    hours = asked("calendar", "list", "--area", "PG&E", *YEAR, file=file)
    assert (len(hours), hours[2]["event_type"], hours[2]["announced_by"]) == (68, "Test Capacity", "administrator")
    (first, _) = asked("prices", "list", "--area", "PG&E", "--from", "2025-05-22", "--to", "2025-05-22", file=file)
    assert (first["price_per_mwh"], first["currency"], first["begins"]) == ("51.75706", "USD", "2025-05-23T02:00:00Z")
    assert (first["source"], first["version"]) == ("a page", 1)
    assert asked("prices", "list", "--area", "SCE", *YEAR, file=file) == []


def test_a_second_import_of_the_same_is_no_new_version(file: str) -> None:
    versions = [
        asked("prices", "import", str(HOURS), "--area", "PG&E", "--source", "a page", file=file)["version"]
        for _ in range(2)
    ]
    assert versions == [1, 1]


def test_an_hour_without_a_price_is_a_gap_and_is_not_imported_as_zero(file: str, tmp_path: Path) -> None:
    rows = table(tmp_path, "date,hour_end,event_type,price_usd_per_mwh\n2025-05-22,20,Capacity,50\n2025-05-22,21,,\n")
    asked("calendar", "import", rows, "--area", "SCE", *ANNOUNCED, file=file)
    assert asked("prices", "import", rows, "--area", "SCE", "--source", "x", file=file)["rows"] == 1
    (gap,) = asked("prices", "gaps", *YEAR, file=file)
    assert gap == {"area": "SCE", "date": "2025-05-22", "hour_end": 21, "begins": "2025-05-23T03:00:00Z"}
    assert [one["event_type"] for one in asked("calendar", "list", "--area", "SCE", *YEAR, file=file)] == [
        "Capacity", None,
    ]  # fmt: skip


def test_the_calendar_is_compared_with_what_was_dispatched(file: str, tmp_path: Path) -> None:
    starts = [hour_starts("America/Los_Angeles", date(2025, 5, 22), end)[0] for end in (21, 22)]
    clock = ManualClock()
    journal = SqliteJournal(tmp_path / "state" / "journal.sqlite", clock=clock)
    (tmp_path / "state").mkdir()
    journal.load()
    known = event(clock, name="e")
    known = replace(
        known, request=replace(known.request, program="dsgs-option3", start_ms=starts[0], end_ms=starts[1] + HOUR_MS)
    )
    asyncio.run(journal.commit([known]))
    journal.close()
    asked("calendar", "import", str(HOURS), "--area", "PG&E", *ANNOUNCED, file=file)
    day = ("--from", "2025-05-22", "--to", "2025-05-22")
    told = asked("calendar", "diff", *day, file=file)
    assert [one["hour_end"] for one in told["never_dispatched"]] == [20]
    assert told["never_dispatched"][0]["event_type"] == "Test Capacity"
    assert [one["hour_end"] for one in told["not_official"]] == [22]
    assert (told["partly_dispatched"], told["agrees"], told["areas"]) == ([], False, ["PG&E"])
    shown = run("calendar", "diff", *day, *OF, "--config", file).output
    assert "never dispatched" in shown
    assert "not official" in shown


def test_the_area_of_a_site_is_imported_and_listed(file: str, tmp_path: Path) -> None:
    rows = table(tmp_path, "site,area,from\nhome-1,PG&E,2025-05-01\nhome-1,SCE,2025-08-01\n")
    told = asked("prices", "areas", rows, file=file)
    assert told == asked("prices", "areas", file=file)
    assert [(one["area"], one["from"]) for one in told] == [("PG&E", "2025-05-01"), ("SCE", "2025-08-01")]


@pytest.mark.parametrize(
    ("words", "text", "why"),
    [
        (("calendar", "import", "{}", "--area", "A", *ANNOUNCED), "date,hour_end,event_type\n2025-05-22,20,Capcity\n",
         "rows.csv:2: event_type: 'Capcity' is none of the program"),
        (("calendar", "import", "{}", "--area", "A", *ANNOUNCED), "date,hour_end,event_type\n2024-05-22,20,Capacity\n",
         "rows.csv:2: date: no version of dsgs-option3 is in force on 2024-05-22"),
        (("calendar", "import", "{}", "--area", "A", *ANNOUNCED), "date,hour_end\n2025-05-22,20\n",
         "event_type: missing column"),
        (("prices", "import", "{}", "--area", "A", "--source", "x"), "date,hour_end\n2025-05-22,20\n",
         "price_usd_per_mwh: missing column"),
        (("prices", "import", "{}", "--area", "A", "--source", "x"),
         "date,hour_end,price_usd_per_mwh\n2025-05-22,20,\n", "no row has a price"),
        (("prices", "import", "{}", "--area", " ", "--source", "x"),
         "date,hour_end,price_usd_per_mwh\n2025-05-22,20,1\n", "--area: 1 to 64 printable characters"),
        (("prices", "import", "none.csv", "--area", "A", "--source", "x"), "", "none.csv: cannot be read"),
        (("prices", "areas", "{}"), "site,area\na,b\n", "columns are site, area, from"),
        (("prices", "areas", "{}"), "site,area,from\na,b,May\n", "rows.csv:2: Invalid isoformat"),
        (("prices", "gaps", "--from", "2025-05-02", "--to", "2025-05-01"), "", "--to: 2025-05-01 is before"),
        (("prices", "gaps", "--from", "May"), "", "--from: a day is written"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_refused_and_leaves_nothing(
    file: str, tmp_path: Path, words: tuple[str, ...], text: str, why: str
) -> None:
    rows = table(tmp_path, text)
    result = run(*(rows if word == "{}" else word for word in words), *OF, "--config", file)
    assert (result.exit_code, why in result.output) == (2, True), result.output
    assert not (tmp_path / "state" / "programs.sqlite").exists()


def test_a_program_that_is_not_there_and_a_damaged_file_are_told(file: str, tmp_path: Path) -> None:
    result = run("prices", "gaps", "--program", "nobody", "--config", file)
    assert (result.exit_code, "nobody: no such program" in result.output) == (2, True)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "programs.sqlite").write_bytes(b"no database at all " * 100)
    result = run("prices", "gaps", *OF, "--config", file)
    assert (result.exit_code, "not a database" in result.output) == (1, True)


def test_a_month_past_its_20th_without_an_hour_that_counts_is_warned_of(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = hour_starts("America/Los_Angeles", date(2025, 8, 20), 1)[0]
    monkeypatch.setattr("gateway.cli.series.SystemClock", lambda: ManualClock(utc_ms=now_ms))
    told = asked("calendar", "diff", file=file)
    assert told["months_without_capacity_hour"] == ["2025-05", "2025-06", "2025-07", "2025-08"]
    until_july = [line for line in HOURS.read_text(encoding="utf-8").splitlines() if line < "2025-08" or "date" in line]
    known = table(tmp_path, "\n".join(until_july))
    asked("calendar", "import", known, "--area", "PG&E", *ANNOUNCED, file=file)
    for day in ((), ("--from", "2025-05-01", "--to", "2025-05-31")):
        assert asked("calendar", "diff", *day, file=file)["months_without_capacity_hour"] == ["2025-08"]
    shown = run("calendar", "diff", *OF, "--config", file)
    assert "warning: dsgs-option3: 2025-08 is past its 20th and has no official hour that counts" in shown.output
