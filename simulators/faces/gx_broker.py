"""The MQTT broker inside a GX: mosquitto where it is installed, the stand-in otherwise; it dies with the product.

mosquitto speaks MQTT 3.1.1 and 5 as the product's own broker (FlashMQ) does; the stand-in only 5. Nothing is kept on
disk, so retained messages are gone after a reboot.
"""

import asyncio
import contextlib
import getpass
import tempfile
from collections.abc import Callable
from pathlib import Path

from simulators.broker import Broker
from simulators.processes import Child, find_mosquitto, free_port, wait_port

AGAIN_S = 0.05


class GxBroker:
    """`kind`: auto | mosquitto | standin. `away()` = it is to stay down for now; `boot_s`: how long a restart takes."""

    def __init__(self, *, kind: str = "auto", away: Callable[[], bool], boot_s: float = 0.1) -> None:
        self._mosquitto = None if kind == "standin" else find_mosquitto()
        if kind == "mosquitto" and self._mosquitto is None:
            raise RuntimeError("mosquitto is not installed (Debian: apt-get install mosquitto)")
        self._away = away
        self._boot_s = boot_s
        self._dropped = asyncio.Event()
        self._child: Child | None = None
        self._standin: Broker | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, port: int) -> None:
        self.port = port
        await self._up()
        self._task = asyncio.create_task(self._keep(), name=f"GX broker {self.port}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._down()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def drop(self) -> None:
        """Die now, every connection with it; come back by itself."""
        if self._child is not None:
            self._child.send(9)
        self._dropped.set()

    async def _keep(self) -> None:
        while True:
            await self._dropped.wait()
            await self._down()
            self._dropped.clear()
            await asyncio.sleep(self._boot_s)
            while self._away():
                await asyncio.sleep(AGAIN_S)
            await self._up()

    async def _up(self) -> None:
        if self._mosquitto is None:
            self._standin = Broker(self.port)
            await self._standin.__aenter__()
            self.port = self._standin.port
            return
        self.port = self.port or free_port()
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="gx-")
        directory = Path(self._directory.name)
        conf = directory / "mosquitto.conf"
        lines = (f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence false", "set_tcp_nodelay true")
        conf.write_text("\n".join((f"user {getpass.getuser()}", *lines, "")), encoding="utf-8")
        self._child = Child("GX broker", [self._mosquitto, "-c", str(conf)], directory / "log")
        await self._child.start()
        await wait_port(self.port, alive=self._child)

    async def _down(self) -> None:
        if self._child is not None:
            await self._child.kill()
            self._child = None
        if self._standin is not None:
            await self._standin.__aexit__(None, None, None)
            self._standin = None
