"""Puts a file on the aggregator's SFTP server and waits until it is moved to `accepted/` or `failed/`.

    <folder>/.<name>.part            while it is written; then renamed, so that nobody reads half of it
    <folder>/<name>                  waits
    <folder>/accepted/<name>/        taken, every row
    <folder>/failed/<name>/          not taken; beside the file `<job>.errors.csv`

The name is of the file's content and time, so the folder itself tells what is there: a file goes up again only if its
name stands nowhere. The server's key is pinned. The aggregator lets a partner list and put, and delete nothing; what it
says of a rename, and the columns of the errors, are not public: the columns `line` and `code` are looked for by name.
asyncssh is an extra, imported only on use.
"""

import asyncio
import csv
import importlib.util
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.domain.errors import refuse
from gateway.ports.sinks import Keep, Stop
from gateway.sinks.leap.outbox import Outgoing
from gateway.sinks.leap.replies import LineError, known_code
from gateway.sinks.leap.transport import LOST_MAX, Ended, Noted
from gateway.sinks.web import REFUSED_RETRY_S
from gateway.transports.web import words

if TYPE_CHECKING:
    import asyncssh

NEEDED = "SFTP needs asyncssh: pip install 'battery-fleet-gateway[sftp]'"
ERRORS_BYTES = 16 << 20
LOOKS = 3
"""So many looks in a row without the file, or without its errors, are believed."""
RENAMES_MAX = 3
EXAMPLE_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
HOST_KEY = r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/=]+( .*)?$"


class _RenameRefused(Exception):
    """The server refuses to rename, whatever the file."""


class LeapSftpSettings(BaseModel):
    """The SFTP account. `host_key`: the server's public key as in `known_hosts`, without the host; no other is trusted.
    `password` is the aggregator's API key; `key_file` a private key instead of it or beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Annotated[str, Field(min_length=1, max_length=255, examples=["sftp.leap.energy"])]
    port: Annotated[int, Field(ge=1, le=65_535)] = 22
    user: Annotated[str, Field(min_length=1, max_length=255, examples=["my-account"])]
    host_key: Annotated[str, Field(pattern=HOST_KEY, examples=[EXAMPLE_KEY])]
    password: SecretStr | None = None
    key_file: Path | None = None
    folder: Annotated[str, Field(pattern=r"^/[^\x00-\x1f]*$")] = "/interval-data"

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        faults = []
        if self.password is None and self.key_file is None:
            faults.append("password: required, or a key_file")
        if importlib.util.find_spec("asyncssh") is None:
            faults.append(NEEDED)
        else:
            import asyncssh

            try:
                asyncssh.import_public_key(self.host_key)
            except asyncssh.KeyImportError as error:
                faults.append(f"host_key: {error}")
        refuse(faults)
        return self


class SftpUpload:
    """The SFTP way. A connection for each look: the server may close an idle one."""

    def __init__(self, settings: LeapSftpSettings, *, poll_s: float, job_timeout_s: float, timeout_s: float) -> None:
        self._settings = settings
        self._folder = settings.folder.rstrip("/")
        self._poll_s = poll_s
        self._job_timeout_s = job_timeout_s
        self._timeout_s = timeout_s
        self._refused = 0

    async def close(self) -> None:
        """Nothing stays open."""

    async def deliver(self, file: Outgoing, noted: Noted) -> Ended | Keep | Stop:
        try:
            async with asyncio.timeout(self._job_timeout_s):
                return await self._delivered(file, noted)
        except TimeoutError:
            return Keep(reason="job_unfinished")

    async def _delivered(self, file: Outgoing, noted: Noted) -> Ended | Keep | Stop:
        looks = 0
        while True:
            found = await self._look(file, noted)
            unexplained = isinstance(found, Ended) and not found.taken and not found.errors
            if found is not None and (not unexplained or looks >= LOOKS):
                return found
            looks += unexplained
            await asyncio.sleep(self._poll_s)

    async def _look(self, file: Outgoing, noted: Noted) -> Ended | Keep | Stop | None:
        """How the file stands, after it was put there if it is nowhere; None = it waits."""
        import asyncssh

        key_file = self._settings.key_file
        if key_file is not None and not key_file.is_file():
            return Stop(reason="sftp_key_file", detail=f"{key_file} cannot be read", retry_s=REFUSED_RETRY_S)
        try:
            async with asyncio.timeout(self._timeout_s), self._connected() as sftp:
                return await self._stands(sftp, file, noted)
        except TimeoutError:
            return Keep(reason="sftp_timeout")
        except asyncssh.HostKeyNotVerifiable as error:
            return Stop(reason="sftp_host_key", detail=_said(error))
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            return Stop(reason="sftp_key_file", detail=_said(error), retry_s=REFUSED_RETRY_S)
        except _RenameRefused as error:
            self._refused += 1
            if self._refused < RENAMES_MAX:
                return Keep(reason="sftp_rename_refused")
            return Stop(reason="sftp_rename_refused", detail=str(error), retry_s=REFUSED_RETRY_S)
        except (asyncssh.PermissionDenied, asyncssh.SFTPPermissionDenied) as error:
            return Stop(reason="sftp_denied", detail=_said(error), retry_s=REFUSED_RETRY_S)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
            return Stop(reason="sftp_no_folder", detail=_said(error), retry_s=REFUSED_RETRY_S)
        except (asyncssh.Error, ConnectionError, OSError) as error:
            return Keep(reason=f"sftp_{type(error).__name__.lower()}")

    @asynccontextmanager
    async def _connected(self) -> "AsyncIterator[asyncssh.SFTPClient]":
        import asyncssh

        given = self._settings
        trusted = asyncssh.import_public_key(given.host_key)
        async with (
            asyncssh.connect(
                given.host, given.port, username=given.user,
                password=None if given.password is None else given.password.get_secret_value(),
                client_keys=None if given.key_file is None else [str(given.key_file)],
                known_hosts=([trusted], [], []), config=None, agent_path=None,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):  # fmt: skip
            yield sftp

    async def _stands(self, sftp: "asyncssh.SFTPClient", file: Outgoing, noted: Noted) -> Ended | Stop | Keep | None:
        if await sftp.exists(f"{self._folder}/accepted/{file.name}"):
            return Ended(taken=True)
        if await sftp.exists(f"{self._folder}/failed/{file.name}"):
            return Ended(taken=False, errors=await self._errors(sftp, file.name))
        if await sftp.exists(f"{self._folder}/{file.name}"):
            return None
        # it may have moved between two of these looks
        for folder in ("accepted", "failed"):
            if await sftp.exists(f"{self._folder}/{folder}/{file.name}"):
                return None
        if file.job is not None:
            file.job, file.lost = None, file.lost + 1
            await noted(file)
            if file.lost >= LOST_MAX:
                file.lost = 0
                return Stop(reason="file_lost", detail=f"{file.name} was put {LOST_MAX} times and is nowhere")
            return Keep(reason="file_lost")
        file.tried = True
        await noted(file)
        await self._put(sftp, file)
        self._refused = 0
        file.job = file.name
        await noted(file)
        return None

    async def _put(self, sftp: "asyncssh.SFTPClient", file: Outgoing) -> None:
        import asyncssh

        part = f"{self._folder}/.{file.name}.part"
        async with sftp.open(part, "wb") as out:
            await out.write(file.body)
        try:
            await sftp.rename(part, f"{self._folder}/{file.name}")
        except (asyncssh.SFTPFailure, asyncssh.SFTPOpUnsupported) as error:
            raise _RenameRefused(f"the server lets a file be put and not renamed: {error}") from error

    async def _errors(self, sftp: "asyncssh.SFTPClient", name: str) -> Sequence[LineError]:
        directory = f"{self._folder}/failed/{name}"
        found: list[LineError] = []
        if not await sftp.isdir(directory):
            return found
        for entry in await sftp.listdir(directory):
            if str(entry).endswith(".errors.csv"):
                async with sftp.open(f"{directory}/{entry}", "rb") as told:
                    found += errors_of_csv(await told.read(ERRORS_BYTES))
        return found


def errors_of_csv(body: bytes) -> list[LineError]:
    """The errors of a file, one a line, by the columns `line` and `code`; one that names no line has none."""
    lines = csv.DictReader(io.StringIO(body.decode("utf-8", errors="replace"), newline=""))
    found: list[LineError] = []
    try:
        for entry in lines:
            told = {(name or "").strip().lower(): value for name, value in entry.items() if isinstance(value, str)}
            line = told.get("line", told.get("line_number", "")).strip()
            number = int(line) if line.isascii() and line.isdigit() and len(line) < 10 else None
            found.append(LineError(line=number, code=known_code(told.get("code", "").strip())))
    except csv.Error:
        found.append(LineError(line=None, code=""))
    return found


def _said(error: Exception) -> str:
    return words(str(error).encode())
