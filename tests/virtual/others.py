"""Libraries that open sockets or read clocks past the loop, made to ask the loop while it exists.

aiohttp connects through aiohappyeyeballs and ages its idle connections on the machine's clock; paho, below aiomqtt,
connects on a thread and counts its keepalive on the machine's clock. The spool has a thread of its own.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohappyeyeballs
import aiohttp.connector
import paho.mqtt.client as paho

from gateway.storage.spool.spool import Spool
from tests.virtual.sockets import Network


@dataclass(slots=True, eq=False)
class _Loop:
    """What the libraries are given of one loop."""

    loop: asyncio.AbstractEventLoop
    network: Network
    holds: list[Callable[[], bool]]
    seeds: Iterator[int] = field(default_factory=lambda: itertools.count(1))


_loops: list[_Loop] = []
"""The loops that exist. They close in any order, and loops on the machine's time may run beside them."""
_originals: dict[str, Any] = {}


def install(loop: asyncio.AbstractEventLoop, network: Network, holds: list[Callable[[], bool]]) -> Callable[[], None]:
    """Returns what undoes it."""
    if not _loops:
        for owner, name, value in _wanted():
            _originals[name] = getattr(owner, name)
            setattr(owner, name, value)
    mine = _Loop(loop=loop, network=network, holds=holds)
    _loops.append(mine)
    random.seed(0)

    def undo() -> None:
        _loops.remove(mine)
        if not _loops:
            for owner, name, _ in _wanted():
                setattr(owner, name, _originals[name])

    return undo


def _asking() -> _Loop | None:
    """The loop that a library asks: the one that runs here or, on a thread, the one that waits for it. None: a loop on
    the machine's time."""
    try:
        running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    return next((one for one in _loops if (one.loop is running if running else one.loop.is_running())), None)


async def _start_connection(addr_infos: Any, **options: Any) -> Any:
    asking = _asking()
    if asking is None:
        return await _originals["start_connection"](addr_infos, **options)
    error: OSError | None = None
    for *_, address in addr_infos:
        if not asking.network.is_local(address[0]):
            await asyncio.get_running_loop().create_future()
        try:
            return asking.network.dial(address[0], address[1])
        except OSError as refused:
            error = refused
    raise error or OSError("no address")


def _create_socket_connection(client: Any) -> Any:
    asking = _asking()
    if asking is None:
        return _originals["_create_socket_connection"](client)
    return asking.network.dial(client._host, client._port)


def _clock(name: str) -> Callable[[], float]:
    def time_s() -> float:
        asking = _asking()
        return float(_originals[name]()) if asking is None else asking.loop.time()

    return time_s


async def _counted(spool: Spool) -> Spool:
    asking = _asking()
    if asking is not None:
        asking.holds.append(lambda: _writes(spool))
    entered: Spool = await _originals["__aenter__"](spool)
    return entered


class _Seeded(random.Random):
    """Jitter that nobody has seeded is the same in every run."""

    def __init__(self, x: Any = None) -> None:
        asking = _asking() if x is None else None
        super().__init__(x if asking is None else next(asking.seeds))


_CLOCKS = {name: _clock(name) for name in ("monotonic", "time_func")}


def _wanted() -> list[tuple[Any, str, Any]]:
    return [
        (random, "Random", _Seeded),
        (aiohappyeyeballs, "start_connection", _start_connection),
        (aiohttp.connector, "monotonic", _CLOCKS["monotonic"]),
        (Spool, "__aenter__", _counted),
        (paho, "time_func", _CLOCKS["time_func"]),
        (paho.Client, "_create_socket_connection", _create_socket_connection),
    ]


def _writes(spool: Spool) -> bool:
    """Whether its thread has records that will become durable by and by: not while it is held or fails."""
    return spool.last_record > spool.durable_record and spool.gate.is_set() and spool.stats.failing is None
