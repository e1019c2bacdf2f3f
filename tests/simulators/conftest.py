"""A mosquitto of one's own, on loopback."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulators.processes import free_port

CONFIG = "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\n"


class Mosquitto:
    """A broker that can be stopped and started again on the same port."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._config = directory / "mosquitto.conf"
        self.port = free_port()
        self._config.write_text(CONFIG.format(port=self.port))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it accepts connections; bounded."""
        self._process = subprocess.Popen([self._program, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except ConnectionRefusedError:
                if self._process.poll() is not None:
                    break
                try:
                    self._process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
            else:
                return
        raise RuntimeError("mosquitto did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto; skipped where there is none, except in CI."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("mosquitto is missing")
        pytest.skip("no mosquitto here")
    mosquitto = Mosquitto(program, tmp_path)
    mosquitto.start()
    yield mosquitto
    mosquitto.stop()
