"""Links to values on MQTT topics, against real brokers and a device that publishes what the test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest

from gateway.clock import Clock, ManualClock
from gateway.domain.errors import InvalidInput, LinkDown, PeerRefused
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.links.mqtt import point_link
from gateway.links.mqtt.point_link import MqttPointLink
from gateway.links.mqtt.points import MqttPointLinks
from gateway.ports.links import PointTarget
from gateway.profiles.compiled.points import Marker, Raw, Unreadable
from gateway.profiles.compiled.sequences import PointWrite, Request
from gateway.profiles.loader import parse_profile
from gateway.transports.mqtt.connection import MqttConnection, OutMessage
from simulators.broker import Broker, User
from tests.scenes.brokers import KINDS, BrokerProcess, broker_process, mosquitto_process
from tests.scenes.mqtt_peers import Inbox, make_connection, make_settings, running
from tests.scenes.waiting import service, turns, until
from tests.virtual.clock import loop_clock

PROFILE = """
language: 1
profile: made-up
maker: Nobody
product: A battery for tests
evidence: {tag: verified, source: made up for tests}
transport: mqtt
facts: {command_latency_s: 2, efficiency_discharge: 0.95, efficiency_charge: 0.95, standby_w: 5, soc_uncertainty_pct: 2}
mqtt: SECTION
identity: {rules: [{point: power, above: -100000}]}
points:
  power: {topic: "N/{portal}/power", pointer: /value, type: number, unit: W}
  soc: {topic: "N/{portal}/quick", pointer: /soc, type: number, unit: "%"}
  inside: {topic: "N/{portal}/quick", pointer: /text/deep, type: number}
  whole: {topic: "N/{portal}/quick", type: number}
  serial: {topic: "N/{portal}/serial", pointer: /value, type: text, poll: once}
  mode:
    {topic: "N/{portal}/mode", type: text, access: rw, storage: volatile, write: {topic: "W/{portal}/mode"}}
  vebus: {topic: "N/{portal}/vebus", pointer: /value, type: number, empty: gone}
  limit:
    {type: number, access: w, storage: volatile, write: {topic: "W/{portal}/set", key: limit, qos: 0}}
  setpoint:
    {type: number, access: w, storage: volatile,
     write: {topic: "W/{portal}/set", key: value, as_text: true, constants: {id: 7}}}
readings:
  battery_w: {point: power, sign: discharge_positive, measured_at: battery_ac, range: [-20000, 20000]}
  soc_pct: {point: soc, range: [0, 100]}
"""
FLEET = "{broker: fleet, variables: [portal]}"
HOME = "{broker: device, variables: [portal]}"
KEPT = '{broker: %s, variables: [portal], keepalive: {topic: "R/{portal}/keepalive", every_s: 30, payload: again}}'


def target(
    section: str = FLEET, *, portal: str = "p1", url: str = "", username: str = "", secret: str = ""
) -> PointTarget:
    document = parse_profile(PROFILE.replace("SECTION", section), name="made-up")
    parameters = (("portal", portal),) if portal else ()
    return PointTarget(
        device=DeviceId(f"dev-{portal}"),
        connection=DeviceConnection(url=url, username=username, parameters=parameters),
        secret=secret,
        document=document,
        points=document.points,
    )


def request(**raws: Raw) -> Request:
    return Request(writes=tuple(PointWrite(point=name, raw=raw, value=None) for name, raw in raws.items()))


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    async with broker_process(request.param, tmp_path) as made:
        yield made


@dataclass(frozen=True)
class StandIn:
    """The stand-in broker in this process."""

    url: str


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with Broker() as made:
        yield StandIn(f"mqtt://127.0.0.1:{made.port}")


@asynccontextmanager
async def point_links(url: str | None, clock: Clock | None = None) -> AsyncIterator[MqttPointLinks]:
    """Links that run, with our own broker at `url`."""
    settings = make_settings(url, "gw", keepalive_s=3600) if url is not None else None
    links = MqttPointLinks(clock or loop_clock(), settings)
    async with service(links.run):
        yield links


class Device:
    """The battery's side."""

    def __init__(self, connection: MqttConnection, inbox: Inbox) -> None:
        self._connection = connection
        self.inbox = inbox

    async def say(self, topic: str, payload: object, *, retain: bool = False) -> None:
        """Publish, as JSON unless it is bytes; returns once the broker has it."""
        body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        deadline_ms = loop_clock().mono_ms() + 60_000
        await self._connection.publish([OutMessage(topic, body, retain=retain)], deadline_mono_ms=deadline_ms)

    async def heard(self, count: int) -> list[tuple[str, bytes, bool]]:
        await self.inbox.has(count)
        return [(message.topic, message.payload, message.retain) for message in self.inbox.messages]


@asynccontextmanager
async def device(url: str, *patterns: str, client_id: str = "device") -> AsyncIterator[Device]:
    inbox = Inbox()
    connection = make_connection(make_settings(url, client_id), *patterns, inbox=inbox)
    async with running(connection):
        yield Device(connection, inbox)


async def opened(links: MqttPointLinks, to: PointTarget) -> MqttPointLink:
    link = links.link(to)
    await link.open()
    return link


async def shows(link: MqttPointLink, name: str, raw: Raw) -> None:
    """Wait until a read gives `raw`."""
    async with asyncio.timeout(60):
        while (await link.read([name]))[name] != raw:
            await asyncio.sleep(0.005)


async def test_read_first_values_are_waited_for(broker: BrokerProcess) -> None:
    async with point_links(broker.url) as links, device(broker.url) as peer:
        link = await opened(links, target())
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(link.read(["power", "soc", "inside", "whole", "mode"]))
            await peer.say("N/p1/quick", {"soc": 61, "text": '{"deep": 5}'})
            await peer.say("N/p1/mode", b"mqtt_ctrl")
            await peer.say("N/p1/power", {"value": None})
        assert reading.result() == {
            "power": Marker.NULL,
            "soc": 61,
            "inside": 5,
            "whole": Marker.GARBLED,
            "mode": "mqtt_ctrl",
        }
        assert links.stats.no_scalar == 1


async def test_read_text_that_looks_like_a_number_stays_a_text(standin: StandIn) -> None:
    async with point_links(standin.url) as links, device(standin.url) as peer:
        link = await opened(links, target())
        for payload, raw in ((b"42", "42"), (b'"general"', "general"), (b"tou plan", "tou plan")):
            await peer.say("N/p1/mode", payload)
            await shows(link, "mode", raw)


async def test_read_malformed_message_is_told_beside_what_its_topic_said_before(standin: StandIn) -> None:
    async with point_links(standin.url) as links, device(standin.url) as peer:
        link = await opened(links, target())
        await peer.say("N/p1/power", {"value": 5})
        await peer.say("N/p1/quick", {"soc": 61})
        await peer.say("N/p1/power", b"<html>")
        await peer.say("N/p1/mode", b"\xff\xfe")
        await until(lambda: links.stats.malformed == 2)
        assert await link.read(["power", "soc", "mode"]) == {
            "power": Unreadable(5), "soc": 61, "mode": Unreadable(Marker.GARBLED),
        }  # fmt: skip
        await peer.say("N/p1/power", {"value": 6})
        await shows(link, "power", 6)


async def test_read_number_that_json_does_not_have_costs_only_itself(standin: StandIn) -> None:
    async with point_links(standin.url) as links, device(standin.url) as peer:
        link = await opened(links, target())
        await peer.say("N/p1/quick", b'{"soc":61,"text":NaN}')
        await shows(link, "soc", 61)
        assert links.stats.malformed == 0


async def test_read_empty_payload_is_a_fact_of_its_own(standin: StandIn) -> None:
    async with point_links(standin.url) as links, device(standin.url) as peer:
        link = await opened(links, target())
        await peer.say("N/p1/power", b"")
        await peer.say("N/p1/vebus", b"")
        assert await link.read(["power"]) == {"power": Marker.EMPTY}
        with pytest.raises(LinkDown, match="gone"):
            await link.read(["power", "vebus"])
        await peer.say("N/p1/vebus", {"value": 1})
        await until(lambda: links.stats.messages == 3)
        assert await link.read(["vebus"]) == {"vebus": 1}


async def test_read_kept_messages_say_nothing_of_now(
    broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(point_link, "FIRST_VALUES_S_MAX", 0.3)
    async with point_links(broker.url) as links, device(broker.url) as peer:
        await peer.say("N/p1/power", {"value": 5}, retain=True)
        await peer.say("N/p1/serial", {"value": "s1"}, retain=True)
        link = await opened(links, target())
        await until(lambda: links.stats.retained == 2)
        with pytest.raises(LinkDown, match="not heard"):
            await link.read(["serial"])
        await peer.say("N/p1/quick", {"soc": 61})
        await until(lambda: links.stats.messages == 3)
        assert await link.read(["serial", "power", "soc"]) == {"serial": "s1", "power": Marker.MISSING, "soc": 61}
        await peer.say("N/p1/power", {"value": 6})
        await shows(link, "power", 6)


async def test_read_kept_messages_are_no_sign_of_life_yet(standin: StandIn) -> None:
    async with point_links(standin.url) as links, device(standin.url) as peer:
        await peer.say("N/p1/serial", {"value": "s1"}, retain=True)
        link = await opened(links, target())
        await until(lambda: links.stats.retained == 1)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(link.read(["serial"]))
            await turns()
            assert not reading.done()
            await peer.say("N/p1/quick", {"soc": 61})
        assert reading.result() == {"serial": "s1"}


async def test_read_device_that_fell_silent_is_down(standin: StandIn) -> None:
    """F3: the broker is well, the device says nothing any more."""
    clock = ManualClock()
    async with point_links(standin.url, clock) as links, device(standin.url) as peer:
        link = await opened(links, target("{broker: fleet, variables: [portal], quiet_s: 20}"))
        await peer.say("N/p1/power", {"value": 5})
        assert await link.read(["power"]) == {"power": 5}
        heard_ms = clock.mono_ms()
        clock.advance(s=20)
        assert await link.read(["power"]) == {"power": 5}
        assert link.heard_mono_ms == heard_ms
        clock.advance(s=1)
        with pytest.raises(LinkDown, match="not heard"):
            await link.read(["power"])
        await peer.say("N/p1/quick", {"soc": 1})
        await until(lambda: links.stats.messages == 2)
        # the device speaks again, and of its power it has said nothing since
        assert await link.read(["power", "soc"]) == {"power": Marker.MISSING, "soc": 1}
        await peer.say("N/p1/power", {"value": 6})
        await until(lambda: links.stats.messages == 3)
        assert await link.read(["power"]) == {"power": 6}


async def test_value_that_two_questions_for_everything_did_not_bring_is_no_value_of_now(standin: StandIn) -> None:
    clock = ManualClock()
    async with point_links(None, clock) as links, device(standin.url, "R/#") as peer:
        link = await opened(links, target(KEPT % "device", url=standin.url))
        await peer.heard(1)
        await peer.say("N/p1/power", {"value": 5})
        await until(lambda: links.stats.messages == 1)
        asked = 0
        for number in range(2, 8):
            clock.advance(s=30)
            payload = (await peer.heard(number))[number - 1][1]
            asked += payload == b""
            # the battery goes on, the meter is gone
            await peer.say("N/p1/quick", {"soc": 60 + number})
            await until(lambda said=number: links.stats.messages == said)  # type: ignore[misc]
            await until(lambda said=number: links.stats.keepalives == said)  # type: ignore[misc]
            found = await link.read(["power", "soc"])
            assert found["soc"] == 60 + number
            assert (found["power"] == 5) is (asked < 3)
        assert asked == 3


async def test_value_that_does_not_change_stays_while_the_device_repeats_it_when_asked(standin: StandIn) -> None:
    clock = ManualClock()
    async with point_links(None, clock) as links, device(standin.url, "R/#") as peer:
        link = await opened(links, target(KEPT % "device", url=standin.url))
        await peer.heard(1)
        await peer.say("N/p1/power", {"value": 5})
        messages = 1
        for number in range(2, 10):
            clock.advance(s=30)
            if (await peer.heard(number))[number - 1][1] == b"":
                await peer.say("N/p1/power", {"value": 5})
            else:
                await peer.say("N/p1/quick", {"soc": 50})
            messages += 1
            await until(lambda said=messages: links.stats.messages == said)  # type: ignore[misc]
            assert (await link.read(["power"]))["power"] == 5


async def test_read_device_never_heard_is_down(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_link, "FIRST_VALUES_S_MAX", 0.1)
    async with point_links(standin.url) as links:
        link = await opened(links, target())
        with pytest.raises(LinkDown, match="not heard"):
            await link.read(["power"])
        assert links.stats.silent == 1


async def test_write_members_are_one_object_and_never_kept(broker: BrokerProcess) -> None:
    async with point_links(broker.url) as links, device(broker.url, "W/p1/#") as peer:
        link = await opened(links, target())
        await link.write(request(setpoint=-1500.0, limit=Marker.NULL))
        await link.write(request(mode="general"))
        await link.write(request(mode=Marker.NULL))
        await link.write(request(limit=0.5))
        heard = await peer.heard(4)
        assert orjson.loads(heard[0][1]) == {"id": 7, "value": "-1500", "limit": None}
        assert [payload for _, payload, _ in heard[1:]] == [b"general", b"null", b'{"limit":0.5}']
        assert [topic for topic, _, _ in heard] == ["W/p1/set", "W/p1/mode", "W/p1/mode", "W/p1/set"]
    async with device(broker.url, "W/p1/#", "end", client_id="late") as late:
        await late.say("end", b"x")
        assert [topic for topic, _, _ in await late.heard(1)] == ["end"]


async def test_write_nobody_listens_is_down_on_our_broker_and_taken_by_a_products_own(broker: BrokerProcess) -> None:
    async with point_links(broker.url) as links:
        link = await opened(links, target())
        with pytest.raises(LinkDown, match="no subscriber"):
            await link.write(request(mode="general"))
        assert links.stats.no_subscriber == 1
        home = await opened(links, target(HOME, url=broker.url))
        await home.write(request(mode="general"))


async def test_keepalive_asks_for_everything_first_and_then_repeats(standin: StandIn) -> None:
    clock = ManualClock()
    async with point_links(None, clock) as links, device(standin.url, "R/#") as peer:
        for portal in ("p1", "p2"):
            await opened(links, target(KEPT % "device", portal=portal, url=standin.url))
        heard = await peer.heard(2)
        assert sorted(heard) == [("R/p1/keepalive", b"", False), ("R/p2/keepalive", b"", False)]
        clock.advance(s=30)
        assert sorted((await peer.heard(4))[2:]) == [
            ("R/p1/keepalive", b"again", False),
            ("R/p2/keepalive", b"again", False),
        ]
        assert links.stats.keepalives == 4


async def test_keepalive_asks_for_everything_once_more_after_what_nobody_could_read(standin: StandIn) -> None:
    clock = ManualClock()
    async with point_links(None, clock) as links, device(standin.url, "R/#") as peer:
        await opened(links, target(KEPT % "device", url=standin.url))
        await peer.heard(1)
        await peer.say("N/p1/power", b"<html>")
        await until(lambda: links.stats.malformed == 1)
        clock.advance(s=30)
        assert (await peer.heard(2))[1] == ("R/p1/keepalive", b"", False)
        clock.advance(s=30)
        assert (await peer.heard(3))[2] == ("R/p1/keepalive", b"again", False)


@pytest.mark.real_time
async def test_connection_made_anew_asks_again_and_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F3: a broker that went and came back; what it said before counts no more."""
    monkeypatch.setattr(point_link, "FIRST_VALUES_S_MAX", 0.3)
    async with mosquitto_process(tmp_path) as broker, point_links(broker.url) as links:
        async with device(broker.url, "R/#") as peer:
            link = await opened(links, target(KEPT % "fleet"))
            await peer.heard(1)
            await peer.say("N/p1/power", {"value": 5})
            assert await link.read(["power"]) == {"power": 5}
        await broker.kill()
        await until(lambda: links.stats.keepalives == 1 and not link.connected)
        with pytest.raises(LinkDown, match="not connected"):
            await link.read(["power"])
        with pytest.raises(LinkDown):
            await link.write(request(mode="general"))
        await broker.start()
        await until(lambda: link.connected and links.stats.keepalives == 2)
        assert await link.read(["power"]) == {"power": Marker.MISSING}


async def test_connection_is_shared_by_devices_and_given_up_after_the_last(standin: StandIn) -> None:
    clock = ManualClock()
    async with point_links(standin.url, clock) as links, device(standin.url) as peer:
        one, two = await opened(links, target()), await opened(links, target(portal="p2"))
        for portal, value in (("p1", 1), ("p2", 2), ("p3", 3)):
            await peer.say(f"N/{portal}/power", {"value": value})
        assert await two.read(["power"]) == {"power": 2}
        assert await one.read(["power"]) == {"power": 1}
        await until(lambda: links.stats.unknown_topics == 1)
        assert links.connections == 1
        await one.close()
        again = await opened(links, target())
        assert await again.read(["power"]) == {"power": 1}
        with pytest.raises(LinkDown):
            await one.read(["power"])
        for link in (again, two):
            await link.close()
        clock.advance(s=6)
        await until(lambda: links.connections == 0)
        link = await opened(links, target())
        await peer.say("N/p1/power", {"value": 9})
        assert await link.read(["power"]) == {"power": 9}


async def test_open_broker_that_is_not_there_is_down() -> None:
    async with Broker() as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
    async with point_links(None) as links:
        link = links.link(target(HOME, url=url))
        with pytest.raises(LinkDown, match="not connected"):
            await link.open()
        await link.close()


async def test_open_wrong_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_link, "OPEN_S_MAX", 1.0)
    broker = Broker(users={"gx": User(password="right")})
    async with broker, point_links(None) as links:
        url = f"mqtt://127.0.0.1:{broker.port}"
        right = links.link(target(HOME, url=url, username="gx", secret="right"))
        await right.open()
        wrong = links.link(target(HOME, url=url, username="gx", secret="wrong"))
        with pytest.raises(PeerRefused):
            await wrong.open()
        await wrong.close()


async def test_open_before_the_links_run_waits_for_them(standin: StandIn) -> None:
    links = MqttPointLinks(loop_clock(), make_settings(standin.url, "gw"))
    link = links.link(target())
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(link.open())
        await asyncio.sleep(0)
        async with service(links.run):
            await opening


async def test_open_links_that_never_run_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_link, "OPEN_S_MAX", 0.1)
    links = MqttPointLinks(loop_clock(), None)
    with pytest.raises(LinkDown):
        await links.link(target(HOME, url="mqtt://127.0.0.1:1")).open()


@pytest.mark.parametrize(
    "to",
    [
        target(FLEET),
        target(HOME, url="http://127.0.0.1"),
        target(HOME, url="mqtt://127.0.0.1", portal=""),
        target(HOME, url="mqtt://127.0.0.1", portal="a/b"),
        target(HOME, url="mqtt://127.0.0.1", portal="+"),
    ],
)
async def test_link_connection_that_cannot_be_is_invalid(to: PointTarget) -> None:
    with pytest.raises(InvalidInput):
        MqttPointLinks(loop_clock(), None).link(to)


@pytest.mark.parametrize(("expires_s", "most_s"), [(None, point_link.EXPIRY_S), (20.9, 20), (1e6, point_link.EXPIRY_S)])
async def test_write_that_expires_is_kept_by_the_broker_no_longer(
    standin: StandIn, expires_s: float | None, most_s: int
) -> None:
    async with point_links(standin.url) as links, device(standin.url, "W/#") as peer:
        link = await opened(links, target())
        await link.write(replace(request(mode="hold"), expires_s=expires_s))
        await peer.inbox.has(1)
        left_s = peer.inbox.messages[0].message_expiry_interval
        assert left_s is not None
        assert left_s <= most_s
        # what is not told to expire sooner lives longer
        assert (left_s > 20) == (most_s > 20)
