"""The OpenSSH server for tests, proven with OpenSSH's own clients."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.builders.openssh import OpenSsh
from tests.scenes.waiting import until

CLIENT_S = 120.0
SLOW_KBIT_S = "3200"
DENIED = "Permission denied (publickey,password)."


class Client:
    """OpenSSH's `sftp`; it accepts the one host key that it was given at the start."""

    def __init__(self, server: OpenSsh, directory: Path) -> None:
        self._server = server
        self._directory = directory
        (directory / "known_hosts").write_text(server.known_hosts, encoding="ascii")
        self.file = directory / "rows.csv"
        self.file.write_bytes(b"meter,kwh\n")

    def options(self, *, key: Path | None = None) -> list[str]:
        server = self._server
        return [
            "-F", "none", "-P", str(server.port), "-i", str(key or server.client_key), "-o", "IdentitiesOnly=yes",
            "-o", "IdentityAgent=none", "-o", f"UserKnownHostsFile={self._directory / 'known_hosts'}",
            "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "NumberOfPasswordPrompts=1",
        ]  # fmt: skip

    async def key(self, *batch: str, key: Path | None = None) -> tuple[int, str]:
        """Exit code and output of these commands, logged in with a key."""
        async with self.running(*batch, options=["-o", "PasswordAuthentication=no"], key=key) as process:
            return await finished(process)

    async def password(self, word: str, *batch: str) -> tuple[int, str]:
        asked = self._directory / "askpass"
        asked.write_text(f"#!/bin/sh\necho '{word}'\n", encoding="utf-8")
        asked.chmod(0o700)
        options = ["-o", "PubkeyAuthentication=no", "-o", "BatchMode=no"]
        async with self.running(*batch, options=options, askpass=asked) as process:
            return await finished(process)

    @asynccontextmanager
    async def running(
        self, *batch: str, options: list[str], key: Path | None = None, askpass: Path | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        asking = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"} if askpass else {}
        process = await asyncio.create_subprocess_exec(
            "sftp", *self.options(key=key), *options, "-b", "-", f"{self._server.user}@127.0.0.1",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=os.environ | asking,
        )  # fmt: skip
        type_in(process, *batch)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    @asynccontextmanager
    async def putting_slowly(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """In the middle of a put that would take 40 s."""
        self.file.write_bytes(bytes(16_000_000))
        async with self.running(self.put("part"), options=["-l", SLOW_KBIT_S]) as process:
            part = self._server.inbox / "part"
            await until(lambda: part.exists() and part.stat().st_size > 0, "the first bytes")
            yield process

    def put(self, name: str) -> str:
        return f"put {self.file} {self._server.folder}/{name}"


def type_in(process: asyncio.subprocess.Process, *batch: str) -> None:
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in batch).encode())


async def finished(process: asyncio.subprocess.Process) -> tuple[int, str]:
    output, _ = await asyncio.wait_for(process.communicate(b""), CLIENT_S)
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[OpenSsh]:
    async with OpenSsh(tmp_path) as running:
        yield running


@pytest.fixture
def client(server: OpenSsh, tmp_path: Path) -> Client:
    return Client(server, tmp_path)


async def test_openssh_client_key_puts_renames_and_lists(server: OpenSsh, client: Client) -> None:
    folder = server.folder
    code, output = await client.key(
        client.put("new.part"), f"rename {folder}/new.part {folder}/new.csv", f"ls -1 {folder}"
    )
    assert (code, output.splitlines()[-1]) == (0, f"{folder}/new.csv")
    assert [path.name for path in server.inbox.iterdir()] == ["new.csv"]
    assert (server.inbox / "new.csv").read_bytes() == client.file.read_bytes()


async def test_openssh_relative_path_starts_in_root(server: OpenSsh, client: Client) -> None:
    code, output = await client.key(f"put {client.file} interval-data/new.csv")
    assert code == 0, output
    assert (server.inbox / "new.csv").exists()


async def test_openssh_password_puts(server: OpenSsh, client: Client) -> None:
    code, output = await client.password(server.password, client.put("new.csv"))
    assert code == 0, output
    assert (server.inbox / "new.csv").read_bytes() == client.file.read_bytes()
    assert f"Accepted password for {server.user}" in server.log.read_text()


async def test_openssh_wrong_password_is_denied(server: OpenSsh, client: Client) -> None:
    code, output = await client.password(server.password + "x", client.put("new.csv"))
    assert code != 0
    assert DENIED in output
    assert list(server.inbox.iterdir()) == []


async def test_openssh_wrong_key_is_denied(server: OpenSsh, client: Client) -> None:
    code, output = await client.key(client.put("new.csv"), key=server.client_key.with_name("host_key"))
    assert code != 0
    assert DENIED in output
    assert list(server.inbox.iterdir()) == []


async def test_openssh_command_is_not_run(server: OpenSsh, client: Client) -> None:
    options = ["-p" if option == "-P" else option for option in client.options()]
    process = await asyncio.create_subprocess_exec(
        "ssh", *options, f"{server.user}@127.0.0.1", "echo run; touch interval-data/run",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    _, output = await finished(process)
    assert output == "This service allows sftp connections only.\n"
    assert list(server.inbox.iterdir()) == []


async def test_openssh_impostor_shows_another_host_key_and_the_next_start_the_true_one(
    server: OpenSsh, client: Client
) -> None:
    await server.stop()
    await server.start(new_host_key=True)
    code, output = await client.key(client.put("new.csv"))
    assert code != 0
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in output
    await server.stop()
    await server.start()
    code, output = await client.key(client.put("new.csv"))
    assert code == 0, output


async def test_openssh_stopped_ends_its_connections_and_starts_again_on_its_port(
    server: OpenSsh, client: Client
) -> None:
    port = server.port
    async with client.putting_slowly() as putting:
        await server.stop()
        code, _ = await finished(putting)
        assert code != 0
    code, output = await client.key("ls")
    assert code != 0
    assert "Connection refused" in output
    await server.start()
    assert server.port == port
    code, output = await client.key("ls")
    assert code == 0, output


async def test_openssh_connection_cut_in_mid_put_leaves_a_part_and_the_next_put_goes_through(
    server: OpenSsh, client: Client
) -> None:
    async with client.putting_slowly() as putting:
        await server.cut()
        code, _ = await finished(putting)
        assert code != 0
    assert 0 < (server.inbox / "part").stat().st_size < client.file.stat().st_size
    code, output = await client.key(client.put("whole"))
    assert code == 0, output
    assert (server.inbox / "whole").read_bytes() == client.file.read_bytes()


async def test_openssh_frozen_answers_nobody_until_it_is_thawed(
    server: OpenSsh, client: Client, tmp_path: Path
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    await server.freeze()
    async with client.running(client.put("new.csv"), options=[]) as waiting, OpenSsh(beside) as other:
        # What one server did in the meantime the frozen one could have done.
        code, output = await Client(other, beside).key("ls")
        assert code == 0, output
        assert (waiting.returncode, list(server.inbox.iterdir())) == (None, [])
        server.thaw()
        code, output = await finished(waiting)
        assert code == 0, output
    assert (server.inbox / "new.csv").exists()


async def test_openssh_full_disk_fails_a_put_until_there_is_room(server: OpenSsh, client: Client) -> None:
    client.file.write_bytes(bytes(100_000))
    await server.fill_disk(40_000)
    code, output = await client.key(client.put("new.csv"))
    assert code != 0
    assert f'write remote "{server.folder}/new.csv": Failure' in output
    assert (server.inbox / "new.csv").stat().st_size == 40_000
    await server.make_room()
    code, output = await client.key(client.put("new.csv"))
    assert code == 0, output
    assert (server.inbox / "new.csv").stat().st_size == 100_000


async def test_openssh_full_disk_is_full_for_an_open_connection(server: OpenSsh, client: Client) -> None:
    first, second = server.inbox / "first", server.inbox / "second"
    async with client.running(client.put("first"), options=[]) as connected:
        await until(lambda: first.exists() and first.stat().st_size > 0, "the first put")
        await server.fill_disk()
        type_in(connected, client.put("second"))
        code, output = await finished(connected)
    assert code != 0
    assert f'write remote "{server.folder}/second": Failure' in output
    assert (first.read_bytes(), second.read_bytes()) == (client.file.read_bytes(), b"")


async def test_openssh_closed_folder_denies_a_put_until_it_is_opened(server: OpenSsh, client: Client) -> None:
    server.inbox.chmod(0o555)
    code, output = await client.key(client.put("new.csv"))
    assert code != 0
    assert f'open "{server.folder}/new.csv": Permission denied' in output
    server.inbox.chmod(0o755)
    code, output = await client.key(client.put("new.csv"))
    assert code == 0, output


async def test_openssh_refused_request_is_denied_and_others_are_not(tmp_path: Path) -> None:
    async with OpenSsh(tmp_path, refused=["remove", "rename"]) as server:
        client = Client(server, tmp_path)
        code, output = await client.key(client.put("new.csv"), f"rm {server.folder}/new.csv")
        assert code != 0
        assert "Permission denied" in output
    assert [path.name for path in server.inbox.iterdir()] == ["new.csv"]


async def test_openssh_missing_program_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **where: None if name == "sshd" else which(name, **where))
    with pytest.raises(RuntimeError, match="apt-get install openssh-server"):
        async with OpenSsh(tmp_path):
            pass
