"""The door of the webhooks: who is let in, and a body that is on disk before it is answered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.clock import ManualClock
from gateway.signals.leap import door as module
from gateway.signals.leap.door import LeapAdmission, LeapDoor
from gateway.signals.leap.inbox import BodyInbox
from tests.signals.leap.rig import SECRET, settings


class Place:
    """A door over a directory. `news`: how often it said that a body waits."""

    def __init__(self, directory: Path, **other: Any) -> None:
        self.inbox = BodyInbox(directory)
        self.inbox.open()
        self.news = 0
        self.door = LeapDoor(settings(**other), self.inbox, clock=ManualClock(), came=self._came)

    def _came(self) -> None:
        self.news += 1

    def waiting(self) -> list[bytes]:
        return [body.path.read_bytes() for body in self.inbox.waiting()]

    def names(self) -> list[str]:
        return [path.name for path in (self.inbox.directory / "inbox").iterdir()]


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize(
    ("shown", "let_in"),
    [
        ((SECRET,), True), ((SECRET[:-1],), False), ((SECRET + "x",), False), ((), False), ((SECRET, SECRET), False),
        (("\udcff",), False), (("",), False), ((f"Bearer {SECRET}",), False),
    ],
)  # fmt: skip
def test_only_the_shared_secret_opens_and_only_once(tmp_path: Path, shown: tuple[str, ...], let_in: bool) -> None:
    assert (Place(tmp_path).door.refusal(shown, "127.0.0.1") is None) == let_in


@pytest.mark.parametrize(
    ("address", "let_in"),
    [("192.0.2.7", True), ("::ffff:192.0.2.7", True), ("192.0.3.7", False), ("2001:db8::1", True), ("", False)],
)
def test_where_addresses_are_named_no_other_is_let_in(tmp_path: Path, address: str, let_in: bool) -> None:
    place = Place(tmp_path, addresses=["192.0.2.0/24", "2001:db8::/32"])
    assert (place.door.refusal((SECRET,), address) is None) == let_in


async def test_a_body_is_whole_on_disk_before_it_is_answered(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert await place.door.receive("meter", pieces(b"ab", b"c" * 600_000, b"d"), 600_003) is LeapAdmission.KEPT
    assert place.waiting() == [b"ab" + b"c" * 600_000 + b"d"]
    assert place.news == 1


@pytest.mark.parametrize("announced", [None, 10])
async def test_a_body_that_is_too_large_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: int | None
) -> None:
    monkeypatch.setattr(module, "BODY_BYTES_MAX", 10)
    place = Place(tmp_path)
    assert await place.door.receive("meter", pieces(b"0123456789", b"x"), announced) is LeapAdmission.TOO_LARGE
    assert await place.door.receive("meter", pieces(), 11) is LeapAdmission.TOO_LARGE
    assert (place.names(), place.news) == ([], 0)


async def test_a_body_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    place = Place(tmp_path)
    assert await place.door.receive("meter", broken(), 10) is LeapAdmission.BROKEN_OFF
    assert await place.door.receive("meter", pieces(b"half"), 10) is LeapAdmission.BROKEN_OFF
    assert place.names() == []


async def test_a_body_that_does_not_come_to_its_end_is_given_up(tmp_path: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(3_600)

    place = Place(tmp_path)
    assert await place.door.receive("meter", slow(), None) is LeapAdmission.BROKEN_OFF
    assert place.names() == []


async def test_a_disk_that_takes_nothing_is_no_answer_that_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.signals.leap.inbox.os.fsync", full)
    assert await place.door.receive("meter", pieces(b"x"), 1) is LeapAdmission.DISK
    assert place.waiting() == []


def test_while_too_much_waits_nothing_more_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    place.inbox.came(1 << 30)
    assert place.door.refusal((SECRET,), "127.0.0.1") is LeapAdmission.BUSY


def test_read_bodies_are_kept_for_a_while_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.signals.leap.inbox.DONE_MAX", 4)
    place = Place(tmp_path)
    for at_ms in range(10):
        body = place.inbox.begin("meter", at_ms)
        body.write(b"{}")
        body.keep()
        place.inbox.read(next(place.inbox.waiting()))
    assert [int(path.name[:15]) for path in sorted((tmp_path / "done").iterdir())] == [6, 7, 8, 9]


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"secret": "short"}, "secret: shorter than 16"), ({"secret": "with a blank 0123456"}, "secret: holds"),
        ({"header": "authorization"}, "header: authorization has a meaning"), ({"header": "X-Upper"}, "header"),
        ({"url": "http://gateway.example"}, "https is required"), ({"levels": ["meter", "meter"]}, "levels: one"),
        ({"addresses": ["192.0.2.1/24"]}, "addresses"),
    ],
)  # fmt: skip
def test_settings_that_would_let_strangers_in_are_refused(other: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        settings(**other)
