"""A street of simulated homes on a broker, with a platform, for daemons of any tree; judged from the homes."""

import asyncio
import csv
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt

from simulators.clock import RealClock
from simulators.firmware import FirmwareFleet
from simulators.inventory import write_inventory
from simulators.ledger import Ledger
from simulators.platform import Platform
from simulators.polled import PolledHomes
from tests.builders.homes import homes
from tests.e2e.rig import CEILING_S, Daemon, eventually
from tests.releases.trees import Tree, TreeDaemon
from tests.scenes.brokers import BrokerProcess, standin_process

INTERVAL_S, GRACE_S = 10, 1
PRODUCTS = ("foxess-h3", "fronius-gen24", "goodwe-et", "hoymiles-ms-a2", "sonnen-v2")
"""One of every way that control ends: by a timer of the product, by silence, by nobody but the gateway."""


class PickyLedger(Ledger):
    """A platform's book that never takes the rows of some devices."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: set[str] = set()

    def take_all(self, rows: Iterable[object]) -> list[str | None]:
        given = list(rows)
        refused = [isinstance(row, dict) and row.get("device") in self.refuses for row in given]
        answers = iter(super().take_all(row for row, no in zip(given, refused, strict=True) if not no))
        return ["unknown_device" if no else next(answers) for no in refused]


@dataclass(slots=True, kw_only=True)
class Street:
    """Homes that live in real time; `before` are the settings of the polled ones as their owners left them."""

    directory: Path
    broker: BrokerProcess
    fleet: FirmwareFleet
    polled: PolledHomes
    platform: Platform
    book: PickyLedger
    acks: Path
    before: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.fleet.devices.homes)

    @property
    def steered(self) -> list[str]:
        """Ids of the homes that are under outside control."""
        flags = self.fleet.devices.steered.tolist()
        return [name for name, on in zip(self.fleet.devices.homes.ids, flags, strict=True) if on]

    @property
    def fleet_w(self) -> float:
        return float(self.fleet.devices.batteries.battery_w.sum())

    def acknowledged(self) -> set[tuple[str, int]]:
        """Device and sequence number of every energy message that a gateway has acknowledged to the broker."""
        lines = self.acks.read_text(encoding="utf-8").splitlines(keepends=True) if self.acks.exists() else []
        logged = [json.loads(line) for line in lines if line.endswith("\n")]
        bodies = [json.loads(line["payload"]) for line in logged if line["topic"].endswith("/energy")]
        return {(body["id"], body["seq"]) for body in bodies}

    def settings(self) -> dict[int, dict[str, float]]:
        """Settings of the polled homes, as the products hold them."""
        return {index: face.settings() for index, face in self.polled.faces.items()}

    def rows(self, *more: dict[str, str]) -> list[dict[str, str]]:
        """The inventory; `more` are rows of which only what differs from the first home is given."""
        path = self.directory / "devices.csv"
        write_inventory(path, self.fleet.devices.homes, self.fleet.devices.batteries.reserve_pct, self.polled)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return rows + [rows[0] | row for row in more]

    def daemon(self, tree: Tree, directory: Path | None = None, **more: Any) -> TreeDaemon:
        """A daemon of `tree` for this street; `more` are further fields, its `change` over the street's settings."""
        change = {
            "platform": {"broker": {"url": self.broker.url, "client_id": "gateway-platform", "keepalive_s": 5}},
            "sinks": [
                {"kind": "http", "name": "platform-http", "url": self.platform.url, "timeout_s": 5},
                {"kind": "mqtt", "name": "platform-mqtt"},
            ],
            "intervals": {"length_s": INTERVAL_S, "grace_s": GRACE_S, "keep_days": 3650},
            "control": {"release_spread_s": 2, "fleet_w_per_s": 20_000, "availability_s": 5},
        }
        more["change"] = change | dict(more.get("change", {}))
        return TreeDaemon(
            directory or self.directory, self.broker.port, tree=tree, env=self.polled.environment(), **more
        )

    async def enroll(self, daemon: TreeDaemon, *more: dict[str, str]) -> None:
        """Import everybody while the daemon does not run."""
        file = daemon.directory / "rows.csv"
        rows = self.rows(*more)
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        await daemon.tree.does("devices", "import", str(file), "--offline", "--config", str(daemon.config))

    async def heard(self, daemon: Daemon) -> None:
        """Until each home has been heard and may be steered; what the polled ones hold now is their owners'."""
        known = set(self.fleet.devices.homes.ids)

        def all_heard(devices: list[dict[str, Any]]) -> bool:
            return all(d["soc_pct"] is not None and d["steerable"] for d in devices if d["device"]["id"] in known)

        await daemon.until("/v1/devices?limit=1000", lambda r: all_heard(r.body["devices"]), "a reading of each")
        self.before = self.settings()

    async def all_steered(self, daemon: Daemon, *, but: int = 0) -> None:
        await eventually(lambda: len(self.steered) >= self.n - but, f"{self.n - but} homes follow", alive=daemon.child)

    async def all_released(self, daemon: Daemon) -> None:
        await eventually(lambda: not self.steered, "every home is back in its own mode", alive=daemon.child)


@asynccontextmanager
async def street(directory: Path, *, firmware: int, products: tuple[str, ...] = PRODUCTS) -> AsyncIterator[Street]:
    """`firmware` homes that speak the reference protocol, then one of each of `products`."""
    n = firmware + len(products)
    plain = homes(n, soc_start_pct=80.0, reserve_pct=20.0, discharge_w_max=5_000.0, charge_w_max=5_000.0,
                  capacity_wh=10_000.0, grid_charge_allowed=True, site_import_w_max=float("inf"))  # fmt: skip
    acks = directory / "acks.jsonl"
    acking = standin_process(directory, log_acks=acks, log_client="gateway-telemetry")
    async with acking as broker, asyncio.TaskGroup() as tasks:
        fleet = FirmwareFleet(plain, broker.url, RealClock(), live_s=0.5, energy_s=2)
        polled = PolledHomes(fleet, each=1, broker_url=broker.url, products=products)
        assert len(polled.indices) == len(products), "half of the street at least speaks the reference protocol"
        platform, book = Platform(mqtt_url=broker.url), PickyLedger()
        platform.by_http = book
        try:
            await polled.start()
            living = [
                tasks.create_task(fleet.run(), name="fleet"),
                tasks.create_task(platform.run(), name="platform"),
            ]
            try:
                await asyncio.wait_for(platform.ready.wait(), CEILING_S)
                await fleet.wait_connected(CEILING_S)
                yield Street(
                    directory=directory,
                    broker=broker,
                    fleet=fleet,
                    polled=polled,
                    platform=platform,
                    book=book,
                    acks=acks,
                )
            finally:
                for task in living:
                    task.cancel()
        finally:
            await polled.stop()


async def told(port: int, name: str, bodies: Iterable[dict[str, Any]]) -> None:
    """Energy messages of one device by hand, each acknowledged by the broker."""
    async with aiomqtt.Client("127.0.0.1", port, identifier=name, protocol=aiomqtt.ProtocolVersion.V5) as client:
        for body in bodies:
            await client.publish(f"gateway/v1/devices/{name}/energy", json.dumps({"id": name, **body}), qos=1)
