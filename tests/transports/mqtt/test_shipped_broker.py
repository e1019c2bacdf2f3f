"""mosquitto with the shipped listeners and access list, against devices with an account that mean ill."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import mqtt5
import pytest

from gateway.transports.mqtt.connection import MqttConnection, OutMessage, PublishOutcome
from tests.scenes.brokers import fleet_broker
from tests.scenes.mqtt_peers import Caller, Inbox, calling, make_connection, make_settings, running, send

# mosquitto is a process.
pytestmark = pytest.mark.real_time

ACCOUNTS = ("gateway", "platform", "home-1", "home-2")
ENERGY, COMMANDS, DISPATCH = (
    "gateway/v1/devices/{}/energy",
    "gateway/v1/devices/{}/command",
    "gateway/v1/platform/dispatch",
)
STOLEN = ("gateway-control", "platform", "home-1", "")


def peer(url: str, user: str, *patterns: str, client_id: str = "", inbox: Inbox | None = None) -> MqttConnection:
    settings = make_settings(url, client_id or user, username=user, password=user)
    return make_connection(settings, *patterns, inbox=inbox)


@asynccontextmanager
async def thief(url: str, client_id: str, *, expiry_s: int) -> AsyncIterator[Caller]:
    """home-2, with its own account and the client id of another; it begins with a clean start."""
    connect = mqtt5.ConnectPacket(
        client_id, username="home-2", password=b"home-2", clean_start=True, session_expiry_interval=expiry_s
    )
    async with calling(urlsplit(url).port or 0, connect.write()) as caller:
        answer = await caller.next_of(mqtt5.ConnAckPacket)
        assert isinstance(answer, mqtt5.ConnAckPacket)
        assert answer.reason_code == mqtt5.ConnAckReasonCode.SUCCESS
        yield caller


@pytest.mark.parametrize("expiry_s", [0, 3600])
@pytest.mark.parametrize("client_id", STOLEN)
async def test_device_with_a_foreign_client_id_takes_no_queue(tmp_path: Path, client_id: str, expiry_s: int) -> None:
    inboxes = {name: Inbox() for name in ("gateway", "platform", "home-1")}

    async with fleet_broker(tmp_path, *ACCOUNTS) as (broker, devices):

        def away() -> list[MqttConnection]:
            return [
                peer(broker.url, "gateway", ENERGY.format("+"), client_id="gateway-control", inbox=inboxes["gateway"]),
                peer(broker.url, "platform", "gateway/v1/platform/#", inbox=inboxes["platform"]),
                peer(devices, "home-1", COMMANDS.format("home-1"), inbox=inboxes["home-1"]),
            ]

        for one in away():
            async with running(one):
                pass
        gateway, device = peer(broker.url, "gateway", client_id="gateway-writes"), peer(devices, "home-1")
        async with running(gateway):
            await send(gateway, COMMANDS.format("home-1"), b"to the device")
            await send(gateway, "gateway/v1/platform/intervals", b"to the platform")
        async with running(device):
            await send(device, ENERGY.format("home-1"), b"1", b"2", b"3")
        async with thief(devices, client_id, expiry_s=expiry_s):
            pass
        for one, inbox in zip(away(), inboxes.values(), strict=True):
            async with running(one):
                await inbox.has(3 if inbox is inboxes["gateway"] else 1)
        assert inboxes["gateway"].payloads == [b"1", b"2", b"3"]
        assert inboxes["platform"].payloads == [b"to the platform"]
        assert inboxes["home-1"].payloads == [b"to the device"]


@pytest.mark.parametrize("client_id", STOLEN)
async def test_device_with_a_foreign_client_id_cuts_nobody_off(tmp_path: Path, client_id: str) -> None:
    inbox = Inbox()
    async with fleet_broker(tmp_path, *ACCOUNTS) as (broker, devices):
        gateway = peer(broker.url, "gateway", ENERGY.format("+"), client_id="gateway-control", inbox=inbox)
        platform = peer(broker.url, "platform", "gateway/v1/platform/#")
        device = peer(devices, "home-1", COMMANDS.format("home-1"))
        async with running(gateway), running(platform), running(device):
            for _ in range(3):
                async with thief(devices, client_id, expiry_s=0):
                    assert await send(device, ENERGY.format("home-1"), b"x") == [PublishOutcome.ACKED]
            assert len(await inbox.has(3)) == 3
            for one in (gateway, platform, device):
                assert one.connected
                assert one.stats.connects == 1


async def test_device_plants_nothing_under_topics_of_others(tmp_path: Path) -> None:
    foreign = [DISPATCH, COMMANDS.format("home-1"), COMMANDS.format("home-2"), ENERGY.format("home-1"),
               "gateway/v1/devices/home-1/status", "gateway/v1/platform/intervals"]  # fmt: skip
    own = "gateway/v1/devices/home-2/status"
    everything, dispatch, commands = Inbox(), Inbox(), Inbox()
    async with fleet_broker(tmp_path, *ACCOUNTS) as (broker, devices):
        async with running(peer(devices, "home-2")) as device:
            messages = [OutMessage(topic, b"planted", retain=True) for topic in foreign]
            outcomes = await device.publish(messages, deadline_mono_ms=2**62)
            assert outcomes == [PublishOutcome.REFUSED] * len(foreign)
            assert await device.publish([OutMessage(own, b"mine", retain=True)], deadline_mono_ms=2**62) != [
                PublishOutcome.REFUSED
            ]
        filters = ["gateway/v1/devices/+/status", "gateway/v1/devices/+/energy", DISPATCH]
        async with (
            running(peer(broker.url, "gateway", *filters, client_id="gateway-control", inbox=everything)),
            running(peer(broker.url, "platform", "gateway/v1/platform/#", inbox=dispatch)) as platform,
            running(peer(devices, "home-1", COMMANDS.format("home-1"), inbox=commands)),
            running(peer(broker.url, "gateway", client_id="gateway-writes")) as writer,
        ):
            await send(platform, DISPATCH, b"end")
            await send(writer, COMMANDS.format("home-1"), b"end")
            await everything.has(2)
            await commands.has(1)
            await dispatch.has(1)
        assert sorted(everything.payloads) == [b"end", b"mine"]
        assert (commands.payloads, dispatch.payloads) == ([b"end"], [b"end"])


async def test_device_cannot_hear_what_others_send_or_are_told(tmp_path: Path) -> None:
    heard = Inbox()
    async with (
        fleet_broker(tmp_path, *ACCOUNTS) as (broker, devices),
        running(peer(devices, "home-2", "#", inbox=heard)),
        running(peer(devices, "home-1")) as device,
        running(peer(broker.url, "gateway", client_id="gateway-control")) as gateway,
    ):
        await send(device, ENERGY.format("home-1"), b"another's")
        await send(gateway, COMMANDS.format("home-1"), b"another's")
        await send(gateway, COMMANDS.format("home-2"), b"mine")
        assert await heard.has(1) == [b"mine"]
