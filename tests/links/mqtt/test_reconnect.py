"""How long control is away once a broker is back: at most five seconds, and not everybody at once."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from gateway.domain.errors import LinkDown, Retry
from gateway.domain.events.book import Answer
from gateway.domain.events.request import EventRequest
from gateway.domain.fleet.fleet import Fleet
from gateway.links.mqtt.brokers import broker_of
from gateway.links.mqtt.messages import MqttLink, MqttLinkSettings
from gateway.links.mqtt.points import MqttPointLinks
from gateway.profiles.loader import parse_profile
from gateway.services.devices.session_state import pause_cap_s
from gateway.signals.platform import PlatformSettings, PlatformSignal
from gateway.transports.mqtt.connection import MqttConnection, retry_ceiling_s
from gateway.transports.mqtt.settings import MqttSettings
from simulators.broker import Broker
from tests.links.mqtt.test_points import FLEET, HOME, PROFILE, target
from tests.scenes.street import reference
from tests.scenes.waiting import service
from tests.virtual.clock import loop_clock

AWAY_S = 32.0
ATTEMPT_S = 0.5


def link_at(port: int, **more: float) -> MqttLink:
    broker = MqttSettings.model_validate({"url": f"mqtt://127.0.0.1:{port}", "client_id": "gateway"} | more)
    return MqttLink(MqttLinkSettings(broker=broker), codecs=[reference()], fleet=Fleet(), clock=loop_clock())


async def back_after_s(connections: Sequence[MqttConnection], port: int) -> list[float]:
    """For each connection, how long it takes to be there once a broker is that was away."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(AWAY_S)
    assert not any(connection.connected for connection in connections)
    async with Broker(port=port):
        back = loop.time()

        async def took(connection: MqttConnection) -> float:
            await connection.wait_connected()
            return loop.time() - back

        return list(await asyncio.gather(*map(took, connections)))


async def free_port() -> int:
    async with Broker() as broker:
        return broker.port


async def test_control_is_there_five_seconds_after_its_broker_is_back_and_spread() -> None:
    port, links = await free_port(), []
    async with asyncio.TaskGroup() as group:
        links = [link_at(port) for _ in range(30)]
        tasks = [group.create_task(link.run(), name="link") for link in links]
        took = await back_after_s([link.control for link in links], port)
        for task in tasks:
            task.cancel()
    assert max(took) <= 5 + ATTEMPT_S
    assert min(took) < 1
    assert max(took) > 1.5
    assert len({round(each, 1) for each in took}) > 10


async def refuse(_request: EventRequest) -> Answer:
    raise AssertionError("nobody sends an event")


async def test_platform_is_there_five_seconds_after_its_broker_is_back() -> None:
    port = await free_port()
    broker = MqttSettings(url=f"mqtt://127.0.0.1:{port}", client_id="gateway-platform")
    signals = [PlatformSignal(PlatformSettings(broker=broker), clock=loop_clock(), submit=refuse) for _ in range(20)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(signal.connection.run(), name="platform") for signal in signals]
        took = await back_after_s([signal.connection for signal in signals], port)
        for task in tasks:
            task.cancel()
    assert max(took) <= 5 + ATTEMPT_S


async def test_caps_of_control_telemetry_and_platform() -> None:
    link = link_at(1)
    assert (link.control.settings.reconnect_cap_s, link.telemetry.settings.reconnect_cap_s) == (5, 60)
    quick = link_at(1, reconnect_cap_s=2)
    assert (quick.control.settings.reconnect_cap_s, quick.telemetry.settings.reconnect_cap_s) == (2, 2)
    fleet = MqttSettings(url="mqtt://127.0.0.1:1", client_id="gateway")
    document = parse_profile(PROFILE.replace("SECTION", FLEET), name="made-up")
    assert document.mqtt is not None
    assert broker_of(target(), document.mqtt, fleet).reconnect_cap_s == 5


def test_gateways_with_long_client_ids_have_sessions_of_their_own() -> None:
    document = parse_profile(PROFILE.replace("SECTION", FLEET), name="made-up")
    assert document.mqtt is not None
    ids = set()
    for last in "ab":
        fleet = MqttSettings(url="mqtt://127.0.0.1:1", client_id="g" * 47 + last)
        ids.add(broker_of(target(), document.mqtt, fleet).client_id)
    assert len(ids) == 2


def test_ceiling_grows_to_the_cap_and_further_where_the_broker_refuses() -> None:
    settings = MqttSettings(url="mqtt://127.0.0.1:1", client_id="g", reconnect_cap_s=5)
    down, no = Retry.LATER, Retry.AFTER_CHANGE
    assert [retry_ceiling_s(settings, n, down) for n in (0, 1, 2, 3, 40)] == [1, 2, 4, 5, 5]
    # an operator must act: a wrong password every few seconds locks accounts
    assert [retry_ceiling_s(settings, n, no) for n in (0, 1, 2, 3, 40)] == [8, 16, 32, 40, 40]
    slow = settings.model_copy(update={"reconnect_cap_s": 60.0})
    assert [retry_ceiling_s(slow, n, no) for n in (0, 1, 2, 3, 40)] == [8, 16, 32, 60, 60]
    assert retry_ceiling_s(slow, 40, down) == 60


@pytest.mark.parametrize(("section", "cap_s"), [(FLEET, 5.0), (HOME, 60.0)])
def test_session_of_a_device_on_our_broker_waits_no_longer_than_control(section: str, cap_s: float) -> None:
    assert pause_cap_s(parse_profile(PROFILE.replace("SECTION", section), name="made-up")) == cap_s


async def test_points_on_our_broker_are_open_five_seconds_after_it_is_back() -> None:
    port = await free_port()
    links = MqttPointLinks(loop_clock(), MqttSettings(url=f"mqtt://127.0.0.1:{port}", client_id="gateway"))
    rng, loop = random.Random(7), asyncio.get_running_loop()
    async with service(links.run):
        link = links.link(target())
        for _ in range(6):
            with pytest.raises(LinkDown):
                await link.open()
            await link.close()
            await asyncio.sleep(rng.uniform(2.5, 5))
        async with Broker(port=port):
            back = loop.time()
            while True:
                try:
                    await link.open()
                    break
                except LinkDown:
                    await link.close()
            assert loop.time() - back <= 5 + ATTEMPT_S
            await link.close()
