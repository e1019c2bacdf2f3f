"""Whatever a part of the running gateway counts, a scrape shows: no loss is counted for nobody."""

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from gateway.app.daemon import gateway
from gateway.clock import SteadyClock, SystemClock
from gateway.config.loader import load_settings
from gateway.observability.metrics import Metrics
from tests.config.test_settings import write

ENDINGS = ("Stats", "Counts", "Health")
FIRST, STEP = 7_000_003, 10
TRIES = 3
PROFILES = Path(__file__).parents[2] / "device_profiles"
COMPUTED = {
    ("SinkStats", "oldest_ms"): "shown as an age",
    ("Health", "down"): "shown by /readyz, by name",
    ("Health", "bugs"): "times, for the budget of restarts",
    ("Health", "importance"): "declared by the service",
}


def counters() -> dict[int, Any]:
    """Everything alive that counts, by identity."""
    gc.collect()
    return {
        id(one): one
        for one in gc.get_objects()
        if type(one).__name__.endswith(ENDINGS) and type(one).__module__.startswith("gateway.") and is_dataclass(one)
    }


def scrapes() -> dict[int, Metrics]:
    return {id(one): one for one in gc.get_objects() if isinstance(one, Metrics)}


def numbers(one: Any) -> Iterator[tuple[str, object]]:
    """Its counts by field and, in tables, by key. A table that is empty gets a key."""
    for field in fields(one):
        value = getattr(one, field.name)
        if (type(one).__name__, field.name) in COMPUTED or isinstance(value, (bool, str, set)) or value is None:
            continue
        if isinstance(value, dict):
            yield from ((field.name, key) for key in list(value) or ["probe"])
        else:
            yield field.name, None


def put(one: Any, name: str, key: object, value: int) -> None:
    if key is None:
        setattr(one, name, value)
    else:
        getattr(one, name)[key] = value


async def unshown(metrics: Metrics, one: Any) -> list[str]:
    """The counts of `one` whose values no sample has."""
    left = list(numbers(one))
    for _ in range(TRIES):
        # a count that is set anew at every tick may be so before the scrape has come to it
        wanted = {FIRST + STEP * i: field for i, field in enumerate(left)}
        for value, (name, key) in wanted.items():
            put(one, name, key, value)
        text = (await metrics.text()).decode()
        shown = {float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if not line.startswith("#")}
        left = [field for value, field in wanted.items() if value not in shown]
        if not left:
            break
    return [f"{type(one).__name__}.{name}" + ("" if key is None else f"[{key}]") for name, key in left]


async def test_every_counter_of_the_running_gateway_is_in_a_scrape(tmp_path: Path) -> None:
    (tmp_path / "meters.csv").write_text("device,meter_id\n")
    (tmp_path / "token").write_text("nobody-asks-for-it")
    (tmp_path / "token").chmod(0o600)
    leap = {"kind": "leap_csv", "name": "leap", "url": "http://127.0.0.1:1", "token": f"file:{tmp_path / 'token'}",
            "meters": str(tmp_path / "meters.csv")}  # fmt: skip
    broker = {"url": "mqtt://127.0.0.1:1", "client_id": "platform"}
    settings = load_settings(
        write(
            tmp_path,
            http={"port": 0},
            sinks=[leap],
            platform={"broker": broker, "live_s": "30s"},
            intervals={"length_s": "15min"},
            profiles_dir=str(PROFILES),
        )
    )
    before, others = counters(), scrapes()
    async with gateway(settings, clock=SteadyClock(SystemClock())):
        await asyncio.sleep(0)
        (metrics,) = [one for at, one in scrapes().items() if at not in others]
        made = [one for at, one in counters().items() if at not in before]
        missing = sorted({name for one in made for name in await unshown(metrics, one)})
    assert {type(one).__name__ for one in made} >= {"SampleCounts", "SpoolStats", "IngestStats", "LogStats"}
    assert missing == []
