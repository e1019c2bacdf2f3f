"""What is kept of bodies, and what is not when the disk does not do what is asked of it."""

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from gateway.signals.leap.inbox import BodyInbox


def full(*_: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_page_that_the_disk_does_not_take_leaves_no_file_and_none_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    inbox = BodyInbox(tmp_path)
    inbox.open()
    before = open_files()
    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        for _ in range(5):
            with pytest.raises(OSError, match="No space"):
                inbox.store("meter_search", 1, b"{}")
    assert open_files() == before
    assert [*(tmp_path / "inbox").iterdir()] == []
    inbox.store("meter_search", 1, b"{}")
    assert [body.kind for body in inbox.waiting()] == ["meter_search"]


def test_what_comes_after_the_clock_was_set_back_is_no_older_word_also_after_a_restart(tmp_path: Path) -> None:
    inbox = BodyInbox(tmp_path)
    inbox.open()
    inbox.store("meter", inbox.stamp(5_000), b"{}")
    assert inbox.stamp(2_000) == 5_000
    (body,) = inbox.waiting()
    inbox.read(body)
    again = BodyInbox(tmp_path)
    again.open()
    assert [again.stamp(at_ms) for at_ms in (3_000, 5_001)] == [5_000, 5_001]


def test_bodies_that_were_read_are_bounded_in_bytes_however_few_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.signals.leap.inbox.DONE_BYTES_MAX", 250)
    inbox = BodyInbox(tmp_path)
    inbox.open()
    for at_ms in range(1, 6):
        inbox.store("meter", at_ms, b"x" * 100)
    names = [body.name for body in inbox.waiting()]
    for body in list(inbox.waiting()):
        inbox.read(body)
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == names[-2:]
