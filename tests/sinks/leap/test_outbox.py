"""What is on disk of a file on its way: every step survives, and half a step never happened."""

import errno
import os
from pathlib import Path

import orjson
import pytest

from gateway.sinks.leap.outbox import TAKEN, Outbox, Outgoing, Row, digest

ROWS: list[Row] = [(900_000, "home-1", 1, "m1"), (900_000, "home-2", 1, "m2"), (1_800_000, "home-1", 2, "m1")]


BODY = b"header\nline\n"


def outgoing(name: str = "a", rows: list[Row] | None = None) -> Outgoing:
    return Outgoing(
        name=f"{name}-{digest(BODY)}.csv", body=BODY, rows=ROWS if rows is None else rows, began_ms=7,
        over=[(1_800_000, "home-1", 1, "m1")],
    )  # fmt: skip


def opened(directory: Path) -> Outbox:
    box = Outbox(directory)
    box.load()
    return box


def test_outbox_file_on_its_way_is_there_after_a_start(tmp_path: Path) -> None:
    box = opened(tmp_path)
    file = outgoing()
    box.begin(file)
    assert opened(tmp_path).current == file
    file.tried = True
    box.note(file)
    assert opened(tmp_path).current == file
    file.job, file.lost = "job-1", 2
    box.note(file)
    found = opened(tmp_path)
    assert found.current == file
    assert found.known() == {}


def test_outbox_end_of_a_file_is_known_until_it_is_settled(tmp_path: Path) -> None:
    box = opened(tmp_path)
    file = outgoing()
    box.begin(file)
    file.tried, file.job = True, "job-1"
    box.note(file)
    box.end(file, "COMPLETED", taken=True, at_ms=9)
    assert box.known() == opened(tmp_path).known() == dict.fromkeys([*ROWS, *outgoing().over], TAKEN)
    assert not list(tmp_path.glob("*.csv"))
    box.settle([*ROWS[:2], *file.over])
    found = opened(tmp_path)
    assert found.known() == {ROWS[2]: TAKEN}
    assert found.current is None
    assert found.past.last == {"name": file.name, "rows": 3, "job": "job-1", "status": "COMPLETED", "at_ms": 9}
    assert (found.past.accepted, found.past.jobs) == (ROWS[2], ["job-1"])


def test_outbox_failed_file_leaves_its_rows_unknown_and_refused_ones_keep_their_reason(tmp_path: Path) -> None:
    box = opened(tmp_path)
    file = outgoing()
    box.begin(file)
    box.end(file, "FAILED", taken=False, at_ms=9)
    box.refuse({ROWS[1]: "mtr_0003"})
    box.learn(2)
    found = opened(tmp_path)
    assert found.known() == {ROWS[1]: "mtr_0003"}
    assert (found.past.first_row_line, found.past.accepted) == (2, None)


def test_outbox_newest_accepted_row_does_not_go_back(tmp_path: Path) -> None:
    box = opened(tmp_path)
    for name, rows in (("a", ROWS), ("b", ROWS[:1])):
        file = outgoing(name, rows)
        box.begin(file)
        box.end(file, "COMPLETED", taken=True, at_ms=9)
    assert opened(tmp_path).past.accepted == ROWS[2]


@pytest.mark.parametrize("cut", range(1, 40))
def test_outbox_cut_off_anywhere_is_as_before_the_step_that_was_cut(tmp_path: Path, cut: int) -> None:
    box = opened(tmp_path)
    file = outgoing()
    box.begin(file)
    before = (tmp_path / "log.jsonl").read_bytes()
    file.tried, file.job = True, "job-1"
    box.note(file)
    whole = (tmp_path / "log.jsonl").read_bytes()
    left = max(len(whole) - cut, len(before))
    (tmp_path / "log.jsonl").write_bytes(whole[:left])
    found = opened(tmp_path)
    assert found.current is not None
    assert (found.current.tried, found.current.job) == (False, None)
    # and it goes on from there
    found.note(file)
    assert opened(tmp_path).current == file


@pytest.mark.parametrize(
    "spoilt", [b"\xff\xfe\n", b"[]\n", b'{"end": "COMPLETED"\n', b"7\n", b'{"end": 1}\n', b'{"refused": [[1]]}\n']
)
def test_outbox_damaged_line_ends_what_is_believed(tmp_path: Path, spoilt: bytes) -> None:
    box = opened(tmp_path)
    file = outgoing()
    box.begin(file)
    with (tmp_path / "log.jsonl").open("ab") as log:
        log.write(spoilt + orjson.dumps({"end": "COMPLETED", "taken": True, "at_ms": 1}) + b"\n")
    found = opened(tmp_path)
    assert (found.current, found.known()) == (file, {})


def test_outbox_file_that_is_gone_is_no_longer_on_its_way(tmp_path: Path) -> None:
    box = opened(tmp_path)
    box.begin(outgoing())
    (tmp_path / box.current.name).unlink() if box.current else None
    assert opened(tmp_path).current is None


def test_outbox_file_that_is_cut_short_or_went_another_way_is_not_followed(tmp_path: Path) -> None:
    file = outgoing()
    opened(tmp_path).begin(file)
    (tmp_path / file.name).write_bytes(BODY[:-3])
    assert opened(tmp_path).current is None
    opened(tmp_path).begin(file)
    box = Outbox(tmp_path)
    box.load("sftp")
    assert box.current is None


def test_outbox_rows_that_somebody_asked_for_are_known_apart(tmp_path: Path) -> None:
    box = opened(tmp_path)
    file = outgoing()
    file.again = True
    box.begin(file)
    box.end(file, "COMPLETED", taken=True, at_ms=9)
    box.refuse({ROWS[0]: "mtr_0003"})
    found = opened(tmp_path)
    assert (found.known(), found.known(again=True)[ROWS[0]]) == ({ROWS[0]: "mtr_0003"}, TAKEN)
    found.settle(ROWS, again=True)
    assert opened(tmp_path).known() == {ROWS[0]: "mtr_0003"}


def test_outbox_stray_files_of_a_crash_are_removed(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "stray.csv").write_bytes(b"x")
    opened(tmp_path)
    assert not (tmp_path / "stray.csv").exists()


def test_outbox_full_disk_changes_nothing_and_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = opened(tmp_path)
    file = outgoing()
    box.begin(file)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", full)
        with pytest.raises(OSError, match="full"):
            box.end(file, "COMPLETED", taken=True, at_ms=9)
    assert (box.current, box.known()) == (file, {})
    box.refuse({ROWS[0]: "mtr_0003"})
    found = opened(tmp_path)
    assert found.known() == {ROWS[0]: "mtr_0003"}
    assert found.current == file


def test_outbox_files_are_for_the_gateways_user_only(tmp_path: Path) -> None:
    box = opened(tmp_path / "leap")
    box.begin(outgoing())
    assert (tmp_path / "leap").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "leap").iterdir())
