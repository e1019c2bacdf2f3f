"""The folder behind the SFTP side: `<root>/interval-data/`, which a real SFTP server lets the client list and put into.

A file counts once it stands in the folder under its final name: one that neither starts with a dot nor ends in `.part`
or `.tmp`. It is processed like an upload, moves to `accepted/x.csv/x.csv` or `failed/x.csv/x.csv`, and the upload list
names it with its paths.

A reader may look at any moment. So a file must come whole, by a rename; every write to a final name is a fault, as is
a delete or a rename of a file that the service has not moved, a second file in its place, and any change after the
move. Faults are recorded, and the file is processed as it then is.

Not public [?]: the schema of a file (set once), whether the service waits for a file to rest (`at_first_sight`: it
takes what is there when the name appears), the format of `<job>.errors.csv` (line,column,code,message), a name
outside `[A-Za-z0-9._-]` (here a fault, and left where it is).
"""

import asyncio
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from simulators.aggregator.inotify import Event, Happened, Inotify
from simulators.aggregator.intervals import ENDED, FOLDER, Intervals, Schema, Upload

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)
UNFINISHED = (".part", ".tmp")
LOOK_S = 0.05


class FaultKind(Enum):
    """What the client did that it must not."""

    GREW = "grew"  # somebody who had looked before saw less, or something else
    REPLACED = "replaced"  # a second file took the place of one that waited
    VANISHED = "vanished"  # it was deleted or renamed
    BAD_NAME = "bad_name"
    EVENTS_LOST = "events_lost"  # not the client's: the kernel told too little to judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One of them; `size` in bytes is what a reader saw first, None where that is not known."""

    kind: FaultKind
    name: str
    at_ms: int
    size: int | None = None


class DiskFiles:
    """The service's files below a root; the folder is told what the service itself moves."""

    def __init__(self, root: Path, moved: Callable[[str, Path], None]) -> None:
        self._root = root
        self._moved = moved

    def read(self, path: str) -> bytes:
        return self._at(path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        self._at(path).parent.mkdir(parents=True, exist_ok=True)
        self._at(path).write_bytes(content)

    def move(self, old: str, new: str) -> None:
        self._at(new).parent.mkdir(parents=True, exist_ok=True)
        self._at(old).replace(self._at(new))
        self._moved(self._at(old).name, self._at(new))

    def _at(self, path: str) -> Path:
        return self._root / path.removeprefix("/")


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A file that the service has not moved yet."""

    upload: Upload
    size: int
    grew: bool = False
    quiet: bool = True  # nobody wrote to it since the last look


class SftpFolder:
    """Watches the folder while it is entered; `look` does at once what otherwise is done within 50 ms."""

    def __init__(
        self, intervals: Intervals, root: Path, *, schema: Schema = Schema.LOAD, at_first_sight: bool = False
    ) -> None:
        self.inbox = root / FOLDER.removeprefix("/")
        self.faults: list[Fault] = []
        self._intervals = intervals
        self._schema = schema
        self._at_first_sight = at_first_sight
        self._files = DiskFiles(root, self._note_move)
        self._waiting: dict[str, _Waiting] = {}
        self._put_away: dict[Path, int] = {}
        self._own_moves: Counter[str] = Counter()
        self._found_at_start: dict[str, int] = {}
        self._inotify: Inotify | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        for name in ("accepted", "failed"):
            (self.inbox / name).mkdir(parents=True, exist_ok=True)
        self._inotify = Inotify(self.inbox)
        for entry in sorted(self.inbox.iterdir()):
            if entry.is_file():
                self._found_at_start[entry.name] = entry.stat().st_ino
                self._appear(entry.name)
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._drain)
        self._look_again()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.look()
        if self._timer is not None:
            self._timer.cancel()
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def look(self) -> None:
        """See what happened, and count one look at each job whose file rests."""
        self._drain()
        for name, waiting in list(self._waiting.items()):
            self._compare(name, waiting, self.inbox / name)
            if waiting.quiet or self._at_first_sight:
                self._intervals.look(waiting.upload)
            waiting.quiet = True
        self._forget_ended()
        self._check_put_away()

    def _look_again(self) -> None:
        self.look()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look_again)

    def _drain(self) -> None:
        self._forget_ended()
        for event in self._inotify.read() if self._inotify is not None else []:
            self._happen(event)

    def _happen(self, event: Event) -> None:
        happened, name = event.happened, event.name
        if happened & Happened.OVERFLOW:
            self._fault(FaultKind.EVENTS_LOST, name)
        elif happened & (Happened.OF_A_DIRECTORY | Happened.IGNORED) or _unfinished(name):
            return
        elif happened & Happened.MODIFIED:
            self._change(name)
        elif happened & (Happened.MOVED_FROM | Happened.DELETED):
            self._leave(name)
        elif happened & (Happened.CREATED | Happened.MOVED_TO):
            self._arrive(name)

    def _arrive(self, name: str) -> None:
        found = self._found_at_start.pop(name, None)
        waiting = self._waiting.get(name)
        if waiting is not None:
            if found is not None and found == self._inode(name):
                return  # it came while the folder was read for the first time
            self._fault(FaultKind.REPLACED, name, waiting.size)
            del self._waiting[name]
        self._appear(name)

    def _appear(self, name: str) -> None:
        if _unfinished(name):
            return
        if not NAME.fullmatch(name):
            self._fault(FaultKind.BAD_NAME, name)
            return
        path = self.inbox / name
        try:
            size = path.stat().st_size
            content = path.read_bytes() if self._at_first_sight else None
        except FileNotFoundError:
            return  # the event of its leaving follows
        upload = self._intervals.receive(content, self._schema, path=f"{FOLDER}/{name}", files=self._files)
        self._waiting[name] = _Waiting(upload=upload, size=size)

    def _change(self, name: str) -> None:
        waiting = self._waiting.get(name)
        if waiting is None:
            self._fault(FaultKind.GREW, name)
            return
        if not waiting.grew:
            self._fault(FaultKind.GREW, name, waiting.size)
        waiting.grew, waiting.quiet = True, False

    def _leave(self, name: str) -> None:
        if self._own_moves[name]:
            self._own_moves[name] -= 1
            return
        waiting = self._waiting.pop(name, None)
        self._fault(FaultKind.VANISHED, name, None if waiting is None else waiting.size)

    def _compare(self, name: str, waiting: _Waiting, path: Path) -> None:
        """Catches what was written to the file under another name of it."""
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return  # the event of its leaving tells
        if size != waiting.size and not waiting.grew:
            self._change(name)

    def _inode(self, name: str) -> int | None:
        try:
            return (self.inbox / name).stat().st_ino
        except FileNotFoundError:
            return None

    def _note_move(self, name: str, new: Path) -> None:
        self._own_moves[name] += 1
        self._put_away[new] = new.stat().st_size
        waiting = self._waiting.get(name)
        if waiting is not None:
            self._compare(name, waiting, new)

    def _forget_ended(self) -> None:
        """Files whose jobs have ended, whoever looked, wait no more."""
        for name, waiting in list(self._waiting.items()):
            if waiting.upload.status in ENDED and waiting.upload.current_path != waiting.upload.uploaded_path:
                del self._waiting[name]

    def _check_put_away(self) -> None:
        for path, size in list(self._put_away.items()):
            try:
                now = os.stat(path).st_size
            except FileNotFoundError:
                self._fault(FaultKind.VANISHED, path.name, size)
                del self._put_away[path]
                continue
            if now != size:
                self._fault(FaultKind.GREW, path.name, size)
                self._put_away[path] = now

    def _fault(self, kind: FaultKind, name: str, size: int | None = None) -> None:
        self.faults.append(Fault(kind=kind, name=name, at_ms=self._intervals.clock.utc_ms(), size=size))


def _unfinished(name: str) -> bool:
    return name.startswith(".") or name.endswith(UNFINISHED)
