"""Sinks against real receivers: a scripted HTTP server, a broker with and without somebody who listens."""

import asyncio
import gzip
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import aiomqtt
import mqtt5
import orjson
import pytest
from aiohttp import web
from pydantic import SecretStr

from gateway.ports.sinks import Accept, Keep, Reject, SinkResult, Stop
from gateway.schemas.interval_rows import rfc3339, row_of
from gateway.services.uplink.delivery import SinkDelivery
from gateway.sinks.http import HttpSink, HttpSinkSettings
from gateway.sinks.mqtt import INTERVAL_TOPIC, MqttSink, MqttSinkSettings
from gateway.transports.mqtt.connection import MqttConnection, OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings
from simulators.broker import Broker
from simulators.ledger import IntervalRow, read_row
from tests.builders.interval_logs import MemoryReader, batch, record
from tests.scenes.waiting import service, until
from tests.virtual.clock import loop_clock

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
UNACCOUNTED = "reply_does_not_account_for_every_row"
BATCH = batch([record(1), record(2), record(3)])


@asynccontextmanager
async def receiver(answer: Answer) -> AsyncIterator[str]:
    """An HTTP server that answers every POST so; gives its address."""
    app = web.Application()
    app.router.add_post("/intervals", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/intervals"
    finally:
        await runner.cleanup()


async def sent(answer: Answer, *, timeout_s: float = 30, token: str | None = None) -> SinkResult:
    """What the sink makes of one batch."""
    async with receiver(answer) as url:
        secret = SecretStr(token) if token else None
        sink = HttpSink(HttpSinkSettings(kind="http", name="p", url=url, timeout_s=timeout_s, token=secret))
        try:
            return await sink.send(BATCH)
        finally:
            await sink.close()


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


async def test_http_sink_sends_a_gzip_batch_with_its_key_and_token() -> None:
    seen: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.read()))
        return web.json_response({"batch": "abc", "accepted": 3, "rejected": []})

    assert await sent(answer, token="0123456789abcdef") == Accept()
    headers, body = seen[0]
    assert headers["Content-Encoding"] == "gzip"
    assert (headers["Idempotency-Key"], headers["Authorization"]) == ("abc", "Bearer 0123456789abcdef")
    decoded = orjson.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
    assert decoded == {"batch": "abc", "intervals": [row_of(r) for r in BATCH.rows]}


async def test_http_sink_repeated_batch_is_the_same_to_the_byte() -> None:
    bodies: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(status=503)

    await sent(answer)
    await sent(answer)
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (200, b'{"batch": "abc", "accepted": 3}', {}, Accept()),
        (201, b'{"batch": "abc", "accepted": 3, "rejected": [], "more": 1}', {}, Accept()),
        (200, b'{"batch": "abc", "accepted": 1, "rejected": [{"row": 2, "reason": "No such home!"}, {"row": 0}]}', {},
         Reject(refused={0: "refused_by_receiver", 2: "no_such_home"})),
        (200, b'{"batch": "abc", "accepted": 0, "rejected": [{"row": 0}, {"row": 1}, {"row": 2}]}', {},
         Reject(refused=dict.fromkeys(range(3), "refused_by_receiver"))),
        (200, b'{"batch": "abc", "accepted": 0, "rejected": [{"row": 0, "reason": "too_late"},'
              b' {"row": 1, "reason": "Unknown meter 4711 of a@b.de!"}, {"row": 2, "reason": "MTR_0003"}]}', {},
         Reject(refused={0: "too_late", 1: "unknown_meter_of", 2: "mtr_0003"})),
        (200, b'{"batch": "abc", "accepted": 0, "rejected": [{"row": 0, "reason": ""},'
              b' {"row": 1, "reason": "1234 5678"}, {"row": 2, "reason": "%s"}]}' % (b"word " * 400), {},
         Reject(refused={0: "refused_by_receiver", 1: "refused_by_receiver", 2: "word_word_word_word_word_word"})),
        (200, b'{"batch": "abc", "accepted": 2, "rejected": [{"row": 2, "reason": "HX-20481234"}]}', {},
         Reject(refused={2: "hx"})),
        (200, b'{"batch": "abc", "accepted": 2, "rejected": [{"row": 2, "reason": 7}]}', {},
         Keep(reason="reply_malformed")),
        (200, b'{"batch": "abd", "accepted": 3}', {}, Keep(reason="reply_of_another_batch")),
        (200, b'{"batch": "abc", "accepted": 2}', {}, Keep(reason=UNACCOUNTED)),
        (200, b'{"batch": "abc", "accepted": 4}', {}, Keep(reason=UNACCOUNTED)),
        (200, b'{"batch": "abc", "accepted": 3, "rejected": [{"row": 1}]}', {}, Keep(reason=UNACCOUNTED)),
        (200, b'{"batch": "abc", "accepted": 2, "rejected": [{"row": 3}]}', {}, Keep(reason=UNACCOUNTED)),
        (200, b'{"batch": "abc", "accepted": 1, "rejected": [{"row": 1}, {"row": 1}]}', {}, Keep(reason=UNACCOUNTED)),
        (200, b"", {}, Keep(reason="reply_malformed")),
        (204, b"", {}, Keep(reason="reply_malformed")),
        (200, b'{"accepted": 3}', {}, Keep(reason="reply_malformed")),
        (200, b'{"batch": "abc"}', {}, Keep(reason="reply_malformed")),
        (200, b'{"batch": "abc", "accepted": "3"}', {}, Keep(reason="reply_malformed")),
        (200, b'{"batch": "abc", "accepted": 2, "rejected": [{"row": -1}]}', {}, Keep(reason="reply_malformed")),
        (200, b'{"batch": "abc", "accepted": 2, "rejected": [{}]}', {}, Keep(reason="reply_malformed")),
        (200, b'{"batch": "abc", "accepted": 2, "rejected": 7}', {}, Keep(reason="reply_malformed")),
        (200, b"[]", {}, Keep(reason="reply_malformed")),
        (200, b"<html>", {}, Keep(reason="reply_malformed")),
        (200, b"\xff\xfe", {}, Keep(reason="reply_malformed")),
        (429, b"", {"Retry_After": "7"}, Keep(reason="http_429", after_s=7.0)),
        (429, b"", {"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, Keep(reason="http_429")),
        (503, b"", {"Retry_After": "999999999"}, Keep(reason="http_503", after_s=3600.0)),
        (500, b"oops", {}, Keep(reason="http_500")),
        (400, b"", {}, Keep(reason="http_400", whole=True)),
        (413, b"", {}, Keep(reason="http_413", whole=True)),
        (401, b"", {}, Stop(reason="http_401", retry_s=3600.0)),
        (403, b'{"title":\n"wrong\x00 key"}', {},
         Stop(reason="http_403", detail='{"title": "wrong key"}', retry_s=3600.0)),
        (302, b"", {"Location": "http://127.0.0.1:1/"}, Keep(reason="http_302")),
    ],
)  # fmt: skip
async def test_http_sink_judges_the_answer(
    status: int, body: bytes, headers: dict[str, str], expected: SinkResult
) -> None:
    assert await sent(says(status, body, **headers)) == expected


async def test_http_sink_answer_in_pieces_is_read_whole() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        for piece in (b'{"batch": "abc", "accepted": 2, "rejected": ', b'[{"row"', b": 1}]}"):
            await reply.write(piece)
            await asyncio.sleep(0.02)
        await reply.write_eof()
        return reply

    assert await sent(answer) == Reject(refused={1: "refused_by_receiver"})


async def test_http_sink_answer_without_end_is_cut_off() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        for _ in range(100):
            try:
                await reply.write(b"[" * (1 << 20))
            except ConnectionError:
                break
        return reply

    assert await sent(answer) == Keep(reason="reply_malformed")


TAKEN = b'{"batch": "abc", "accepted": 3}'
PORTAL = b"<!doctype html><title>Welcome</title><form action=/login></form>"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_http_sink_follows_no_redirect_and_takes_none_for_acceptance(status: int) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        return web.Response(status=status, body=TAKEN, headers={"Location": "/intervals?again"})

    assert await sent(answer, token="0123456789abcdef") == Keep(reason=f"http_{status}")
    assert asked == ["/intervals"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"true", b"3", b'"accepted"', b"{}", PORTAL, TAKEN[:-1], TAKEN + TAKEN,
        b'{"batch": "abc", "accepted": true}', b'{"batch": "abc", "accepted": "3"}',
        b'{"batch": null, "accepted": 3}', b'{"batch": ["abc"], "accepted": 3}', b"[" + TAKEN + b"]",
        b'{"batch": "abc", "accepted": 3, "rejected": null}',
    ],
)  # fmt: skip
async def test_http_sink_answer_that_is_none_accepts_nothing(body: bytes) -> None:
    assert await sent(says(200, body)) == Keep(reason="reply_malformed")


async def test_http_sink_answer_of_an_older_batch_or_with_other_counts_accepts_nothing() -> None:
    for answer, reason in (
        ({"batch": "aaa", "accepted": 3}, "reply_of_another_batch"),
        ({"batch": "ABC", "accepted": 3}, "reply_of_another_batch"),
        ({"batch": "", "accepted": 3}, "reply_of_another_batch"),
        ({"batch": "abc", "accepted": 0}, UNACCOUNTED),
        ({"batch": "abc", "accepted": 4}, UNACCOUNTED),
        ({"batch": "abc", "accepted": 3, "rejected": [{"row": 1}]}, UNACCOUNTED),
        ({"batch": "abc", "accepted": 1, "rejected": [{"row": 1}, {"row": 1}]}, UNACCOUNTED),
        ({"batch": "abc", "accepted": 2, "rejected": [{"row": 3}]}, UNACCOUNTED),
    ):
        assert await sent(says(200, orjson.dumps(answer))) == Keep(reason=reason)


async def test_http_sink_packed_answer_is_unpacked_and_one_that_is_broken_or_a_bomb_accepts_nothing() -> None:
    packed = gzip.compress(TAKEN, mtime=0)
    assert await sent(says(200, packed, Content_Encoding="gzip")) == Accept()
    for body in (TAKEN, packed[:-12], b"\x1f\x8b" + b"\x00" * 40, gzip.compress(b"[" * (64 << 20), 1, mtime=0)):
        assert isinstance(await sent(says(200, body, Content_Encoding="gzip")), Keep)


@pytest.mark.parametrize(
    "head", [b"Content-Length: 900\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1f\r\n"], ids=["length", "chunked"]
)
async def test_http_sink_answer_that_is_cut_accepts_nothing_even_where_what_came_reads_well(head: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + TAKEN)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        sink = HttpSink(HttpSinkSettings(kind="http", name="p", url=f"http://127.0.0.1:{port}/intervals"))
        assert isinstance(await sink.send(BATCH), Keep)
        await sink.close()


async def test_http_sink_mute_receiver_times_out() -> None:
    async def answer(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    assert await sent(answer, timeout_s=0.2) == Keep(reason="timeout")


async def test_http_sink_cut_connection_and_closed_port_are_kept() -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    assert isinstance(await sent(answer), Keep)
    sink = HttpSink(HttpSinkSettings(kind="http", name="p", url="http://127.0.0.1:1/"))
    assert isinstance(await sink.send(BATCH), Keep)
    await sink.close()


async def test_http_sink_token_is_not_shown() -> None:
    settings = HttpSinkSettings(kind="http", name="p", url="https://x/", token=SecretStr("correct-horse-staple"))
    assert "horse" not in repr(settings) + str(settings.model_dump_json())


@asynccontextmanager
async def mqtt_sink(broker: Broker, *, reconnect_s: float = 0.05) -> AsyncIterator[tuple[MqttSink, MqttConnection]]:
    clock, url = loop_clock(), f"mqtt://127.0.0.1:{broker.port}"
    settings = MqttSettings(url=url, client_id="gateway-platform", reconnect_base_s=reconnect_s)
    connection = MqttConnection(
        settings, clock=clock, subscriptions=[mqtt5.TopicFilter("x")], on_messages=lambda _g, _p, _i: None
    )
    sink = MqttSink(MqttSinkSettings(kind="mqtt", name="m", timeout_s=5), connection=connection, clock=clock)
    async with service(connection.run):
        await asyncio.wait_for(connection.wait_connected(), 30)
        yield sink, connection


async def test_mqtt_sink_accepted_when_every_record_is_acknowledged() -> None:
    async with (
        Broker() as broker,
        aiomqtt.Client(
            "127.0.0.1", broker.port, identifier="platform", protocol=aiomqtt.ProtocolVersion.V5
        ) as platform,
        mqtt_sink(broker) as (sink, _),
    ):
        await platform.subscribe(INTERVAL_TOPIC, qos=1)
        assert await sink.send(BATCH) == Accept()
        got: list[object] = []
        async with asyncio.timeout(30):
            async for message in platform.messages:
                got.append(orjson.loads(bytes(message.payload)))
                if len(got) == 3:
                    break
        assert got == [row_of(r) for r in BATCH.rows]


async def test_mqtt_sink_without_a_subscriber_keeps_the_batch() -> None:
    async with Broker() as broker, mqtt_sink(broker) as (sink, _):
        assert await sink.send(BATCH) == Keep(reason="no_subscriber")


async def test_mqtt_sink_without_a_connection_keeps_the_batch() -> None:
    async with Broker() as broker, mqtt_sink(broker, reconnect_s=60) as (sink, connection):
        broker.hub.close()
        await until(lambda: not connection.connected)
        result = await sink.send(BATCH)
        assert isinstance(result, Keep)


class PickyBroker(MqttConnection):
    """A connection to a broker that refuses what `refuses`."""

    def __init__(self, refuses: Callable[[bytes], bool]) -> None:
        settings = MqttSettings(url="mqtt://127.0.0.1:1", client_id="gateway-platform")
        super().__init__(settings, clock=loop_clock(), subscriptions=[], on_messages=lambda _g, _p, _i: None)
        self.refuses = refuses

    @property
    def connected(self) -> bool:
        return True

    async def publish(self, messages: Sequence[OutMessage], *, deadline_mono_ms: int) -> list[PublishOutcome]:
        return [
            PublishOutcome.REFUSED if self.refuses(message.payload) else PublishOutcome.ACKED for message in messages
        ]


async def test_mqtt_sink_record_that_the_broker_refuses_is_parked_and_keeps_no_others_back() -> None:
    broker = PickyBroker(lambda payload: b"home-7" in payload)
    sink = MqttSink(MqttSinkSettings(kind="mqtt", name="m"), connection=broker, clock=loop_clock())
    rows = MemoryReader([record(i) for i in range(10)])
    delivery = SinkDelivery(sink, log_=rows, finder=rows, clock=loop_clock(), rng=random.Random(1), rate=1e9)
    async with service(delivery.run):
        await until(lambda: rows.state.live.row == 10)
    assert rows.parked == {(record(7).start_ms, "home-7", 1): "refused"}
    assert delivery.stats.accepted == 9


async def test_mqtt_sink_broker_that_refuses_everything_has_nothing_parked() -> None:
    broker = PickyBroker(lambda _payload: True)
    sink = MqttSink(MqttSinkSettings(kind="mqtt", name="m"), connection=broker, clock=loop_clock())
    rows = MemoryReader([record(i) for i in range(10)])
    delivery = SinkDelivery(sink, log_=rows, finder=rows, clock=loop_clock(), rng=random.Random(1), rate=1e9)
    async with service(delivery.run):
        await asyncio.sleep(3_600)
        assert (rows.parked, delivery.warnings()) == ({}, ["sink m: refused"])
        broker.refuses = lambda _payload: False
        delivery.retry()
        await until(lambda: rows.state.live.row == 10)
    assert delivery.stats.accepted == 10


def test_row_is_what_a_platform_reads() -> None:
    row = row_of(record(1, charge_wh=None))
    found = read_row(row)
    assert isinstance(found, IntervalRow)
    assert (found.device, found.start_ms, found.charge_wh, found.samples) == ("home-1", record(1).start_ms, None, 30)


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "1970-01-01T00:00:00Z"), (1_500, "1970-01-01T00:00:01.500Z"), (-1, "1969-12-31T23:59:59.999Z")]
)
def test_rfc3339_writes_utc(ms: int, text: str) -> None:
    assert rfc3339(ms) == text
