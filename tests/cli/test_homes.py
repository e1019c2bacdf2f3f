"""Commands about cases of homes."""

import csv
import json
from pathlib import Path
from typing import Any

from tests.cli.test_cli import Script, daemon, run

__all__ = ["daemon"]

CASE: dict[str, Any] = {
    "case": 7, "revision": 2, "state": "open", "home": "home-1", "cause": "late", "trend": "late",
    "opened_by": "gateway", "opened": "2026-07-01T00:00:00Z", "since": "2026-06-20T00:00:00Z", "events": 3,
    "lost_wh": 4_200, "evidence": {"late_s": 600.0, "level": None}, "assignee": "=ann", "snoozed_until": None,
    "closed_by": "", "closed": None, "closed_because": "", "reopened": 1,
}  # fmt: skip


def test_cases_are_listed_with_what_they_cost(daemon: Script) -> None:
    daemon.says({"entries": [CASE], "next": None})
    told = run("homes", "cases", "--home", "home-1", "--cause", "late", "--url", daemon.url)
    assert told.exit_code == 0
    assert "home-1" in told.stdout
    assert "4.2" in told.stdout
    (method, path, _, _) = daemon.asked[0]
    assert (method, path) == ("GET", "/v1/cases?open=1&after=0&limit=100&home=home-1&cause=late")


def test_csv_has_every_case_and_no_cell_that_a_spreadsheet_works_out(daemon: Script, tmp_path: Path) -> None:
    daemon.says({"entries": [CASE], "next": None})
    file = tmp_path / "cases.csv"
    assert run("homes", "cases", "--all", "--csv", str(file), "--url", daemon.url).exit_code == 0
    assert daemon.asked[0][1] == "/v1/cases?open=0&after=0&limit=1000"
    with file.open(newline="", encoding="utf-8") as text:
        (row,) = csv.DictReader(text)
    assert (row["case"], row["home"], row["assignee"], row["late_s"], row["level"]) == (
        "7", "home-1", "'=ann", "600.0", "",
    )  # fmt: skip
    # a file that is there is never written over
    assert run("homes", "cases", "--csv", str(file), "--url", daemon.url).exit_code == 2


def test_orders_say_what_is_to_change_and_who_asks(daemon: Script) -> None:
    daemon.says(CASE)
    for args, body in (
        (("assign", "7", "ann"), {"assignee": "ann"}),
        (("snooze", "7", "--until", "2026-08-01T00:00:00Z"), {"snooze_until": "2026-08-01T00:00:00Z"}),
        (("snooze", "7"), {"snooze_until": None}),
        (("close", "7", "--because", "fuse"), {"close": "fuse"}),
    ):
        assert run("homes", *args, "--url", daemon.url).exit_code == 0
        (method, path, sent, _) = daemon.asked[-1]
        assert (method, path.startswith("/v1/cases/7?by="), json.loads(sent)) == ("PATCH", True, body)
