"""The commands of enrollments and customers: what is asked, what is told, and how they end."""

from pathlib import Path

from tests.cli.test_cli import Script, daemon, run

__all__ = ["daemon"]

REPORT = {"rows": 3, "changed": 1, "unchanged": 1, "personal": 0, "unknown_programs": ["dsgss"], "rejected_total": 1,
          "rejected": [{"line": 4, "problem": "device: required", "faults": []}]}  # fmt: skip


def test_import_names_every_bad_row_with_its_line_and_exits_with_1(daemon: Script, tmp_path: Path) -> None:
    file = tmp_path / "may.csv"
    file.write_text("device\n", encoding="utf-8")
    daemon.says(REPORT)
    told = run("enrollments", "import", str(file), "--url", daemon.url)
    assert told.exit_code == 1
    unknown = "dsgss: neither configuration nor programs_dir knows this program"
    assert told.stderr.splitlines() == [f"{file}:4: device: required", unknown]
    assert told.stdout.strip() == "3 rows, 1 new or changed, 1 known already, 1 rejected"
    daemon.says(REPORT | {"rejected": [], "rejected_total": 0})
    assert run("customers", "import", str(file), "--url", daemon.url).exit_code == 0


def test_import_takes_csv_and_json_lines_alone(daemon: Script, tmp_path: Path) -> None:
    told = run("enrollments", "import", str(tmp_path / "may.xlsx"), "--url", daemon.url)
    assert (told.exit_code, "neither .csv nor .jsonl" in told.stderr) == (2, True)
    assert run("customers", "import-consents", str(tmp_path / "no.csv"), "--url", daemon.url).exit_code == 2


def test_a_list_says_how_to_go_on(daemon: Script) -> None:
    daemon.says({"customers": [{"customer": "c-1", "since": "2026-01-01T00:00:00Z", "erased": None}], "next": "c-1"})
    assert "more: --after c-1" in run("customers", "list", "--url", daemon.url).stdout


def test_erasing_asks_first(daemon: Script) -> None:
    daemon.says({"customer": "c-1", "had": True})
    assert run("customers", "erase", "c-1", "--url", daemon.url, stdin="n\n").exit_code == 1
    assert run("customers", "erase", "c-1", "--url", daemon.url, stdin="y\n").stdout.endswith("c-1: erased\n")


def test_what_has_to_be_done_for_a_customer_is_told(daemon: Script) -> None:
    daemon.says({"holdings": [], "payees": [], "consents": [], "required_actions": ["consent to dsgs is missing"]})
    assert "to do: consent to dsgs is missing" in run("customers", "show", "c-1", "--url", daemon.url).stdout
