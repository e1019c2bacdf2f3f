"""What a run leaves for the next start, and what a release-only one says."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.app.last_runs import LAST_CHANCE_S, noted_run, resume
from gateway.domain.errors import GatewayError, InvariantBroken, StorageError
from gateway.domain.journal.changes import Change, ControlEnded
from gateway.domain.runs import ENDS_MAX
from gateway.services.runtime.pending_changes import PendingChanges
from tests.builders.fakes import MemoryJournal

ENDED = ControlEnded(devices=(), reason="released")


def crash(state_dir: Path, error: BaseException) -> None:
    with suppress(type(error)), noted_run(state_dir):
        raise error


@pytest.mark.parametrize("error", [InvariantBroken("a bug"), KeyError("a bug"), SystemExit(1)])
def test_next_start_is_release_only_after_three_crashes_says_why_and_how_to_leave(
    error: BaseException, tmp_path: Path
) -> None:
    for _ in range(ENDS_MAX):
        with noted_run(tmp_path) as last:
            assert not last.release_only
            assert last.reasons() == []
        crash(tmp_path, error)
    with noted_run(tmp_path) as last:
        assert last.release_only
        (reason,) = last.reasons()
        assert reason.startswith("release-only: 3 runs ended within 10 minutes")
        assert "`gateway resume --config FILE` and a restart" in reason
        assert [sample.value for sample in last.samples()] == [1]


def test_restart_within_the_time_stays_release_only_until_it_is_told_to_resume(tmp_path: Path) -> None:
    for _ in range(ENDS_MAX):
        crash(tmp_path, KeyError("a bug"))
    for _ in range(2):
        with noted_run(tmp_path) as last:
            assert last.release_only
    resume(tmp_path)
    with noted_run(tmp_path) as last:
        assert not last.release_only


@pytest.mark.parametrize("error", [GatewayError("the port is taken"), StorageError("full"), asyncio.CancelledError()])
def test_start_that_is_refused_is_no_crash(error: BaseException, tmp_path: Path) -> None:
    for _ in range(2 * ENDS_MAX):
        crash(tmp_path, error)
    with noted_run(tmp_path) as last:
        assert last.ends == ()


async def test_what_is_in_force_becomes_durable_before_a_broken_run_ends(tmp_path: Path) -> None:
    journal = MemoryJournal()
    pending = PendingChanges(journal, deadline_s=5)
    pending.owe([ENDED])
    with suppress(KeyError), noted_run(tmp_path) as last:
        await last.note_end("control: a bug", pending)
        raise KeyError
    assert journal.kept == [ENDED]
    with noted_run(tmp_path) as last:
        assert [end.why for end in last.ends] == ["control: a bug"]


class Hanging(MemoryJournal):
    """A disk that never answers."""

    async def commit(self, changes: Sequence[Change]) -> None:
        await asyncio.Event().wait()


async def test_disk_that_hangs_does_not_keep_a_broken_run_from_ending(tmp_path: Path) -> None:
    pending = PendingChanges(Hanging(), deadline_s=60)
    pending.owe([ENDED])
    began_s = asyncio.get_running_loop().time()
    with suppress(KeyError), noted_run(tmp_path) as last:
        await last.note_end("control: a bug", pending)
        raise KeyError
    assert asyncio.get_running_loop().time() - began_s <= 2 * LAST_CHANCE_S
    with noted_run(tmp_path) as last:
        assert [end.why for end in last.ends] == ["control: a bug"]


def test_start_that_breaks_an_invariant_is_named_to_the_next_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crash(tmp_path, InvariantBroken("a bug"))
    with noted_run(tmp_path) as last:
        assert [end.why for end in last.ends] == ["start: broken invariant: a bug"]
    assert [vars(r)["reason"] for r in caplog.records if r.levelname == "CRITICAL"] == [last.ends[0].why]
