"""A small MQTT 5 broker: a stand-in for demos and tests on machines without mosquitto, and nothing more.

It listens on loopback only and keeps nothing on disk: sessions, queues and retained messages end with the process.
MQTT 5 only, QoS 0 and 1, no shared subscriptions, no topic aliases, no TLS. `python -m simulators.broker --port N`
prints `ready <port>` once it listens; `--log-acks FILE` appends one JSON line per PUBACK that it receives.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from simulators.broker_core import Delivery, Stats
from simulators.broker_hub import Hub, User
from simulators.broker_wire import Wire

__all__ = ["AckLog", "Broker", "User"]

MAX_PACKET_BYTES = 65_536
QUEUE_MAX = 1_000_000
SWEEP_S = 0.2


class AckLog:
    """One JSON line per PUBACK of clients whose id starts with `prefix`, on the file by the end of the loop's turn."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._file: IO[str] = path.open("a", encoding="utf-8", buffering=1 << 20)
        self._prefix = prefix
        self._due = False

    def add(self, client_id: str, delivery: Delivery) -> None:
        if not client_id.startswith(self._prefix):
            return
        packet = delivery.message.packet
        line = {
            "client": client_id,
            "topic": packet.topic,
            "sha1": hashlib.sha1(packet.payload, usedforsecurity=False).hexdigest(),
            "payload": packet.payload.decode("utf-8", "backslashreplace"),
        }
        self._file.write(json.dumps(line) + "\n")
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._due = False
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        self._file.close()


class Broker:
    """The broker in this process: `async with Broker() as broker:` listens on loopback port `broker.port`.

    `users` None = anybody may do anything; otherwise CONNECT must name one of them with its password.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        users: Mapping[str, User] | None = None,
        queue_max: int = QUEUE_MAX,
        receive_max: int = 65_535,
        max_packet_bytes: int = MAX_PACKET_BYTES,
        ack_log: AckLog | None = None,
    ) -> None:
        self.port = port
        self.hub = Hub(
            users=users,
            queue_max=queue_max,
            receive_max=receive_max,
            max_packet_bytes=max_packet_bytes,
            on_ack=ack_log.add if ack_log is not None else None,
        )
        self._ack_log = ack_log
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def stats(self) -> Stats:
        return self.hub.stats

    async def __aenter__(self) -> "Broker":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Wire(self.hub), "127.0.0.1", self.port, backlog=1024)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._sweep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.hub.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._ack_log is not None:
            self._ack_log.close()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self.hub.sweep(loop.time())
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)


async def serve(port: int, ack_log: AckLog | None) -> None:
    """Listen until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Broker(port, ack_log=ack_log) as broker:
        print(f"ready {broker.port}", flush=True)
        await stop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulators.broker", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="loopback port, 0 = any free one")
    parser.add_argument("--log-acks", type=Path, metavar="FILE", help="append one JSON line per PUBACK received")
    parser.add_argument("--log-client", default="", metavar="PREFIX", help="only of clients whose id starts so")
    args = parser.parse_args()
    ack_log = AckLog(args.log_acks, args.log_client) if args.log_acks is not None else None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(args.port, ack_log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
