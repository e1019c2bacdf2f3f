"""A service manager's watchdog follows control: it hears of ticks, and nothing any more when they end."""

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from tests.e2e.rig import Daemon, eventually, running
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e


async def test_daemon_tells_its_service_manager_that_it_is_ready_that_control_goes_on_and_that_it_stops(
    tmp_path: Path,
) -> None:
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.bind(str(tmp_path / "notify"))
    ear.setblocking(False)
    heard: list[str] = []

    def listen() -> list[str]:
        while True:
            try:
                heard.append(ear.recv(4096).decode())
            except BlockingIOError:
                return heard

    async with standin_process(tmp_path) as broker:
        daemon = Daemon(tmp_path, broker.port)
        daemon.child.env |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
        async with running(daemon):
            await eventually(lambda: listen().count("WATCHDOG=1") >= 3, "control goes on")
            assert heard[0] == "READY=1"
            daemon.child.send(signal.SIGSTOP)
            await asyncio.sleep(0.2)
            before = len(listen())
            await asyncio.sleep(2.5)
            assert len(listen()) == before
            daemon.child.send(signal.SIGCONT)
            await eventually(lambda: len(listen()) > before, "control goes on again")
            assert await daemon.stop() == 0
            assert "STOPPING=1" in listen()[-1]
    ear.close()
