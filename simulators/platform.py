"""The central platform: receives intervals over HTTP and MQTT and reports over MQTT, sends dispatch events over either.

HTTP in: POST /intervals, gzip JSON {"batch", "intervals": [row, ...]} with Idempotency-Key; answers 200 with
{"batch", "accepted", "rejected": [{"row", "reason"}]}, or an outage. MQTT in: gateway/v1/platform/intervals, a row, a
list of rows or such a batch; delivery records; what the fleet can sustain. Events out: POST
{gateway}/v1/dispatch-events, or gateway/v1/platform/dispatch at QoS 1.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import aiohttp
import aiomqtt
import orjson
from aiohttp import web
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from simulators.ledger import Ledger
from simulators.uplink import Endpoint

INTERVALS_TOPIC = "gateway/v1/platform/intervals"
DISPATCH_TOPIC = "gateway/v1/platform/dispatch"
DELIVERIES_TOPIC = "gateway/v1/platform/dispatch/deliveries"
AVAILABILITY_TOPIC = "gateway/v1/platform/availability"
BODY_MAX = 64 * 1024 * 1024
KEYS_MAX = 10_000
QUEUED_MAX = 100_000
SESSION_S = 300
RECONNECT_S = 0.5
REQUEST_S = 10.0


class Outage(Enum):
    """How the HTTP side fails."""

    NONE = "none"
    ERROR = "error"  # answers 503
    REFUSED = "refused"  # does not listen, cuts what is connected
    MUTE = "mute"  # stores, then cuts the connection without an answer


@dataclass(slots=True, kw_only=True)
class PlatformStats:
    """What the platform counted."""

    batches: int = 0
    batches_repeated: int = 0
    keys_reused: int = 0
    bad_requests: int = 0
    turned_away: int = 0
    mqtt_messages: int = 0
    mqtt_malformed: int = 0
    availability_reports: int = 0
    events_posted: int = 0
    events_published: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventAnswer:
    """The gateway's answer to a posted event."""

    status: int
    body: bytes


class Platform:
    """A platform on loopback; `run` lasts until it is cancelled.

    `ready` is set once it listens (and, where it uses MQTT, is subscribed); `on_received` is called after each batch or
    MQTT message. `deliveries` are the newest delivery records by their id.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        mqtt_url: str | None = None,
        gateway_url: str | None = None,
        token: str | None = None,
        name: str = "platform",
    ) -> None:
        self.by_http = Ledger()
        self.by_mqtt = Ledger()
        self.deliveries: dict[str, dict[str, Any]] = {}
        self.stats = PlatformStats()
        self.ready = asyncio.Event()
        self.outage = Outage.NONE
        self.on_received: Callable[[], None] | None = None
        self.gateway_url = gateway_url
        self._host = host
        self._port = port
        self._token = token
        self._name = name
        self._endpoint = Endpoint.parse(mqtt_url) if mqtt_url is not None else None
        self._mqtt: aiomqtt.Client | None = None
        self._subscribed = asyncio.Event()
        self._answers: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def url(self) -> str:
        """Where intervals are posted; known once `ready`."""
        return f"http://{self._host}:{self._port}/intervals"

    async def run(self) -> None:
        """Serve until cancelled."""
        app = web.Application(client_max_size=BODY_MAX)
        app.router.add_post("/intervals", self._intervals)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await self._listen()
            async with asyncio.TaskGroup() as tasks:
                if self._endpoint is not None:
                    tasks.create_task(self._listen_mqtt(self._endpoint), name="platform mqtt")
                    await self._subscribed.wait()
                self.ready.set()
                await asyncio.Event().wait()
        finally:
            self.ready.clear()
            await self._runner.cleanup()

    async def set_outage(self, outage: Outage) -> None:
        """Begin or end an outage of the HTTP side; the port stays the same."""
        self.outage = outage
        if outage is Outage.REFUSED and self._site is not None:
            await self._site.stop()
            self._site = None
        elif outage is not Outage.REFUSED and self._site is None:
            await self._listen()

    async def post_event(self, event: dict[str, object]) -> EventAnswer:
        """Hand the gateway an event over REST; aiohttp.ClientError or TimeoutError when there is no answer."""
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        timeout = aiohttp.ClientTimeout(total=REQUEST_S)
        url = f"{(self.gateway_url or '').rstrip('/')}/v1/dispatch-events"
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=orjson.dumps(event), headers=headers) as response,
        ):
            self.stats.events_posted += 1
            return EventAnswer(status=response.status, body=await response.read())

    async def publish_event(self, event: dict[str, object]) -> None:
        """Hand the gateway an event over MQTT; aiomqtt.MqttError when not connected."""
        if self._mqtt is None:
            raise aiomqtt.MqttError("platform is not connected")
        await self._mqtt.publish(DISPATCH_TOPIC, orjson.dumps(event), qos=1, timeout=REQUEST_S)
        self.stats.events_published += 1

    async def _listen(self) -> None:
        if self._runner is None:
            return
        self._site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        await self._site.start()
        if self._port == 0:
            self._port = int(self._runner.addresses[0][1])

    async def _intervals(self, request: web.Request) -> web.Response:
        if self.outage is Outage.REFUSED:
            self.stats.turned_away += 1
            return self._cut(request)
        if self.outage is Outage.ERROR:
            self.stats.turned_away += 1
            return web.Response(status=503, headers={"Retry-After": "1"})
        key, body = request.headers.get("Idempotency-Key", ""), await request.read()
        digest = hashlib.sha256(body).digest()
        known = self._answers.get(key)
        if known is not None and known[0] != digest:
            self.stats.keys_reused += 1
            return web.Response(status=422)
        answer = self._book(body) if known is None else known[1]
        if not key or answer is None:
            self.stats.bad_requests += 1
            return web.Response(status=400)
        self.stats.batches += 1
        self.stats.batches_repeated += known is not None
        self._answers[key] = (digest, answer)
        while len(self._answers) > KEYS_MAX:
            self._answers.popitem(last=False)
        if self.outage is Outage.MUTE:
            return self._cut(request)
        return web.Response(body=answer, content_type="application/json")

    def _book(self, body: bytes) -> bytes | None:
        """Book a batch; the answer, or None for a body that is none."""
        try:
            batch = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(batch, dict) or not isinstance(batch.get("intervals"), list):
            return None
        answers = self.by_http.take_all(batch["intervals"])
        self._tell()
        rejected = [{"row": row, "reason": reason} for row, reason in enumerate(answers) if reason is not None]
        return orjson.dumps(
            {"batch": batch.get("batch"), "accepted": len(answers) - len(rejected), "rejected": rejected}
        )

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    async def _listen_mqtt(self, endpoint: Endpoint) -> None:
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = SESSION_S
        while True:
            client = aiomqtt.Client(
                endpoint.host,
                endpoint.port,
                username=endpoint.username,
                password=endpoint.password,
                identifier=self._name,
                protocol=aiomqtt.ProtocolVersion.V5,
                clean_start=False,
                properties=session,
                keepalive=20,
                max_queued_incoming_messages=QUEUED_MAX,
            )
            try:
                async with client:
                    await client.subscribe([(t, 1) for t in (INTERVALS_TOPIC, DELIVERIES_TOPIC, AVAILABILITY_TOPIC)])
                    self._mqtt = client
                    self._subscribed.set()
                    async for message in client.messages:
                        self._take_mqtt(str(message.topic), message.payload)
            except aiomqtt.MqttError:
                await asyncio.sleep(RECONNECT_S)
            finally:
                self._mqtt = None

    def _take_mqtt(self, topic: str, payload: object) -> None:
        self.stats.mqtt_messages += 1
        try:
            body = orjson.loads(payload if isinstance(payload, bytes | bytearray) else b"")
        except orjson.JSONDecodeError:
            self.stats.mqtt_malformed += 1
        else:
            if topic == DELIVERIES_TOPIC:
                self.deliveries |= {record["id"]: record for record in body["devices"]}
            elif topic == AVAILABILITY_TOPIC:
                self.stats.availability_reports += 1
            else:
                if isinstance(body, dict) and isinstance(body.get("intervals"), list):
                    body = body["intervals"]
                self.by_mqtt.take_all(body if isinstance(body, list) else [body])
        self._tell()

    def _tell(self) -> None:
        if self.on_received is not None:
            self.on_received()
