"""Asks the process that reads bodies, and starts it again when it is gone."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from gateway.domain.errors import GatewayError, Retry
from gateway.signals.leap.worker import LENGTH, TRY_LATER

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 8 << 20
ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TZ")
"""What the process is given of our environment, which holds secrets."""


class ReaderGone(GatewayError):
    """The process that reads bodies ended in mid-question. `later`: it says that the disk, not the body, is why."""

    retry = Retry.LATER

    def __init__(self, message: str, *, later: bool) -> None:
        super().__init__(message)
        self.later = later


class BodyReader:
    """The process. One question at a time; started with the first one. `restarts`: how often it was started again."""

    def __init__(self, directory: Path, *, timeout_s: float) -> None:
        self._directory = directory
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._starts = 0

    @property
    def restarts(self) -> int:
        return max(0, self._starts - 1)

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return None if self._process is None else self._process.pid

    async def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def ask(self, question: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The messages of the answer. Raises ReaderGone."""
        async with self._turn:
            process = await self._started()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await _say(process, question)
                    while "end" not in (message := await _heard(process)):
                        yield message
            except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
                raise await self._gone(process, error) from error
            except BaseException:
                # the rest of the answer would be taken for that of the next question
                await self._ended(process)
                raise

    async def one(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The only message of an answer. Raises ReaderGone."""
        found: dict[str, Any] = {}
        async for message in self.ask(question):
            found = message
        return found

    async def _started(self) -> asyncio.subprocess.Process:
        process = self._process
        if process is None or process.returncode is not None:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.signals.leap.worker", str(self._directory),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            )  # fmt: skip
            self._starts += 1
        return process

    async def _gone(self, process: asyncio.subprocess.Process, error: BaseException) -> ReaderGone:
        code = await self._ended(process)
        why = "took too long" if isinstance(error, TimeoutError) else f"ended with {code}"
        return ReaderGone(f"the reader of dispatch bodies {why}", later=code == TRY_LATER)

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        self._process = None
        if process.returncode is None:
            # it may be about to end by itself, and then its exit code says why
            try:
                async with asyncio.timeout(0.5):
                    return await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        return await process.wait()


async def _say(process: asyncio.subprocess.Process, question: Mapping[str, Any]) -> None:
    pipe = process.stdin
    if pipe is None:
        raise ConnectionError("no pipe")
    text = orjson.dumps(dict(question))
    pipe.write(len(text).to_bytes(LENGTH, "big") + text)
    await pipe.drain()


async def _heard(process: asyncio.subprocess.Process) -> dict[str, Any]:
    pipe = process.stdout
    if pipe is None:
        raise ConnectionError("no pipe")
    size = int.from_bytes(await pipe.readexactly(LENGTH), "big")
    if size > MESSAGE_BYTES_MAX:
        raise ConnectionError(f"a message of {size} bytes")
    message: dict[str, Any] = orjson.loads(await pipe.readexactly(size))
    return message
