"""What benches share: the peer process, CPU accounting, the report."""

import asyncio
import os
import platform
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

MEASURED_CPU = 0
PEER_CPU = 1
PACKAGES = ("mqtt5", "msgspec", "numpy", "uvloop", "aiomqtt", "pydantic", "orjson", "pymodbus")


def pin() -> None:
    """Keep the process under test on one core and its peers on the other, where there are two."""
    cpus = os.sched_getaffinity(0)
    if len(cpus) > 1:
        os.sched_setaffinity(0, {MEASURED_CPU})


@asynccontextmanager
async def peer(*args: str) -> AsyncIterator[int]:
    """The blaster as a process on the other core; gives its port."""
    cpu = ["--cpu", str(PEER_CPU)] if (os.cpu_count() or 1) > 1 else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.blaster", *args, *cpu, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 120)
        yield int(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass(slots=True)
class Meter:
    """Wall and CPU seconds (all threads of this process) between start and stop."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def stop(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def rss_kib() -> int:
    """Resident set of this process now, in KiB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def aim(value: float, *, most: float | None = None, least: float | None = None) -> dict[str, Any]:
    bound = most if most is not None else least
    met = value <= most if most is not None else least is not None and value >= least
    return {"aim": f"{'<=' if most is not None else '>='} {bound}", "value": round(value, 4), "met": met}


def report(
    bench: str, *, sizes: list[dict[str, Any]], ratios: dict[str, float], aims: dict[str, Any]
) -> dict[str, Any]:
    """The one JSON object a bench prints."""
    return {
        "bench": bench,
        "sizes": sizes,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "aims": aims,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }
