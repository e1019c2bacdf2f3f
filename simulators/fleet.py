"""Simulated homes that live until they are stopped, for trying a gateway against: on a broker, and on sockets of their
own where their product is polled."""

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from simulators.clock import RealClock
from simulators.firmware import FirmwareFleet
from simulators.homes import make_homes
from simulators.inventory import write_environment, write_inventory
from simulators.polled import PolledHomes

CONNECT_S = 10.0
LIVE_S, ENERGY_S = 1.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """`devices` homes on the broker at `url`, the last of them polled: `each` of every product. The inventory that
    enrolls them is written to `inventory`, the secrets it refers to beside it (`.env`)."""

    devices: int
    each: int
    url: str
    inventory: Path
    seed: int = 7


async def live(options: FleetOptions) -> None:
    """Run the homes until SIGINT or SIGTERM. Raises RuntimeError if no broker answers, OSError if a file cannot be
    written."""
    homes = make_homes(options.devices, options.seed)
    fleet = FirmwareFleet(homes, options.url, RealClock(), live_s=LIVE_S, energy_s=ENERGY_S, record_s=1)
    polled = PolledHomes(fleet, each=options.each, broker_url=options.url)
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(polled.stop)
        await polled.start()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = tasks.create_task(fleet.run(), name="fleet")
        stack.callback(running.cancel)
        stopping = tasks.create_task(stopped.wait(), name="until stopped")
        stack.callback(stopping.cancel)
        connected = tasks.create_task(_connected(fleet), name="connecting")
        stack.callback(connected.cancel)
        await asyncio.wait((connected, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stopped.is_set():
            return
        if not connected.result():
            raise RuntimeError(f"no broker answers at {options.url}")
        _write(options, fleet, polled)
        await stopped.wait()


async def _connected(fleet: FirmwareFleet) -> bool:
    try:
        await fleet.wait_connected(CONNECT_S)
    except TimeoutError:
        return False
    return True


def _write(options: FleetOptions, fleet: FirmwareFleet, polled: PolledHomes) -> None:
    write_inventory(options.inventory, fleet.devices.homes, fleet.devices.batteries.reserve_pct, polled)
    secrets = options.inventory.with_suffix(".env")
    write_environment(secrets, polled.environment())
    products = f", {len(polled.faces)} of them on sockets of their own ({', '.join(polled.products)})"
    print(f"{options.devices} homes live on {options.url}{products if polled.faces else ''}")
    print(f"inventory: {options.inventory}   (gateway devices import {options.inventory})")
    if polled.faces:
        print(f"secrets:   {secrets}   (set -a; . {secrets}; set +a, before the gateway starts)")
    print("stop with Ctrl-C", flush=True)
