"""Remembers on disk which file is on its way and what became of the rows before it, so that a crash repeats nothing.

A directory for each sink:

    log.jsonl      one line per step, each durable before the next begins; rewritten once the rows are settled
    <name>.csv     the file that is on its way

The receiver has no idempotency key: whoever sends a file twice has sent its rows twice. So the file is on disk before
it leaves, "it may have left" before its first byte does, its job's id once that is known, and the end before the uplink
is told. What is read again after a crash answers for rows that the uplink offers again.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.files import replacing

log = logging.getLogger(__name__)

Row = tuple[int, str, int, str]
"""Start (UTC ms), device and revision of a record, and the meter that it goes up for."""

KNOWN_MAX = 400_000
JOBS_MAX = 1_000
TAKEN = ""


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """A file on its way. `rows`: by line, without the header; `over`: older revisions that they replace. `again`:
    somebody has asked for these rows. `way`: how it goes. `began_ms`: UTC, when it was first to leave. `tried`: some of
    it may have arrived. `job`: what it became there, None = not known. `lost`: how often it was there and then no
    longer. `slow`: how often it did not arrive in time. `others`: the jobs of files before it."""

    name: str
    body: bytes
    rows: Sequence[Row]
    began_ms: int
    over: Sequence[Row] = ()
    again: bool = False
    way: str = "http"
    tried: bool = False
    job: str | None = None
    lost: int = 0
    slow: int = 0
    others: Sequence[str] = ()


@dataclass(slots=True, kw_only=True)
class Past:
    """What an operator asks first. `last`: the newest file that ended; `accepted`: the newest accepted row by its
    start; `first_row_line`: what an error's line number has shown, None = nothing yet; `jobs`: those of the newest
    files, oldest first."""

    jobs: list[str] = field(default_factory=list)
    last: dict[str, Any] | None = None
    accepted: Row | None = None
    first_row_line: int | None = None


@dataclass(slots=True)
class _State:
    """What the log says."""

    known: dict[bool, dict[Row, str]] = field(default_factory=lambda: {False: {}, True: {}})
    past: Past = field(default_factory=Past)
    current: Outgoing | None = None


class Outbox:
    """The directory of one sink. Blocking: call it in a thread. Every method raises OSError, and then has changed
    nothing that is told."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "log.jsonl"
        self._state = _State()
        self._turn = threading.Lock()
        self._open = False
        self._broken = False

    @property
    def past(self) -> Past:
        return self._state.past

    @property
    def current(self) -> Outgoing | None:
        """The file that is on its way."""
        return self._state.current

    def known(self, *, again: bool = False) -> Mapping[Row, str]:
        """What became of rows that are not settled: TAKEN, or why they were refused. `again`: of those that somebody
        has asked for."""
        return self._state.known[again]

    def load(self, way: str = "http") -> None:
        """Read what an earlier run left, once. A file that went another way is not followed."""
        with self._turn:
            if self._open:
                return
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            state = _read(self._log)
            if state.current is not None:
                path = self._directory / state.current.name
                state.current.body = path.read_bytes() if path.exists() else b""
                if digest(state.current.body) not in state.current.name or state.current.way != way:
                    log.error("the file that was on its way is not followed", extra={"path": str(path)})
                    state.current = None
            for stray in self._directory.glob("*.csv"):
                if state.current is None or stray.name != state.current.name:
                    stray.unlink()
            self._state = state
            self._rewrite()
            self._open = True

    def begin(self, file: Outgoing) -> None:
        """A file is to leave."""
        with self._turn:
            path = self._directory / file.name
            with replacing(path) as out:
                out.write(file.body)
            try:
                self._append(_begun(file), lambda: setattr(self._state, "current", file))
            except OSError:
                path.unlink(missing_ok=True)
                raise

    def note(self, file: Outgoing) -> None:
        """The file may have left, or its job is known, or lost."""
        with self._turn:
            self._append({"tried": file.tried, "job": file.job, "lost": file.lost}, lambda: None)

    def end(self, file: Outgoing, status: str, *, taken: bool, at_ms: int) -> None:
        """The file's job is over: all of its rows are taken, or none is."""
        with self._turn:
            step = {"end": status, "taken": taken, "at_ms": at_ms}
            self._append(step, lambda: _apply(self._state, step))
            (self._directory / file.name).unlink(missing_ok=True)

    def refuse(self, refused: Mapping[Row, str], *, again: bool = False) -> None:
        """These rows are refused for good, each for its reason."""
        with self._turn:
            step = {"refused": [[*row, reason] for row, reason in refused.items()], "again": again}
            self._append(step, lambda: _apply(self._state, step))

    def learn(self, first_row_line: int) -> None:
        """An error has shown which number the line of the first row has."""
        with self._turn:
            step = {"first_row_line": first_row_line}
            self._append(step, lambda: _apply(self._state, step))

    def settle(self, rows: Iterable[Row], *, again: bool = False) -> None:
        """The uplink remembers the end of these rows from here on."""
        with self._turn:
            known = self._state.known[again]
            for row in rows:
                known.pop(row, None)
            while len(known) > KNOWN_MAX:
                del known[next(iter(known))]
            self._rewrite()

    def _append(self, step: dict[str, Any], then: Callable[[], None]) -> None:
        if self._broken:
            self._rewrite()
        with self._unbroken(), self._log.open("ab") as out:
            out.write(orjson.dumps(step) + b"\n")
            out.flush()
            os.fdatasync(out.fileno())
        then()

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """After an error the log may end in half a line: it is rewritten before the next."""
        self._broken = True
        yield
        self._broken = False

    def _rewrite(self) -> None:
        state = self._state
        past, file = state.past, state.current
        steps: list[dict[str, Any]] = [
            {
                "last": past.last,
                "accepted": past.accepted,
                "first_row_line": past.first_row_line,
                "jobs": past.jobs,
            },
            *(
                {"refused": [[*row, reason] for row, reason in known.items()], "again": again}
                for again, known in state.known.items()
            ),
        ]
        if file is not None:
            steps.append(_begun(file))
            steps.append({"tried": file.tried, "job": file.job, "lost": file.lost})
        with replacing(self._log) as out:
            out.writelines(orjson.dumps(step) + b"\n" for step in steps)
        self._broken = False


def digest(body: bytes) -> str:
    """What stands in the name of a file for its content."""
    return hashlib.sha256(body).hexdigest()[:16]


def _begun(file: Outgoing) -> dict[str, Any]:
    return {
        "file": file.name, "rows": file.rows, "over": file.over, "again": file.again, "way": file.way,
        "began_ms": file.began_ms,
    }  # fmt: skip


def _read(path: Path) -> _State:
    """What a log says. A last line that is cut off never happened; nor does what stands after a damaged one."""
    state = _State()
    if not path.exists():
        return state
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            _apply(state, orjson.loads(line))
        except (ValueError, TypeError, LookupError, AttributeError):
            log.error("the outbox is damaged from a line on", extra={"path": str(path), "line": number})
            break
    return state


def _apply(state: _State, step: dict[str, Any]) -> None:
    file, past = state.current, state.past
    if "last" in step:
        past.last = step["last"]
        past.accepted = _row(step["accepted"]) if step["accepted"] else None
        past.first_row_line, past.jobs = step["first_row_line"], step["jobs"]
    elif "first_row_line" in step:
        past.first_row_line = step["first_row_line"]
    elif "file" in step:
        state.current = Outgoing(
            name=step["file"], body=b"", rows=[_row(row) for row in step["rows"]], began_ms=step["began_ms"],
            over=[_row(row) for row in step["over"]], again=step["again"], way=step["way"], others=tuple(past.jobs),
        )  # fmt: skip
    elif "refused" in step:
        state.known[step["again"]] |= {_row(row): row[4] for row in step["refused"]}
    elif file is not None and "end" in step:
        if step["taken"]:
            state.known[file.again] |= dict.fromkeys((*file.rows, *file.over), TAKEN)
            newest = max(file.rows)
            past.accepted = max(newest, past.accepted or newest)
        past.last = {
            "name": file.name, "rows": len(file.rows), "job": file.job, "status": step["end"], "at_ms": step["at_ms"],
        }  # fmt: skip
        if file.job is not None:
            past.jobs = [*past.jobs, file.job][-JOBS_MAX:]
        state.current = None
    elif file is not None:
        file.tried, file.job, file.lost = step["tried"], step["job"], step["lost"]


def _row(values: Sequence[Any]) -> Row:
    return values[0], values[1], values[2], values[3]
