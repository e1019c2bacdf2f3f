"""What happens in a directory, in order and without a gap, as Linux tells it."""

import ctypes
import os
import struct
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name
READ_MAX = 1 << 16


class Happened(IntFlag):
    """Values of <sys/inotify.h>."""

    MODIFIED = 0x2
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATED = 0x100
    DELETED = 0x200
    OVERFLOW = 0x4000
    IGNORED = 0x8000
    OF_A_DIRECTORY = 0x40000000


WATCHED = Happened.MODIFIED | Happened.MOVED_FROM | Happened.MOVED_TO | Happened.CREATED | Happened.DELETED


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened to the entry `name`."""

    happened: Happened
    name: str


class Inotify:
    """A watch on the entries of one directory."""

    def __init__(self, directory: Path) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._fd = int(library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if int(library.inotify_add_watch(self._fd, os.fsencode(directory), int(WATCHED))) < 0:
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, "inotify_add_watch", str(directory))

    def fileno(self) -> int:
        """To wait on."""
        return self._fd

    def read(self) -> list[Event]:
        """What happened since the last call."""
        events: list[Event] = []
        while True:
            try:
                buffer = os.read(self._fd, READ_MAX)
            except BlockingIOError:
                return events
            at = 0
            while at < len(buffer):
                _, mask, _, length = HEADER.unpack_from(buffer, at)
                at += HEADER.size
                name = os.fsdecode(buffer[at : at + length].rstrip(b"\0"))
                at += length
                events.append(Event(happened=Happened(mask), name=name))

    def close(self) -> None:
        os.close(self._fd)
