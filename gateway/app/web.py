"""The HTTP server: REST, metrics and health, with a second listener for these two if asked for, behind a door that
bounds connections."""

import resource
import ssl

from aiohttp import web

from gateway.addresses import is_loopback
from gateway.api.access.refusals import Refusals
from gateway.api.app import Parts, make_app, make_metrics_app, server_log
from gateway.api.guard import Doorway
from gateway.app.access import Access
from gateway.app.door import Door
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.domain.errors import GatewayError

STOP_GRACE_S = 10.0
CONNECTIONS_MIN, CONNECTIONS_MAX = 64, 1_024


def connections_max(files: int) -> int:
    """How many peers may be connected: a quarter of the files that the process may open (`files`, -1 = any number), for
    brokers and batteries need the others."""
    return CONNECTIONS_MAX if files < 0 else max(CONNECTIONS_MIN, min(CONNECTIONS_MAX, files // 4))


def front_door(refusals: Refusals) -> Door:
    """A door for this process."""
    return Door(connections_max(resource.getrlimit(resource.RLIMIT_NOFILE)[0]), refusals)


async def serve(settings: Settings, parts: Parts, door: Door, access: Access) -> None:
    """Serve until the door is closed. Raises GatewayError."""
    http = settings.http
    await _listen(door, make_app(parts), parts, http.host, http.port, access.tls)
    metrics = http.metrics
    if metrics is not None:
        app = make_metrics_app(parts, doorway(access, parts.clock, metrics.host, parts.door.refusals))
        tls = None if is_loopback(metrics.host) else access.tls
        await _listen(door, app, parts, metrics.host, metrics.port, tls)


def doorway(access: Access, clock: Clock, host: str, refusals: Refusals) -> Doorway:
    """How requests come to a listener at `host`."""
    return Doorway(callers=lambda: access.callers, clock=clock, refusals=refusals, exposed=not is_loopback(host))


async def _listen(
    door: Door, app: web.Application, parts: Parts, host: str, port: int, tls: ssl.SSLContext | None
) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_GRACE_S, logger=server_log(parts.peers))
    try:
        await door.listen(runner, host, port, tls=tls)
    except OSError as error:
        raise GatewayError(f"http: cannot listen on {host}:{port}: {error}") from error
