"""The simulated firmware on a real broker, met by a foreign client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import orjson
import pytest

from simulators.clock import RealClock
from simulators.faults import Fault, FaultKind
from simulators.firmware import CONNECTING_MAX, FirmwareFleet
from simulators.homes import make_homes
from tests.simulators.conftest import Mosquitto

CEILING_S = 30
ALL = "gateway/v1/devices/+/{}"


@asynccontextmanager
async def running(fleet: FirmwareFleet) -> AsyncIterator[FirmwareFleet]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(fleet.run(), name="fleet")
        await fleet.wait_connected(CEILING_S)
        yield fleet
        task.cancel()


class Listener:
    """What a gateway would hear, by device and kind."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self.heard: list[tuple[str, str, dict[str, Any], bytes]] = []

    async def until(self, found: Callable[["Listener"], bool]) -> None:
        """Listen until `found`; TimeoutError past the ceiling."""
        async with asyncio.timeout(CEILING_S):
            messages = aiter(self._client.messages)
            while not found(self):
                message = await anext(messages)
                _, _, _, device, leaf = str(message.topic).split("/")
                payload = bytes(message.payload)
                self.heard.append((device, leaf, orjson.loads(payload), payload))

    def bodies(self, leaf: str, device: str | None = None) -> list[dict[str, Any]]:
        return [body for at, kind, body, _ in self.heard if kind == leaf and device in {None, at}]


@asynccontextmanager
async def listening(broker: Mosquitto, *leaves: str) -> AsyncIterator[tuple[Listener, aiomqtt.Client]]:
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        for leaf in leaves:
            await client.subscribe(ALL.format(leaf), qos=1)
        yield Listener(client), client


def small_fleet(broker: Mosquitto, n: int, **options: Any) -> FirmwareFleet:
    return FirmwareFleet(make_homes(n, 7), broker.url, RealClock(), live_s=0.3, energy_s=0.5, **options)


async def send(client: aiomqtt.Client, fleet: FirmwareFleet, index: int, **fields: Any) -> None:
    device = fleet.devices.homes.ids[index]
    body = {"id": device, "valid_until": fleet.now_ms() + 10_000} | fields
    await client.publish(fleet.devices.topics.command[index], orjson.dumps(body), qos=1)


async def test_firmware_on_a_broker_reports_and_obeys(broker: Mosquitto) -> None:
    fleet = small_fleet(broker, 5, devices_per_connection=3)
    async with listening(broker, "live", "energy", "status", "ack") as (listener, client), running(fleet):
        await listener.until(lambda heard: len({body["id"] for body in heard.bodies("energy")}) == 5)
        assert {body["online"] for body in listener.bodies("status")} == {True}
        await listener.until(lambda heard: len({body["id"] for body in heard.bodies("live")}) == 5)
        await send(client, fleet, 4, cmd=1, op="setpoint", setpoint_w=1_500, lease_s=60)
        await send(client, fleet, 3, cmd=1, op="hold", lease_s=60, valid_until=fleet.now_ms() - 1)
        await listener.until(lambda heard: len(heard.bodies("ack")) == 2)
        results = {body["id"]: body["result"] for body in listener.bodies("ack")}
        assert results == {"sim-00004": "applied", "sim-00003": "expired"}
        await listener.until(lambda heard: any(body["cmd"] == 1 for body in heard.bodies("live", "sim-00004")))
        assert listener.bodies("live", "sim-00004")[-1]["mode"] == "remote"
        assert fleet.recorder.samples > 0
        assert fleet.recorder.trace().battery_w.shape[1] == 5


async def ticks_until(fleet: FirmwareFleet, reached: Callable[[], bool]) -> None:
    """Wait, tick by tick of the fleet, until `reached`; TimeoutError past the ceiling."""
    done = asyncio.Event()

    def look(_now_ms: int) -> None:
        if reached():
            done.set()

    fleet.on_tick = look
    async with asyncio.timeout(CEILING_S):
        await done.wait()
    fleet.on_tick = None


def kept(fleet: FirmwareFleet) -> set[bytes]:
    return {message.payload for store in fleet.devices.stores for message in store}


async def test_firmware_energy_of_a_broker_outage_arrives_whole_and_unchanged(broker: Mosquitto) -> None:
    fleet = small_fleet(broker, 4)
    async with running(fleet):
        await ticks_until(fleet, lambda: fleet.devices.stats.energy_acked >= 4)
        broker.stop()
        await ticks_until(fleet, lambda: len(kept(fleet)) >= 12)
        unsent = kept(fleet)
        for _ in range(CONNECTING_MAX):  # nobody connects before the listener does
            await fleet.connecting.acquire()
        broker.start()
        async with listening(broker, "energy") as (listener, _):
            for _ in range(CONNECTING_MAX):
                fleet.connecting.release()
            await listener.until(lambda heard: unsent <= {payload for _, _, _, payload in heard.heard})
        await ticks_until(fleet, lambda: not unsent & kept(fleet))
        acked = sorted((row.index, row.seq) for row in fleet.acked)
        assert len(set(acked)) == len(acked)
        for index in range(4):
            seqs = [seq for at, seq in acked if at == index]
            assert seqs == list(range(1, len(seqs) + 1))


async def test_firmware_on_its_own_connection_dropping_out_leaves_its_will(broker: Mosquitto) -> None:
    fleet = small_fleet(broker, 2, devices_per_connection=1)
    async with listening(broker, "status") as (listener, _), running(fleet):
        await listener.until(lambda heard: len(heard.bodies("status")) >= 2)
        fleet.inject(1, Fault(kind=FaultKind.OFFLINE, for_s=1.0))
        await listener.until(lambda heard: len(heard.bodies("status", "sim-00001")) >= 3)
        assert [body["online"] for body in listener.bodies("status", "sim-00001")] == [True, False, True]
        assert [body["online"] for body in listener.bodies("status", "sim-00000")] == [True]


async def test_firmware_on_a_shared_connection_reports_a_dropout(broker: Mosquitto) -> None:
    fleet = small_fleet(broker, 2)
    async with listening(broker, "status") as (listener, _), running(fleet):
        await listener.until(lambda heard: len(heard.bodies("status")) >= 2)
        fleet.inject(1, Fault(kind=FaultKind.OFFLINE, for_s=1.0))
        await listener.until(lambda heard: len(heard.bodies("status", "sim-00001")) >= 3)
        assert [body["online"] for body in listener.bodies("status", "sim-00001")] == [True, False, True]
        assert fleet.faults[0].first_effect_ms is not None


def test_firmware_foreign_address_is_refused() -> None:
    with pytest.raises(ValueError, match="mqtt://"):
        FirmwareFleet(make_homes(1, 1), "http://127.0.0.1", RealClock())
