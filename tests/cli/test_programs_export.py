"""`gateway programs export`: versions of site-days since a token, beside whoever writes them."""

import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.domain.programs.site_day import DayFrame
from gateway.storage.programs.daily import DailyColumns
from tests.builders.site_days import JULY, PACIFIC, site_days
from tests.cli.test_cli import config, run

PROGRAMS = Path(__file__).parents[2] / "config" / "programs"
DAYS = ("--from", "2026-07-14", "--to", "2026-07-15")


@pytest.fixture
def file(tmp_path: Path) -> str:
    return config(tmp_path, programs_dir=str(PROGRAMS), state_dir=str(tmp_path / "state"))


def exported(out: Path, *words: str, file: str) -> tuple[int, list[dict[str, Any]]]:
    """The token, and the lines between head and end."""
    result = run("programs", "export", str(out), "--config", file, *words, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    raw = out.read_bytes()
    lines = [json.loads(line) for line in (gzip.decompress(raw) if out.suffix == ".gz" else raw).splitlines()]
    assert lines[-1] == {"token": told["token"], "rows": told["rows"]}
    assert len(lines) == told["rows"] + 2
    return told["token"], lines[1:-1]


def test_what_was_written_since_a_token_is_exported_and_nothing_twice(tmp_path: Path, file: str) -> None:
    known = np.ones((4, 2, 96), dtype=np.bool_)
    known[0, 1, 5] = False
    with DailyColumns(tmp_path / "state", write=True) as store:
        store.put(site_days(["a", "b"], known=known), 1)
        store.put(site_days(["a"], day=JULY + timedelta(days=2)), 2)
        token, lines = exported(tmp_path / "one.jsonl", *DAYS, file=file)
        assert [(one["site"], one["day"], one["version"]) for one in lines] == [
            ("a", "2026-07-14", 1), ("b", "2026-07-14", 1),
        ]  # fmt: skip
        assert lines[1]["import_wh"][4:7] == [250, None, 250]
        assert (lines[0]["interval_s"], lines[0]["zone"], len(lines[0]["quality"])) == (900, PACIFIC.zone, 96)
        store.put(site_days(["a", "b"], known=known, wh=7), 3)
        store.put(site_days(["c"], frame=DayFrame(zone="America/New_York", length_s=3600)), 4)
        newer, lines = exported(tmp_path / "two.jsonl.gz", *DAYS, "--after", str(token), file=file)
        assert [(one["site"], one["version"]) for one in lines] == [("a", 2), ("b", 2), ("c", 1)]
        _, lines = exported(
            tmp_path / "three.jsonl", *DAYS, "--after", str(token), "--program", "dsgs-option3", file=file
        )
        assert [one["site"] for one in lines] == ["a", "b"]
        assert exported(tmp_path / "four.jsonl", *DAYS, "--after", str(newer), file=file) == (newer, [])


def test_a_gateway_without_days_exports_none_and_creates_nothing(tmp_path: Path, file: str) -> None:
    assert exported(tmp_path / "one.jsonl", *DAYS, file=file) == (0, [])
    assert not (tmp_path / "state" / "money").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "2026-07-15", "--to", "2026-07-14"), "--to: not before --from"),
        (("--from", "yesterday", "--to", "2026-07-14"), "--from: a day is written"),
        ((*DAYS, "--program", "nobody"), "--program nobody: neither the configuration nor programs_dir knows it"),
    ],
)
def test_what_is_asked_wrongly_is_named_and_leaves_no_file(
    tmp_path: Path, file: str, words: tuple[str, ...], said: str
) -> None:
    result = run("programs", "export", str(tmp_path / "out.jsonl"), "--config", file, *words)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "out.jsonl").exists()
