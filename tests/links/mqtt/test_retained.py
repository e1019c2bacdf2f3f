"""What a broker retains: kept for devices that join later, within bounds, and only what the profile names."""

import asyncio

import pytest

from gateway.links.mqtt import cache
from gateway.links.mqtt.cache import DeviceCache, points_of
from gateway.links.mqtt.retained import FLEET_BOUNDS, HOME_BOUNDS, RetainedBounds, RetainedMessages
from gateway.profiles.compiled.points import Marker
from gateway.profiles.loader import parse_profile
from simulators.broker import Broker
from tests.links.mqtt.test_points import FLEET, HOME, PROFILE, device, opened, point_links, target
from tests.scenes.waiting import until

FILTERS = ("N/+/power", "N/+/quick")


def store(topics: int = 4, size: int = 1_000) -> RetainedMessages:
    return RetainedMessages(FILTERS, RetainedBounds(topics=topics, bytes=size))


def test_retained_topic_that_no_filter_names_is_not_kept() -> None:
    kept = store()
    for topic in ("N/p1/other", "N/p1", "N/p1/power/more", "X/p1/power"):
        kept.ingest(topic, b"1", retained=True)
    assert (len(kept), kept.bytes, kept.dropped) == (0, 0, 0)
    kept.ingest("N/p1/power", b"1", retained=True)
    assert kept.payload("N/p1/power") == b"1"


def test_retained_message_that_the_broker_clears_is_let_go() -> None:
    kept = store()
    kept.ingest("N/p1/power", b"1", retained=True)
    kept.ingest("N/p1/power", b"", retained=False)
    assert (kept.payload("N/p1/power"), len(kept), kept.bytes) == (None, 0, 0)


def test_retained_message_is_replaced_by_a_live_one_of_its_topic_and_live_ones_alone_are_not_kept() -> None:
    kept = store()
    kept.ingest("N/p1/power", b"1", retained=True)
    kept.ingest("N/p1/power", b"22", retained=False)
    kept.ingest("N/p1/quick", b"3", retained=False)
    assert (kept.payload("N/p1/power"), kept.payload("N/p1/quick")) == (b"22", None)
    assert kept.bytes == len("N/p1/power") + 2


@pytest.mark.parametrize(("topics", "size"), [(2, 10_000), (100, 30)])
def test_retained_messages_beyond_the_bound_are_dropped_and_counted(topics: int, size: int) -> None:
    kept = store(topics, size)
    for i in range(9):
        kept.ingest(f"N/p{i}/power", b"12345", retained=True)
    assert len(kept) == 2
    assert kept.bytes <= size
    assert (kept.dropped, kept.payload("N/p0/power"), kept.payload("N/p8/power")) == (7, b"12345", None)


def test_retained_message_that_grows_past_the_bound_is_let_go_and_counted() -> None:
    kept = store(4, 30)
    kept.ingest("N/p1/power", b"1", retained=True)
    kept.ingest("N/p1/power", bytes(100), retained=True)
    assert (len(kept), kept.bytes, kept.dropped) == (0, 0, 1)


def test_retained_message_of_a_device_here_takes_the_place_of_one_that_nobody_wants() -> None:
    kept = store(2)
    kept.ingest("N/x/power", b"1", retained=True)
    kept.ingest("N/y/power", b"1", retained=True)
    kept.claim(["N/p1/power", "N/p1/quick", "N/p2/power"])
    for topic in ("N/p1/power", "N/p1/quick", "N/p2/power"):
        kept.ingest(topic, b"2", retained=True)
    assert (kept.payload("N/p1/power"), kept.payload("N/p1/quick"), kept.payload("N/x/power")) == (b"2", b"2", None)
    # devices here do not displace each other
    assert (kept.payload("N/p2/power"), kept.dropped, len(kept)) == (None, 3, 2)
    kept.release(["N/p1/power"])
    kept.ingest("N/p2/power", b"2", retained=True)
    assert (kept.payload("N/p1/power"), kept.payload("N/p2/power")) == (None, b"2")


def test_retained_messages_of_a_former_connection_are_let_go() -> None:
    kept = store(1)
    kept.begin(1)
    kept.ingest("N/p1/power", b"1", retained=True)
    kept.ingest("N/p2/power", b"1", retained=True)
    kept.begin(1)
    assert (len(kept), kept.dropped) == (1, 1)
    kept.begin(2)
    assert (len(kept), kept.bytes, kept.dropped) == (0, 0, 0)


@pytest.mark.parametrize("bounds", [HOME_BOUNDS, FLEET_BOUNDS])
def test_retained_messages_of_one_broker_cannot_fill_the_memory(bounds: RetainedBounds) -> None:
    kept = RetainedMessages(FILTERS, bounds)
    payload = bytes(bounds.bytes // 16)
    for i in range(64):
        kept.ingest(f"N/x{i}/power", payload, retained=True)
    assert kept.bytes <= bounds.bytes
    assert kept.dropped == 64 - len(kept) >= 48


def test_links_the_bound_of_a_home_is_far_below_that_of_our_broker() -> None:
    assert HOME_BOUNDS.bytes <= 1 << 20
    assert FLEET_BOUNDS.bytes <= 64 << 20
    assert FLEET_BOUNDS.topics >= 10_000 * 10


@pytest.mark.parametrize(("section", "bounds"), [(HOME, "HOME_BOUNDS"), (FLEET, "FLEET_BOUNDS")])
async def test_links_device_whose_broker_retains_too_much_is_named_and_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, section: str, bounds: str
) -> None:
    monkeypatch.setattr(f"gateway.links.mqtt.points.{bounds}", RetainedBounds(topics=2, bytes=1_000))
    async with Broker() as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        async with point_links(url) as links, device(url) as peer:
            for i in range(9):
                await peer.say(f"N/x{i}/power", {"value": i}, retain=True)
            link = await opened(links, target(section, url=url if section == HOME else ""))
            await until(lambda: links.stats.retained == 9)
            assert link.notice == "the broker retains more than the gateway keeps: 7 messages dropped"
            lines = [record for record in caplog.records if record.message == "a broker retains more than is kept"]
            assert [record.__dict__["device"] for record in lines] == ["dev-p1"]
            await peer.say("N/p1/power", {"value": 7})
            await peer.say("N/p1/quick", {"soc": 50})
            async with asyncio.timeout(60):
                assert await link.read(["power"]) == {"power": 7}
            await link.close()
            assert link.notice is None


async def test_links_device_that_joins_later_gets_what_was_retained() -> None:
    async with Broker() as broker, point_links(url := f"mqtt://127.0.0.1:{broker.port}") as links, device(url) as peer:
        await peer.say("N/p1/serial", {"value": "s1"}, retain=True)
        await opened(links, target(portal="p2"))
        await until(lambda: links.stats.retained == 1)
        link = await opened(links, target())
        await peer.say("N/p1/quick", {"soc": 61})
        await until(lambda: links.stats.messages == 2)
        assert await link.read(["serial"]) == {"serial": "s1"}
        assert link.notice is None


def made_cache(levels: dict[str, str]) -> DeviceCache:
    document = parse_profile(PROFILE.replace("SECTION", FLEET), name="made-up")
    return DeviceCache(points_of(document), levels, trust_retained=False)


def test_cache_keeps_the_values_that_the_profile_names_and_nothing_beside_them() -> None:
    document = parse_profile(PROFILE.replace("SECTION", FLEET), name="made-up")
    kept = made_cache({"portal": "p1"})
    body = b'{"soc": 61, "junk": "%s", "text": {"deep": 3}}' % (b"x" * 8_000)
    assert kept.ingest("N/p1/quick", body, retained=False, now_ms=1)
    assert (kept.raw(document.points["soc"]), kept.raw(document.points["inside"])) == (61, 3)
    assert kept.raw(document.points["whole"]) is Marker.GARBLED
    assert "x" * 8_000 not in repr(kept.values)


def test_cache_text_that_is_too_long_for_any_value_is_garbled_and_a_usual_one_is_kept() -> None:
    document = parse_profile(PROFILE.replace("SECTION", FLEET), name="made-up")
    kept = made_cache({"portal": "p1"})
    kept.ingest("N/p1/mode", b"x" * cache.TEXT_MAX, retained=False, now_ms=1)
    assert kept.raw(document.points["mode"]) == "x" * cache.TEXT_MAX
    kept.ingest("N/p1/mode", b"x" * (cache.TEXT_MAX + 1), retained=False, now_ms=1)
    assert kept.raw(document.points["mode"]) is Marker.GARBLED
