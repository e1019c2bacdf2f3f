"""A real OpenSSH server for tests: SFTP and nothing else, on loopback, for one account that it alone knows.

The account logs in with its key or its password. `libnss_wrapper`, preloaded into sshd, answers for the account files,
and sshd checks the password itself (`UsePAM no`): no account of the machine is read or touched.

A root process serves the account under a plain uid, in a chroot: the client sees `/interval-data`. A plain user can
neither change uid nor chroot: the account gets that user's own uid, starts in `root` and sees the machine's own paths.
`folder` is the client's path either way. What is missing on the machine raises RuntimeError, which fails a test.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from simulators.processes import Child, free_port, wait_port
from tests.builders import process_tree

PASSWORD = "api-key"
_ACCOUNT_ID = 65_534
_SEPARATED_ID = 65_533
_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {host_key}
PidFile none
LogLevel VERBOSE
UsePAM no
PasswordAuthentication yes
KbdInteractiveAuthentication no
AuthorizedKeysFile none
AuthorizedKeysCommand {cat} {client_key}.pub
AuthorizedKeysCommandUser keeper
DisableForwarding yes
PermitTTY no
Subsystem sftp internal-sftp
ForceCommand internal-sftp {sftp}
ChrootDirectory {chroot}
"""


class OpenSsh:
    """One sshd; all it needs lies in `directory`. `refused`: SFTP requests that it denies, by the names of
    `sftp-server -Q requests`, such as `remove`."""

    def __init__(
        self, directory: Path, *, user: str = "partner", password: str = PASSWORD, refused: Sequence[str] = ()
    ) -> None:
        self.user = user
        self.password = password
        self.port = 0
        self.root = directory / "served"
        self.inbox = self.root / "interval-data"
        self.client_key = directory / "client_key"
        self.log = directory / "sshd.log"
        self._directory = directory
        self._refused = refused
        self._as_root = os.geteuid() == 0
        self.folder = "/interval-data" if self._as_root else str(self.inbox)
        self._chroot = "none"
        self._child = Child("sshd", [], self.log)
        self._resources = contextlib.AsyncExitStack()

    @property
    def known_hosts(self) -> str:
        """The line of a `known_hosts` file for the server's own key; an impostor's key is another."""
        return f"[127.0.0.1]:{self.port} {self._host_key.with_suffix('.pub').read_text(encoding='ascii')}"

    async def __aenter__(self) -> Self:
        self._prepare()
        async with contextlib.AsyncExitStack() as resources:
            if self._as_root:
                # sshd wants all folders above a chroot closed to others, which /tmp is not; above a descriptor is none.
                root = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
                resources.callback(os.close, root)
                self._chroot = f"/proc/{os.getpid()}/fd/{root}"
            resources.push_async_callback(self.stop)
            await self.start()
            self._resources = resources.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    async def start(self, *, new_host_key: bool = False) -> None:
        """Starts and waits until it listens: the same port, the same keys. `new_host_key`: an impostor's, this once."""
        key = self._host_key
        if new_host_key:
            key = self._directory / "impostor_key"
            key.unlink(missing_ok=True)
            _make_key(key)
        self._child.command = self._command(self._write_config(key))
        await self._child.start()
        await wait_port(self.port, alive=self._child)

    async def stop(self) -> None:
        """Kills the server and every connection, without a goodbye."""
        await process_tree.kill(await process_tree.freeze(self._pid))
        await self._child.kill()

    async def cut(self) -> None:
        """Kills every connection, in whatever it does; the server stays and listens."""
        _, *connections = await process_tree.freeze(self._pid)
        await process_tree.kill(connections)
        process_tree.thaw(self._pid)

    async def freeze(self) -> None:
        """Server and connections do nothing more until `thaw`; the system still accepts new connections for them."""
        await process_tree.freeze(self._pid)

    def thaw(self) -> None:
        process_tree.thaw(self._pid)

    async def fill_disk(self, left_bytes: int = 0) -> None:
        """No file grows beyond `left_bytes`, on open connections too, until `make_room` or the next start. The client
        hears what it would hear of a full disk, for which SFTP 3 has no word: `Failure`."""
        await self._limit_files(str(left_bytes))

    async def make_room(self) -> None:
        await self._limit_files("unlimited")

    @property
    def _pid(self) -> int:
        """Of the server while it runs, else 0, which is nobody's."""
        process = self._child.process
        return 0 if process is None or process.returncode is not None else process.pid

    @property
    def _host_key(self) -> Path:
        return self._directory / "host_key"

    def _prepare(self) -> None:
        self.port = free_port()
        self.inbox.mkdir(parents=True)
        uid, gid = (_ACCOUNT_ID, _ACCOUNT_ID) if self._as_root else (os.geteuid(), os.getegid())
        if self._as_root:
            # sshd shuts its unprivileged half up here; Debian's service makes it, and is never started.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
            self.root.chmod(0o755)
            os.chown(self.inbox, uid, gid)
        _make_key(self._host_key)
        _make_key(self.client_key)
        hashed = _run(_program("openssl", "openssl"), "passwd", "-6", "-stdin", typed=self.password).strip()
        # `keeper` reads the account's public key for sshd: pytest's directories are closed to the account itself.
        self._write(
            "passwd",
            f"keeper:x:{os.geteuid()}:{os.getegid()}::/:/bin/sh",
            f"sshd:x:{_SEPARATED_ID}:{_SEPARATED_ID}::/run/sshd:/usr/sbin/nologin",
            f"{self.user}:x:{uid}:{gid}::/:/bin/sh",
        )
        self._write("group", f"keeper:x:{os.getegid()}:", f"{self.user}:x:{gid}:")
        self._write("shadow", f"{self.user}:{hashed}:1:0:99999:7:::")
        self._child.env = {
            "LD_PRELOAD": _nss_wrapper(),
            "NSS_WRAPPER_PASSWD": str(self._directory / "passwd"),
            "NSS_WRAPPER_GROUP": str(self._directory / "group"),
            "NSS_WRAPPER_SHADOW": str(self._directory / "shadow"),
        }

    def _command(self, config: Path) -> list[str]:
        sshd = [_program("sshd", "openssh-server"), "-D", "-e", "-f", str(config)]
        # From 9.8 on, sshd turns away addresses that failed to log in; tests share one. Older ones lack the option.
        lenient = [*sshd, "-o", "PerSourcePenalties=no"]
        known = subprocess.run([*lenient, "-t"], check=False, capture_output=True, timeout=60).returncode == 0
        # The signal of a write beyond the limit of `fill_disk` would kill; ignored, the write fails.
        return [_program("env", "coreutils"), "--ignore-signal=XFSZ", *(lenient if known else sshd)]

    def _write_config(self, host_key: Path) -> Path:
        sftp = ["-P", ",".join(self._refused)] if self._refused else []
        sftp += [] if self._as_root else ["-d", str(self.root)]
        text = _CONFIG.format(
            port=self.port, host_key=host_key, cat=_program("cat", "coreutils"), client_key=self.client_key,
            sftp=" ".join(sftp), chroot=self._chroot,
        )  # fmt: skip
        return self._write("sshd_config", text)

    def _write(self, name: str, *lines: str) -> Path:
        path = self._directory / name
        path.touch(mode=0o600)
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return path

    async def _limit_files(self, size: str) -> None:
        for process in await process_tree.freeze(self._pid):
            if process.state != "Z":
                _limit_files(process, size)
        self.thaw()


def _program(name: str, package: str) -> str:
    """Its absolute path, also where a plain user's PATH does not look."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise RuntimeError(f"{name} is not installed (Debian: apt-get install {package})")
    return path


def _nss_wrapper() -> str:
    for path in sorted(Path("/usr/lib").glob("*/libnss_wrapper.so")):
        return str(path)
    raise RuntimeError("libnss_wrapper is not installed (Debian: apt-get install libnss-wrapper)")


def _run(*command: str, typed: str = "") -> str:
    return subprocess.run(command, input=typed, check=True, capture_output=True, text=True, timeout=60).stdout


def _limit_files(process: process_tree.Process, size: str) -> None:
    """As the process's own user: in a container root may not limit others."""
    subprocess.run(
        [_program("prlimit", "util-linux"), f"--pid={process.pid}", f"--fsize={size}:"],
        user=process.uid, group=process.gid, check=True, timeout=60,
    )  # fmt: skip


def _make_key(path: Path) -> None:
    _run(_program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", str(path))
