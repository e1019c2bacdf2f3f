"""Modbus: one poll of a device through our link, beside raw pymodbus with the same registers in the same requests.

Both poll the same peer in turn, every device from its own address and connection, all at once. Ours includes turns,
pacing, time-outs, checks and the raw values by name; raw pymodbus is the call and its words. `raw_x`: CPU of raw
pymodbus per poll / ours. The peer is another process that answers from a table; run with `--serve` it is this module.
"""

import argparse
import asyncio
import gc
import os
import resource
import statistics
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvloop
import yaml
from pymodbus.client import AsyncModbusTcpClient

from gateway.clock import SystemClock
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.links.modbus.link import ModbusLink, ModbusLinks
from gateway.ports.links import PointTarget
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.loader import parse_profile
from tests.bench.rig import PEER_CPU, Meter, aim, pin, report, rss_kib

POINTS = 30
REGISTER = 100
ADDRESSES_PER_NET = 250
CONNECTING_MAX = 64
FILES_SPARE = 500
NAMES = tuple(f"p{i}" for i in range(POINTS))

Poll = Callable[[], Awaitable[object]]


class Answering(asyncio.Protocol):
    """Answers reads of up to 125 registers; nothing is checked, nothing is computed per word."""

    BODIES = tuple(struct.pack(f">HBBB{n}H", 3 + 2 * n, 1, 3, 2 * n, *range(n)) for n in range(126))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        out = []
        at = 0
        while len(data) - at >= 12:
            out.append(data[at : at + 4] + self.BODIES[data[at + 11]])
            at += 12
        self.rest = data[at:]
        if out:
            self.transport.write(b"".join(out))  # type: ignore[attr-defined]


async def serve(cpu: int | None) -> None:
    """The peer: prints its port and answers until killed."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    files_allowed()
    server = await asyncio.get_running_loop().create_server(Answering, "0.0.0.0", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def files_allowed() -> int:
    """Raise the limit of open files as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@asynccontextmanager
async def peer() -> AsyncIterator[int]:
    cpu = ["--cpu", str(PEER_CPU)] if (os.cpu_count() or 1) > 1 else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.modbus", "--serve", *cpu, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int(await asyncio.wait_for(process.stdout.readline(), 120))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def document() -> ProfileDocument:
    """A product of `POINTS` contiguous registers, as one poll reads them."""
    points = {name: {"register": REGISTER + i, "type": "u16"} for i, name in enumerate(NAMES)}
    points["p0"] |= {"unit": "W"}
    points["p1"] |= {"unit": "%"}
    battery = {"sign": "discharge_positive", "measured_at": "battery_ac", "range": [-9000, 9000]}
    facts = {"command_latency_s": 5, "standby_w": 30, "soc_uncertainty_pct": 5}
    text = yaml.safe_dump(
        {
            "language": 1,
            "profile": "bench",
            "maker": "Sample",
            "product": "Battery",
            "evidence": {"tag": "documented", "source": "made up"},
            "transport": "modbus",
            "facts": facts | {"efficiency_discharge": 0.95, "efficiency_charge": 0.95},
            "modbus": {"units": {"main": 1}, "timeout_s": 30},
            "identity": {"rules": [{"point": "p1", "above": -1}]},
            "points": points,
            "readings": {"battery_w": {"point": "p0"} | battery, "soc_pct": {"point": "p1", "range": [0, 100]}},
        }
    )
    return parse_profile(text, name="bench.yaml")


def host(i: int) -> str:
    """Each device has its own address on the loopback network."""
    return f"127.0.{1 + i // ADDRESSES_PER_NET}.{1 + i % ADDRESSES_PER_NET}"


async def all_of(jobs: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Run all, a bounded number at a time."""
    gate = asyncio.Semaphore(CONNECTING_MAX)

    async def one(job: Callable[[], Awaitable[object]]) -> None:
        async with gate:
            await job()

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(one(job))


async def our_links(links: ModbusLinks, port: int, n: int) -> list[ModbusLink]:
    made = document()
    out = [
        links.link(
            PointTarget(
                device=DeviceId(f"home-{i:06d}"),
                connection=DeviceConnection(url=f"modbus://{host(i)}:{port}"),
                secret="",
                document=made,
                points=made.points,
            )
        )
        for i in range(n)
    ]
    await all_of([link.open for link in out])
    return out


async def raw_clients(port: int, n: int) -> list[AsyncModbusTcpClient]:
    out = [
        AsyncModbusTcpClient(host(i), port=port, timeout=30, retries=0, reconnect_delay=0, reconnect_delay_max=0)
        for i in range(n)
    ]
    await all_of([client.connect for client in out])
    return out


def our_poll(link: ModbusLink) -> Poll:
    async def poll() -> object:
        return await link.read(NAMES)

    return poll


def raw_poll(client: AsyncModbusTcpClient) -> Poll:
    async def poll() -> object:
        return await client.read_holding_registers(REGISTER, count=POINTS, device_id=1)

    return poll


async def loaded(polls: Sequence[Poll], each: int) -> tuple[float, float]:
    """(wall s, CPU us per poll) of every device polled `each` times, one after the other, all devices at once."""

    async def device(poll: Poll) -> None:
        for _ in range(each):
            await poll()

    gc.collect()
    meter = Meter()
    async with asyncio.TaskGroup() as group:
        for poll in polls:
            group.create_task(device(poll))
    wall, cpu = meter.stop()
    return wall, cpu / (each * len(polls)) * 1e6


async def size(port: int, n: int, *, polls: int, rounds: int) -> dict[str, Any]:
    """Both in turn at one number of connections; the middle of the rounds counts."""
    links = ModbusLinks(SystemClock())
    gc.collect()
    before = rss_kib()
    ours = await our_links(links, port, n)
    our_polls = [our_poll(link) for link in ours]
    await loaded(our_polls, 1)
    between = rss_kib()
    clients = await raw_clients(port, n)
    raw_polls = [raw_poll(client) for client in clients]
    await loaded(raw_polls, 1)
    after = rss_kib()
    links.stats.points = links.stats.requests = 0
    each = max(polls // n, 1)
    found = [(await loaded(raw_polls, each), await loaded(our_polls, each)) for _ in range(rounds)]
    expected = {name: (i,) for i, name in enumerate(NAMES)}
    assert await ours[-1].read(NAMES) == expected
    await links.close()
    for client in clients:
        client.close()
    cpu_us = statistics.median(our[1] for _, our in found)
    return {
        "n": n,
        "polls": each * n * rounds,
        "seconds": round(sum(our[0] for _, our in found), 4),
        "cpu_us_per_item": round(cpu_us, 3),
        "items_per_s": round(each * n * rounds / sum(our[0] for _, our in found)),
        "raw_cpu_us_per_item": round(statistics.median(raw[1] for raw, _ in found), 3),
        "raw_x": round(statistics.median(raw[1] / our[1] for raw, our in found), 3),
        "points_per_request": round(links.stats.points / links.stats.requests, 2),
        "rss_kib_per_item": round((between - before) / n, 2),
        "raw_rss_kib_per_item": round((after - between) / n, 2),
        "failures": links.stats.timeouts + links.stats.reply_errors + links.stats.lost,
    }


async def run(*, quick: bool, sizes: tuple[int, ...] = (100, 1_000, 5_000)) -> dict[str, Any]:
    pin()
    room = (files_allowed() - FILES_SPARE) // 2
    polls, rounds = (5_000, 1) if quick else (50_000, 5)
    async with peer() as port:
        found = [await size(port, min(n, room), polls=polls, rounds=rounds) for n in sizes]
    ratio = min(entry["raw_x"] for entry in found)
    return report(
        "modbus",
        sizes=found,
        ratios={"raw_x": ratio},
        aims={
            "raw_x": aim(ratio, least=0.8),
            "rss_kib_per_device": aim(found[-1]["rss_kib_per_item"], most=40.0),
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true", required=True)
    parser.add_argument("--cpu", type=int)
    uvloop.run(serve(parser.parse_args().cpu))
