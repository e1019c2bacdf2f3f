"""The daemon as an operator runs it, for tests: a scratch directory, one configuration file, processes ended by pid."""

import asyncio
import csv
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from simulators import processes
from simulators.battery import Batteries
from simulators.faces.plant import Face, Plant
from tests.builders.homes import homes

F = TypeVar("F", bound=Face)

PROFILES = Path(__file__).parents[2] / "device_profiles"
CEILING_S = 60.0
MAY = "true,true,true,unlimited,unlimited"
POLL_S = 0.02
INVENTORY = (
    "id,profile,site,feeder,tags,capacity_wh,discharge_w_max,charge_w_max,reserve_pct,export_allowed,"
    "grid_charge_allowed,fuse_protected,site_import_w_max,site_export_w_max"
)


async def eventually(
    condition: Callable[[], bool], what: str, *, timeout_s: float = CEILING_S, alive: processes.Child | None = None
) -> None:
    """Until `condition` holds; fails in words after a generous while, or at once when `alive` has ended."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if alive is not None:
            alive.check()
        assert asyncio.get_running_loop().time() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


@asynccontextmanager
async def battery(product: Callable[[Plant], F]) -> AsyncIterator[tuple[F, str]]:
    """A home's battery behind the face of a product, in real time; and the URL at which it answers."""
    batteries = Batteries(homes(1, soc_start_pct=70.0, pv_peak_w=0.0), guard=False, time_s=12 * 3600.0)
    face = product(Plant(batteries, 0))
    connection = await face.start()

    async def world() -> None:
        while True:
            await asyncio.sleep(0.1)
            face.step(0.1)
            batteries.step(0.1)

    async with asyncio.TaskGroup() as group:
        time = group.create_task(world(), name="world")
        try:
            yield face, connection.url
        finally:
            time.cancel()
            await face.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the daemon answered."""

    status: int
    body: Any


def inventory_csv(ids: Sequence[str]) -> str:
    """Homes that may do everything, one battery of 5 kW and 10 kWh each."""
    rows = [f"{name},reference-mqtt,site-{name},,,10000,5000,5000,20,{MAY}" for name in ids]
    return "\n".join([INVENTORY, *rows]) + "\n"


def utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat()


def now_ms() -> int:
    return round(datetime.now(tz=UTC).timestamp() * 1000)


def event(name: str, *, start_ms: int, end_ms: int, target_w: float | None, **other: Any) -> dict[str, object]:
    """A dispatch event to everybody."""
    return {
        "id": name,
        "revision": 1,
        "program": "test",
        "group": {"all": True},
        "start": utc(start_ms),
        "end": utc(end_ms),
        "target_w": target_w,
        **other,
    }


@dataclass(slots=True)
class Daemon:
    """One gateway process over one state directory; `change` what differs from the plain configuration."""

    directory: Path
    broker_port: int
    change: Mapping[str, Any] = field(default_factory=dict)
    release: bool = False
    http_port: int = field(default_factory=processes.free_port)
    child: processes.Child = field(init=False)

    def __post_init__(self) -> None:
        self.write_config()
        self.child = processes.gateway(self.config, self.directory, release=self.release)

    @property
    def config(self) -> Path:
        return self.directory / "gateway.yaml"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def write_config(self) -> None:
        broker = {
            "url": f"mqtt://127.0.0.1:{self.broker_port}",
            "client_id": "gateway",
            "keepalive_s": 5,
            "reconnect_base_s": 0.1,
            "reconnect_cap_s": 0.5,
        }
        settings: dict[str, Any] = {
            "state_dir": "state",
            "profiles_dir": str(PROFILES),
            "http": {"host": "127.0.0.1", "port": self.http_port},
            "log": {"format": "json", "level": "info"},
            "devices": {"mqtt": {"broker": broker}},
        }
        self.config.write_text(json.dumps(settings | dict(self.change), indent=2), encoding="utf-8")

    async def start(self) -> None:
        """Start and wait until REST listens."""
        await self.child.start()
        await processes.wait_port(self.http_port, alive=self.child, timeout_s=CEILING_S)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        return await self.child.stop()

    async def ask(self, method: str, path: str, *, body: bytes | None = None, kind: str = "application/json") -> Reply:
        """One request; the body of the answer as JSON where it is JSON, else as text."""
        headers = {"Content-Type": kind} if body is not None else {}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CEILING_S)) as session,
            session.request(
                method, self.url + path, data=io.BytesIO(body) if body else body, headers=headers
            ) as answer,
        ):
            text = await answer.text()
            found = json.loads(text) if answer.content_type == "application/json" else text
            return Reply(status=answer.status, body=found)

    async def post(self, path: str, body: object) -> Reply:
        return await self.ask("POST", path, body=json.dumps(body).encode())

    async def until(self, path: str, condition: Callable[[Reply], bool], what: str) -> Reply:
        """Ask until the answer is right."""
        deadline = asyncio.get_running_loop().time() + CEILING_S
        while True:
            self.child.check()
            reply = await self.ask("GET", path)
            if condition(reply):
                return reply
            assert asyncio.get_running_loop().time() < deadline, f"{what}: {reply}"
            await asyncio.sleep(0.05)

    async def ready(self) -> None:
        await self.until("/readyz", lambda reply: reply.status == 200, "ready")

    async def enroll(self, ids: Sequence[str]) -> None:
        """Import plain homes while the daemon does not run."""
        file = self.directory / "devices.csv"
        file.write_text(inventory_csv(ids), encoding="utf-8")
        code, output = await run_cli("devices", "import", str(file), "--offline", "--config", str(self.config))
        assert code == 0, output

    async def import_rows(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Import these rows over REST."""
        file = self.directory / "rows.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        reply = await self.ask("POST", "/v1/devices", body=file.read_bytes(), kind="text/csv")
        assert reply.status == 200, reply
        assert reply.body["rejected_total"] == 0, reply

    def log_lines(self) -> list[dict[str, Any]]:
        """The log; every line is a JSON object, or this fails."""
        text = self.child.log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line]

    def faults_logged(self) -> list[dict[str, Any]]:
        """Lines that carry a traceback, or that are errors."""
        return [line for line in self.log_lines() if "traceback" in line or line["level"] in ("error", "critical")]


async def run_cli(*args: str, env: Mapping[str, str] | None = None, stdin: bytes | None = None) -> tuple[int, str]:
    """One command of the gateway's command line: exit code and everything it said."""
    child = processes.Child("cli", [], Path("/dev/null"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *args,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=_environment(env),
    )  # fmt: skip
    child.process = process
    try:
        output, _ = await asyncio.wait_for(process.communicate(stdin), CEILING_S)
    except TimeoutError:
        child.send(signal.SIGKILL)
        raise
    return process.returncode or 0, output.decode(errors="replace")


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:

    return dict(os.environ) | {"COLUMNS": "200", "NO_COLOR": "1"} | dict(more or {})


@asynccontextmanager
async def running(daemon: Daemon) -> AsyncIterator[Daemon]:
    """The daemon, started; killed at the end whatever happened."""
    try:
        await daemon.start()
        yield daemon
    finally:
        await daemon.child.kill()
