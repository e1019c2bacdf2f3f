"""Keeps the bodies that the aggregator posted, and pages of its search, until they are read and for a while after.

    inbox/NAME.part   on its way in
    inbox/NAME        durable; waits to be read, in the order of names
    inbox/NAME.triedN a reader died of it N times
    done/NAME         read
    bad/NAME          no dispatch body, or one that no reader survives: kept for somebody to look at

NAME is `<receipt, UTC ms>-<number>-<random>.<kind>`, so that no two bodies share one whatever the clock does. A body
is answered once it and its name are on disk; what a crash leaves half written was never answered, and is removed at the
next start.
"""

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.files import sync_directory

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 64 << 20
WAITING_BYTES_MAX = 1 << 30
"""So many bytes may wait to be read; the aggregator tries again what is refused."""
DONE_MAX, DONE_BYTES_MAX = 2_000, 512 << 20
BAD_MAX, BAD_BYTES_MAX = 200, 256 << 20

_NAME = re.compile(r"(\d{15})-(\d{6})-[0-9a-f]{8}\.(meter|group|meter_search|group_search)(?:\.tried(\d))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBody:
    """A body that waits. `at_ms`: its receipt, or when its search was asked, UTC; `tried`: how often a reader died of
    it."""

    name: str
    path: Path
    kind: str
    at_ms: int
    tried: int


class Incoming:
    """A body on its way in. Its methods block: call them in a thread. They raise OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._file = os.open(self._part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def keep(self) -> str:
        """Make it durable under its name; returns that. Where the disk does not do it, nothing of it stays."""
        try:
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)
            os.replace(self._part, self._path)
        except OSError:
            self._part.unlink(missing_ok=True)
            raise
        sync_directory(self._path.parent)
        return self._path.name

    def drop(self) -> None:
        """It is not to be kept."""
        os.close(self._file)
        self._part.unlink(missing_ok=True)


class BodyInbox:
    """The folders. Methods block; they raise OSError."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._waiting, self._done, self._bad = (directory / name for name in ("inbox", "done", "bad"))
        self._number = 0
        self._bytes = 0
        self._stamp_ms = 0
        self._opened = False
        self.kept_bad = 0

    def open(self) -> None:
        """Make the folders, and once remove what a run before never answered."""
        for folder in (self._waiting, self._done, self._bad):
            folder.mkdir(parents=True, exist_ok=True)
        if not self._opened:
            for part in self._waiting.glob("*.part"):
                part.unlink()
            named = (
                _NAME.match(name) for folder in (self._waiting, self._done, self._bad) for name in os.listdir(folder)
            )
            self.stamp(max((int(found[1]) for found in named if found is not None), default=0))
        self._opened = True
        self.count_bad()
        self._bytes = sum(body.path.stat().st_size for body in self.waiting())

    @property
    def full(self) -> bool:
        """Whether too much waits to be read already."""
        return self._bytes >= WAITING_BYTES_MAX

    def stamp(self, now_ms: int) -> int:
        """When something comes or is asked for, UTC ms, by which it counts as older or newer: it never goes back, also
        where the clock is set back, so that what comes later is never taken for an older word."""
        self._stamp_ms = max(self._stamp_ms, now_ms)
        return self._stamp_ms

    def begin(self, kind: str, at_ms: int) -> Incoming:
        """Begin a body that came (or was asked for) at `at_ms`."""
        self._number = (self._number + 1) % 1_000_000
        return Incoming(self._waiting / f"{at_ms:015d}-{self._number:06d}-{os.urandom(4).hex()}.{kind}")

    def store(self, kind: str, at_ms: int, data: bytes) -> None:
        """Make a body durable that is here as a whole."""
        body = self.begin(kind, at_ms)
        try:
            body.write(data)
        except OSError:
            body.drop()
            raise
        body.keep()

    def came(self, size: int) -> None:
        """A body of this size waits now."""
        self._bytes += size

    def waiting(self) -> Iterator[KeptBody]:
        """Bodies that wait, the oldest first."""
        for name in sorted(os.listdir(self._waiting)):
            found = _NAME.fullmatch(name)
            if found is not None:
                at, _, kind, tried = found.groups()
                yield KeptBody(
                    name=name.partition(".tried")[0], path=self._waiting / name, kind=kind, at_ms=int(at),
                    tried=int(tried or 0),
                )  # fmt: skip

    def died(self, body: KeptBody) -> None:
        """A reader died of it once more."""
        os.replace(body.path, self._waiting / f"{body.name}.tried{min(body.tried + 1, 9)}")

    def read(self, body: KeptBody) -> None:
        """It was read."""
        self._move(body, self._done, DONE_MAX, DONE_BYTES_MAX)

    def set_aside(self, body: KeptBody) -> None:
        """It cannot be read; somebody must look."""
        self._move(body, self._bad, BAD_MAX, BAD_BYTES_MAX)
        self.count_bad()

    def count_bad(self) -> None:
        """See how many bodies are set aside; somebody may have removed some."""
        self.kept_bad = sum(1 for _ in self._bad.iterdir())

    def _move(self, body: KeptBody, folder: Path, most: int, most_bytes: int) -> None:
        self._bytes = max(0, self._bytes - body.path.stat().st_size)
        os.replace(body.path, folder / body.name)
        _trim(folder, most, most_bytes)


def _trim(folder: Path, most: int, most_bytes: int) -> None:
    """Remove the oldest of too many files, or of files of too many bytes; the newest stays."""
    total = 0
    for count, name in enumerate(sorted(os.listdir(folder), reverse=True), start=1):
        path = folder / name
        total += path.stat().st_size
        if count > most or (total > most_bytes and count > 1):
            path.unlink()
