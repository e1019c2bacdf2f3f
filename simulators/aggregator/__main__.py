"""`python -m simulators.aggregator`: the aggregator on loopback, moved by its control endpoints."""

import argparse
import asyncio
import contextlib

from simulators.aggregator.permissions import Access, Environment
from simulators.aggregator.server import Aggregator

LOOK_S = 0.2


def main() -> None:
    """Serve until interrupted; the first line printed is the URL."""
    parser = argparse.ArgumentParser(prog="python -m simulators.aggregator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (any free one by default)")
    parser.add_argument("--key", default="a-key-of-staging", help="key that opens everything")
    parser.add_argument("--foreign-key", default="a-key-of-production", help="key of the other environment: 403")
    asked = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(asked.port, asked.key, asked.foreign_key))


async def _serve(port: int, key: str, foreign_key: str) -> None:
    keys = {key: Access(), foreign_key: Access(environment=Environment.PRODUCTION)}
    async with Aggregator(keys=keys, meters={}, port=port) as aggregator:
        print(aggregator.url, flush=True)
        while True:
            aggregator.meter_jobs.settle()
            aggregator.meter_book.advance()
            await aggregator.deliver()
            await asyncio.sleep(LOOK_S)


if __name__ == "__main__":
    main()
