"""Starts and ends in the state directory: what a start knows of the runs before it."""

from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.runs import ENDS_MAX, WITHIN_MS
from gateway.storage.runs import KILLED, NAME, Runs
from gateway.storage.spool.spool import CORRUPT_SUFFIX


def runs(directory: Path, clock: ManualClock) -> Runs:
    """What a new process has."""
    return Runs(directory, clock=clock)


def whys(directory: Path, clock: ManualClock) -> list[str]:
    return [end.why for end in runs(directory, clock).begin()]


def test_first_start_knows_no_end(tmp_path: Path) -> None:
    assert whys(tmp_path, ManualClock()) == []


def test_run_that_stopped_as_asked_to_is_no_end(tmp_path: Path) -> None:
    clock = ManualClock()
    for _ in range(2 * ENDS_MAX):
        run = runs(tmp_path, clock)
        assert run.begin() == ()
        run.stop()


def test_run_that_left_no_mark_was_killed(tmp_path: Path) -> None:
    clock = ManualClock()
    assert [whys(tmp_path, clock) for _ in range(3)] == [[], [KILLED], [KILLED] * 2]


def test_run_that_was_broken_says_why_and_is_one_end(tmp_path: Path) -> None:
    clock = ManualClock()
    run = runs(tmp_path, clock)
    run.begin()
    run.end("control: a bug")
    assert whys(tmp_path, clock) == ["control: a bug"]


def test_ends_are_bounded_and_forgotten_after_a_while(tmp_path: Path) -> None:
    clock = ManualClock()
    for _ in range(50):
        assert len(whys(tmp_path, clock)) <= ENDS_MAX
    assert (tmp_path / NAME).stat().st_size < 2_000
    run = runs(tmp_path, clock)
    run.begin()
    run.stop()
    clock.advance(s=WITHIN_MS / 1000 + 1)
    assert whys(tmp_path, clock) == []


def test_forgetting_holds_though_a_run_stops_after_it(tmp_path: Path) -> None:
    clock = ManualClock()
    for _ in range(ENDS_MAX):
        whys(tmp_path, clock)
    running = runs(tmp_path, clock)
    assert len(running.begin()) == ENDS_MAX
    runs(tmp_path, clock).forget()
    running.stop()
    assert whys(tmp_path, clock) == []


def test_forgetting_while_a_run_goes_on_does_not_hide_its_own_end(tmp_path: Path) -> None:
    clock = ManualClock()
    whys(tmp_path, clock)
    runs(tmp_path, clock).forget()
    assert whys(tmp_path, clock) == [KILLED]


def test_file_that_cannot_be_read_does_not_keep_the_gateway_from_starting(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    assert whys(tmp_path, ManualClock()) == []


def test_damaged_file_that_cannot_be_set_aside_does_not_keep_the_gateway_from_starting(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"{")
    (tmp_path / (NAME + CORRUPT_SUFFIX)).mkdir()
    assert whys(tmp_path, ManualClock()) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"ends": 5}', b'{"ends": [{"why": 1}]}', b"\xff\x00"])
def test_damaged_file_is_set_aside_and_the_start_goes_on(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content)
    clock = ManualClock()
    assert whys(tmp_path, clock) == []
    assert (tmp_path / f"{NAME}.corrupt").read_bytes() == content
    assert whys(tmp_path, clock) == [KILLED]


def test_disk_that_refuses_does_not_keep_the_gateway_from_starting(tmp_path: Path) -> None:
    clock = ManualClock()
    whys(tmp_path, clock)
    # the name of the half-written file is taken
    (tmp_path / f".{NAME}.part").mkdir()
    assert whys(tmp_path, clock) == [KILLED]
    with pytest.raises(StorageError):
        runs(tmp_path, clock).stop()
