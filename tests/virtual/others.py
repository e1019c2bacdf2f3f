"""Libraries that open sockets or read clocks past the loop, made to ask the loop while it exists.

aiohttp connects through aiohappyeyeballs and ages its idle connections on the machine's clock; paho, below aiomqtt,
connects on a thread and counts its keepalive on the machine's clock. The spool has a thread of its own.
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import aiohappyeyeballs
import aiohttp.connector
import paho.mqtt.client as paho

from gateway.storage.spool.spool import Spool
from tests.virtual.sockets import LocalSocket, Network


def install(network: Network, time_s: Callable[[], float], holds: list[Callable[[], bool]]) -> Callable[[], None]:
    """Returns what undoes it."""

    async def start_connection(addr_infos: Any, **_: Any) -> LocalSocket:
        error: OSError | None = None
        for *_, address in addr_infos:
            if not network.is_local(address[0]):
                await asyncio.get_running_loop().create_future()
            try:
                return network.dial(address[0], address[1])
            except OSError as refused:
                error = refused
        raise error or OSError("no address")

    def create_socket_connection(client: Any) -> LocalSocket:
        return network.dial(client._host, client._port)

    enter = Spool.__aenter__

    async def counted(spool: Spool) -> Spool:
        holds.append(lambda: _writes(spool))
        return await enter(spool)

    class Seeded(random.Random):
        """Jitter that nobody has seeded is the same in every run."""

        def __init__(self, x: Any = None) -> None:
            super().__init__(next(seeds) if x is None else x)

    seeds = itertools.count(1)
    random.seed(0)
    wanted: list[tuple[Any, str, Any]] = [
        (random, "Random", Seeded),
        (aiohappyeyeballs, "start_connection", start_connection),
        (aiohttp.connector, "monotonic", time_s),
        (Spool, "__aenter__", counted),
        (paho, "time_func", time_s),
        (paho.Client, "_create_socket_connection", create_socket_connection),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
    for owner, name, value in wanted:
        setattr(owner, name, value)

    def undo() -> None:
        for owner, name, value in before:
            setattr(owner, name, value)

    return undo


def _writes(spool: Spool) -> bool:
    """Whether its thread has records that will become durable by and by: not while it is held or fails."""
    return spool.last_record > spool.durable_record and spool.gate.is_set() and spool.stats.failing is None
