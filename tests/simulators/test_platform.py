"""The platform over real HTTP and MQTT on loopback."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import aiomqtt
import orjson
import pytest
from aiohttp import web

from simulators.platform import DISPATCH_TOPIC, INTERVALS_TOPIC, Outage, Platform
from tests.simulators.conftest import Mosquitto
from tests.simulators.test_ledger import row

CEILING_S = 60


@asynccontextmanager
async def running(platform: Platform) -> AsyncIterator[Platform]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(platform.run(), name="platform")
        async with asyncio.timeout(CEILING_S):
            await platform.ready.wait()
        yield platform
        task.cancel()


async def post(platform: Platform, rows: list[dict[str, Any]], key: str) -> tuple[int, dict[str, Any]]:
    body = gzip.compress(orjson.dumps({"batch": key, "intervals": rows}))
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json", "Idempotency-Key": key}
    async with (
        aiohttp.ClientSession() as session,
        session.post(platform.url, data=body, headers=headers) as response,
    ):
        text = await response.read()
        return response.status, orjson.loads(text) if response.status == 200 else {}


async def test_platform_batch_is_booked_row_by_row() -> None:
    async with running(Platform()) as platform:
        status, answer = await post(platform, [row(), row(samples=-1)], "a")
        assert (status, answer["accepted"]) == (200, 1)
        assert answer["rejected"] == [{"row": 1, "reason": "samples"}]
        assert len(platform.by_http) == 1


async def test_platform_same_key_again_gets_the_same_answer() -> None:
    async with running(Platform()) as platform:
        first = await post(platform, [row()], "a")
        assert await post(platform, [row()], "a") == first
        assert platform.by_http.duplicates == 0
        assert (await post(platform, [row(revision=1)], "a"))[0] == 422


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}"])
async def test_platform_body_that_is_none_is_a_bad_request(body: bytes) -> None:
    async with (
        running(Platform()) as platform,
        aiohttp.ClientSession() as session,
        session.post(platform.url, data=body, headers={"Idempotency-Key": "x"}) as response,
    ):
        assert response.status == 400


async def test_platform_outages_come_and_go() -> None:
    async with running(Platform()) as platform:
        await platform.set_outage(Outage.ERROR)
        assert (await post(platform, [row()], "a"))[0] == 503
        await platform.set_outage(Outage.REFUSED)
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(platform, [row()], "a")
        assert len(platform.by_http) == 0
        await platform.set_outage(Outage.MUTE)
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(platform, [row()], "a")
        assert len(platform.by_http) == 1
        await platform.set_outage(Outage.NONE)
        assert (await post(platform, [row()], "a"))[0] == 200
        assert (len(platform.by_http), platform.by_http.duplicates) == (1, 0)


async def test_platform_posts_events_with_its_token() -> None:
    seen: list[tuple[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append((request.headers["Authorization"], await request.json()))
        return web.json_response({"outcome": "accepted"}, status=202)

    app = web.Application()
    app.router.add_post("/v1/dispatch-events", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    answer = await Platform(gateway_url=url, token="secret").post_event({"id": "e1"})
    await runner.cleanup()
    assert answer.status == 202
    assert seen == [("Bearer secret", {"id": "e1"})]


async def test_platform_over_mqtt_books_rows_and_publishes_events(broker: Mosquitto) -> None:
    async with (
        running(Platform(mqtt_url=broker.url)) as platform,
        aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as gateway,
    ):
        received: asyncio.Queue[int] = asyncio.Queue()
        platform.on_received = lambda: received.put_nowait(platform.stats.mqtt_messages)
        await gateway.subscribe(DISPATCH_TOPIC, qos=1)
        await gateway.publish(INTERVALS_TOPIC, orjson.dumps(row()), qos=1)
        await gateway.publish(INTERVALS_TOPIC, b"{", qos=1)
        await gateway.publish(INTERVALS_TOPIC, orjson.dumps({"intervals": [row(), row(revision=1)]}), qos=1)
        await platform.publish_event({"id": "e1"})
        async with asyncio.timeout(CEILING_S):
            message = await anext(aiter(gateway.messages))
            while await received.get() < 3:
                pass
        assert orjson.loads(bytes(message.payload)) == {"id": "e1"}
        assert (len(platform.by_mqtt), platform.by_mqtt.duplicates, platform.stats.mqtt_malformed) == (2, 1, 1)
