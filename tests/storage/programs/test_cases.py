"""Cases on disk: one per home and cause, and what the ticket system lacks."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.domain.errors import CorruptState
from gateway.domain.programs.cases import closed, opened, snoozed
from gateway.domain.programs.underperformers import LikelyCause
from gateway.ports.cases import CaseQuestion
from gateway.storage.programs.cases import NAME, SqliteCases

LATE = opened("home-1", LikelyCause.LATE, by="ann", now_ms=5)
OFF = opened("home-2", LikelyCause.UNIT_OFF, by="ann", now_ms=6)


async def test_cases_are_there_after_a_restart_and_a_home_has_one_of_each_cause(tmp_path: Path) -> None:
    async with SqliteCases(tmp_path) as store:
        (late, off) = await store.put([LATE, OFF])
        assert (late.number, off.number) == (1, 2)
        (again,) = await store.put([replace(LATE, assignee="bob")])
        assert again.number == late.number
    async with SqliteCases(tmp_path) as store:
        assert await store.cases(CaseQuestion(), 10) == [replace(again, told=0), off]
        assert await store.of_homes(["home-2", "nobody"]) == [off]


async def test_cases_are_asked_for_by_home_cause_number_and_whether_they_are_open(tmp_path: Path) -> None:
    async with SqliteCases(tmp_path) as store:
        (late, off) = await store.put([LATE, OFF])
        (gone,) = await store.put([closed(off, because="fixed", by="ann", now_ms=9)])
        assert await store.cases(CaseQuestion(home="home-1"), 10) == [late]
        assert await store.cases(CaseQuestion(cause=LikelyCause.UNIT_OFF), 10) == [gone]
        assert await store.cases(CaseQuestion(open_alone=True), 10) == [late]
        assert await store.cases(CaseQuestion(after=1), 10) == [gone]
        assert await store.cases(CaseQuestion(), 1) == [late]


async def test_what_is_untold_is_told_once_for_each_revision_and_not_while_it_is_snoozed(tmp_path: Path) -> None:
    async with SqliteCases(tmp_path) as store:
        (late, off) = await store.put([LATE, OFF])
        await store.note_told(late.number, late.revision)
        assert await store.untold(10, 10) == [off]
        (off,) = await store.put([snoozed(off, 100)])
        assert await store.untold(99, 10) == []
        assert await store.untold(100, 10) == [off]
        (off,) = await store.put([closed(off, because="fixed", by="ann", now_ms=50)])
        assert await store.untold(60, 10) == [off]


async def test_a_file_that_is_no_database_is_an_error_and_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no database at all" * 100)
    async with SqliteCases(tmp_path) as store:
        with pytest.raises(CorruptState):
            await store.cases(CaseQuestion(), 10)
    assert (tmp_path / NAME).read_bytes().startswith(b"no database")
