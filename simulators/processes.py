"""Real processes for a run: the broker and the gateway, started, killed and restarted; every one ended by pid."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

START_S = 60.0
STOP_S = 60.0


_FIXED_PORTS = range(18_000, 32_000)
_given_out: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody listens on, that this process has not given out before, and that the system gives to
    nobody by itself: whoever is to listen there comes a while later."""
    while True:
        port = random.SystemRandom().choice(_FIXED_PORTS)
        if port in _given_out:
            continue
        _given_out.add(port)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def find_mosquitto() -> str | None:
    """Path of mosquitto, also where a plain user's PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


async def wait_port(port: int, *, alive: "Child", timeout_s: float = START_S) -> None:
    """Until somebody listens on loopback `port`; RuntimeError if the process ended first, TimeoutError if late."""
    async with asyncio.timeout(timeout_s):
        while True:
            alive.check()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await writer.wait_closed()
            return


@dataclass(slots=True)
class Child:
    """One process with its output in a file."""

    name: str
    command: list[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as file:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdout=file, stderr=file, stdin=asyncio.subprocess.DEVNULL, env=os.environ | self.env
            )

    def check(self) -> None:
        if self.process is not None and self.process.returncode is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}; see {self.log}")

    def send(self, number: int) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM, then SIGKILL after a while; the exit code."""
        if self.process is None:
            return 0
        self.send(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            await self.kill()
            return -int(signal.SIGKILL)


def broker(kind: str, port: int, directory: Path) -> Child:
    """mosquitto with the shipped configuration, or the stand-in. `kind`: mosquitto | standin | auto."""
    path = find_mosquitto()
    if kind == "mosquitto" and path is None:
        raise RuntimeError("mosquitto is not installed (Debian: apt-get install mosquitto)")
    log = directory / "broker.log"
    if kind == "standin" or path is None:
        return Child("broker", [sys.executable, "-m", "simulators.broker", "--port", str(port)], log)
    shipped = (Path(__file__).parents[1] / "deploy" / "mosquitto.conf").read_text(encoding="utf-8")
    conf = directory / "mosquitto.conf"
    lines = [line for line in shipped.splitlines() if not line.startswith(("persistence ", "autosave"))]
    conf.write_text("\n".join([*lines, f"listener {port} 127.0.0.1", "allow_anonymous true", ""]), encoding="utf-8")
    return Child("broker", [path, "-c", str(conf)], log)


def gateway(config: Path, directory: Path, *, release: bool = False) -> Child:
    """The daemon as an operator starts it."""
    command = [sys.executable, "-m", "gateway", "run", "--config", str(config)]
    if release:
        command.append("--release")
    return Child("gateway", command, directory / "gateway.log")


async def gateway_cli(directory: Path, *args: str, env: dict[str, str]) -> str:
    """Run one command of the gateway's command line to its end; RuntimeError with its words if it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *args,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=directory,
        env=os.environ | env,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    if process.returncode:
        raise RuntimeError(f"gateway {' '.join(args)}: {output.decode(errors='replace').strip()}")
    return output.decode(errors="replace")
