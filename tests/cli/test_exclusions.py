"""Commands about exclusions of territories ask the daemon, and say what it says."""

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import Script, daemon, run

__all__ = ["daemon"]

UNTIL = "2030-06-02T00:00:00-07:00"
EFFECT = {"id": "s", "devices": 2, "warnings": ["no home has the postcode: 1"]}
REPORT = {"rows": 2, "changed": 1, "unchanged": 0, "durable": False, "rejected_total": 1,
          "rejected": [{"line": 2, "problem": "reason: no such reason", "faults": []}]}  # fmt: skip


@pytest.mark.parametrize(("more", "path"), [((), "/v1/exclusions"), (("--dry-run",), "/v1/exclusions/preview")])
def test_territory_is_sent_as_it_is_named_and_warnings_are_shown(
    more: tuple[str, ...], path: str, daemon: Script
) -> None:
    daemon.says(EFFECT | {"durable": True})
    told = run(
        "exclusions", "territory", "s", "--reason", "storm", "--until", UNTIL, "--in", "postcode=95404",
        "--in", "postcode=95405", "--in", "utility=A=B", "--reserve-pct", "80", "--note", "wind", "--from", UNTIL,
        *more, "--url", daemon.url, env={"USER": "me"},
    )  # fmt: skip
    assert (told.exit_code, json.loads(told.stdout)["devices"]) == (0, 2)
    assert "warning: no home has the postcode: 1" in told.stderr
    ((method, asked, body, _),) = daemon.asked
    assert (method, asked) == ("POST", f"{path}?by=me")
    assert json.loads(body) == {
        "id": "s", "reason": "storm", "until": UNTIL, "from": UNTIL, "note": "wind", "reserve_pct": 80,
        "dispatch_above_reserve": False,
        "territory": {"postcodes": ["95404", "95405"], "utilities": ["A=B"]},
    }  # fmt: skip


@pytest.mark.parametrize("named", ["zip=1", "postcode"])
def test_territory_of_no_such_kind_is_not_sent(named: str, daemon: Script) -> None:
    told = run(
        "exclusions", "territory", "s", "--reason", "storm", "--until", UNTIL, "--in", named, "--url", daemon.url
    )
    assert (told.exit_code, daemon.asked) == (2, [])
    assert "not KIND=NAME with one of postcode, county" in told.stderr


def test_exclusions_preview_asks_what_a_file_would_do(daemon: Script) -> None:
    daemon.says(EFFECT)
    told = run("exclusions", "preview", "-", "--url", daemon.url, stdin='{"id": "s"}', env={"USER": "me"})
    assert (told.exit_code, json.loads(told.stdout)) == (0, EFFECT)
    assert [(path, body) for _, path, body, _ in daemon.asked] == [("/v1/exclusions/preview?by=me", b'{"id": "s"}')]


@pytest.mark.parametrize(
    ("name", "text", "kind", "sent"),
    [("x.csv", "id\na\n", "text/csv", "id\na\n"), ("x.jsonl", '{"id": "a"}\n', "application/x-ndjson", '{"id": "a"}\n'),
     ("x.json", '[\n {"id": "a"},\n {"id": "b"}]', "application/x-ndjson", '{"id": "a"}\n{"id": "b"}')],
)  # fmt: skip
def test_exclusions_import_sends_the_rows_and_names_each_bad_one(
    name: str, text: str, kind: str, sent: str, tmp_path: Path, daemon: Script
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    daemon.says(REPORT)
    told = run("exclusions", "import", str(tmp_path / name), "--url", daemon.url, env={"USER": "me"})
    assert told.exit_code == 1
    assert f"{name}:2: reason: no such reason" in told.stderr
    assert "2 rows, 1 new or changed, 0 as they were, 1 rejected" in told.stdout
    assert "not durable yet" in told.stderr
    assert [(path, body.decode()) for _, path, body, _ in daemon.asked] == [("/v1/exclusions/import?by=me", sent)]
    assert daemon.kinds == [kind]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("x.txt", "", "neither .csv nor .jsonl nor .json"), ("x.json", "{", "not JSON"), ("x.json", "{}", "not a list"),
     ("none.csv", None, "cannot be read")],
)  # fmt: skip
def test_exclusions_import_of_what_is_no_such_file_sends_nothing(
    name: str, text: str | None, words: str, tmp_path: Path, daemon: Script
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    told = run("exclusions", "import", str(tmp_path / name), "--url", daemon.url)
    assert (told.exit_code, words in told.stderr, daemon.asked) == (2, True, [])


def test_list_shows_a_territory_in_a_line(daemon: Script) -> None:
    area = {"postcodes": ["95404", "95405"], "counties": [], "utilities": ["PG&E"], "feeders": [], "programs": []}
    daemon.says({"exclusions": [{"id": "s", "territory": area}, {"id": "o", "territory": None}]})
    shown = run("exclusions", "list", "--url", daemon.url).stdout
    assert "postcodes 95404 95405; utilities PG&E" in shown
