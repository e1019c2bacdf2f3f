"""A small HTTP(S) server on loopback for the products with a web API, with every trouble a face can make.

Bodies are JSON. SILENT holds the request until the client gives up, DISCONNECT cuts it, GARBAGE is an HTML page with
200, REFUSE answers writes with an error, BUSY answers everything with 429 and Retry-After. A write is every method
besides GET on a path that is not in `reads` (a login, say).
"""

import asyncio
import contextlib
import hashlib
import ssl
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import orjson
from aiohttp import web

from simulators.faces.plant import Trouble

PAGE = "<html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>"
REMEMBERED = 10_000
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebDevice(Protocol):
    """What the server asks of the face."""

    trouble: Trouble
    late_s: float


def answer(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON body."""
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")


async def body_of(request: web.Request) -> dict[str, object]:
    """The JSON object a request brings; {} where it is anything else."""
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


class Certificate:
    """A self-signed certificate of its own (by the openssl program); `fingerprint`: SHA-256 of its DER form, hex."""

    def __init__(self, context: ssl.SSLContext, fingerprint: str) -> None:
        self.context = context
        self.fingerprint = fingerprint

    @classmethod
    async def make(cls, name: str) -> "Certificate":
        """Raises RuntimeError where openssl fails."""
        with tempfile.TemporaryDirectory() as directory:
            key, certificate = Path(directory, "key.pem"), Path(directory, "certificate.pem")
            kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650")
            files = ("-keyout", str(key), "-out", str(certificate))
            process = await asyncio.create_subprocess_exec(
                *("openssl", "req", "-x509", *kind, "-subj", f"/CN={name}", *files),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, error = await process.communicate()
            if process.returncode != 0:
                raise RuntimeError(f"openssl: {error.decode(errors='replace').strip()}")
            return cls._load(certificate, key)

    @classmethod
    def _load(cls, certificate: Path, key: Path) -> "Certificate":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        return cls(context, hashlib.sha256(der).hexdigest())


class WebServer:
    """Serves one face. `after_write`: called after each write that was taken, True = the product has rebooted.

    `requests` keeps the latest (method, path).
    """

    def __init__(
        self,
        device: WebDevice,
        routes: Sequence[web.RouteDef],
        *,
        reads: frozenset[str] = frozenset(),
        refuse_status: int = 403,
        busy_retry_s: int = 5,
    ) -> None:
        self._device = device
        self._routes = routes
        self._reads = reads
        self._refuse_status = refuse_status
        self.busy_retry_s = busy_retry_s
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()
        self.requests: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        self.after_write: Callable[[], bool] | None = None

    async def start(self, *, port: int = 0, context: ssl.SSLContext | None = None) -> int:
        """Listen; returns the port."""
        self._stopping.clear()
        app = web.Application(middlewares=[self._serve])
        app.add_routes(self._routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            self._stopping.set()
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def drop_all(self) -> None:
        """Cut every connection."""
        server = self._runner.server if self._runner is not None else None
        for connection in list(server.connections) if server is not None else []:
            if connection.transport is not None:
                connection.transport.abort()

    @web.middleware
    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        device, trouble = self._device, self._device.trouble
        is_write = request.method != "GET" and request.path not in self._reads
        if trouble is Trouble.SILENT:
            await self._stopping.wait()
        if trouble in (Trouble.SILENT, Trouble.DISCONNECT):
            return _cut(request)
        if trouble is Trouble.GARBAGE:
            return web.Response(text=PAGE, content_type="text/html")
        if trouble is Trouble.BUSY:
            return answer({"error": "busy"}, status=429, headers={"Retry-After": str(self.busy_retry_s)})
        if trouble is Trouble.REFUSE and is_write:
            return answer({"error": "not allowed"}, status=self._refuse_status)
        try:
            response = await handler(request)
        except web.HTTPException as refused:
            response = answer({"error": refused.reason}, status=refused.status)
        if is_write and response.status < 400 and self.after_write is not None and self.after_write():
            return _cut(request)
        if trouble is Trouble.LATE:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), device.late_s)
        return response


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
