"""Client libraries of others as processes: which there are, what each can do, and how it is asked."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from simulators.faces.catalogue import FACES
from simulators.faces.plant import Connection, Face, Plant

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "clients"
ANSWER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A client library. `reads`: the canonical quantities it says; `steers`: it controls the battery's power;
    `face`: settings of the simulated product that suit it; `asks`: what it is told besides the address."""

    library: str
    script: str
    profile: str
    reads: tuple[str, ...]
    steers: bool = False
    environment: str = ".venv-foreign"
    face: dict[str, Any] = field(default_factory=dict, hash=False)
    asks: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def python(self) -> Path:
        return ROOT / self.environment / "bin" / "python" if self.environment else Path(sys.executable)

    @property
    def on_registers(self) -> bool:
        """Whether the product speaks Modbus, where a mistake can be put between it and the library."""
        return self.profile != "tesla-powerwall"

    def needed(self) -> None:
        """Skip, aloud, where the environment was not made (`make foreign-ready`) or a program is missing."""
        if not self.python.exists():
            pytest.skip(f"{self.environment} is not there: `make foreign-ready` makes it where Python 3.13 is found")
        if self.profile == "tesla-powerwall" and shutil.which("openssl") is None:
            pytest.skip("this client speaks TLS only, and there is no openssl to make a certificate")

    def make_face(self, plant: Plant) -> Face:
        """The simulated product, without the rests between requests that would only make a test slow."""
        product: Face = FACES[self.profile](plant, **self.face)
        return product


# the Python that runs the tests; its libraries are in the lock file
OURS = ""
ALL = ("soc_pct", "battery_w", "grid_w")
FOREIGN = (
    Foreign(library="foxess-modbus 0.1.0", script="foxess_modbus_h3", profile="foxess-h3", reads=ALL),
    Foreign(
        library="fronius-modbus 0.3.0",
        script="fronius_modbus_gen24",
        profile="fronius-gen24",
        reads=("soc_pct", "battery_w"),
        steers=True,
    ),
    Foreign(
        library=f"goodwe {version('goodwe')}",
        script="goodwe_et",
        profile="goodwe-et",
        reads=ALL,
        steers=True,
        environment=OURS,
    ),
    Foreign(
        library=f"pysunspec2 {version('pysunspec2')}",
        script="pysunspec2_der",
        profile="sunspec-der",
        reads=("soc_pct", "battery_w"),
        steers=True,
        environment=OURS,
    ),
    Foreign(
        library="huawei-solar 3.0.7",
        script="huawei_solar_luna",
        profile="huawei-luna2000",
        reads=ALL,
        steers=True,
        face={"rest_s": 0.0, "fc16_only": False},
    ),
    Foreign(
        library="sun2000-modbus 3.0.0",
        script="sun2000_modbus_luna",
        profile="huawei-luna2000",
        reads=ALL,
        steers=True,
        face={"rest_s": 0.0},
    ),
    Foreign(
        library="sigenergy2mqtt 2026.10.10",
        script="sigenergy2mqtt_plant",
        profile="sigenergy-plant",
        reads=ALL,
        steers=True,
        environment=".venv-foreign-sigenergy",
        face={"spacing_s": 0.0},
    ),
    Foreign(
        library="sma-modbus 2.1.3",
        script="sma_modbus_sbs",
        profile="sma-sbs",
        reads=("soc_pct", "battery_w", "battery_ac_w"),
    ),
    Foreign(
        library="solaredged 0.5.0",
        script="solaredged_storedge",
        profile="solaredge-storedge",
        reads=ALL,
        steers=True,
        face={"reopen_s": 0.0},
    ),
    Foreign(
        library="sungrow-sht-modbus 0.1.0a3",
        script="sungrow_sht_modbus_sh",
        profile="sungrow-sh",
        reads=ALL,
        steers=True,
        face={"stale_s": 0.0, "spacing_s": 0.0, "meter": True, "device_type": 0x0E23},
    ),
    Foreign(
        library="sungrow-modbus 0.1.0a17",
        script="sungrow_modbus_sh",
        profile="sungrow-sh",
        reads=ALL,
        face={"spacing_s": 0.0, "meter": True},
    ),
    Foreign(
        library="tesla-powerwall 0.5.3",
        script="tesla_powerwall_gateway",
        profile="tesla-powerwall",
        reads=ALL,
        asks={"password": "PWRWL"},
    ),
    Foreign(
        library="aiovictron 0.2.0",
        script="aiovictron_gx",
        profile="victron-gx-modbus",
        reads=("soc_pct", "battery_w", "grid_l1_w"),
    ),
)


class Client:
    """One client library at work in its own process."""

    def __init__(self, process: asyncio.subprocess.Process, asks: dict[str, Any]) -> None:
        self._process = process
        self._asks = asks

    async def ask(self, do: str, connection: Connection, **more: Any) -> dict[str, Any]:
        """What the library says. Raises ForeignError with the library's own words."""
        address = urlsplit(connection.url)
        request = {"do": do, "host": address.hostname, "port": address.port} | self._asks | more
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write(json.dumps(request).encode() + b"\n")
        line = await asyncio.wait_for(source.readline(), ANSWER_S)
        answer: dict[str, Any] = json.loads(line or b'{"error": "the process ended"}')
        if "error" in answer:
            raise ForeignError(answer["error"])
        told: dict[str, Any] = answer["ok"]
        return told


class ForeignError(Exception):
    """The library failed, in its own words."""


@asynccontextmanager
async def client_of(foreign: Foreign) -> AsyncIterator[Client]:
    """The library in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        foreign.python,
        SCRIPTS / f"{foreign.script}.py",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=1 << 20,
    )
    try:
        yield Client(process, foreign.asks)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), ANSWER_S)
        except TimeoutError:
            process.kill()
            await process.wait()
