"""Starts and ends of the gateway, in the state directory.

`runs.json`: `running`, true from a start to the end that it notes, and `ends`, the newest few runs that did not stop as
they were asked to. A start that finds `running` knows that the run before left no mark: it was killed, or it crashed.
The file is replaced whole; it is read again before each change, since the command line may forget the ends meanwhile.
"""

import logging
from pathlib import Path

import msgspec

from gateway.clock import Clock
from gateway.domain.errors import StorageError
from gateway.domain.runs import RunEnd, recent
from gateway.files import replacing
from gateway.storage.spool.spool import CORRUPT_SUFFIX

log = logging.getLogger(__name__)

NAME = "runs.json"
KILLED = "it was killed or crashed, and left no mark of its end"


class _File(msgspec.Struct, frozen=True, kw_only=True):
    running: bool = False
    ends: tuple[RunEnd, ...] = ()


class Runs:
    """The runs over one state directory. Every change is durable, or raises StorageError."""

    def __init__(self, state_dir: Path, *, clock: Clock) -> None:
        self._path = state_dir / NAME
        self._clock = clock

    def begin(self) -> tuple[RunEnd, ...]:
        """Note a start; returns the recent ends, that of the run before included. What cannot be read or noted is
        logged: the gateway starts all the same."""
        try:
            found = self._read()
        except StorageError as error:
            log.error("how earlier runs ended cannot be read; they do not count", extra={"error": str(error)})
            found = _File()
        ends = self._with(found.ends, KILLED) if found.running else self._recent(found.ends)
        try:
            self._write(_File(running=True, ends=ends))
        except StorageError as error:
            log.error("the start cannot be noted; a crash of it will not count", extra={"error": str(error)})
        return ends

    def stop(self) -> None:
        """Note that this run stopped as it was asked to, or refused to start."""
        self._write(_File(running=False, ends=self._recent(self._read().ends)))

    def end(self, why: str) -> None:
        """Note that this run ends because it is broken."""
        self._write(_File(running=False, ends=self._with(self._read().ends, why)))

    def forget(self) -> None:
        """Forget the ends: the next start is an ordinary one."""
        self._write(_File(running=self._read().running))

    def _recent(self, ends: tuple[RunEnd, ...]) -> tuple[RunEnd, ...]:
        return recent(ends, self._clock.now(), self._clock.boot)

    def _with(self, ends: tuple[RunEnd, ...], why: str) -> tuple[RunEnd, ...]:
        now = self._clock.now()
        return self._recent((*ends, RunEnd(utc_ms=now.utc_ms, mono_ms=now.mono_ms, boot=self._clock.boot, why=why)))

    def _read(self) -> _File:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return _File()
        except OSError as error:
            raise self._failed(error) from error
        except msgspec.DecodeError as damage:
            log.error("the file of earlier runs is damaged; it is set aside", extra={"error": str(damage)})
            try:
                self._path.replace(self._path.with_name(NAME + CORRUPT_SUFFIX))
            except OSError as error:
                raise self._failed(error) from error
            return _File()

    def _write(self, content: _File) -> None:
        try:
            with replacing(self._path) as file:
                file.write(msgspec.json.encode(content))
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(f"{self._path}: {error.strerror or error}")
