"""A process of a test and all that it forked, by proc(5), also those with a session of their own.

They are frozen before they are killed: what could still fork would get away.
"""

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.scenes.waiting import until


class Process(NamedTuple):
    pid: int
    parent: int
    state: str
    uid: int
    gid: int


def tree(pid: int) -> list[Process]:
    """The process with this id first, then its descendants; nothing if it is gone."""
    now = _processes()
    found = [now[pid]] if pid in now else []
    for parent in found:
        found += [process for process in now.values() if process.parent == parent.pid]
    return found


async def freeze(pid: int) -> list[Process]:
    """Stops the tree and returns it; what was being forked while the others were stopped is found on the next look."""
    seen: list[int] = []
    while seen != (seen := [process.pid for process in tree(pid)]):
        _send(seen, signal.SIGSTOP)
        await _until_state(seen, "TZ")
    return tree(pid)


def thaw(pid: int) -> None:
    _send([process.pid for process in tree(pid)], signal.SIGCONT)


async def kill(processes: Sequence[Process]) -> None:
    """Kills them and waits until nothing of them runs."""
    pids = [process.pid for process in processes]
    _send(pids, signal.SIGKILL)
    await _until_state(pids, "Z")


def _processes() -> dict[int, Process]:
    """Every process of the machine, by its id."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
            values = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
            uid, gid = int(values["Uid"][0]), int(values["Gid"][0])
            found[pid] = Process(pid, int(values["PPid"][0]), values["State"][0], uid, gid)
    return found


def _send(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def _until_state(pids: Sequence[int], letters: str) -> None:
    """Until each is gone or in one of these states of proc(5)."""

    def reached() -> bool:
        now = _processes()
        return all(pid not in now or now[pid].state in letters for pid in pids)

    await until(reached, f"processes {pids} in one of {letters}")
