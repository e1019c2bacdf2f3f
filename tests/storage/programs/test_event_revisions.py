"""Revisions of events' performance: whole, by page, and read beside the process that writes them."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.errors import CorruptState
from gateway.domain.programs.revised import InputKind
from gateway.storage.programs.event_revisions import EventRevisions, NewRevision

HOUR_MS = 3_600_000
NAMES = [f"home-{n:04}" for n in range(450)]


def revision(event: str = "e", at_ms: int = HOUR_MS, **changed: Any) -> NewRevision:
    new = NewRevision(
        event=event, occurrence_ms=at_ms, program="p", from_ms=at_ms, until_ms=at_ms + HOUR_MS, digest="d", because=[],
        inputs={InputKind.PRICES: {"north": "1"}}, summary={"energy_wh": 1},
        figures={"device": [{"name": name} for name in reversed(NAMES)], "site": []},
    )  # fmt: skip
    return replace(new, **changed)


def names(figures: Sequence[dict[str, Any]]) -> list[str]:
    return [figure["name"] for figure in figures]


def test_figures_are_read_page_by_page_by_name(tmp_path: Path) -> None:
    with EventRevisions(tmp_path, write=True) as store:
        assert store.put(revision(), 0) == 1
    found: list[str] = []
    with EventRevisions(tmp_path) as store:
        stored = store.newest("e")
        assert stored is not None
        while page := names(store.figures(stored.id, "device", found[-1] if found else "", 130)):
            assert len(page) <= 130
            found += page
        assert store.figures(stored.id, "site", "", 10) == []
        assert store.inputs(stored.id) == {InputKind.PRICES: {"north": "1"}}
    assert found == NAMES


def test_a_revision_has_the_next_number_and_the_ones_before_stay(tmp_path: Path) -> None:
    with EventRevisions(tmp_path, write=True) as store:
        store.put(revision(), 1)
        store.put(revision(digest="other", because=["a price came"]), 2)
        store.put(revision(event="q~e"), 3)
        store.put(revision(at_ms=9 * HOUR_MS), 4)
    with EventRevisions(tmp_path) as store:
        assert [(one.event, one.revision) for one in store.of_event("e", 9)] == [
            ("e", 1), ("e", 2), ("e", 1), ("q~e", 1)
        ]  # fmt: skip
        assert [one.event for one in store.of_event("q~e", 9)] == ["q~e"]
        one = store.one("e", HOUR_MS, 2)
        assert one is not None
        assert (one.digest, one.because, one.computed_ms) == ("other", ("a price came",), 2)


def test_a_program_has_the_newest_revision_of_each_occurrence_by_its_start(tmp_path: Path) -> None:
    with EventRevisions(tmp_path, write=True) as store:
        for n in range(5):
            store.put(revision(event=f"e{n % 2}", at_ms=n * HOUR_MS), n)
        store.put(revision(event="e0", at_ms=0), 9)
        store.put(revision(event="other", program="another"), 9)
    with EventRevisions(tmp_path) as store:
        first = store.of_program("p", 0, 4 * HOUR_MS, None, 3)
        assert [(one.event, one.occurrence_ms, one.revision) for one in first] == [
            ("e0", 0, 2), ("e1", HOUR_MS, 1), ("e0", 2 * HOUR_MS, 1)
        ]  # fmt: skip
        after = (first[-1].occurrence_ms, first[-1].event)
        assert [one.event for one in store.of_program("p", 0, 4 * HOUR_MS, after, 3)] == ["e1"]


def test_new_records_of_an_hour_have_what_rests_on_it_looked_at_again(tmp_path: Path) -> None:
    with EventRevisions(tmp_path, write=True) as store:
        for at_ms in (HOUR_MS, 5 * HOUR_MS):
            store.note("e", at_ms, (at_ms, at_ms + HOUR_MS), "seen")
        store.note_progress(3, 7, [5 * HOUR_MS])
        assert store.progress() == (3, 7)
        assert store.sign("e", HOUR_MS) == "seen"
        assert store.sign("e", 5 * HOUR_MS) is None


def test_what_is_old_is_removed_whole(tmp_path: Path) -> None:
    with EventRevisions(tmp_path, write=True) as store:
        for n in range(3):
            store.put(revision(at_ms=n * HOUR_MS), 0)
        assert store.prune(2 * HOUR_MS + 1) == 2
    with closing(sqlite3.connect(tmp_path / "money" / "performance.sqlite")) as db:
        assert db.execute("SELECT DISTINCT revision FROM pages").fetchall() == [(3,)]


def test_a_file_that_is_not_there_is_empty_and_one_that_is_no_database_is_said(tmp_path: Path) -> None:
    with EventRevisions(tmp_path) as store:
        assert store.newest("e") is None
        assert store.of_program("p", 0, HOUR_MS, None, 9) == []
    assert not (tmp_path / "money").exists()
    (tmp_path / "money").mkdir()
    (tmp_path / "money" / "performance.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(CorruptState, match="performance"):
        EventRevisions(tmp_path)
