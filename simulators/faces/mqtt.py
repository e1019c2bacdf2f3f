"""A product's own connection to a broker (MQTT 5): kept up while the face runs, with the troubles all faces share.

What waits to be sent is kept once per key, the newest wins; what is published while there is no connection is lost, as
it is with a product that keeps no store. Troubles: SILENT sends nothing and hears nothing, DISCONNECT leaves and stays
away, GARBAGE sends what is no JSON, LATE sends each batch `late_s` late.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import aiomqtt

from simulators.faces.plant import Trouble

CONNECT_WITHIN_S = 10.0
AGAIN_S = 0.05


class Owner(Protocol):
    """What the link asks its face."""

    trouble: Trouble
    late_s: float


class Outgoing(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class _Dropped(Exception):
    """The face wants the connection gone."""


class MqttLink:
    """`on_connect()` runs after each (re)connection, `on_message(topic, payload)` for each message, on the loop."""

    def __init__(
        self,
        owner: Owner,
        *,
        client_id: str,
        subscriptions: Sequence[str],
        on_connect: Callable[[], None],
        on_message: Callable[[str, bytes], None],
        boot_s: float = 0.1,
    ) -> None:
        self._owner = owner
        self._client_id = client_id
        self._subscriptions = [(topic, 1) for topic in subscriptions]
        self._on_connect = on_connect
        self._on_message = on_message
        self._boot_s = boot_s
        self._waiting: dict[str, Outgoing] = {}
        self._due = asyncio.Event()
        self._drop = asyncio.Event()
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    async def start(self, host: str, port: int) -> None:
        """Connect and wait for it; a broker that is not there yet is tried for ever in the background."""
        self._stopping = False
        self._task = asyncio.create_task(self._run(host, port), name=f"face {self._client_id}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._up.wait()

    async def stop(self) -> None:
        # asyncio.wait_for (within the client) and a group whose child fails may swallow a cancellation: flags are sure.
        self._stopping = True
        self._drop.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, key: str = "") -> None:
        """Send as soon as the loop turns; `key` keeps messages of one topic apart (default: the newest wins)."""
        if not self.connected or self._owner.trouble is Trouble.SILENT:
            return
        if self._owner.trouble is Trouble.GARBAGE and payload:
            payload = b"{" + payload
        key = key or topic
        self._waiting.pop(key, None)
        self._waiting[key] = Outgoing(topic, payload, qos, retain)
        self._due.set()

    def drop(self) -> None:
        """Break the connection; it comes back by itself."""
        self._up.clear()
        self._waiting.clear()
        self._drop.set()

    def orphan(self) -> None:
        """The broker is about to die: say nothing more until a new connection."""
        self._up.clear()
        self._waiting.clear()

    def tend(self) -> None:
        """To be called often: leaves if the face is to be away."""
        if self._owner.trouble is Trouble.DISCONNECT and self.connected:
            self.drop()

    async def _run(self, host: str, port: int) -> None:
        while not self._stopping:
            if self._owner.trouble is Trouble.DISCONNECT:
                await asyncio.sleep(AGAIN_S)
                continue
            try:
                await self._session(host, port)
            except* (aiomqtt.MqttError, _Dropped, OSError):
                self._up.clear()
            await asyncio.sleep(self._boot_s)

    async def _session(self, host: str, port: int) -> None:
        client = aiomqtt.Client(
            host, port, identifier=self._client_id, protocol=aiomqtt.ProtocolVersion.V5, timeout=CONNECT_WITHIN_S
        )
        async with client:
            await client.subscribe(self._subscriptions)
            if self._stopping:
                return
            self._waiting.clear()
            self._drop.clear()
            self._up.set()
            self._on_connect()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(client), name="hear")
                group.create_task(self._tell(client), name="tell")
                group.create_task(self._wait_drop(), name="drop")

    async def _hear(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            if self._owner.trouble is not Trouble.SILENT and isinstance(message.payload, bytes):
                self._on_message(message.topic.value, message.payload)

    async def _tell(self, client: aiomqtt.Client) -> None:
        while not self._drop.is_set():
            await self._due.wait()
            self._due.clear()
            batch = list(self._waiting.values())
            self._waiting.clear()
            if self._owner.trouble is Trouble.LATE:
                await asyncio.sleep(self._owner.late_s)
            for out in batch:
                await client.publish(out.topic, out.payload, qos=out.qos, retain=out.retain)

    async def _wait_drop(self) -> None:
        await self._drop.wait()
        raise _Dropped
