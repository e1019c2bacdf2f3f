"""Brokers as processes of their own: mosquitto as it is shipped with, and the stand-in.

mosquitto reads `deploy/mosquitto.conf` whole; only what a site adds itself follows it: listener, place of the
persistence file, user. `fleet_broker` adds the shipped listeners and access list as well. Without mosquitto a test is
skipped, and fails in CI.
"""

import getpass
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from simulators.processes import Child, find_mosquitto, free_port, wait_port

DEPLOY = Path(__file__).parents[2] / "deploy"
SHIPPED = DEPLOY / "mosquitto.conf"
TLS_FILES = ("cafile ", "certfile ", "keyfile ")
KINDS = ("mosquitto", "standin")


class BrokerProcess:
    """One broker that can be killed, frozen and started again on the same port."""

    def __init__(self, kind: str, port: int, child: Child) -> None:
        self.kind = kind
        self.port = port
        self.child = child

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start and wait until it listens."""
        await self.child.start()
        await wait_port(self.port, alive=self.child)

    async def kill(self) -> None:
        await self.child.kill()

    def freeze(self) -> None:
        self.child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.child.send(signal.SIGCONT)


def require_mosquitto() -> str:
    """Path of mosquitto; skips the test where there is none, fails it in CI."""
    path = find_mosquitto()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("mosquitto is missing")
        pytest.skip("no mosquitto here")
    return path


@asynccontextmanager
async def mosquitto_process(
    directory: Path, *, listener: Sequence[str] = (), port: int | None = None
) -> AsyncIterator[BrokerProcess]:
    """mosquitto with the shipped configuration; `listener` are more lines for its one listener (TLS, accounts)."""
    path = require_mosquitto()
    port = port or free_port()
    conf = directory / "mosquitto.conf"
    lines = [
        SHIPPED.read_text(encoding="utf-8"),
        f"user {getpass.getuser()}",
        f"persistence_location {directory}/",
        f"listener {port} 127.0.0.1",
        *(listener or ("allow_anonymous true",)),
        "",
    ]
    conf.write_text("\n".join(lines), encoding="utf-8")
    async with _running("mosquitto", port, [path, "-c", str(conf)], directory) as broker:
        yield broker


@asynccontextmanager
async def fleet_broker(directory: Path, *accounts: str) -> AsyncIterator[tuple[BrokerProcess, str]]:
    """mosquitto with the shipped configuration, listeners and access list: only ports and places of files are others,
    and TLS is left out. Its `url` is the listener of gateway and platform; beside it comes that of the devices. The
    password of each of `accounts` is its name."""
    path = require_mosquitto()
    port, devices_port = free_port(), free_port()
    conf = _fleet_files(directory, accounts, port=port, devices_port=devices_port)
    async with _running("mosquitto", port, [path, "-c", str(conf)], directory) as broker:
        yield broker, f"mqtt://127.0.0.1:{devices_port}"


def _fleet_files(directory: Path, accounts: Sequence[str], *, port: int, devices_port: int) -> Path:
    """Accounts, access list and configuration; the path of the last."""
    passwd, acl, conf = directory / "passwd", directory / "acl", directory / "mosquitto.conf"
    passwd.write_text("".join(f"{name}:{name}\n" for name in accounts), encoding="utf-8")
    subprocess.run(["mosquitto_passwd", "-U", str(passwd)], check=True, timeout=60)
    shutil.copy(DEPLOY / "mosquitto.acl", acl)
    for file in (passwd, acl):
        file.chmod(0o600)
    listeners = (DEPLOY / "mosquitto-listeners.conf").read_text(encoding="utf-8")
    for shipped, ours in {
        "password_file /etc/mosquitto/passwd": f"password_file {passwd}",
        "acl_file /etc/mosquitto/acl": f"acl_file {acl}",
        "\nlistener 8883": f"\nlistener {devices_port} 127.0.0.1",
        "\nlistener 1883 ": f"\nlistener {port} ",
    }.items():
        assert listeners.count(shipped) == 1, shipped
        listeners = listeners.replace(shipped, ours)
    lines = [line for line in listeners.splitlines() if not line.startswith(TLS_FILES)]
    own = [f"user {getpass.getuser()}", f"persistence_location {directory}/"]
    conf.write_text("\n".join([SHIPPED.read_text(encoding="utf-8"), *own, *lines, ""]), encoding="utf-8")
    return conf


@asynccontextmanager
async def standin_process(
    directory: Path, *, log_acks: Path | None = None, log_client: str = "", port: int | None = None
) -> AsyncIterator[BrokerProcess]:
    """The stand-in; `log_acks` gets a JSON line per PUBACK of clients whose id starts with `log_client`."""
    port = port or free_port()
    command = [sys.executable, "-m", "simulators.broker", "--port", str(port)]
    if log_acks is not None:
        command += ["--log-acks", str(log_acks), "--log-client", log_client]
    async with _running("standin", port, command, directory) as broker:
        yield broker


@asynccontextmanager
async def broker_process(kind: str, directory: Path) -> AsyncIterator[BrokerProcess]:
    """One of `KINDS`."""
    made = mosquitto_process(directory) if kind == "mosquitto" else standin_process(directory)
    async with made as broker:
        yield broker


@asynccontextmanager
async def _running(kind: str, port: int, command: list[str], directory: Path) -> AsyncIterator[BrokerProcess]:
    child = Child(kind, command, directory / f"{kind}.log")
    broker = BrokerProcess(kind, port, child)
    try:
        await broker.start()
        yield broker
    finally:
        await child.kill()
