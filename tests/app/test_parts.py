"""Everything that runs is in one list: because it is there it is run, scraped, asked and closed."""

import ast
import asyncio
import inspect
import pkgutil
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import gateway.app
from gateway.app.daemon import Gateway
from gateway.app.daemon import gateway as running_gateway
from gateway.app.parts import RunningParts
from gateway.app.readiness import ReadinessWatch
from gateway.clock import SteadyClock, SystemClock
from gateway.config.loader import load_settings
from gateway.observability.metrics import Histogram, Sample, gauge, histogram
from gateway.observability.parts import Importance, Part
from gateway.services.runtime.supervisor import Supervisor
from tests.config.test_settings import write
from tests.scenes.waiting import until
from tests.virtual.clock import loop_clock

PROFILES = Path(__file__).parents[2] / "device_profiles"
SEEN = gauge("gateway_test_seen", "Seen.")
WAITS = histogram("gateway_test_waits_seconds", "Waits.")


class Lamp(Part):
    """A part that the gateway has never heard of. `told` is what happens to it."""

    component = "lamps"

    def __init__(self, name: str, told: list[str], *, closes: bool = True) -> None:
        self.service = name
        self.histograms = (Histogram(WAITS),)
        self._told = told
        self._closes = closes

    async def run(self) -> None:
        self._told.append(f"{self.service} runs")
        await asyncio.Event().wait()

    def samples(self) -> Iterator[Sample]:
        yield SEEN.sample(7)

    def reasons(self) -> list[str]:
        return [f"{self.service} is dark"]

    def warnings(self) -> list[str]:
        return [f"{self.service} flickers"]

    async def close(self) -> None:
        self._told.append(f"{self.service} closes")
        if not self._closes:
            raise OSError("stuck")


async def test_part_that_is_added_to_the_list_is_run_scraped_asked_and_closed() -> None:
    told: list[str] = []
    async with AsyncExitStack() as stack:
        parts = RunningParts(stack)
        watch = await parts.start(ReadinessWatch(parts))
        supervisor = await parts.start(Supervisor(rng=random.Random(1), clock=loop_clock()))
        await parts.start(Lamp("lamp", told))
        async with parts.running(supervisor):
            await until(lambda: told == ["lamp runs"])
            state, text = watch.now(), (await parts.metrics().text()).decode()
            assert set(supervisor.health) == {"readiness", "lamp"}
        assert told == ["lamp runs"]
    assert told == ["lamp runs", "lamp closes"]
    assert (state.reasons, state.warnings) == (["lamp is dark"], ["lamp flickers"])
    assert "gateway_test_seen 7.0" in text
    assert "gateway_test_waits_seconds_count 0" in text
    assert 'gateway_readiness_reasons{component="lamps",severity="critical"} 1.0' in text


async def test_parts_close_from_the_last_to_the_first_and_one_that_fails_keeps_no_other_from_it() -> None:
    told: list[str] = []
    with pytest.raises(OSError, match="stuck"):
        async with AsyncExitStack() as stack:
            parts = RunningParts(stack)
            for number in range(4):
                await parts.start(Lamp(f"lamp {number}", told, closes=number != 2))
    assert told == [f"lamp {number} closes" for number in (3, 2, 1, 0)]


class Locked(Lamp):
    """One that cannot be opened."""

    async def __aenter__(self) -> "Locked":
        raise OSError("locked")


async def test_part_that_cannot_be_opened_is_not_in_the_list_and_the_others_close() -> None:
    told: list[str] = []
    with pytest.raises(OSError, match="locked"):
        async with AsyncExitStack() as stack:
            parts = RunningParts(stack)
            await parts.start(Lamp("first", told))
            try:
                await parts.start(Locked("second", told))
            finally:
                assert [part.service for part in parts] == ["first"]
    assert told == ["first closes"]


# -- the parts of the gateway ------------------------------------------------------------------------------------


@asynccontextmanager
async def everything(directory: Path) -> AsyncIterator[Gateway]:
    """A gateway in which every part is configured that there is; nobody answers it."""
    (directory / "meters.csv").write_text("device,meter_id\n")
    (directory / "token").write_text("nobody-asks-for-it")
    (directory / "token").chmod(0o600)
    (directory / "personal").write_text("A" * 43 + "=")
    (directory / "personal").chmod(0o600)
    sinks: list[dict[str, Any]] = [
        {"kind": "leap_csv", "name": "leap", "url": "http://127.0.0.1:1", "token": f"file:{directory / 'token'}",
         "meters": str(directory / "meters.csv")},
        {"kind": "http", "name": "web", "url": "http://127.0.0.1:1/intervals"},
        {"kind": "mqtt", "name": "platform"},
    ]  # fmt: skip
    broker = {"url": "mqtt://127.0.0.1:1", "client_id": "platform"}
    settings = load_settings(
        write(
            directory, http={"port": 0}, sinks=sinks, platform={"broker": broker, "live_s": "30s"},
            intervals={"length_s": "15min"}, profiles_dir=str(PROFILES), programs={"p": {}},
            customers={"personal_key": f"file:{directory / 'personal'}"},
            tickets={"url": "http://127.0.0.1:1/hook", "secret": f"file:{directory / 'token'}"},
            leap={"account": {"environment": "staging", "key": f"file:{directory / 'token'}", "url": "http://127.0.0.1:1"}},
            signals={"leap": {"secret": f"file:{directory / 'token'}"}},
        )
    )  # fmt: skip
    async with running_gateway(settings, clock=SteadyClock(SystemClock())) as running:
        yield running


def made_by_the_root() -> set[type]:
    """Every class with `run` that a module of `app` calls by its name."""
    found: set[type] = set()
    for info in pkgutil.iter_modules(gateway.app.__path__, "gateway.app."):
        module = import_module(info.name)
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                made = getattr(module, node.func.id, None)
                if inspect.isclass(made) and inspect.iscoroutinefunction(getattr(made, "run", None)):
                    found.add(made)
    return found


async def test_everything_that_runs_and_that_the_root_makes_is_in_the_list(tmp_path: Path) -> None:
    async with everything(tmp_path) as running:
        listed = {type(part) for part in running.parts}
    made = made_by_the_root()
    assert {kind.__name__ for kind in made} >= {"PolledDevices", "Reports", "SinkDelivery", "HttpSink", "Door"}
    # it stands for those that record where they cannot: see `test_recording`
    assert {orphan.__name__ for orphan in made - listed} == {"LiveOnly"}


SPARE = {"leap-sync", "money", "data-completeness", "meter-mismatches", "access-refusals", "fact-trail", "retention",
         "live", "repair", "reports", "loop-lag", "readiness", "delivery-leap", "delivery-web", "delivery-platform",
         "broker-sessions", "leap-registration", "leap-nominations", "official-hours", "tickets"}  # fmt: skip
NEEDED = {"access", "departures", "door", "link-mqtt", "link-topics", "sessions", "timekeeper", "platform",
          "log-writer", "checkpoint", "raw-replay", "webhooks",
          "leap-dispatch", "leap-catch-up"}  # fmt: skip


async def test_services_say_themselves_what_their_failure_means(tmp_path: Path) -> None:
    async with everything(tmp_path) as running:
        said = [(part.service, part.importance) for part in running.parts if part.service]
    assert len(dict(said)) == len(said), "no two parts of the list are one service"
    of = {kind: {service for service, importance in said if importance is kind} for kind in Importance}
    assert of == {
        Importance.SPARE: SPARE,
        Importance.NEEDED: NEEDED,
        Importance.ESSENTIAL: {"put-away", "ingest", "recorder"},
        Importance.VITAL: {"control"},
    }


COMPONENTS = ["gateway", "release-only", "programs", "money", "devices", "services", "mqtt", "control", "upstream",
              "telemetry", "leap"]  # fmt: skip


async def test_readiness_counts_by_the_components_that_parts_name(tmp_path: Path) -> None:
    async with everything(tmp_path) as running:
        assert list(dict.fromkeys(part.component for part in running.parts)) == COMPONENTS
        state = running.readiness.now()
    assert {f"MQTT {name}: not connected" for name in ("control", "telemetry", "platform")} <= set(state.reasons)
    assert "devices: none is registered" in state.warnings


ORDER = ["SqliteJournal", "MqttLink", "PolledDevices", "ControlLoop", "PlatformSignal", "IntervalLog", "HttpSink",
         "Spool", "Recorder", "Checkpointer", "PendingChanges", "Door"]  # fmt: skip


async def test_gateway_starts_in_its_order_and_closes_in_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = Part.__aexit__
    told: list[str] = []

    async def leave(part: Part, *error: object) -> None:
        told.append(type(part).__name__)
        await closed(part, *error)

    monkeypatch.setattr(Part, "__aexit__", leave)
    async with everything(tmp_path) as running:
        parts = [type(part).__name__ for part in running.parts]
        assert told == []
    assert [name for name in parts if name in ORDER] == ORDER
    assert told == parts[::-1]
