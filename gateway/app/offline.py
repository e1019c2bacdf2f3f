"""Work without a running daemon (import, probe, archives), and what it shares with one: the lock and the links."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

from gateway import __version__
from gateway.api.views.fleet import import_report
from gateway.clock import Clock, SystemClock
from gateway.config.secrets import resolve_secret
from gateway.config.settings import Settings
from gateway.domain.errors import GatewayError, InvalidInput, LinkDown
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.types import DeviceId
from gateway.links.http.link import HttpLinks
from gateway.links.modbus.link import ModbusLinks
from gateway.links.mqtt.points import MqttPointLinks
from gateway.observability.parts import Part
from gateway.ports.links import PointLinks
from gateway.profiles.compile import Codec
from gateway.profiles.loader import load_profiles
from gateway.progress import Progress, unseen
from gateway.services.devices.capture import captured
from gateway.services.devices.import_rows import parse_rows
from gateway.services.devices.probe import Probe, probe
from gateway.services.devices.registry import DeviceRegistry, Imported
from gateway.storage.archive import Manifest, export_archive, import_archive
from gateway.storage.journal.journal import SqliteJournal
from gateway.transports.mqtt.settings import MqttSettings

RESTED_S = 3.0
"""A product of one connection may refuse the next client for seconds after it lost one."""


class Transports:
    """The links of polled devices, by their name in profiles. `fleet_broker` is ours, for products that connect to
    it."""

    def __init__(self, clock: Clock, fleet_broker: MqttSettings | None) -> None:
        self.topics = MqttPointLinks(clock, fleet_broker)
        modbus, http = ModbusLinks(clock), HttpLinks(clock)
        self.parts: tuple[Part, ...] = (modbus, http, self.topics)
        self.links: dict[str, PointLinks] = {"modbus": modbus, "http": http, "mqtt": self.topics}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the shared broker connection for as long as the block runs."""
        async with asyncio.TaskGroup() as group:
            shared = group.create_task(self.topics.run(), name="topics")
            try:
                yield
            finally:
                shared.cancel()
                for link in self.links.values():
                    await link.close()


async def probe_device(
    codec: Codec, address: str, *, units: Mapping[str, str], parameters: Mapping[str, str], username: str, secret: str
) -> Probe:
    """Read one device without a daemon; one that has a single connection and refuses it is asked once more after
    `RESTED_S`. Raises InvalidInput for a device that cannot be asked, and what links raise."""
    product, document = codec.product, codec.document
    if product is None:
        raise InvalidInput([f"{codec.name}: devices of this profile connect to the gateway; there is nothing to ask"])
    bad = [f"--unit {name}={number}: not a unit id" for name, number in units.items() if not number.isdecimal()]
    if bad:
        raise InvalidInput(bad)
    fleet = document.mqtt is not None and document.mqtt.broker == "fleet"
    fleet_broker = _broker_without_account(address) if fleet else None
    transports = Transports(SystemClock(), fleet_broker)
    connection = DeviceConnection(
        url="" if fleet else address,
        units=tuple((name, int(number)) for name, number in units.items()),
        parameters=tuple(parameters.items()),
        username=username,
    )
    device = DeviceId(parameters.get("device", "probe"))
    token = resolve_secret(secret) if secret else ""
    failure: GatewayError | None = None
    single = document.modbus is not None and document.modbus.connections_max == 1
    async with transports.running():
        links = transports.links[document.transport]
        try:
            try:
                found = await probe(codec, product, links, connection, device=device, secret=token)
            except LinkDown:
                if not single:
                    raise
                await asyncio.sleep(RESTED_S)
                found = await probe(codec, product, links, connection, device=device, secret=token)
        except GatewayError as error:
            # A task group would wrap it.
            failure = error
    if failure is not None:
        raise failure
    return found


def capture_device(
    codec: Codec,
    address: str,
    *,
    units: Mapping[str, str],
    parameters: Mapping[str, str],
    username: str,
    secret: str,
    source: str,
) -> tuple[Probe, dict[str, dict[str, Any]]]:
    """Read one device without a daemon; what it is, and the vectors of what it said, by their form. Raises what
    `probe_device` does."""
    found = asyncio.run(
        probe_device(codec, address, units=units, parameters=parameters, username=username, secret=secret)
    )
    day = datetime.fromtimestamp(SystemClock().now().utc_ms / 1000, tz=UTC).date()
    return found, captured(
        codec, found, units={name: int(number) for name, number in units.items()}, parameters=parameters,
        secret=resolve_secret(secret) if secret else "", source=source or f"gateway profiles capture, {day}",
    )  # fmt: skip


def _broker_without_account(address: str) -> MqttSettings:
    """Our broker as an operator names it for one look; no secret goes there. Raises InvalidInput."""
    try:
        return MqttSettings(url=address, client_id="gateway-probe", allow_plaintext=True)
    except ValueError as error:
        raise InvalidInput(["address: mqtt(s)://host[:port] is expected"]) from error


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """One process per state directory. Raises GatewayError when another one has it."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (state_dir / "lock").open("w", encoding="ascii")
    except OSError as error:
        raise GatewayError(f"state_dir {state_dir}: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GatewayError(f"state_dir {state_dir}: another gateway is using it") from error
        if not _still(file, state_dir / "lock"):
            raise GatewayError(f"state_dir {state_dir}: was replaced just now; try again")
        yield


def _still(file: TextIO, path: Path) -> bool:
    """Whether `path` is the file that was opened by this name: an import may have put a new directory there."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def export_state(settings: Settings, file: Path, *, damaged: bool, progress: Progress = unseen) -> dict[str, Any]:
    """Write the whole state directory to an archive while no daemon runs. Raises GatewayError."""
    state_dir = settings.state_dir
    if not state_dir.is_dir():
        raise InvalidInput([f"state_dir {state_dir}: does not exist"])
    os.umask(0o077)
    with locked(state_dir):
        manifest = export_archive(
            state_dir, file, version=__version__, now=SystemClock().now(), damaged=damaged, progress=progress
        )
    return _told(manifest) | {"file": str(file), "archive_bytes": file.stat().st_size}


def import_state(settings: Settings, file: Path, *, replace: bool, progress: Progress = unseen) -> dict[str, Any]:
    """Make an archive the state directory while no daemon runs. Raises GatewayError."""
    os.umask(0o077)
    with locked(settings.state_dir):
        found = import_archive(file, settings.state_dir, now=SystemClock().now(), replace=replace, progress=progress)
    before = None if found.before is None else str(found.before)
    return _told(found.manifest) | {"state_dir": str(settings.state_dir), "before": before}


def _told(manifest: Manifest) -> dict[str, Any]:
    sizes = [entry.size for entry in manifest.files]
    return {
        "created": manifest.created, "gateway": manifest.gateway, "schemas": manifest.schemas, "files": len(sizes),
        "bytes": sum(sizes),
    }  # fmt: skip


def import_offline(settings: Settings, text: str, *, form: str, progress: Progress = unseen) -> dict[str, Any]:
    """Import devices while no daemon runs; the report has the shape of the REST answer. `progress` is told in lines."""
    kind: Literal["csv", "jsonl"] = "csv" if form == "csv" else "jsonl"
    codecs = load_profiles(settings.profiles_dir)

    async def commit() -> Imported:
        journal = SqliteJournal(settings.state_dir / "journal.sqlite", clock=SystemClock())
        try:
            remembered = journal.load()
            inventory = DeviceRegistry(
                clock=SystemClock(), fleet=Fleet(), journal=journal, codecs=codecs, saved=dict(remembered.prior)
            )
            inventory.load(
                remembered.devices, remembered.controlled, departures=remembered.departures, removed=remembered.removed
            )
            rows = parse_rows(text, form=kind, profiles=codecs, places=inventory.places, progress=progress)
            return await inventory.register_rows(rows, by=os.environ.get("USER") or "operator", door=AuditDoor.OFFLINE)
        finally:
            journal.close()

    os.umask(0o077)
    with locked(settings.state_dir):
        done = asyncio.run(commit())
    return import_report(done).model_dump()
