"""The HTTP server: REST, metrics and health on one port."""

from contextlib import AsyncExitStack

from aiohttp import web

from gateway.api.app import Parts, make_app, server_log
from gateway.config.settings import Settings
from gateway.domain.errors import GatewayError

STOP_GRACE_S = 10.0


async def serve(settings: Settings, parts: Parts, stack: AsyncExitStack) -> None:
    runner = web.AppRunner(
        make_app(parts), access_log=None, shutdown_timeout=STOP_GRACE_S, logger=server_log(parts.peers)
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, settings.http.host, settings.http.port).start()
    except OSError as error:
        raise GatewayError(f"http: cannot listen on {settings.http.host}:{settings.http.port}: {error}") from error
